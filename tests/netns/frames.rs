//! Frames made by hand.

use std::net::Ipv6Addr;

use crate::rig::Sandbox;

/// An Ethernet frame with an IPv4 UDP packet to port 9999, each part open to being wrong.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) dst: [u8; 6],
    pub(crate) src: [u8; 6],
    pub(crate) ethertype: u16,
    pub(crate) ip_first: u8,
    pub(crate) ip_src: [u8; 4],
    pub(crate) ip_dst: [u8; 4],
    pub(crate) padding: usize,
}

impl Frame {
    pub(crate) fn from_to(from: &Sandbox<'_>, to: &Sandbox<'_>) -> Self {
        let (ip_src, ip_dst) = (from.ip4().octets(), to.ip4().octets());
        Self {
            dst: mac(&to.mac),
            src: mac(&from.mac),
            ethertype: 0x0800,
            ip_first: 0x45,
            ip_src,
            ip_dst,
            padding: 10,
        }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let udp_len = u16::try_from(8 + self.padding).expect("fits");
        let mut ip = vec![self.ip_first, 0];
        ip.extend((20 + udp_len).to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        ip.extend(self.ip_src);
        ip.extend(self.ip_dst);
        let sum = ip_checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let ports = [9_999_u16, 9_999, udp_len, 0];
        let udp = ports.into_iter().flat_map(u16::to_be_bytes).chain(std::iter::repeat_n(0x77, self.padding));
        self.dst
            .into_iter()
            .chain(self.src)
            .chain(self.ethertype.to_be_bytes())
            .chain(ip)
            .chain(udp)
            .collect()
    }
}

/// RFC 1071 over a header of even length.
fn ip_checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let once = (sum >> 16) + (sum & 0xffff);
    !((once >> 16) + (once & 0xffff)) as u16
}

pub(crate) fn mac(text: &str) -> [u8; 6] {
    let octets: Vec<u8> =
        text.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal")).collect();
    octets.try_into().expect("six octets")
}

/// An ARP reply (RFC 826): `sender` says that it has `ip`.
pub(crate) fn arp_reply(src: [u8; 6], dst: [u8; 6], hardware: u16, sender: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    let head = [hardware, 0x0800, 0x0604, 2].map(u16::to_be_bytes).concat();
    [&dst[..], &src, &[8, 6], &head, &sender, &ip, &dst, &[10, 7, 0, 1]].concat()
}

/// An IPv6 packet (RFC 8200 §3) with `payload`, whose checksum at `sum_at` is filled in (§8.1).
pub(crate) fn ip6(
    (src_mac, src): ([u8; 6], Ipv6Addr),
    (dst_mac, dst): ([u8; 6], Ipv6Addr),
    protocol: u8,
    mut payload: Vec<u8>,
    sum_at: usize,
) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("fits").to_be_bytes();
    let pseudo = [&src.octets()[..], &dst.octets(), &[0, 0], &len, &[0, 0, 0, protocol], &payload].concat();
    payload[sum_at..sum_at + 2].copy_from_slice(&ip_checksum(&pseudo).to_be_bytes());
    let head = [&[0x60, 0, 0, 0][..], &len, &[protocol, 255], &src.octets(), &dst.octets()].concat();
    [&dst_mac[..], &src_mac, &[0x86, 0xdd], &head, &payload].concat()
}

/// A UDP datagram to port 9999 from `port`, its checksum open.
pub(crate) fn udp(port: u16) -> Vec<u8> {
    [port, 9_999, 12, 0, 0x7777, 0x7777].map(u16::to_be_bytes).concat()
}

/// A neighbour advertisement (RFC 4861 §4.4) that overrides: `mac` has `target`. Its checksum is open.
pub(crate) fn advertisement(target: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &[2, 1], &mac].concat()
}
