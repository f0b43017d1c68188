//! Decides who is where: members, networks, endpoints, addresses.
//!
//! Everything outside [`io`] is pure: no socket, no clock, no global randomness; `now`, a seeded generator and
//! storage are arguments, output is drained with `poll_*`. A thousand nodes run in one process under a virtual
//! clock.

pub mod admission;
pub mod api;
pub mod catalog;
pub mod cluster;
pub mod command;
pub mod dhcp;
pub mod docker;
pub mod doctor;
pub mod driver;
pub mod firewall;
#[doc(hidden)]
pub mod fuzzing;
pub mod gossip;
pub mod identity;
pub mod ipam;
mod ledger;
pub mod local;
pub mod model;
pub mod names;
pub mod network;
pub mod noise;
pub mod plan;
pub mod publish;
mod ratchet;
pub mod reconcile;
pub mod sandbox;
pub mod session;
pub mod storage;
pub mod timestamp;
pub mod trust;

#[cfg(feature = "io")]
pub mod io;
