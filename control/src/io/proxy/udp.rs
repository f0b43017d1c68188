//! Relays datagrams: a socket towards the sandbox per client, for as long as they talk.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
    sendmsg, setsockopt,
};
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Clients of one port at a time; a new one takes the place of the one that has been silent for longest.
const MOST: usize = 256;
/// Longest silence of a client and its sandbox, as in Docker's proxy.
const SILENCE: Duration = Duration::from_secs(90);
/// Largest datagram.
const DATAGRAM: usize = 1 << 16;

/// Who asks, and the address of this host that is asked and has to answer.
type Asking = (SocketAddr, Option<IpAddr>);

struct Client {
    sandbox: Arc<UdpSocket>,
    heard: Instant,
    answers: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Relays what arrives at `socket` to `target`, and the answers, for ever.
pub(super) async fn serve(socket: Socket, target: SocketAddr) -> io::Result<()> {
    let port = Arc::new(open(socket)?);
    let mut clients: HashMap<Asking, Client> = HashMap::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // An error here is what an earlier answer met (ICMP), not this socket's.
        let Ok((length, asking)) = receive(&port, &mut datagram).await else { continue };
        clients.retain(|_, client| !client.answers.is_finished());
        if !clients.contains_key(&asking) {
            make_room(&mut clients);
            match begin(&port, asking, target).await {
                Ok(client) => drop(clients.insert(asking, client)),
                Err(fault) => {
                    tracing::debug!(%fault, "a client's datagram is lost");
                    continue;
                }
            }
        }
        if let Some(client) = clients.get_mut(&asking) {
            client.heard = Instant::now();
            // An error is what an earlier datagram met (ICMP); this one is lost, as datagrams are.
            let _ = client.sandbox.send(&datagram[..length]).await;
        }
    }
}

fn open(socket: Socket) -> io::Result<UdpSocket> {
    match socket.domain()? {
        socket2::Domain::IPV6 => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        _ => setsockopt(&socket, Ipv4PacketInfo, &true)?,
    }
    UdpSocket::from_std(socket.into())
}

fn make_room(clients: &mut HashMap<Asking, Client>) {
    if clients.len() < MOST {
        return;
    }
    let silent = clients.iter().min_by_key(|(_, client)| client.heard).map(|(asking, _)| *asking);
    if let Some(asking) = silent {
        clients.remove(&asking);
    }
}

async fn begin(port: &Arc<UdpSocket>, asking: Asking, target: SocketAddr) -> io::Result<Client> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let sandbox = Arc::new(UdpSocket::bind(any).await?);
    sandbox.connect(target).await?;
    let answers = tokio::spawn(answer(Arc::clone(port), asking, Arc::clone(&sandbox)));
    Ok(Client { sandbox, heard: Instant::now(), answers })
}

/// Hands the sandbox's answers to the client until there are none for [`SILENCE`].
async fn answer(port: Arc<UdpSocket>, asking: Asking, sandbox: Arc<UdpSocket>) {
    let mut datagram = vec![0; DATAGRAM];
    while let Ok(received) = timeout(SILENCE, sandbox.recv(&mut datagram)).await {
        // Nothing listens there: the client is not told, but may go on asking.
        let Ok(length) = received else { continue };
        let _ = send(&port, &datagram[..length], asking).await;
    }
}

async fn receive(port: &UdpSocket, datagram: &mut [u8]) -> io::Result<(usize, Asking)> {
    port.async_io(Interest::READABLE, || {
        let mut parts = [IoSliceMut::new(datagram)];
        let mut control = nix::cmsg_space!(in_pktinfo, in6_pktinfo);
        let received = recvmsg::<SockaddrStorage>(
            port.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let asked = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
            _ => None,
        });
        let from = received.address.and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        Ok((received.bytes, (from, asked)))
    })
    .await
}

fn socket_address(address: SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|four| SocketAddr::from((four.ip(), four.port())));
    four.or_else(|| address.as_sockaddr_in6().map(|six| SocketAddr::V6((*six).into())))
}

async fn send(port: &UdpSocket, datagram: &[u8], (to, asked): Asking) -> io::Result<()> {
    port.async_io(Interest::WRITABLE, || {
        let (parts, fd, flags) = ([IoSlice::new(datagram)], port.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        match (to, asked) {
            (SocketAddr::V4(to), Some(IpAddr::V4(from))) => {
                let spec = in_addr { s_addr: u32::from(from).to_be() };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: spec, ipi_addr: in_addr { s_addr: 0 } };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &control, flags, Some(&SockaddrIn::from(to)))?;
            }
            (SocketAddr::V6(to), Some(IpAddr::V6(from))) => {
                let address = in6_addr { s6_addr: from.octets() };
                let info = in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: address };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &control, flags, Some(&SockaddrIn6::from(to)))?;
            }
            (to, _) => {
                sendmsg(fd, &parts, &[], flags, Some(&SockaddrStorage::from(to)))?;
            }
        }
        Ok(())
    })
    .await
}
