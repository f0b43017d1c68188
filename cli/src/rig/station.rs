//! A sandbox as one end of a measurement, and the measurements between two.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use weft_control::api::{
    Connect, Connected, EndpointConfig, EndpointIpamConfig, Network, NetworkCreate, NetworkCreated, Sandbox,
    SandboxCreate,
};
use weft_control::io::namespace::Namespace;

use super::{Host, Rig};
use crate::client::segment;
use crate::failure::Failure;
use crate::traffic::{self, Arrivals, Departures, Pinger, RoundTrips, Throughput, UdpLoad};

/// Payload of the smallest datagrams measured, octets.
pub const UDP_SIZE: usize = 64;
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

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

/// A load of datagrams, as both ends saw it.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// At the sender.
    pub departures: Departures,
    /// At the receiver.
    pub arrivals: Arrivals,
}

impl Delivery {
    /// Datagrams per second that arrived, over the time they were sent in.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.arrivals.received as f64 / self.departures.seconds
    }

    /// The part of what was sent that did not arrive.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.arrivals.received as f64 / self.departures.sent.max(1) as f64
    }
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

    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
        self.namespace.run(work)?.context("open a socket in a sandbox")
    }

    fn udp_pair(&self, to: &Self) -> Result<(UdpSocket, UdpSocket)> {
        let sink = to.inside(|| traffic::udp_socket((to.address, 0).into()))?;
        let target = sink.local_addr()?;
        let source = self.inside(|| {
            let socket = traffic::udp_socket((self.address, 0).into())?;
            socket.connect(target)?;
            Ok(socket)
        })?;
        Ok((source, sink))
    }
}

impl Rig {
    /// Makes a network through a host's agent; gives its first IPv4 subnet as text.
    ///
    /// # Errors
    /// What the agent says.
    pub fn create_network(&self, host: usize, request: &NetworkCreate) -> Result<Network> {
        let client = self.hosts[host].client()?;
        let _: NetworkCreated = client.change("/networks/create", request).map_err(words)?;
        client.read(&format!("/networks/{}", segment(&request.name))).map_err(words)
    }

    /// Waits until a host's agent knows a network.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn await_network(&self, host: usize, network: &str, limit: Duration) -> Result<()> {
        let client = self.hosts[host].client()?;
        let path = format!("/networks/{}", segment(network));
        let known = self.interrupt.until(limit, || Ok(client.read::<Network>(&path).ok()))?;
        known
            .map(drop)
            .with_context(|| format!("host {} does not learn of the network", self.hosts[host].name))
    }

    /// Makes a sandbox through a host's agent, on no network.
    ///
    /// # Errors
    /// What the agent says.
    pub fn create_sandbox(&self, host: usize, name: &str) -> Result<Namespace> {
        let client = self.hosts[host].client()?;
        let request = SandboxCreate { name: name.to_owned(), ..SandboxCreate::default() };
        let sandbox: Sandbox = client.change("/sandboxes/create", &request).map_err(words)?;
        Ok(Namespace::from_descriptor(client.namespace(&sandbox.name).map_err(words)?)?)
    }

    /// Attaches a sandbox to a network through its host's agent.
    ///
    /// # Errors
    /// What the agent says.
    pub fn connect(
        &self,
        host: usize,
        network: &str,
        sandbox: &str,
        ip: Option<Ipv4Addr>,
    ) -> Result<Connected> {
        let ipam_config = EndpointIpamConfig { ipv4_address: ip, ipv6_address: None };
        let endpoint_config = EndpointConfig { ipam_config, ..EndpointConfig::default() };
        let request = Connect { container: sandbox.to_owned(), endpoint_config };
        let path = format!("/networks/{}/connect", segment(network));
        self.hosts[host].client()?.change(&path, &request).map_err(words)
    }

    /// Removes a sandbox.
    ///
    /// # Errors
    /// What the agent says.
    pub fn remove_sandbox(&self, host: usize, name: &str) -> Result<()> {
        self.hosts[host].client()?.remove(&format!("/sandboxes/{}", segment(name))).map_err(words)
    }

    /// Makes a sandbox, attached to a network.
    ///
    /// # Errors
    /// What the agent says.
    pub fn station(&self, host: usize, network: &str, sandbox: &str) -> Result<Station> {
        let namespace = self.create_sandbox(host, sandbox)?;
        let connected = self.connect(host, network, sandbox, None)?;
        let addresses =
            connected.addresses.iter().filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        let (four, six): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
        let address = four.first().copied().context("the endpoint has no IPv4 address")?;
        Ok(Station::new(namespace, address, six.first().copied(), None))
    }

    /// One TCP stream, as fast as it goes for `time`.
    ///
    /// # Errors
    /// No connection, or it broke.
    pub fn tcp(&self, from: &Station, to: &Station, time: Duration) -> Result<Throughput> {
        let listener = to.inside(|| TcpListener::bind((to.address, 0)))?;
        let target: SocketAddr = listener.local_addr()?;
        let stream = from.inside(|| TcpStream::connect_timeout(&target, CONNECT_LIMIT))?;
        let measured = self.interrupt.unless_interrupted(move || {
            let (accepted, _) = listener.accept()?;
            let sink = thread::spawn(move || traffic::drain(accepted));
            traffic::pump(stream, time)?;
            sink.join().map_err(|_| io::Error::other("the sink panicked"))?
        })?;
        measured.context("send a TCP stream")
    }

    /// Datagrams of one size at a rate (0: as many as go) for `time`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn udp(&self, from: &Station, to: &Station, load: UdpLoad) -> Result<Delivery> {
        let (source, sink) = from.udp_pair(to)?;
        let measured = self.interrupt.unless_interrupted(move || {
            let sink = thread::spawn(move || traffic::count_arrivals(&sink));
            let departures = traffic::send_load(&source, load)?;
            let arrivals = sink.join().map_err(|_| io::Error::other("the sink panicked"))??;
            Ok::<_, io::Error>(Delivery { departures, arrivals })
        })?;
        measured.context("send datagrams")
    }

    /// Round trips of one datagram at a time for `time`, the ends on different processors where there are two: ends
    /// on different hosts never share one, and a wake-up on the spot would flatter whoever needs only that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn round_trips(&self, from: &Station, to: &Station, time: Duration) -> Result<RoundTrips> {
        let (source, sink) = from.udp_pair(to)?;
        let measured = self.interrupt.unless_interrupted(move || {
            let done = Arc::new(AtomicBool::new(false));
            let stop = Arc::clone(&done);
            let echo = thread::spawn(move || {
                stay_on(1);
                traffic::echo(&sink, || stop.load(Ordering::Relaxed))
            });
            stay_on(0);
            let trips = traffic::ping_pong(&source, UDP_SIZE, time);
            done.store(true, Ordering::Relaxed);
            echo.join().map_err(|_| io::Error::other("the echo panicked"))??;
            trips
        })?;
        measured.context("send round trips")
    }

    /// One ping, repeated until it is answered; `None` where it was not within `limit`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ping(&self, from: &Station, to: IpAddr, limit: Duration) -> Result<Option<Duration>> {
        let mut pinger = from.pinger(to)?;
        self.interrupt
            .unless_interrupted(move || {
                pinger.until_answered(Duration::from_millis(50), limit)?;
                pinger.ping(Duration::from_secs(1))
            })?
            .context("ping")
    }
}

impl Host {
    /// Reads a value of this host's agent.
    ///
    /// # Errors
    /// What the agent says.
    pub fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.client()?.read(path).map_err(words)
    }
}

/// Keeps the calling thread on one processor; where that is not to be had it stays free.
fn stay_on(processor: usize) {
    let mut only = CpuSet::new();
    let _ = only.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
}

fn words(failure: Failure) -> anyhow::Error {
    anyhow!(failure.message())
}
