//! From what nodes say to what the packet path does: one segment derived whole from the picture, each time.
//!
//! Derivation is level-triggered: it looks at the state of everything and never at what changed, so a lost event
//! cannot leave a stale entry, and running it twice gives the same. [`audit`] compares what is programmed with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use weft_dataplane::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, SegmentSpec, Vtep};
use weft_dataplane::wire::{MacAddr, Vni};

use crate::model::{EndpointId, NetworkId, NodeId};

/// Everything that decides a segment on this node.
#[derive(Debug, Clone)]
pub struct Picture<'a> {
    /// This node.
    pub me: NodeId,
    /// VNI this node receives the segment on.
    pub vni: Vni,
    /// Largest inner IP packet, octets.
    pub mtu: u16,
    /// Whether broadcast crosses hosts.
    pub broadcast: Broadcast,
    /// Tunnel ends that speak no gossip.
    pub static_vteps: &'a [SocketAddr],
    /// The network's id, if its packets are sealed.
    pub sealing: Option<NetworkId>,
    /// Tunnel ends of the other nodes in the network.
    pub tunnels: BTreeMap<NodeId, Tunnel>,
    /// Who has the MAC addresses that several nodes claim.
    pub places: Places<'a>,
    /// Endpoints of every node, this one included.
    pub attachments: Vec<Attachment<'a>>,
}

/// Who has the MAC addresses that several nodes claim, as far as that is known.
#[derive(Debug, Clone, Default)]
pub struct Places<'a> {
    /// Who had them first.
    pub first: BTreeMap<MacAddr, NodeId>,
    /// The segment as it was derived last; until then others were not claimed by several.
    pub before: Option<&'a SegmentSpec>,
}

/// Another node's end of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it is and which VNI it wants.
    pub vtep: Vtep,
    /// Whether the node answers.
    pub alive: bool,
}

/// One endpoint, as its node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// The node it is on.
    pub node: NodeId,
    /// Its identity.
    pub endpoint: EndpointId,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses.
    pub ips: &'a [IpAddr],
    /// Times this MAC has moved.
    pub mobility: u32,
    /// Whether its node answers.
    pub alive: bool,
}

/// Derives the segment, and who has the MAC addresses that several nodes claim, to be kept for the next derivation.
/// Entries are ordered, so equal pictures give equal specs.
///
/// A MAC address seen on several nodes is here if it is one of them, else as [`winners`] tells. An address seen twice is
/// answered for once: here first, then on nodes that answer.
#[must_use]
pub fn derive(picture: &Picture<'_>) -> (SegmentSpec, BTreeMap<MacAddr, NodeId>) {
    let winners = winners(picture.me, &picture.attachments, |mac| picture.first(mac));
    let contested = picture.contested(&winners);
    let mut winners: Vec<Attachment<'_>> = winners.into_values().collect();
    winners.sort_by_key(|a| (a.node != picture.me, !a.alive, a.mac));
    let mut answered = BTreeSet::new();
    let mut local = Vec::new();
    let mut remote = Vec::new();
    for Attachment { node, mac, ips, .. } in winners {
        let ips = ips.iter().copied().filter(|&ip| answered.insert(ip)).collect();
        if node == picture.me {
            local.push(LocalEndpoint { mac, ips });
        } else if let Some(tunnel) = picture.tunnels.get(&node) {
            remote.push(RemoteEndpoint { mac, ips, vtep: tunnel.vtep });
        }
    }
    remote.sort_by_key(|endpoint| endpoint.mac);
    let mut members: Vec<Vtep> = picture.tunnels.values().map(|tunnel| tunnel.vtep).collect();
    members.sort();
    members.dedup();
    let spec = SegmentSpec {
        vni: picture.vni,
        mtu: picture.mtu,
        broadcast: picture.broadcast,
        local,
        remote,
        static_vteps: picture.static_vteps.to_vec(),
        members,
        sealing: picture.sealing.map(|id| id.0),
    };
    (spec, contested)
}

impl Picture<'_> {
    /// Who had a MAC address before others claimed it.
    fn first(&self, mac: MacAddr) -> Option<NodeId> {
        let before = || {
            let remote = &self.places.before?.remote;
            let entry = &remote[remote.binary_search_by_key(&mac, |remote| remote.mac).ok()?];
            let there = |tunnel: &Tunnel| tunnel.vtep.address == entry.vtep.address;
            self.tunnels.iter().find(|(_, tunnel)| there(tunnel)).map(|(node, _)| *node)
        };
        self.places.first.get(&mac).copied().or_else(before)
    }

    /// Who had one first has it for as long as it claims it with addresses of its own, also while it does not answer.
    fn contested(&self, winners: &BTreeMap<MacAddr, Attachment<'_>>) -> BTreeMap<MacAddr, NodeId> {
        let claimed: BTreeSet<MacAddr> = (self.attachments.iter())
            .filter(|a| winners.get(&a.mac).is_some_and(|winner| winner.node != a.node))
            .map(|a| a.mac)
            .collect();
        let claims = |mac: &MacAddr, node: NodeId| {
            let mut of_node = self.attachments.iter().filter(|a| a.node == node && a.mac == *mac);
            of_node.any(|a| !a.ips.is_empty())
        };
        let place = |mac: &MacAddr| {
            let first = self.first(*mac).filter(|&node| claims(mac, node));
            first.or_else(|| winners.get(mac).map(|winner| winner.node))
        };
        claimed.iter().filter_map(|mac| Some((*mac, place(mac)?))).collect()
    }
}

/// Where each MAC address is, if several nodes claim one; `first` tells who had it before the others.
///
/// Any node can claim any MAC address and any mobility. So what another node says never displaces an endpoint of `me`;
/// an endpoint without addresses that are its node's to give loses to one with some, and one whose node does not answer
/// to one whose does. Of what is left, who had it first keeps it. If nobody knows, it is where it has moved least: an
/// honest node gives a MAC address up before another one takes it.
#[must_use]
pub fn winners<'a>(
    me: NodeId,
    attachments: &[Attachment<'a>],
    first: impl Fn(MacAddr) -> Option<NodeId>,
) -> BTreeMap<MacAddr, Attachment<'a>> {
    let mut winners: BTreeMap<MacAddr, Attachment<'a>> = BTreeMap::new();
    for &attachment in attachments {
        let winner = winners.entry(attachment.mac).or_insert(attachment);
        let rank = |a: &Attachment<'_>| {
            let counts = (a.node == me, !a.ips.is_empty(), a.alive);
            (counts, first(a.mac) == Some(a.node), std::cmp::Reverse((a.mobility, a.node, a.endpoint)))
        };
        if attachment != *winner && rank(&attachment) > rank(winner) {
            *winner = attachment;
        }
    }
    winners
}

/// The VNI each network in use here is received on: pinned ones first, then a hash of the id, moved on past clashes.
///
/// Answers also the networks whose pinned VNI is another's, which get a free one that their static VTEPs do not know.
#[must_use]
pub fn assign_vnis<Id: Copy + Ord>(
    networks: impl IntoIterator<Item = (Id, Vni, Option<Vni>)>,
) -> (BTreeMap<Id, Vni>, Vec<Id>) {
    let mut assigned = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut clashing = Vec::new();
    let mut open = Vec::new();
    for (id, wish, pinned) in networks {
        match pinned {
            Some(vni) if used.insert(vni) => drop(assigned.insert(id, vni)),
            Some(_) => {
                clashing.push(id);
                open.push((id, wish));
            }
            None => open.push((id, wish)),
        }
    }
    open.sort();
    for (id, wish) in open {
        let mut vni = wish;
        while !used.insert(vni) {
            vni = after(vni);
        }
        assigned.insert(id, vni);
    }
    (assigned, clashing)
}

/// VNIs below are left to people who pin them.
const FIRST_AUTOMATIC_VNI: u32 = 4096;

/// The automatic VNI that 32 random bits select.
#[must_use]
pub fn automatic_vni(bits: u32) -> Vni {
    let span = u32::from(Vni::MAX) + 1 - FIRST_AUTOMATIC_VNI;
    Vni::try_from(FIRST_AUTOMATIC_VNI + bits % span).unwrap_or(Vni::MAX)
}

fn after(vni: Vni) -> Vni {
    automatic_vni((u32::from(vni) + 1).saturating_sub(FIRST_AUTOMATIC_VNI))
}

/// One way in which the programmed state differs from the derived one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Nothing is programmed, or for another VNI, MTU, broadcast rule or static VTEPs.
    Segment,
    /// A local endpoint is missing, or has other addresses.
    Local(MacAddr),
    /// An FDB entry is missing, or leads elsewhere, or answers for other addresses.
    Remote(MacAddr),
    /// An FDB entry that nobody claims.
    Stale(MacAddr),
    /// The set of known senders differs.
    Members,
}

/// Compares what is programmed with what it should be; empty when they agree. Applying `derived` whole repairs all.
#[must_use]
pub fn audit(programmed: Option<&SegmentSpec>, derived: &SegmentSpec) -> Vec<Difference> {
    let Some(programmed) = programmed else { return vec![Difference::Segment] };
    let SegmentSpec { vni, mtu, broadcast, local, remote, static_vteps, members, sealing } = programmed;
    let mut differences = Vec::new();
    let settings = (vni, mtu, broadcast, static_vteps, sealing);
    let theirs = (&derived.vni, &derived.mtu, &derived.broadcast, &derived.static_vteps, &derived.sealing);
    if settings != theirs {
        differences.push(Difference::Segment);
    }
    differences.extend(derived.local.iter().filter(|e| !local.contains(e)).map(|e| Difference::Local(e.mac)));
    differences
        .extend(derived.remote.iter().filter(|e| !remote.contains(e)).map(|e| Difference::Remote(e.mac)));
    let wanted: BTreeSet<MacAddr> =
        derived.local.iter().map(|e| e.mac).chain(derived.remote.iter().map(|e| e.mac)).collect();
    let present = local.iter().map(|e| e.mac).chain(remote.iter().map(|e| e.mac));
    differences.extend(present.filter(|mac| !wanted.contains(mac)).map(Difference::Stale));
    if *members != derived.members {
        differences.push(Difference::Members);
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);
    const C: NodeId = NodeId([3; 16]);

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn vni(n: u32) -> Vni {
        Vni::try_from(n).expect("24 bits")
    }

    fn tunnel(last: u8, alive: bool) -> Tunnel {
        Tunnel { vtep: Vtep { address: SocketAddr::from(([192, 0, 2, last], 4789)), vni: vni(9) }, alive }
    }

    fn attachment(node: NodeId, mac_last: u8, mobility: u32, ips: &[IpAddr]) -> Attachment<'_> {
        let alive = node != C;
        Attachment { node, endpoint: EndpointId([mac_last; 16]), mac: mac(mac_last), ips, mobility, alive }
    }

    fn picture<'a>(attachments: Vec<Attachment<'a>>) -> Picture<'a> {
        Picture {
            me: ME,
            vni: vni(5),
            mtu: 1450,
            broadcast: Broadcast::Local,
            static_vteps: &[],
            sealing: None,
            places: Places::default(),
            tunnels: [(B, tunnel(2, true)), (C, tunnel(3, false))].into(),
            attachments,
        }
    }

    fn derive(picture: &Picture<'_>) -> SegmentSpec {
        super::derive(picture).0
    }

    fn contested(picture: &Picture<'_>) -> BTreeMap<MacAddr, NodeId> {
        super::derive(picture).1
    }

    #[test]
    fn a_segment_has_local_endpoints_remote_ones_and_their_tunnels() {
        let ips = [IpAddr::from([10, 0, 0, 2])];
        let spec = derive(&picture(vec![attachment(B, 2, 0, &ips), attachment(ME, 1, 0, &[])]));
        assert_eq!(spec.local, [LocalEndpoint { mac: mac(1), ips: vec![] }]);
        let remote = RemoteEndpoint { mac: mac(2), ips: ips.to_vec(), vtep: tunnel(2, true).vtep };
        assert_eq!(spec.remote, [remote]);
        assert_eq!(spec.members.len(), 2, "a node that does not answer keeps its tunnel");
    }

    /// Who has MAC address 7.
    fn place(attachments: Vec<Attachment<'_>>, first: Option<NodeId>) -> NodeId {
        winners(ME, &attachments, |_| first)[&mac(7)].node
    }

    const D: NodeId = NodeId([4; 16]);

    #[test]
    fn a_mac_is_kept_by_who_had_it_first_however_often_another_says_that_it_moved() {
        let ips = [IpAddr::from([10, 0, 0, 2])];
        let list = || vec![attachment(D, 7, 0, &ips), attachment(B, 7, u32::MAX, &ips)];
        assert_eq!(place(list(), Some(D)), D);
        assert_eq!(place(list(), Some(B)), B);
        assert_eq!(place(list(), None), D, "nobody knows who was first");
        let tie = vec![attachment(D, 7, 2, &ips), attachment(B, 7, 2, &ips)];
        assert_eq!(place(tie, None), B, "the lower id");
        assert_eq!(place(vec![attachment(B, 7, 9, &ips)], Some(D)), B, "it was given up");
    }

    #[test]
    fn a_mac_of_an_endpoint_here_stays_here() {
        assert_eq!(place(vec![attachment(ME, 7, 9, &[]), attachment(B, 7, 0, &[])], Some(B)), ME);
    }

    #[test]
    fn a_mac_is_not_taken_by_who_has_no_address_to_give() {
        let ips = [IpAddr::from([10, 0, 0, 2])];
        let list = || vec![attachment(C, 7, 9, &ips), attachment(B, 7, 0, &[])];
        assert_eq!(place(list(), None), C);
        assert_eq!(place(list(), Some(B)), C, "its addresses have moved on");
    }

    #[test]
    fn a_mac_of_a_node_that_does_not_answer_is_anothers_until_it_is_back() {
        let ips = [IpAddr::from([10, 0, 0, 2])];
        let mut silent = picture(vec![attachment(C, 7, 0, &ips), attachment(B, 7, 1, &ips)]);
        silent.places.first = [(mac(7), C)].into();
        assert_eq!(derive(&silent).remote[0].vtep, tunnel(2, true).vtep);
        assert_eq!(contested(&silent), [(mac(7), C)].into());
        silent.attachments[0].alive = true;
        assert_eq!(derive(&silent).remote[0].vtep, tunnel(3, true).vtep);
        silent.attachments[0].ips = &[];
        assert_eq!(contested(&silent), [(mac(7), B)].into());
    }

    #[test]
    fn a_mac_that_nobody_else_claimed_before_is_where_it_was_forwarded_to() {
        let ips = [IpAddr::from([10, 0, 0, 2])];
        let mut picture = picture(vec![attachment(C, 7, 0, &ips)]);
        picture.attachments[0].alive = true;
        let before = derive(&picture);
        assert_eq!(contested(&picture), BTreeMap::new());
        picture.attachments.push(attachment(B, 7, 0, &ips));
        assert_eq!(derive(&picture).remote[0].vtep, tunnel(2, true).vtep, "nobody knows who was first");
        picture.places.before = Some(&before);
        assert_eq!(derive(&picture), before);
        assert_eq!(contested(&picture), [(mac(7), C)].into());
    }

    #[test]
    fn an_address_seen_twice_is_answered_for_where_a_node_answers() {
        let ips = [IpAddr::from([10, 0, 0, 2])];
        let spec = derive(&picture(vec![attachment(C, 1, 0, &ips), attachment(B, 2, 0, &ips)]));
        let answering: Vec<MacAddr> =
            spec.remote.iter().filter(|e| !e.ips.is_empty()).map(|e| e.mac).collect();
        assert_eq!(answering, [mac(2)]);
    }

    #[test]
    fn an_endpoint_whose_tunnel_is_unknown_waits() {
        let spec = derive(&picture(vec![attachment(NodeId([9; 16]), 4, 0, &[])]));
        assert_eq!(spec.remote, []);
    }

    #[test]
    fn vnis_are_pinned_or_hashed_and_clashes_move_on() {
        let (assigned, clashing) = assign_vnis([
            ('a', vni(5000), None),
            ('b', vni(5000), None),
            ('c', vni(7), Some(vni(5001))),
            ('d', vni(0xff_ffff), Some(vni(5001))),
            ('e', vni(0xff_ffff), None),
        ]);
        let numbers: Vec<(char, u32)> = assigned.into_iter().map(|(id, vni)| (id, vni.into())).collect();
        assert_eq!(numbers, [('a', 5000), ('b', 5002), ('c', 5001), ('d', 0xff_ffff), ('e', 4096)]);
        assert_eq!(clashing, ['d']);
        assert!(u32::from(automatic_vni(0)) == 4096 && automatic_vni(u32::MAX) <= Vni::MAX);
    }

    #[test]
    fn an_audit_names_each_difference_and_is_silent_without_one() {
        let derived = derive(&picture(vec![attachment(B, 2, 0, &[]), attachment(ME, 1, 0, &[])]));
        assert_eq!(audit(Some(&derived), &derived), []);
        assert_eq!(audit(None, &derived), [Difference::Segment]);
        let mut programmed = derived.clone();
        programmed.mtu = 1;
        programmed.local.clear();
        programmed.remote[0].mac = mac(9);
        programmed.members.pop();
        let expected = [
            Difference::Segment,
            Difference::Local(mac(1)),
            Difference::Remote(mac(2)),
            Difference::Stale(mac(9)),
            Difference::Members,
        ];
        assert_eq!(audit(Some(&programmed), &derived), expected);
    }
}
