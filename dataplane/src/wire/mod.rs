//! Wire formats: total parsing, no state, no panics, no allocation.

mod address;
pub mod arp;
pub mod ethernet;
pub mod flow;
pub mod ip;
pub mod ndp;
pub mod transport;
pub mod vnet;
pub mod vxlan;

pub use address::{MacAddr, ParseMacError, Vni, VniOutOfRange};
