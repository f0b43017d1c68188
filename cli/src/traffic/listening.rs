//! The far end of a measurement: it listens, and tells afterwards what it saw.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;

use anyhow::Result;

use super::{Arrivals, Station, Throughput};

/// What can be measured to.
pub trait End {
    /// Where it is.
    fn address(&self) -> IpAddr;

    /// The sandbox itself, where it is one of this host.
    fn station(&self) -> Option<&Station>;

    /// Takes so many TCP streams and reads them to their ends.
    ///
    /// # Errors
    /// It cannot listen.
    fn listen_tcp(&self, streams: usize) -> Result<Listening<Throughput>>;

    /// Counts datagrams until none comes any more.
    ///
    /// # Errors
    /// It cannot listen.
    fn listen_udp(&self) -> Result<Listening<Arrivals>>;

    /// Sends datagrams back until none comes any more.
    ///
    /// # Errors
    /// It cannot listen.
    fn listen_echo(&self) -> Result<Listening<()>>;
}

/// An end that listens.
#[derive(Debug)]
pub struct Listening<T> {
    /// Where.
    pub at: SocketAddr,
    /// What it saw, once it is over.
    pub outcome: JoinHandle<io::Result<T>>,
}

impl<T> Listening<T> {
    /// Waits until it is over.
    pub(super) fn finish(self) -> io::Result<T> {
        self.outcome.join().map_err(|_| io::Error::other("the far end panicked"))?
    }
}
