//! Frames as etherparse, which shares no line with us, reads and judges them.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

/// Decodes, or fails the test.
pub(crate) fn headers(frame: &[u8]) -> PacketHeaders<'_> {
    PacketHeaders::from_ethernet_slice(frame).unwrap_or_else(|error| panic!("{error} in {frame:02x?}"))
}

/// Whether the IPv4 header's and the L4 checksum are right.
pub(crate) fn has_valid_checksums(frame: &[u8]) -> bool {
    let headers = headers(frame);
    let payload = headers.payload.slice();
    match (headers.net.expect("IP"), headers.transport.expect("TCP or UDP")) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            let expected = match &transport {
                TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv4(&ip, payload),
                TransportHeader::Udp(udp) => udp.calc_checksum_ipv4(&ip, payload),
                other => panic!("{other:?}"),
            };
            ip.header_checksum == ip.calc_header_checksum() && Ok(checksum(&transport)) == expected
        }
        (NetHeaders::Ipv6(ip, _), transport) => {
            let expected = match &transport {
                TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv6(&ip, payload),
                TransportHeader::Udp(udp) => udp.calc_checksum_ipv6(&ip, payload),
                other => panic!("{other:?}"),
            };
            Ok(checksum(&transport)) == expected
        }
        (other, _) => panic!("{other:?}"),
    }
}

fn checksum(transport: &TransportHeader) -> u16 {
    match transport {
        TransportHeader::Tcp(tcp) => tcp.checksum,
        TransportHeader::Udp(udp) => udp.checksum,
        other => panic!("{other:?}"),
    }
}
