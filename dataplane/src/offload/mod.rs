//! Segmentation and coalescing: what network cards do for kernels, done for the overlay.
//!
//! Out, a TAP hands over TCP and UDP super-frames of up to 64 KiB whose checksums are not computed yet:
//! [`prepare`] validates what the kernel asks for and either finishes the frame in place or plans its
//! [`Split`] into segments. In, a [`Coalescer`] joins the segments of one flow, so that the kernel takes
//! them in one write. Neither copies payload, and neither allocates per packet.

mod coalesce;
mod datagram;
mod finish;
mod flow_table;
mod run;
mod split;

pub use coalesce::{Arrival, Checksum, CoalesceError, Coalescer, Merged, UdpSegmentation};
pub use finish::{Outgoing, finish_checksum, is_partial, prepare};
pub use split::{MAX_HEADER_LEN, Split, SplitError};

/// The 16-bit field at `at`, network order; `at` lies two octets before the end, as the parser proved.
#[inline]
fn get(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

/// Sets the 16-bit field at `at`, network order, within the same bound.
#[inline]
fn put(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
