//! The VXLAN header (RFC 7348 §5).
//!
//! ```text
//!  0               1               2               3
//! |R|R|R|R|I|R|R|R|            Reserved (24 bits)                 |
//! |                VXLAN Network Identifier (24)  |   Reserved    |
//! ```

use super::Vni;

/// UDP port IANA assigned to VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// Octets of the VXLAN header.
pub const HEADER_LEN: usize = 8;
/// What encapsulation takes from the underlay's MTU over IPv4: IP 20 + UDP 8 + VXLAN 8 + inner Ethernet 14.
pub const OVERHEAD_V4: u16 = 50;
/// The same over IPv6: IP 40 + UDP 8 + VXLAN 8 + inner Ethernet 14.
pub const OVERHEAD_V6: u16 = 70;

const FLAG_VNI_VALID: u8 = 0x08;

/// The header for `vni` with every reserved bit zero.
#[must_use]
pub fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let [a, b, c] = vni.octets();
    [FLAG_VNI_VALID, 0, 0, 0, a, b, c, 0]
}

/// The VNI of a datagram, or `None` where it is shorter than a header or the I flag is clear.
///
/// Reserved bits are ignored, as RFC 7348 §5 asks of a receiver.
#[must_use]
pub fn parse(datagram: &[u8]) -> Option<Vni> {
    let header: &[u8; HEADER_LEN] = datagram.first_chunk()?;
    (header[0] & FLAG_VNI_VALID != 0).then(|| Vni::from_octets([header[4], header[5], header[6]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_byte_exact_and_parses_back() {
        let vni = Vni::try_from(42).expect("24 bits");
        assert_eq!(header(vni), [8, 0, 0, 0, 0, 0, 42, 0]);
        assert_eq!(parse(&header(vni)), Some(vni));
    }

    #[test]
    fn a_short_datagram_or_a_clear_i_flag_has_no_vni() {
        assert_eq!(parse(&[8, 0, 0, 0, 0, 0, 42]), None);
        assert_eq!(parse(&[0xf7, 0, 0, 0, 0, 0, 42, 0]), None);
    }
}
