//! What may keep weft from working on a host, and what to do about it: facts in, findings out.
//!
//! `crate::io::doctor` gathers the facts; nothing here looks at the host. One finding a check, in the order in which
//! an operator mends things: the agent, what it needs of the host, the way to other hosts, Docker, what was left behind.

use std::net::IpAddr;

use serde::Serialize;

use crate::api::{Peer, Status};

mod docker;
mod host;
mod leftovers;
#[cfg(test)]
mod tests;
mod underlay;

pub use docker::{Engine, Plugin};
pub use host::{Kernel, Nft, Privileges, Tun};
pub use leftovers::Leftovers;
pub use underlay::{Holder, PathMtu, PeerPath, Port, Transport, Underlay, VxlanDevice};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// weft works, but something is worse than it could be, or could not be looked at.
    Warning,
    /// weft, or a part of it, does not work.
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub found: String,
    /// Why that matters; empty where nothing is to be done.
    pub why: String,
    /// What to do; empty where nothing is to be done.
    pub remedy: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), why: String::new(), remedy: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>) -> Self {
        Self { state: State::Warning, ..Self::ok(check, found) }
    }

    fn problem(check: &'static str, found: impl Into<String>) -> Self {
        Self { state: State::Problem, ..Self::ok(check, found) }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}

/// The agent of this host.
#[derive(Debug, Clone)]
pub enum Agent {
    /// It answers.
    Answers {
        /// What it says of itself.
        status: Box<Status>,
        /// Whom it knows.
        peers: Vec<Peer>,
    },
    /// It does not, for this reason.
    Silent(String),
}

/// Everything that was looked at. What could not be looked at says so in its own way.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Version of this program.
    pub version: &'static str,
    /// The agent, and the path of its socket.
    pub agent: Agent,
    /// Where the agent's socket is, or would be.
    pub socket: String,
    /// What this process may do.
    pub privileges: Privileges,
    /// The kernel.
    pub kernel: Kernel,
    /// TAP devices.
    pub tun: Tun,
    /// nftables.
    pub nft: Nft,
    /// Ports that weft uses.
    pub ports: Vec<Port>,
    /// VXLAN devices of the kernel's, wherever they were seen.
    pub vxlan: Vec<VxlanDevice>,
    /// The address others reach this host by, or why there is none.
    pub underlay: Result<Underlay, String>,
    /// What others' firewall rules drop of what comes in, as far as it can be seen: tables and chains that drop by
    /// default and have no rule about a port of weft's.
    pub closed_chains: Vec<String>,
    /// Paths to other members.
    pub paths: Vec<PeerPath>,
    /// Whether something keeps the clock; absent where it cannot be told.
    pub clock_kept: Option<bool>,
    /// `net.bridge.bridge-nf-call-iptables` and `…-ip6tables`; absent where the module is not loaded.
    pub bridge_filtering: [Option<bool>; 2],
    /// Docker's engine.
    pub engine: Engine,
    /// weft's sockets for it.
    pub plugin: Plugin,
    /// What weft made on this host.
    pub leftovers: Leftovers,
}

impl Facts {
    /// The agent's answers.
    fn answers(&self) -> Option<(&Status, &[Peer])> {
        match &self.agent {
            Agent::Answers { status, peers } => Some((status, peers)),
            Agent::Silent(_) => None,
        }
    }
}

/// Judges everything.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![agent(facts)];
    findings.extend(said_by_agent(facts));
    findings.push(host::privileges(facts));
    findings.push(host::kernel(&facts.kernel));
    findings.push(host::tun(&facts.tun, facts.privileges.root));
    findings.push(host::nft(&facts.nft));
    findings.extend(host::bridge_filtering(facts.bridge_filtering));
    findings.push(host::clock(facts.clock_kept));
    findings.extend(facts.ports.iter().map(|port| underlay::port(facts, port)));
    findings.extend(underlay::firewall(facts));
    findings.push(underlay::address(&facts.underlay));
    findings.extend(underlay::paths(facts));
    findings.push(docker::engine(&facts.engine));
    findings.extend(docker::swarm(&facts.engine));
    findings.push(docker::plugin(facts));
    findings.push(leftovers::judge(facts));
    findings
}

fn agent(facts: &Facts) -> Finding {
    const CHECK: &str = "agent";
    let socket = &facts.socket;
    match &facts.agent {
        Agent::Silent(why) => Finding::warning(CHECK, format!("no agent answers at {socket}: {why}"))
            .because("without one nothing crosses between hosts, and no network is made or changed")
            .remedy("start it ('systemctl start weft', or 'weft agent'), or name its socket with --socket"),
        Agent::Answers { status, .. } if status.version != facts.version => Finding::warning(
            CHECK,
            format!("the agent is version {}, this is {}", status.version, facts.version),
        )
        .because("the one that runs is not the one that is installed")
        .remedy("restart the agent; networks and sandboxes stay"),
        Agent::Answers { status, .. } => {
            Finding::ok(CHECK, format!("{} at {socket}, version {}", status.node, status.version))
        }
    }
}

/// The agent's own warnings, each of which says what to do.
fn said_by_agent(facts: &Facts) -> impl Iterator<Item = Finding> {
    let warnings = facts.answers().map(|(status, _)| status.warnings.clone()).unwrap_or_default();
    warnings.into_iter().map(|warning| Finding::warning("agent's warning", warning))
}

/// Octets that weft adds to a packet, in clear and sealed networks (IPv4, else IPv6, outside).
fn overhead(underlay: IpAddr) -> [u16; 2] {
    if underlay.is_ipv4() { [50, 74] } else { [70, 94] }
}
