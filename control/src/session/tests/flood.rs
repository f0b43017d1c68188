//! Floods: members get through, memory stays flat, nobody is amplified.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::RngExt as _;

use super::super::mac;
use super::super::wire::{INITIATION, INITIATION_HEADER, initiation_header};
use super::world::*;

/// Noise with a valid mac1 to node 0: what a former member can make without a curve operation.
fn junk(world: &mut World) -> Vec<u8> {
    let mut datagram = vec![0; INITIATION - 32];
    datagram[..INITIATION_HEADER].copy_from_slice(&initiation_header(world.rng.random(), EPOCH));
    datagram[INITIATION_HEADER..].iter_mut().for_each(|octet| *octet = world.rng.random());
    mac::append_macs(&mut datagram, &mac::mac1_key(&CLUSTER, &public(0)), None);
    datagram
}

/// Addresses of strangers, and those of members, as anybody can write them into a datagram.
fn source(world: &mut World) -> SocketAddr {
    match world.rng.random_range(0..4) {
        0 => gossip(world.rng.random_range(1..10)),
        _ => SocketAddr::from((world.rng.random::<[u8; 4]>(), world.rng.random())),
    }
}

#[test]
fn members_meet_during_a_flood_that_costs_no_memory_and_is_not_amplified() {
    let mut world = World::new(10, 1);
    let (mut octets_in, mut octets_out) = (BTreeMap::<SocketAddr, usize>::new(), 0);
    for tick in 0..500 {
        if tick == 100 {
            (1..10).for_each(|number| world.want(number, 0));
        }
        let seen = world.recorded.len();
        for _ in 0..100 {
            let (datagram, from) = (junk(&mut world), source(&mut world));
            *octets_in.entry(from).or_default() += datagram.len();
            world.deliver(0, from, &datagram);
        }
        octets_out += world.recorded[seen..].iter().map(|datagram| datagram.bytes.len()).sum::<usize>();
        world.run(millis(10));
        assert!(world.nodes[0].sessions.indexes.len() <= 9 * 4, "nothing is kept of strangers");
    }
    assert!((1..10).all(|number| world.agree(0, number)), "every member");
    let mut out = BTreeMap::<SocketAddr, usize>::new();
    for datagram in world.recorded.iter().filter(|datagram| datagram.from == gossip(0)) {
        *out.entry(datagram.to).or_default() += datagram.bytes.len();
    }
    let members: Vec<SocketAddr> = (1..10).map(gossip).collect();
    let strangers = out.iter().filter(|(to, _)| !members.contains(to));
    assert!(strangers.into_iter().all(|(to, octets)| octets < &octets_in[to]));
    assert!(octets_out * 2 < octets_in.values().sum::<usize>(), "{octets_out} octets out");
    let counters = world.nodes[0].sessions.counters();
    assert!(counters.unauthentic <= 50 + 50 * 6, "{} curve operations", counters.unauthentic);
    assert!(counters.cookies_sent > 40_000);
    let cookies: u64 = world.nodes.iter().map(|node| node.sessions.counters().cookies_used).sum();
    assert!(cookies >= 9, "members proved their addresses");
}

#[test]
fn members_meet_within_a_second_of_a_flood() {
    let mut world = World::new(3, 2);
    let flood = |world: &mut World, ticks: u64| {
        for _ in 0..ticks {
            for _ in 0..100 {
                let (datagram, from) = (junk(world), source(world));
                world.deliver(0, from, &datagram);
            }
            world.run(millis(10));
        }
    };
    flood(&mut world, 100);
    world.want(1, 0);
    world.want(2, 0);
    flood(&mut world, 100);
    assert!(world.agree(0, 1) && world.agree(0, 2));
}

#[test]
fn member_that_floods_with_proven_initiations_does_not_keep_others_out() {
    let mut world = World::new(3, 3);
    for tick in 0..300 {
        // Node 1 starts anew ten times a second, and with it its counters.
        if tick % 10 == 0 {
            world.restart(1);
            world.want(1, 0);
        }
        for _ in 0..100 {
            let (datagram, from) = (junk(&mut world), source(&mut world));
            world.deliver(0, from, &datagram);
        }
        if tick == 100 {
            world.want(2, 0);
        }
        world.run(millis(10));
    }
    assert!(world.agree(0, 2));
}

#[test]
fn initiations_to_many_dead_peers_stay_below_fifty_a_second() {
    let mut world = World::new(1, 4);
    let now = world.now;
    for number in 0..2000_u16 {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&(number + 300).to_be_bytes());
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let [high, low] = number.to_be_bytes();
        let peer = super::super::Peer {
            id: crate::model::NodeId(octets),
            static_public: key,
            gossip: SocketAddr::from(([10, 1, high, low], 7946)),
            vtep: SocketAddr::from(([10, 1, high, low], 4789)),
            boot_epoch: 1,
        };
        world.act(0, |sessions| {
            sessions.set_peer(now, peer);
            sessions.want(now, peer.id);
        });
    }
    world.run(seconds(60));
    assert!(world.recorded.len() <= 50 + 50 * 60, "{}", world.recorded.len());
    assert!(world.recorded.len() >= 40 * 60, "{}", world.recorded.len());
    let reached: std::collections::BTreeSet<_> = world.recorded.iter().map(|datagram| datagram.to).collect();
    assert!(reached.len() > 1500, "everybody gets a turn: {}", reached.len());
}
