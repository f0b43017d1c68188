//! Drivers: each turns what a network wants on this node into a [`Plan`](crate::plan::Plan).

pub mod overlay;
