//! What a coalescer sees in one frame: a TCP segment or UDP datagram, and whether it may be joined to others.

use crate::checksum::{Sum, pseudo_header};
use crate::wire::ethernet::Ethernet;
use crate::wire::ip::{self, Ip, V4_HEADER_LEN, Version};
use crate::wire::transport::{Transport, tcp, udp};

/// UDP ports of tunnels (VXLAN, Geneve, Linux's old VXLAN): drivers before Linux 6.8.5 mishandle tunnels inside
/// UDP super-frames.
const TUNNEL_PORTS: [u16; 3] = [4789, 6081, 8472];

/// What may be done with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It may start or continue a run; `last` closes the run (PSH).
    Joins {
        /// Nothing may follow it.
        last: bool,
    },
    /// A pure acknowledgement: passes by, and data may overtake it.
    Acknowledges,
    /// It stays alone, and nothing of its flow may overtake it.
    StaysAlone,
}

/// A TCP segment or UDP datagram that is not a fragment, with its offsets in the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram {
    pub(super) version: Version,
    pub(super) transport: Transport,
    pub(super) role: Role,
    /// Offset of the IP header.
    pub(super) l3: usize,
    /// Offset of the TCP or UDP header.
    pub(super) l4: usize,
    /// Offset of the payload.
    pub(super) payload: usize,
    /// Where the IP packet ends: Ethernet padding may follow.
    pub(super) end: usize,
}

impl Datagram {
    /// Reads `frame`; `None` for everything that is not whole TCP or UDP over IP.
    #[inline]
    pub(super) fn parse(ethernet: &Ethernet, frame: &[u8]) -> Option<Self> {
        let ip = Ip::parse(ethernet.ethertype, ethernet.payload(frame))?;
        let transport = Transport::from_protocol(ip.protocol()).filter(|_| !ip.is_fragment())?;
        let segment = ip.payload();
        let l3 = ethernet.header_len();
        let l4 = l3 + ip.header_len();
        let l4_header_len = transport.header_len(segment)?;
        Some(Self {
            version: ip.version(),
            transport,
            role: role(&ip, transport, segment, l4_header_len),
            l3,
            l4,
            payload: l4 + l4_header_len,
            end: l3 + ip.packet().len(),
        })
    }

    /// Octets of payload.
    #[inline]
    pub(super) fn payload_len(&self) -> usize {
        self.end - self.payload
    }

    /// Offset of the L4 checksum.
    #[inline]
    pub(super) fn checksum_at(&self) -> usize {
        self.l4 + self.transport.checksum_offset()
    }

    /// The L4 checksum field.
    #[inline]
    pub(super) fn checksum(&self, frame: &[u8]) -> u16 {
        let at = self.checksum_at();
        u16::from_be_bytes([frame[at], frame[at + 1]])
    }

    /// The pseudo header with the length of this packet.
    #[inline]
    pub(super) fn pseudo_header(&self, frame: &[u8]) -> Sum {
        let addresses = &frame[self.l3..][ip::addresses(self.version)];
        pseudo_header(addresses, self.transport.protocol(), self.end - self.l4)
    }

    /// Whether the checksum field holds only the pseudo-header sum: what a kernel VXLAN device on the same
    /// machine hands over, which leaves the rest to hardware that is never met.
    ///
    /// A finished checksum looks like this once in 65,536 and is then recomputed to the same value.
    #[inline]
    pub(super) fn is_partial(&self, frame: &[u8], pseudo: Sum) -> bool {
        self.checksum(frame) == pseudo.fold()
    }

    /// Whether the IPv4 header and the L4 segment are intact.
    #[inline]
    pub(super) fn is_intact(&self, frame: &[u8], pseudo: Sum) -> bool {
        self.has_intact_ip(frame) && (pseudo + Sum::of(&frame[self.l4..self.end])).is_valid()
    }

    /// Whether the IPv4 header is intact; IPv6 has no checksum of its own.
    #[inline]
    pub(super) fn has_intact_ip(&self, frame: &[u8]) -> bool {
        let header = &frame[self.l3..self.l4];
        match header.as_array::<V4_HEADER_LEN>() {
            Some(plain) => Sum::of_header(plain).is_valid(),
            None => self.version == Version::V6 || Sum::of(header).is_valid(),
        }
    }

    /// Addresses and ports: with the transport they identify the flow.
    #[inline]
    pub(super) fn flow_octets<'f>(&self, frame: &'f [u8]) -> (&'f [u8], &'f [u8]) {
        (&frame[self.l3..][ip::addresses(self.version)], &frame[self.l4..self.l4 + 4])
    }

    /// Whether `other` is of the same flow. Lengths known when compiling spare calls of `memcmp`.
    #[inline]
    pub(super) fn is_of_flow(&self, frame: &[u8], other: &Self, other_frame: &[u8]) -> bool {
        self.transport == other.transport
            && self.version == other.version
            && are_equal::<4>(&frame[self.l4..], &other_frame[other.l4..])
            && match self.version {
                Version::V4 => are_equal::<8>(&frame[self.l3 + 12..], &other_frame[other.l3 + 12..]),
                Version::V6 => are_equal::<32>(&frame[self.l3 + 8..], &other_frame[other.l3 + 8..]),
            }
    }
}

/// Compares the first `N` octets.
#[inline]
pub(super) fn are_equal<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    matches!((a.first_chunk::<N>(), b.first_chunk::<N>()), (Some(a), Some(b)) if a == b)
}

#[inline]
fn role(ip: &Ip<'_>, transport: Transport, segment: &[u8], l4_header_len: usize) -> Role {
    if !ip.has_plain_header() {
        return Role::StaysAlone;
    }
    let empty = segment.len() == l4_header_len;
    match transport {
        Transport::Tcp => tcp_role(segment[tcp::FLAGS], empty),
        Transport::Udp => udp_role(segment, empty),
    }
}

/// SYN, FIN, RST, URG and CWR stay alone: splitting could not put them back where they were.
#[inline]
fn tcp_role(flags: u8, empty: bool) -> Role {
    if flags & !(tcp::PSH | tcp::ECE) != tcp::ACK {
        Role::StaysAlone
    } else if empty {
        Role::Acknowledges
    } else {
        Role::Joins { last: flags & tcp::PSH != 0 }
    }
}

/// Zero checksums stay alone: joined, the kernel would write real ones over data nobody vouches for.
#[inline]
fn udp_role(segment: &[u8], empty: bool) -> Role {
    let port = u16::from_be_bytes([segment[2], segment[3]]);
    let length = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
    let has_checksum = segment[6..8] != [0, 0];
    let consistent = length == segment.len() && length >= udp::HEADER_LEN;
    if consistent && has_checksum && !empty && !TUNNEL_PORTS.contains(&port) {
        Role::Joins { last: false }
    } else {
        Role::StaysAlone
    }
}
