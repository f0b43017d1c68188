//! Datagrams out of frames and into frames.

use std::net::{Ipv4Addr, Ipv6Addr};

use weft_dataplane::checksum::{Sum, pseudo_header};
use weft_dataplane::neighbour::link_local;
use weft_dataplane::wire::MacAddr;
use weft_dataplane::wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};
use weft_dataplane::wire::ip::{Ip, PROTOCOL_UDP, V4_HEADER_LEN, V6_HEADER_LEN};

const UDP_LEN: usize = 8;
/// Ports of the two ends of an answer: server and client.
const PORTS4: [u16; 2] = [67, 68];
const PORTS6: [u16; 2] = [547, 546];
/// Answers stay on their link.
const HOPS: u8 = 64;

/// Between whom a frame goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wires {
    pub(super) from: MacAddr,
    pub(super) to: MacAddr,
}

/// What a datagram to `port` says. Its checksum may not have been computed yet, where its sender is on this host.
pub(super) fn datagram<'p>(ip: &Ip<'p>, port: u16) -> Option<&'p [u8]> {
    let udp = ip.payload();
    let [_, _, to_high, to_low, len_high, len_low, _, _] = *udp.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([len_high, len_low]));
    (u16::from_be_bytes([to_high, to_low]) == port).then(|| udp.get(UDP_LEN..length)).flatten()
}

/// A datagram of the DHCP server; nothing where it would be too long.
pub(super) fn udp4(wires: Wires, from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(V4_HEADER_LEN + UDP_LEN + message.len()).ok()?;
    let mut header = [0; V4_HEADER_LEN];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    [header[8], header[9]] = [HOPS, PROTOCOL_UDP];
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let checksum = Sum::of(&header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = udp(PORTS4, &header[12..], message)?;
    Some([&Ethernet::header(wires.to, wires.from, ETHERTYPE_IPV4)[..], &header, &udp].concat())
}

/// A datagram of the DHCPv6 server, from the link-local address of its MAC address.
pub(super) fn udp6(wires: Wires, to: Ipv6Addr, message: &[u8]) -> Option<Vec<u8>> {
    let header = header6(wires, to, (PROTOCOL_UDP, HOPS), UDP_LEN + message.len())?;
    let udp = udp(PORTS6, &header[8..], message)?;
    Some([&Ethernet::header(wires.to, wires.from, ETHERTYPE_IPV6)[..], &header, &udp].concat())
}

/// The fixed header of IPv6, for `length` octets of `protocol`.
pub(super) fn header6(
    wires: Wires,
    to: Ipv6Addr,
    (protocol, hops): (u8, u8),
    length: usize,
) -> Option<[u8; V6_HEADER_LEN]> {
    let mut header = [0; V6_HEADER_LEN];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    [header[6], header[7]] = [protocol, hops];
    header[8..24].copy_from_slice(&link_local(wires.from).octets());
    header[24..40].copy_from_slice(&to.octets());
    Some(header)
}

fn udp([from, to]: [u16; 2], addresses: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_LEN + message.len()).ok()?;
    let mut udp = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    udp.extend(message);
    let sum = pseudo_header(addresses, PROTOCOL_UDP, udp.len()) + Sum::of(&udp);
    udp[6..8].copy_from_slice(&sum.checksum_not_zero().to_be_bytes());
    Some(udp)
}
