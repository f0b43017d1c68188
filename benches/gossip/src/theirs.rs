//! chitchat on its own channel transport, in tokio's paused time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use chitchat::transport::ChannelTransport;
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion,
    spawn_chitchat,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::{Cluster, PATIENCE, content};

/// Time between two rounds, Quickwit's.
const ROUND: Duration = Duration::from_secs(1);
/// Largest message, octets: what fits in a datagram.
const MTU: usize = 65_507;
/// How many others are told at once, where they are: as many as in a round.
const PUSHES: usize = 3;
/// Grace periods, Quickwit's.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether all agree.
const LOOK: Duration = Duration::from_millis(10);

/// A cluster of chitchat's.
pub(crate) struct Theirs {
    runtime: Runtime,
    transport: ChannelTransport,
    handles: Vec<ChitchatHandle>,
    records: usize,
    pushed: bool,
    rng: StdRng,
    round: u8,
    changed: BTreeMap<(ChitchatId, String), String>,
}

impl Theirs {
    /// Starts `nodes` nodes, a hundred a second, and lets them find one another.
    pub(crate) fn start(nodes: usize, records: usize, pushed: bool) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let transport = ChannelTransport::with_mtu(MTU);
        let mut handles = Vec::new();
        for number in 0..nodes {
            let keys =
                (0..records).map(|record| (key(record), value(0, number * records + record))).collect();
            let handle = runtime.block_on(spawn_chitchat(config(number), keys, &transport))?;
            runtime.block_on(async { sleep(Duration::from_millis(10)).await });
            handles.push(handle);
        }
        let rng = StdRng::seed_from_u64(1);
        let mut cluster =
            Self { runtime, transport, handles, records, pushed, rng, round: 0, changed: BTreeMap::new() };
        cluster.until(move |chitchat| {
            let states = chitchat.node_states();
            states.len() == nodes && states.values().all(|state| state.num_key_values() == records)
        });
        Ok(cluster)
    }

    /// Lets time pass until every node is as wanted.
    fn until(&mut self, mut done: impl FnMut(&Chitchat) -> bool) -> Option<Duration> {
        let nodes: Vec<Arc<Mutex<Chitchat>>> = self.handles.iter().map(ChitchatHandle::chitchat).collect();
        self.runtime.block_on(async {
            let start = Instant::now();
            // Those that are as wanted remain so.
            let mut left = nodes;
            while start.elapsed() < PATIENCE {
                let mut others = Vec::new();
                for node in left {
                    if !done(&*node.lock().await) {
                        others.push(node);
                    }
                }
                left = others;
                if left.is_empty() {
                    return Some(start.elapsed());
                }
                sleep(LOOK).await;
            }
            None
        })
    }

    fn push(&mut self, number: usize) {
        for _ in 0..PUSHES {
            let other = self.rng.random_range(0..self.handles.len());
            // To itself it is as good as not sent, as is one that is lost.
            let _ = self.handles[number].gossip(addr(other));
        }
    }
}

impl Cluster for Theirs {
    fn run_for(&mut self, span: Duration) {
        self.runtime.block_on(async { sleep(span).await });
    }

    fn octets(&self) -> u64 {
        self.transport.statistics().num_bytes_total
    }

    fn change(&mut self, count: usize) {
        self.round += 1;
        self.changed.clear();
        let nodes = self.handles.len();
        for change in 0..count {
            let (handle, key) = (&self.handles[change % nodes], key(change / nodes % self.records));
            let value = value(self.round, change);
            self.changed.insert((handle.chitchat_id().clone(), key.clone()), value.clone());
            let set = |chitchat: &mut Chitchat| chitchat.self_node_state().set(key.clone(), value.clone());
            self.runtime.block_on(handle.with_chitchat(set));
        }
        if self.pushed {
            // What a node changes at a time it tells in one go.
            (0..nodes.min(count)).for_each(|number| self.push(number));
        }
    }

    fn agree(&mut self) -> Option<Duration> {
        let changed = std::mem::take(&mut self.changed);
        let holds = |chitchat: &Chitchat, ((id, key), value): (&(ChitchatId, String), &String)| {
            chitchat.node_state(id).and_then(|state| state.get(key)) == Some(value)
        };
        self.until(|chitchat| changed.iter().all(|change| holds(chitchat, change)))
    }
}

fn config(number: usize) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(format!("node-{number:011}"), 1, addr(number)),
        cluster_id: "bench".to_owned(),
        gossip_interval: ROUND,
        listen_addr: addr(number),
        seed_nodes: (0..3).map(|seed| addr(seed).to_string()).collect(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: 16.0,
            sampling_window_size: 200,
            initial_interval: ROUND,
            dead_node_grace_period: GRACE,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}

fn addr(number: usize) -> SocketAddr {
    SocketAddr::from(([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], 7946))
}

fn key(record: usize) -> String {
    format!("e{record}")
}

/// The content as text, six bits a character.
fn value(round: u8, record: usize) -> String {
    BASE64_STANDARD_NO_PAD.encode(content(round, record))
}
