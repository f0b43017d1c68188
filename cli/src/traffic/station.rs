//! A sandbox as one end of a measurement.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use weft_control::io::namespace::Namespace;

use super::listening::{End, Listening};
use super::{Arrivals, Pinger, Throughput, count_arrivals, drain_all, echo, processor, udp_socket};
use crate::interrupt::Interrupt;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often an end is pinged that does not answer yet.
const PING_INTERVAL: Duration = Duration::from_millis(50);

/// A network namespace with an address in an overlay.
#[derive(Debug)]
pub struct Station {
    /// Where its sockets are opened.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub address: IpAddr,
    /// Its IPv6 address, if it has one.
    pub address6: Option<IpAddr>,
    /// Kept alive for it.
    _hidden: Option<Namespace>,
}

impl Station {
    /// A station in any namespace; `hidden` is kept open for as long as it is needed.
    #[must_use]
    pub fn new(
        namespace: Namespace,
        address: IpAddr,
        address6: Option<IpAddr>,
        hidden: Option<Namespace>,
    ) -> Self {
        Self { namespace, address, address6, _hidden: hidden }
    }

    /// A pinger inside this station.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pinger(&self, to: IpAddr) -> Result<Pinger> {
        // Replies to other pingers have another identifier; one station runs one at a time.
        self.inside(move || Pinger::open(to, 0x7765))
    }

    /// One ping, repeated until it is answered; `None` where it was not within `limit`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ping(&self, to: IpAddr, limit: Duration, interrupt: &Interrupt) -> Result<Option<Duration>> {
        let mut pinger = self.pinger(to)?;
        interrupt
            .unless_interrupted(move || {
                pinger.until_answered(PING_INTERVAL, limit)?;
                pinger.ping(Duration::from_secs(1))
            })?
            .context("ping")
    }

    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        self.namespace.run(work)?.context("open a socket in a sandbox")
    }

    /// Opens TCP connections to a listening end.
    pub(super) fn connect_tcp(&self, to: SocketAddr, streams: usize) -> Result<Vec<TcpStream>> {
        let connect = || TcpStream::connect_timeout(&to, CONNECT_LIMIT);
        self.inside(|| (0..streams).map(|_| connect()).collect())
    }

    /// A UDP socket that sends to a listening end, and hears nobody else.
    pub(super) fn connect_udp(&self, to: SocketAddr) -> Result<UdpSocket> {
        self.inside(|| {
            let socket = udp_socket((self.address, 0).into())?;
            socket.connect(to)?;
            Ok(socket)
        })
    }
}

impl End for Station {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn station(&self) -> Option<&Station> {
        Some(self)
    }

    fn listen_tcp(&self, streams: usize) -> Result<Listening<Throughput>> {
        let listener = self.inside(|| TcpListener::bind((self.address, 0)))?;
        let at = listener.local_addr()?;
        Ok(Listening { at, outcome: thread::spawn(move || drain_all(&listener, streams)) })
    }

    fn listen_udp(&self) -> Result<Listening<Arrivals>> {
        let socket = self.inside(|| udp_socket((self.address, 0).into()))?;
        let at = socket.local_addr()?;
        let sink = move || {
            processor::stay_on_one_of_many(processor::Role::Sink);
            count_arrivals(&socket)
        };
        Ok(Listening { at, outcome: thread::spawn(sink) })
    }

    fn listen_echo(&self) -> Result<Listening<()>> {
        let socket = self.inside(|| udp_socket((self.address, 0).into()))?;
        let at = socket.local_addr()?;
        let echoing = move || {
            processor::stay_on(processor::ECHO);
            echo(&socket)
        };
        Ok(Listening { at, outcome: thread::spawn(echoing) })
    }
}
