//! What paths carry: ICMP echoes that may not be fragmented, to all members at once.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use weft_dataplane::io::forbid_fragments;

use crate::api::Peer;
use crate::doctor::{PathMtu, PeerPath, Underlay};

/// Most members that are asked.
const MOST: usize = 64;
/// Longest wait for an answer, and how often it is asked for.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: u16 = 2;
/// Smallest packet of which an answer is expected, octets.
const SMALL: u16 = 84;
/// How near the largest packet that passes is looked for, octets.
const NEAR: u16 = 4;
/// Octets of an ICMP header.
const HEADER: usize = 8;
/// Types of the request and the answer (RFC 792, RFC 4443).
const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// The paths to all other members, those that are alive tried.
pub(super) fn paths(peers: &[Peer], underlay: &Underlay) -> Vec<PeerPath> {
    let others: Vec<_> = peers.iter().filter(|peer| !peer.this_node && peer.state != "left").collect();
    thread::scope(|scope| {
        let trials: Vec<_> = others
            .iter()
            .enumerate()
            .map(|(at, peer)| {
                let (to, wanted) = (peer.address.ip(), at < MOST && peer.state == "alive");
                scope.spawn(move || if wanted { carried(to, underlay) } else { PathMtu::Untried })
            })
            .collect();
        let tried = trials.into_iter().map(|trial| trial.join().unwrap_or(PathMtu::Untried));
        others.iter().zip(tried).map(|(peer, mtu)| path(peer, mtu)).collect()
    })
}

fn path(peer: &Peer, mtu: PathMtu) -> PeerPath {
    PeerPath { name: peer.name.clone(), address: peer.address.ip(), state: peer.state.clone(), mtu }
}

fn carried(to: IpAddr, underlay: &Underlay) -> PathMtu {
    let Ok(mut echo) = Echo::open(to, underlay.address) else { return PathMtu::Untried };
    if !echo.passes(SMALL) {
        return PathMtu::Silent;
    }
    if echo.passes(underlay.mtu) {
        return PathMtu::Whole;
    }
    let (mut passes, mut fails) = (SMALL, underlay.mtu);
    while fails - passes > NEAR {
        let middle = passes.midpoint(fails);
        if echo.passes(middle) {
            passes = middle;
        } else {
            fails = middle;
        }
    }
    PathMtu::Only(passes)
}

/// A conversation of echoes with one host.
struct Echo {
    socket: Socket,
    six: bool,
    /// Whether the kernel leaves headers and checksums to us.
    raw: bool,
    sequence: u16,
}

impl Echo {
    /// A socket for echoes as any user may have it, where the host allows that, else a raw one.
    fn open(to: IpAddr, from: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
        };
        forbid_fragments(&socket, to.is_ipv4())?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        Ok(Self { socket, six: to.is_ipv6(), raw, sequence: 0 })
    }

    /// Whether a packet of so many octets gets an answer.
    fn passes(&mut self, octets: u16) -> bool {
        let header = if self.six { 40 } else { 20 };
        let length = usize::from(octets).saturating_sub(header).max(HEADER);
        (0..TRIES).any(|_| self.answered(length).unwrap_or(false))
    }

    fn answered(&mut self, length: usize) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&self.request(length))?;
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = (&self.socket).read(&mut buffer)?;
            if self.is_answer(&buffer[..length]) {
                return Ok(true);
            }
        }
    }

    fn request(&self, length: usize) -> Vec<u8> {
        let mut message = vec![0; length];
        message[0] = ECHO[usize::from(self.six)].0;
        message[4..6].copy_from_slice(&identifier());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        if !self.six {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    fn is_answer(&self, packet: &[u8]) -> bool {
        // A raw IPv4 socket gives the IP header too; its length is in words of 4 octets.
        let skip = if self.raw && !self.six {
            usize::from(packet.first().copied().unwrap_or(0) & 15) * 4
        } else {
            0
        };
        let Some(message) = packet.get(skip..).filter(|message| message.len() >= HEADER) else {
            return false;
        };
        message[0] == ECHO[usize::from(self.six)].1
            && message[6..8] == self.sequence.to_be_bytes()
            && (!self.raw || message[4..6] == identifier())
    }
}

/// Tells our echoes from those of others; the kernel sets its own on sockets that are not raw.
fn identifier() -> [u8; 2] {
    let pid = std::process::id().to_be_bytes();
    [pid[2], pid[3]]
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let words =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_zero() {
        let mut message = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, 0xff];
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
    }
}
