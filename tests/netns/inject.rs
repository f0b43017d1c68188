//! Datagrams from whatever address one likes: IPv4 and UDP headers by hand.

use std::net::{SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::namespace::Namespace;

/// `IPPROTO_RAW`: the caller writes the whole packet (`man 7 raw`).
const RAW: i32 = 255;
const UDP: u8 = 17;

/// A raw socket in a namespace.
pub(crate) struct Injector(Socket);

impl Injector {
    pub(crate) fn inside(namespace: &Namespace) -> Self {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)));
        Self(namespace.enter(open).expect("root may open a raw socket"))
    }

    /// Sends one datagram as if from `from`. The kernel fills in length, identification and header checksum; a UDP
    /// checksum of zero is none (RFC 768).
    pub(crate) fn send(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let length = u16::try_from(8 + payload.len()).expect("a datagram").to_be_bytes();
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
        packet.extend(from.ip().octets());
        packet.extend(to.ip().octets());
        packet.extend([from.port().to_be_bytes(), to.port().to_be_bytes(), length, [0, 0]].concat());
        packet.extend(payload);
        self.0.send_to(&packet, &SockAddr::from(SocketAddr::V4(to))).expect("sent");
    }
}
