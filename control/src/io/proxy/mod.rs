//! Published ports as programs of this host see them: sockets that hold them, and a relay for what the kernel's
//! address translation cannot do.
//!
//! The kernel translates nothing that comes from or goes to a loopback address unless a host opens those to its
//! neighbours (`route_localnet`), and nothing between IPv4 and IPv6. For these, and while tables are being reloaded, what
//! arrives at the socket is relayed to the sandbox. The relay has a thread of its own, which holds no capability, and
//! bounds on everything, so that nothing that a client does costs more than that.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::publish::{Conflict, Protocol, Published};

mod tcp;
mod udp;

/// Connections waiting to be accepted at one port.
const BACKLOG: i32 = 128;

/// A socket that holds a port of the host, listening.
#[derive(Debug)]
pub(crate) struct Held {
    protocol: Protocol,
    /// Absent where the kernel has no sockets of the protocol: then nobody else has any either.
    socket: Option<Socket>,
}

/// Takes a port of the host in the calling thread's namespace.
///
/// # Errors
/// A program has it, or there is no such address; in Docker's words.
pub(crate) fn hold(published: &Published) -> Result<Held, Conflict> {
    let address = SocketAddr::new(published.host, published.host_port);
    let protocol = published.port.protocol;
    match bind(protocol, address) {
        Ok(socket) => Ok(Held { protocol, socket: Some(socket) }),
        Err(fault) if protocol == Protocol::Sctp && is_unknown(&fault) => Ok(Held { protocol, socket: None }),
        Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => Err(Conflict::InUse(address, protocol)),
        Err(fault) => {
            let why = fault.raw_os_error().map(|code| Errno::from_raw(code).desc().to_lowercase());
            Err(Conflict::Unbindable(address, protocol, why.unwrap_or_else(|| fault.to_string())))
        }
    }
}

fn is_unknown(fault: &io::Error) -> bool {
    let code = fault.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT))
}

fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let (kind, transport) = match protocol {
        Protocol::Tcp => (Type::STREAM, Transport::TCP),
        Protocol::Udp => (Type::DGRAM, Transport::UDP),
        Protocol::Sctp => (Type::STREAM, Transport::SCTP),
    };
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(transport))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an agent that has just ended would keep the port for a minute.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if protocol != Protocol::Udp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Whether this host has IPv6.
pub(crate) fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

/// What the relay's thread is told.
enum Order {
    Serve(Published, Held, SocketAddr),
    Close(Published),
}

/// The sockets of all published ports, and the thread that relays for them.
#[derive(Default)]
pub(crate) struct Relay {
    orders: Option<UnboundedSender<Order>>,
    serving: BTreeMap<Published, SocketAddr>,
}

impl Relay {
    /// What is served, and to where.
    pub(crate) fn serving(&self) -> &BTreeMap<Published, SocketAddr> {
        &self.serving
    }

    /// Relays what arrives at a held port to `target` from now on.
    ///
    /// # Errors
    /// No more threads.
    pub(crate) fn serve(&mut self, published: Published, held: Held, target: SocketAddr) -> io::Result<()> {
        let orders = match &self.orders {
            Some(orders) => orders,
            None => self.orders.insert(start()?),
        };
        // A thread that is gone has panicked; its ports are free then.
        let _ = orders.send(Order::Serve(published, held, target));
        self.serving.insert(published, target);
        Ok(())
    }

    /// Gives a port up, and ends what goes over it.
    pub(crate) fn close(&mut self, published: &Published) {
        if self.serving.remove(published).is_some()
            && let Some(orders) = &self.orders
        {
            let _ = orders.send(Order::Close(*published));
        }
    }
}

/// Starts the thread; it ends when nobody gives it orders any more.
fn start() -> io::Result<UnboundedSender<Order>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (orders, received) = unbounded_channel();
    std::thread::Builder::new().name("weft-relay".into()).spawn(move || {
        if let Err(fault) = give_up_capabilities() {
            tracing::warn!(%fault, "the relay of published ports keeps capabilities it has no use for");
        }
        runtime.block_on(obey(received));
    })?;
    Ok(orders)
}

/// Of this thread alone (capabilities(7)).
fn give_up_capabilities() -> Result<(), caps::errors::CapsError> {
    caps::clear(None, caps::CapSet::Effective)?;
    caps::clear(None, caps::CapSet::Permitted)
}

async fn obey(mut orders: UnboundedReceiver<Order>) {
    let mut ports: BTreeMap<Published, JoinHandle<()>> = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve(published, held, target) => {
                let serving = tokio::spawn(serve(published, held, target));
                if let Some(before) = ports.insert(published, serving) {
                    before.abort();
                }
            }
            Order::Close(published) => {
                if let Some(serving) = ports.remove(&published) {
                    serving.abort();
                }
            }
        }
    }
}

async fn serve(published: Published, held: Held, target: SocketAddr) {
    let Held { protocol, socket } = held;
    let outcome = match (protocol, socket) {
        (Protocol::Tcp, Some(socket)) => tcp::serve(socket, target).await,
        (Protocol::Udp, Some(socket)) => udp::serve(socket, target).await,
        // It holds the port; streams of messages are not relayed.
        (_, socket) => {
            let _socket = socket;
            std::future::pending().await
        }
    };
    if let Err(fault) = outcome {
        tracing::warn!(port = %published.port, host = %published.host, %fault, "a published port is not relayed");
    }
}

#[cfg(test)]
mod tests;
