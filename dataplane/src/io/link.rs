//! What the kernel counts of links: it drops what a TAP's queue has no room for before any worker sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};

use crate::wire::Vni;

/// Place of the packets dropped while sending among the figures of a line of `/proc/net/dev` (proc(5)).
const UNSENT: usize = 11;

/// The statistics of one link.
#[derive(Debug)]
pub(crate) struct LinkStatistics {
    name: String,
    table: File,
    /// What was read last.
    unsent: u64,
}

impl LinkStatistics {
    /// Those of link `name` of the calling thread's network namespace; they can be read from any.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        // An open table stays that of the namespace it was opened in.
        let table = File::open("/proc/thread-self/net/dev")?;
        Ok(Self { name: name.to_owned(), table, unsent: 0 })
    }

    /// Packets the kernel could not hand to the link; once there is no such link any more, what was read last.
    pub(crate) fn unsent(&mut self) -> u64 {
        let mut text = String::new();
        let read = self.table.rewind().and_then(|()| self.table.read_to_string(&mut text));
        self.unsent = read.ok().and_then(|_| unsent(&text, &self.name)).unwrap_or(self.unsent);
        self.unsent
    }
}

/// The figure of link `name` in a table of links.
pub(crate) fn unsent(table: &str, name: &str) -> Option<u64> {
    let links = table.lines().filter_map(|line| line.trim_start().split_once(':'));
    let (_, figures) = links.into_iter().find(|(link, _)| *link == name)?;
    figures.split_whitespace().nth(UNSENT)?.parse().ok()
}

/// What the queues of all TAPs had no room for.
#[derive(Debug, Default)]
pub(crate) struct QueueDrops {
    links: BTreeMap<Vni, LinkStatistics>,
    /// Of TAPs that are gone.
    before: u64,
}

impl QueueDrops {
    /// Counts what the TAP of segment `vni` drops.
    pub(crate) fn add(&mut self, vni: Vni, link: LinkStatistics) {
        self.links.insert(vni, link);
    }

    /// Keeps what the TAP of segment `vni` has dropped; it is about to go.
    pub(crate) fn retire(&mut self, vni: Vni) {
        self.before += self.links.remove(&vni).map_or(0, |mut link| link.unsent());
    }

    /// All of them so far.
    pub(crate) fn total(&mut self) -> u64 {
        self.before + self.links.values_mut().map(LinkStatistics::unsent).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1212      12    0    0    0     0          0         0     1212      12    0    0    0     0       0          0
  tap1:   10240      80    1    2    3     4          5         6    20480     160    7   42    9    10      11         12
";

    #[test]
    fn packets_that_a_link_did_not_take_are_told_from_those_it_did_not_give() {
        assert_eq!(unsent(TABLE, "tap1"), Some(42));
        assert_eq!(unsent(TABLE, "lo"), Some(0));
    }

    #[test]
    fn a_link_that_is_not_there_has_dropped_nothing() {
        for name in ["tap", "ap1", "face |bytes", ""] {
            assert_eq!(unsent(TABLE, name), None, "{name}");
        }
        let mut link = LinkStatistics::open("no-such-link").expect("a table");
        assert_eq!((link.unsent(), link.unsent()), (0, 0));
    }
}
