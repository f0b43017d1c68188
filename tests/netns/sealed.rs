//! Encrypted networks: everything passes, nothing of it can be read or put in on the underlay.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::rig::{Host, Rig, Sandbox, UNDERLAY, needs_root};
use crate::traffic::{Capture, Sample, pings, udp_echo, unreachable};
use crate::wait::{eventually, until};

const CREATE: [&str; 12] = [
    "network",
    "create",
    "-d",
    "overlay",
    "--opt",
    "encrypted",
    "--ipv6",
    "--subnet",
    "10.7.0.0/24",
    "--subnet",
    "2001:db8:7::/64",
    "blue",
];
/// What must not be found on the underlay.
const MARKER: &[u8] = b"weft-plain-text-marker";

fn known(host: &Host) {
    until(&format!("{} knows the network", host.name), || {
        host.weft(&["network", "inspect", "blue"]).code == 0
    });
}

fn cluster(size: usize) -> Rig {
    cluster_with(size, &[])
}

/// Hosts that know an encrypted network, their agents started with `flags`.
pub(crate) fn cluster_with(size: usize, flags: &[&str]) -> Rig {
    let rig = Rig::cluster_with(size, flags);
    rig.hosts[0].ok(&CREATE);
    rig.hosts.iter().for_each(known);
    rig
}

pub(crate) fn inspect(host: &Host) -> Value {
    let text = host.ok(&["network", "inspect", "blue"]);
    let list: Value = serde_json::from_str(&text).expect("JSON");
    list[0].clone()
}

pub(crate) fn established(host: &Host, peers: usize) {
    eventually(&format!("{} has a session with {peers} others", host.name), || {
        let list = host.json(&["peers"]);
        let state = |peer: &Value| peer["Session"]["State"] == "established";
        let count = list.as_array().into_iter().flatten().filter(|peer| state(peer)).count();
        if count == peers { Ok(()) } else { Err(list.to_string()) }
    });
}

fn drops(host: &Host, reason: &str) -> u64 {
    host.json(&["stats"])["Drops"][reason].as_u64().unwrap_or(0)
}

/// Whether one of a few pings, a fifth of a second apart, is answered.
pub(crate) fn answers_soon(from: &Sandbox<'_>, to: IpAddr) -> bool {
    from.namespace.succeeds(&format!("ping -n -q -c 5 -i 0.2 -W 1 {to}"))
}

#[test]
fn an_encrypted_network_carries_everything_and_shows_nothing_on_the_underlay() {
    needs_root!();
    let rig = cluster(2);
    let (a, b) = (&rig.hosts[0], &rig.hosts[1]);
    let (web, db) = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    assert!(answers_soon(&web, db.ip4().into()), "a session is there ahead of traffic");
    rig.hosts.iter().for_each(|host| established(host, 1));

    let file = rig.dir.path().join("underlay.pcap");
    let capture = Capture::start(&b.namespace, UNDERLAY, "udp port 4789", file.clone());
    for address in db.addresses() {
        assert!(pings(&web.namespace, address), "{address} answers");
    }
    let server = db.namespace.enter(|| UdpSocket::bind((db.ip4(), 0))).expect("bound");
    server.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout set");
    let client = web.namespace.enter(|| UdpSocket::bind((web.ip4(), 0))).expect("bound");
    let mut buffer = [0; 200];
    client.send_to(&MARKER.repeat(4), server.local_addr().expect("bound")).expect("sent");
    let (length, _) = server.recv_from(&mut buffer).expect("the marker arrives");
    assert_eq!(buffer[..length], MARKER.repeat(4));
    let seen = capture.read("udp.port == 4789", &["udp.payload"]);
    assert!(seen.len() >= 5, "the packets are on the underlay: {seen:?}");
    for payload in seen.iter().flatten() {
        assert!(payload.starts_with("01") || payload.starts_with("03"), "not sealed: {payload}");
    }
    let raw = std::fs::read(&file).expect("the capture");
    assert!(!raw.windows(MARKER.len()).any(|window| window == MARKER), "the marker can be read");

    Sample::new(rig.dir.path(), 64 << 20).travels_both_ways(&web, &db);
    for size in [64, 1_398, 8_000] {
        let whole = udp_echo(&web.namespace, &db.namespace, db.ip4().into(), 50, size);
        assert!(whole > 0.9, "{whole} of datagrams of {size} octets came back");
    }
    for switch in ["tx", "gso", "gro"] {
        for host in &rig.hosts {
            host.namespace.run(&format!("ethtool -K {UNDERLAY} {switch} off"));
        }
    }
    Sample::new(rig.dir.path(), 24 << 20).travels_both_ways(&web, &db);
}

#[test]
fn what_is_shown_of_an_encrypted_network_says_how_it_is_sealed() {
    needs_root!();
    let rig = cluster(2);
    let (a, b) = (&rig.hosts[0], &rig.hosts[1]);
    let (web, db) = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    established(a, 1);
    assert!(answers_soon(&web, db.ip4().into()));
    let shown = inspect(a);
    assert_eq!(shown["Options"]["encrypted"], "true");
    assert_eq!(shown["MTU"].as_u64().or(shown["Mtu"].as_u64()), Some(1426), "{shown}");
    let peers = shown["Peers"].as_array().expect("a list");
    assert!(peers.iter().any(|peer| peer["Session"]["Cipher"] == "AES-256-GCM"), "{shown}");
    let list = a.json(&["peers"]);
    let session = list.as_array().into_iter().flatten().find_map(|peer| peer["Session"].as_object());
    let session = session.expect("one peer has a session");
    assert!(session["Sealed"].as_u64() > Some(0) && session["Opened"].as_u64() > Some(0), "{session:?}");
    assert_eq!((session["Replayed"].as_u64(), session["Forged"].as_u64()), (Some(0), Some(0)));
    let table = a.ok(&["peers"]);
    assert!(table.contains("SEALED WITH") && table.contains("AES-256-GCM, key "), "{table}");
    assert!(a.ok(&["status"]).contains("of these encrypted 1"));
    assert!(a.json(&["stats"])["Sessions"]["handshakes"].as_u64() > Some(0));
}

#[test]
fn a_clear_datagram_from_a_third_host_does_not_get_into_an_encrypted_network() {
    needs_root!();
    let rig = Rig::wire(&["a", "b", "c"]);
    let (a, b, c) = (&rig.hosts[0], &rig.hosts[1], &rig.hosts[2]);
    a.start(&[]);
    b.start(&[]);
    rig.meet(2);
    a.ok(&CREATE);
    known(b);
    let (web, db) = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    assert!(answers_soon(&web, db.ip4().into()));
    let vni = u32::try_from(inspect(a)["VNI"].as_u64().expect("a number")).expect("24 bits");
    let mut datagram = vec![0x08, 0, 0, 0];
    datagram.extend((vni << 8).to_be_bytes());
    let hex = |mac: &str| {
        mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hex")).collect::<Vec<_>>()
    };
    datagram.extend(hex(&web.mac));
    datagram.extend(hex(&db.mac));
    datagram.extend([0x08, 0x00]);
    datagram.extend([0; 46]);
    let before = drops(a, "clear_for_sealed");
    let socket = c.namespace.enter(|| UdpSocket::bind((c.ip4, 0))).expect("bound");
    for _ in 0..3 {
        socket.send_to(&datagram, (a.ip4, 4789)).expect("sent");
    }
    until("it is counted", || drops(a, "clear_for_sealed") == before + 3);
    assert!(pings(&web.namespace, db.ip4().into()));
}

#[test]
fn three_hosts_reach_each_other_at_once_and_again_after_an_agent_was_killed() {
    needs_root!();
    let rig = cluster(3);
    let sandboxes: Vec<Sandbox<'_>> =
        rig.hosts.iter().map(|host| host.sandbox(&format!("s{}", host.name), "blue", &[])).collect();
    let last = &sandboxes[2];
    for other in &sandboxes[..2] {
        assert!(answers_soon(last, other.ip4().into()), "right after the attachment");
    }
    rig.hosts.iter().for_each(|host| established(host, 2));
    let everyone: Vec<IpAddr> = sandboxes.iter().flat_map(Sandbox::addresses).collect();
    let all_reach = || {
        let missing: Vec<String> = sandboxes.iter().flat_map(|s| unreachable(s, &everyone)).collect();
        assert!(missing.is_empty(), "not reached: {missing:?}");
    };
    all_reach();
    std::thread::scope(|scope| {
        // traffic while it happens, from and to the host whose agent is gone
        let (from, to) = (&sandboxes[0], sandboxes[1].ip4());
        scope.spawn(move || {
            from.namespace.succeeds(&format!("ping -n -q -i 0.05 -w 12 {to}"));
        });
        rig.hosts[1].kill();
        rig.hosts[1].start(&[]);
        until("it answers again", || answers_soon(from, to.into()));
    });
    rig.hosts.iter().for_each(|host| established(host, 2));
    all_reach();
}

#[test]
fn a_host_with_a_new_underlay_address_is_sealed_for_again() {
    needs_root!();
    let rig = cluster(2);
    let (a, b) = (&rig.hosts[0], &rig.hosts[1]);
    let (web, db) = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    assert!(answers_soon(&web, db.ip4().into()));
    b.stop();
    let moved = Ipv4Addr::new(192, 0, 2, 99);
    b.namespace.run(&format!("ip addr del {}/24 dev {UNDERLAY}", b.ip4));
    b.namespace.run(&format!("ip addr add {moved}/24 dev {UNDERLAY}"));
    b.start_command(&mut b.agent_command(moved.into()));
    rig.meet(2);
    until("the moved host answers", || answers_soon(&web, db.ip4().into()));
    established(a, 1);
}

#[test]
fn an_agent_that_requires_encryption_refuses_clear_networks_in_clear_words() {
    needs_root!();
    let rig = Rig::cluster_with(2, &["--require-encryption"]);
    let refused = rig.hosts[0].refused(1, &["network", "create", "-d", "overlay", "open"]);
    assert!(refused.contains("not encrypted") && refused.contains("--opt encrypted"), "{refused}");
    assert!(rig.hosts[1].ok(&["status"]).contains("required"));
    rig.hosts[0].ok(&["network", "create", "-d", "overlay", "-o", "encrypted=true", "shut"]);
    let both = [
        "network",
        "create",
        "-d",
        "overlay",
        "-o",
        "encrypted",
        "-o",
        "weft.vni=9",
        "-o",
        "weft.static_vteps=192.0.2.9",
        "wall",
    ];
    let refused = rig.hosts[0].refused(1, &both);
    assert!(refused.contains("cannot open packets"), "{refused}");
}
