//! Turns Ethernet frames into datagrams and back: VXLAN in clear, or sealed.
//!
//! This crate knows *where* things are (VNI, MAC, VTEP, port), never *who* they are. Everything outside
//! [`io`] is pure: it opens no socket, reads no clock, draws no random number; `now`, tables and buffers are
//! arguments. The way of one frame:
//!
//! ```text
//! out  TAP read (≤ 64 KiB + virtio_net_hdr) → parse → lookup → split → encap or seal → run of equal datagrams → UDP_SEGMENT
//! in   recvmmsg + UDP_GRO → known VTEP, or open → decap → segment → coalesce one flow → TAP write with virtio_net_hdr
//! ```
//!
//! Every arrow may end in a drop: a verdict with one [`stats::DropReason`] and one counter, never an error.

mod answer;
pub mod change;
pub mod checksum;
pub mod engine;
pub mod fdb;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
pub mod neighbour;
pub mod offload;
pub mod seal;
pub mod segment;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod wire;

#[cfg(feature = "io")]
pub mod io;
