//! What the kernel shows of links.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_dataplane::wire::MacAddr;

use super::macvlan::SeenChild;
use crate::plan::PortRole;

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenLink {
    /// Its number in its namespace.
    pub index: u32,
    /// Its group; 0 where nobody gave it one.
    pub group: u32,
    /// Its address.
    pub mac: MacAddr,
    /// Octets.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// What it is to its bridge, if it is a port of one.
    pub port: Option<SeenPort>,
    /// What it is to its parent, if it is a child of one.
    pub child: Option<SeenChild>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its settings; those of a family the kernel lacks are absent.
    pub settings: BTreeMap<Setting, i32>,
}

/// A bridge port as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenPort {
    /// Name of the bridge.
    pub bridge: String,
    /// Learns source addresses.
    pub learning: bool,
    /// Gets unicast frames for unknown addresses.
    pub flood: bool,
    /// Takes frames from pinned addresses only; absent where the kernel cannot (before 5.18).
    pub locked: Option<bool>,
    /// Reaches no other such port.
    pub isolated: bool,
    /// Addresses pinned to it.
    pub pinned: BTreeSet<MacAddr>,
}

impl SeenPort {
    /// Whether it is that to its bridge, as far as the kernel can have it so.
    #[must_use]
    pub fn has(&self, role: PortRole) -> bool {
        let uplink = role == PortRole::Uplink;
        let locked = self.locked.is_none_or(|locked| locked != uplink);
        !self.learning && self.flood == uplink && locked && self.isolated == (role == PortRole::Isolated)
    }
}

/// A setting of a link that is shown beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Whether it believes router advertisements.
    AcceptRa,
    /// Whether it has no IPv6.
    DisableIpv6,
    /// Whether it tells neighbours of a new IPv6 address.
    NdiscNotify,
    /// Whether it tells neighbours of a new IPv4 address.
    ArpNotify,
}

impl Setting {
    /// Path below `/proc/sys` of the setting of `link`, or of `all` or `default`.
    #[must_use]
    pub fn key(self, link: &str) -> String {
        let (family, name) = match self {
            Self::AcceptRa => ("ipv6", "accept_ra"),
            Self::DisableIpv6 => ("ipv6", "disable_ipv6"),
            Self::NdiscNotify => ("ipv6", "ndisc_notify"),
            Self::ArpNotify => ("ipv4", "arp_notify"),
        };
        format!("net/{family}/conf/{link}/{name}")
    }
}
