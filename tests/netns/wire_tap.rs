//! Whoever listens on the underlay, through all that happens in the life of a cluster, reads nothing and finds no
//! key used twice with one nonce.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::bad_input::counter;
use crate::frames::mac;
use crate::joining::secrets;
use crate::keys::rotate;
use crate::paced::while_sending;
use crate::pcap::{Datagram, Seen};
use crate::rig::{Host, Rig, Sandbox, UNDERLAY, needs_root};
use crate::sealed::established;
use crate::traffic::Capture;
use crate::wait::until;

/// Part of every name: of nodes, networks, sandboxes, labels.
const NAME: &[u8] = b"plainmark";
const SEALED_PAYLOAD: &[u8] = b"what is said in the sealed network";
const CLEAR_PAYLOAD: &[u8] = b"what is said in the clear network";
/// Whatever an agent logs it logs here.
const TALKATIVE: [&str; 2] = ["--log", "trace"];
const DATA_PORT: u16 = 4789;
const GOSSIP_PORT: u16 = 7946;
/// RFC 7348's I flag.
const VXLAN: u8 = 0x08;

fn vni(host: &Host, network: &str) -> u32 {
    let text = host.ok(&["network", "inspect", network]);
    let list: Value = serde_json::from_str(&text).expect("JSON");
    u32::try_from(list[0]["VNI"].as_u64().expect("a number")).expect("24 bits")
}

fn create(host: &Host, flags: &[&str], subnet: &str, name: &str) {
    let label = ["--label", "plainmark-key=plainmark-value"];
    host.ok(
        &[&["network", "create", "-d", "overlay", "--subnet", subnet][..], &label, flags, &[name]].concat()
    );
}

/// Joins, gossip, both kinds of networks, traffic, rotation, restarts and a revocation, with the underlay captured.
fn live(rig: &Rig) -> [u32; 2] {
    let [a, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    rig.hosts.iter().for_each(|host| host.start(&TALKATIVE));
    rig.meet(3);
    create(a, &["--opt", "encrypted"], "10.7.0.0/24", "plainmark-sealed");
    create(a, &[], "10.8.0.0/24", "plainmark-clear");
    let networks = ["plainmark-sealed", "plainmark-clear"];
    for network in networks {
        until("all know it", || rig.hosts.iter().all(|h| h.weft(&["network", "inspect", network]).code == 0));
    }
    let sandboxes: Vec<Sandbox<'_>> = [(a, "a"), (b, "b"), (c, "c")]
        .map(|(host, name)| host.sandbox(&format!("plainmark-{name}"), networks[0], &[]))
        .into();
    let open = [a.sandbox("plainmark-d", networks[1], &[]), b.sandbox("plainmark-e", networks[1], &[])];
    rig.converge(networks[0]);
    rig.converge(networks[1]);
    while_sending((&open[0], &open[1]), 50, CLEAR_PAYLOAD, || {
        while_sending((&sandboxes[1], &sandboxes[2]), 200, SEALED_PAYLOAD, || {
            while_sending((&sandboxes[0], &sandboxes[1]), 200, SEALED_PAYLOAD, || events(rig));
        });
    });
    networks.map(|network| vni(a, network))
}

fn events(rig: &Rig) {
    let [a, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    rotate(rig);
    b.stop();
    b.start(&TALKATIVE);
    flows_on(rig);
    a.kill();
    a.start(&TALKATIVE);
    flows_on(rig);
    rotate(rig);
    a.ok(&["node", "revoke", &c.name, "--reason", "plainmark"]);
    for host in [a, b] {
        until("it is no member", || host.json(&["status"])["MembersAlive"] == 2);
    }
    until("it is told why", || c.ok(&["status"]).contains("plainmark"));
}

/// Waits until the sandboxes' traffic reaches each host anew.
fn flows_on(rig: &Rig) {
    rig.meet(3);
    rig.hosts.iter().for_each(|host| established(host, 2));
    let [_, b, c] = rig.hosts.as_slice() else { panic!("three hosts") };
    for host in [b, c] {
        let opened = || counter(host, "Dataplane", "opened_in");
        let before = opened();
        until("traffic goes on", || opened() > before + 200);
    }
}

#[test]
fn a_tap_on_the_underlay_reads_nothing_and_finds_no_nonce_used_twice() {
    needs_root!();
    let rig = Rig::wire(&["plainmark-a", "plainmark-b", "plainmark-c"]);
    for host in &rig.hosts {
        // each datagram is a frame of its own
        for switch in ["tx-udp-segmentation", "gso", "tso", "gro"] {
            host.namespace.run(&format!("ethtool -K {UNDERLAY} {switch} off"));
        }
    }
    let capture = Capture::start(&rig.switch, "br0", "", rig.dir.path().join("underlay.pcap"));
    let [sealed, clear] = live(&rig);
    let macs = macs(&rig.hosts[1]);
    let seen = capture.seen();
    let token = std::fs::read_to_string(rig.dir.path().join("token")).expect("a token");

    assert!(seen.has(CLEAR_PAYLOAD), "the tap hears");
    assert!(!seen.has(SEALED_PAYLOAD) && !seen.has(NAME), "something can be read");
    let dirs: Vec<_> = rig.hosts.iter().map(|host| host.dir.as_path()).collect();
    for (what, secret) in secrets(token.trim(), &dirs) {
        assert!(!seen.has(&secret), "{what} crossed the wire");
        rig.hosts.iter().for_each(|host| is_not_told(host, what, &secret));
    }
    for mac in macs {
        assert!(!seen.has(&mac), "the MAC address {mac:02x?} of a sealed network crossed the wire");
    }
    frames(&seen, sealed, clear);
    handshakes(&seen);
    gossip(&seen);
}

/// A secret stands in no log, command line or environment of an agent, in none of the forms code prints octets in.
fn is_not_told(host: &Host, what: &str, secret: &[u8]) {
    let log = host.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the agent talks");
    let file = |name: &str| std::fs::read(format!("/proc/{}/{name}", host.pid())).expect("readable");
    let process = [file("cmdline"), file("environ")].map(|text| String::from_utf8_lossy(&text).into_owned());
    let hex: String = secret[..12].iter().map(|octet| format!("{octet:02x}")).collect();
    let list = format!("{:?}", &secret[..12]);
    let forms = [String::from_utf8_lossy(secret).into_owned(), hex.to_uppercase(), hex];
    for form in forms.iter().map(String::as_str).chain([list.trim_matches(['[', ']'])]) {
        let told = [&log].into_iter().chain(&process).any(|text| text.contains(form));
        assert!(!told, "{what} of {} is told as {form}", host.name);
    }
}

/// MAC addresses of the sealed network, as a host knows them.
fn macs(host: &Host) -> Vec<[u8; 6]> {
    let fdb = host.json(&["fdb", "plainmark-sealed"]);
    let macs: Vec<_> =
        fdb.as_array().into_iter().flatten().map(|e| mac(e["Mac"].as_str().expect("a text"))).collect();
    assert!(macs.len() >= 2, "{fdb}");
    macs
}

fn on_port(seen: &Seen, port: u16) -> impl Iterator<Item = &Datagram> {
    seen.datagrams.iter().filter(move |datagram| datagram.to.port() == port)
}

/// What crossed in a sealed network is sealed, each datagram under a number of its own.
fn frames(seen: &Seen, sealed: u32, clear: u32) {
    let mut numbers = BTreeSet::<(Ipv4Addr, Ipv4Addr, &[u8])>::new();
    let mut sessions = BTreeSet::<&[u8]>::new();
    for Datagram { from, to, payload } in on_port(seen, DATA_PORT) {
        let number = |at: usize| u32::from_be_bytes([0, payload[at], payload[at + 1], payload[at + 2]]);
        if payload[0] == VXLAN {
            assert_eq!(number(4), clear, "a clear frame of another network");
            continue;
        }
        assert!([1, 3].contains(&payload[0]), "neither clear nor sealed: {payload:02x?}");
        assert_eq!(number(1), sealed);
        // session index and packet counter: the key and the nonce
        assert!(numbers.insert((*from.ip(), *to.ip(), &payload[4..16])), "twice: {:02x?}", &payload[..16]);
        sessions.insert(&payload[4..8]);
    }
    // one session between each two hosts that talk at first, and one more after each restart
    assert!(numbers.len() > 1000 && sessions.len() >= 5, "{} in {} sessions", numbers.len(), sessions.len());
}

/// An ephemeral key goes with one message only, repeated though it may be. (The second MAC of an initiation is not
/// sealed, and may differ.)
fn handshakes(seen: &Seen) {
    let mut messages = BTreeMap::<&[u8], &[u8]>::new();
    let mut kinds = BTreeSet::new();
    for Datagram { payload, .. } in on_port(seen, GOSSIP_PORT) {
        let (key, message) = match payload[0] {
            0x10 => (&payload[12..44], &payload[..142]),
            0x11 => (&payload[8..40], &payload[..]),
            _ => continue,
        };
        kinds.insert(payload[0]);
        assert_eq!(messages.entry(key).or_insert(message), &message, "an ephemeral key was used twice");
    }
    assert!(kinds.len() == 2 && messages.len() > 12, "{} messages", messages.len());
}

/// Of gossip, over UDP and TCP, no sender uses a counter twice with one key, and there were several keys.
fn gossip(seen: &Seen) {
    let datagrams = on_port(seen, GOSSIP_PORT).map(|datagram| &datagram.payload[..]);
    let streams = seen.streams.iter().filter(|stream| stream.to.port() == GOSSIP_PORT);
    // what does not begin with a zero is an admission
    let messages = streams.filter(|stream| stream.octets.first() == Some(&0)).flat_map(|s| framed(&s.octets));
    let (mut used, mut epochs, mut kinds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for message in datagrams.chain(messages).filter(|message| message[0] & 0xf0 == 0) {
        assert!(message.len() >= 62 && [1, 2].contains(&message[0]) && message[1] == 2, "{message:02x?}");
        // epoch, sender, boot nonce and counter
        assert!(used.insert(&message[2..46]), "twice: {:02x?}", &message[..46]);
        epochs.insert(&message[2..6]);
        kinds.insert(message[0]);
    }
    assert!(epochs.len() >= 4, "the first key, two rotations and a revocation: {epochs:?}");
    assert_eq!(kinds.len(), 2, "over both transports");
}

/// Messages of a stream, each behind its length; the last one may be cut off.
fn framed(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = octets.split_first_chunk() {
        let Some((message, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else {
            break;
        };
        messages.push(message);
        octets = rest;
    }
    messages
}
