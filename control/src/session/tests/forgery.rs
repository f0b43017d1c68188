//! What others may try: nothing of it changes anything or draws an answer.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::super::handshake::{self, Local};
use super::super::mac;
use super::super::wire::{Hello, INITIATION, initiation_header};
use super::super::{Peer, SessionEvent};
use super::world::*;
use crate::model::NodeId;

const ELSEWHERE: ([u8; 4], u16) = ([192, 0, 2, 66], 666);

/// An initiation by the holder of `secret` to node `to`, with a valid mac1.
fn initiation(secret: [u8; 32], us: NodeId, to: usize, boot_epoch: u32, counter: u64) -> Vec<u8> {
    let local = Local { cluster_id: CLUSTER, us, secret: Zeroizing::new(secret) };
    let psk = local.psk(&[EPOCH as u8; 32], id(to));
    let hello = Hello { boot_epoch, counter, data_port: 4789, sending_on: 0 };
    let (header, seed) = (initiation_header(1, EPOCH), Zeroizing::new([0x77; 32]));
    let (_, mut datagram) =
        handshake::initiate(&local, &public(to), &psk, seed, &header, &hello).expect("made");
    mac::append_macs(&mut datagram, &mac::mac1_key(&CLUSTER, &public(to)), None);
    datagram
}

/// Hands a datagram to a node and tells how many octets it answered with.
fn answered(world: &mut World, to: usize, from: SocketAddr, bytes: &[u8]) -> usize {
    let before = world.recorded.len();
    world.deliver(to, from, bytes);
    world.recorded[before..].iter().map(|datagram| datagram.bytes.len()).sum()
}

#[test]
fn no_recorded_datagram_changes_anything_when_it_comes_again() {
    for seed in 0..3 {
        let mut world = World::new(3, seed);
        world.want_all();
        world.loss = 0.3;
        world.stream(0, 1, millis(200));
        world.stream(1, 2, millis(200));
        world.run(seconds(400));
        world.stop_streams();
        world.loss = 0.0;
        world.run(seconds(20));
        let recorded = world.recorded.clone();
        for later in [0, 1, 30, 400] {
            world.run(seconds(later));
            for datagram in &recorded {
                for to in 0..3 {
                    for from in [datagram.from, SocketAddr::from(ELSEWHERE)] {
                        let before = world.snapshot();
                        let events: usize = world.nodes.iter().map(|node| node.events.len()).sum();
                        let octets = answered(&mut world, to, from, &datagram.bytes);
                        assert!(octets == 0 || octets < datagram.bytes.len());
                        assert!(world.snapshot() == before, "kind {:#x}", datagram.bytes[0]);
                        assert_eq!(world.nodes.iter().map(|node| node.events.len()).sum::<usize>(), events);
                    }
                }
            }
        }
    }
}

#[test]
fn no_flipped_bit_is_accepted_or_answered() {
    for victim in 0..3 {
        // Stops right before the initiation, the response or the confirmation lands.
        let mut world = World::new(2, 1);
        world.want_all();
        world.run(millis(1 + 5 * victim));
        world.run(millis(3));
        let datagram = world.recorded.last().expect("under way").clone();
        assert_eq!(datagram.bytes[0], [0x10, 0x11, 0x13][victim as usize]);
        let to = usize::from(datagram.to == gossip(1));
        let before = world.snapshot();
        for bit in 0..datagram.bytes.len() * 8 {
            let in_mac2 = datagram.bytes.len() == INITIATION && bit >= (INITIATION - 16) * 8;
            if in_mac2 {
                continue; // unused without load
            }
            let mut bytes = datagram.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(answered(&mut world, to, datagram.from, &bytes), 0, "bit {bit}");
            assert!(world.snapshot() == before, "bit {bit}");
        }
        world.run(seconds(5));
        assert!(world.agree(0, 1), "the right one is still taken");
        assert_eq!(world.orphans, 0);
    }
}

#[test]
fn random_octets_of_any_length_are_dropped() {
    use rand::RngExt as _;
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(1));
    let before = world.snapshot();
    for length in (0..400).chain([1200, 1500, 65_507]) {
        for kind in [0x10, 0x11, 0x12, 0x13, 0x14, 0xff] {
            let mut bytes: Vec<u8> = (0..length).map(|_| world.rng.random()).collect();
            bytes.iter_mut().zip([kind, 1, 0, 0]).for_each(|(octet, value)| *octet = value);
            assert_eq!(answered(&mut world, 0, gossip(1), &bytes), 0);
        }
    }
    assert!(world.snapshot() == before);
    let counters = world.nodes[0].sessions.counters();
    assert!(counters.malformed > 2000 && counters.bad_mac >= 1 && counters.unknown_index >= 1);
}

#[test]
fn stranger_who_does_not_know_us_gets_no_answer_and_costs_no_curve_operation() {
    let mut world = World::new(2, 1);
    let mut datagram = initiation([9; 32], NodeId([9; 16]), 0, 1, 1);
    datagram[INITIATION - 20] ^= 1;
    assert_eq!(answered(&mut world, 0, SocketAddr::from(ELSEWHERE), &datagram), 0);
    assert_eq!(world.nodes[0].sessions.counters().bad_mac, 1);
    assert_eq!(world.nodes[0].sessions.counters().unauthentic, 0);
}

#[test]
fn stranger_who_knows_us_and_the_ring_gets_no_answer_either() {
    let mut world = World::new(2, 1);
    let datagram = initiation([9; 32], NodeId([9; 16]), 0, 1, 1);
    assert_eq!(answered(&mut world, 0, SocketAddr::from(ELSEWHERE), &datagram), 0);
    assert_eq!(world.nodes[0].sessions.counters().unknown_peer, 1);
}

#[test]
fn member_that_takes_anothers_name_gets_no_session_of_it() {
    let mut world = World::new(3, 1);
    // Node 2 says it is node 1: the name is bound by the preshared key, which node 0 makes from the static key.
    let datagram = initiation(secret(2), id(1), 0, 5, 5);
    world.deliver(0, gossip(1), &datagram);
    assert_eq!(world.nodes[0].dataplane.spec(vtep(1)).map(|spec| spec.receive.len()), Some(0));
    assert!(!world.is_established(0, 2) && !world.is_established(0, 1));
    world.want(0, 1);
    world.run(seconds(1));
    assert!(world.agree(0, 1));
}

#[test]
fn removed_peer_is_forgotten_with_its_keys_and_refused() {
    let mut world = World::new(2, 1);
    world.want_all();
    world.run(seconds(1));
    let now = world.now;
    world.act(0, |sessions| sessions.remove_peer(now, id(1)));
    assert!(world.nodes[0].dataplane.spec(vtep(1)).is_none(), "told at once");
    world.restart(1);
    world.want(1, 0);
    world.run(seconds(30));
    assert!(world.nodes[0].dataplane.spec(vtep(1)).is_none());
    assert!(!world.is_established(1, 0));
    assert!(world.nodes[0].sessions.counters().unknown_peer >= 1);
    assert_eq!(
        world.nodes[0].sessions.indexes.len() + world.nodes[0].sessions.due.len(),
        0,
        "nothing is left"
    );
}

#[test]
fn static_key_of_another_peer_or_of_our_own_is_refused() {
    let mut world = World::new(2, 1);
    let now = world.now;
    let thief = Peer { id: id(5), static_public: public(1), gossip: gossip(5), vtep: vtep(5), boot_epoch: 1 };
    let mirror = Peer { static_public: public(0), ..thief };
    world.act(0, |sessions| {
        sessions.set_peer(now, thief);
    });
    world.act(0, |sessions| {
        sessions.set_peer(now, mirror);
    });
    assert_eq!(world.nodes[0].sessions.counters().peers_refused, 2);
    assert!(world.nodes[0].dataplane.spec(vtep(5)).is_none());
}

#[test]
fn peer_with_a_key_of_small_order_is_given_up_without_harm() {
    let mut world = World::new(2, 1);
    let now = world.now;
    let weak = Peer { id: id(5), static_public: [0; 32], gossip: gossip(5), vtep: vtep(5), boot_epoch: 1 };
    world.act(0, |sessions| {
        sessions.set_peer(now, weak);
    });
    world.act(0, |sessions| sessions.want(now, id(5)));
    world.want(0, 1);
    world.run(seconds(60));
    assert!(world.is_established(0, 1) && !world.is_established(0, 5));
}

#[test]
fn peer_that_roams_is_followed_and_told_once_it_proved_its_address() {
    for mover in 0..2 {
        let mut world = World::new(2, 1);
        world.want_all();
        world.run(seconds(1));
        let to = SocketAddr::from(([10, 0, 9, 9], 7946));
        world.nodes[mover].address = to;
        let now = world.now;
        world.act(mover, |sessions| sessions.reset(now));
        world.run(seconds(3));
        let moved = SessionEvent::PeerMoved { id: id(mover), to, data_port: 4789 };
        assert_eq!(world.nodes[1 - mover].events, [moved], "mover {mover}");
        // An initiation that is only relayed from elsewhere proves nothing.
        let relayed = initiation(secret(mover), id(mover), 1 - mover, 9, 9);
        world.deliver(1 - mover, SocketAddr::from(ELSEWHERE), &relayed);
        assert_eq!(world.nodes[1 - mover].events.len(), 1);
    }
}
