//! What holds for every trace and for every string of octets.

use proptest::prelude::*;
use weft_dataplane::offload::{
    Arrival, Checksum, Coalescer, Outgoing, Split, UdpSegmentation, finish_checksum, prepare,
};
use weft_dataplane::wire::arp::Arp;
use weft_dataplane::wire::ethernet::{ETHERTYPE_IPV6, Ethernet};
use weft_dataplane::wire::flow;
use weft_dataplane::wire::ip::Ip;
use weft_dataplane::wire::ndp::Solicitation;
use weft_dataplane::wire::vnet::{self, VnetHeader};

use crate::decoded::has_valid_checksums;
use crate::naive;
use crate::packet::{ACK, CWR, FIN, Layer4, PSH, Packet, octets};
use crate::trace::{Sent, trace};

const MTU: u16 = 1450;

/// One write to the TAP, and which of the frames went into it.
pub(crate) struct Write {
    pub(crate) vnet: VnetHeader,
    pub(crate) frame: Vec<u8>,
    pub(crate) members: Vec<usize>,
}

/// Coalesces frames that arrive at one port.
pub(crate) fn coalesce(frames: &[Vec<u8>], checksum: Checksum) -> Vec<Write> {
    let mut arena = vec![0xa5; 3];
    let mut coalescer = Coalescer::new(UdpSegmentation::Supported);
    let mut ranges = Vec::new();
    for frame in frames {
        let start = arena.len() as u32;
        arena.extend(frame);
        ranges.push(start..arena.len() as u32);
    }
    for frame in &ranges {
        let arrival = Arrival { frame: frame.clone(), port: 0, mtu: MTU, checksum };
        coalescer.push(&arena, &arrival).expect("taken");
    }
    let mut writes = Vec::new();
    coalescer.flush(&arena, |merged| {
        let mut frame = merged.head.to_vec();
        let mut members = Vec::new();
        for piece in merged.pieces {
            frame.extend(&arena[piece.start as usize..piece.end as usize]);
            let within = |range: &std::ops::Range<u32>| range.start <= piece.start && piece.end <= range.end;
            members.push(ranges.iter().position(within).expect("a piece of a frame"));
        }
        writes.push(Write { vnet: merged.vnet, frame, members });
    });
    assert!(coalescer.is_empty());
    writes
}

/// What the kernel makes of a write.
pub(crate) fn split(vnet: &VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = frame.to_vec();
    match prepare(vnet, &mut frame).expect("well formed") {
        Outgoing::Whole(whole) => vec![whole.to_vec()],
        Outgoing::Segments(split) => segments(&split),
    }
}

pub(crate) fn segments(split: &Split<'_>) -> Vec<Vec<u8>> {
    let segment = |i| {
        let mut frame = vec![0; split.header_len()];
        assert_eq!(split.write_header(i, &mut frame), frame.len());
        frame.extend(split.payload(i));
        assert_eq!(frame.len(), split.segment_len(i));
        frame
    };
    (0..split.count()).map(segment).collect()
}

/// Segment `i` with a partial checksum, after the kernel did what is left to it.
fn finished_by_kernel(plan: &Split<'_>, i: usize, packet: &Packet) -> Vec<u8> {
    let mut frame = vec![0; plan.header_len()];
    assert_eq!(plan.write_partial_header(i, &mut frame), frame.len());
    frame.extend(plan.payload(i));
    let rest = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        csum_start: packet.l4() as u16,
        csum_offset: (packet.checksum_at() - packet.l4()) as u16,
        ..VnetHeader::PLAIN
    };
    finish_checksum(&rest, &mut frame).expect("well formed");
    frame
}

/// Cuts Ethernet padding off, and blanks the id of packets with DF, where it has no meaning (RFC 6864 §4.1).
fn comparable(frame: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet::parse(frame).expect("whole");
    let ip = Ip::parse(ethernet.ethertype, ethernet.payload(frame)).expect("IP");
    let l3 = ethernet.header_len();
    let mut frame = frame[..l3 + ip.packet().len()].to_vec();
    if ethernet.ethertype != ETHERTYPE_IPV6 && frame[l3 + 6] & 0x40 != 0 {
        let header = etherparse::Ipv4Header::from_slice(&frame[l3..]).expect("IPv4").0;
        let intact = header.header_checksum == header.calc_header_checksum();
        frame[l3 + 4..l3 + 6].fill(0);
        frame[l3 + 10..l3 + 12].fill(u8::from(intact));
    }
    frame
}

fn wires(trace: &[Sent]) -> Vec<Vec<u8>> {
    trace.iter().map(|sent| sent.wire.clone()).collect()
}

proptest! {
    #[test]
    fn splitting_what_was_coalesced_gives_the_frames_back(trace in trace(), known_good in any::<bool>()) {
        let clean = trace.iter().all(|sent| sent.partial || sent.wire == sent.truth && has_valid_checksums(&sent.wire));
        let checksum = if known_good && clean { Checksum::KnownGood } else { Checksum::Verify };
        for write in coalesce(&wires(&trace), checksum) {
            let back = split(&write.vnet, &write.frame);
            prop_assert_eq!(back.len(), write.members.len());
            for (frame, member) in back.iter().zip(&write.members) {
                prop_assert_eq!(comparable(frame), comparable(&trace[*member].truth), "frame {}", member);
            }
        }
    }

    #[test]
    fn coalescing_agrees_with_the_naive_reference(trace in trace()) {
        let partial: Vec<bool> = trace.iter().map(|sent| sent.partial).collect();
        let frames = wires(&trace);
        let expected = naive::coalesce(&frames, &partial);
        let writes = coalesce(&frames, Checksum::Verify);
        let members: Vec<_> = writes.iter().map(|write| write.members.clone()).collect();
        prop_assert_eq!(members, expected);
    }

    #[test]
    fn segments_of_any_super_frame_are_valid_and_hold_its_payload(
        v6 in any::<bool>(),
        udp in any::<bool>(),
        tags in 0usize..3,
        options in 0usize..11,
        ip_options in 0usize..11,
        length in 1usize..9000,
        size in 1u16..2000,
        sequence in any::<u32>(),
        id in any::<u16>(),
        known in any::<bool>(),
    ) {
        let mut packet = Packet { v6, id, ..Packet::tcp(octets(length, id.into())) };
        packet.tags = vec![[0x88, 0xa8, 0, 7]; tags];
        packet.ip_options = vec![1; ip_options * 4];
        let flags = ACK | PSH | FIN | CWR;
        packet.layer4 = if udp { Layer4::Udp } else {
            Layer4::Tcp { sequence, acknowledgement: 1, flags, window: 2, urgent: 0, options: vec![1; options * 4] }
        };
        let gso_type = if udp { vnet::GSO_UDP_L4 } else if v6 { vnet::GSO_TCPV6 } else { vnet::GSO_TCPV4 };
        let mut header = VnetHeader { gso_type, gso_size: size, ..VnetHeader::PLAIN };
        let frame = if known { packet.frame() } else {
            header.flags = vnet::NEEDS_CSUM;
            header.csum_start = packet.l4() as u16;
            header.csum_offset = (packet.checksum_at() - packet.l4()) as u16;
            packet.partial_frame()
        };
        let plan = Split::plan(&header, &frame).expect("well formed");
        let mut payload: Vec<u8> = Vec::new();
        for (i, segment) in segments(&plan).iter().enumerate() {
            prop_assert!(has_valid_checksums(segment), "segment {}", i);
            prop_assert_eq!(&finished_by_kernel(&plan, i, &packet), segment, "segment {}", i);
            payload.extend(plan.payload(i));
        }
        prop_assert_eq!(payload, packet.payload);
    }

    #[test]
    fn no_octets_make_a_parser_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        feed(&octets, VnetHeader::PLAIN);
    }

    #[test]
    fn no_damage_to_a_frame_or_its_vnet_header_makes_anything_panic(
        trace in trace(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        header in any::<[u8; 6]>(),
        kind in prop::sample::select(vec![0u8, 1, 3, 4, 5, 0x81, 0x84, 0x20, 77]),
        flags in 0u8..8,
        near in any::<bool>(),
    ) {
        let mut frame = trace[0].wire.clone();
        for (at, value) in damage {
            let at = at.index(frame.len().min(90));
            frame[at] = value;
        }
        frame.truncate(cut.index(frame.len()) + 1);
        let [a, b, c, d, e, f] = header;
        let vnet = VnetHeader {
            flags,
            gso_type: kind,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from(c),
            csum_start: if near { u16::from(d % 90) } else { u16::from_le_bytes([d, e]) },
            csum_offset: if near { 16 } else { u16::from(f) },
        };
        feed(&frame, vnet);
    }
}

/// Runs octets through everything that reads what others sent.
fn feed(octets: &[u8], vnet: VnetHeader) {
    let _ = flow::hash(octets);
    let _ = Arp::parse(octets);
    if let Some(ethernet) = Ethernet::parse(octets) {
        let _ = Arp::parse(ethernet.payload(octets));
        for ethertype in [ethernet.ethertype, 0x0800, ETHERTYPE_IPV6] {
            if let Some(ip) = Ip::parse(ethertype, ethernet.payload(octets)) {
                let _ = (ip.source(), ip.destination(), ip.hop_limit(), Solicitation::parse(&ip));
            }
        }
    }
    let mut frame = octets.to_vec();
    if let Ok(Outgoing::Segments(split)) = prepare(&vnet, &mut frame) {
        let _ = segments(&split);
    }
    let mut coalescer = Coalescer::new(UdpSegmentation::Supported);
    for (mtu, checksum) in [(MTU, Checksum::Verify), (20, Checksum::Partial), (60, Checksum::KnownGood)] {
        let arrival = Arrival { frame: 0..octets.len() as u32, port: 1, mtu, checksum };
        let _ = coalescer.push(octets, &arrival);
        let _ = coalescer.push(octets, &arrival);
    }
    coalescer.flush(octets, |merged| assert!(merged.frame_len() > 0));
}
