//! Splitting, case by case.

use etherparse::TransportHeader;
use weft_dataplane::offload::{Outgoing, Split, SplitError, finish_checksum, is_partial, prepare};
use weft_dataplane::wire::vnet::{self, VnetHeader};

use crate::decoded::{has_valid_checksums, headers};
use crate::packet::{ACK, CWR, FIN, Layer4, PSH, Packet, octets};
use crate::properties::segments;

#[test]
fn only_the_first_segment_keeps_cwr_and_only_the_last_fin_and_psh() {
    let mut packet = Packet::tcp(octets(2500, 1));
    packet.set_flags(ACK | CWR | FIN | PSH);
    let flags: Vec<u8> = split(&packet, 1000).iter().map(|segment| segment[packet.l4() + 13]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | FIN | PSH]);
}

#[test]
fn sequence_number_and_identification_wrap() {
    let mut packet = Packet { id: 0xffff, ..Packet::tcp(octets(300, 1)) };
    packet.advance(0u32.wrapping_sub(1000 + 150));
    let segments = split(&packet, 100);
    let sequence = |segment: &[u8]| match headers(segment).transport {
        Some(TransportHeader::Tcp(tcp)) => tcp.sequence_number,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        segments.iter().map(|segment| sequence(segment)).collect::<Vec<_>>(),
        [0u32.wrapping_sub(150), 0u32.wrapping_sub(50), 50]
    );
    assert_eq!(
        segments.iter().map(|s| u16::from_be_bytes([s[18], s[19]])).collect::<Vec<_>>(),
        [0xffff, 0, 1]
    );
}

#[test]
fn datagrams_get_their_own_lengths() {
    for packet in [Packet::udp(octets(2500, 2)), Packet::udp(octets(2500, 2)).over_v6()] {
        let lengths: Vec<u16> = split(&packet, 1000)
            .iter()
            .map(|segment| match headers(segment).transport {
                Some(TransportHeader::Udp(udp)) => udp.length,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [1008, 1008, 508]);
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    let mut packet = Packet::udp(vec![0; 4]);
    let frame = packet.frame();
    let at = packet.checksum_at();
    packet.payload[..2].copy_from_slice(&frame[at..at + 2]);
    packet.payload.extend([1, 2, 3, 4]);
    // The first segment's payload makes its sum all ones; the second one differs.
    let segments = split(&packet, 4);
    assert_eq!(segments[0][at..at + 2], [0xff, 0xff]);
    assert!(segments.iter().all(|segment| has_valid_checksums(segment)));
}

#[test]
fn segments_behind_tags_options_and_extension_headers_are_valid() {
    let tagged = Packet { tags: vec![[0x88, 0xa8, 0, 1], [0x81, 0, 0, 2]], ..Packet::tcp(octets(999, 3)) };
    let optioned = Packet { ip_options: vec![1; 40], ..Packet::tcp(octets(999, 4)) };
    let hop_by_hop = vec![6, 1, 1, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0];
    let extended = Packet { extensions: (0, hop_by_hop), ..Packet::tcp(octets(999, 5)).over_v6() };
    for packet in [tagged, optioned, extended] {
        let segments = split(&packet, 100);
        assert_eq!(segments.len(), 10);
        for segment in segments {
            assert!(has_valid_checksums(&segment), "{packet:?}");
        }
    }
}

#[test]
fn a_super_frame_of_one_segment_is_finished_in_place() {
    let packet = Packet::tcp(octets(100, 6));
    let mut frame = packet.partial_frame();
    let vnet = gso(&packet, 100);
    let Ok(Outgoing::Whole(whole)) = prepare(&vnet, &mut frame) else { panic!("not whole") };
    assert_eq!(whole, packet.frame());
}

#[test]
fn a_missing_checksum_is_computed_and_a_plain_frame_is_left_alone() {
    let packet = Packet::udp(octets(77, 7));
    let mut frame = packet.partial_frame();
    let vnet = VnetHeader { gso_type: vnet::GSO_NONE, gso_size: 0, ..gso(&packet, 1) };
    finish_checksum(&vnet, &mut frame).expect("well formed");
    assert_eq!(frame, packet.frame());

    let untouched = packet.partial_frame();
    let mut frame = untouched.clone();
    finish_checksum(&VnetHeader { flags: vnet::DATA_VALID, ..VnetHeader::PLAIN }, &mut frame).expect("plain");
    assert_eq!(frame, untouched);
}

#[test]
fn a_checksum_may_stay_partial_only_where_the_receiver_finds_it() {
    let missing = |packet: &Packet| VnetHeader { gso_type: vnet::GSO_NONE, gso_size: 0, ..gso(packet, 1) };
    for packet in [Packet::udp(octets(9, 1)), Packet::tcp(octets(9, 1)).over_v6()] {
        assert!(is_partial(&missing(&packet), &packet.partial_frame()));
        assert!(!is_partial(&VnetHeader::PLAIN, &packet.frame()), "nothing is missing");
        let inner = VnetHeader { csum_start: missing(&packet).csum_start + 8, ..missing(&packet) };
        assert!(!is_partial(&inner, &packet.partial_frame()), "the field of something within");
        let sctp = VnetHeader { csum_offset: 8, ..missing(&packet) };
        assert!(!is_partial(&sctp, &packet.partial_frame()));
        assert!(!is_partial(&missing(&packet), &packet.partial_frame()[..20]), "cut off");
    }
    let routed = Packet { ip_options: vec![1; 4], ..Packet::udp(octets(9, 1)) };
    assert!(!is_partial(&missing(&routed), &routed.partial_frame()), "the destination may be another one");
    let fragment = Packet { fragment: 0x2000, ..Packet::udp(octets(9, 1)) };
    assert!(!is_partial(&missing(&fragment), &fragment.partial_frame()));
}

#[test]
fn what_was_never_offered_or_contradicts_itself_is_refused() {
    let packet = Packet::tcp(octets(500, 8));
    let good = gso(&packet, 100);
    for (why, vnet, expected) in [
        ("UFO", VnetHeader { gso_type: vnet::GSO_UDP, ..good }, SplitError::Unsupported),
        ("tunnel", VnetHeader { gso_type: vnet::GSO_TCPV4 | 0x20, ..good }, SplitError::Unsupported),
        ("RSC", VnetHeader { flags: vnet::NEEDS_CSUM | vnet::RSC_INFO, ..good }, SplitError::Unsupported),
        ("size 0", VnetHeader { gso_size: 0, ..good }, SplitError::SegmentSize),
        ("size by fragments", VnetHeader { gso_size: u16::MAX, ..good }, SplitError::SegmentSize),
        ("other version", VnetHeader { gso_type: vnet::GSO_TCPV6, ..good }, SplitError::Mismatch),
        ("other transport", VnetHeader { gso_type: vnet::GSO_UDP_L4, ..good }, SplitError::Mismatch),
        ("other start", VnetHeader { csum_start: 35, ..good }, SplitError::Mismatch),
        ("start outside", VnetHeader { csum_start: u16::MAX, ..good }, SplitError::Mismatch),
        ("other field", VnetHeader { csum_offset: 6, ..good }, SplitError::Mismatch),
    ] {
        assert_eq!(refusal(&vnet, &packet.partial_frame()), expected, "{why}");
    }
    let udp = Packet::udp(octets(500, 8));
    let ecn = VnetHeader { gso_type: vnet::GSO_UDP_L4 | vnet::GSO_ECN, ..gso(&udp, 100) };
    assert_eq!(refusal(&ecn, &udp.partial_frame()), SplitError::Unsupported, "ECN on UDP");
}

#[test]
fn fragments_and_cut_or_endless_headers_are_refused() {
    let fragment = Packet { fragment: 0x2000, ..Packet::tcp(octets(500, 9)) };
    assert_eq!(refusal(&gso(&fragment, 100), &fragment.partial_frame()), SplitError::Fragment);

    let packet = Packet::tcp(octets(500, 9));
    for length in [0, 13, 33, 50] {
        let frame = &packet.partial_frame()[..length];
        assert_eq!(refusal(&gso(&packet, 100), frame), SplitError::OutsideFrame, "{length}");
    }
    let mut frame = packet.partial_frame();
    frame[packet.l4() + 12] = 0x40;
    assert_eq!(refusal(&gso(&packet, 100), &frame), SplitError::OutsideFrame, "data offset of 16");

    let padding = [&[6, 16][..], &[0; 134]].concat();
    let endless = Packet { extensions: (60, padding), ..Packet::tcp(octets(500, 9)).over_v6() };
    assert_eq!(refusal(&gso(&endless, 100), &endless.partial_frame()), SplitError::HeaderTooLong);
}

#[test]
fn a_checksum_field_outside_the_frame_is_refused() {
    let packet = Packet::tcp(octets(10, 1));
    let good = VnetHeader { gso_type: vnet::GSO_NONE, ..gso(&packet, 1) };
    for (start, offset) in [(70, 0), (34, 29), (u16::MAX, u16::MAX), (13, 16)] {
        let vnet = VnetHeader { csum_start: start, csum_offset: offset, ..good };
        let mut frame = packet.partial_frame();
        assert_eq!(finish_checksum(&vnet, &mut frame), Err(SplitError::OutsideFrame), "{start} + {offset}");
        assert_eq!(frame, packet.partial_frame());
    }
    let rsc = VnetHeader { flags: vnet::RSC_INFO, ..VnetHeader::PLAIN };
    assert_eq!(finish_checksum(&rsc, &mut packet.frame()), Err(SplitError::Unsupported));
}

fn gso(packet: &Packet, size: u16) -> VnetHeader {
    let gso_type = match (&packet.layer4, packet.v6) {
        (Layer4::Udp, _) => vnet::GSO_UDP_L4,
        (_, false) => vnet::GSO_TCPV4,
        (_, true) => vnet::GSO_TCPV6,
    };
    VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type,
        hdr_len: 7, // a hint that is wrong more often than not
        gso_size: size,
        csum_start: packet.l4() as u16,
        csum_offset: (packet.checksum_at() - packet.l4()) as u16,
    }
}

fn split(packet: &Packet, size: u16) -> Vec<Vec<u8>> {
    segments(&Split::plan(&gso(packet, size), &packet.partial_frame()).expect("well formed"))
}

fn refusal(vnet: &VnetHeader, frame: &[u8]) -> SplitError {
    let mut copy = frame.to_vec();
    let error = prepare(vnet, &mut copy).expect_err("refused");
    assert_eq!(copy, frame, "a refused frame is unchanged");
    error
}
