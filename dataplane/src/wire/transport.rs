//! The fields of TCP (RFC 9293) and UDP (RFC 768) headers that offloads touch.

use super::ip::{PROTOCOL_TCP, PROTOCOL_UDP};

/// The two protocols whose segments are split and coalesced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// The protocol with this IP protocol number.
    #[must_use]
    #[inline]
    pub fn from_protocol(protocol: u8) -> Option<Self> {
        match protocol {
            PROTOCOL_TCP => Some(Self::Tcp),
            PROTOCOL_UDP => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its IP protocol number.
    #[must_use]
    #[inline]
    pub fn protocol(self) -> u8 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
        }
    }

    /// Where the checksum stands in its header.
    #[must_use]
    #[inline]
    pub fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Octets of the header at the start of `segment`; `None` where it is impossible or cut off.
    #[must_use]
    #[inline]
    pub fn header_len(self, segment: &[u8]) -> Option<usize> {
        let (length, least) = match self {
            Self::Tcp => (usize::from(segment.get(12)? >> 4) * 4, tcp::HEADER_LEN),
            Self::Udp => (udp::HEADER_LEN, udp::HEADER_LEN),
        };
        (length >= least && length <= segment.len()).then_some(length)
    }
}

/// Offsets and flags of the TCP header.
pub mod tcp {
    /// Octets of a header without options.
    pub const HEADER_LEN: usize = 20;
    /// Offset of the sequence number.
    pub const SEQUENCE: usize = 4;
    /// Offset of the flags octet.
    pub const FLAGS: usize = 13;
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts a connection.
    pub const RST: u8 = 0x04;
    /// Hand the data to the reader.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was experienced (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// Offsets of the UDP header.
pub mod udp {
    /// Octets of the header.
    pub const HEADER_LEN: usize = 8;
    /// Offset of the length field.
    pub const LENGTH: usize = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_header_length_is_bounded_by_the_data_offset_and_the_octets_there() {
        let mut segment = [0u8; 32];
        segment[12] = 0x80;
        assert_eq!(Transport::Tcp.header_len(&segment), Some(32));
        assert_eq!(Transport::Tcp.header_len(&segment[..31]), None);
        segment[12] = 0x40;
        assert_eq!(Transport::Tcp.header_len(&segment), None);
        assert_eq!(Transport::Tcp.header_len(&segment[..12]), None);
    }

    #[test]
    fn protocol_numbers_round_trip() {
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(Transport::from_protocol(transport.protocol()), Some(transport));
        }
        assert_eq!(Transport::from_protocol(1), None);
    }
}
