//! Wire formats: total parsing, no state, no panics, no allocation.

mod address;
pub mod vxlan;

pub use address::{MacAddr, ParseMacError, Vni, VniOutOfRange};
