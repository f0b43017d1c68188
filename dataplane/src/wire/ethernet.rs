//! Ethernet II headers with up to two VLAN tags (IEEE 802.3, 802.1Q).
//!
//! ```text
//! 0             6             12          14
//! | destination | source      | ethertype | …
//!                             | TPID | TCI | ethertype | …   with a tag
//! ```

use super::MacAddr;

/// Octets of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Octets one VLAN tag adds.
pub const TAG_LEN: usize = 4;
/// Tags that are looked behind: a customer and a service tag; a frame with more is opaque.
pub const MAX_TAGS: usize = 2;

/// IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q customer tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// 802.1ad service tag.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// What an Ethernet header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// Type of the payload, behind all tags.
    pub ethertype: u16,
    /// Number of VLAN tags, at most [`MAX_TAGS`].
    pub tags: usize,
}

impl Ethernet {
    /// Reads the header at the start of `frame`; `None` where the frame ends within it.
    #[must_use]
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_LEN] = frame.first_chunk()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = *header;
        let mut ethernet = Self {
            dst: MacAddr([d0, d1, d2, d3, d4, d5]),
            src: MacAddr([s0, s1, s2, s3, s4, s5]),
            ethertype: u16::from_be_bytes([e0, e1]),
            tags: 0,
        };
        while ethernet.tags < MAX_TAGS && is_tag(ethernet.ethertype) {
            ethernet.tags += 1;
            let behind = frame.get(ethernet.header_len() - 2..)?;
            ethernet.ethertype = u16::from_be_bytes(*behind.first_chunk()?);
        }
        Some(ethernet)
    }

    /// Octets from the start of the frame to the payload, tags included.
    #[must_use]
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + TAG_LEN * self.tags
    }

    /// The payload of the frame this was parsed from; empty for a shorter one.
    #[must_use]
    #[inline]
    pub fn payload<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(self.header_len()..).unwrap_or_default()
    }

    /// Writes an untagged header.
    #[must_use]
    pub fn header(dst: MacAddr, src: MacAddr, ethertype: u16) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0..6].copy_from_slice(&dst.0);
        header[6..12].copy_from_slice(&src.0);
        header[12..14].copy_from_slice(&ethertype.to_be_bytes());
        header
    }
}

fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const SRC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_header_written_parses_back() {
        let frame = Ethernet::header(DST, SRC, ETHERTYPE_ARP);
        let ethernet = Ethernet::parse(&frame).expect("whole");
        assert_eq!(ethernet, Ethernet { dst: DST, src: SRC, ethertype: ETHERTYPE_ARP, tags: 0 });
        assert_eq!(ethernet.payload(&frame), [0u8; 0]);
    }

    #[test]
    fn tags_are_looked_behind_and_a_third_is_opaque() {
        let mut frame = Ethernet::header(DST, SRC, ETHERTYPE_SERVICE_VLAN).to_vec();
        frame.extend([0, 7, 0x81, 0, 0, 8, 0x08, 0, 0xaa]);
        let ethernet = Ethernet::parse(&frame).expect("whole");
        assert_eq!((ethernet.tags, ethernet.ethertype), (2, ETHERTYPE_IPV4));
        assert_eq!(ethernet.payload(&frame), [0xaa]);

        frame[20..22].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        let opaque = Ethernet::parse(&frame).expect("whole");
        assert_eq!((opaque.tags, opaque.ethertype), (2, ETHERTYPE_VLAN));
    }

    #[test]
    fn a_frame_that_ends_within_its_header_is_none() {
        let mut frame = Ethernet::header(DST, SRC, ETHERTYPE_VLAN).to_vec();
        frame.extend([0, 7, 0x08]);
        for length in 0..frame.len() {
            assert_eq!(Ethernet::parse(&frame[..length]), None, "{length} octets");
        }
    }
}
