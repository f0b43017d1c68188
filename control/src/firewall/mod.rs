//! What this host's kernel passes on for sandboxes: ports in, masquerade out, nothing between networks.
//!
//! Derived whole from networks and published ports, as a table of nftables per family and as routing [`Rule`]s.
//! The tables decide; the rules let nothing pass that the tables have not marked, so that a host whose ruleset was
//! flushed is closed, not open. Nothing is ever read back.
//!
//! ```text
//!   arrives ─ inward: DNAT of published ports ─ stamp: MARK on what comes from or goes to our bridges
//!           ─ routing rules: unmarked from or to our bridges → nowhere
//!           ─ forward: internal, isolation, unpublished → drop
//!           ─ outward: masquerade ─ leaves
//! ```

mod routing;
mod table;

pub use routing::{Action, PRIORITIES, Rule};
pub use table::TABLE;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::publish::Protocol;

/// The bit of `skb->mark` that says: weft's tables have seen this packet.
pub const MARK: u32 = 0x2000_0000;

/// A family of addresses; nftables and routing have each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A bridge of this host that networks hang on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bridge {
    /// Its interface.
    pub interface: String,
    /// Subnets behind it.
    pub subnets: Vec<IpNet>,
    /// No way out of it, nor in.
    pub internal: bool,
    /// Whether its endpoints may talk to each other.
    pub icc: bool,
    /// Whether what leaves gets an address of the host.
    pub masquerade: bool,
}

impl Bridge {
    fn subnets_of(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        self.subnets.iter().copied().filter(move |net| Family::of(net.addr()) == family)
    }

    /// Whether nothing of this family passes.
    fn closed(&self, family: Family) -> bool {
        self.internal || self.subnets_of(family).next().is_none()
    }
}

/// A published port: where it arrives and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// Protocol.
    pub protocol: Protocol,
    /// Address and port of the host; the unspecified address stands for all of the family.
    pub host: SocketAddr,
    /// Address and port of the sandbox.
    pub target: SocketAddr,
}

impl Forward {
    /// Whether the kernel's address translation does it. It cannot translate between families, and nothing is routed
    /// from loopback addresses: those are the relay's.
    #[must_use]
    pub fn by_kernel(&self) -> bool {
        self.host.is_ipv4() == self.target.is_ipv4() && !self.host.ip().is_loopback()
    }
}

/// Everything the firewall is derived from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    bridges: Vec<Bridge>,
    forwards: Vec<Forward>,
}

impl Firewall {
    /// The firewall of these bridges and ports, in whatever order they are given. Subnets lose their host bits.
    #[must_use]
    pub fn of(
        bridges: impl IntoIterator<Item = Bridge>,
        forwards: impl IntoIterator<Item = Forward>,
    ) -> Self {
        let mut bridges: Vec<_> = bridges.into_iter().collect();
        for bridge in &mut bridges {
            bridge.subnets.iter_mut().for_each(|net| *net = net.trunc());
            bridge.subnets.sort();
        }
        bridges.sort();
        let mut forwards: Vec<_> = forwards.into_iter().collect();
        forwards.sort();
        forwards.dedup_by_key(|forward| (forward.protocol, forward.host));
        Self { bridges, forwards }
    }

    /// Whether there is nothing to guard or publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bridges.is_empty()
    }

    /// The batch for `nft -f` that makes weft's tables so, whatever they were, in one transaction.
    #[must_use]
    pub fn batch(&self) -> String {
        Family::BOTH.map(|family| table::batch(self, family)).concat()
    }

    /// The routing rules that keep what the tables have not marked from being forwarded.
    #[must_use]
    pub fn rules(&self) -> std::collections::BTreeSet<Rule> {
        Family::BOTH.into_iter().flat_map(|family| routing::rules(&self.bridges, family)).collect()
    }

    /// What was translated before and is not, or otherwise, now: connections that the kernel remembers so are stale.
    #[must_use]
    pub fn stale(&self, before: &Self) -> Vec<Forward> {
        let gone = before.forwards.iter().filter(|one| !self.forwards.contains(one));
        let fresh = self.forwards.iter().filter(|one| !before.forwards.contains(one));
        gone.chain(fresh).copied().filter(|one| one.protocol == Protocol::Udp).collect()
    }
}

#[cfg(test)]
mod tests;
