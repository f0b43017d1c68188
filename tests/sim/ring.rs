//! The key ring between many nodes: rotations under loss and cuts, late nodes, banned nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_control::gossip::{Epoch, GossipEvent, Have, KEYS, Keeper, KeyTiming, MemberState, Ring, Transmit};

use crate::gossip_node::{self, identity, key};
use crate::network::{Network, SimNode, addr};

const TICK: Duration = Duration::from_millis(250);

/// Hours become seconds, so that a test sees a whole life of an epoch.
const TIMING: KeyTiming = KeyTiming {
    rotate: Duration::from_secs(43_200),
    activate: Duration::from_secs(20),
    activate_urgent: Duration::from_secs(10),
    retire: Duration::from_secs(40),
    retire_urgent: Duration::from_secs(15),
    spread: Duration::from_millis(200),
    retry: (Duration::from_secs(1), Duration::from_secs(8)),
    alone: Duration::from_secs(10),
};

/// A node that keeps its ring as the cluster's does; what it fetches is brought by the test.
struct Node {
    inner: gossip_node::Node,
    keeper: Keeper,
    tick_at: Instant,
    fetches: BTreeSet<SocketAddr>,
    chance: u64,
}

impl Node {
    fn new(number: usize, boot_epoch: u32, ring: Ring, now: Instant) -> Self {
        let mut inner = gossip_node::node(number, boot_epoch, 7, now);
        inner.gossip.set_ring(now, ring.clone());
        let mut node = Self {
            inner,
            keeper: Keeper::new(ring, TIMING, now),
            tick_at: now,
            fetches: BTreeSet::new(),
            chance: number as u64,
        };
        node.tell(now);
        node
    }

    fn tell(&mut self, now: Instant) {
        let have = Have::of(self.keeper.ring()).to_octets();
        self.inner.gossip.set_record(now, key_of(KEYS), have).expect("room");
    }

    fn take(&mut self, now: Instant, ring: Ring) {
        self.keeper.set(now, ring.clone());
        self.inner.gossip.set_ring(now, ring);
        self.tell(now);
    }

    fn rotate(&mut self, now: Instant, octet: u8, urgent: bool) -> Epoch {
        let mut ring = self.keeper.ring().clone();
        let epoch = ring.add(std::array::from_fn(|i| octet ^ i as u8), urgent, &identity(0)).expect("room");
        self.take(now, ring);
        epoch
    }

    fn tick(&mut self, now: Instant) {
        self.tick_at = now + TICK;
        let members = self.inner.gossip.members().filter(|m| m.state == MemberState::Alive);
        let alive = members.map(|member| member.id).filter(|id| *id != self.inner.gossip.node_id()).collect();
        if let Some(ring) = self.keeper.step(now, &alive) {
            self.take(now, ring);
        }
        self.chance = self.chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        if let Some(fetch) = self.keeper.poll_fetch(now, self.chance) {
            let have = fetch.members.iter().filter_map(|id| self.inner.gossip.member(*id)).map(|m| m.addr);
            self.fetches.extend(fetch.heard.iter().copied().chain(have));
            if self.fetches.is_empty() {
                self.fetches.extend([addr(0), addr(1)]);
            }
        }
    }
}

impl SimNode for Node {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.inner.handle_datagram(now, from, datagram);
    }

    fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) {
        self.inner.handle_stream(now, from, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
        if now >= self.tick_at {
            self.tick(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout().into_iter().chain([self.tick_at]).min()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.inner.poll_transmit()
    }

    fn observe(&mut self, now: Instant) {
        self.inner.observe(now);
        for (_, event) in std::mem::take(&mut self.inner.events) {
            match event {
                GossipEvent::RingNeeded { from } => self.keeper.missed(now, from),
                GossipEvent::MemberLeft(id) => self.keeper.forget(id),
                GossipEvent::RecordsChanged { origin } => {
                    let record = self.inner.gossip.record(origin, &key_of(KEYS));
                    if let Some(have) = record.and_then(|record| Have::from_octets(record.body())) {
                        self.keeper.heard(now, origin, have);
                    }
                }
                _ => {}
            }
        }
    }
}

fn key_of(octets: &[u8]) -> weft_control::gossip::RecordKey {
    key(std::str::from_utf8(octets).expect("a name"))
}

fn cluster(count: usize, seed: u64) -> Network<Node> {
    let mut network = Network::new(seed);
    for number in 0..count {
        let mut node = Node::new(number, 1, gossip_node::ring(), network.now());
        node.inner.gossip.join(network.now(), &[addr(0)]);
        network.start(addr(number), node);
    }
    network
}

/// Runs for `span`, and lets nodes fetch rings of others over channels of two as far as they reach each other.
fn run(network: &mut Network<Node>, span: Duration) {
    let end = network.elapsed() + span;
    while network.elapsed() < end {
        network.run_for(Duration::from_millis(50));
        let asked: BTreeMap<SocketAddr, BTreeSet<SocketAddr>> =
            network.nodes().map(|(at, node)| (at, node.fetches.clone())).collect();
        for (at, asked) in asked {
            for other in asked {
                fetch(network, at, other);
            }
        }
    }
}

fn fetch(network: &mut Network<Node>, at: SocketAddr, other: SocketAddr) {
    let asker = network.node(at).map(|node| node.inner.gossip.node_id());
    let answer = network.node(other).filter(|node| asker.is_some_and(|id| !node.inner.gossip.is_banned(id)));
    let answer = answer.filter(|_| network.reaches(at, other)).map(|node| node.keeper.ring().clone());
    network.with(at, |node, now| {
        node.fetches.remove(&other);
        let mut ring = node.keeper.ring().clone();
        if answer.is_some_and(|answer| ring.merge(&answer, |maker| *maker == identity(0).public_key())) {
            node.take(now, ring);
        }
    });
}

fn active(network: &Network<Node>) -> BTreeSet<Epoch> {
    network.nodes().map(|(_, node)| node.keeper.ring().active()).collect()
}

fn refused(network: &Network<Node>) -> u64 {
    network.nodes().map(|(_, node)| node.inner.gossip.counters().unknown_epoch).sum()
}

fn everybody_is_alive(network: &Network<Node>, count: usize) -> bool {
    network.nodes().all(|(_, node)| node.inner.gossip.alive() == count - 1)
}

#[test]
fn rotations_under_loss_cost_no_message() {
    for seed in 0..4 {
        let mut network = cluster(8, seed);
        run(&mut network, Duration::from_secs(5));
        network.conditions.loss = 0.3;
        network.conditions.duplicates = 0.1;
        network.conditions.jitter = Duration::from_millis(40);
        for round in 0..4u8 {
            let epoch =
                network.with(addr(usize::from(round)), |node, now| node.rotate(now, 50 + round, false));
            run(&mut network, Duration::from_secs(60));
            assert_eq!(active(&network), epoch.into_iter().collect(), "seed {seed}");
        }
        assert_eq!(refused(&network), 0, "seed {seed}");
        let left = network.nodes().map(|(_, node)| node.keeper.ring().epochs().count()).max();
        assert_eq!(left, Some(1), "seed {seed}: old epochs are gone");
    }
}

#[test]
fn two_rotations_at_once_end_in_one_epoch_everywhere() {
    for seed in 10..14 {
        let mut network = cluster(6, seed);
        run(&mut network, Duration::from_secs(5));
        let one = network.with(addr(1), |node, now| node.rotate(now, 91, false));
        let other = network.with(addr(4), |node, now| node.rotate(now, 92, false));
        assert_ne!(one, other);
        run(&mut network, Duration::from_secs(10));
        assert_eq!(active(&network), one.max(other).into_iter().collect(), "seed {seed}");
        assert_eq!(refused(&network), 0, "seed {seed}");
    }
}

#[test]
fn both_sides_of_a_partition_rotate_and_are_one_cluster_again_after_it() {
    for seed in 20..24 {
        let mut network = cluster(6, seed);
        run(&mut network, Duration::from_secs(5));
        let all: Vec<_> = (0..6).map(addr).collect();
        network.partition(&all[..3], &all[3..]);
        run(&mut network, Duration::from_secs(20));
        network.with(addr(0), |node, now| node.rotate(now, 91, false));
        network.with(addr(5), |node, now| node.rotate(now, 92, false));
        // Long enough for both sides to forget the epoch that they had in common.
        run(&mut network, Duration::from_secs(90));
        assert_eq!(active(&network).len(), 2, "seed {seed}");
        network.heal();
        run(&mut network, Duration::from_secs(60));
        assert_eq!(active(&network).len(), 1, "seed {seed}");
        assert!(everybody_is_alive(&network, 6), "seed {seed}");
        let before = refused(&network);
        run(&mut network, Duration::from_secs(30));
        assert_eq!(refused(&network), before, "seed {seed}");
    }
}

#[test]
fn node_that_was_away_for_three_rotations_comes_back_by_itself() {
    for seed in 30..34 {
        let mut network = cluster(5, seed);
        run(&mut network, Duration::from_secs(5));
        let old = network.crash(addr(4)).map(|node| node.keeper.ring().clone()).expect("it ran");
        for round in 0..3 {
            network.with(addr(0), |node, now| node.rotate(now, 60 + round, false));
            run(&mut network, Duration::from_secs(80));
        }
        let common = network.nodes().any(|(_, node)| node.keeper.ring().epochs().any(|epoch| old.has(epoch)));
        assert!(!common, "seed {seed}: nothing it could open is in use");
        let mut late = Node::new(4, 2, old, network.now());
        late.inner.gossip.join(network.now(), &[addr(0), addr(3)]);
        network.start(addr(4), late);
        run(&mut network, Duration::from_secs(40));
        assert!(everybody_is_alive(&network, 5), "seed {seed}");
        assert_eq!(active(&network).len(), 1, "seed {seed}");
    }
}

#[test]
fn banned_node_opens_nothing_after_the_rotation() {
    for seed in 40..44 {
        let mut network = cluster(5, seed);
        run(&mut network, Duration::from_secs(5));
        let banned = identity(2).node_id();
        for number in [0, 1, 3, 4] {
            network.with(addr(number), |node, now| node.inner.gossip.ban(now, banned));
        }
        network.with(addr(0), |node, now| node.rotate(now, 77, true));
        run(&mut network, Duration::from_secs(3));
        let others = network.nodes().filter(|(at, _)| *at != addr(2));
        let epochs: BTreeSet<_> = others.map(|(_, node)| node.keeper.ring().active()).collect();
        assert_eq!(epochs.len(), 1, "seed {seed}");
        let heard = |network: &Network<Node>| {
            let node = network.node(addr(2)).expect("it runs");
            assert!(
                !epochs.iter().any(|epoch| node.keeper.ring().has(*epoch)),
                "seed {seed}: it got the key"
            );
            node.inner.gossip.counters().received
        };
        let before = heard(&network);
        run(&mut network, Duration::from_secs(60));
        assert_eq!(heard(&network), before, "seed {seed}");
        let rest = network.nodes().filter(|(at, _)| *at != addr(2));
        for (at, node) in rest {
            assert_eq!(node.inner.gossip.alive(), 3, "seed {seed}: {at}");
            assert_eq!(node.keeper.ring().epochs().count(), 1, "seed {seed}: {at}");
        }
    }
}
