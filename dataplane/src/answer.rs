//! ARP and ND questions answered from the tables, so that they cross no underlay.

use std::net::{IpAddr, Ipv6Addr};

use crate::engine::{Reply, Verdict};
use crate::fdb::Place;
use crate::neighbour::Neighbour;
use crate::segment::Segment;
use crate::stats::DropReason;
use crate::wire::MacAddr;
use crate::wire::arp::{Arp, Operation};
use crate::wire::ethernet::Ethernet;
use crate::wire::ndp::Solicitation;

/// Ethernet group of `ff02::1` (RFC 2464 §7).
const ALL_NODES: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// Answers a local endpoint's ARP packet, or `None` where it must travel like any frame.
pub(crate) fn arp<'e>(segment: &Segment, ethernet: &Ethernet, arp: &Arp) -> Option<Verdict<'e>> {
    if arp.operation == Operation::Reply {
        return None;
    }
    let ask_only = arp.is_probe() || arp.is_announcement();
    match owner(segment, arp.target_ip.into()) {
        Owner::Remote(neighbour) => Some(reply(|out| arp.write_reply(neighbour.mac, out))),
        Owner::Local => Some(Verdict::Drop(DropReason::LocalNeighbour)),
        Owner::Nobody => nobody(segment, ethernet, ask_only),
    }
}

/// Answers a local endpoint's neighbour solicitation, or `None` where it must travel like any frame.
pub(crate) fn solicitation<'e>(
    segment: &Segment,
    ethernet: &Ethernet,
    question: &Solicitation,
) -> Option<Verdict<'e>> {
    match owner(segment, question.target.into()) {
        Owner::Remote(neighbour) => {
            let asker = if question.is_duplicate_detection() { ALL_NODES } else { ethernet.src };
            Some(reply(|out| question.write_advertisement(asker, neighbour.mac, out)))
        }
        Owner::Local => Some(Verdict::Drop(DropReason::LocalNeighbour)),
        Owner::Nobody => nobody(segment, ethernet, question.is_duplicate_detection()),
    }
}

impl Reply {
    /// Tells everybody that `mac` has `ip` now (RFC 5227 §3, RFC 4861 §7.2.6): who knows another MAC for it takes this
    /// one, and nobody else learns anything.
    #[must_use]
    pub fn announcement(ip: IpAddr, mac: MacAddr) -> Self {
        written(|out| match ip {
            IpAddr::V4(ip) => Arp {
                operation: Operation::Request,
                sender_mac: mac,
                sender_ip: ip,
                target_mac: MacAddr::default(),
                target_ip: ip,
            }
            .write_announcement(out),
            IpAddr::V6(target) => {
                let nobody = Solicitation { source: Ipv6Addr::UNSPECIFIED, target, source_mac: None };
                nobody.write_advertisement(ALL_NODES, mac, out)
            }
        })
    }
}

enum Owner {
    Remote(Neighbour),
    /// It hears the question through the bridge and answers itself. To a probe for the asker's own address,
    /// silence is the answer (RFC 5227 §2.1.1, RFC 4862 §5.4).
    Local,
    Nobody,
}

fn owner(segment: &Segment, ip: IpAddr) -> Owner {
    match segment.neighbours.lookup(ip) {
        Some(neighbour) if matches!(neighbour.place, Place::Remote(_)) => Owner::Remote(neighbour),
        Some(_) => Owner::Local,
        None => Owner::Nobody,
    }
}

/// Somebody behind a static VTEP may know, or on a segment that floods, somebody control does not know of.
fn nobody<'e>(segment: &Segment, ethernet: &Ethernet, ask_only: bool) -> Option<Verdict<'e>> {
    if !ethernet.dst.is_group() || !segment.flood().is_empty() {
        return None;
    }
    Some(Verdict::Drop(if ask_only { DropReason::LocalNeighbour } else { DropReason::UnknownNeighbour }))
}

fn reply<'e>(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Verdict<'e> {
    Verdict::Reply(written(write))
}

fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Reply {
    let mut reply = Reply { octets: [0; Reply::MAX], len: 0 };
    // The buffer has room for both kinds; an answer that did not fit would be no answer.
    reply.len = write(&mut reply.octets).and_then(|len| u8::try_from(len).ok()).unwrap_or(0);
    reply
}

const _: () = assert!(crate::wire::arp::FRAME_LEN <= Reply::MAX);
const _: () = assert!(crate::wire::ndp::ADVERTISEMENT_FRAME_LEN <= Reply::MAX);
