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
use weft_dataplane::change::{Change, Event};
use weft_dataplane::io::{Dataplane, DataplaneConfig, DataplaneError, Tap, TapError};
use weft_dataplane::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, SegmentSpec, Vtep};
use weft_dataplane::stats::{Counter, DropReason};
use weft_dataplane::wire::{MacAddr, Vni};

const PORT: u16 = 4789;
const OCTETS: usize = 24 << 20;

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
            while !traffic_ended.load(Ordering::Relaxed) {
                a.dataplane.apply(Change::SetSegment(spec(&A, &B)));
                a.dataplane.apply(Change::SetSegment(SegmentSpec { vni: other, ..spec(&A, &B) }));
                let queues = world.within(&A, || Tap::create("weft1", 1)).expect("a TAP");
                a.dataplane.attach(other, queues).expect("attached");
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

    let queues = world.within(&A, || Tap::create("weft0", 2)).expect("a TAP");
    node.dataplane.attach(vni(), queues).expect("attached again");
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
    let queues = world.within(&A, || Tap::create("weft1", 1)).expect("a TAP");
    node.dataplane.attach(other, queues).expect("attached");
    world.ip(&A, "link set weft1 up");
    world.ip(&A, "link del weft1");
    let _peer = Node::start(&world, &B, &A, 1);
    world.assert_pings(&A, B.inner);
    let told = std::iter::from_fn(|| node.dataplane.poll_event())
        .any(|event| event == Event::PortLost { vni: other });
    assert!(told);
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
        self.dress(host);
    }

    /// Gives the inner interface its addresses.
    fn dress(&self, host: &Host) {
        self.ip(host, &format!("link set weft0 address {} mtu {}", host.mac, host.mtu()));
        self.ip(host, &format!("addr add {}/24 dev weft0", host.inner));
        self.ip(host, &format!("addr add {}/64 dev weft0 nodad", host.inner6));
        self.ip(host, "link set weft0 up");
    }

    fn assert_pings(&self, from: &Host, to: IpAddr) {
        run(&format!("ip netns exec {} ping -c 3 -i 0.2 -W 5 {to}", self.namespace(from)));
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

    fn start_with(world: &World, host: &Host, spec: SegmentSpec, workers: usize) -> Self {
        let (dataplane, queues) = world.within(host, || {
            let dataplane = Dataplane::start(config(host, workers)).expect("the underlay is there");
            (dataplane, Tap::create("weft0", workers).expect("root may make TAPs"))
        });
        dataplane.apply(Change::SetSegment(spec));
        dataplane.attach(vni(), queues).expect("one queue per worker");
        world.dress(host);
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
