//! ICMP echo over IPv4 and IPv6, from a socket that may live in any namespace.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::timed_out;

/// Echo request of ICMPv4 (RFC 792) and ICMPv6 (RFC 4443 §4.1), and the reply to each.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);
/// Octets after the ICMP header, as `ping`'s default.
const PAYLOAD: usize = 56;

/// Sends echo requests to one address.
#[derive(Debug)]
pub struct Pinger {
    socket: Socket,
    to: IpAddr,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    /// Opens a raw socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn open(to: IpAddr, identifier: u16) -> io::Result<Self> {
        let (domain, protocol) =
            if to.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
        Ok(Self { socket: Socket::new(domain, Type::RAW, Some(protocol))?, to, identifier, sequence: 0 })
    }

    /// Sends one request and waits at most `patience` for its reply; `None` where none came or none could be sent.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ping(&mut self, patience: Duration) -> io::Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let start = Instant::now();
        if self.socket.send_to(&self.request(), &SocketAddr::new(self.to, 0).into()).is_err() {
            std::thread::sleep(patience);
            return Ok(None);
        }
        let mut answer = [0; 2048];
        loop {
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(&mut answer) {
                Ok(count) if self.is_reply(&answer[..count]) => return Ok(Some(start.elapsed())),
                Ok(_) => {}
                Err(error) if timed_out(&error) => return Ok(None),
                // What ICMP reported about an earlier request.
                Err(error) if error.raw_os_error().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Pings until a reply comes, again every `interval`; `None` where none came within `limit`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn until_answered(&mut self, interval: Duration, limit: Duration) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if self.ping(interval)?.is_some() {
                return Ok(Some(start.elapsed()));
            }
        }
        Ok(None)
    }

    fn request(&self) -> Vec<u8> {
        let mut message = vec![0; 8 + PAYLOAD];
        message[0] = if self.to.is_ipv4() { V4.0 } else { V6.0 };
        message[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        if self.to.is_ipv4() {
            // The kernel fills in ICMPv6's checksum (RFC 3542 §3.1), not ICMPv4's.
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }

    /// Whether the message, with its IP header over IPv4 and without over IPv6, answers the last request.
    fn is_reply(&self, message: &[u8]) -> bool {
        let (kind, skip) = match (self.to, message.first()) {
            (IpAddr::V4(_), Some(first)) => (V4.1, usize::from(first & 0x0f) * 4),
            _ => (V6.1, 0),
        };
        let Some(icmp) = message.get(skip..).filter(|icmp| icmp.len() >= 8) else { return false };
        icmp[0] == kind
            && icmp[4..6] == self.identifier.to_be_bytes()
            && icmp[6..8] == self.sequence.to_be_bytes()
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_one_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
