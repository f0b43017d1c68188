//! The way out of a frame from the TAP: finished in place, or planned for splitting.

use super::split::{MAX_HEADER_LEN, Split, SplitError};
use crate::checksum::Sum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ip::Ip;
use crate::wire::transport::Transport;
use crate::wire::vnet::{RSC_INFO, VnetHeader};

/// A frame that is ready for encapsulation.
#[derive(Debug)]
pub enum Outgoing<'f> {
    /// One frame, complete as it is.
    Whole(&'f [u8]),
    /// A super-frame with its plan.
    Segments(Split<'f>),
}

/// Does what `vnet` asks for: nothing for a plain frame, the checksum in place for one that lacks it, a
/// [`Split`] for a super-frame of more than one segment.
///
/// # Errors
/// The frame and its header contradict each other, or ask for what was never offered: a fault of whoever
/// made the frame. The frame is unchanged and must be dropped.
pub fn prepare<'f>(vnet: &VnetHeader, frame: &'f mut [u8]) -> Result<Outgoing<'f>, SplitError> {
    if !vnet.is_super_frame() {
        finish_checksum(vnet, frame)?;
        return Ok(Outgoing::Whole(frame));
    }
    // A super-frame of one segment carries the right lengths already and only lacks its checksum. The first
    // condition is a cheap bound: a borrowed plan cannot be given up and the frame written in one go.
    let small = frame.len() <= usize::from(vnet.gso_size) + MAX_HEADER_LEN;
    if small && vnet.needs_checksum() && Split::plan(vnet, frame)?.count() == 1 {
        add_checksum(vnet, frame)?;
        return Ok(Outgoing::Whole(frame));
    }
    Split::plan(vnet, frame).map(Outgoing::Segments)
}

/// Computes the checksum of a frame that is not a super-frame, where `vnet` says it is missing.
///
/// The field holds the folded pseudo-header sum, so summing from `csum_start` to the end counts it in.
///
/// # Errors
/// As [`prepare`]; the frame is unchanged.
pub fn finish_checksum(vnet: &VnetHeader, frame: &mut [u8]) -> Result<(), SplitError> {
    if vnet.flags & RSC_INFO != 0 {
        return Err(SplitError::Unsupported);
    }
    if vnet.needs_checksum() { add_checksum(vnet, frame) } else { Ok(()) }
}

/// Whether the checksum that `vnet` says is missing may stay so up to the receiver's kernel, because everybody
/// on the way finds it where it is: the frame is one whole TCP segment or UDP datagram without IP extensions.
#[must_use]
pub fn is_partial(vnet: &VnetHeader, frame: &[u8]) -> bool {
    if !vnet.needs_checksum() || vnet.flags & RSC_INFO != 0 {
        return false;
    }
    let Some(ethernet) = Ethernet::parse(frame) else { return false };
    let Some(ip) = Ip::parse(ethernet.ethertype, ethernet.payload(frame)) else { return false };
    let Some(transport) = Transport::from_protocol(ip.protocol()) else { return false };
    let l4 = ethernet.header_len() + ip.header_len();
    !ip.is_fragment()
        && ip.has_plain_header()
        && transport.header_len(ip.payload()).is_some()
        && usize::from(vnet.csum_start) == l4
        && usize::from(vnet.csum_offset) == transport.checksum_offset()
}

fn add_checksum(vnet: &VnetHeader, frame: &mut [u8]) -> Result<(), SplitError> {
    let start = usize::from(vnet.csum_start);
    let field = start + usize::from(vnet.csum_offset);
    if start < ethernet::HEADER_LEN || field + 2 > frame.len() {
        return Err(SplitError::OutsideFrame);
    }
    let sum = Sum::of(&frame[start..]);
    // Zero means "no checksum" to UDP, whose field is at 6, and only to UDP.
    let is_udp = usize::from(vnet.csum_offset) == Transport::Udp.checksum_offset();
    let checksum = if is_udp { sum.checksum_not_zero() } else { sum.checksum() };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}
