//! weft's gossip on the simulated network of the tests.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_control::gossip::{MemberState, RecordKey};
use weft_control::model::NodeId;

use crate::gossip_node::{Node, identity, key, node};
use crate::network::{Network, addr};
use crate::{Cluster, PATIENCE, content};

/// A cluster of weft's.
pub(crate) struct Ours {
    network: Network<Node>,
    nodes: usize,
    records: usize,
    /// Rounds of changes so far.
    round: u8,
    /// What was changed last.
    changed: BTreeMap<(NodeId, RecordKey), Vec<u8>>,
}

impl Ours {
    /// Starts `nodes` nodes, a hundred a second, and lets them find one another.
    pub(crate) fn start(nodes: usize, records: usize) -> Self {
        let mut network = Network::new(1);
        for number in 0..nodes {
            let now = network.now();
            let mut node = node(number, 1, 0, now);
            for record in 0..records {
                node.gossip
                    .set_record(
                        now,
                        key(&format!("e{record}")),
                        content(0, number * records + record).to_vec(),
                    )
                    .expect("room");
            }
            node.gossip.join(now, &[addr(0), addr(1), addr(2)]);
            network.start(addr(number), node);
            network.run_for(Duration::from_millis(10));
        }
        let mut cluster = Self { network, nodes, records, round: 0, changed: BTreeMap::new() };
        cluster
            .network
            .run_until(PATIENCE, |network| network.nodes().all(|(_, node)| knows_all(node, nodes)));
        cluster
    }

    fn changed_record(&self, change: usize) -> (RecordKey, Vec<u8>) {
        let record = change / self.nodes % self.records;
        (key(&format!("e{record}")), content(self.round, change).to_vec())
    }
}

fn knows_all(node: &Node, nodes: usize) -> bool {
    let alive = node.gossip.members().filter(|member| member.state == MemberState::Alive).count();
    alive == nodes && node.gossip.origins().all(|origin| node.gossip.is_complete(origin))
}

impl Cluster for Ours {
    fn run_for(&mut self, span: Duration) {
        self.network.run_for(span);
    }

    fn octets(&self) -> u64 {
        self.network.nodes().map(|(at, _)| self.network.traffic(at).bytes).sum()
    }

    fn change(&mut self, count: usize) {
        self.round += 1;
        self.changed.clear();
        for number in 0..self.nodes.min(count) {
            let changes = (number..count).step_by(self.nodes);
            let records: Vec<(RecordKey, Vec<u8>)> =
                changes.map(|change| self.changed_record(change)).collect();
            let origin = identity(number).node_id();
            self.changed.extend(records.iter().map(|(key, body)| ((origin, key.clone()), body.clone())));
            let set = |node: &mut Node, now| {
                records.into_iter().try_for_each(|(key, body)| node.gossip.set_record(now, key, body))
            };
            self.network.with(addr(number), set).expect("a node").expect("room");
        }
    }

    fn agree(&mut self) -> Option<Duration> {
        let changed = &self.changed;
        let holds = |node: &Node, ((origin, key), body): (&(NodeId, RecordKey), &Vec<u8>)| {
            node.gossip.record(*origin, key).is_some_and(|record| record.body() == body)
        };
        let agrees = |node: &Node| changed.iter().all(|change| holds(node, change));
        self.network.run_until(PATIENCE, |network| network.nodes().all(|(_, node)| agrees(node)))
    }
}
