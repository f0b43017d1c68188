//! The only place of the crate with descriptors, threads and clocks.
#![allow(clippy::disallowed_methods, reason = "the edge: clocks, sockets, threads and chance enter here")]
