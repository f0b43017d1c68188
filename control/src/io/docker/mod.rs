//! The edges towards Docker's engine.

pub(crate) mod plugin;
