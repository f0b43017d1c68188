//! Attachments of sandboxes to networks: what is wished, and what an endpoint has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weft_dataplane::wire::MacAddr;

use crate::model::{EndpointId, Name, NetworkId, SandboxId};

/// A wish to attach a sandbox to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The network.
    pub network: NetworkId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its name.
    pub name: Name,
    /// A certain IPv4 address.
    pub ip4: Option<Ipv4Addr>,
    /// A certain IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A certain MAC address.
    pub mac: Option<MacAddr>,
    /// Further names.
    pub aliases: Vec<Name>,
}

impl Attach {
    /// The addresses that must be these.
    pub(crate) fn fixed(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.ip4.map(IpAddr::V4), self.ip6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// What an endpoint has, durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its network.
    pub network: NetworkId,
    /// Its MAC address; zero where it has its parent's.
    pub mac: MacAddr,
    /// Its addresses, each with the prefix length of its subnet; IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet, octets.
    pub mtu: u16,
}

impl Lease {
    /// The MAC address in the API's words: empty where it has its parent's.
    #[must_use]
    pub fn shown_mac(&self) -> String {
        if self.mac == MacAddr::default() { String::new() } else { self.mac.to_string() }
    }
}

/// An endpoint of this node, as after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnEndpoint {
    /// What it has.
    pub lease: Lease,
    /// The sandbox it is of.
    pub sandbox: SandboxId,
    /// Name of the sandbox when it was attached.
    pub name: Name,
    /// Its further names.
    pub aliases: Vec<Name>,
}
