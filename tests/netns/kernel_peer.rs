//! The kernel's VXLAN device as a peer that knows no gossip, and independent eyes on our frames.

use std::net::{IpAddr, Ipv4Addr};

use crate::rig::{Rig, Sandbox, UNDERLAY, needs_root};
use crate::traffic::{Capture, Sample, iperf_between, pings, received, udp_echo};
use crate::wait::until;

const VNI: u32 = 42;
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);

/// Host `a` with an agent, host `b` with a VXLAN device of the kernel, each the other's only VTEP.
fn rig() -> Rig {
    let rig = Rig::wire(&["a", "b"]);
    let (a, b) = (&rig.hosts[0], &rig.hosts[1]);
    a.start(&[]);
    b.namespace
        .run(&format!("ip link add vx type vxlan id {VNI} local {} remote {} dstport 4789", b.ip4, a.ip4));
    b.namespace.run(&format!("ip addr add {KERNEL}/24 dev vx"));
    b.namespace.run("ip addr add fd09::9/64 dev vx nodad");
    b.namespace.run("ip link set vx mtu 1450 up");
    let (vni, vteps) = (format!("weft.vni={VNI}"), format!("weft.static_vteps={}", b.ip4));
    let create = [
        "network",
        "create",
        "-d",
        "overlay",
        "--subnet",
        "10.9.0.0/24",
        "--subnet",
        "fd09::/64",
        "--ipv6",
        "-o",
        &vni,
        "-o",
        &vteps,
    ];
    a.ok(&[&create[..], &["wall"]].concat());
    rig
}

fn attach(rig: &Rig) -> Sandbox<'_> {
    rig.hosts[0].sandbox("web", "wall", &["--ip", "10.9.0.2", "--ip6", "fd09::2"])
}

fn offloads(rig: &Rig, state: &str) {
    for host in &rig.hosts {
        for switch in ["tx", "rx", "tso", "gso", "gro"] {
            host.namespace.run(&format!("ethtool -K {UNDERLAY} {switch} {state}"));
        }
    }
}

#[test]
fn a_kernel_vxlan_peer_exchanges_ping_tcp_and_udp_both_ways_with_offloads_on_and_off() {
    needs_root!();
    let rig = rig();
    let web = attach(&rig);
    let (ours, theirs) = (&web.namespace, &rig.hosts[1].namespace);
    let sample = Sample::new(rig.dir.path(), 64 << 20);
    for state in ["on", "off"] {
        offloads(&rig, state);
        for (from, to, v4, v6) in [(ours, theirs, KERNEL, "fd09::9"), (theirs, ours, web.ip4(), "fd09::2")] {
            let v6: IpAddr = v6.parse().expect("an address");
            for address in [IpAddr::V4(v4), v6] {
                assert!(pings(from, address), "{address} answers with offloads {state}");
                sample.travels(from, to, address);
            }
            for size in [64, 1_400, 8_000] {
                let whole = udp_echo(from, to, v4.into(), 50, size);
                assert!(
                    whole > 0.9,
                    "offloads {state}: {whole} of datagrams of {size} octets to {v4} came back"
                );
            }
        }
        for flags in ["", "--reverse"] {
            let octets = received(&iperf_between(ours, theirs, KERNEL.into(), flags));
            assert!(octets > 5_000_000, "offloads {state}: iperf3 {flags} moved only {octets} octets");
        }
        for flags in ["--udp --bitrate 20M --length 1400", "--udp --bitrate 20M --length 1400 --reverse"] {
            let octets = received(&iperf_between(ours, theirs, KERNEL.into(), flags));
            assert!(octets > 1_000_000, "offloads {state}: iperf3 {flags} moved only {octets} octets");
        }
    }
}

#[test]
fn an_independent_decoder_reads_our_frames_as_vxlan_with_clean_checksums() {
    needs_root!();
    let rig = rig();
    let web = attach(&rig);
    let (ours, theirs) = (&web.namespace, &rig.hosts[1].namespace);
    offloads(&rig, "off");
    until("the peers know each other", || pings(ours, KERNEL.into()));

    // captured where the frames arrive, so that nothing is left for a device to complete
    let file = rig.dir.path().join("wire.pcap");
    let capture = Capture::start(theirs, UNDERLAY, "udp port 4789", file);
    assert!(pings(ours, KERNEL.into()), "IPv4 answers");
    assert!(pings(ours, "fd09::9".parse().expect("an address")), "IPv6 answers");
    let sample = Sample::new(rig.dir.path(), 1 << 20);
    sample.travels(ours, theirs, KERNEL.into());
    sample.travels(theirs, ours, web.ip4().into());
    assert!(udp_echo(ours, theirs, KERNEL.into(), 20, 1_000) > 0.9, "UDP comes back");

    let filter = format!("ip.src == {}", rig.hosts[0].ip4);
    let fields = [
        "vxlan.vni",
        "vxlan.flags",
        "ip.flags.df",
        "udp.srcport",
        "_ws.col.Protocol",
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
    ];
    let frames = capture.read(&filter, &fields);
    assert!(frames.len() > 500, "only {} frames of ours were seen", frames.len());
    let mut protocols = std::collections::BTreeSet::new();
    for frame in &frames {
        let [vni, flags, df, port, protocol, sums @ ..] = frame.as_slice() else {
            panic!("fields of {frame:?}")
        };
        assert_eq!(vni, &VNI.to_string(), "{frame:?}");
        assert_eq!(flags, "0x0800", "{frame:?}");
        assert!(df.starts_with(['1', 'T']), "outer packets may not be cut: {frame:?}");
        let port: u16 = port.split(',').next().unwrap_or_default().parse().expect("a port");
        assert!((49_152..).contains(&port), "{frame:?}");
        // 0 is bad, 1 good, 2 not checked, 3 not present
        assert!(
            sums.iter().flat_map(|sum| sum.split(',')).all(|sum| sum != "0"),
            "a bad checksum: {frame:?}"
        );
        protocols.insert(protocol.clone());
    }
    for protocol in ["ICMP", "ICMPv6", "TCP", "UDP"] {
        assert!(protocols.contains(protocol), "{protocol} among {protocols:?}");
    }
}

#[test]
fn what_we_send_to_a_kernel_peer_needs_no_checksum_completed_even_with_offloads_on() {
    needs_root!();
    let rig = rig();
    let web = attach(&rig);
    let (ours, theirs) = (&web.namespace, &rig.hosts[1].namespace);
    until("the peers know each other", || pings(ours, KERNEL.into()));
    let capture = Capture::start(theirs, UNDERLAY, "udp port 4789", rig.dir.path().join("wire.pcap"));
    assert!(udp_echo(ours, theirs, KERNEL.into(), 20, 600) > 0.9, "UDP comes back");
    Sample::new(rig.dir.path(), 1_000).travels(ours, theirs, KERNEL.into());
    let filter = format!("ip.src == {} && vxlan && (tcp || udp)", rig.hosts[0].ip4);
    let frames = capture.read(&filter, &["udp.checksum.status", "tcp.checksum.status"]);
    assert!(frames.len() > 20, "only {} frames of ours were seen", frames.len());
    for frame in &frames {
        // the first UDP header is the underlay's, whose sum the device completes; the inner ones are ours
        let inner: Vec<&str> = frame[0].split(',').skip(1).chain(frame[1].split(',')).collect();
        assert!(inner.iter().all(|sum| *sum != "0"), "a bad inner checksum: {frame:?}");
    }
}
