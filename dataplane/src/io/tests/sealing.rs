//! Sealed segments through both halves of a worker; the peer's ends of the sessions are held by the tests.

use super::*;
use crate::seal::{
    self, Header, InnerChecksum, Key, OVERHEAD, Opener, PeerSpec, ReceiveSession, Reserved, Sealer,
    SendSession, WORN_AT,
};
use crate::segment::{Broadcast, Vtep};

const OUT: u32 = 0xaaaa;
const IN: u32 = 0xbbbb;
const OUT_KEY: [u8; 32] = [1; 32];
const IN_KEY: [u8; 32] = [2; 32];

#[test]
fn a_frame_leaves_sealed_and_the_peer_opens_it() {
    let mut rig = sealed_rig();
    let frame = a_to_b(100);
    rig.feed(VnetHeader::PLAIN, &frame);
    rig.outbound_turn();
    let datagrams = rig.at_peer();
    assert_eq!(datagrams.len(), 1);
    assert_eq!(datagrams[0].len(), frame.len() + OVERHEAD);
    assert_eq!(open(&datagrams[0]), (InnerChecksum::Whole, frame));
    assert_eq!(rig.totals().of(Counter::SealedOut), 1);
}

#[test]
fn a_missing_checksum_stays_missing_where_the_frame_is_sealed_and_only_there() {
    let (vnet, frame) = super_frame_from_a(500);
    let vnet = VnetHeader { gso_type: vnet::GSO_NONE, gso_size: 0, ..vnet };
    let mut rig = sealed_rig();
    rig.feed(vnet, &frame);
    rig.outbound_turn();
    assert_eq!(open(&rig.at_peer()[0]), (InnerChecksum::Partial, frame.clone()));

    let mut clear = Rig::facing_peer();
    clear.feed(vnet, &frame);
    clear.outbound_turn();
    let mut finished = frame;
    crate::offload::finish_checksum(&vnet, &mut finished).expect("well formed");
    assert_eq!(clear.at_peer(), [datagram(42, &finished)]);
}

#[test]
fn a_super_frame_leaves_as_one_run_of_sealed_segments_and_is_whole_again_at_the_other_end() {
    let mut rig = sealed_rig();
    let (vnet, frame) = super_frame_from_a(3500);
    rig.feed(vnet, &frame);
    rig.outbound_turn();
    let datagrams = rig.at_peer();
    let full = 1000 + 54 + OVERHEAD;
    assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [full, full, full, full - 500]);
    assert_eq!((rig.totals().of(Counter::RunsOut), rig.totals().of(Counter::DatagramsOut)), (1, 4));

    let mut other = mirror_rig();
    for datagram in &datagrams {
        other.peer_sends(datagram);
    }
    other.inbound_turns();
    let writes = other.at_port();
    assert_eq!(writes.len(), 1);
    let (header, whole) = writes[0].split_at(vnet::HEADER_LEN);
    assert_eq!(VnetHeader::parse(header.first_chunk().expect("a header")), vnet);
    assert_eq!(whole[54..], frame[54..], "payload");
    assert_eq!(whole[50..52], frame[50..52], "the kernel's own seed");
}

#[test]
fn many_super_frames_fill_the_memory_and_all_arrive() {
    let mut rig = sealed_rig();
    let (vnet, frame) = super_frame_from_a(60_000);
    let mut arrived = 0;
    for _ in 0..40 {
        rig.feed(vnet, &frame);
        rig.outbound_turn();
        arrived += rig.at_peer().iter().filter(|datagram| open(datagram).1.len() == 1054).count();
    }
    assert_eq!(arrived, 40 * 60);
}

#[test]
fn a_frame_without_session_is_dropped_and_asks_for_one_once_a_second() {
    let mut rig = strangers_rig();
    for _ in 0..5 {
        rig.feed(VnetHeader::PLAIN, &a_to_b(1));
        rig.outbound_turn();
    }
    let vtep = local(&rig.peer);
    assert_eq!(rig.events.try_iter().collect::<Vec<_>>(), [Event::SessionWanted { vtep }]);
    assert_eq!(rig.totals().drops(DropReason::NoSession), 5);
    assert_eq!(rig.totals().of(Counter::DatagramsOut), 0);
}

#[test]
fn a_flood_is_sealed_for_each_vtep_and_nothing_goes_where_there_is_no_session() {
    let (first, second, stranger) = (peer(), peer(), peer());
    stranger.set_nonblocking(true).expect("a socket");
    second.set_nonblocking(true).expect("a socket");
    let mut spec = SegmentSpec { broadcast: Broadcast::Flood, ..sealed_spec(&first) };
    for socket in [&second, &stranger] {
        spec.members.push(Vtep { address: local(socket), vni: vni(77) });
    }
    let mut rig = Rig::with_peer(spec, first);
    rig.engine = rig.engine.after(Change::SetPeer(sessions(local(&rig.peer), OUT, IN)));
    rig.engine = rig.engine.after(Change::SetPeer(sessions(local(&second), OUT + 1, IN + 1)));
    let frame = udp((A, IP_A), (MacAddr::BROADCAST, [255; 4]), (1, 2), 9);
    rig.feed(VnetHeader::PLAIN, &frame);
    rig.outbound_turn();
    assert_eq!(open(&rig.at_peer()[0]).1, frame);
    let mut octets = vec![0; 2000];
    let len = second.recv(&mut octets).expect("a copy");
    let header = Header::parse(octets.first_chunk().expect("whole")).expect("sealed");
    assert_eq!((len, header.vni, header.session), (frame.len() + OVERHEAD, vni(77), OUT + 1));
    assert!(stranger.recv(&mut octets).is_err());
    assert_eq!(rig.totals().drops(DropReason::NoSession), 1);
}

#[test]
fn a_sealed_train_reaches_the_port_as_one_write_and_confirms_its_session_once() {
    let mut rig = sealed_rig();
    let sealer = their_sealer();
    let frames: Vec<Vec<u8>> = (0..3).map(|n| tcp_b_to_a(n * 500, 500)).collect();
    for _ in 0..2 {
        for frame in &frames {
            rig.peer_sends(&seal(&sealer, InnerChecksum::Partial, frame));
        }
        rig.inbound_turns();
        let writes = rig.at_port();
        assert_eq!(writes.iter().map(Vec::len).collect::<Vec<_>>(), [vnet::HEADER_LEN + 54 + 1500]);
    }
    let vtep = local(&rig.peer);
    assert_eq!(rig.events.try_iter().collect::<Vec<_>>(), [Event::SessionConfirmed { vtep, index: IN }]);
    let totals = rig.engine.peers().totals(NOW);
    assert_eq!((totals[0].received, rig.totals().of(Counter::OpenedIn)), (6, 6));
}

#[test]
fn the_session_tells_the_peer_whatever_address_its_datagrams_come_from() {
    let mut rig = sealed_rig();
    let roaming = peer();
    roaming.send_to(&seal(&their_sealer(), InnerChecksum::Whole, &b_to_a(9)), rig.address).expect("loopback");
    rig.inbound_turns();
    assert_eq!(rig.at_port().len(), 1);
}

#[test]
fn a_peer_speaks_for_its_own_endpoints_only() {
    let mut rig = sealed_rig();
    let elsewhere = peer();
    let mut spec = sealed_spec(&rig.peer);
    spec.remote[0].vtep.address = local(&elsewhere);
    rig.engine = rig.engine.after(Change::SetSegment(spec));
    rig.peer_sends(&seal(&their_sealer(), InnerChecksum::Whole, &b_to_a(9)));
    rig.inbound_turns();
    assert_eq!(rig.totals().drops(DropReason::SpoofedMac), 1);
    assert!(rig.at_port().is_empty());
}

#[test]
fn clear_and_sealed_datagrams_of_one_source_port_do_not_disturb_each_other() {
    let mut rig = sealed_rig();
    let clear = SegmentSpec { vni: vni(43), ..spec_over(HERE, &rig.peer) };
    rig.engine = rig.engine.after(Change::SetSegment(clear));
    let sealer = their_sealer();
    let frame = b_to_a(100);
    let sealed = || seal(&sealer, InnerChecksum::Whole, &frame);
    let padded = datagram(43, &b_to_a(100 + OVERHEAD - 8));
    let train = [sealed(), padded.clone(), padded, sealed(), sealed()].concat();
    let size = sealed().len() as i32;
    super::super::sys::set_option(rig.peer.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, size)
        .expect("an option");
    rig.peer_sends(&train);
    rig.inbound_turns();
    let totals = rig.totals();
    assert_eq!((totals.of(Counter::BatchesIn), totals.of(Counter::DatagramsIn)), (1, 5));
    assert_eq!((totals.of(Counter::OpenedIn), totals.drops(DropReason::NoPort)), (3, 2));
    assert_eq!(totals.of(Counter::FramesIn), 3);
}

#[test]
fn queues_sessions_and_segments_in_one_message_are_told_apart() {
    let mut rig = sealed_rig();
    let later = ReceiveSession { index: IN + 1, key: Key::new(OUT_KEY) };
    let mut spec = sessions(local(&rig.peer), OUT, IN);
    spec.receive.push(later);
    rig.engine = rig.engine.after(Change::SetPeer(spec));
    let session = |index, key| Sealer::new(SendSession { index, key: Key::new(key) }, 2).expect("memory");
    let (current, next) = (session(IN, IN_KEY), session(IN + 1, OUT_KEY));
    let frame = b_to_a(100);
    let by = |sealer: &Sealer, queue| {
        let mut datagram = [&[0; seal::HEADER_LEN], &*frame, &[0; seal::TAG_LEN]].concat();
        let mut reserved = sealer.reserve(queue, 1).expect("new");
        reserved.seal(vni(42), InnerChecksum::Whole, &NETWORK, &mut datagram, &[]).expect("reserved");
        datagram
    };
    let mut stray = by(&current, 0);
    stray[3] ^= 1;
    let mut last = by(&next, 0);
    last.truncate(OVERHEAD - 1);
    let train = [by(&current, 0), by(&current, 1), by(&next, 1), by(&current, 0), stray, last].concat();
    let size = frame.len() + OVERHEAD;
    super::super::sys::set_option(rig.peer.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, size as i32)
        .expect("an option");
    rig.peer_sends(&train);
    rig.inbound_turns();
    let totals = rig.totals();
    assert_eq!((totals.of(Counter::DatagramsIn), totals.of(Counter::OpenedIn)), (6, 4));
    assert_eq!(totals.drops(DropReason::UnknownVni), 1);
    assert_eq!(totals.drops(DropReason::SealedTooShort), 1);
    assert_eq!(totals.of(Counter::FramesIn), 4);
}

#[test]
fn a_worn_session_is_told_and_goes_on() {
    let mut rig = sealed_rig();
    let vtep = local(&rig.peer);
    rig.engine.peer(vtep).expect("set").wear(0, WORN_AT);
    for _ in 0..3 {
        rig.feed(VnetHeader::PLAIN, &a_to_b(1));
        rig.outbound_turn();
    }
    assert_eq!(rig.at_peer().len(), 3);
    assert_eq!(rig.events.try_iter().collect::<Vec<_>>(), [Event::SessionWorn { vtep }]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_sealed_datagram_is_delivered_or_counted_as_a_drop(
        damage in vec((0usize..300, any::<u8>()), 0..6),
        cuts in vec(0usize..200, 1..12),
        partial in any::<bool>(),
        size in 0usize..1300,
        repeat in any::<bool>(),
    ) {
        let mut rig = sealed_rig();
        let sealer = their_sealer();
        let checksum = if partial { InnerChecksum::Partial } else { InnerChecksum::Whole };
        for (number, cut) in cuts.iter().enumerate() {
            let mut octets = seal(&sealer, checksum, &tcp_b_to_a(number as u32, size));
            for &(at, octet) in damage.iter().filter(|_| number % 2 == 0) {
                let at = at % octets.len();
                octets[at] = octet;
            }
            octets.truncate(octets.len() - if number % 3 == 0 { cut % octets.len() } else { 0 });
            rig.peer_sends(&octets);
            if repeat {
                rig.peer_sends(&octets);
            }
            rig.inbound_turns();
        }
        let totals = rig.totals();
        let drops: u64 = totals.drops_by_reason().map(|(_, count)| count).sum();
        prop_assert_eq!(totals.of(Counter::DatagramsIn), totals.of(Counter::FramesIn) + drops);
    }

    #[test]
    fn nothing_of_a_sealed_segment_leaves_in_clear(
        frame in vec(any::<u8>(), 0..200),
        header in any::<[u8; vnet::HEADER_LEN]>(),
        known in any::<bool>(),
    ) {
        let mut rig = if known { sealed_rig() } else { strangers_rig() };
        let (vnet, super_frame) = super_frame_from_a(2000);
        for (vnet, frame) in
            [(VnetHeader::parse(&header), &frame), (vnet, &super_frame), (VnetHeader::PLAIN, &a_to_b(99))]
        {
            rig.feed(vnet, frame);
            rig.outbound_turn();
        }
        for datagram in rig.at_peer() {
            prop_assert!(known && Header::is_ahead(&datagram));
            open(&datagram);
        }
    }
}

#[test]
fn a_port_passes_nothing_while_its_vni_is_another_networks() {
    let mut rig = sealed_rig();
    let clear = spec_over(HERE, &rig.peer);
    let other = SegmentSpec { sealing: Some([0x55; 16]), ..sealed_spec(&rig.peer) };
    for spec in [clear, other] {
        rig.engine = rig.engine.after(Change::SetSegment(spec));
        rig.feed(VnetHeader::PLAIN, &a_to_b(100));
        rig.outbound_turn();
        rig.peer_sends(&datagram(42, &b_to_a(5)));
        rig.inbound_turns();
        assert_eq!((rig.at_peer(), rig.at_port()), (vec![], vec![]));
    }
    assert_eq!((rig.totals().drops(DropReason::NoSegment), rig.totals().drops(DropReason::NoPort)), (2, 1));
    rig.engine = rig.engine.after(Change::SetSegment(sealed_spec(&rig.peer)));
    rig.feed(VnetHeader::PLAIN, &a_to_b(100));
    rig.outbound_turn();
    assert_eq!(rig.at_peer().len(), 1);
}

/// A worker that has sessions with the peer, and a sealed segment with B behind it.
pub(super) fn sealed_rig() -> Rig {
    rig_with(|vtep| sessions(vtep, OUT, IN))
}

/// The same without sessions.
fn strangers_rig() -> Rig {
    let peer = peer();
    Rig::with_peer(sealed_spec(&peer), peer)
}

/// The same with the sessions turned round: it opens what [`sealed_rig`] seals, and A and B change places.
fn mirror_rig() -> Rig {
    let mut rig = rig_with(|vtep| PeerSpec {
        vtep,
        send: None,
        receive: vec![ReceiveSession { index: OUT, key: Key::new(OUT_KEY) }],
    });
    let mut spec = sealed_spec(&rig.peer);
    std::mem::swap(&mut spec.local[0].mac, &mut spec.remote[0].mac);
    std::mem::swap(&mut spec.local[0].ips, &mut spec.remote[0].ips);
    rig.engine = rig.engine.after(Change::SetSegment(spec));
    rig
}

fn rig_with(sessions: impl FnOnce(SocketAddr) -> PeerSpec) -> Rig {
    let peer = peer();
    let vtep = local(&peer);
    let mut rig = Rig::with_peer(sealed_spec(&peer), peer);
    rig.engine = rig.engine.after(Change::SetPeer(sessions(vtep)));
    rig
}

fn sealed_spec(peer: &UdpSocket) -> SegmentSpec {
    SegmentSpec { sealing: Some(NETWORK), ..spec_over(HERE, peer) }
}

fn sessions(vtep: SocketAddr, out: u32, inward: u32) -> PeerSpec {
    PeerSpec {
        vtep,
        send: Some(SendSession { index: out, key: Key::new(OUT_KEY) }),
        receive: vec![ReceiveSession { index: inward, key: Key::new(IN_KEY) }],
    }
}

pub(super) fn their_sealer() -> Sealer {
    Sealer::new(SendSession { index: IN, key: Key::new(IN_KEY) }, 1).expect("memory")
}

pub(super) fn seal(sealer: &Sealer, checksum: InnerChecksum, frame: &[u8]) -> Vec<u8> {
    let mut reserved: Reserved<'_> = sealer.reserve(0, 1).expect("new");
    let mut datagram = [&[0; seal::HEADER_LEN], frame, &[0; seal::TAG_LEN]].concat();
    reserved.seal(vni(42), checksum, &NETWORK, &mut datagram, &[]).expect("reserved");
    datagram
}

/// What the peer finds in a datagram.
fn open(datagram: &[u8]) -> (InnerChecksum, Vec<u8>) {
    let opener = Opener::new(ReceiveSession { index: OUT, key: Key::new(OUT_KEY) }).expect("memory");
    let mut octets = datagram.to_vec();
    let header = Header::parse(octets.first_chunk().expect("whole")).expect("sealed");
    let opened = opener.open_train(&NETWORK, &mut octets, datagram.len());
    assert_eq!(opened.accepted, 1, "authentic");
    (header.checksum, octets[seal::HEADER_LEN..octets.len() - seal::TAG_LEN].to_vec())
}

/// A good datagram after `change`.
pub(super) fn received(change: impl FnOnce(&mut Vec<u8>)) -> Totals {
    let mut rig = sealed_rig();
    let mut octets = seal(&their_sealer(), InnerChecksum::Whole, &b_to_a(9));
    change(&mut octets);
    rig.peer_sends(&octets);
    rig.inbound_turns();
    assert!(rig.at_port().is_empty());
    rig.totals()
}

pub(super) fn received_twice() -> Totals {
    let mut rig = sealed_rig();
    let octets = seal(&their_sealer(), InnerChecksum::Whole, &b_to_a(9));
    for _ in 0..2 {
        rig.peer_sends(&octets);
    }
    rig.inbound_turns();
    assert_eq!(rig.at_port().len(), 1);
    rig.totals()
}

pub(super) fn for_a_segment_in_clear() -> Totals {
    let mut rig = sealed_rig();
    rig.engine = rig.engine.after(Change::SetSegment(spec_over(HERE, &rig.peer)));
    rig.peer_sends(&seal(&their_sealer(), InnerChecksum::Whole, &b_to_a(9)));
    rig.inbound_turns();
    rig.totals()
}

pub(super) fn without_session() -> Totals {
    let mut rig = sealed_rig();
    rig.engine = rig.engine.after(Change::RemovePeer(local(&rig.peer)));
    rig.feed(VnetHeader::PLAIN, &a_to_b(1));
    rig.outbound_turn();
    rig.totals()
}

pub(super) fn with_spent_session() -> Totals {
    let mut rig = sealed_rig();
    let vtep = local(&rig.peer);
    rig.engine.peer(vtep).expect("set").wear(0, 1 << 30);
    rig.feed(VnetHeader::PLAIN, &a_to_b(1));
    rig.outbound_turn();
    assert!(rig.at_peer().is_empty());
    assert_eq!(rig.events.try_iter().collect::<Vec<_>>(), [Event::SessionWorn { vtep }]);
    rig.totals()
}
