//! What weft made on a host, and whether anybody still looks after it.

use super::{Agent, Facts, Finding};

/// What of weft's is in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Whether the state directory belongs to a member of a cluster; absent where it cannot be read.
    pub member: Option<bool>,
    /// Whether an agent holds the run directory, even if it does not answer.
    pub held: bool,
    /// Pinned namespaces.
    pub pins: Vec<String>,
    /// Tables of nftables, as `FAMILY NAME`.
    pub tables: Vec<String>,
    /// Number of routing rules.
    pub rules: usize,
    /// Links.
    pub links: Vec<String>,
}

impl Leftovers {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.tables.is_empty() && self.rules == 0 && self.links.is_empty()
    }

    /// What there is, for a person.
    #[must_use]
    pub fn listed(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |what: &str, names: &[String]| {
            if !names.is_empty() {
                parts.push(format!("{} {what} ({})", names.len(), few(names)));
            }
        };
        add("namespaces", &self.pins);
        add("tables", &self.tables);
        add("links", &self.links);
        if self.rules > 0 {
            parts.push(format!("{} routing rules", self.rules));
        }
        parts.join(", ")
    }
}

/// The first few names.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))
}

pub(super) fn judge(facts: &Facts) -> Finding {
    const CHECK: &str = "leftovers";
    let left = &facts.leftovers;
    match (&facts.agent, left.held) {
        (Agent::Answers { .. }, _) => return Finding::ok(CHECK, "the agent looks after what it made"),
        (Agent::Silent(_), true) => {
            return Finding::ok(CHECK, "an agent that does not answer yet holds the run directory");
        }
        (Agent::Silent(_), false) if left.is_empty() => {
            return Finding::ok(CHECK, "nothing of weft's is left here");
        }
        (Agent::Silent(_), false) => {}
    }
    if left.member == Some(false) {
        return Finding::warning(CHECK, format!("{}, of an agent that will not come back", left.listed()))
            .because("this host is in no cluster: nobody takes them away")
            .remedy("'weft cleanup'");
    }
    Finding::ok(
        CHECK,
        format!("kept for the agent's next start ('weft cleanup' removes them): {}", left.listed()),
    )
}
