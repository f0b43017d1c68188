//! One super-frame in the making: its first frame, what may continue it, and its headers at the end.

use std::ops::Range;

use super::coalesce::{Arrival, Checksum, CoalesceError};
use super::datagram::{Datagram, Role, are_equal};
use super::{get, put};
use crate::checksum::{Sum, pseudo_header};
use crate::wire::ethernet;
use crate::wire::ip::{self, V6_HEADER_LEN, Version};
use crate::wire::transport::{Transport, tcp, udp};
use crate::wire::vnet::{self, VnetHeader};

/// Most header octets that are rewritten: Ethernet with two tags 22, IPv4 60 or IPv6 40, TCP 60.
/// Only IPv6 extension headers make more; such frames are written as they came.
pub(super) const MAX_HEAD_LEN: usize = 22 + 60 + 60;
/// Octets of the largest IP packet a super-frame may claim to be.
const MAX_PACKET_LEN: usize = 65_535;

/// What is known of a frame's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integrity {
    /// Nothing yet.
    Unverified,
    /// The octets are good, whatever the L4 checksum field says: it may be replaced by a seed.
    Vouched,
}

/// A segment that arrived, with its place in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) port: u32,
    pub(super) start: u32,
    frame_len: u32,
    pub(super) datagram: Datagram,
    integrity: Integrity,
    /// The pseudo header with the length of this packet.
    pseudo: Sum,
}

impl Segment {
    #[inline]
    pub(super) fn new(arrival: &Arrival, datagram: Datagram, frame: &[u8]) -> Self {
        // A UDP checksum of zero means "none" and is to stay so, whoever vouches for the octets.
        let none = datagram.transport == Transport::Udp && datagram.checksum(frame) == 0;
        let pseudo = datagram.pseudo_header(frame);
        let vouched = !none && (arrival.checksum != Checksum::Verify || datagram.is_partial(frame, pseudo));
        Self {
            port: arrival.port,
            start: arrival.frame.start,
            frame_len: frame.len() as u32,
            datagram,
            integrity: if vouched { Integrity::Vouched } else { Integrity::Unverified },
            pseudo,
        }
    }

    #[inline]
    pub(super) fn frame<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        &arena[start..start + self.frame_len as usize]
    }

    /// The payload's place in the arena.
    #[inline]
    pub(super) fn payload(&self) -> Range<u32> {
        self.start + self.datagram.payload as u32..self.start + self.datagram.end as u32
    }

    /// Whether both are of the same 5-tuple behind the same port.
    #[inline]
    pub(super) fn is_of_flow(&self, arena: &[u8], other: &Self, other_frame: &[u8]) -> bool {
        self.port == other.port && self.datagram.is_of_flow(self.frame(arena), &other.datagram, other_frame)
    }

    /// Whether a checksum the kernel writes over this segment hides no error.
    #[inline]
    fn is_good(&mut self, frame: &[u8]) -> bool {
        let good = match self.integrity {
            Integrity::Vouched => self.datagram.has_intact_ip(frame),
            Integrity::Unverified => self.datagram.is_intact(frame, self.pseudo),
        };
        if good {
            self.integrity = Integrity::Vouched;
        }
        good
    }
}

/// A segment and those that continue it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) first: Segment,
    /// Index of the payload after the first, where there are two segments.
    pub(super) first_piece: u32,
    /// Index of the newest payload.
    pub(super) last_piece: u32,
    /// Segments joined, at least 1.
    pub(super) segments: usize,
    /// Whether another segment may follow.
    open: bool,
    /// Whether any segment carried PSH.
    push: bool,
    /// L4 payload octets per segment.
    segment_size: usize,
    payload_len: usize,
    next_sequence: u32,
}

impl Run {
    #[inline]
    pub(super) fn new(first: Segment, frame: &[u8]) -> Self {
        let payload_len = first.datagram.payload_len();
        Self {
            first,
            first_piece: 0,
            last_piece: 0,
            segments: 1,
            open: first.datagram.role == Role::Joins { last: false },
            push: false,
            segment_size: payload_len,
            payload_len,
            next_sequence: sequence(&first.datagram, frame).wrapping_add(payload_len as u32),
        }
    }

    /// A TCP packet longer than `mtu`, to be cut by the kernel: a super-frame that a kernel VXLAN device on the
    /// same machine sent whole, in one datagram.
    ///
    /// # Errors
    /// It cannot be cut, or cutting it would hide an error.
    pub(super) fn oversized(mut first: Segment, mtu: u16, frame: &[u8]) -> Result<Self, CoalesceError> {
        let datagram = first.datagram;
        let headers = datagram.payload - datagram.l3;
        let room = usize::from(mtu).saturating_sub(headers);
        let cuttable = datagram.transport == Transport::Tcp
            && frame[datagram.l4 + tcp::FLAGS] & (tcp::SYN | tcp::RST | tcp::URG) == 0
            && datagram.payload <= MAX_HEAD_LEN;
        if !cuttable || room == 0 {
            return Err(CoalesceError::Oversized);
        }
        if !first.is_good(frame) {
            return Err(CoalesceError::OversizedCorrupt);
        }
        Ok(Self { open: false, segment_size: room, ..Self::new(first, frame) })
    }

    /// Whether `other` may continue this run so that splitting gives both back. May close the run.
    #[inline]
    pub(super) fn accepts(&mut self, arena: &[u8], other: &mut Segment, other_frame: &[u8]) -> bool {
        let frame = self.first.frame(arena);
        if !self.open || !self.has_room(other) || !self.is_continued(frame, other, other_frame) {
            return false;
        }
        if !self.first.is_good(frame) {
            self.open = false;
            return false;
        }
        other.is_good(other_frame)
    }

    /// Counts `other` in.
    #[inline]
    pub(super) fn grow(&mut self, other: &Segment) {
        let length = other.datagram.payload_len();
        let last = other.datagram.role == Role::Joins { last: true };
        self.segments += 1;
        self.payload_len += length;
        self.next_sequence = self.next_sequence.wrapping_add(length as u32);
        self.push |= last;
        self.open = !last && length == self.segment_size;
    }

    #[inline]
    fn has_room(&self, other: &Segment) -> bool {
        let (own, theirs) = (&self.first.datagram, &other.datagram);
        let packet_len = own.payload - own.l3 + self.payload_len + theirs.payload_len();
        own.l3 == theirs.l3
            && own.l4 == theirs.l4
            && own.payload == theirs.payload
            && theirs.payload_len() <= self.segment_size
            && packet_len <= MAX_PACKET_LEN
    }

    /// Compares what splitting would copy from the first frame; flow and offsets are equal already.
    #[inline]
    fn is_continued(&self, frame: &[u8], other: &Segment, other_frame: &[u8]) -> bool {
        let datagram = &self.first.datagram;
        let packet = &frame[datagram.l3..datagram.payload];
        let other_packet = &other_frame[datagram.l3..datagram.payload];
        let ip_continues = match datagram.version {
            Version::V4 => self.continues_v4(packet, other_packet),
            // All but the length; the addresses are those of the flow.
            Version::V6 => packet[..4] == other_packet[..4] && packet[6..8] == other_packet[6..8],
        };
        let l4 = datagram.l4 - datagram.l3;
        is_same_ethernet(&frame[..datagram.l3], &other_frame[..datagram.l3])
            && ip_continues
            && match datagram.transport {
                Transport::Tcp => {
                    sequence(&other.datagram, other_frame) == self.next_sequence
                        && is_same_tcp(&packet[l4..], &other_packet[l4..])
                }
                Transport::Udp => true,
            }
    }

    #[inline]
    fn continues_v4(&self, packet: &[u8], other: &[u8]) -> bool {
        const DONT_FRAGMENT: u8 = 0x40;
        let id = get(packet, 4).wrapping_add(self.segments as u16);
        packet[..2] == other[..2]
            && packet[6..10] == other[6..10]
            && (packet[6] & DONT_FRAGMENT != 0 || get(other, 4) == id)
    }

    /// What to write for this run: metadata, octets of `head` to use, and the first range behind them.
    pub(super) fn seal(
        &self,
        arena: &[u8],
        head: &mut [u8; MAX_HEAD_LEN],
    ) -> (VnetHeader, usize, Range<u32>) {
        let frame = self.first.frame(arena);
        let whole = self.first.start..self.first.start + self.first.frame_len;
        if self.segments == 1 && self.segment_size >= self.payload_len {
            return self.seal_single(frame, head).unwrap_or((VnetHeader::PLAIN, 0, whole));
        }
        self.write_head(frame, head);
        (self.vnet(frame), self.first.datagram.payload, self.first.payload())
    }

    /// A single frame known to be good leaves the sum to the kernel, which then computes none where the
    /// frame stays on this machine. `None` where it is to be written as it came.
    fn seal_single(
        &self,
        frame: &[u8],
        head: &mut [u8; MAX_HEAD_LEN],
    ) -> Option<(VnetHeader, usize, Range<u32>)> {
        let datagram = &self.first.datagram;
        if self.first.integrity == Integrity::Unverified {
            return None;
        }
        let seed = self.first.pseudo.fold();
        if datagram.checksum(frame) == seed {
            let end = self.first.start + datagram.end as u32;
            return Some((self.vnet(frame), 0, self.first.start..end));
        }
        let headers = frame.get(..datagram.payload).filter(|headers| headers.len() <= MAX_HEAD_LEN)?;
        head[..headers.len()].copy_from_slice(headers);
        put(head, datagram.checksum_at(), seed);
        Some((self.vnet(frame), headers.len(), self.first.payload()))
    }

    /// The headers of the super-frame: lengths of the whole, checksums of the whole, PSH where any had it.
    fn write_head(&self, frame: &[u8], head: &mut [u8; MAX_HEAD_LEN]) {
        let datagram = &self.first.datagram;
        head[..datagram.payload].copy_from_slice(&frame[..datagram.payload]);
        let l4_len = datagram.payload - datagram.l4 + self.payload_len;
        let packet_len = datagram.l4 - datagram.l3 + l4_len;
        match datagram.version {
            Version::V4 => {
                let header = &mut head[datagram.l3..datagram.l4];
                put(header, 2, packet_len as u16);
                put(header, 10, 0);
                let checksum = Sum::of(header).checksum();
                put(header, 10, checksum);
            }
            Version::V6 => put(head, datagram.l3 + 4, (packet_len - V6_HEADER_LEN) as u16),
        }
        match datagram.transport {
            Transport::Tcp if self.push => head[datagram.l4 + tcp::FLAGS] |= tcp::PSH,
            Transport::Tcp => {}
            Transport::Udp => put(head, datagram.l4 + udp::LENGTH, l4_len as u16),
        }
        let addresses = &frame[datagram.l3..][ip::addresses(datagram.version)];
        let seed = pseudo_header(addresses, datagram.transport.protocol(), l4_len).fold();
        put(head, datagram.checksum_at(), seed);
    }

    fn vnet(&self, frame: &[u8]) -> VnetHeader {
        let datagram = &self.first.datagram;
        let is_super = self.payload_len > self.segment_size;
        let gso_type = match (datagram.transport, datagram.version) {
            _ if !is_super => vnet::GSO_NONE,
            (Transport::Udp, _) => vnet::GSO_UDP_L4,
            (Transport::Tcp, version) => tcp_gso_type(version, frame[datagram.l4 + tcp::FLAGS]),
        };
        VnetHeader {
            flags: vnet::NEEDS_CSUM,
            gso_type,
            hdr_len: datagram.payload as u16,
            gso_size: if is_super { self.segment_size as u16 } else { 0 },
            csum_start: datagram.l4 as u16,
            csum_offset: datagram.transport.checksum_offset() as u16,
        }
    }
}

/// CWR belongs to the first segment only, which the kernel has to be told.
fn tcp_gso_type(version: Version, flags: u8) -> u8 {
    let gso_type = match version {
        Version::V4 => vnet::GSO_TCPV4,
        Version::V6 => vnet::GSO_TCPV6,
    };
    if flags & tcp::CWR == 0 { gso_type } else { gso_type | vnet::GSO_ECN }
}

/// Compares MACs, ethertype and tags of headers of one length.
#[inline]
fn is_same_ethernet(header: &[u8], other: &[u8]) -> bool {
    are_equal::<{ ethernet::HEADER_LEN }>(header, other)
        && (header.len() == ethernet::HEADER_LEN || header == other)
}

/// Compares acknowledgement, data offset, flags but PSH, window, urgent pointer and options.
#[inline]
fn is_same_tcp(header: &[u8], other: &[u8]) -> bool {
    let options = &header[tcp::HEADER_LEN..];
    let other_options = &other[tcp::HEADER_LEN..];
    are_equal::<5>(&header[8..], &other[8..])
        && (header[tcp::FLAGS] ^ other[tcp::FLAGS]) & !tcp::PSH == 0
        && are_equal::<2>(&header[14..], &other[14..])
        && are_equal::<2>(&header[18..], &other[18..])
        // Timestamps are what most connections carry: 12 octets.
        && if options.len() == 12 { are_equal::<12>(options, other_options) } else { options == other_options }
}

#[inline]
fn sequence(datagram: &Datagram, frame: &[u8]) -> u32 {
    match datagram.transport {
        Transport::Tcp => {
            let at = datagram.l4 + tcp::SEQUENCE;
            u32::from(get(frame, at)) << 16 | u32::from(get(frame, at + 2))
        }
        Transport::Udp => 0,
    }
}
