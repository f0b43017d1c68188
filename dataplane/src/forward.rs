//! The forwarding rules: which way a frame goes, and everything that makes it go nowhere.

use crate::answer;
use crate::change::Event;
use crate::engine::{Source, Verdict};
use crate::fdb::{Observation, Place, Seconds};
use crate::guard::{self, Payload, Speaker};
use crate::segment::{Broadcast, Segment, Sender};
use crate::stats::DropReason;
use crate::wire::MacAddr;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ip::{PROTOCOL_TCP, PROTOCOL_UDP};

/// A frame from the segment's port whose largest IP packet, after splitting, has `largest` octets.
pub(crate) fn outbound<'e>(segment: &'e Segment, frame: &[u8], largest: usize, now: Seconds) -> Verdict<'e> {
    try_outbound(segment, frame, largest, now).unwrap_or_else(Verdict::Drop)
}

fn try_outbound<'e>(
    segment: &'e Segment,
    frame: &[u8],
    largest: usize,
    now: Seconds,
) -> Result<Verdict<'e>, DropReason> {
    let ethernet = guard::ethernet(frame)?;
    let Some(place @ Place::Local(_)) = segment.fdb.lookup(ethernet.src) else {
        return Err(DropReason::SpoofedMac);
    };
    if largest > usize::from(segment.mtu) {
        return Err(DropReason::Oversize);
    }
    let answer = match guard::payload(Speaker::Endpoint(segment.endpoint(place)), &ethernet, frame)? {
        Payload::Arp(arp) => answer::arp(segment, &ethernet, &arp),
        Payload::Solicitation(question) => answer::solicitation(segment, &ethernet, &question),
        Payload::Ip(_) | Payload::Other => None,
    };
    answer.map_or_else(|| destination(segment, ethernet.dst, now), Ok)
}

fn destination(segment: &Segment, dst: MacAddr, now: Seconds) -> Result<Verdict<'_>, DropReason> {
    if dst.is_group() {
        let vteps = segment.flood();
        return if vteps.is_empty() { Err(DropReason::BroadcastOff) } else { Ok(Verdict::Flood(vteps)) };
    }
    match segment.fdb.lookup(dst).map(|place| &segment.endpoint(place).vtep) {
        Some(Some(vtep)) => Ok(Verdict::Tunnel(vtep)),
        Some(None) => Err(DropReason::LocalDestination),
        None => unknown_destination(segment, dst, now),
    }
}

/// A MAC control does not know: learned behind a static VTEP, or flooded to all of these and nobody else.
fn unknown_destination(segment: &Segment, dst: MacAddr, now: Seconds) -> Result<Verdict<'_>, DropReason> {
    let statics = segment.static_vteps();
    let learned = segment.learned.as_ref().and_then(|learned| learned.lookup(dst, now));
    match learned.and_then(|index| statics.get(usize::from(index))) {
        Some(vtep) => Ok(Verdict::Tunnel(vtep)),
        None if statics.is_empty() => Err(DropReason::UnknownUnicast),
        None => Ok(Verdict::Flood(statics)),
    }
}

/// An inner frame from a VTEP.
pub(crate) fn inbound<'e>(
    source: &Source<'e>,
    frame: &[u8],
    now: Seconds,
    notice: &mut dyn FnMut(Event),
) -> Verdict<'e> {
    match try_inbound(source, frame, now, notice) {
        Ok(()) => Verdict::Deliver(source.segment.vni),
        Err(reason) => Verdict::Drop(reason),
    }
}

fn try_inbound(
    source: &Source<'_>,
    frame: &[u8],
    now: Seconds,
    notice: &mut dyn FnMut(Event),
) -> Result<(), DropReason> {
    let segment = source.segment;
    let ethernet = guard::ethernet(frame)?;
    let payload = guard::payload(speaker(source, ethernet.src)?, &ethernet, frame)?;
    fits(segment, &ethernet, frame, &payload)?;
    if let Sender::Static(index) = source.sender {
        learn(segment, ethernet.src, index, now, notice);
    }
    if ethernet.dst.is_group() {
        let allowed = segment.broadcast == Broadcast::Flood || matches!(source.sender, Sender::Static(_));
        return if allowed { Ok(()) } else { Err(DropReason::BroadcastOff) };
    }
    match segment.fdb.lookup(ethernet.dst) {
        Some(Place::Local(_)) => Ok(()),
        Some(Place::Remote(_)) | None => Err(DropReason::NotLocal),
    }
}

/// Who may have sent a frame of this source MAC through this VTEP.
fn speaker<'e>(source: &Source<'e>, src: MacAddr) -> Result<Speaker<'e>, DropReason> {
    let known = source.segment.fdb.lookup(src).map(|place| source.segment.endpoint(place));
    let home = known.and_then(|endpoint| endpoint.vtep).map(|vtep| vtep.address);
    match (source.sender, known) {
        (Sender::Static(_), None) => Ok(Speaker::Stranger(source.segment)),
        (Sender::Member, Some(endpoint)) if home.is_some_and(|home| home.ip() == source.from) => {
            Ok(Speaker::Endpoint(endpoint))
        }
        (Sender::Peer(vtep), Some(endpoint)) if home == Some(vtep) => Ok(Speaker::Endpoint(endpoint)),
        _ => Err(DropReason::SpoofedMac),
    }
}

/// Only TCP may be longer than the MTU: kernel VTEPs on the same machine send super-frames uncut, and those of
/// TCP can be cut later. The segment size of other protocols is unknown.
fn fits(
    segment: &Segment,
    ethernet: &Ethernet,
    frame: &[u8],
    payload: &Payload<'_>,
) -> Result<(), DropReason> {
    let (len, cuttable) = match payload {
        Payload::Ip(ip) => (ip.packet().len(), ip.protocol() == PROTOCOL_TCP),
        _ => (ethernet.payload(frame).len(), false),
    };
    if len <= usize::from(segment.mtu) || cuttable { Ok(()) } else { Err(DropReason::Oversize) }
}

fn learn(segment: &Segment, mac: MacAddr, index: u16, now: Seconds, notice: &mut dyn FnMut(Event)) {
    let (Some(learned), Some(vtep)) = (&segment.learned, segment.static_vteps().get(usize::from(index)))
    else {
        return;
    };
    match learned.observe(mac, index, now) {
        Observation::Known => {}
        Observation::Learned => notice(Event::Learned { vni: segment.vni, mac, vtep: vtep.address }),
        Observation::Refused => notice(Event::LearnRefused { vni: segment.vni }),
    }
}

/// Whether `frame` gets the verdict that `previous`, of the same batch, got because nothing the rules look at
/// differs. Bulk arrives in trains, so this spares most frames the table lookups.
#[inline]
pub(crate) fn is_alike(previous: &[u8], frame: &[u8]) -> bool {
    const L3: usize = ethernet::HEADER_LEN;
    if previous.len() != frame.len() || frame.len() < L3 + 42 {
        return false;
    }
    let same = |range: std::ops::Range<usize>| previous[range.clone()] == frame[range];
    match frame[L3] {
        // No options; length, fragmentation, protocol, addresses and source port as before.
        0x45 if matches!(frame[L3 + 9], PROTOCOL_TCP | PROTOCOL_UDP) => {
            same(0..L3 + 4)
                && same(L3 + 6..L3 + 8)
                && frame[L3 + 9] == previous[L3 + 9]
                && same(L3 + 12..L3 + 22)
        }
        // The transport header follows at once.
        0x60..=0x6f if matches!(frame[L3 + 6], PROTOCOL_TCP | PROTOCOL_UDP) => {
            same(0..L3 + 1) && same(L3 + 4..L3 + 7) && same(L3 + 8..L3 + 42)
        }
        _ => false,
    }
}
