//! Gossip of a large cluster in one thread, in virtual time: how fast news spread, what rest costs, and what one more node.
//!
//! `gossip-scale [NODES [RECORDS [LOSS]]]`; prints one line per figure. The default, 1,000 nodes with 3 records
//! each, takes about 2 GB of memory, as every node holds everything.

#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "a program that prints; the network has more than it needs"
)]

#[path = "../tests/sim/gossip_node.rs"]
mod gossip_node;
#[path = "../tests/sim/network.rs"]
mod network;

use std::time::{Duration, Instant};

use gossip_node::{Node, identity, key, node};
use network::{Network, addr};
use weft_control::gossip::{GossipEvent, MemberState, RecordKey};
use weft_control::model::NodeId;

/// A node with its records that joins by the first three.
fn member(number: usize, records: usize, now: Instant) -> Node {
    let mut node = node(number, 1, 0, now);
    for record in 0..records {
        node.gossip.set_record(now, key(&format!("e{record}")), vec![record as u8; 100]).expect("room");
    }
    node.gossip.join(now, &[addr(0), addr(1), addr(2)]);
    node
}

fn argument(place: usize, default: f64) -> f64 {
    std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn bytes(network: &Network<Node>) -> u64 {
    network.nodes().map(|(at, _)| network.traffic(at).bytes).sum()
}

fn holds(network: &Network<Node>, origin: NodeId, key: &RecordKey) -> usize {
    network.nodes().filter(|(_, node)| node.gossip.record(origin, key).is_some()).count()
}

/// How long one more node takes to learn everything, and the others to learn of it; what that costs all together.
fn join(network: &mut Network<Node>, count: usize, records: usize) {
    let (before, newcomer) = (bytes(network), addr(count));
    let fresh = member(count, records, network.now());
    network.start(newcomer, fresh);
    let knows = |node: &Node| {
        node.gossip.origins().count() == count + 1
            && node.gossip.origins().all(|origin| node.gossip.is_complete(origin))
    };
    let limit = Duration::from_secs(60);
    let took = network.run_until(limit, |network| network.node(newcomer).is_some_and(knows));
    println!("a node that joined had all after {took:?}");
    let told = network.run_until(limit, |network| network.nodes().all(|(_, node)| knows(node)));
    println!("and all had its records after another {told:?}");
    println!("its joining cost {} octets in all (rest included)", bytes(network) - before);
}

fn main() {
    let (count, records, loss) = (argument(1, 1000.0) as usize, argument(2, 3.0) as usize, argument(3, 0.0));
    let mut network = Network::new(1);
    for number in 0..count {
        let fresh = member(number, records, network.now());
        network.start(addr(number), fresh);
        // A hundred hosts a second.
        network.run_for(Duration::from_millis(10));
    }
    let everything = |network: &Network<Node>| {
        network.nodes().all(|(_, node)| {
            let members = node.gossip.members().filter(|member| member.state == MemberState::Alive).count();
            members == count && node.gossip.origins().all(|origin| node.gossip.is_complete(origin))
        })
    };
    let joined = network.run_until(Duration::from_secs(120), everything);
    println!("{count} nodes x {records} records; after the last one started, all knew all in {joined:?}");

    network.run_for(Duration::from_secs(40));
    network.conditions.loss = loss;
    let before = bytes(&network);
    network.run_for(Duration::from_secs(30));
    println!("at rest: {} octets/s per node", (bytes(&network) - before) / 30 / count as u64);

    let (before, origin, change) = (bytes(&network), identity(count / 2).node_id(), key("change"));
    network.with(addr(count / 2), |node, now| node.gossip.set_record(now, change.clone(), vec![1; 100]));
    for share in [50, 99, 100] {
        let start = network.now();
        let took = network.run_until(Duration::from_secs(20), |network| {
            holds(network, origin, &change) * 100 >= count * share
        });
        println!("change at {share} % after another {took:?} ({:?})", network.now() - start);
    }
    println!("the change cost {} octets per node (rest included)", (bytes(&network) - before) / count as u64);

    join(&mut network, count, records);

    let is_death = |event: &GossipEvent| matches!(event, GossipEvent::MemberDown(_));
    let of_node = |node: &Node| node.events.iter().filter(|(_, event)| is_death(event)).count();
    let deaths: usize = network.nodes().map(|(_, node)| of_node(node)).sum();
    println!("false deaths: {deaths}");
    network.crash(addr(count - 1));
    let dead = identity(count - 1).node_id();
    let known = network.run_until(Duration::from_secs(60), |network| {
        let down =
            |node: &Node| node.gossip.member(dead).is_some_and(|member| member.state == MemberState::Down);
        network.nodes().all(|(_, node)| down(node))
    });
    println!("a death was known to all after {known:?}");
}
