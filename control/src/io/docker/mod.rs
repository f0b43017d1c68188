//! The edges towards Docker's engine: what it calls, and what it is asked for.

mod client;
pub(crate) mod plugin;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use client::Client;
pub(crate) use watch::{News, Watcher};
