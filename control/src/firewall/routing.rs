//! Routing rules: they stay when a ruleset is flushed, and let nothing through that no table has marked.
//!
//! In order: what this host sends itself to a sandbox goes the usual way; what goes to a sandbox, or comes from one,
//! without a mark goes nowhere; of internal networks even what has a mark. What is for the host itself is found in the
//! table `local` before any of them (ip-rule(8)).

use ipnet::IpNet;

use super::{Bridge, Family};

/// Priorities of all our rules; whatever else has them is removed.
pub const PRIORITIES: std::ops::RangeInclusive<u32> = OWN..=FROM;
const OWN: u32 = 4789;
const TO: u32 = 4790;
const FROM: u32 = 4791;

/// What happens to what a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is looked up in the main table.
    Main,
    /// It vanishes; whoever sent it sends it again, and by then tables may be back.
    Blackhole,
}

/// A routing rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Family.
    pub family: Family,
    /// Lower ones come first.
    pub priority: u32,
    /// Interface it comes by; `lo` for what the host itself sends.
    pub from: Option<String>,
    /// Where it goes.
    pub to: Option<IpNet>,
    /// Only what lacks [`super::MARK`].
    pub unmarked: bool,
    /// What happens.
    pub action: Action,
}

pub(super) fn rules(bridges: &[Bridge], family: Family) -> Vec<Rule> {
    bridges
        .iter()
        .filter(|bridge| bridge.subnets_of(family).next().is_some())
        .flat_map(|b| of(b, family))
        .collect()
}

fn of(bridge: &Bridge, family: Family) -> Vec<Rule> {
    let unmarked = !bridge.internal;
    let towards = |to: IpNet| {
        let from = Some("lo".to_owned());
        let (priority, action) = (OWN, Action::Main);
        let own = Rule { family, priority, from, to: Some(to), unmarked: false, action };
        let (priority, action) = (TO, Action::Blackhole);
        [own, Rule { family, priority, from: None, to: Some(to), unmarked, action }]
    };
    let from = Some(bridge.interface.clone());
    let last = Rule { family, priority: FROM, from, to: None, unmarked, action: Action::Blackhole };
    bridge.subnets_of(family).flat_map(towards).chain([last]).collect()
}
