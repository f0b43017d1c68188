//! The dissector for Wireshark names what the code puts on the wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weft_control::gossip::{Gossip, GossipConfig, Ring};
use weft_control::identity::Identity;
use weft_control::session::{Peer, REKEY_AFTER, SessionConfig, Sessions};
use weft_dataplane::seal::{Header, InnerChecksum};
use weft_dataplane::wire::Vni;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/wireshark/weft.lua");

/// A datagram in an Ethernet frame.
fn frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = |octets: usize| u16::try_from(octets).expect("a datagram").to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend(length(28 + payload.len()));
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([50_000u16.to_be_bytes(), port.to_be_bytes(), length(8 + payload.len()), [0, 0]].concat());
    frame.extend(payload);
    frame
}

/// A capture file (libpcap's format: header of 24 octets, 16 before each frame).
fn write(path: &Path, frames: &[Vec<u8>]) {
    let mut file = [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 1 << 16, 1].map(u32::to_be_bytes).concat();
    for (second, frame) in (1u32..).zip(frames) {
        let length = u32::try_from(frame.len()).expect("a frame");
        file.extend([second, 0, length, length].map(u32::to_be_bytes).concat());
        file.extend(frame);
    }
    std::fs::write(path, file).expect("written");
}

/// What tshark reads of each frame, by these fields.
#[expect(clippy::disallowed_methods, reason = "tshark is the judge here")]
fn read(frames: &[Vec<u8>], fields: &[&str]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sample.pcap");
    write(&path, frames);
    let mut tshark = Command::new("tshark");
    tshark.arg("-X").arg(format!("lua_script:{SCRIPT}")).arg("-r").arg(&path).args(["-T", "fields"]);
    fields.iter().for_each(|field| {
        tshark.args(["-e", field]);
    });
    let output = tshark.output().expect("tshark is there: make setup-test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn sealed_frames_show_their_header_and_clear_ones_stay_vxlan() {
    let sealed = |checksum, counter| {
        let header = Header { checksum, vni: Vni::MAX, session: 0xabcd_0123, counter };
        let octets = [&header.emit()[..], &[0x55; 100], &[0xee; 16]].concat();
        frame(4789, &octets)
    };
    let mut clear = vec![8, 0, 0, 0, 0, 0, 77, 0];
    clear.extend([0xff; 6]);
    clear.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    clear.resize(8 + 60, 0);
    let frames = [
        sealed(InnerChecksum::Whole, 3 << 56 | 12_345),
        sealed(InnerChecksum::Partial, 1),
        frame(4789, &clear),
        frame(4789, &[1, 2, 3]),
    ];
    let seen = read(
        &frames,
        &[
            "weft.kind",
            "weft.vni",
            "weft.session",
            "weft.queue",
            "weft.number",
            "weft.frame.len",
            "weft.tag",
            "vxlan.vni",
        ],
    );
    let tag = "ee".repeat(16);
    assert_eq!(seen[0], ["0x01", "16777215", "0xabcd0123", "3", "12345", "100", &tag, ""]);
    assert_eq!(seen[1], ["0x03", "16777215", "0xabcd0123", "0", "1", "100", &tag, ""]);
    assert_eq!(seen[2], ["", "", "", "", "", "", "", "77"]);
    assert_eq!(seen.len(), 4, "a stump is read without complaint");
}

fn sessions(number: u8, now: Instant) -> (Sessions, Peer) {
    let identity = Identity::from_secret(&[number; 32]);
    let id = identity.node_id();
    let config = SessionConfig {
        cluster_id: [1; 16],
        us: id,
        static_secret: identity.static_secret(),
        boot_epoch: 1,
        data_port: 4789,
        rekey_after: REKEY_AFTER,
    };
    let mut sessions = Sessions::new(config, [number; 32].into(), now);
    sessions.set_ring(now, 42, BTreeMap::from([(42, [9; 32].into())]));
    let address = |port| SocketAddr::from(([192, 0, 2, number], port));
    let static_public = identity.static_public();
    let peer = Peer { id, static_public, gossip: address(7946), vtep: address(4789), boot_epoch: 1 };
    (sessions, peer)
}

/// The datagrams of a whole handshake.
fn handshake(now: Instant) -> Vec<Vec<u8>> {
    let ((mut one, first), (mut two, second)) = (sessions(1, now), sessions(2, now));
    one.set_peer(now, second);
    two.set_peer(now, first);
    one.want(now, second.id);
    let later = now + Duration::from_secs(1);
    one.handle_timeout(later);
    let mut datagrams = Vec::new();
    let (_, initiation) = one.poll_transmit().expect("an initiation");
    two.handle_datagram(later, first.gossip, &initiation);
    let (_, response) = two.poll_transmit().expect("a response");
    one.handle_datagram(later, second.gossip, &response);
    let (_, confirmation) = one.poll_transmit().expect("a confirmation");
    datagrams.extend([initiation, response, confirmation]);
    datagrams
}

/// A first message of gossip, by the node whose secret is all ones.
fn gossip(now: Instant) -> Vec<u8> {
    let config = GossipConfig {
        name: "a".parse().expect("a name"),
        advertise: SocketAddr::from(([192, 0, 2, 1], 7946)),
        data_port: 4789,
        cluster: [1; 16],
        ring: Ring::found([7; 32]),
        credentials: None,
        boot_epoch: 1,
    };
    let mut gossip = Gossip::new(config, Identity::from_secret(&[1; 32]), 5, now);
    gossip.join(now, &[SocketAddr::from(([192, 0, 2, 2], 7946))]);
    gossip.handle_timeout(now + Duration::from_secs(1));
    gossip.poll_transmit().expect("a greeting").bytes
}

#[test]
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
fn handshakes_and_gossip_show_what_is_in_clear() {
    let now = Instant::now();
    let mut datagrams = handshake(now);
    datagrams.push(gossip(now));
    let frames: Vec<_> = datagrams.iter().map(|datagram| frame(7946, datagram)).collect();
    let fields = ["weft_control.kind", "weft_control.index", "weft_control.epoch", "weft_control.mac1"];
    let seen = read(&frames, &fields);
    let index = |datagram: &[u8]| format!("0x{}", hex(&datagram[4..8]));
    let mac = |datagram: &[u8], from_end: usize| {
        hex(&datagram[datagram.len() - from_end - 16..datagram.len() - from_end])
    };
    let [initiation, response, confirmation, _] = &datagrams[..] else { panic!("four datagrams") };
    assert_eq!(seen[0], ["0x10", &index(initiation), "42", &mac(initiation, 16)]);
    assert_eq!(seen[1], ["0x11", &index(initiation), "", &mac(response, 0)]);
    assert_eq!(seen[2], ["0x13", &index(confirmation), "", &mac(confirmation, 0)]);
    assert_eq!(seen[3][0], "0x01");
    let seen = read(&frames, &["weft_control.sender"]);
    assert_eq!(seen[3], [hex(&Identity::from_secret(&[1; 32]).node_id().0)]);
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
