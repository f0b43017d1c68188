//! The only place of the crate with descriptors, threads and clocks.
