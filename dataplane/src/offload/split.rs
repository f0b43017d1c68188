//! Super-frames into segments (what the kernel calls GSO).
//!
//! A [`Split`] is a plan over a borrowed frame: each segment is fresh header octets, written where the caller
//! wants them, and a range of the frame's own payload, so that a gathering send copies no payload. What all
//! segments share is summed once; per segment the payload is summed once and a handful of words added.

use super::{get, put};
use crate::checksum::{Sum, pseudo_header};
use crate::wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};
use crate::wire::ip::{self, Ip, V6_HEADER_LEN, Version};
use crate::wire::transport::{Transport, tcp, udp};
use crate::wire::vnet::{self, VnetHeader};

/// Most header octets of a segment that is split: Ethernet with two tags 22, IPv4 60 and TCP 60 make 142;
/// the rest is room for IPv6 extension headers. With a VXLAN header in front it fills 192 octets.
pub const MAX_HEADER_LEN: usize = 184;

/// Why a frame from the TAP is dropped instead of sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SplitError {
    /// A kind of offload that was never offered to the kernel: UFO, RSC, tunnels, or an unknown one.
    #[error("unsupported kind of offload")]
    Unsupported,
    /// A segment size of 0 or 65535.
    #[error("impossible segment size")]
    SegmentSize,
    /// Headers or the checksum field lead outside of the frame.
    #[error("headers lead outside of the frame")]
    OutsideFrame,
    /// The frame is not of the protocol the offload is for.
    #[error("frame and offload disagree")]
    Mismatch,
    /// The packet is an IP fragment.
    #[error("fragments are not split")]
    Fragment,
    /// Headers are longer than [`MAX_HEADER_LEN`].
    #[error("headers are too long")]
    HeaderTooLong,
}

/// How to split one super-frame.
#[derive(Debug, Clone, Copy)]
pub struct Split<'f> {
    frame: &'f [u8],
    version: Version,
    transport: Transport,
    l3: usize,
    l4: usize,
    header_len: usize,
    segment_size: usize,
    count: usize,
    /// The IPv4 header without total length, id and checksum; unused for IPv6.
    ip_base: Sum,
    first_id: u16,
    /// Pseudo header without length.
    pseudo: Sum,
    /// `pseudo`, and the L4 header without the fields that vary.
    l4_base: Sum,
    first_sequence: u32,
    flags: u8,
}

impl<'f> Split<'f> {
    /// Validates a super-frame and sums what its segments share.
    ///
    /// Trusts nothing: of the header's lengths `hdr_len` is ignored, the others are checked against the frame.
    ///
    /// # Errors
    /// The frame must be dropped; see [`SplitError`].
    pub fn plan(vnet: &VnetHeader, frame: &'f [u8]) -> Result<Self, SplitError> {
        let (version, transport) = kind(vnet)?;
        if vnet.gso_size == 0 || vnet.gso_size == u16::MAX {
            return Err(SplitError::SegmentSize);
        }
        let ethernet = Ethernet::parse(frame).ok_or(SplitError::OutsideFrame)?;
        let l3 = ethernet.header_len();
        let (version, l4) = locate(&ethernet, frame, version, transport)?;
        check_checksum_place(vnet, l4, transport)?;
        let l4_header_len = transport.header_len(&frame[l4..]).ok_or(SplitError::OutsideFrame)?;
        let header_len = l4 + l4_header_len;
        if header_len > MAX_HEADER_LEN {
            return Err(SplitError::HeaderTooLong);
        }
        let segment_size = usize::from(vnet.gso_size);
        let mut split = Self {
            frame,
            version,
            transport,
            l3,
            l4,
            header_len,
            segment_size,
            count: (frame.len() - header_len).div_ceil(segment_size).max(1),
            ip_base: Sum::default(),
            first_id: 0,
            pseudo: Sum::default(),
            l4_base: Sum::default(),
            first_sequence: 0,
            flags: 0,
        };
        split.sum_ip_header();
        split.sum_l4_header();
        split.pseudo = split.sum_pseudo_header(vnet);
        split.l4_base = split.l4_base + split.pseudo;
        Ok(split)
    }

    /// Number of segments, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Header octets of every segment, at most [`MAX_HEADER_LEN`].
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Octets of segment `i`, headers included. Only the last one may be shorter than the others.
    #[must_use]
    pub fn segment_len(&self, i: usize) -> usize {
        self.header_len + self.payload(i).len()
    }

    /// Octets of the IP packet in the largest segment: what must fit into the MTU.
    #[must_use]
    pub fn packet_len(&self) -> usize {
        self.segment_len(0) - self.l3
    }

    /// Whether the receiver of a segment finds its pseudo header where it is: behind options or extension
    /// headers, the destination that counts may be another one than in front.
    #[must_use]
    pub fn has_plain_header(&self) -> bool {
        self.l4 - self.l3 == ip::plain_header_len(self.version)
    }

    /// The payload of segment `i`; empty beyond the last.
    #[must_use]
    #[inline]
    pub fn payload(&self, i: usize) -> &'f [u8] {
        let payload = &self.frame[self.header_len..];
        let start = i.saturating_mul(self.segment_size).min(payload.len());
        let end = (start + self.segment_size).min(payload.len());
        &payload[start..end]
    }

    /// Writes the headers of segment `i` to the start of `out` and returns their octets.
    ///
    /// # Panics
    /// `out` is shorter than [`Split::header_len`].
    #[inline]
    pub fn write_header(&self, i: usize, out: &mut [u8]) -> usize {
        let header = self.copy_header(i, out);
        let payload = self.payload(i);
        match self.transport {
            Transport::Tcp => self.patch_tcp(i, payload, &mut header[self.l4..]),
            Transport::Udp => self.patch_udp(payload, &mut header[self.l4..]),
        }
        self.header_len
    }

    /// As [`Split::write_header`], with the checksum left partial: the field holds the pseudo-header sum of the
    /// segment, and nobody adds up its payload. Only for a [plain header](Split::has_plain_header).
    ///
    /// # Panics
    /// `out` is shorter than [`Split::header_len`].
    #[inline]
    pub fn write_partial_header(&self, i: usize, out: &mut [u8]) -> usize {
        let header = self.copy_header(i, out);
        let length = self.header_len - self.l4 + self.payload(i).len();
        let header = &mut header[self.l4..];
        match self.transport {
            Transport::Tcp => {
                self.patch_tcp_fields(i, header);
            }
            Transport::Udp => put(header, udp::LENGTH, length as u16),
        }
        put(header, self.transport.checksum_offset(), self.pseudo.word(length as u16).fold());
        self.header_len
    }

    #[inline]
    fn copy_header<'o>(&self, i: usize, out: &'o mut [u8]) -> &'o mut [u8] {
        let header = &mut out[..self.header_len];
        header.copy_from_slice(&self.frame[..self.header_len]);
        self.patch_ip(i, self.payload(i).len(), &mut header[self.l3..]);
        header
    }

    #[inline]
    fn patch_ip(&self, i: usize, payload_len: usize, header: &mut [u8]) {
        let packet_len = self.header_len - self.l3 + payload_len;
        match self.version {
            Version::V4 => {
                let total_len = packet_len as u16;
                let id = self.first_id.wrapping_add(i as u16);
                put(header, 2, total_len);
                put(header, 4, id);
                put(header, 10, self.ip_base.word(total_len).word(id).checksum());
            }
            Version::V6 => put(header, 4, (packet_len - V6_HEADER_LEN) as u16),
        }
    }

    #[inline]
    fn patch_tcp(&self, i: usize, payload: &[u8], header: &mut [u8]) {
        let (sequence, flags) = self.patch_tcp_fields(i, header);
        let length = header.len() + payload.len();
        let sum = self.l4_base.double_word(sequence).word(u16::from(flags)).word(length as u16);
        put(header, Transport::Tcp.checksum_offset(), (sum + Sum::of(payload)).checksum());
    }

    #[inline]
    fn patch_tcp_fields(&self, i: usize, header: &mut [u8]) -> (u32, u8) {
        let sequence = self.first_sequence.wrapping_add((i * self.segment_size) as u32);
        let mut flags = self.flags;
        if i > 0 {
            flags &= !tcp::CWR;
        }
        if i + 1 < self.count {
            flags &= !(tcp::FIN | tcp::PSH);
        }
        header[tcp::SEQUENCE..tcp::SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        header[tcp::FLAGS] = flags;
        (sequence, flags)
    }

    #[inline]
    fn patch_udp(&self, payload: &[u8], header: &mut [u8]) {
        let length = (udp::HEADER_LEN + payload.len()) as u16;
        // The length counts twice: in the header and in the pseudo header.
        let sum = self.l4_base.word(length).word(length) + Sum::of(payload);
        put(header, udp::LENGTH, length);
        put(header, Transport::Udp.checksum_offset(), sum.checksum_not_zero());
    }

    fn sum_ip_header(&mut self) {
        if self.version == Version::V6 {
            return;
        }
        let header = &self.frame[self.l3..self.l4];
        self.first_id = get(header, 4);
        self.ip_base = Sum::of(header)
            .without_word(get(header, 2))
            .without_word(self.first_id)
            .without_word(get(header, 10));
    }

    fn sum_l4_header(&mut self) {
        let header = &self.frame[self.l4..self.header_len];
        let all = Sum::of(header).without_word(get(header, self.transport.checksum_offset()));
        match self.transport {
            Transport::Tcp => {
                let sequence = [get(header, tcp::SEQUENCE), get(header, tcp::SEQUENCE + 2)];
                self.first_sequence = u32::from(sequence[0]) << 16 | u32::from(sequence[1]);
                self.flags = header[tcp::FLAGS];
                self.l4_base = all
                    .without_word(sequence[0])
                    .without_word(sequence[1])
                    .without_word(u16::from(self.flags));
            }
            Transport::Udp => self.l4_base = all.without_word(get(header, udp::LENGTH)),
        }
    }

    /// The pseudo header without length.
    ///
    /// The kernel's own seed is preferred to the addresses in the header, because with an IPv6 routing header
    /// the destination that counts is not the one in front (RFC 8200 §8.1).
    fn sum_pseudo_header(&self, vnet: &VnetHeader) -> Sum {
        if vnet.needs_checksum() {
            let seed = get(&self.frame[self.l4..], self.transport.checksum_offset());
            let length = self.frame.len() - self.l4;
            return Sum::default().word(seed).without_word(length as u16).without_word((length >> 16) as u16);
        }
        let addresses = &self.frame[self.l3..][ip::addresses(self.version)];
        pseudo_header(addresses, self.transport.protocol(), 0)
    }
}

/// What kind of super-frame the header announces; UDP says nothing of the IP version.
fn kind(vnet: &VnetHeader) -> Result<(Option<Version>, Transport), SplitError> {
    const KNOWN_FLAGS: u8 = vnet::NEEDS_CSUM | vnet::DATA_VALID;
    if vnet.flags & !KNOWN_FLAGS != 0 {
        return Err(SplitError::Unsupported);
    }
    match vnet.gso_type & !vnet::GSO_ECN {
        vnet::GSO_TCPV4 => Ok((Some(Version::V4), Transport::Tcp)),
        vnet::GSO_TCPV6 => Ok((Some(Version::V6), Transport::Tcp)),
        vnet::GSO_UDP_L4 if vnet.gso_type & vnet::GSO_ECN == 0 => Ok((None, Transport::Udp)),
        _ => Err(SplitError::Unsupported),
    }
}

/// Finds the IP version and the L4 header, and checks that both are what was announced.
fn locate(
    ethernet: &Ethernet,
    frame: &[u8],
    announced: Option<Version>,
    transport: Transport,
) -> Result<(Version, usize), SplitError> {
    let version = match ethernet.ethertype {
        ETHERTYPE_IPV4 => Version::V4,
        ETHERTYPE_IPV6 => Version::V6,
        _ => return Err(SplitError::Mismatch),
    };
    if announced.is_some_and(|announced| announced != version) {
        return Err(SplitError::Mismatch);
    }
    let ip = Ip::parse(ethernet.ethertype, ethernet.payload(frame)).ok_or(SplitError::OutsideFrame)?;
    if ip.is_fragment() {
        return Err(SplitError::Fragment);
    }
    if ip.protocol() != transport.protocol() {
        return Err(SplitError::Mismatch);
    }
    Ok((version, ethernet.header_len() + ip.header_len()))
}

fn check_checksum_place(vnet: &VnetHeader, l4: usize, transport: Transport) -> Result<(), SplitError> {
    if !vnet.needs_checksum() {
        return Ok(());
    }
    let agrees =
        usize::from(vnet.csum_start) == l4 && usize::from(vnet.csum_offset) == transport.checksum_offset();
    if agrees { Ok(()) } else { Err(SplitError::Mismatch) }
}
