//! Both halves of a worker over loopback sockets, with socket pairs in place of TAPs: no privilege needed.
//! And the proof that every drop reason is reached: [`proof`] has no wildcard arm.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use proptest::collection::vec;
use proptest::prelude::*;
use socket2::Socket;

use super::bell;
use super::inbound::Inbound;
use super::link;
use super::outbound::Outbound;
use super::outbox::{Outbox, Part};
use super::queues::Queues;
use super::sys::Inbox;
use super::tap::TapQueue;
use super::turns::MOST;
use super::udp;
use super::worker::{Port, Shared};
use crate::change::{Change, Event};
use crate::engine::{Engine, Verdict};
use crate::fdb::Seconds;
use crate::segment::SegmentSpec;
use crate::stats::{Counter, DropReason, Totals};
use crate::testing::*;
use crate::wire::MacAddr;
use crate::wire::arp::Operation;
use crate::wire::ethernet::{ETHERTYPE_IPV6, Ethernet};
use crate::wire::ndp::{ADVERTISEMENT, REDIRECT, ROUTER_ADVERTISEMENT, SOLICITATION};
use crate::wire::vnet::{self, VnetHeader};

mod allocations;
mod sealing;

const NOW: Seconds = Seconds(1);
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[test]
fn every_drop_reason_is_reached_and_counted() {
    for &reason in DropReason::ALL {
        match proof(reason) {
            Proof::Frame(spec, frame) => {
                let engine = engine(spec);
                let largest = frame.len().saturating_sub(14);
                let verdict = engine.handle_frame(vni(42), &frame, largest, NOW);
                assert_eq!(verdict, Verdict::Drop(reason), "{}", reason.name());
            }
            Proof::Datagram(spec, from, datagram) => {
                let engine = engine(spec);
                let verdict = engine.handle_datagram(from, &datagram, NOW, &mut |_| {});
                assert_eq!(verdict, Verdict::Drop(reason), "{}", reason.name());
            }
            Proof::Read(vnet, frame) => {
                let mut rig = Rig::new(spec());
                rig.feed(vnet, &frame);
                rig.outbound_turn();
                assert!(rig.totals().drops(reason) > 0, "{}", reason.name());
            }
            Proof::Totals(totals) => assert!(totals.drops(reason) > 0, "{}", reason.name()),
        }
    }
}

/// How a drop reason comes about.
enum Proof {
    Frame(SegmentSpec, Vec<u8>),
    Datagram(SegmentSpec, IpAddr, Vec<u8>),
    /// Read from a TAP with this header.
    Read(VnetHeader, Vec<u8>),
    Totals(Box<Totals>),
}

fn proof(reason: DropReason) -> Proof {
    use Proof::{Datagram, Frame, Read};
    let from_b = |frame: Vec<u8>| Datagram(spec(), VTEP_B, datagram(42, &frame));
    let set = |mut octets: Vec<u8>, at: usize, value: u8| {
        octets[at] = value;
        octets
    };
    let tcp = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        gso_size: 100,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::PLAIN
    };
    let super_frame = || tcp_b_to_a(1, 1000);
    match reason {
        DropReason::DatagramTooShort => Datagram(spec(), VTEP_B, vec![8; 7]),
        DropReason::DatagramTruncated => Proof::Totals(Box::new(truncated_message())),
        DropReason::VniFlagClear => Datagram(spec(), VTEP_B, set(datagram(42, &b_to_a(1)), 0, 0xf7)),
        DropReason::UnknownVni => Datagram(spec(), VTEP_B, datagram(43, &b_to_a(1))),
        DropReason::UnknownVtep => Datagram(spec(), VTEP_S, datagram(42, &b_to_a(1))),
        DropReason::OwnAddress => Datagram(spec(), OWN, datagram(42, &b_to_a(1))),
        DropReason::ClearForSealed => Datagram(sealed(), VTEP_B, datagram(42, &b_to_a(1))),
        DropReason::SealedForClear => Proof::Totals(Box::new(sealing::for_a_segment_in_clear())),
        DropReason::SealedKind => Proof::Totals(Box::new(sealing::received(|octets| octets[0] = 0x41))),
        DropReason::SealedTooShort => {
            Proof::Totals(Box::new(sealing::received(|octets| octets.truncate(31))))
        }
        DropReason::UnknownSession => Proof::Totals(Box::new(sealing::received(|octets| octets[7] ^= 1))),
        DropReason::Forged => Proof::Totals(Box::new(sealing::received(|octets| octets[20] ^= 1))),
        DropReason::Replayed => Proof::Totals(Box::new(sealing::received_twice())),
        DropReason::NoSession => Proof::Totals(Box::new(sealing::without_session())),
        DropReason::SessionSpent => Proof::Totals(Box::new(sealing::with_spent_session())),
        DropReason::FrameTooShort => from_b(b_to_a(1)[..13].to_vec()),
        DropReason::VlanTagged => from_b([&b_to_a(1)[..12], &[0x81, 0, 0, 7], &b_to_a(1)[12..]].concat()),
        DropReason::NotEthernetII => Frame(spec(), set(set(a_to_b(1), 12, 0), 13, 38)),
        DropReason::LinkLocalGroup => {
            Frame(spec(), udp((A, IP_A), (MacAddr([1, 0x80, 0xc2, 0, 0, 14]), IP_B), (1, 2), 1))
        }
        DropReason::Oversize => Frame(spec(), a_to_b(usize::from(MTU) - 27)),
        DropReason::MalformedIp => from_b(set(b_to_a(1), 14, 0x65)),
        DropReason::MalformedArp => Frame(spec(), set(arp_from_a(IP_A, IP_B), 15, 9)),
        DropReason::MalformedNd => {
            Frame(spec(), set(nd_from_a(SOLICITATION, IP6_A, IP6_B, Some((1, A))), 79, 0))
        }
        DropReason::SpoofedMac => Datagram(spec(), VTEP_C, datagram(42, &b_to_a(1))),
        DropReason::SpoofedIp => from_b(udp((B, IP_A2), (A, IP_A), (1, 2), 1)),
        DropReason::SpoofedArp => {
            Frame(spec(), arp_frame(A, MacAddr::BROADCAST, Operation::Reply, (B, IP_A), IP_B))
        }
        DropReason::SpoofedNd => Frame(spec(), nd_from_a(ADVERTISEMENT, IP6_A, IP6_B, Some((2, A)))),
        DropReason::RouterAdvertisement => {
            Frame(spec(), icmpv6((A, ALL_NODES), IP6_A, IP6_B, ROUTER_ADVERTISEMENT, &[0; 12]))
        }
        DropReason::RouterRedirect => Frame(spec(), icmpv6((A, B), IP6_A, IP6_B, REDIRECT, &[0; 36])),
        DropReason::DhcpServer => Frame(spec(), udp((A, IP_A), (B, IP_B), (67, 68), 1)),
        DropReason::UnknownUnicast => Frame(spec(), udp((A, IP_A), (S, IP_S), (1, 2), 1)),
        DropReason::LocalDestination => Frame(spec(), udp((A, IP_A), (A2, IP_A2), (1, 2), 1)),
        DropReason::NotLocal => from_b(udp((B, IP_B), (C, IP_A), (1, 2), 1)),
        DropReason::BroadcastOff => from_b(udp((B, IP_B), (MacAddr::BROADCAST, [255; 4]), (1, 2), 1)),
        DropReason::UnknownNeighbour => Frame(spec(), arp_from_a(IP_A, IP_S)),
        DropReason::LocalNeighbour => Frame(spec(), arp_from_a(IP_A, IP_A2)),
        DropReason::NoSegment => Proof::Totals(Box::new(port_without_segment())),
        DropReason::NoPort => Proof::Totals(Box::new(segment_without_port())),
        DropReason::OffloadUnsupported => Read(VnetHeader { gso_type: vnet::GSO_UDP, ..tcp }, super_frame()),
        DropReason::OffloadSegmentSize => Read(VnetHeader { gso_size: 0, ..tcp }, super_frame()),
        DropReason::OffloadOutsideFrame => {
            Read(VnetHeader { gso_type: vnet::GSO_NONE, csum_start: 60_000, ..tcp }, super_frame())
        }
        DropReason::OffloadMismatch => Read(VnetHeader { gso_type: vnet::GSO_TCPV6, ..tcp }, super_frame()),
        DropReason::OffloadFragment => Read(tcp, set(super_frame(), 20, 0x20)),
        DropReason::OffloadHeaderTooLong => {
            let vnet = VnetHeader { gso_type: vnet::GSO_TCPV6, csum_start: 14 + 40 + 128, ..tcp };
            Read(vnet, long_headers())
        }
        DropReason::OversizeCorrupt => Proof::Totals(Box::new(corrupt_super_frame())),
        DropReason::ReceiveBufferFull => Proof::Totals(Box::new(full_receive_buffer())),
        DropReason::TapQueueFull => Proof::Totals(Box::new(full_tap_queue())),
        DropReason::SendBufferFull => Proof::Totals(Box::new(full_send_buffer())),
        DropReason::UnderlayMtu => Proof::Totals(Box::new(sent_to(HERE, 65_530))),
        DropReason::SendFailed => {
            Proof::Totals(Box::new(sent_to("203.0.113.1".parse().expect("address"), 100)))
        }
        DropReason::TapWriteFailed => Proof::Totals(Box::new(refused_write())),
    }
}

#[test]
fn a_plain_frame_leaves_as_one_datagram_behind_a_vxlan_header() {
    let mut rig = Rig::facing_peer();
    let frame = a_to_b(100);
    rig.feed(VnetHeader::PLAIN, &frame);
    rig.outbound_turn();
    assert_eq!(rig.at_peer(), [datagram(42, &frame)]);
    assert_eq!(rig.totals().of(Counter::FramesOut), 1);
}

#[test]
fn a_super_frame_leaves_as_one_run_of_segments() {
    let mut rig = Rig::facing_peer();
    let (vnet, frame) = super_frame_from_a(3000);
    rig.feed(vnet, &frame);
    rig.outbound_turn();
    let datagrams = rig.at_peer();
    assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [1062, 1062, 1062]);
    let payload: usize = datagrams.iter().map(|datagram| datagram.len() - 62).sum();
    assert_eq!(payload, 3000);
    assert_eq!((rig.totals().of(Counter::RunsOut), rig.totals().of(Counter::DatagramsOut)), (1, 3));
}

#[test]
fn a_train_from_the_underlay_reaches_the_port_as_one_write() {
    let mut rig = Rig::facing_peer();
    let datagrams: Vec<Vec<u8>> = (0..3).map(|n| datagram(42, &tcp_b_to_a(n * 500, 500))).collect();
    for datagram in &datagrams {
        rig.peer_sends(datagram);
    }
    rig.inbound_turns();
    let writes = rig.at_port();
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].len(), vnet::HEADER_LEN + 54 + 1500);
    let totals = rig.totals();
    assert_eq!((totals.of(Counter::FramesIn), totals.of(Counter::MergedWritesIn)), (3, 1));
}

#[test]
fn a_question_is_answered_to_the_port_it_came_from() {
    let mut rig = Rig::new(spec());
    rig.feed(VnetHeader::PLAIN, &arp_from_a(IP_A, IP_B));
    rig.outbound_turn();
    let answers = rig.at_port();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][vnet::HEADER_LEN..][..6], A.0);
    assert_eq!(rig.totals().of(Counter::NeighbourReplies), 1);
}

#[test]
fn a_run_the_kernel_will_not_cut_goes_out_one_by_one() {
    let rig = Rig::new(spec());
    let socket = Socket::from(UdpSocket::bind((HERE, 0)).expect("loopback"));
    // UDP_SEGMENT is refused on a socket that sends no checksums (udp_send_skb, net/ipv4/udp.c).
    super::sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("a socket option");
    let mut outbox = Outbox::new(1);
    for (start, len) in [(0, 100), (100, 100), (200, 40)] {
        outbox.push(local(&rig.peer), 0, Part { start, len }).expect("room");
    }
    let frames: Vec<u8> = (0..240).collect();
    outbox.flush(&frames, &[socket], &rig.shared.counters);
    assert_eq!(rig.at_peer(), [&frames[..100], &frames[100..200], &frames[200..]]);
    let totals = rig.totals();
    assert_eq!(totals.of(Counter::SegmentationFallbacks), 1);
    assert_eq!((totals.of(Counter::DatagramsOut), totals.of(Counter::DatagramBytesOut)), (3, 240));
}

#[test]
fn a_flood_reaches_every_vtep_with_its_own_vni() {
    let peer = peer();
    let mut spec = spec_over(HERE, &peer);
    spec.broadcast = crate::segment::Broadcast::Flood;
    let twin = crate::segment::Vtep { vni: vni(77), ..spec.members[0] };
    spec.members.push(twin);
    let mut rig = Rig::with_peer(spec, peer);
    let frame = udp((A, IP_A), (MacAddr::BROADCAST, [255; 4]), (1, 2), 9);
    rig.feed(VnetHeader::PLAIN, &frame);
    rig.outbound_turn();
    assert_eq!(rig.at_peer(), [datagram(42, &frame), datagram(77, &frame)]);
}

#[test]
fn learning_is_told_once_and_counted() {
    let mut rig = Rig::new(SegmentSpec {
        static_vteps: vec![SocketAddr::new(HERE, 4789)],
        members: Vec::new(),
        remote: Vec::new(),
        ..spec()
    });
    for _ in 0..3 {
        rig.peer_sends(&datagram(42, &udp((S, IP_S), (A, IP_A), (1, 2), 5)));
    }
    rig.inbound_turns();
    let events: Vec<Event> = rig.events.try_iter().collect();
    let vtep = SocketAddr::new(HERE, 4789);
    assert_eq!(events, [Event::Learned { vni: vni(42), mac: S, vtep }]);
    assert_eq!(rig.totals().of(Counter::Learned), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_datagram_received_is_delivered_or_counted_as_a_drop(
        damage in vec((0usize..120, any::<u8>()), 0..6),
        noise in vec(any::<u8>(), 0..90),
        sizes in vec(0usize..1400, 1..8),
    ) {
        let mut rig = Rig::facing_peer();
        rig.peer_sends(&noise);
        rig.peer_sends(&datagram(42, &noise));
        for (number, &size) in sizes.iter().enumerate() {
            let mut octets = datagram(42, &tcp_b_to_a(number as u32, size));
            for &(at, octet) in damage.iter().filter(|_| number % 2 == 0) {
                let at = at % octets.len();
                octets[at] = octet;
            }
            rig.peer_sends(&octets);
        }
        rig.inbound_turns();
        let totals = rig.totals();
        prop_assert_eq!(totals.of(Counter::DatagramsIn), sizes.len() as u64 + 2);
        let drops: u64 = totals.drops_by_reason().map(|(_, count)| count).sum();
        prop_assert_eq!(totals.of(Counter::DatagramsIn), totals.of(Counter::FramesIn) + drops);
    }

    #[test]
    fn every_frame_read_is_sent_answered_or_counted_as_a_drop(
        header in any::<[u8; vnet::HEADER_LEN]>(),
        damage in vec((0usize..vnet::HEADER_LEN, any::<u8>()), 0..3),
        len in 0usize..9000,
        noise in vec(any::<u8>(), 0..90),
    ) {
        let mut rig = Rig::facing_peer();
        let (vnet, frame) = super_frame_from_a(len);
        let mut damaged = vnet.emit();
        for (at, octet) in damage {
            damaged[at] = octet;
        }
        for (vnet, frame) in [(header, &frame), (damaged, &frame), (header, &a_to_b(9)), (header, &noise)] {
            rig.feed(VnetHeader::parse(&vnet), frame);
            rig.outbound_turn();
        }
        let totals = rig.totals();
        prop_assert_eq!(totals.of(Counter::FramesOut), 4);
        let drops: u64 = totals.drops_by_reason().map(|(_, count)| count).sum();
        let answered = totals.of(Counter::NeighbourReplies);
        prop_assert!(totals.of(Counter::DatagramsOut) + drops + answered >= 4);
    }
}

/// A worker's two halves, a port that is a socket pair, and a peer on loopback.
struct Rig {
    engine: Engine,
    inbound: Inbound,
    outbound: Outbound,
    ports: Vec<Option<Port>>,
    /// Our end of the port.
    tap: UnixDatagram,
    peer: UdpSocket,
    address: SocketAddr,
    shared: Shared,
    events: Receiver<Event>,
}

impl Rig {
    fn new(spec: SegmentSpec) -> Self {
        Self::with_peer(spec, peer())
    }

    /// With B behind the peer, and nobody else.
    fn facing_peer() -> Self {
        let peer = peer();
        Self::with_peer(spec_over(HERE, &peer), peer)
    }

    fn with_peer(spec: SegmentSpec, peer: UdpSocket) -> Self {
        peer.set_nonblocking(true).expect("a socket");
        let (address, mut underlays) = udp::open(HERE, 0, 1, 1).expect("loopback");
        let underlay = underlays.pop().expect("one worker");
        let (tap, queue) = UnixDatagram::pair().expect("a pair");
        for end in [&tap, &queue] {
            end.set_nonblocking(true).expect("a socket");
        }
        let queue = TapQueue::from(File::from(OwnedFd::from(queue)));
        let (sender, events) = mpsc::sync_channel(8);
        let sealing = spec.sealing;
        Self {
            engine: Engine::new(OWN, 1, 1).after(Change::SetSegment(spec)),
            inbound: Inbound::new(underlay.inbound),
            outbound: Outbound::new(underlay.outbound),
            ports: vec![Some(Port { vni: vni(42), sealing, queues: Queues::new(vec![queue]) })],
            tap,
            peer,
            address,
            shared: Shared::new(0, sender, Arc::new(bell().expect("a descriptor")), Arc::default()),
            events,
        }
    }

    fn feed(&self, vnet: VnetHeader, frame: &[u8]) {
        self.tap.send(&[&vnet.emit()[..], frame].concat()).expect("room");
    }

    fn peer_sends(&self, datagram: &[u8]) {
        self.peer.send_to(datagram, self.address).expect("loopback");
    }

    fn outbound_turn(&mut self) {
        let port = self.ports[0].as_mut().expect("a port");
        port.queues.wake(0);
        self.outbound.turn(&self.engine, NOW, port, &self.shared);
        self.outbound.flush(&self.shared.counters);
    }

    /// Takes in everything there is.
    fn inbound_turns(&mut self) {
        (0..MOST).for_each(|socket| self.inbound.wake(socket));
        while self.inbound.is_due() {
            self.inbound.turn(&self.engine, NOW, &self.ports, &self.shared);
        }
    }

    fn at_peer(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        std::iter::from_fn(|| self.peer.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())).collect()
    }

    fn at_port(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        std::iter::from_fn(|| self.tap.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())).collect()
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        totals.add(&self.shared.counters);
        totals
    }
}

/// A peer's socket on loopback.
fn peer() -> UdpSocket {
    UdpSocket::bind((HERE, 0)).expect("loopback")
}

fn local(peer: &UdpSocket) -> SocketAddr {
    peer.local_addr().expect("bound")
}

/// The usual segment with B behind `peer`.
fn spec_over(ip: IpAddr, peer: &UdpSocket) -> SegmentSpec {
    let mut spec = spec();
    spec.members.truncate(1);
    spec.remote.truncate(1);
    let address = SocketAddr::new(ip, local(peer).port());
    spec.members[0].address = address;
    spec.remote[0].vtep.address = address;
    spec
}

/// A TCP super-frame from A to B of segments of 1,000 octets, as a TAP would give it.
fn super_frame_from_a(len: usize) -> (VnetHeader, Vec<u8>) {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(A.0, B.0)
        .ipv4(IP_A, IP_B, 64)
        .tcp(1000, 2000, 1, 4096)
        .ack(1)
        .write(&mut frame, &vec![7; len])
        .expect("fits");
    let seed = crate::checksum::pseudo_header(&frame[26..34], 6, frame.len() - 34).fold();
    frame[50..52].copy_from_slice(&seed.to_be_bytes());
    let vnet = VnetHeader {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 16,
    };
    (vnet, frame)
}

/// An IPv6 super-frame with 128 octets of destination options.
fn long_headers() -> Vec<u8> {
    let mut extension = vec![0; 128];
    extension[..2].copy_from_slice(&[6, 15]);
    let mut tcp = tcp_b_to_a(1, 1000).split_off(34);
    let mut payload = extension;
    payload.append(&mut tcp);
    [&Ethernet::header(B, A, ETHERTYPE_IPV6)[..], &ip6(IP6_A, IP6_B, 60, &payload)].concat()
}

fn truncated_message() -> Totals {
    let mut rig = Rig::new(spec());
    let socket = Socket::from(UdpSocket::bind((HERE, 0)).expect("loopback"));
    socket.set_nonblocking(true).expect("a socket");
    rig.address = socket.local_addr().expect("bound").as_socket().expect("IP");
    rig.inbound = Inbound::with_inbox([socket].into(), Inbox::new(4, 64));
    rig.peer_sends(&datagram(42, &b_to_a(500)));
    rig.inbound_turns();
    rig.totals()
}

fn segment_without_port() -> Totals {
    let mut rig = Rig::facing_peer();
    rig.ports.clear();
    rig.peer_sends(&datagram(42, &b_to_a(5)));
    rig.inbound_turns();
    rig.totals()
}

fn port_without_segment() -> Totals {
    let mut rig = Rig::new(spec());
    rig.engine = Engine::new(OWN, 1, 1);
    rig.feed(VnetHeader::PLAIN, &a_to_b(5));
    rig.outbound_turn();
    rig.totals()
}

fn corrupt_super_frame() -> Totals {
    let mut rig = Rig::facing_peer();
    let mut frame = tcp_b_to_a(1, 20_000);
    frame[10_000] ^= 1;
    rig.peer_sends(&datagram(42, &frame));
    rig.inbound_turns();
    rig.totals()
}

fn full_receive_buffer() -> Totals {
    let socket = Socket::from(peer());
    socket.set_recv_buffer_size(1).expect("the least there is");
    let (from, to) = (peer(), socket.local_addr().expect("bound").as_socket().expect("IP"));
    for _ in 0..100 {
        from.send_to(&[0; 1000], to).expect("loopback");
    }
    let mut totals = Totals::default();
    totals.add_dropped(DropReason::ReceiveBufferFull, udp::drops(&[socket]));
    totals
}

/// Links of its own take more than a test may do; what the kernel says of one stands in for it.
fn full_tap_queue() -> Totals {
    let mut totals = Totals::default();
    let said = "tap0: 0 0 0 0 0 0 0 0 64000 1000 0 3 0 0 0 0";
    totals.add_dropped(DropReason::TapQueueFull, link::unsent(said, "tap0").expect("a line of it"));
    totals
}

/// Loopback drops what UDP has no room for without a word, so a stream nobody reads stands in for the underlay.
fn full_send_buffer() -> Totals {
    let rig = Rig::new(spec());
    let listener = TcpListener::bind((HERE, 0)).expect("loopback");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    stream.set_nonblocking(true).expect("a socket");
    let mut outbox = Outbox::new(1);
    for _ in 0..100 {
        outbox.push(local(&rig.peer), 0, Part { start: 0, len: 60_000 }).expect("room");
    }
    let socket = Socket::from(stream);
    socket.set_send_buffer_size(1).expect("the least there is");
    outbox.flush(&[0; 60_000], &[socket], &rig.shared.counters);
    rig.totals()
}

fn sent_to(to: IpAddr, len: u32) -> Totals {
    let rig = Rig::new(spec());
    let mut outbox = Outbox::new(1);
    let socket = Socket::from(UdpSocket::bind((HERE, 0)).expect("loopback"));
    outbox.push(SocketAddr::new(to, 9), 0, Part { start: 0, len }).expect("room");
    outbox.flush(&vec![0; 70_000], &[socket], &rig.shared.counters);
    rig.totals()
}

fn refused_write() -> Totals {
    let mut rig = Rig::facing_peer();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let queue = TapQueue::from(full);
    rig.ports[0] = Some(Port { vni: vni(42), sealing: None, queues: Queues::new(vec![queue]) });
    rig.peer_sends(&datagram(42, &b_to_a(5)));
    rig.inbound_turns();
    rig.totals()
}
