//! What hangs on the underlay address: gossip's sockets and the dataplane.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use weft_dataplane::io::{Dataplane, DataplaneConfig, DataplaneError, Tap};
use weft_dataplane::wire::Vni;

use super::AgentError;
use crate::gossip::{Transmit, Via};
use crate::io::holding::{Transport, failed, port_error};
use crate::io::kernel::Carrier;
use crate::io::namespace::Namespace;
use crate::io::server::explain;
use crate::io::streams::{Doors, Outgoing, accept};
use crate::model::NetworkId;

/// Source ports that flows are spread over.
const SOURCE_PORTS: usize = 32;
/// Buffer of the gossip socket, octets: a burst of records of a few hundred nodes.
const BUFFER: usize = 4 << 20;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// Sockets and dataplane on one underlay address.
pub(super) struct Edges {
    /// Address and port of gossip.
    pub(super) gossip: SocketAddr,
    pub(super) udp: UdpSocket,
    pub(super) dataplane: Arc<Dataplane>,
    /// Readable while the dataplane has events.
    pub(super) bell: AsyncFd<OwnedFd>,
    outgoing: Outgoing,
    accepting: JoinHandle<()>,
}

impl Drop for Edges {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Ports and sizes that stay when the address changes.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) gossip_port: u16,
    pub(super) data_port: u16,
    pub(super) workers: NonZeroUsize,
    pub(super) doors: Doors,
}

impl Edges {
    /// Opens everything on `address`.
    ///
    /// # Errors
    /// A port is taken, and by whom; nothing stays open.
    pub(super) fn open(address: IpAddr, settings: &Settings) -> Result<Self, AgentError> {
        let Settings { gossip_port, data_port, workers, doors } = settings;
        let (udp, gossip) = bind_udp(SocketAddr::new(address, *gossip_port))?;
        let listener = bind_tcp(gossip)?;
        let config = DataplaneConfig {
            bind: address,
            port: *data_port,
            workers: *workers,
            source_ports: SOURCE_PORTS,
        };
        let dataplane = Arc::new(Dataplane::start(config).map_err(dataplane_error)?);
        let bell = watch(&dataplane).map_err(failed("watch the dataplane"))?;
        let outgoing = Outgoing::new(address, Arc::clone(&doors.counters));
        let accepting = tokio::spawn(accept(listener, doors.clone()));
        Ok(Self { gossip, udp, dataplane, bell, outgoing, accepting })
    }

    /// Sends a message; what the kernel does not take now is lost, which gossip is made for.
    pub(super) fn transmit(&mut self, transmit: Transmit) {
        let Transmit { to, via, bytes } = transmit;
        match via {
            Via::Stream => self.outgoing.send(to, bytes),
            Via::Datagram => {
                if let Err(fault) = self.udp.try_send_to(&bytes, to) {
                    tracing::trace!(%to, %fault, "a datagram was not sent");
                }
            }
        }
    }

    /// The dataplane, as what serves uplinks.
    pub(super) fn carrier(&self) -> Box<dyn Carrier> {
        Box::new(Taps(Arc::clone(&self.dataplane)))
    }
}

#[expect(
    deprecated,
    reason = "it is unsound only for types that change their descriptor; an OwnedFd keeps it"
)]
fn watch(dataplane: &Dataplane) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(dataplane.event_descriptor().try_clone_to_owned()?)
}

fn dataplane_error(fault: DataplaneError) -> AgentError {
    AgentError::Start(explain(&fault))
}

fn bind_udp(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), AgentError> {
    let open = || -> io::Result<(UdpSocket, SocketAddr)> {
        let socket =
            Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // The kernel may grant less; that costs retransmissions only.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        socket.bind(&address.into())?;
        let udp = UdpSocket::from_std(socket.into())?;
        let bound = udp.local_addr()?;
        Ok((udp, bound))
    };
    open().map_err(|fault| port_error(Transport::Udp, address, fault))
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, AgentError> {
    let open = || -> io::Result<TcpListener> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections of an agent that has just ended would keep the port for a minute.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|fault| port_error(Transport::Tcp, address, fault))
}

/// Uplinks as TAPs that the dataplane reads and writes.
struct Taps(Arc<Dataplane>);

impl Carrier for Taps {
    fn open(
        &self,
        namespace: &Namespace,
        name: &str,
        vni: Vni,
        sealing: Option<NetworkId>,
    ) -> Result<(), String> {
        let made = namespace.run(|| Tap::create(name, self.0.queues())).map_err(|fault| explain(&fault))?;
        let tap = made.map_err(|fault| explain(&fault))?;
        self.0.attach(vni, sealing.map(|id| id.0), tap).map_err(|fault| explain(&fault))
    }

    fn close(&self, vni: Vni) {
        self.0.detach(vni);
    }
}
