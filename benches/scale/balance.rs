//! Where datagrams were lost, by everybody's counters on the way: agents, links, receiving sockets.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use weft::rig::{Host, Rig};
use weft_control::api::Stats;
use weft_control::driver::overlay::UPLINK;
use weft_control::io::namespace::{Namespace, Pins};

use crate::networks::Pair;

/// Drops of agents that are about what systems say to all others of a network by themselves, not about datagrams.
const CHATTER: [&str; 5] =
    ["broadcast_off", "link_local_group", "local_neighbour", "unknown_neighbour", "local_destination"];
/// Fields of a link's line in `/proc/net/dev` that count what was dropped (proc(5)): receiving, sending.
const LINK_DROPS: [usize; 2] = [3, 11];
/// Fields of `/proc/net/snmp` that count lost datagrams.
const LOSSES: [(&str, &str); 6] = [
    ("Ip:", "InHdrErrors"),
    ("Ip:", "InAddrErrors"),
    ("Ip:", "InDiscards"),
    ("Ip:", "OutDiscards"),
    ("Udp:", "NoPorts"),
    ("Udp:", "InErrors"),
];

/// What is said of the hosts' own namespaces.
const UNDERLAY: &str = "underlay";

/// Counters by what they are called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(BTreeMap<String, u64>);

impl Ledger {
    /// All of them now.
    pub(crate) fn read(rig: &Rig, pairs: &[Pair]) -> Result<Self> {
        let mut ledger = Self::default();
        for host in rig.hosts() {
            let stats: Stats = host.read("/stats")?;
            for (reason, count) in stats.drops {
                ledger.add(format!("agent: {reason}"), count);
            }
            ledger.add_namespace(UNDERLAY, &host.namespace)?;
            for hidden in hidden(rig, host)? {
                ledger.add_namespace("network", &hidden)?;
            }
        }
        for station in pairs.iter().flatten() {
            ledger.add_namespace("sandbox", &station.namespace)?;
        }
        Ok(ledger)
    }

    fn add(&mut self, name: String, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    fn add_namespace(&mut self, place: &str, namespace: &Namespace) -> Result<()> {
        let read = || {
            let table = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok::<_, std::io::Error>((table("dev")?, table("snmp")?))
        };
        let (links, protocols) = namespace.run(read)?.context("read a namespace's counters")?;
        for line in links.lines() {
            let Some((link, figures)) = line.trim_start().split_once(':') else { continue };
            // The agents count what TAPs drop.
            if link != UPLINK {
                self.add(format!("{place}: links"), link_drops(figures));
            }
        }
        for (protocol, field) in LOSSES {
            // So do they what their sockets drop.
            if (place, protocol) == (UNDERLAY, "Udp:") {
                continue;
            }
            self.add(format!("{place}: {protocol}{field}"), loss(&protocols, protocol, field));
        }
        Ok(())
    }

    /// What was counted since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, count) in &mut self.0 {
            *count = count.saturating_sub(before.0.get(name).copied().unwrap_or(0));
        }
        self.0.retain(|_, count| *count > 0);
        self
    }

    /// Losses that can have been of datagrams.
    pub(crate) fn of_datagrams(&self) -> u64 {
        let chatter =
            |name: &str| name.strip_prefix("agent: ").is_some_and(|reason| CHATTER.contains(&reason));
        self.0.iter().filter(|(name, _)| !chatter(name)).map(|(_, count)| count).sum()
    }

    /// As people read it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(name, count)| format!("    {name:<42}{count:>8}")).collect()
    }
}

/// The hidden namespaces of a host's networks.
fn hidden(rig: &Rig, host: &Host) -> Result<Vec<Namespace>> {
    let pins = Pins::open(&rig.directory().join(&host.name).join("run/netns"))?;
    let names = pins.list()?;
    let hidden = names.iter().filter(|name| name.starts_with('.')).map(|name| pins.find(name));
    Ok(hidden.collect::<Result<_, _>>()?)
}

fn link_drops(figures: &str) -> u64 {
    let figures: Vec<u64> = figures.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
    LINK_DROPS.iter().filter_map(|field| figures.get(*field)).sum()
}

/// A field of a protocol, whose lines are first the names and then the figures.
fn loss(table: &str, protocol: &str, field: &str) -> u64 {
    let mut lines = table.lines().filter(|line| line.starts_with(protocol));
    let (Some(names), Some(figures)) = (lines.next(), lines.next()) else { return 0 };
    let mut both = names.split_whitespace().zip(figures.split_whitespace());
    both.find(|(name, _)| *name == field).and_then(|(_, figure)| figure.parse().ok()).unwrap_or(0)
}
