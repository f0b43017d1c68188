//! Coalescing, case by case: what is joined, what ends a run, what is refused.

use std::ops::Range;

use weft_dataplane::offload::{Arrival, Checksum, CoalesceError, Coalescer, UdpSegmentation};
use weft_dataplane::wire::vnet::{self, VnetHeader};

use crate::decoded::has_valid_checksums;
use crate::packet::{ACK, CWR, DF, FIN, Layer4, PSH, Packet, octets};
use crate::properties::{coalesce, split};

#[test]
fn a_bulk_stream_becomes_one_write() {
    for v6 in [false, true] {
        let packets = stream(&Packet { v6, ..Packet::tcp(octets(1000, 1)) }, 10);
        let writes = coalesce(&frames(&packets), Checksum::Verify);
        assert_eq!(writes.len(), 1);
        let header = writes[0].vnet;
        let expected = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            gso_type: if v6 { vnet::GSO_TCPV6 } else { vnet::GSO_TCPV4 },
            hdr_len: packets[0].l4() as u16 + 20,
            gso_size: 1000,
            csum_start: packets[0].l4() as u16,
            csum_offset: 16,
        };
        assert_eq!(header, expected);
        assert_eq!(split(&header, &writes[0].frame), frames(&packets));
    }
}

#[test]
fn datagrams_of_one_size_become_one_write_and_a_shorter_one_ends_it() {
    let mut packets = stream(&Packet::udp(octets(300, 1)), 4);
    packets[2].payload.truncate(299);
    let writes = coalesce(&frames(&packets), Checksum::Verify);
    assert_eq!(members(&writes), [vec![0, 1, 2], vec![3]]);
    assert_eq!((writes[0].vnet.gso_type, writes[0].vnet.gso_size), (vnet::GSO_UDP_L4, 300));
    assert_eq!(split(&writes[0].vnet, &writes[0].frame), frames(&packets)[..3]);
}

#[test]
fn a_single_frame_is_written_as_it_came() {
    let mut frame = Packet::tcp(octets(3, 1)).frame();
    frame.extend([0; 7]);
    let writes = coalesce(std::slice::from_ref(&frame), Checksum::Verify);
    assert_eq!((writes[0].vnet, &writes[0].frame), (VnetHeader::PLAIN, &frame));
}

#[test]
fn any_difference_that_splitting_could_not_restore_ends_the_run() {
    type Change = fn(&mut Packet);
    let changes: [(&str, Change); 17] = [
        ("type of service", |p| p.tos = 1),
        ("time to live", |p| p.ttl = 63),
        ("reserved bit", |p| p.fragment |= 0x8000),
        ("don't fragment", |p| p.fragment = 0),
        ("VLAN tag", |p| p.tags = vec![[0x81, 0, 0, 9]]),
        ("IP options", |p| p.ip_options = vec![1; 4]),
        ("sequence gap", |p| p.advance(1)),
        ("retransmission", |p| p.advance(0u32.wrapping_sub(1000))),
        ("larger segment", |p| p.payload.push(1)),
        ("FIN", |p| p.set_flags(ACK | FIN)),
        ("CWR", |p| p.set_flags(ACK | CWR)),
        ("ECE", |p| p.set_flags(ACK | 0x40)),
        ("no ACK", |p| p.set_flags(0)),
        ("acknowledgement", |p| tcp(p, |_, acknowledgement, _, _| *acknowledgement += 1)),
        ("window", |p| tcp(p, |_, _, window, _| *window += 1)),
        ("options", |p| tcp(p, |_, _, _, options| *options = vec![1; 4])),
        ("other payload and flow", |p| p.ports[0] += 1),
    ];
    for (why, change) in changes {
        let mut packets = stream(&Packet::tcp(octets(1000, 1)), 2);
        change(&mut packets[1]);
        assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [[0], [1]], "{why}");
    }
    let mut packets = stream(&Packet::tcp(octets(1000, 1)).over_v6(), 2);
    packets[1].flow_label += 1;
    assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [[0], [1]], "flow label");
}

#[test]
fn identification_must_count_up_only_where_fragmentation_is_allowed() {
    for (fragment, joined) in [(DF, 1), (0, 2)] {
        let mut packets = stream(&Packet { fragment, ..Packet::tcp(octets(1000, 1)) }, 2);
        packets[1].id = packets[0].id;
        assert_eq!(coalesce(&frames(&packets), Checksum::Verify).len(), joined, "{fragment:#x}");
    }
}

#[test]
fn push_and_a_short_segment_end_a_run_and_push_reaches_the_last_segment() {
    let mut packets = stream(&Packet::tcp(octets(1000, 1)), 4);
    packets[1].set_flags(ACK | PSH);
    let writes = coalesce(&frames(&packets), Checksum::Verify);
    assert_eq!(members(&writes), [[0, 1], [2, 3]]);
    assert_eq!(split(&writes[0].vnet, &writes[0].frame), frames(&packets)[..2]);

    let mut packets = stream(&Packet::tcp(octets(1000, 1)), 2);
    packets[1].payload.truncate(999);
    let mut third = packets[1].clone();
    third.advance(999);
    packets.push(third);
    assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [vec![0, 1], vec![2]]);
}

#[test]
fn segments_with_flags_that_belong_to_one_segment_stay_alone_even_if_all_carry_them() {
    for flags in [ACK | CWR, ACK | FIN, ACK | 0x02, ACK | 0x04, ACK | 0x20, 0] {
        let mut first = Packet::tcp(octets(1000, 1));
        first.set_flags(flags);
        let packets = stream(&first, 2);
        assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [[0], [1]], "{flags:#x}");
    }
}

#[test]
fn nothing_overtakes_a_frame_that_stays_alone() {
    let mut datagrams = frames(&stream(&Packet::udp(octets(1000, 1)), 4));
    datagrams[2][40..42].fill(0);
    assert_eq!(members(&coalesce(&datagrams, Checksum::Verify)), [vec![0, 1], vec![2], vec![3]]);

    let mut packets = stream(&Packet::tcp(octets(1000, 1)), 4);
    packets[2].set_flags(ACK | FIN);
    packets[2].payload.clear();
    packets[3].advance(0u32.wrapping_sub(1000));
    assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [vec![0, 1], vec![2], vec![3]]);
}

#[test]
fn a_pure_acknowledgement_does_not_end_the_run_of_its_flow() {
    let mut packets = stream(&Packet::tcp(octets(1000, 1)), 3);
    packets[1].payload.clear();
    packets[2].advance(0u32.wrapping_sub(1000));
    packets[2].id -= 1;
    assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [vec![0, 2], vec![1]]);
}

#[test]
fn interleaved_flows_are_joined_each_and_written_in_order_of_their_first_frames() {
    let a = stream(&Packet::tcp(octets(500, 1)), 3);
    let b = stream(&Packet { hosts: [3, 4], ..Packet::udp(octets(500, 2)) }, 3);
    let mixed: Vec<Packet> = a.iter().zip(&b).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    assert_eq!(members(&coalesce(&frames(&mixed), Checksum::Verify)), [[0, 2, 4], [1, 3, 5]]);
}

#[test]
fn more_flows_than_the_table_holds_still_keep_their_order() {
    let mut packets = Vec::new();
    for round in 0..2 {
        for flow in 0..1000u16 {
            let mut packet = Packet { ports: [flow, 9], id: 9 + round, ..Packet::tcp(octets(10, 0)) };
            packet.advance(u32::from(round) * 10);
            packets.push(packet);
        }
    }
    let mut joined = 0;
    let mut last_of_flow = vec![None; 1000];
    for write in coalesce(&frames(&packets), Checksum::Verify) {
        joined += write.members.len() - 1;
        for member in write.members {
            let before: Option<usize> = last_of_flow[member % 1000].replace(member);
            assert!(before < Some(member), "{before:?} before {member}");
        }
    }
    assert!((100..=256).contains(&joined), "{joined}");
}

#[test]
fn a_run_ends_at_64_segments_and_at_64_kib() {
    let writes = coalesce(&frames(&stream(&Packet::udp(octets(10, 1)), 70)), Checksum::Verify);
    assert_eq!(writes.iter().map(|write| write.members.len()).collect::<Vec<_>>(), [64, 6]);
    let writes = coalesce(&frames(&stream(&Packet::tcp(octets(1400, 1)), 50)), Checksum::Verify);
    assert_eq!(writes.iter().map(|write| write.members.len()).collect::<Vec<_>>(), [46, 4]);
}

#[test]
fn a_corrupted_frame_is_never_joined_and_never_gets_a_valid_checksum() {
    for at in [24, 34 + 16, 34 + 20 + 500] {
        for corrupted in 0..3 {
            let mut frames = frames(&stream(&Packet::tcp(octets(1000, 1)), 3));
            frames[corrupted][at] ^= 1;
            for write in coalesce(&frames, Checksum::Verify) {
                let back = split(&write.vnet, &write.frame);
                for (frame, member) in back.iter().zip(&write.members) {
                    assert_eq!(has_valid_checksums(frame), *member != corrupted, "octet {at} of {corrupted}");
                }
            }
        }
    }
}

#[test]
fn datagrams_without_checksum_and_tunnels_stay_alone() {
    let packets = stream(&Packet::udp(octets(100, 1)), 2);
    let mut bare = frames(&packets);
    for frame in &mut bare {
        frame[40..42].fill(0);
    }
    for checksum in [Checksum::Verify, Checksum::KnownGood] {
        let writes = coalesce(&bare, checksum);
        assert_eq!(members(&writes), [[0], [1]]);
        assert_eq!((writes[0].vnet, &writes[0].frame), (VnetHeader::PLAIN, &bare[0]));
    }
    for port in [4789, 6081, 8472] {
        let packets = stream(&Packet { ports: [50_000, port], ..Packet::udp(octets(100, 1)) }, 2);
        assert_eq!(members(&coalesce(&frames(&packets), Checksum::Verify)), [[0], [1]], "port {port}");
    }
}

#[test]
fn partial_checksums_are_left_to_the_kernel_alone_and_joined() {
    for packet in [Packet::tcp(octets(700, 1)), Packet::udp(octets(700, 1)).over_v6()] {
        let packets = stream(&packet, 2);
        let partial: Vec<_> = packets.iter().map(Packet::partial_frame).collect();
        let alone = &coalesce(&partial[..1], Checksum::Verify)[0];
        assert_eq!((alone.vnet.flags, alone.vnet.gso_type), (vnet::NEEDS_CSUM, vnet::GSO_NONE));
        assert_eq!(alone.frame, partial[0]);
        assert_eq!(split(&alone.vnet, &alone.frame), frames(&packets)[..1]);

        let both = coalesce(&partial, Checksum::Verify);
        assert_eq!(split(&both[0].vnet, &both[0].frame), frames(&packets));
    }
}

#[test]
fn a_frame_known_to_be_good_spares_the_kernel_a_pass() {
    let packet = Packet::tcp(octets(700, 1));
    let write = &coalesce(&[packet.frame()], Checksum::KnownGood)[0];
    assert_eq!(write.vnet.flags, vnet::NEEDS_CSUM);
    assert_eq!(write.frame, packet.partial_frame());
}

#[test]
fn a_tcp_packet_longer_than_the_mtu_is_cut_by_the_kernel() {
    for v6 in [false, true] {
        let mut packet = Packet { v6, ..Packet::tcp(octets(9000, 1)) };
        packet.set_flags(ACK | CWR | PSH);
        let room = 1450 - (packet.l4() - 14) as u16 - 20;
        for frame in [packet.partial_frame(), packet.frame()] {
            let write = &coalesce(&[frame], Checksum::Verify)[0];
            let kind = if v6 { vnet::GSO_TCPV6 } else { vnet::GSO_TCPV4 };
            assert_eq!((write.vnet.gso_type, write.vnet.gso_size), (kind | vnet::GSO_ECN, room));
            assert_eq!(write.frame, packet.partial_frame());
            let segments = split(&write.vnet, &write.frame);
            assert!(segments.iter().all(|segment| segment.len() <= 1464 && has_valid_checksums(segment)));
        }
    }
}

#[test]
fn what_is_longer_than_the_mtu_and_cannot_be_cut_is_refused() {
    let mut corrupt = Packet::tcp(octets(3000, 1)).frame();
    corrupt[1000] ^= 1;
    let mut open = Packet::tcp(octets(3000, 1));
    open.set_flags(0x02);
    let fragment = Packet { fragment: 0x2000, ..Packet::tcp(octets(3000, 1)) };
    for (why, frame, expected) in [
        ("UDP", Packet::udp(octets(3000, 1)).partial_frame(), CoalesceError::Oversized),
        ("SYN", open.partial_frame(), CoalesceError::Oversized),
        ("fragment", fragment.frame(), CoalesceError::Oversized),
        ("not IP", vec![0x88; 1465], CoalesceError::Oversized),
        ("corrupt", corrupt, CoalesceError::OversizedCorrupt),
    ] {
        assert_eq!(push(&frame, 0..frame.len() as u32), Err(expected), "{why}");
    }
    assert_eq!(push(&[0x88; 1464], 0..1464), Ok(()), "a frame of exactly the MTU");
}

#[test]
fn a_runt_or_a_range_outside_the_arena_is_refused() {
    for (start, end) in [(0, 13), (90, 101), (60, 50)] {
        let frame = start..end;
        assert_eq!(push(&[0; 100], frame.clone()), Err(CoalesceError::Runt), "{frame:?}");
    }
}

#[test]
fn ports_are_never_joined_and_a_kernel_without_udp_segmentation_gets_single_datagrams() {
    let arena = frames(&stream(&Packet::udp(octets(50, 1)), 2)).concat();
    let half = arena.len() as u32 / 2;
    let count = |udp, ports: [u32; 2]| {
        let mut coalescer = Coalescer::new(udp);
        for (port, frame) in ports.into_iter().zip([0..half, half..2 * half]) {
            let arrival = Arrival { frame, port, mtu: 1450, checksum: Checksum::Verify };
            coalescer.push(&arena, &arrival).expect("taken");
        }
        let mut seen = Vec::new();
        coalescer.flush(&arena, |merged| seen.push((merged.port, merged.segments())));
        seen
    };
    assert_eq!(count(UdpSegmentation::Supported, [5, 5]), [(5, 2)]);
    assert_eq!(count(UdpSegmentation::Supported, [5, 6]), [(5, 1), (6, 1)]);
    assert_eq!(count(UdpSegmentation::Missing, [5, 5]), [(5, 1), (5, 1)]);
}

#[test]
fn a_full_coalescer_says_so_and_takes_frames_again_after_the_flush() {
    let frame = Packet::tcp(octets(1, 1)).frame();
    let arrival = Arrival { frame: 0..frame.len() as u32, port: 0, mtu: 1450, checksum: Checksum::Verify };
    let mut coalescer = Coalescer::new(UdpSegmentation::Supported);
    let mut taken = 0;
    while coalescer.push(&frame, &arrival).is_ok() {
        taken += 1;
    }
    assert_eq!(coalescer.push(&frame, &arrival), Err(CoalesceError::Full));
    let mut written = 0;
    coalescer.flush(&frame, |merged| written += merged.segments());
    assert_eq!((taken, written), (4096, 4096));
    assert_eq!(coalescer.push(&frame, &arrival), Ok(()));
}

fn push(arena: &[u8], frame: Range<u32>) -> Result<(), CoalesceError> {
    let arrival = Arrival { frame, port: 0, mtu: 1450, checksum: Checksum::Verify };
    Coalescer::new(UdpSegmentation::Supported).push(arena, &arrival)
}

/// `count` packets that continue each other.
fn stream(first: &Packet, count: usize) -> Vec<Packet> {
    let mut packet = first.clone();
    let next = |i: usize| {
        let mut this = packet.clone();
        this.payload = octets(first.payload.len(), i as u32);
        if matches!(packet.layer4, Layer4::Tcp { .. }) {
            packet.advance(first.payload.len() as u32);
        }
        packet.id = packet.id.wrapping_add(1);
        this
    };
    (0..count).map(next).collect()
}

fn tcp(packet: &mut Packet, change: fn(&mut u32, &mut u32, &mut u16, &mut Vec<u8>)) {
    let Layer4::Tcp { sequence, acknowledgement, window, options, .. } = &mut packet.layer4 else {
        panic!("not TCP")
    };
    change(sequence, acknowledgement, window, options);
}

fn frames(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::frame).collect()
}

fn members(writes: &[crate::properties::Write]) -> Vec<Vec<usize>> {
    writes.iter().map(|write| write.members.clone()).collect()
}
