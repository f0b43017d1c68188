//! Frames and a small world for the tests of the engine and of the workers.
//!
//! Segment 42 at this node (192.0.2.1): endpoints A (10.0.0.1, fd00::1) and A2 (10.0.0.5) here, B (10.0.0.2,
//! fd00::2) at member 192.0.2.2, C (10.0.0.3) at member 192.0.2.3 which wants VNI 77.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;

use crate::checksum::{Sum, pseudo_header};
use crate::engine::Engine;
use crate::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, SegmentSpec, Vtep};
use crate::wire::arp::{self, Arp, Operation};
use crate::wire::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV6, Ethernet};
use crate::wire::ip::PROTOCOL_ICMPV6;
use crate::wire::{MacAddr, Vni, vxlan};

pub(crate) const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
pub(crate) const A2: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa2]);
pub(crate) const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
pub(crate) const C: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
/// Behind the static VTEP, known to nobody.
pub(crate) const S: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x50]);
pub(crate) const ALL_NODES: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
pub(crate) const IP_A: [u8; 4] = [10, 0, 0, 1];
pub(crate) const IP_A2: [u8; 4] = [10, 0, 0, 5];
pub(crate) const IP_B: [u8; 4] = [10, 0, 0, 2];
pub(crate) const IP_S: [u8; 4] = [10, 0, 0, 9];
pub(crate) const IP6_A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const IP6_B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const VTEP_B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub(crate) const VTEP_C: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
pub(crate) const VTEP_S: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
pub(crate) const MTU: u16 = 1450;
/// Id of the network when it is sealed.
pub(crate) const NETWORK: [u8; 16] = *b"network of tests";

pub(crate) fn vni(n: u32) -> Vni {
    Vni::try_from(n).expect("24 bits")
}

pub(crate) fn vtep(ip: IpAddr, n: u32) -> Vtep {
    Vtep { address: SocketAddr::new(ip, 4789), vni: vni(n) }
}

pub(crate) fn spec() -> SegmentSpec {
    let remote = |mac, ip: [u8; 4], vtep| RemoteEndpoint { mac, ips: vec![ip.into()], vtep };
    let mut b = remote(B, IP_B, vtep(VTEP_B, 42));
    b.ips.push(IP6_B.into());
    SegmentSpec {
        vni: vni(42),
        mtu: MTU,
        broadcast: Broadcast::Local,
        local: vec![
            LocalEndpoint { mac: A, ips: vec![IP_A.into(), IP6_A.into()] },
            LocalEndpoint { mac: A2, ips: vec![IP_A2.into()] },
        ],
        remote: vec![b, remote(C, [10, 0, 0, 3], vtep(VTEP_C, 77))],
        static_vteps: Vec::new(),
        members: vec![vtep(VTEP_B, 42), vtep(VTEP_C, 77)],
        sealing: None,
    }
}

pub(crate) fn flooding() -> SegmentSpec {
    SegmentSpec { broadcast: Broadcast::Flood, ..spec() }
}

/// As [`spec`], sealed.
pub(crate) fn sealed() -> SegmentSpec {
    SegmentSpec { sealing: Some(NETWORK), ..spec() }
}

/// As [`spec`], with a static VTEP 192.0.2.9.
pub(crate) fn with_static() -> SegmentSpec {
    SegmentSpec { static_vteps: vec![SocketAddr::new(VTEP_S, 4789)], ..spec() }
}

pub(crate) fn engine(spec: SegmentSpec) -> Engine {
    Engine::new(OWN, 1, 1).after(crate::change::Change::SetSegment(spec))
}

/// A UDP frame with `len` octets of payload.
pub(crate) fn udp(
    src: (MacAddr, [u8; 4]),
    dst: (MacAddr, [u8; 4]),
    ports: (u16, u16),
    len: usize,
) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(src.0.0, dst.0.0)
        .ipv4(src.1, dst.1, 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, &vec![7; len])
        .expect("fits");
    frame
}

/// A UDP frame from A to B.
pub(crate) fn a_to_b(len: usize) -> Vec<u8> {
    udp((A, IP_A), (B, IP_B), (1000, 2000), len)
}

/// A UDP frame from B to A.
pub(crate) fn b_to_a(len: usize) -> Vec<u8> {
    udp((B, IP_B), (A, IP_A), (2000, 1000), len)
}

/// A TCP frame from B to A with `len` octets of payload.
pub(crate) fn tcp_b_to_a(sequence: u32, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(B.0, A.0)
        .ipv4(IP_B, IP_A, 64)
        .tcp(2000, 1000, sequence, 4096)
        .ack(1)
        .write(&mut frame, &vec![7; len])
        .expect("fits");
    frame
}

pub(crate) fn arp_frame(
    src: MacAddr,
    dst: MacAddr,
    operation: Operation,
    sender: (MacAddr, [u8; 4]),
    target: [u8; 4],
) -> Vec<u8> {
    let arp = Arp {
        operation,
        sender_mac: sender.0,
        sender_ip: sender.1.into(),
        target_mac: MacAddr([0; 6]),
        target_ip: target.into(),
    };
    let mut packet = [0; arp::PACKET_LEN];
    arp.emit(&mut packet);
    [&Ethernet::header(dst, src, ETHERTYPE_ARP)[..], &packet].concat()
}

/// A's ARP question for `target`, as `sender_ip`.
pub(crate) fn arp_from_a(sender_ip: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    arp_frame(A, MacAddr::BROADCAST, Operation::Request, (A, sender_ip), target)
}

/// An ICMPv6 message with its checksum.
pub(crate) fn icmpv6(
    macs: (MacAddr, MacAddr),
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    body: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(body);
    let mut packet = ip6(src, dst, PROTOCOL_ICMPV6, &message);
    let sum = pseudo_header(&packet[8..40], PROTOCOL_ICMPV6, message.len()) + Sum::of(&message);
    packet[42..44].copy_from_slice(&sum.checksum().to_be_bytes());
    [&Ethernet::header(macs.1, macs.0, ETHERTYPE_IPV6)[..], &packet].concat()
}

/// An IPv6 packet with hop limit 255.
pub(crate) fn ip6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = (payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, l0, l1, next, 255];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// A neighbour solicitation or advertisement of A for `target`, with link-layer option (`option`, `mac`).
pub(crate) fn nd_from_a(kind: u8, src: Ipv6Addr, target: Ipv6Addr, option: Option<(u8, MacAddr)>) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(target.octets());
    if let Some((option, mac)) = option {
        body.extend([option, 1]);
        body.extend(mac.0);
    }
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
    icmpv6((A, MacAddr([0x33, 0x33, 0xff, 0, 0, 2])), src, group, kind, &body)
}

/// The datagram that carries `frame` on VNI `n`.
pub(crate) fn datagram(n: u32, frame: &[u8]) -> Vec<u8> {
    [&vxlan::header(vni(n))[..], frame].concat()
}
