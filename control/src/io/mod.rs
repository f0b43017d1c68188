//! The edges of the control plane: netlink, sockets, files, the HTTP API. They decide nothing.
#![allow(clippy::disallowed_methods, reason = "the edge: clocks, sockets, threads and chance enter here")]

mod admission;
pub mod agent;
pub mod commands;
mod descriptor;
mod dhcp;
mod dns;
mod docker;
pub mod doctor;
mod firewall;
mod holding;
pub mod joining;
mod kernel;
pub mod kill;
pub mod leftovers;
pub mod namespace;
pub mod netlink;
mod nft;
mod node;
mod process;
mod proxy;
mod resolver;
mod server;
pub mod store;
pub mod streams;
mod underlay;
mod worker;
