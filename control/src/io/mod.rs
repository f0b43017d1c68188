//! The edges of the control plane: netlink, sockets, files, the HTTP API. They decide nothing.
#![allow(clippy::disallowed_methods, reason = "the edge: clocks, sockets, threads and chance enter here")]

pub mod agent;
pub(crate) mod kill;
pub mod namespace;
pub mod netlink;
pub mod store;
