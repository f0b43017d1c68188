//! A segment: the layer 2 domain of one VNI, as control describes it.

use std::net::{IpAddr, SocketAddr};

use crate::wire::{MacAddr, Vni};

/// Everything the packet path needs to know of one segment; plain data, made whole by control each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpec {
    /// VNI this node receives the segment on.
    pub vni: Vni,
    /// Largest inner IP packet, octets (underlay MTU − 50 over IPv4, − 70 over IPv6).
    pub mtu: u16,
    /// Whether broadcast and multicast leave the node.
    pub broadcast: Broadcast,
    /// Endpoints behind this node's port; frames from the port must come from one of them.
    pub local: Vec<LocalEndpoint>,
    /// Endpoints of other nodes; frames from a VTEP must come from one of its endpoints.
    pub remote: Vec<RemoteEndpoint>,
    /// VTEPs that speak no gossip (kernel, hardware): unknown unicast and broadcast are flooded to them and
    /// sources are learned from them only. They use `vni` both ways.
    pub static_vteps: Vec<SocketAddr>,
    /// Member nodes' VTEPs with the VNI each wants to receive: the flood list when `broadcast` is `Flood`,
    /// and the set of known senders.
    pub members: Vec<Vtep>,
}

/// Whether a segment's broadcast and multicast frames cross hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broadcast {
    /// They stay on the node (static VTEPs excepted), each counted as a drop.
    #[default]
    Local,
    /// They are replicated to every member and static VTEP.
    Flood,
}

/// An endpoint attached to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Its only source MAC.
    pub mac: MacAddr,
    /// Its only source addresses.
    pub ips: Vec<IpAddr>,
}

/// An endpoint attached to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEndpoint {
    /// Destination MAC that leads to it.
    pub mac: MacAddr,
    /// Addresses answered for by ARP and ND.
    pub ips: Vec<IpAddr>,
    /// Where it is.
    pub vtep: Vtep,
}

/// A node's tunnel end, as seen from one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vtep {
    /// Underlay address and UDP port datagrams go to.
    pub address: SocketAddr,
    /// VNI the receiver wants for this segment.
    pub vni: Vni,
}
