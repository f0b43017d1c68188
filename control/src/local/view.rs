//! Networks of this node as firewall, DNS and drivers need to know them.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_dataplane::wire::MacAddr;

use super::Definition;
use crate::driver::bridge::Presence;
use crate::driver::macvlan::{Mode, Parent};
use crate::model::{EndpointId, Name, NetworkId, SandboxId};
use crate::names::{Named, Zone};
use crate::network::Subnet;

/// A bridge network of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeView {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub name: Name,
    /// Name of the bridge in the host's namespace.
    pub interface: String,
    /// When the bridge is there.
    pub presence: Presence,
    /// Its subnets with their gateways, which are the bridge's own addresses; at most one of each family.
    pub subnets: Vec<Subnet>,
    /// No way out of the network, nor in.
    pub internal: bool,
    /// Whether its endpoints may talk to each other.
    pub icc: bool,
    /// Whether what leaves the host gets an address of the host.
    pub masquerade: bool,
    /// Address that ports are published on where none is given.
    pub host_binding: Option<IpAddr>,
    /// Whether the bridge has no IPv4 address of its own.
    pub inhibit_ipv4: bool,
    /// Largest packet, octets.
    pub mtu: u16,
    /// What is attached to it here, in order of ids.
    pub endpoints: Vec<EndpointView>,
}

/// One attachment of a sandbox of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The sandbox it is in.
    pub sandbox: SandboxId,
    /// Name of the sandbox.
    pub name: Name,
    /// Further names in this network.
    pub aliases: Vec<Name>,
    /// Its addresses with the prefix lengths of their subnets; IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// A network of this node whose endpoints are children of one of the host's links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentView {
    /// The network.
    pub network: NetworkId,
    /// The link.
    pub parent: Parent,
    /// What endpoints are to it.
    pub mode: Mode,
    /// Largest packet, octets; the parent's if absent.
    pub mtu: Option<u16>,
    /// What is attached to it here, in order of ids.
    pub endpoints: Vec<EndpointView>,
}

/// The names of a network.
pub(super) fn zone(definition: &Definition, endpoints: &[EndpointView]) -> Zone {
    let described = |end: &EndpointView| {
        let addresses: Vec<IpAddr> = end.addresses.iter().map(IpNet::addr).collect();
        (addresses, end.sandbox.short())
    };
    let described: Vec<_> = endpoints.iter().map(described).collect();
    let named = endpoints.iter().zip(&described).map(|(end, (addresses, id))| {
        let aliases = end.aliases.iter().map(Name::as_str);
        let names = [end.name.as_str()].into_iter().chain(aliases).chain([id.as_str()]);
        Named { names: names.collect(), addresses }
    });
    let subnets = definition.subnets.iter().map(|subnet| subnet.prefix).collect();
    Zone::derive(definition.name.as_str(), subnets, named)
}
