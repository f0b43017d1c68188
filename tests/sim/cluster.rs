//! Networks, endpoints and addresses of whole clusters: one thing at a time, with a few nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_control::api::{Ipam, IpamConfig, NetworkCreate};
use weft_control::cluster::{
    Attach, Cluster, ClusterConfig, ClusterError, ClusterEvent, Lease, Ticket, Timing,
};
use weft_control::gossip::{ClusterKey, Transmit};
use weft_control::model::{EndpointId, NetworkId, SandboxId};
use weft_control::storage::{Memory, Storage};
use weft_control::timestamp::UnixMillis;

use crate::network::{Network, SimNode, addr};

/// A node of the cluster with the agent's part: it announces what it attached, and remembers what it was told.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) outcomes: BTreeMap<Ticket, Result<Lease, ClusterError>>,
    pub(crate) drained: Vec<EndpointId>,
    pub(crate) left: bool,
}

impl SimNode for Node {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.cluster.handle_datagram(now, from, datagram);
    }

    fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) {
        self.cluster.handle_stream(now, from, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.cluster.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.cluster.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.cluster.poll_transmit()
    }

    fn observe(&mut self, now: Instant) {
        while let Some(event) = self.cluster.poll_event() {
            match event {
                ClusterEvent::Attached { ticket, result } => {
                    if let Ok(lease) = &result {
                        // Gone again if its network was removed in the same breath.
                        let _ = self.cluster.announce(now, lease.endpoint);
                    }
                    self.outcomes.insert(ticket, result);
                }
                ClusterEvent::NetworkRemoved { endpoints, .. } => self.drained.extend(endpoints),
                ClusterEvent::Left => self.left = true,
                ClusterEvent::SegmentChanged(_) | ClusterEvent::NetworkAdded(_) => {}
            }
        }
    }
}

/// Rests and waits as in production, but for the long ones.
pub(crate) fn timing() -> Timing {
    Timing { quarantine: Duration::from_secs(20), forget_dead: Duration::from_secs(60), ..Timing::default() }
}

/// Starts the node with this number and disk.
pub(crate) fn node(number: usize, disk: Arc<dyn Storage>, seed: u64, now: Instant, wall: u64) -> Node {
    let config = ClusterConfig {
        name: format!("n{number}").parse().expect("a name"),
        advertise: addr(number),
        data_port: 4789,
        key: ClusterKey::from_bytes(std::array::from_fn(|i| i as u8)).expect("a key"),
        underlay_mtu: 1500,
        timing: timing(),
    };
    let mut octets = [number as u8; 32];
    octets[..8].copy_from_slice(&seed.to_be_bytes());
    let cluster = Cluster::start(config, disk, octets, now, UnixMillis(wall)).expect("starts");
    Node { cluster, outcomes: BTreeMap::new(), drained: Vec::new(), left: false }
}

/// A cluster whose nodes have joined, and their disks.
struct Bench {
    net: Network<Node>,
    disks: Vec<Arc<Memory>>,
    sandboxes: u128,
}

impl Bench {
    fn new(count: usize) -> Self {
        let mut net = Network::new(1);
        let disks: Vec<Arc<Memory>> = (0..count).map(|_| Arc::default()).collect();
        for (number, disk) in disks.iter().enumerate() {
            let mut node = node(number, disk.clone(), 77, net.now(), 1_000_000);
            node.cluster.join(net.now(), &[addr(0)]);
            net.start(addr(number), node);
        }
        let mut bench = Self { net, disks, sandboxes: 0 };
        bench.until("everyone is a member", |net| {
            net.nodes().all(|(_, n)| n.cluster.status().members_alive == count)
        });
        bench
    }

    fn until(&mut self, what: &str, done: impl FnMut(&Network<Node>) -> bool) -> Duration {
        self.net.run_until(Duration::from_secs(90), done).unwrap_or_else(|| panic!("never: {what}"))
    }

    fn create(&mut self, at: usize, name: &str, subnets: &[&str]) -> NetworkId {
        let config = |subnet: &&str| IpamConfig { subnet: (*subnet).to_owned(), ..Default::default() };
        let ipam = Ipam { config: subnets.iter().map(config).collect(), ..Default::default() };
        let request = NetworkCreate { name: name.to_owned(), ipam, ..Default::default() };
        self.create_as(at, request).expect("created")
    }

    fn create_as(&mut self, at: usize, request: NetworkCreate) -> Result<NetworkId, ClusterError> {
        self.net.with(addr(at), |node, now| node.cluster.create_network(now, request)).expect("runs")
    }

    fn known_to_all(&mut self, id: NetworkId) {
        self.until("everyone knows the network", |net| {
            let text = id.long();
            net.nodes().all(|(_, node)| node.cluster.resolve(&text).is_ok())
        });
    }

    fn wish(&mut self, network: NetworkId) -> Attach {
        self.sandboxes += 1;
        Attach {
            network,
            sandbox: SandboxId(self.sandboxes.to_be_bytes()),
            name: format!("c{}", self.sandboxes).parse().expect("a name"),
            ip4: None,
            ip6: None,
            mac: None,
            aliases: Vec::new(),
        }
    }

    fn try_attach(&mut self, at: usize, wish: Attach) -> Result<Lease, ClusterError> {
        let ticket = self.net.with(addr(at), |node, now| node.cluster.attach(now, wish)).expect("runs")?;
        self.until("an attachment has an outcome", |net| {
            net.node(addr(at)).is_some_and(|node| node.outcomes.contains_key(&ticket))
        });
        self.net.with(addr(at), |node, _| node.outcomes.remove(&ticket)).flatten().expect("an outcome")
    }

    fn attach(&mut self, at: usize, network: NetworkId) -> Lease {
        let wish = self.wish(network);
        self.try_attach(at, wish).expect("attached")
    }

    fn detach(&mut self, at: usize, endpoint: EndpointId) {
        let done = self.net.with(addr(at), |node, now| node.cluster.detach(now, endpoint)).expect("runs");
        done.expect("detached");
    }

    fn restart(&mut self, at: usize) {
        self.net.crash(addr(at));
        let node = node(at, self.disks[at].clone(), 99, self.net.now(), 2_000_000);
        self.net.start(addr(at), node);
    }

    fn node(&self, at: usize) -> &Node {
        self.net.node(addr(at)).expect("runs")
    }

    /// MAC addresses that a node forwards to, with the underlay address they are at.
    fn forwards(&self, at: usize, network: NetworkId) -> BTreeMap<String, IpAddr> {
        let spec = self.node(at).cluster.segment(network);
        let remote = spec.into_iter().flat_map(|spec| &spec.remote);
        remote.map(|endpoint| (endpoint.mac.to_string(), endpoint.vtep.address.ip())).collect()
    }
}

#[test]
fn endpoints_on_three_nodes_get_different_addresses_and_find_each_other() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "n1", &[]);
    bench.known_to_all(net);
    let leases: Vec<Lease> = (0..3).map(|at| bench.attach(at, net)).collect();
    let mut addresses: Vec<_> = leases.iter().map(|lease| lease.addresses[0]).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3);
    bench.until("each node forwards to both others", |sim| {
        sim.nodes().all(|(_, node)| node.cluster.segment(net).is_some_and(|spec| spec.remote.len() == 2))
    });
    let expected = [(leases[1].mac.to_string(), addr(1).ip()), (leases[2].mac.to_string(), addr(2).ip())];
    assert_eq!(bench.forwards(0, net), expected.into());
}
