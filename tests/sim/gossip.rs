//! Gossip between many nodes: joining, spreading, failing, healing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_control::gossip::{ClusterKey, Gossip, GossipConfig, GossipEvent, MemberState, RecordKey, Transmit};
use weft_control::identity::Identity;
use weft_control::model::NodeId;

use crate::network::{Network, SimNode, addr};

/// A gossip node that remembers what it was told.
struct Node {
    gossip: Gossip,
    events: Vec<(Instant, GossipEvent)>,
}

impl SimNode for Node {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.gossip.handle_datagram(now, from, datagram);
    }

    fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) {
        self.gossip.handle_stream(now, from, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.gossip.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.gossip.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.gossip.poll_transmit()
    }

    fn observe(&mut self, now: Instant) {
        while let Some(event) = self.gossip.poll_event() {
            self.events.push((now, event));
        }
    }
}

fn node(number: usize, boot_epoch: u32, seed: u64, now: Instant) -> Node {
    let config = GossipConfig {
        name: format!("n{number}").parse().expect("a name"),
        advertise: addr(number),
        data_port: 4789,
        key: ClusterKey::from_bytes(std::array::from_fn(|i| i as u8)).expect("a key"),
        boot_epoch,
    };
    let gossip = Gossip::new(config, identity(number), seed ^ (number as u64) << 20, now);
    Node { gossip, events: Vec::new() }
}

fn identity(number: usize) -> Identity {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Identity::from_secret(&secret)
}

fn id(number: usize) -> NodeId {
    identity(number).node_id()
}

fn key(text: &str) -> RecordKey {
    RecordKey::new(text.as_bytes()).expect("a key")
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
