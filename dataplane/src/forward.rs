//! The forwarding rules: which way a frame goes, and everything that makes it go nowhere.

use crate::change::Event;
use crate::engine::{Source, Verdict};
use crate::fdb::{Place, Seconds};
use crate::segment::Segment;
use crate::stats::DropReason;
use crate::wire::MacAddr;

/// A frame from the segment's port.
pub(crate) fn outbound<'e>(segment: &'e Segment, frame: &[u8], now: Seconds) -> Verdict<'e> {
    let Some(destination) = frame.first_chunk().copied().map(MacAddr) else {
        return Verdict::Drop(DropReason::FrameTooShort);
    };
    if destination.is_group() {
        return match segment.flood() {
            [] => Verdict::Drop(DropReason::BroadcastOff),
            vteps => Verdict::Flood(vteps),
        };
    }
    match segment.fdb.lookup(destination) {
        Some(Place::Local(_)) => Verdict::Drop(DropReason::LocalDestination),
        Some(place) => match &segment.endpoint(place).vtep {
            Some(vtep) => Verdict::Tunnel(vtep),
            None => Verdict::Drop(DropReason::LocalDestination),
        },
        None => outbound_unknown(segment, destination, now),
    }
}

/// A destination control does not know: learned behind a static VTEP, or flooded to all of them.
fn outbound_unknown(segment: &Segment, destination: MacAddr, now: Seconds) -> Verdict<'_> {
    let learned = segment.learned.as_ref().and_then(|learned| learned.lookup(destination, now));
    match learned.and_then(|vtep| segment.static_vteps().get(usize::from(vtep))) {
        Some(vtep) => Verdict::Tunnel(vtep),
        None if segment.static_vteps().is_empty() => Verdict::Drop(DropReason::UnknownUnicast),
        None => Verdict::Flood(segment.static_vteps()),
    }
}

/// An inner frame from a VTEP.
pub(crate) fn inbound<'e>(
    source: &Source<'e>,
    frame: &[u8],
    _now: Seconds,
    _notice: &mut dyn FnMut(Event),
) -> Verdict<'e> {
    if frame.len() < 14 {
        return Verdict::Drop(DropReason::FrameTooShort);
    }
    Verdict::Deliver(source.segment.vni)
}
