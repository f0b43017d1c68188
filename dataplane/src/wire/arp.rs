//! ARP for IPv4 over Ethernet (RFC 826): requests read, replies written.
//!
//! ```text
//! 0       2      4      5      6    8            14          18           24         28
//! | htype | ptype| hlen | plen | op | sender MAC | sender IP | target MAC | target IP |
//! ```

use std::net::Ipv4Addr;

use super::MacAddr;
use super::ethernet::{self, ETHERTYPE_ARP, Ethernet};

/// Octets of a packet.
pub const PACKET_LEN: usize = 28;
/// Octets of an untagged frame that holds one. It is not padded to 60: a TAP has no minimum.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// Ethernet, IPv4, lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What the sender wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// MAC of the sender.
    pub sender_mac: MacAddr,
    /// Its address; unspecified in a probe (RFC 5227 §1.1).
    pub sender_ip: Ipv4Addr,
    /// MAC of the target; without meaning in a request.
    pub target_mac: MacAddr,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads the payload of an ARP frame; `None` for other hardware, protocols or operations, or if cut off.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let packet: &[u8; PACKET_LEN] = payload.first_chunk()?;
        if packet[..6] != KIND {
            return None;
        }
        let operation = match packet[6..8] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: MacAddr(*packet[8..].first_chunk()?),
            sender_ip: Ipv4Addr::from(*packet[14..].first_chunk::<4>()?),
            target_mac: MacAddr(*packet[18..].first_chunk()?),
            target_ip: Ipv4Addr::from(*packet[24..].first_chunk::<4>()?),
        })
    }

    /// Whether the sender only asks if somebody holds the address before it takes it (RFC 5227 §2.1.1).
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender_ip.is_unspecified()
    }

    /// Whether the sender tells its own address to everybody (RFC 5227 §3).
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip
    }

    /// Writes a frame that answers this request: `mac` has the target address. Returns its octets.
    ///
    /// `None` where `out` is shorter than [`FRAME_LEN`].
    #[must_use]
    pub fn write_reply(&self, mac: MacAddr, out: &mut [u8]) -> Option<usize> {
        let reply = Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        };
        let (header, rest) = out.split_first_chunk_mut()?;
        *header = Ethernet::header(self.sender_mac, mac, ETHERTYPE_ARP);
        reply.emit(rest.first_chunk_mut()?);
        Some(FRAME_LEN)
    }

    /// Writes a frame to everybody with this packet, in which the sender tells of its own address. Returns its octets.
    ///
    /// `None` where `out` is shorter than [`FRAME_LEN`].
    #[must_use]
    pub fn write_announcement(&self, out: &mut [u8]) -> Option<usize> {
        let (header, rest) = out.split_first_chunk_mut()?;
        *header = Ethernet::header(MacAddr::BROADCAST, self.sender_mac, ETHERTYPE_ARP);
        self.emit(rest.first_chunk_mut()?);
        Some(FRAME_LEN)
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut [u8; PACKET_LEN]) {
        let operation: u8 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out[..6].copy_from_slice(&KIND);
        out[6..8].copy_from_slice(&[0, operation]);
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender_ip.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target_ip.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOLDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_request_is_answered_to_its_sender() {
        let mut frame = [0; 64];
        let length = request([10, 0, 0, 1]).write_reply(HOLDER, &mut frame).expect("room");
        let decoded = etherparse::SlicedPacket::from_ethernet(&frame[..length]).expect("decodes");
        let Some(etherparse::NetSlice::Arp(arp)) = decoded.net else { panic!("not ARP: {decoded:?}") };
        assert_eq!(arp.operation(), etherparse::ArpOperation::REPLY);
        assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&HOLDER.0[..], &[10, 0, 0, 2][..]));
        assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&ASKER.0[..], &[10, 0, 0, 1][..]));
        let ethernet = Ethernet::parse(&frame).expect("whole");
        assert_eq!((ethernet.dst, ethernet.src), (ASKER, HOLDER));
    }

    #[test]
    fn what_is_written_parses_back() {
        let arp = request([10, 0, 0, 1]);
        let mut packet = [0; PACKET_LEN];
        arp.emit(&mut packet);
        assert_eq!(Arp::parse(&packet), Some(arp));
    }

    #[test]
    fn probes_and_announcements_are_told_apart() {
        assert!(request([0, 0, 0, 0]).is_probe());
        assert!(!request([10, 0, 0, 1]).is_probe());
        assert!(request([10, 0, 0, 2]).is_announcement());
        assert!(!request([10, 0, 0, 1]).is_announcement());
    }

    #[test]
    fn other_hardware_operations_and_cut_packets_are_none() {
        let mut packet = [0; PACKET_LEN];
        request([10, 0, 0, 1]).emit(&mut packet);
        for length in 0..PACKET_LEN {
            assert_eq!(Arp::parse(&packet[..length]), None, "{length} octets");
        }
        for at in [0, 1, 2, 3, 4, 5, 6, 7] {
            let mut other = packet;
            other[at] ^= 0x40;
            assert_eq!(Arp::parse(&other), None, "octet {at}");
        }
    }

    #[test]
    fn a_short_buffer_gets_no_reply() {
        assert_eq!(request([10, 0, 0, 1]).write_reply(HOLDER, &mut [0; FRAME_LEN - 1]), None);
    }

    fn request(sender_ip: [u8; 4]) -> Arp {
        Arp {
            operation: Operation::Request,
            sender_mac: ASKER,
            sender_ip: sender_ip.into(),
            target_mac: MacAddr([0; 6]),
            target_ip: [10, 0, 0, 2].into(),
        }
    }
}
