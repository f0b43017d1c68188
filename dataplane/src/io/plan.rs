//! The inner frames that a frame from a TAP becomes, not yet written anywhere.

use crate::offload::{Split, SplitError, finish_checksum, is_partial};
use crate::seal::{self, InnerChecksum};
use crate::wire::ethernet::Ethernet;
use crate::wire::vnet::VnetHeader;

/// What is to be sent of one frame; made once, whatever the number of receivers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan<'f> {
    /// The frame as it is.
    Whole { frame: &'f [u8], checksum: InnerChecksum },
    /// Segments of a super-frame.
    Segments(Split<'f>),
}

/// Computes the checksum of a frame that lacks it, unless that is better done where the frame is sent, or, if
/// it is sealed, not at all. Super-frames are left as they are.
///
/// # Errors
/// The frame must be dropped; see [`SplitError`].
pub(crate) fn settle(vnet: &VnetHeader, frame: &mut [u8]) -> Result<InnerChecksum, SplitError> {
    if vnet.is_super_frame() {
        return Ok(InnerChecksum::Whole);
    }
    if is_partial(vnet, frame) {
        return Ok(InnerChecksum::Partial);
    }
    finish_checksum(vnet, frame).map(|()| InnerChecksum::Whole)
}

/// Computes the checksum that [`settle`] left for later: a frame in clear needs it.
pub(crate) fn complete(vnet: &VnetHeader, checksum: InnerChecksum, frame: &mut [u8]) {
    if checksum == InnerChecksum::Partial {
        // Where the field stands was checked when the frame was settled.
        let _ = finish_checksum(vnet, frame);
    }
}

impl<'f> Plan<'f> {
    /// The plan for a frame that is [settled](settle).
    ///
    /// # Errors
    /// The frame must be dropped; see [`SplitError`].
    pub(crate) fn of(
        vnet: &VnetHeader,
        frame: &'f [u8],
        checksum: InnerChecksum,
    ) -> Result<Self, SplitError> {
        if vnet.is_super_frame() {
            Split::plan(vnet, frame).map(Self::Segments)
        } else {
            Ok(Self::Whole { frame, checksum })
        }
    }

    /// Octets of the largest IP packet, or of whatever else is behind the Ethernet header.
    pub(crate) fn largest(&self) -> usize {
        match self {
            Self::Whole { frame, .. } => {
                Ethernet::parse(frame).map_or(0, |ethernet| ethernet.payload(frame).len())
            }
            Self::Segments(split) => split.packet_len(),
        }
    }

    /// Number of inner frames, at least 1.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Whole { .. } => 1,
            Self::Segments(split) => split.count(),
        }
    }

    /// Octets of inner frame `i`.
    pub(crate) fn len(&self, i: usize) -> usize {
        match self {
            Self::Whole { frame, .. } => frame.len(),
            Self::Segments(split) => split.segment_len(i),
        }
    }

    /// What [`Plan::write_front`] leaves in the checksum field.
    pub(crate) fn checksum(&self) -> InnerChecksum {
        match self {
            Self::Whole { checksum, .. } => *checksum,
            Self::Segments(split) if split.has_plain_header() => InnerChecksum::Partial,
            Self::Segments(_) => InnerChecksum::Whole,
        }
    }

    /// Writes the first octets of inner frame `i` to `out`, which has room for all of it, and returns the others,
    /// which stay where they were read. Whole blocks of the cipher are written, as a block in two parts costs more.
    #[inline]
    pub(crate) fn write_front(&self, i: usize, out: &mut [u8]) -> &'f [u8] {
        match self {
            Self::Whole { frame, .. } => frame,
            Self::Segments(split) => {
                let header_len = match self.checksum() {
                    InnerChecksum::Partial => split.write_partial_header(i, out),
                    InnerChecksum::Whole => split.write_header(i, out),
                };
                let payload = split.payload(i);
                let filling = header_len.next_multiple_of(seal::BLOCK_LEN) - header_len;
                let (front, rest) = payload.split_at(filling.min(payload.len()));
                out[header_len..header_len + front.len()].copy_from_slice(front);
                rest
            }
        }
    }
}
