//! Cursor over octets from the network, and its counterpart.
//!
//! Every read is checked; a length from the network is compared with what is there before anything is allocated.

use std::net::{IpAddr, SocketAddr};

use super::limits::MAX_STREAM;
use crate::model::NodeId;

/// Octets of the message behind this length, as streams carry them; `None` ends the connection.
pub(crate) fn frame_length(octets: [u8; 4]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(octets)).ok()?;
    (1..=MAX_STREAM).contains(&length).then_some(length)
}

/// Reads from the front; `None` once anything is missing or not allowed.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn node(&mut self) -> Option<NodeId> {
        self.array().map(NodeId)
    }

    /// An address that one host can be meant by, in its canonical form: no other form is another host's.
    pub(crate) fn addr(&mut self) -> Option<SocketAddr> {
        let ip = match self.u8()? {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        let addr = SocketAddr::new(ip.to_canonical(), self.u16()?);
        reachable(&addr).then_some(addr)
    }

    /// Success only if nothing is left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Whether one host can be meant by `addr`: not unspecified, multicast or broadcast, and with a port.
pub(crate) fn reachable(addr: &SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Appends to a vector, network order.
pub(crate) trait Writer {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    fn u64(&mut self, value: u64);
    fn flag(&mut self, value: bool);
    fn octets(&mut self, value: &[u8]);
    fn node(&mut self, value: NodeId);
    fn addr(&mut self, value: &SocketAddr);
}

impl Writer for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn flag(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn octets(&mut self, value: &[u8]) {
        self.extend_from_slice(value);
    }

    fn node(&mut self, value: NodeId) {
        self.extend_from_slice(&value.0);
    }

    fn addr(&mut self, value: &SocketAddr) {
        match value.ip().to_canonical() {
            IpAddr::V4(v4) => {
                self.push(4);
                self.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.push(6);
                self.extend_from_slice(&v6.octets());
            }
        }
        Writer::u16(self, value.port());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_has_one_form_whichever_was_written() {
        let plain = SocketAddr::from(([192, 0, 2, 1], 7946));
        let mapped = "[::ffff:192.0.2.1]:7946".parse().expect("an address");
        let (mut one, mut other) = (Vec::new(), Vec::new());
        one.addr(&plain);
        other.addr(&mapped);
        assert_eq!(one, other);
        let foreign = [&[6; 1][..], &[0; 10], &[0xff, 0xff, 192, 0, 2, 1], &7946_u16.to_be_bytes()].concat();
        assert_eq!(Reader::new(&foreign).addr(), Some(plain));
    }
}
