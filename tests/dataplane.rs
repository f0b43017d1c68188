//! The dataplane against the kernel: real TAPs, real namespaces, and the kernel's own VXLAN device as a peer.
//!
//! Needs root (namespaces, TAPs), `ip`, `ping` and `ethtool`. Without root the tests fail, unless
//! `WEFT_ALLOW_SKIP=1` says that they may be skipped.
#![allow(clippy::disallowed_methods, reason = "tests at the edge: processes, sockets, threads and clocks")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use weft_dataplane::change::{Change, Event};
use weft_dataplane::io::{Dataplane, DataplaneConfig, DataplaneError, Tap, TapError};
use weft_dataplane::seal::{self, Key, PeerSpec, ReceiveSession, SendSession};
use weft_dataplane::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, SegmentSpec, Vtep};
use weft_dataplane::stats::{Counter, DropReason};
use weft_dataplane::wire::{MacAddr, Vni};

const PORT: u16 = 4789;
const OCTETS: usize = 24 << 20;
/// What nobody on the underlay may see, and how often it is sent.
const MARKER: &[u8] = b"a marker that nobody on the underlay may see";
const MARKED: usize = 20;

#[test]
fn two_nodes_carry_ping_and_tcp_both_ways() {
    let Some(world) = World::new() else { return };
    let (a, b) = (Node::start(&world, &A, &B, 1), Node::start(&world, &B, &A, 1));
    world.assert_pings(&A, B.inner);
    world.assert_pings(&A, B.inner6);
    for underlay in [Offloads::On, Offloads::Off] {
        world.set_offloads(underlay);
        for (from, to) in [(&A, &B), (&B, &A)] {
            world.assert_tcp(from, to, to.inner);
            world.assert_tcp(from, to, to.inner6);
            world.assert_udp(from, to);
        }
    }
    for node in [&a, &b] {
        node.assert_only_expected_drops();
        let stats = node.dataplane.stats();
        assert!(stats.of(Counter::SuperFramesOut) > 0, "the kernel leaves segmentation to us");
        assert!(stats.of(Counter::MergedWritesIn) > 0, "segments are joined again");
    }
}

#[test]
fn a_sealed_network_carries_everything_and_shows_nothing_of_it() {
    let Some(world) = World::new() else { return };
    let nodes = Node::start_sealed(&world, 1);
    world.assert_pings(&A, B.inner);
    world.assert_pings(&B, A.inner6);
    for underlay in [Offloads::On, Offloads::Off] {
        world.set_offloads(underlay);
        for (from, to) in [(&A, &B), (&B, &A)] {
            world.assert_tcp(from, to, to.inner);
            world.assert_tcp(from, to, to.inner6);
            world.assert_udp(from, to);
        }
    }
    assert_eq!(world.datagrams_with(&A, MARKER), Captured { sealed: MARKED, clear: 0, marked: 0 });
    for (node, peer) in nodes.iter().zip([&B, &A]) {
        node.assert_only_expected_drops();
        let stats = node.dataplane.stats();
        assert_eq!(stats.of(Counter::SealedOut), stats.of(Counter::DatagramsOut));
        assert_eq!(stats.of(Counter::OpenedIn), stats.of(Counter::DatagramsIn));
        assert!(stats.of(Counter::SuperFramesOut) > 0 && stats.of(Counter::MergedWritesIn) > 0);
        let vtep = SocketAddr::new(peer.outer, PORT);
        let confirmed = Event::SessionConfirmed { vtep, index: session_index(peer) };
        assert_eq!(std::iter::from_fn(|| node.dataplane.poll_event()).collect::<Vec<_>>(), [confirmed]);
        let totals = &node.dataplane.peers()[0];
        assert_eq!((totals.vtep, totals.sent, totals.forged), (vtep, stats.of(Counter::SealedOut), 0));
        assert!(totals.last_received.is_some());
    }
}

#[test]
fn two_workers_seal_for_one_another_and_sessions_change_under_way() {
    let Some(world) = World::new() else { return };
    let nodes = Node::start_sealed(&world, 2);
    let traffic_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for generation in (1..).take_while(|_| !traffic_ended.load(Ordering::Relaxed)) {
                // The receivers first, with the previous session still there; then the senders.
                for sending in [generation - 1, generation] {
                    for (node, (host, peer)) in nodes.iter().zip([(&A, &B), (&B, &A)]) {
                        node.dataplane.apply(Change::SetPeer(sessions(host, peer, sending, generation)));
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        thread::scope(|streams| {
            for _ in 0..3 {
                streams.spawn(|| world.assert_tcp(&A, &B, B.inner));
                streams.spawn(|| world.assert_tcp(&B, &A, A.inner6));
            }
        });
        traffic_ended.store(true, Ordering::Relaxed);
    });
    for node in &nodes {
        let stats = node.dataplane.stats();
        assert_eq!((stats.drops(DropReason::Forged), stats.drops(DropReason::Replayed)), (0, 0));
        assert_eq!(stats.drops(DropReason::NoSession), 0);
    }
}

#[test]
fn a_sealed_network_takes_nothing_in_clear_and_sends_nothing_without_a_session() {
    let Some(world) = World::new() else { return };
    let specs = [(&A, &B, sealed_spec(&A, &B)), (&B, &A, spec(&B, &A))];
    let nodes = specs.map(|(host, peer, spec)| {
        let node = Node::start_with(&world, host, spec, 1);
        node.dataplane.apply(Change::SetPeer(sessions(host, peer, 0, 0)));
        node
    });
    world.assert_no_answer(&A, B.inner);
    world.assert_no_answer(&B, A.inner);
    assert!(nodes[0].dataplane.stats().drops(DropReason::ClearForSealed) > 0);
    assert!(nodes[1].dataplane.stats().drops(DropReason::SealedForClear) > 0);

    let sent = nodes[0].dataplane.stats().of(Counter::DatagramsOut);
    nodes[0].dataplane.apply(Change::RemovePeer(SocketAddr::new(B.outer, PORT)));
    world.assert_no_answer(&A, B.inner);
    let stats = nodes[0].dataplane.stats();
    assert_eq!(stats.of(Counter::DatagramsOut), sent);
    assert!(stats.drops(DropReason::NoSession) > 0);
    let wanted = Event::SessionWanted { vtep: SocketAddr::new(B.outer, PORT) };
    assert!(std::iter::from_fn(|| nodes[0].dataplane.poll_event()).any(|event| event == wanted));
}

#[test]
fn two_nodes_with_two_workers_carry_many_streams() {
    let Some(world) = World::new() else { return };
    let _nodes = (Node::start(&world, &A, &B, 2), Node::start(&world, &B, &A, 2));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| world.assert_tcp(&A, &B, B.inner));
            scope.spawn(|| world.assert_tcp(&B, &A, A.inner6));
        }
    });
}

#[test]
fn changes_of_tables_and_ports_disturb_no_traffic() {
    let Some(world) = World::new() else { return };
    let (a, _b) = (Node::start(&world, &A, &B, 1), Node::start(&world, &B, &A, 1));
    let other = Vni::try_from(43).expect("24 bits");
    let traffic_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (1..).take_while(|_| !traffic_ended.load(Ordering::Relaxed)) {
                a.dataplane.apply(Change::SetSegment(spec(&A, &B)));
                a.dataplane.apply(Change::SetSegment(SegmentSpec { vni: other, ..spec(&A, &B) }));
                // A program that another test is just starting may hold the TAP before a little longer.
                let tap = world.within(&A, || tap(&a.dataplane, &format!("weft{number}")));
                a.dataplane.attach(other, None, tap).expect("attached");
                a.dataplane.detach(other);
                a.dataplane.apply(Change::RemoveSegment(other));
            }
        });
        world.assert_tcp(&A, &B, B.inner);
        world.assert_tcp(&B, &A, A.inner);
        traffic_ended.store(true, Ordering::Relaxed);
    });
    a.assert_only_expected_drops();
}

#[test]
fn an_ipv6_underlay_carries_both_families() {
    let Some(world) = World::new() else { return };
    let (a, b) = (A.over_ipv6(), B.over_ipv6());
    let _nodes = (Node::start(&world, &a, &b, 1), Node::start(&world, &b, &a, 1));
    world.assert_tcp(&a, &b, b.inner);
    world.assert_tcp(&b, &a, a.inner6);
}

#[test]
fn a_kernel_vxlan_device_is_a_peer_both_ways() {
    let Some(world) = World::new() else { return };
    let node = Node::start_with_static_peer(&world, &A, &B);
    world.add_kernel_vxlan(&B, &A);
    world.assert_pings(&A, B.inner);
    world.assert_pings(&B, A.inner);
    for underlay in [Offloads::On, Offloads::Off] {
        world.set_offloads(underlay);
        world.assert_tcp(&A, &B, B.inner);
        world.assert_tcp(&B, &A, A.inner);
        world.assert_tcp(&B, &A, A.inner6);
        world.assert_udp(&A, &B);
        world.assert_udp(&B, &A);
    }
    let stats = node.dataplane.stats();
    let uncut = stats.of(Counter::DatagramBytesIn) / stats.of(Counter::DatagramsIn) > 1500;
    assert!(uncut, "the kernel's super-frames came in one datagram each");
    assert_eq!(stats.drops(DropReason::OversizeCorrupt), 0);
    let learned = node.dataplane.learned(vni());
    assert_eq!(learned.len(), 1, "{learned:?}");
    assert_eq!((learned[0].0, learned[0].1.ip()), (B.mac, B.outer));
    let event = node.dataplane.poll_event();
    assert!(matches!(event, Some(Event::Learned { mac, .. }) if mac == B.mac), "{event:?}");
}

#[test]
fn a_port_held_by_the_kernels_vxlan_is_refused_with_a_hint() {
    let Some(world) = World::new() else { return };
    world.add_kernel_vxlan(&A, &B);
    let error = world.within(&A, || Dataplane::start(config(&A, 1))).expect_err("the port is held");
    assert!(matches!(&error, DataplaneError::PortInUse { .. }), "{error}");
    assert!(error.to_string().contains("VXLAN device"), "{error}");
}

#[test]
fn taps_go_away_with_their_port_and_with_the_dataplane() {
    let Some(world) = World::new() else { return };
    let node = Node::start(&world, &A, &B, 2);
    assert!(world.has_tap(&A));
    let twin = world.within(&A, || Tap::create("weft0", 2));
    assert!(matches!(twin, Err(TapError::Refused { .. })), "a name in use is not taken over");
    node.dataplane.detach(vni());
    assert!(!world.has_tap(&A), "after detach");

    let tap = world.within(&A, || tap(&node.dataplane, "weft0"));
    node.dataplane.attach(vni(), None, tap).expect("attached again");
    assert!(world.has_tap(&A));
    node.dataplane.shutdown();
    assert!(!world.has_tap(&A), "after shutdown");
}

#[test]
fn a_tap_deleted_by_somebody_else_is_told_and_others_go_on() {
    let Some(world) = World::new() else { return };
    let node = Node::start(&world, &A, &B, 1);
    let other = Vni::try_from(43).expect("24 bits");
    node.dataplane.apply(Change::SetSegment(SegmentSpec { vni: other, ..spec(&A, &B) }));
    let tap = world.within(&A, || tap(&node.dataplane, "weft1"));
    node.dataplane.attach(other, None, tap).expect("attached");
    world.ip(&A, "link set weft1 up");
    world.ip(&A, "link del weft1");
    let _peer = Node::start(&world, &B, &A, 1);
    world.assert_pings(&A, B.inner);
    let told = std::iter::from_fn(|| node.dataplane.poll_event())
        .any(|event| event == Event::PortLost { vni: other });
    assert!(told);
}

#[test]
fn what_a_full_tap_drops_is_counted_and_stays_counted_when_it_goes() {
    let Some(world) = World::new() else { return };
    let dataplane = world.within(&A, || Dataplane::start(config(&A, 1))).expect("the underlay is there");
    let mut full = world.within(&A, || tap(&dataplane, "weft0"));
    world.dress(&A, A.mtu());
    world.ip(&A, &format!("neigh replace {} lladdr {} dev weft0", B.inner, B.mac));
    // Nobody reads yet.
    let socket = world.within(&A, || UdpSocket::bind((A.inner, 0))).expect("an address of the TAP");
    for _ in 0..10_000 {
        socket.send_to(&[0; 8], (B.inner, 9)).expect("sent or dropped");
    }
    let dropped = full.drops();
    assert!(dropped > 0);
    let counted = || dataplane.stats().drops(DropReason::TapQueueFull);
    dataplane.attach(vni(), None, full).expect("as many queues as it wants");
    assert!(counted() >= dropped, "while it is there");
    world.ip(&A, "link del weft0");
    assert!(counted() >= dropped, "when somebody has taken it away");
    dataplane.detach(vni());
    assert!(counted() >= dropped, "when it is gone");
}

/// A TAP for `dataplane`, in the namespace of the calling thread.
fn tap(dataplane: &Dataplane, name: &str) -> Tap {
    Tap::create(name, dataplane.queues()).expect("root may make TAPs")
}

/// One of the two hosts.
#[derive(Debug, Clone)]
struct Host {
    name: &'static str,
    outer: IpAddr,
    inner: IpAddr,
    inner6: IpAddr,
    mac: MacAddr,
}

const A: Host = host("a", 1);
const B: Host = host("b", 2);

const fn host(name: &'static str, n: u8) -> Host {
    Host {
        name,
        outer: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, n)),
        inner: IpAddr::V4(std::net::Ipv4Addr::new(10, 8, 0, n)),
        inner6: IpAddr::V6(std::net::Ipv6Addr::new(0xfd08, 0, 0, 0, 0, 0, 0, n as u16)),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
    }
}

impl Host {
    fn over_ipv6(&self) -> Self {
        let IpAddr::V4(v4) = self.outer else { panic!("an IPv4 host") };
        let last = u16::from(v4.octets()[3]);
        let outer = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        Self { outer: outer.into(), ..self.clone() }
    }

    /// What the segment's MTU is over this underlay of 1,500 octets.
    fn mtu(&self) -> u16 {
        if self.outer.is_ipv4() { 1450 } else { 1430 }
    }
}

#[derive(Clone, Copy)]
enum Offloads {
    /// veth passes super-frames uncut.
    On,
    /// As a plain wire: everything is cut and summed.
    Off,
}

/// Two hosts, namespaces joined by a veth; gone when dropped.
struct World {
    prefix: String,
}

impl World {
    /// `None` where tests may be skipped and there is no privilege.
    fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var("WEFT_ALLOW_SKIP").is_ok_and(|v| v == "1"), "needs root; see the module");
            let _ = writeln!(std::io::stderr(), "skipped: needs root");
            return None;
        }
        let prefix = format!("weftdp{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let world = Self { prefix };
        for host in [&A, &B] {
            run(&format!("ip netns add {}", world.namespace(host)));
            world.ip(host, "link set lo up");
        }
        let (a, b) = (world.namespace(&A), world.namespace(&B));
        run(&format!("ip link add under0 netns {a} type veth peer name under0 netns {b}"));
        for host in [&A, &B] {
            world.ip(host, &format!("addr add {}/24 dev under0", host.outer));
            world.ip(host, &format!("addr add {}/64 dev under0 nodad", host.over_ipv6().outer));
            world.ip(host, "link set under0 up");
        }
        Some(world)
    }

    fn namespace(&self, host: &Host) -> String {
        format!("{}{}", self.prefix, host.name)
    }

    fn ip(&self, host: &Host, command: &str) {
        run(&format!("ip -n {} {command}", self.namespace(host)));
    }

    /// Runs `work` on a thread in the host's network namespace.
    fn within<T: Send>(&self, host: &Host, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(host))).expect("the namespace");
        let entered = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter");
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join().expect("the work does not panic"))
    }

    fn has_tap(&self, host: &Host) -> bool {
        let namespace = self.namespace(host);
        let output = Command::new("ip").args(["-n", &namespace, "link", "show", "weft0"]).output();
        output.expect("ip runs").status.success()
    }

    fn set_offloads(&self, offloads: Offloads) {
        let state = match offloads {
            Offloads::On => "on",
            Offloads::Off => "off",
        };
        for host in [&A, &B] {
            let namespace = self.namespace(host);
            run(&format!(
                "ip netns exec {namespace} ethtool -K under0 gro on tso {state} gso {state} tx {state} \
                 tx-udp-segmentation {state} tx-udp_tnl-segmentation {state} \
                 tx-udp_tnl-csum-segmentation {state}"
            ));
        }
    }

    fn add_kernel_vxlan(&self, host: &Host, peer: &Host) {
        let (outer, remote) = (host.outer, peer.outer);
        self.ip(
            host,
            &format!("link add weft0 type vxlan id 42 local {outer} remote {remote} dstport {PORT}"),
        );
        self.dress(host, host.mtu());
    }

    /// Gives the inner interface its addresses.
    fn dress(&self, host: &Host, mtu: u16) {
        self.ip(host, &format!("link set weft0 address {} mtu {mtu}", host.mac));
        self.ip(host, &format!("addr add {}/24 dev weft0", host.inner));
        self.ip(host, &format!("addr add {}/64 dev weft0 nodad", host.inner6));
        self.ip(host, "link set weft0 up");
    }

    fn assert_pings(&self, from: &Host, to: IpAddr) {
        run(&format!("ip netns exec {} ping -c 3 -i 0.2 -W 5 {to}", self.namespace(from)));
    }

    fn assert_no_answer(&self, from: &Host, to: IpAddr) {
        let ping = format!("ip netns exec {} ping -c 1 -W 1 {to}", self.namespace(from));
        let words: Vec<&str> = ping.split(' ').collect();
        assert!(!Command::new(words[0]).args(&words[1..]).output().expect("ping runs").status.success());
    }

    /// What is seen on the underlay of `host` while [`MARKED`] datagrams that hold `marker` go to the other host.
    fn datagrams_with(&self, host: &Host, marker: &[u8]) -> Captured {
        let capture = self.within(host, || {
            const ALL: i32 = 0x0003_u16.to_be() as i32;
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL))).expect("root may");
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
            socket
        });
        let sender = self.within(host, || UdpSocket::bind((host.inner, 0)).expect("bound"));
        for _ in 0..MARKED {
            sender.send_to(marker, (B.inner, 9)).expect("sent");
        }
        let mut captured = Captured::default();
        let mut octets = vec![0; 70_000];
        while let Ok(len) = (&capture).read(&mut octets) {
            let frame = &octets[..len];
            if [A.mac, B.mac].iter().any(|inner| frame[6..12] == inner.0) {
                continue; // seen on the way into the TAP
            }
            captured.marked += usize::from(frame.windows(marker.len()).any(|window| window == marker));
            // Ethernet 14, IPv4 20, UDP 8; behind it the kind. The answers are ICMP errors.
            let to_peer = frame.len() == 14 + 20 + 8 + 14 + 28 + marker.len() + seal::OVERHEAD;
            if to_peer && frame[36..38] == PORT.to_be_bytes() {
                captured.sealed += usize::from(seal::Header::is_ahead(&frame[42..]));
                captured.clear += usize::from(!seal::Header::is_ahead(&frame[42..]));
            }
        }
        captured
    }

    /// A stream of a known pattern arrives whole and in order.
    fn assert_tcp(&self, from: &Host, to: &Host, address: IpAddr) {
        let listener =
            self.within(to, || TcpListener::bind((address, 0)).expect("the inner address is there"));
        let target = listener.local_addr().expect("bound");
        let received = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            let mut octets = Vec::with_capacity(OCTETS);
            stream.read_to_end(&mut octets).map(|_| octets)
        });
        let sent = pattern(OCTETS);
        self.within(from, || {
            let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(20)).expect("connects");
            stream.write_all(&sent).expect("the peer reads");
        });
        let octets = received.join().expect("no panic").expect("the whole stream");
        assert!(octets == sent, "{} octets of {} to {address} differ", octets.len(), sent.len());
    }

    /// Datagrams up to the MTU are echoed unchanged.
    fn assert_udp(&self, from: &Host, to: &Host) {
        let bind = |host: &Host| self.within(host, || UdpSocket::bind((host.inner, 0)).expect("bound"));
        let (client, server) = (bind(from), bind(to));
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        }
        let target = server.local_addr().expect("bound");
        let mut buffer = vec![0; 2000];
        for len in [0, 1, 63, 512, 1400, usize::from(from.mtu()) - 28] {
            let datagram = pattern(len);
            client.send_to(&datagram, target).expect("sent");
            let (got, back) = server.recv_from(&mut buffer).expect("arrives");
            assert!(buffer[..got] == datagram, "{len} octets");
            server.send_to(&buffer[..got], back).expect("sent back");
            let got = client.recv(&mut buffer).expect("comes back");
            assert!(buffer[..got] == datagram, "{len} octets back");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in [&A, &B] {
            // A test that failed early may not have made both.
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(host)]).output();
        }
    }
}

/// Datagrams seen on the underlay.
#[derive(Debug, PartialEq, Eq, Default)]
struct Captured {
    sealed: usize,
    clear: usize,
    marked: usize,
}

struct Node {
    dataplane: Dataplane,
}

impl Node {
    fn start(world: &World, host: &Host, peer: &Host, workers: usize) -> Self {
        Self::start_with(world, host, spec(host, peer), workers)
    }

    fn start_with_static_peer(world: &World, host: &Host, peer: &Host) -> Self {
        let spec = SegmentSpec {
            remote: Vec::new(),
            members: Vec::new(),
            static_vteps: vec![SocketAddr::new(peer.outer, PORT)],
            ..spec(host, peer)
        };
        Self::start_with(world, host, spec, 1)
    }

    /// Both hosts, with one session each way.
    fn start_sealed(world: &World, workers: usize) -> [Self; 2] {
        [(&A, &B), (&B, &A)].map(|(host, peer)| {
            let node = Self::start_with(world, host, sealed_spec(host, peer), workers);
            node.dataplane.apply(Change::SetPeer(sessions(host, peer, 0, 0)));
            node
        })
    }

    fn start_with(world: &World, host: &Host, spec: SegmentSpec, workers: usize) -> Self {
        let (dataplane, tap) = world.within(host, || {
            let dataplane = Dataplane::start(config(host, workers)).expect("the underlay is there");
            let tap = tap(&dataplane, "weft0");
            (dataplane, tap)
        });
        let (mtu, sealing) = (spec.mtu, spec.sealing);
        dataplane.apply(Change::SetSegment(spec));
        dataplane.attach(vni(), sealing, tap).expect("as many queues as it wants");
        world.dress(host, mtu);
        Self { dataplane }
    }

    /// The kernel's own chatter (MLD, router solicitations) is dropped; nothing else is.
    fn assert_only_expected_drops(&self) {
        let expected = [DropReason::BroadcastOff, DropReason::LocalNeighbour, DropReason::SpoofedMac];
        let stats = self.dataplane.stats();
        for &reason in DropReason::ALL.iter().filter(|reason| !expected.contains(reason)) {
            assert_eq!(stats.drops(reason), 0, "{}", reason.name());
        }
    }
}

fn config(host: &Host, workers: usize) -> DataplaneConfig {
    let workers = NonZeroUsize::new(workers).expect("at least one");
    DataplaneConfig { bind: host.outer, port: PORT, workers, source_ports: 4 }
}

fn spec(host: &Host, peer: &Host) -> SegmentSpec {
    let vtep = Vtep { address: SocketAddr::new(peer.outer, PORT), vni: vni() };
    SegmentSpec {
        vni: vni(),
        mtu: host.mtu(),
        broadcast: Broadcast::Local,
        local: vec![LocalEndpoint { mac: host.mac, ips: vec![host.inner, host.inner6] }],
        remote: vec![RemoteEndpoint { mac: peer.mac, ips: vec![peer.inner, peer.inner6], vtep }],
        static_vteps: Vec::new(),
        members: vec![vtep],
        sealing: None,
    }
}

fn sealed_spec(host: &Host, peer: &Host) -> SegmentSpec {
    let mtu = 1500 - if host.outer.is_ipv4() { seal::OVERHEAD_V4 } else { seal::OVERHEAD_V6 };
    SegmentSpec { mtu, sealing: Some(*b"one network's id"), ..spec(host, peer) }
}

/// The sessions of `host` with `peer`: it seals with generation `sending` and opens `receiving` and the one before.
fn sessions(host: &Host, peer: &Host, sending: u32, receiving: u32) -> PeerSpec {
    let key = |from: &Host, generation: u32| {
        let mut octets = [from.mac.0[5]; Key::LEN];
        octets[..4].copy_from_slice(&generation.to_be_bytes());
        Key::new(octets)
    };
    let index = |from: &Host, generation: u32| session_index(from) + generation;
    let receive = (receiving.saturating_sub(1)..=receiving)
        .map(|generation| ReceiveSession { index: index(peer, generation), key: key(peer, generation) });
    PeerSpec {
        vtep: SocketAddr::new(peer.outer, PORT),
        send: Some(SendSession { index: index(host, sending), key: key(host, sending) }),
        receive: receive.collect(),
    }
}

/// Index of the first session in which `from` sends.
fn session_index(from: &Host) -> u32 {
    u32::from(from.mac.0[5]) << 24
}

fn vni() -> Vni {
    Vni::try_from(42).expect("24 bits")
}

/// Octets that repeat in no power of two, so that a misplaced piece shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 65_537) as u8).collect()
}

fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect("the program is installed");
    assert!(
        output.status.success(),
        "`{command}`: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
