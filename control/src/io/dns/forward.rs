//! Questions about the rest of the world: asked of other servers, each with an id and a port that nobody can guess.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::doors::{BEHIND, PORT};
use super::serve::{Question, Seat};
use super::{count, stream};
use crate::names::forward::{Heard, hear, outgoing};
use crate::names::{Asked, Outside, SERVER, Transport};

/// Docker's resolver, where weft's own is in front of it.
const ENGINE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(SERVER, PORT));

/// Servers asked, one after the other; the third one's answer still comes before most resolvers give up.
const SERVERS: usize = 3;
/// Longest a server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// A datagram may be lost: it is sent again then.
const AGAIN: Duration = Duration::from_millis(700);
/// Longest Docker's resolver is waited for, which asks servers one after the other itself.
const ENGINE_PATIENCE: Duration = Duration::from_secs(9);
/// Datagrams that are no reply before a server is given up.
const MAX_OTHERS: usize = 32;
/// Longest datagram of a server, octets.
const MAX_REPLY: usize = 1 << 16;

/// The reply to a question, from whoever has one.
pub(super) async fn ask(
    seat: &Seat,
    asked: &Asked,
    question: &Question,
    octets: &[u8],
    transport: Transport,
) -> Vec<u8> {
    let servers = match &question.asker.outside {
        Outside::Nowhere => [].as_slice(),
        Outside::Host => &question.view.servers,
        Outside::Own(servers) => servers,
        Outside::Engine => &[ENGINE],
    };
    let mut failure = None;
    for server in servers.iter().take(SERVERS) {
        let errand = Errand { seat, asked, octets, server: *server, outside: &question.asker.outside };
        match timeout(errand.patience(), errand.run(transport)).await {
            Ok(Ok(Heard::Reply(reply))) => return reply,
            Ok(Ok(Heard::Failure(reply))) => failure = Some(reply),
            Ok(Ok(Heard::Other) | Err(_)) | Err(_) => {}
        }
    }
    count(&seat.service.counters.forward_failures);
    failure.unwrap_or_else(|| asked.unanswered())
}

/// One question to one server.
struct Errand<'a> {
    seat: &'a Seat,
    asked: &'a Asked,
    octets: &'a [u8],
    server: SocketAddr,
    outside: &'a Outside,
}

impl Errand<'_> {
    fn patience(&self) -> Duration {
        if *self.outside == Outside::Engine { ENGINE_PATIENCE } else { PATIENCE }
    }

    async fn run(&self, transport: Transport) -> io::Result<Heard> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let id = u16::from_be_bytes(id);
        let query = outgoing(self.asked, self.octets, id);
        match transport {
            Transport::Udp => self.ask_datagram(id, &query).await,
            Transport::Tcp => self.ask_stream(id, &query).await,
        }
    }

    async fn ask_datagram(&self, id: u16, query: &[u8]) -> io::Result<Heard> {
        // The kernel picks the port at random.
        let socket = UdpSocket::from_std(self.socket(Type::DGRAM)?.into())?;
        // Only what comes from the server itself is heard from now on.
        socket.connect(self.server).await?;
        socket.send(query).await?;
        if *self.outside == Outside::Engine {
            // Nothing is lost on the way there.
            return self.listen(&socket, id).await;
        }
        match timeout(AGAIN, self.listen(&socket, id)).await {
            Ok(heard) => heard,
            Err(_) => {
                socket.send(query).await?;
                self.listen(&socket, id).await
            }
        }
    }

    async fn listen(&self, socket: &UdpSocket, id: u16) -> io::Result<Heard> {
        let mut buffer = vec![0; MAX_REPLY];
        for _ in 0..MAX_OTHERS {
            let length = socket.recv(&mut buffer).await?;
            match hear(self.asked, id, &buffer[..length]) {
                Heard::Other => count(&self.seat.service.counters.forged_replies),
                heard => return Ok(heard),
            }
        }
        Ok(Heard::Other)
    }

    fn ask_stream(&self, id: u16, query: &[u8]) -> impl Future<Output = io::Result<Heard>> {
        let socket = self.socket(Type::STREAM);
        async move {
            let socket = TcpSocket::from_std_stream(socket?.into());
            let mut connection = socket.connect(self.server).await?;
            stream::write(&mut connection, query).await?;
            let reply = stream::read_whole(&mut connection).await?;
            Ok(hear(self.asked, id, &reply))
        }
    }

    /// A socket in the namespace the server is asked from, with any port.
    fn socket(&self, kind: Type) -> io::Result<Socket> {
        let open = || {
            let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
            let socket = Socket::new(Domain::for_address(self.server), kind, Some(protocol))?;
            let any = match self.server {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            if kind == Type::DGRAM {
                socket.bind(&any.into())?;
            }
            socket.set_nonblocking(true)?;
            if *self.outside == Outside::Engine {
                socket.set_mark(BEHIND)?;
            }
            Ok(socket)
        };
        // Servers of the asker's own are asked from its own namespace.
        if matches!(self.outside, Outside::Own(_) | Outside::Engine) {
            self.seat.namespace.run(open).map_err(io::Error::other)?
        } else {
            open()
        }
    }
}
