//! The inner frames that a frame from a TAP becomes, not yet written anywhere.

use crate::offload::{Split, SplitError, finish_checksum, is_partial};
use crate::seal::InnerChecksum;
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

    /// What [`Plan::write`] leaves in the checksum field.
    pub(crate) fn checksum(&self) -> InnerChecksum {
        match self {
            Self::Whole { checksum, .. } => *checksum,
            Self::Segments(split) if split.has_plain_header() => InnerChecksum::Partial,
            Self::Segments(_) => InnerChecksum::Whole,
        }
    }

    /// Writes inner frame `i` to `out`, which has its length.
    #[inline]
    pub(crate) fn write(&self, i: usize, out: &mut [u8]) {
        match self {
            Self::Whole { frame, .. } => out.copy_from_slice(frame),
            Self::Segments(split) => {
                let header_len = match self.checksum() {
                    InnerChecksum::Partial => split.write_partial_header(i, out),
                    InnerChecksum::Whole => split.write_header(i, out),
                };
                out[header_len..].copy_from_slice(split.payload(i));
            }
        }
    }
}
