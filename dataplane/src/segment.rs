//! A segment: the layer 2 domain of one VNI, as control describes it ([`SegmentSpec`]) and as packets see it
//! ([`Segment`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::fdb::{Fdb, Learned, Mix, Place};
use crate::neighbour::{Neighbours, link_local};
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
    /// The network's 128-bit id, if its frames travel sealed: then none of them leaves or enters in clear, and
    /// static VTEPs, which cannot seal, are ignored.
    pub sealing: Option<[u8; 16]>,
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

/// Who a datagram of the segment may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A member node: it may speak for its own endpoints only.
    Member,
    /// A static VTEP, by its index: its sources are learned.
    Static(u16),
    /// Whoever has the session of the peer at this tunnel end: it may speak for the endpoints there only.
    Peer(SocketAddr),
}

/// An endpoint as the packet path sees it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) mac: MacAddr,
    pub(crate) ips: Box<[IpAddr]>,
    pub(crate) link_local: Ipv6Addr,
    /// Where it is; `None` for an endpoint of this node.
    pub(crate) vtep: Option<Vtep>,
}

impl Endpoint {
    /// Whether frames of this endpoint may carry `ip` as their source.
    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        ip.is_unspecified() || ip == IpAddr::V6(self.link_local) || self.ips.contains(&ip)
    }
}

/// The immutable tables of one segment; only [`Learned`] changes, without a lock.
#[derive(Debug)]
pub struct Segment {
    pub(crate) vni: Vni,
    pub(crate) mtu: u16,
    /// The network's id, if its frames travel sealed.
    pub(crate) sealing: Option<[u8; 16]>,
    pub(crate) broadcast: Broadcast,
    pub(crate) fdb: Fdb,
    pub(crate) neighbours: Neighbours,
    pub(crate) local: Box<[Endpoint]>,
    pub(crate) remote: Box<[Endpoint]>,
    senders: HashMap<IpAddr, Sender, Mix>,
    /// Static VTEPs first, then members: a prefix of it is the flood list of a segment that keeps broadcasts.
    flood: Box<[Vtep]>,
    statics: usize,
    /// Present only where there are static VTEPs, which alone are learned from.
    pub(crate) learned: Option<Arc<Learned>>,
}

impl Segment {
    /// Builds the tables of `spec`; `seed` keys the hash tables. What `before` learned is kept where its VTEP
    /// stays. At most 65,535 static VTEPs count, further ones are ignored. Allocates; O(endpoints + VTEPs).
    #[must_use]
    pub fn build(spec: SegmentSpec, seed: u64, before: Option<&Self>) -> Self {
        let SegmentSpec { vni, mtu, broadcast, local, remote, static_vteps, members, sealing } = spec;
        let statics: Vec<Vtep> = static_vteps
            .into_iter()
            .take(if sealing.is_some() { 0 } else { usize::from(u16::MAX) })
            .map(|address| Vtep { address: canonical(address), vni })
            .collect();
        let local: Box<[Endpoint]> =
            local.into_iter().map(|endpoint| endpoint_of(endpoint.mac, endpoint.ips, None)).collect();
        let remote: Box<[Endpoint]> = remote
            .into_iter()
            .map(|endpoint| endpoint_of(endpoint.mac, endpoint.ips, Some(endpoint.vtep)))
            .collect();
        let learned = (!statics.is_empty()).then(|| keep_learned(&statics, before, seed));
        let senders = senders_of(&statics, &members, &remote, seed);
        let statics_len = statics.len();
        let flood = flood_list(statics, members);
        Self {
            vni,
            mtu,
            sealing,
            broadcast,
            fdb: Fdb::build(places(&local, &remote).map(|(endpoint, place)| (endpoint.mac, place)), seed),
            neighbours: Neighbours::build(
                places(&local, &remote).map(|(endpoint, place)| (endpoint.mac, &*endpoint.ips, place)),
                seed,
            ),
            local,
            remote,
            senders,
            flood,
            statics: statics_len,
            learned,
        }
    }

    /// VNI this node receives the segment on.
    #[must_use]
    pub fn vni(&self) -> Vni {
        self.vni
    }

    /// Largest inner IP packet, octets.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Static VTEPs, in the order control gave them.
    #[must_use]
    pub fn static_vteps(&self) -> &[Vtep] {
        &self.flood[..self.statics]
    }

    /// VTEPs a broadcast goes to: all of them, or only static ones where the segment keeps broadcasts.
    pub(crate) fn flood(&self) -> &[Vtep] {
        match self.broadcast {
            Broadcast::Flood => &self.flood,
            Broadcast::Local => self.static_vteps(),
        }
    }

    pub(crate) fn sender(&self, from: IpAddr) -> Option<Sender> {
        self.senders.get(&from).copied()
    }

    pub(crate) fn endpoint(&self, place: Place) -> &Endpoint {
        match place {
            Place::Local(index) => &self.local[index as usize],
            Place::Remote(index) => &self.remote[index as usize],
        }
    }

    /// MACs learned behind static VTEPs, with the seconds since each was seen.
    #[must_use]
    pub fn learned(&self, now: crate::fdb::Seconds) -> Vec<(MacAddr, SocketAddr, u32)> {
        let Some(learned) = &self.learned else { return Vec::new() };
        learned
            .entries(now)
            .filter_map(|(mac, vtep, age)| {
                Some((mac, self.static_vteps().get(usize::from(vtep))?.address, age))
            })
            .collect()
    }
}

fn endpoint_of(mac: MacAddr, ips: Vec<IpAddr>, vtep: Option<Vtep>) -> Endpoint {
    let vtep = vtep.map(|vtep| Vtep { address: canonical(vtep.address), ..vtep });
    Endpoint { mac, ips: ips.into_boxed_slice(), link_local: link_local(mac), vtep }
}

fn places<'s>(local: &'s [Endpoint], remote: &'s [Endpoint]) -> impl Iterator<Item = (&'s Endpoint, Place)> {
    let local = local.iter().zip(0..).map(|(endpoint, index)| (endpoint, Place::Local(index)));
    local.chain(remote.iter().zip(0..).map(|(endpoint, index)| (endpoint, Place::Remote(index))))
}

/// Senders by underlay address alone: the source port of a VXLAN datagram is the flow's hash.
fn senders_of(
    statics: &[Vtep],
    members: &[Vtep],
    remote: &[Endpoint],
    seed: u64,
) -> HashMap<IpAddr, Sender, Mix> {
    let mut senders = HashMap::with_hasher(Mix(seed));
    for (vtep, index) in statics.iter().zip(0..) {
        senders.insert(vtep.address.ip(), Sender::Static(index));
    }
    let homes = remote.iter().filter_map(|endpoint| endpoint.vtep);
    for vtep in members.iter().copied().chain(homes) {
        senders.insert(vtep.address.ip().to_canonical(), Sender::Member);
    }
    senders
}

fn flood_list(statics: Vec<Vtep>, members: Vec<Vtep>) -> Box<[Vtep]> {
    let members = members.into_iter().map(|vtep| Vtep { address: canonical(vtep.address), vni: vtep.vni });
    statics.into_iter().chain(members).collect()
}

fn keep_learned(statics: &[Vtep], before: Option<&Segment>, seed: u64) -> Arc<Learned> {
    let Some((before, learned)) = before.and_then(|segment| Some((segment, segment.learned.as_ref()?)))
    else {
        return Arc::new(Learned::new(seed));
    };
    if before.static_vteps() == statics {
        return Arc::clone(learned);
    }
    Arc::new(learned.translate(|old| {
        let vtep = before.static_vteps().get(usize::from(old))?;
        statics.iter().position(|new| new == vtep).and_then(|index| u16::try_from(index).ok())
    }))
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
