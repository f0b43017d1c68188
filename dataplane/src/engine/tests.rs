use std::net::{Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fdb::AGEING;
use crate::segment::SegmentSpec;
use crate::testing::*;
use crate::wire::MacAddr;
use crate::wire::arp::{Arp, Operation};
use crate::wire::ethernet::Ethernet;
use crate::wire::ndp::{ADVERTISEMENT, Advertisement, SOLICITATION};

const NOW: Seconds = Seconds(1000);

#[test]
fn a_frame_to_a_remote_endpoint_goes_to_its_vtep_with_the_vni_it_wants() {
    let engine = engine(spec());
    assert_eq!(out(&engine, &a_to_b(10)), Verdict::Tunnel(&vtep(VTEP_B, 42)));
    let to_c = udp((A, IP_A), (C, [10, 0, 0, 3]), (1, 2), 10);
    assert_eq!(out(&engine, &to_c), Verdict::Tunnel(&vtep(VTEP_C, 77)));
}

#[test]
fn a_frame_from_a_members_endpoint_is_delivered() {
    let engine = engine(spec());
    assert_eq!(in_from(&engine, VTEP_B, &b_to_a(10)), Verdict::Deliver(vni(42)));
}

#[test]
fn a_sender_is_known_by_its_address_whatever_its_port_and_form() {
    let engine = engine(spec());
    let mapped = "::ffff:192.0.2.2".parse().expect("address");
    assert_eq!(in_from(&engine, mapped, &b_to_a(10)), Verdict::Deliver(vni(42)));
}

#[test]
fn link_local_addresses_are_those_of_the_mac() {
    let engine = engine(spec());
    let own = crate::neighbour::link_local(A);
    let hello = |src| icmpv6((A, B), src, IP6_B, 128, &[0; 8]);
    assert_eq!(out(&engine, &hello(own)), Verdict::Tunnel(&vtep(VTEP_B, 42)));
    let foreign = crate::neighbour::link_local(B);
    assert_eq!(out(&engine, &hello(foreign)), Verdict::Drop(DropReason::SpoofedIp));
}

#[test]
fn an_arp_question_for_a_remote_endpoint_is_answered_with_its_mac() {
    let engine = engine(spec());
    let Verdict::Reply(reply) = out(&engine, &arp_from_a(IP_A, IP_B)) else { panic!("no reply") };
    let ethernet = Ethernet::parse(reply.frame()).expect("whole");
    let arp = Arp::parse(ethernet.payload(reply.frame())).expect("ARP");
    assert_eq!((ethernet.dst, ethernet.src), (A, B));
    assert_eq!((arp.operation, arp.sender_mac, arp.sender_ip), (Operation::Reply, B, IP_B.into()));
}

#[test]
fn a_probe_is_answered_only_if_somebody_else_owns_the_address() {
    let engine = engine(spec());
    assert!(matches!(out(&engine, &arp_from_a([0; 4], IP_B)), Verdict::Reply(_)), "B owns it");
    for (address, whose) in
        [(IP_A, "its own"), (IP_A2, "another local endpoint's"), ([10, 0, 0, 99], "nobody's")]
    {
        let verdict = out(&engine, &arp_from_a([0; 4], address));
        assert_eq!(verdict, Verdict::Drop(DropReason::LocalNeighbour), "{whose}");
    }
}

#[test]
fn a_unicast_arp_question_is_answered_too() {
    let engine = engine(spec());
    let frame = arp_frame(A, B, Operation::Request, (A, IP_A), IP_B);
    assert!(matches!(out(&engine, &frame), Verdict::Reply(_)));
}

#[test]
fn a_neighbour_solicitation_for_a_remote_endpoint_is_answered() {
    let engine = engine(spec());
    for target in [IP6_B, crate::neighbour::link_local(B)] {
        let frame = nd_from_a(SOLICITATION, IP6_A, target, Some((1, A)));
        let Verdict::Reply(reply) = out(&engine, &frame) else { panic!("no reply for {target}") };
        let ethernet = Ethernet::parse(reply.frame()).expect("whole");
        let ip =
            crate::wire::ip::Ip::parse(ethernet.ethertype, ethernet.payload(reply.frame())).expect("IPv6");
        let claim = Advertisement::parse(ip.payload()).expect("advertisement");
        assert_eq!((ethernet.dst, claim.target, claim.target_mac), (A, target, Some(B)));
    }
}

#[test]
fn duplicate_address_detection_hears_of_a_remote_owner_and_nothing_else() {
    let engine = engine(spec());
    let ask = |target| nd_from_a(SOLICITATION, Ipv6Addr::UNSPECIFIED, target, None);
    let Verdict::Reply(reply) = out(&engine, &ask(IP6_B)) else { panic!("no reply") };
    assert_eq!(Ethernet::parse(reply.frame()).expect("whole").dst, ALL_NODES);
    assert_eq!(out(&engine, &ask(IP6_A)), Verdict::Drop(DropReason::LocalNeighbour));
}

#[test]
fn broadcasts_of_a_flooding_segment_go_to_every_member_and_come_in() {
    let engine = engine(flooding());
    let frame = udp((A, IP_A), (MacAddr::BROADCAST, [255; 4]), (1, 2), 5);
    assert_eq!(out(&engine, &frame), Verdict::Flood(&[vtep(VTEP_B, 42), vtep(VTEP_C, 77)]));
    let frame = udp((B, IP_B), (MacAddr::BROADCAST, [255; 4]), (1, 2), 5);
    assert_eq!(in_from(&engine, VTEP_B, &frame), Verdict::Deliver(vni(42)));
}

#[test]
fn a_flood_leaves_out_the_node_itself_even_if_control_lists_it() {
    let mut listed = flooding();
    listed.members.push(vtep(OWN, 42));
    let engine = engine(listed);
    let frame = udp((A, IP_A), (MacAddr::BROADCAST, [255; 4]), (1, 2), 5);
    assert_eq!(out(&engine, &frame), Verdict::Flood(&[vtep(VTEP_B, 42), vtep(VTEP_C, 77)]));
}

#[test]
fn unknown_unicast_and_arp_for_strangers_are_flooded_to_static_vteps_only() {
    let engine = engine(with_static());
    let flood = [vtep(VTEP_S, 42)];
    let unknown = udp((A, IP_A), (S, IP_S), (1, 2), 5);
    assert_eq!(out(&engine, &unknown), Verdict::Flood(&flood));
    assert_eq!(out(&engine, &arp_from_a(IP_A, IP_S)), Verdict::Flood(&flood));
    assert!(matches!(out(&engine, &arp_from_a(IP_A, IP_B)), Verdict::Reply(_)), "known ones are answered");
}

#[test]
fn macs_behind_a_static_vtep_are_learned_and_forgotten() {
    let engine = engine(with_static());
    let hello = udp((S, IP_S), (A, IP_A), (1, 2), 5);
    let mut events = Vec::new();
    for _ in 0..2 {
        let verdict =
            engine.handle_datagram(VTEP_S, &datagram(42, &hello), NOW, &mut |event| events.push(event));
        assert_eq!(verdict, Verdict::Deliver(vni(42)));
    }
    assert_eq!(events, [Event::Learned { vni: vni(42), mac: S, vtep: vtep(VTEP_S, 42).address }]);

    let back = udp((A, IP_A), (S, IP_S), (2, 1), 5);
    assert_eq!(out(&engine, &back), Verdict::Tunnel(&vtep(VTEP_S, 42)));
    let later = Seconds(NOW.0 + AGEING + 1);
    let verdict = engine.handle_frame(vni(42), &back, 33, later);
    assert_eq!(verdict, Verdict::Flood(&[vtep(VTEP_S, 42)]), "after silence");
}

#[test]
fn what_was_learned_survives_a_change_that_keeps_its_vtep() {
    let before = engine(with_static());
    let hello = udp((S, IP_S), (A, IP_A), (1, 2), 5);
    in_from(&before, VTEP_S, &hello);
    let other = SocketAddr::new("192.0.2.8".parse().expect("address"), 4789);
    let mut changed = with_static();
    changed.static_vteps.insert(0, other);
    let after = before.after(Change::SetSegment(changed));
    let back = udp((A, IP_A), (S, IP_S), (2, 1), 5);
    assert_eq!(out(&after, &back), Verdict::Tunnel(&vtep(VTEP_S, 42)));
    let gone = after.after(Change::SetSegment(SegmentSpec { static_vteps: vec![other], ..spec() }));
    assert!(matches!(out(&gone, &back), Verdict::Flood(_)));
}

#[test]
fn a_flood_of_macs_from_a_static_vtep_is_told() {
    let engine = engine(with_static());
    let mut refused = 0;
    for n in 0..10_000u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let frame = udp((MacAddr([6, 0, a, b, c, d]), IP_S), (A, IP_A), (1, 2), 5);
        engine.handle_datagram(VTEP_S, &datagram(42, &frame), NOW, &mut |event| {
            refused += u32::from(matches!(event, Event::LearnRefused { .. }));
        });
    }
    assert_eq!(refused as usize, 10_000 - crate::fdb::LEARNED_MAX);
}

#[test]
fn a_stranger_may_not_take_what_belongs_to_an_endpoint() {
    let engine = engine(with_static());
    let mac = udp((B, IP_S), (A, IP_A), (1, 2), 5);
    let ip = udp((S, IP_B), (A, IP_A), (1, 2), 5);
    let arp = arp_frame(S, MacAddr::BROADCAST, Operation::Request, (S, IP_A2), IP_A);
    for (frame, reason) in
        [(mac, DropReason::SpoofedMac), (ip, DropReason::SpoofedIp), (arp, DropReason::SpoofedArp)]
    {
        assert_eq!(in_from(&engine, VTEP_S, &frame), Verdict::Drop(reason));
    }
}

#[test]
fn an_inner_tcp_super_frame_passes_and_one_of_udp_does_not() {
    let engine = engine(spec());
    assert_eq!(in_from(&engine, VTEP_B, &tcp_b_to_a(1, 20_000)), Verdict::Deliver(vni(42)));
    assert_eq!(in_from(&engine, VTEP_B, &b_to_a(20_000)), Verdict::Drop(DropReason::Oversize));
}

#[test]
fn a_change_leaves_the_engine_before_it_as_it_was() {
    let before = engine(spec());
    let after = before.after(Change::RemoveSegment(vni(42)));
    assert_eq!(out(&before, &a_to_b(5)), Verdict::Tunnel(&vtep(VTEP_B, 42)));
    assert_eq!(out(&after, &a_to_b(5)), Verdict::Drop(DropReason::NoSegment));
}

#[test]
fn a_train_is_decided_anew_as_soon_as_anything_the_rules_look_at_differs() {
    let engine = engine(spec());
    let header = vxlan::header(vni(42));
    let source = engine.source(VTEP_B, &header).expect("a member");
    let first = b_to_a(60);
    let next = |frame: &[u8]| source.handle_next(Some(&first), frame, NOW, &mut |_| {});
    assert_eq!(next(&first), Verdict::Deliver(vni(42)));
    for (at, reason) in [
        (0, DropReason::BroadcastOff), // destination MAC becomes a group
        (5, DropReason::NotLocal),     // destination MAC
        (11, DropReason::SpoofedMac),  // source MAC
        (16, DropReason::MalformedIp), // total length
        (29, DropReason::SpoofedIp),   // source address
    ] {
        let mut frame = first.clone();
        frame[at] ^= 0x11;
        assert_eq!(next(&frame), Verdict::Drop(reason), "octet {at}");
    }
    let mut dhcp = first.clone();
    dhcp[34..36].copy_from_slice(&67u16.to_be_bytes());
    assert_eq!(next(&dhcp), Verdict::Drop(DropReason::DhcpServer));
}

proptest! {
    #[test]
    fn any_frame_and_any_datagram_gets_a_verdict(
        octets in vec(any::<u8>(), 0..200),
        known in any::<bool>(),
        largest in 0usize..70_000,
    ) {
        let engine = engine(if known { with_static() } else { flooding() });
        let _ = engine.handle_frame(vni(42), &octets, largest, NOW);
        for from in [VTEP_B, VTEP_S, OWN] {
            let _ = engine.handle_datagram(from, &octets, NOW, &mut |_| {});
            let _ = engine.handle_datagram(from, &datagram(42, &octets), NOW, &mut |_| {});
        }
    }

    #[test]
    fn a_damaged_frame_gets_a_verdict_and_never_leaves_under_a_foreign_name(
        damage in vec((0usize..90, any::<u8>()), 1..4),
        pick in 0usize..6,
        cut in 0usize..100,
    ) {
        let engine = engine(with_static());
        let frames = [
            a_to_b(40),
            arp_from_a(IP_A, IP_B),
            nd_from_a(SOLICITATION, IP6_A, IP6_B, Some((1, A))),
            nd_from_a(ADVERTISEMENT, IP6_A, IP6_A, Some((2, A))),
            b_to_a(40),
            tcp_b_to_a(9, 40),
        ];
        let mut frame = frames[pick].clone();
        for (at, octet) in damage {
            let at = at % frame.len();
            frame[at] = octet;
        }
        frame.truncate(frame.len().saturating_sub(cut % 60));
        let verdict = engine.handle_frame(vni(42), &frame, frame.len(), NOW);
        if let Verdict::Tunnel(_) | Verdict::Flood(_) = verdict {
            prop_assert!([A.0, A2.0].contains(frame[6..12].try_into().expect("six octets")));
        }
        let verdict = engine.handle_datagram(VTEP_B, &datagram(42, &frame), NOW, &mut |_| {});
        if let Verdict::Deliver(_) = verdict {
            prop_assert_eq!(&frame[6..12], &B.0[..]);
        }
    }

    #[test]
    fn a_train_is_decided_as_its_frames_would_be_alone(
        damage in vec((0usize..70, any::<u8>()), 0..3),
        pick in 0usize..2,
    ) {
        let engine = engine(with_static());
        let first = [b_to_a(40), tcp_b_to_a(9, 40)][pick].clone();
        let mut second = first.clone();
        for (at, octet) in damage {
            second[at] = octet;
        }
        let source = engine.source(VTEP_B, &vxlan::header(vni(42))).expect("a member");
        let alone = source.handle_frame(&second, NOW, &mut |_| {});
        prop_assert_eq!(source.handle_next(Some(&first), &second, NOW, &mut |_| {}), alone);
    }
}

fn out<'e>(engine: &'e Engine, frame: &[u8]) -> Verdict<'e> {
    engine.handle_frame(vni(42), frame, frame.len().saturating_sub(14), NOW)
}

fn in_from<'e>(engine: &'e Engine, from: IpAddr, frame: &[u8]) -> Verdict<'e> {
    engine.handle_datagram(from, &datagram(42, frame), NOW, &mut |_| {})
}
