//! The header a TAP with `IFF_VNET_HDR` puts before each frame (`struct virtio_net_hdr`,
//! `include/uapi/linux/virtio_net.h`).
//!
//! ```text
//! 0       1          2         4          6            8             10
//! | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
//! ```
//! The 16-bit fields are in host order: what a TAP speaks unless `TUNSETVNETLE`/`BE` says otherwise.

/// Octets of the header: the ten-octet form, so that the IP header lands 4-aligned behind it.
pub const HEADER_LEN: usize = 10;

/// The L4 checksum field holds the folded pseudo-header sum; the rest is to be added from `csum_start` on.
pub const NEEDS_CSUM: u8 = 1;
/// The checksum was verified already. Kernels ignore it in what is written to a TAP.
pub const DATA_VALID: u8 = 2;
/// The checksum fields hold counts of received segments instead; never asked for.
pub const RSC_INFO: u8 = 4;

/// Not a super-frame.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// UDP to be cut into IP fragments; never asked for.
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP to be cut into datagrams.
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type where the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// Offload metadata of one frame, as read from or written to a TAP. All zero means "a plain frame".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`], [`RSC_INFO`].
    pub flags: u8,
    /// One of the `GSO_*` types, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Octets of all headers: exact when written, a hint not to be trusted when read.
    pub hdr_len: u16,
    /// L4 payload octets per segment.
    pub gso_size: u16,
    /// Where checksumming begins, octets from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is stored, octets from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// A frame that asks for nothing.
    pub const PLAIN: Self =
        Self { flags: 0, gso_type: GSO_NONE, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// Reads the ten octets; any value is possible, so users check what they use.
    #[must_use]
    #[inline]
    pub fn parse(octets: &[u8; HEADER_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *octets;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes the ten octets.
    #[must_use]
    #[inline]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = *self;
        let [h0, h1] = hdr_len.to_ne_bytes();
        let [g0, g1] = gso_size.to_ne_bytes();
        let [s0, s1] = csum_start.to_ne_bytes();
        let [o0, o1] = csum_offset.to_ne_bytes();
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Whether the L4 checksum is still to be computed.
    #[must_use]
    #[inline]
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Whether the frame is a super-frame to be split.
    #[must_use]
    #[inline]
    pub fn is_super_frame(&self) -> bool {
        self.gso_type != GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_octets_round_trip_in_host_order() {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV6 | GSO_ECN,
            hdr_len: 86,
            gso_size: 1378,
            csum_start: 54,
            csum_offset: 16,
        };
        let octets = header.emit();
        assert_eq!(octets[2..4], 86u16.to_ne_bytes());
        assert_eq!(VnetHeader::parse(&octets), header);
    }

    #[test]
    fn a_plain_frame_has_an_all_zero_header() {
        assert_eq!(VnetHeader::PLAIN.emit(), [0; HEADER_LEN]);
        assert_eq!(VnetHeader::parse(&[0; HEADER_LEN]), VnetHeader::PLAIN);
    }
}
