//! The header of a sealed datagram, and what is authenticated with it.

use aws_lc_rs::aead::Nonce;

use crate::wire::Vni;

/// Octets of the header.
pub const HEADER_LEN: usize = 16;
/// Octets of the tag behind the ciphertext.
pub const TAG_LEN: usize = 16;
/// Octets of a block of the cipher.
pub const BLOCK_LEN: usize = 16;
/// Octets a datagram has besides the inner frame.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// What sealing takes from the underlay's MTU over IPv4: IP 20 + UDP 8 + header 16 + inner Ethernet 14 + tag 16.
pub const OVERHEAD_V4: u16 = 74;
/// The same over IPv6: IP 40 + UDP 8 + header 16 + inner Ethernet 14 + tag 16.
pub const OVERHEAD_V6: u16 = 94;

/// RFC 7348's I flag; never set in a sealed datagram.
const VXLAN: u8 = 0x08;
const SEALED: u8 = 0x01;
const PARTIAL_CHECKSUM: u8 = 0x02;

/// What the inner frame's TCP or UDP checksum field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InnerChecksum {
    /// What the frame came with: a checksum, or none where the frame has no such field.
    Whole,
    /// The sum of the pseudo header only: the tag protects the octets, so neither end adds them up.
    Partial,
}

/// The header of a sealed datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// State of the inner checksum.
    pub checksum: InnerChecksum,
    /// VNI the receiver wants for the network.
    pub vni: Vni,
    /// Session, by the receiver's index.
    pub session: u32,
    /// Queue in the top 8 bits, number of the packet within it below.
    pub counter: u64,
}

impl Header {
    /// Whether a datagram claims to be sealed; everything else is VXLAN's to judge.
    #[must_use]
    #[inline]
    pub fn is_ahead(datagram: &[u8]) -> bool {
        datagram.first().is_some_and(|kind| kind & (VXLAN | SEALED) == SEALED)
    }

    /// Reads a header; `None` for a kind that is not known.
    #[must_use]
    pub fn parse(octets: &[u8; HEADER_LEN]) -> Option<Self> {
        let [kind, v0, v1, v2, s0, s1, s2, s3, counter @ ..] = *octets;
        let checksum = match kind {
            SEALED => InnerChecksum::Whole,
            k if k == SEALED | PARTIAL_CHECKSUM => InnerChecksum::Partial,
            _ => return None,
        };
        Some(Self {
            checksum,
            vni: Vni::from_octets([v0, v1, v2]),
            session: u32::from_be_bytes([s0, s1, s2, s3]),
            counter: u64::from_be_bytes(counter),
        })
    }

    /// The header's octets.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let kind = match self.checksum {
            InnerChecksum::Whole => SEALED,
            InnerChecksum::Partial => SEALED | PARTIAL_CHECKSUM,
        };
        let [v0, v1, v2] = self.vni.octets();
        let [s0, s1, s2, s3] = self.session.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        [kind, v0, v1, v2, s0, s1, s2, s3, c0, c1, c2, c3, c4, c5, c6, c7]
    }

    /// The sender's queue the packet was counted in.
    #[must_use]
    pub fn queue(&self) -> u8 {
        (self.counter >> 56) as u8
    }

    /// The packet's number within its queue.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.counter & (u64::MAX >> 8)
    }
}

/// The nonce of a packet: unique for the key because its counter is.
pub(super) fn nonce(counter: u64) -> Nonce {
    let [c0, c1, c2, c3, c4, c5, c6, c7] = counter.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, c0, c1, c2, c3, c4, c5, c6, c7])
}

/// What is authenticated besides the frame.
pub(super) fn associated(header: &[u8; HEADER_LEN], network: &[u8; 16]) -> [u8; HEADER_LEN + 16] {
    let mut octets = [0; HEADER_LEN + 16];
    octets[..HEADER_LEN].copy_from_slice(header);
    octets[HEADER_LEN..].copy_from_slice(network);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vxlan;

    const HEADER: Header = Header {
        checksum: InnerChecksum::Partial,
        vni: Vni::MAX,
        session: 0x0102_0304,
        counter: 0x0506_0708_090a_0b0c,
    };

    #[test]
    fn a_header_is_byte_exact_and_parses_back() {
        let octets = [3, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(HEADER.emit(), octets);
        assert_eq!(Header::parse(&octets), Some(HEADER));
        assert_eq!((HEADER.queue(), HEADER.number()), (5, 0x0006_0708_090a_0b0c));
    }

    #[test]
    fn vxlan_and_unknown_kinds_are_none_of_its_business() {
        for kind in 0..=255u8 {
            let mut octets = HEADER.emit();
            octets[0] = kind;
            assert_eq!(Header::parse(&octets).is_some(), [1, 3].contains(&kind), "{kind:#x}");
            let is_vxlan = vxlan::parse(&octets).is_some();
            assert!(!(is_vxlan && Header::is_ahead(&octets)), "{kind:#x} is either");
        }
        assert!(!Header::is_ahead(&[]));
    }
}
