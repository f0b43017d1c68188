//! Gossip between many nodes: joining, spreading, failing, healing.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_control::gossip::{GossipEvent, MemberState, Via};
use weft_control::model::NodeId;

use crate::gossip_node::{Node, identity, key, node, node_at};
use crate::network::{Conditions, Network, addr};

fn id(number: usize) -> NodeId {
    identity(number).node_id()
}

/// `count` nodes that join by node 0, each with one record.
fn cluster(count: usize, seed: u64) -> Network<Node> {
    let mut network = Network::new(seed);
    for number in 0..count {
        let mut node = node(number, 1, seed, network.now());
        node.gossip
            .set_record(network.now(), key("hello"), format!("from {number}").into_bytes())
            .expect("room");
        node.gossip.join(network.now(), &[addr(0)]);
        network.start(addr(number), node);
    }
    network
}

/// Whether all running nodes see the same `alive` members and complete, equal records.
fn agree(network: &Network<Node>, alive: usize) -> bool {
    let view = |node: &Node| {
        let gossip = &node.gossip;
        let mut view = Vec::new();
        for member in gossip.members().filter(|member| member.state == MemberState::Alive) {
            let records: Vec<_> = gossip.records(member.id).map(|(k, r)| (k.clone(), r.version())).collect();
            view.push((member, records));
        }
        view
    };
    let mut views = network.nodes().map(|(_, node)| view(node));
    let Some(first) = views.next() else { return true };
    let complete =
        network.nodes().all(|(_, node)| node.gossip.origins().all(|id| node.gossip.is_complete(id)));
    complete && first.len() == alive && views.all(|view| view == first)
}

#[test]
fn three_nodes_find_each_other_and_share_their_records() {
    let mut network = cluster(3, 1);
    let took = network.run_until(Duration::from_secs(5), |network| agree(network, 3));
    assert!(took.is_some_and(|took| took < Duration::from_millis(500)), "{took:?}");
    let seen =
        network.node(addr(2)).expect("runs").gossip.record(id(1), &key("hello")).map(|r| r.body().to_vec());
    assert_eq!(seen.as_deref(), Some(&b"from 1"[..]));
}

#[test]
fn change_reaches_two_others_in_milliseconds() {
    let mut network = cluster(3, 2);
    network.run_for(Duration::from_secs(5));
    network.with(addr(1), |node, now| node.gossip.set_record(now, key("endpoint"), b"here".to_vec()));
    network.run_for(Duration::from_millis(2));
    for number in [0, 2] {
        let gossip = &network.node(addr(number)).expect("runs").gossip;
        assert!(gossip.record(id(1), &key("endpoint")).is_some(), "node {number}");
    }
}

/// Events of one node that say a member is down.
fn downs(network: &Network<Node>) -> Vec<String> {
    let tell = |(at, node): (SocketAddr, &Node)| {
        let down = node.events.iter().filter(|(_, event)| matches!(event, GossipEvent::MemberDown(_)));
        down.map(move |(when, event)| format!("{at} at {when:?}: {event:?}")).collect::<Vec<_>>()
    };
    network.nodes().flat_map(tell).collect()
}

fn knows_dead(node: &Node, dead: NodeId) -> bool {
    node.gossip.member(dead).is_some_and(|member| member.state == MemberState::Down)
}

#[test]
fn death_among_a_hundred_is_known_to_all_within_ten_seconds() {
    for seed in [3, 4] {
        let mut network = cluster(100, seed);
        let joined = network.run_until(Duration::from_secs(30), |network| agree(network, 100));
        assert!(joined.is_some(), "seed {seed}: never agreed");
        network.crash(addr(42));
        let dead = id(42);
        let took = network.run_until(Duration::from_secs(20), |network| {
            network.nodes().all(|(_, node)| knows_dead(node, dead))
        });
        assert!(took.is_some_and(|took| took <= Duration::from_secs(10)), "seed {seed}: {took:?}");
        network.run_for(Duration::from_secs(5));
        let others = downs(&network).into_iter().filter(|down| !down.contains(&format!("{dead:?}"))).count();
        assert_eq!(others, 0, "seed {seed}: the living were thought dead");
    }
}

#[test]
fn nobody_is_thought_dead_while_a_fifth_of_all_datagrams_is_lost() {
    for seed in [5, 6] {
        let mut network = cluster(100, seed);
        network.run_until(Duration::from_secs(30), |network| agree(network, 100)).expect("agreed");
        network.conditions.loss = 0.2;
        network.run_for(Duration::from_secs(60));
        assert_eq!(downs(&network), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn change_among_a_hundred_is_everywhere_within_two_seconds() {
    let mut network = cluster(100, 7);
    network.run_until(Duration::from_secs(30), |network| agree(network, 100)).expect("agreed");
    network.conditions.loss = 0.05;
    network.run_for(Duration::from_secs(10));
    network.with(addr(17), |node, now| node.gossip.set_record(now, key("moved"), b"x".to_vec()));
    let seen = |network: &Network<Node>| {
        network.nodes().all(|(_, node)| node.gossip.record(id(17), &key("moved")).is_some())
    };
    let took = network.run_until(Duration::from_secs(10), seen);
    assert!(took.is_some_and(|took| took <= Duration::from_secs(2)), "{took:?}");
}

#[test]
fn cluster_at_rest_says_next_to_nothing() {
    for (count, most) in [(3, 1_000), (100, 2_000)] {
        let mut network = cluster(count, 8);
        network.run_until(Duration::from_secs(30), |network| agree(network, count)).expect("agreed");
        network.run_for(Duration::from_secs(60));
        let before: u64 = network.nodes().map(|(at, _)| network.traffic(at).bytes).sum();
        network.run_for(Duration::from_secs(60));
        let after: u64 = network.nodes().map(|(at, _)| network.traffic(at).bytes).sum();
        let rate = (after - before) / 60 / count as u64;
        assert!(rate < most, "{count} nodes: {rate} octets/s each");
    }
}

#[test]
fn halves_of_a_partition_see_each_other_again_after_it_heals() {
    for (seed, length) in [(9, 30), (10, 600)] {
        let mut network = cluster(10, seed);
        network.run_until(Duration::from_secs(30), |network| agree(network, 10)).expect("agreed");
        let all: Vec<_> = (0..10).map(addr).collect();
        network.partition(&all[..5], &all[5..]);
        network.run_for(Duration::from_secs(length));
        assert!(knows_dead(network.node(addr(0)).expect("runs"), id(9)), "seed {seed}: not noticed");
        network.with(addr(1), |node, now| node.gossip.set_record(now, key("meanwhile"), b"1".to_vec()));
        network.with(addr(8), |node, now| node.gossip.set_record(now, key("meanwhile"), b"8".to_vec()));
        network.heal();
        let took = network.run_until(Duration::from_secs(60), |network| agree(network, 10));
        assert!(took.is_some(), "seed {seed}: never healed");
    }
}

#[test]
fn one_deaf_direction_kills_nobody() {
    let mut network = cluster(5, 11);
    network.run_until(Duration::from_secs(30), |network| agree(network, 5)).expect("agreed");
    network.cut_one_way(addr(1), addr(2));
    network.run_for(Duration::from_secs(120));
    assert_eq!(downs(&network), Vec::<String>::new());
}

#[test]
fn restarted_node_replaces_its_records_at_once_and_not_piece_by_piece() {
    let mut network = cluster(4, 12);
    for n in 0..40 {
        network
            .with(addr(2), |node, now| node.gossip.set_record(now, key(&format!("e{n:02}")), vec![7; 200]));
    }
    network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
    network.crash(addr(2));
    network.run_for(Duration::from_secs(20));

    let mut again = node(2, 2, 99, network.now());
    for n in 5..40 {
        again.gossip.set_record(network.now(), key(&format!("e{n:02}")), vec![8; 200]).expect("room");
    }
    again.gossip.join(network.now(), &[addr(0)]);
    network.start(addr(2), again);
    let mut fewest = usize::MAX;
    let took = network.run_until(Duration::from_secs(20), |network| {
        let held = network.node(addr(1)).expect("runs").gossip.records(id(2)).count();
        fewest = fewest.min(held);
        agree(network, 4)
    });
    assert!(took.is_some_and(|took| took < Duration::from_secs(3)), "{took:?}");
    assert_eq!(fewest, 35, "records were missing in between");
    let up = network.node(addr(1)).expect("runs").events.last().map(|(_, event)| event.clone());
    assert!(up.is_some());
}

#[test]
fn restarted_node_with_an_older_epoch_is_not_heard_and_is_told() {
    let mut network = cluster(3, 13);
    network.run_until(Duration::from_secs(30), |network| agree(network, 3)).expect("agreed");
    network.crash(addr(2));
    let mut newer = node(2, 5, 1, network.now());
    newer.gossip.join(network.now(), &[addr(0)]);
    network.start(addr(2), newer);
    network.run_until(Duration::from_secs(30), |network| agree(network, 3)).expect("agreed");
    network.crash(addr(2));

    let mut rolled_back = node(2, 3, 2, network.now());
    rolled_back.gossip.set_record(network.now(), key("old"), b"old".to_vec()).expect("room");
    rolled_back.gossip.join(network.now(), &[addr(0), addr(1)]);
    network.start(addr(2), rolled_back);
    network.run_for(Duration::from_secs(60));
    let other = &network.node(addr(0)).expect("runs").gossip;
    assert!(other.record(id(2), &key("old")).is_none());
    assert!(other.counters().stale_boot > 0);
    let events = &network.node(addr(2)).expect("runs").events;
    assert!(events.iter().any(|(_, event)| *event == GossipEvent::IdentityClash(id(2))), "{events:?}");
}

#[test]
fn two_nodes_with_one_identity_are_noticed() {
    let mut network = cluster(3, 14);
    network.run_until(Duration::from_secs(30), |network| agree(network, 3)).expect("agreed");
    start_copy(&mut network, 1);
    network.run_for(Duration::from_secs(60));
    let clashes = |at| {
        let events = &network.node(addr(at)).expect("runs").events;
        events.iter().filter(|(_, event)| *event == GossipEvent::IdentityClash(id(2))).count()
    };
    assert!(clashes(0) + clashes(1) > 0, "{} {}", clashes(0), clashes(1));
}

/// Starts a copy of node 2 at another address.
fn start_copy(network: &mut Network<Node>, boot_epoch: u32) {
    let mut copy = node_at(2, addr(7), boot_epoch, 1234, network.now());
    copy.gossip.set_record(network.now(), key("n2"), b"of the copy".to_vec()).expect("room");
    copy.gossip.join(network.now(), &[addr(0), addr(1)]);
    network.start(addr(7), copy);
}

fn gave_way(network: &Network<Node>, number: usize) -> bool {
    let events = &network.node(addr(number)).expect("runs").events;
    events.iter().any(|(_, event)| matches!(event, GossipEvent::TwinFirst { .. }))
}

#[test]
fn a_copy_of_a_running_node_is_not_taken_for_it_and_gives_way() {
    // Copied before an earlier start, while it was stopped, while it ran; and started again and again.
    for boot_epoch in [2, 3, 4, 9] {
        let mut network = Network::new(14);
        for number in 0..4 {
            let mut node = node(number, 3, 14, network.now());
            node.gossip.set_record(network.now(), key("n2"), vec![7]).expect("room");
            node.gossip.join(network.now(), &[addr(0)]);
            network.start(addr(number), node);
        }
        network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
        network.run_for(Duration::from_secs(5));
        start_copy(&mut network, boot_epoch);
        let took = network.run_until(Duration::from_secs(10), |network| gave_way(network, 7));
        assert!(took.is_some_and(|took| took < Duration::from_secs(2)), "start {boot_epoch}: {took:?}");
        network.crash(addr(7));
        network.run_for(Duration::from_secs(20));
        assert!(!gave_way(&network, 2), "start {boot_epoch}");
        for number in [0, 1, 3] {
            let gossip = &network.node(addr(number)).expect("runs").gossip;
            assert_eq!(gossip.member(id(2)).map(|member| member.addr), Some(addr(2)), "start {boot_epoch}");
            assert_eq!(gossip.record(id(2), &key("n2")).expect("there").body(), [7], "start {boot_epoch}");
        }
        assert_eq!(downs(&network), Vec::<String>::new(), "start {boot_epoch}");
        assert!(agree(&network, 4), "start {boot_epoch}");
    }
}

#[test]
fn a_copy_that_half_of_the_cluster_took_for_the_node_gives_way_and_the_node_is_heard_again() {
    let mut network = cluster(5, 15);
    network.run_until(Duration::from_secs(30), |network| agree(network, 5)).expect("agreed");
    let (with_node, with_copy) = ([addr(2), addr(3), addr(4)], [addr(0), addr(1), addr(7)]);
    network.partition(&with_node, &with_copy);
    network.run_for(Duration::from_secs(20));
    start_copy(&mut network, 2);
    network.run_for(Duration::from_secs(20));
    let taken = network.node(addr(0)).expect("runs").gossip.member(id(2)).map(|member| member.addr);
    assert_eq!(taken, Some(addr(7)), "nobody there can know better");
    network.heal();
    let mut risen = false;
    let agreed = network.run_until(Duration::from_secs(90), |network| {
        risen |= network.node(addr(2)).is_some_and(|node| {
            node.events.iter().any(|(_, event)| *event == GossipEvent::TwinGone { boot_epoch: 2 })
        });
        risen
    });
    assert!(agreed.is_some() && gave_way(&network, 7) && !gave_way(&network, 2), "{agreed:?}");
    network.crash(addr(7));
    network.with(addr(2), |node, now| node.gossip.rise(now, 3));
    let agreed = network.run_until(Duration::from_secs(60), |network| agree(network, 5));
    assert!(agreed.is_some());
    let gossip = &network.node(addr(0)).expect("runs").gossip;
    assert_eq!(gossip.member(id(2)).map(|member| member.addr), Some(addr(2)));
}

#[test]
fn a_node_that_starts_elsewhere_after_its_end_is_the_next_start_of_it() {
    let mut network = cluster(4, 16);
    network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
    network.crash(addr(2));
    start_copy(&mut network, 2);
    let took = network.run_until(Duration::from_secs(40), |network| agree(network, 4));
    assert!(took.is_some_and(|took| took < Duration::from_secs(20)), "{took:?}");
    assert!(!gave_way(&network, 7));
}

#[test]
fn renumbered_node_keeps_its_identity() {
    let mut network = cluster(4, 15);
    network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
    network.readdress(addr(3), addr(33));
    network.with(addr(33), |node, now| node.gossip.set_advertise(now, addr(33)));
    let moved = |network: &Network<Node>| {
        network.nodes().all(|(_, node)| node.gossip.member(id(3)).is_some_and(|m| m.addr == addr(33)))
    };
    let took = network.run_until(Duration::from_secs(10), moved);
    assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{took:?}");
    network.run_for(Duration::from_secs(30));
    assert!(agree(&network, 4));
    assert_eq!(downs(&network), Vec::<String>::new());
    let events = &network.node(addr(0)).expect("runs").events;
    assert!(events.iter().any(|(_, event)| *event == GossipEvent::MemberMoved(id(3))));
}

#[test]
fn node_renumbered_to_where_nobody_is_sees_the_others_dead_and_comes_back() {
    let mut network = cluster(4, 17);
    network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
    let others: Vec<_> = (0..3).map(addr).collect();
    network.readdress(addr(3), addr(33));
    network.partition(&[addr(33)], &others);
    network.with(addr(33), |node, now| node.gossip.set_advertise(now, addr(33)));
    network.run_for(Duration::from_secs(30));
    let lost = network.node(addr(33)).expect("runs");
    assert!((0..3).all(|other| knows_dead(lost, id(other))), "it does not take them for alive");
    network.heal();
    assert!(network.run_until(Duration::from_secs(60), |network| agree(network, 4)).is_some());
}

#[test]
fn goodbye_is_not_a_death() {
    let mut network = cluster(4, 16);
    network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
    network.with(addr(3), |node, now| node.gossip.leave(now));
    network.run_for(Duration::from_secs(1));
    network.crash(addr(3));
    for (at, node) in network.nodes() {
        assert_eq!(node.gossip.member(id(3)).map(|m| m.state), Some(MemberState::Left), "{at}");
        assert_eq!(node.gossip.records(id(3)).count(), 0, "{at}");
        assert!(node.events.iter().any(|(_, event)| *event == GossipEvent::MemberLeft(id(3))), "{at}");
    }
    assert_eq!(downs(&network), Vec::<String>::new());
    let mut again = node(3, 2, 1, network.now());
    again.gossip.join(network.now(), &[addr(1)]);
    network.start(addr(3), again);
    network.run_until(Duration::from_secs(10), |network| agree(network, 4)).expect("back again");
}

#[test]
fn goodbye_that_somebody_missed_reaches_it_by_comparison() {
    let mut network = cluster(4, 17);
    network.run_until(Duration::from_secs(30), |network| agree(network, 4)).expect("agreed");
    let rest: Vec<_> = [0, 1, 3].map(addr).to_vec();
    network.partition(&[addr(2)], &rest);
    network.with(addr(3), |node, now| node.gossip.leave(now));
    network.run_for(Duration::from_secs(30));
    network.crash(addr(3));
    network.heal();
    let heard = |network: &Network<Node>| {
        let node = network.node(addr(2)).expect("runs");
        node.gossip.member(id(3)).is_some_and(|m| m.state == MemberState::Left) && agree(network, 3)
    };
    assert!(network.run_until(Duration::from_secs(60), heard).is_some());
}

#[test]
fn node_that_slept_blames_nobody_and_comes_back() {
    let mut network = cluster(10, 18);
    network.run_until(Duration::from_secs(30), |network| agree(network, 10)).expect("agreed");
    network.pause(addr(4), Duration::from_secs(30));
    network.run_for(Duration::from_secs(31));
    let took = network.run_until(Duration::from_secs(30), |network| agree(network, 10));
    assert!(took.is_some(), "did not come back");
    let sleeper = network.node(addr(4)).expect("runs");
    assert!(sleeper.gossip.counters().pauses > 0);
    let blamed =
        sleeper.events.iter().filter(|(_, event)| matches!(event, GossipEvent::MemberDown(_))).count();
    assert_eq!(blamed, 0);
}

#[test]
fn calls_reach_their_member_and_only_it() {
    let mut network = cluster(3, 19);
    network.run_until(Duration::from_secs(5), |network| agree(network, 3)).expect("agreed");
    network.with(addr(0), |node, now| {
        assert!(node.gossip.send_rpc(now, id(2), b"a range, please".to_vec()));
        assert!(!node.gossip.send_rpc(now, id(2), vec![0; 1001]), "too long");
        assert!(!node.gossip.send_rpc(now, id(9), vec![]), "nobody");
    });
    network.run_for(Duration::from_millis(5));
    let calls = |at| {
        let events = &network.node(addr(at)).expect("runs").events;
        events.iter().filter(|(_, e)| matches!(e, GossipEvent::Rpc { from, .. } if *from == id(0))).count()
    };
    assert_eq!((calls(1), calls(2)), (0, 1));
}

/// What the nodes of a random run really are.
struct Truth {
    /// Per place: the running identity and its epoch.
    running: BTreeMap<usize, (usize, u32)>,
    /// Last epoch of each identity.
    epochs: BTreeMap<usize, u32>,
    next_identity: usize,
}

/// Crashes, restarts, lost disks, partitions, loss, pauses and changes at random, then quiet; everybody must agree.
fn random_run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = rng.random_range(2..=12);
    let mut network = Network::<Node>::new(seed);
    network.conditions = Conditions {
        loss: [0.0, 0.05, 0.3][rng.random_range(0..3)],
        duplicates: 0.05,
        delay: Duration::from_millis(rng.random_range(0..20)),
        jitter: Duration::from_millis(rng.random_range(1..40)),
    };
    let mut truth = Truth { running: BTreeMap::new(), epochs: BTreeMap::new(), next_identity: count };
    for place in 0..count {
        boot(&mut network, &mut truth, place, place, seed);
    }
    for _ in 0..rng.random_range(5..25) {
        disturb(&mut network, &mut truth, &mut rng, count, seed);
        let pause = Duration::from_millis(rng.random_range(0..8000));
        network.run_for(pause);
    }
    network.heal();
    network.conditions.loss = 0.0;
    for place in 0..count {
        if !truth.running.contains_key(&place) {
            let identity = truth.next_identity;
            truth.next_identity += 1;
            boot(&mut network, &mut truth, place, identity, seed);
        }
    }
    let took = network.run_until(Duration::from_secs(90), |network| agree(network, count));
    assert!(took.is_some(), "seed {seed}: no agreement after 90 s of quiet");
    for (at, node) in network.nodes() {
        let counters = node.gossip.counters();
        assert_eq!(
            counters.bad_signature + counters.equivocations + counters.foreign_claims,
            0,
            "seed {seed}: {at}"
        );
        assert_eq!(
            counters.malformed + counters.malformed_seal + counters.unauthentic,
            0,
            "seed {seed}: {at}"
        );
        let clash = node.events.iter().find(|(_, event)| matches!(event, GossipEvent::IdentityClash(_)));
        assert!(clash.is_none(), "seed {seed}: {at}: {clash:?}");
    }
}

fn boot(network: &mut Network<Node>, truth: &mut Truth, place: usize, identity: usize, seed: u64) {
    let epoch = truth.epochs.entry(identity).or_default();
    *epoch += 1;
    let mut fresh = node_at(identity, addr(place), *epoch, seed, network.now());
    fresh.gossip.set_record(network.now(), key("hello"), vec![*epoch as u8]).expect("room");
    fresh.gossip.join(network.now(), &[addr(0), addr(1)]);
    truth.running.insert(place, (identity, *epoch));
    network.start(addr(place), fresh);
}

fn disturb(network: &mut Network<Node>, truth: &mut Truth, rng: &mut StdRng, count: usize, seed: u64) {
    let place = rng.random_range(0..count);
    match rng.random_range(0..10) {
        0 => {
            network.crash(addr(place));
            truth.running.remove(&place);
        }
        1 | 2 => {
            network.crash(addr(place));
            let kept = truth.running.remove(&place).map(|(identity, _)| identity);
            let identity = kept.filter(|_| rng.random_bool(0.7)).unwrap_or_else(|| {
                truth.next_identity += 1;
                truth.next_identity - 1
            });
            boot(network, truth, place, identity, seed);
        }
        3 => {
            let (one, other): (Vec<_>, Vec<_>) = (0..count).map(addr).partition(|_| rng.random_bool(0.5));
            network.partition(&one, &other);
        }
        4 => network.cut_one_way(addr(place), addr(rng.random_range(0..count))),
        5 => network.heal(),
        6 => network.pause(addr(place), Duration::from_millis(rng.random_range(0..20_000))),
        _ => {
            let (name, body) =
                (key(&format!("k{}", rng.random_range(0..5))), vec![rng.random(); rng.random_range(0..2000)]);
            let withdraw = rng.random_bool(0.3);
            network.with(addr(place), |node, now| match withdraw {
                true => node.gossip.withdraw(now, &name),
                false => node.gossip.set_record(now, name, body).expect("room"),
            });
        }
    }
}

#[test]
fn random_faults_end_in_agreement() {
    for seed in 100..140 {
        random_run(seed);
    }
}

#[test]
fn random_faults_of_a_random_seed_end_in_agreement() {
    let chance = std::collections::hash_map::RandomState::new().hash_one(0);
    for seed in chance..chance.saturating_add(10) {
        random_run(seed);
    }
}

#[test]
fn same_seed_is_the_same_run() {
    let run = || {
        let mut network = cluster(10, 77);
        network.conditions.loss = 0.1;
        network.run_for(Duration::from_secs(20));
        (0..10).map(|number| network.traffic(addr(number))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn nothing_that_travels_can_be_read_and_no_datagram_is_too_long() {
    let mut network = Network::new(20);
    network.capture = Some(Vec::new());
    for number in 0..3 {
        let mut node = node(number, 1, 20, network.now());
        for n in 0..50 {
            let body = format!("canary canary {n}").into_bytes().repeat(20);
            node.gossip.set_record(network.now(), key(&format!("canary{n}")), body).expect("room");
        }
        node.gossip.join(network.now(), &[addr(0)]);
        network.start(addr(number), node);
    }
    network.run_until(Duration::from_secs(10), |network| agree(network, 3)).expect("agreed");
    let sent = network.capture.take().expect("captured");
    assert!(
        sent.iter().any(|(_, transmit)| transmit.via == Via::Stream),
        "tables of 50 records travel by stream"
    );
    for (_, transmit) in &sent {
        assert!(transmit.bytes.len() <= transmit.via.limit());
        assert!(!transmit.bytes.windows(6).any(|octets| octets == b"canary"));
    }
    let nonces: BTreeSet<_> = sent.iter().map(|(_, transmit)| &transmit.bytes[2..46]).collect();
    assert_eq!(nonces.len(), sent.len(), "a nonce came again under its key");
}
