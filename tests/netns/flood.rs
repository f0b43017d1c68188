//! Strangers who begin handshakes by the thousand, some of whom know whom they write to.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::bad_input::counters;
use crate::joining::papers;
use crate::paced::while_sending;
use crate::rig::{Host, Rig, needs_root};
use crate::sealed::{answers_soon, established};
use crate::wait::until;

const PER_SECOND: u32 = 10_000;
const SECONDS: u32 = 4;
/// Datagrams that differ; they are sent again and again.
const DIFFERENT: u32 = 2_000;
/// What an agent may take more after a flood of 6 MB than at its beginning, octets.
const MEMORY: u64 = 3 << 20;

/// HMAC-SHA256 (RFC 2104), cut to 16 octets.
fn hmac(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let pad =
        |octet: u8| -> Vec<u8> { key.iter().chain(&[0; 32]).map(|key_octet| key_octet ^ octet).collect() };
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat())[..16].to_vec()
}

/// Initiations in form, of noise; every other one with the MAC that shows knowledge of the host's public key.
fn initiations(to: &Host) -> Vec<Vec<u8>> {
    let papers = papers(&to.dir);
    let key = Sha256::new().chain_update(b"weft session mac 1").chain_update(papers.cluster());
    let key = key.chain_update(papers.identity.static_public()).finalize().into();
    let epoch = papers.ring.active().0.to_be_bytes();
    let initiation = |number: u32| {
        let noise = (0..4u8).flat_map(|part| Sha256::digest([&number.to_be_bytes()[..], &[part]].concat()));
        let mut datagram = [&[0x10, 1, 0, 0][..], &number.to_be_bytes(), &epoch].concat();
        datagram.extend(noise.take(114));
        let mac = if number.is_multiple_of(2) { hmac(&key, &datagram) } else { vec![0x77; 16] };
        [datagram, mac, vec![0; 16]].concat()
    };
    (0..DIFFERENT).map(initiation).collect()
}

/// Sends them for `seconds` from a few ports at a steady rate; gives how many were sent.
fn flood(from: &Host, to: &Host, datagrams: &[Vec<u8>], seconds: u32) -> u32 {
    let bind = || UdpSocket::bind((from.ip4, 0)).expect("bound");
    let sockets: Vec<UdpSocket> = from.namespace.enter(|| (0..4).map(|_| bind()).collect());
    let (start, all) = (Instant::now(), PER_SECOND * seconds);
    for number in 0..all {
        let datagram = &datagrams[number as usize % datagrams.len()];
        let socket = &sockets[number as usize % sockets.len()];
        socket.send_to(datagram, (to.ip4, 7946)).expect("sent");
        if number.is_multiple_of(20) {
            let due = start + Duration::from_secs(1) * number / PER_SECOND;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    all
}

/// Memory in use, octets.
fn memory(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the line is there");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn ten_thousand_handshakes_a_second_of_strangers_cost_members_no_packet_and_no_memory() {
    needs_root!();
    let rig = Rig::wire(&["a", "b", "c", "d"]);
    let [a, b, c, d] = rig.hosts.as_slice() else { panic!("four hosts") };
    [a, b, c].iter().for_each(|host| host.start(&[]));
    rig.meet(3);
    a.ok(&["network", "create", "-d", "overlay", "--opt", "encrypted", "--subnet", "10.7.0.0/24", "blue"]);
    for host in [b, c] {
        until("it knows the network", || host.weft(&["network", "inspect", "blue"]).code == 0);
    }
    let [web, db, cache] =
        [(a, "web"), (b, "db"), (c, "cache")].map(|(host, name)| host.sandbox(name, "blue", &[]));
    [a, b, c].iter().for_each(|host| established(host, 2));
    assert!(answers_soon(&web, db.ip4().into()));
    let datagrams = initiations(a);
    flood(d, a, &datagrams, 1);
    let before = memory(a);
    c.kill();
    let ((sent, there), back) = while_sending((&db, &web), 200, b"there", || {
        while_sending((&web, &db), 200, b"and back", || {
            std::thread::scope(|scope| {
                let flooding = scope.spawn(|| flood(d, a, &datagrams, SECONDS));
                // a member comes back meanwhile
                c.start(&[]);
                established(c, 2);
                flooding.join().expect("sent")
            })
        })
    });
    assert_eq!((there.lost, back.lost), (Vec::new(), Vec::new()), "of {} and {}", there.sent, back.sent);
    assert!(answers_soon(&cache, web.ip4().into()));
    let after = memory(a);
    assert!(after < before + MEMORY, "{before} octets before, {after} after");
    let seen = counters(a, "Sessions");
    let of_strangers = seen["bad_mac"] + seen["cookies_sent"] + seen["unauthentic"];
    assert!(of_strangers > u64::from(sent) / 2, "they were heard: {seen:?}");
    assert!(seen["bad_mac"] > 1000 && seen["cookies_sent"] > 1000, "{seen:?}");
    assert!(seen["unauthentic"] < 50 * 60, "few were worked on: {seen:?}");
}
