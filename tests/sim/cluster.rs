//! Networks, endpoints and addresses of whole clusters: one thing at a time, with a few nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_control::api::{Ipam, IpamConfig, NetworkCreate};
use weft_control::cluster::{
    Attach, Cluster, ClusterConfig, ClusterError, ClusterEvent, Lease, Ticket, Timing,
};
use weft_control::gossip::Transmit;
use weft_control::identity::Identity;
use weft_control::model::{EndpointId, Name, NetworkId, SandboxId};
use weft_control::network::NetworkError;
use weft_control::storage::{Memory, Row, Storage, StorageError, Table, Write};
use weft_control::timestamp::UnixMillis;
use weft_control::trust::{Link, NodeCertificate, Papers, Settings};
use weft_dataplane::change::Change;
use weft_dataplane::seal::{PeerSpec, SendSession};

use crate::network::{Network, SimNode, addr};

/// A node of the cluster with the agent's part: it announces what it attached, and remembers what it was told.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) outcomes: BTreeMap<Ticket, Result<Lease, ClusterError>>,
    pub(crate) held: BTreeMap<Ticket, Result<IpNet, ClusterError>>,
    pub(crate) drained: Vec<EndpointId>,
    pub(crate) left: bool,
    pub(crate) gave_way: bool,
    /// Whom to ask for the ring.
    pub(crate) ring_at: Vec<SocketAddr>,
    /// Sessions as the dataplane would have them.
    pub(crate) peers: BTreeMap<SocketAddr, PeerSpec>,
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
                ClusterEvent::Held { ticket, result } => drop(self.held.insert(ticket, result)),
                ClusterEvent::NetworkRemoved { endpoints, .. } => self.drained.extend(endpoints),
                ClusterEvent::FetchRing(from) => self.ring_at.push(from),
                ClusterEvent::Left => self.left = true,
                ClusterEvent::TwinFirst(_) => self.gave_way = true,
                ClusterEvent::PeerChanged(Change::SetPeer(spec)) => drop(self.peers.insert(spec.vtep, spec)),
                ClusterEvent::PeerChanged(Change::RemovePeer(vtep)) => drop(self.peers.remove(&vtep)),
                ClusterEvent::PeerChanged(other) => panic!("{other:?} is not about a peer"),
                ClusterEvent::SegmentChanged(_) | ClusterEvent::NetworkAdded(_) => {}
            }
        }
    }
}

/// Rests and waits as in production, but for the long ones.
pub(crate) fn timing() -> Timing {
    Timing {
        quarantine: Duration::from_secs(20),
        balance: Duration::from_secs(12),
        forget_dead: Duration::from_secs(60),
        ..Timing::default()
    }
}

/// When every simulated cluster was founded, before any node of it ran.
pub(crate) const FOUNDED: UnixMillis = UnixMillis(1_000_000);

/// Gives a disk that is in no cluster yet the papers of a node that joined the cluster of a founder that never runs.
pub(crate) fn make_member(name: Name, disk: &dyn Storage, seed: &[u8; 32]) {
    if Papers::load(disk).expect("readable").is_some() {
        return;
    }
    let settings = Settings { name: name.clone(), advertise: String::new(), gossip_port: 7946 };
    let founder = Papers::found(&[1; 32], settings.clone(), FOUNDED);
    let (token, certificate) = founder.first_token([1; 16], &[], FOUNDED);
    let identity = Identity::from_secret(seed);
    let node = NodeCertificate::by_token(&identity, name, &token.key(), &certificate.statement, FOUNDED);
    let chain = founder.chain.extended(Link { token: Some(certificate), node });
    let papers = Papers { identity, root: None, chain, ring: founder.ring, settings };
    disk.commit("join", &papers.rows()).expect("written");
}

/// Starts the node with this number and disk.
pub(crate) fn node(number: usize, disk: Arc<dyn Storage>, seed: u64, now: Instant, wall: u64) -> Node {
    started(config(number), number, disk, seed, now, wall)
}

fn config(number: usize) -> ClusterConfig {
    ClusterConfig {
        name: format!("n{number}").parse().expect("a name"),
        advertise: addr(number),
        data_port: 4789,
        underlay_mtu: 1500,
        require_encryption: false,
        timing: timing(),
    }
}

fn started(
    config: ClusterConfig,
    number: usize,
    disk: Arc<dyn Storage>,
    seed: u64,
    now: Instant,
    wall: u64,
) -> Node {
    let mut octets = [number as u8; 32];
    octets[..8].copy_from_slice(&seed.to_be_bytes());
    make_member(config.name.clone(), &*disk, &octets);
    let cluster = Cluster::start(config, disk, octets, now, UnixMillis(wall)).expect("starts");
    Node {
        cluster,
        outcomes: BTreeMap::new(),
        held: BTreeMap::new(),
        drained: Vec::new(),
        left: false,
        gave_way: false,
        ring_at: Vec::new(),
        peers: BTreeMap::new(),
    }
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

    /// Has an address of the subnet held, a certain one or any.
    fn hold(&mut self, at: usize, network: NetworkId, ip: Option<IpAddr>) -> Result<String, ClusterError> {
        let subnet = || IpNet::new_assert([10, 9, 0, 0].into(), 24);
        let asked = self.net.with(addr(at), |node, now| node.cluster.hold(now, network, subnet(), ip));
        let ticket = asked.expect("runs")?;
        self.until("a hold has an outcome", |net| {
            net.node(addr(at)).is_some_and(|node| node.held.contains_key(&ticket))
        });
        let held =
            self.net.with(addr(at), |node, _| node.held.remove(&ticket)).flatten().expect("an outcome");
        held.map(|held| held.to_string())
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

#[test]
fn an_endpoint_that_is_called_otherwise_is_so_everywhere_and_after_a_restart() {
    let mut bench = Bench::new(2);
    let id = bench.create(0, "n1", &[]);
    bench.known_to_all(id);
    let lease = bench.attach(0, id);
    let aliases: Vec<Name> = vec!["www".parse().expect("a name")];
    for differs in [true, false] {
        let (name, aliases) = ("web".parse().expect("a name"), aliases.clone());
        let call = |node: &mut Node, now| node.cluster.rename(now, lease.endpoint, name, aliases);
        let renamed = bench.net.with(addr(0), call).expect("runs");
        assert_eq!(renamed.expect("called so"), differs);
    }
    bench.until("the other node sees the name", |net| {
        let seen = net.node(addr(1)).and_then(|node| node.cluster.network(net.now(), id));
        seen.is_some_and(|network| network.containers.values().any(|endpoint| endpoint.name == "web"))
    });
    bench.restart(0);
    let own = bench.node(0).cluster.own_endpoints().next().expect("kept");
    assert_eq!((own.name.as_str(), own.aliases), ("web", aliases));
}

#[test]
fn an_attachment_is_forwarded_to_by_others_within_milliseconds() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "n1", &[]);
    bench.known_to_all(net);
    bench.attach(1, net);
    bench.net.run_for(Duration::from_secs(1));
    bench.attach(0, net);
    let took = bench.until("the other node forwards to it", |sim| {
        let spec = sim.node(addr(1)).and_then(|node| node.cluster.segment(net));
        spec.is_some_and(|spec| spec.remote.len() == 1)
    });
    assert!(took <= Duration::from_millis(10), "{took:?} of virtual time, with 0.2 ms each way");
}

#[test]
fn networks_of_one_name_made_on_both_sides_of_a_partition_are_told_apart_the_same_way_everywhere() {
    let mut bench = Bench::new(4);
    bench.net.partition(&[addr(0), addr(1)], &[addr(2), addr(3)]);
    let older = bench.create(0, "web", &[]);
    bench.net.run_for(Duration::from_millis(50));
    let younger = bench.create(2, "web", &[]);
    let ours = bench.attach(1, older);
    let theirs = bench.attach(3, younger);
    bench.net.heal();
    bench.known_to_all(older);
    bench.known_to_all(younger);
    let marked = format!("web~{}", &younger.to_string()[..4]);
    for at in 0..4 {
        let names = bench.node(at).cluster.names();
        assert_eq!((&names[&older], &names[&younger]), (&"web".to_owned(), &marked));
        assert_eq!(bench.node(at).cluster.resolve("web").expect("found"), older);
        assert_eq!(bench.node(at).cluster.resolve(&marked).expect("found"), younger);
    }
    assert_eq!(
        ours.addresses, theirs.addresses,
        "both were first in the same subnet, and that is no conflict"
    );
    assert!(bench.node(3).cluster.status().warnings.iter().any(|w| w.contains(&marked)));
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let again = bench.create_as(1, NetworkCreate { name: "web".to_owned(), ..Default::default() });
    assert_eq!(again.expect_err("taken").to_string(), "network with name web already exists");
}

#[test]
fn a_network_with_endpoints_anywhere_is_not_removed_and_without_them_it_is_gone_for_good() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let lease = bench.attach(2, net);
    bench.until("the creator sees the endpoint", |sim| {
        let shown = sim.node(addr(0)).and_then(|node| node.cluster.network(sim.now(), net));
        shown.is_some_and(|network| network.containers.len() == 1)
    });
    let remove =
        |bench: &mut Bench, at| bench.net.with(addr(at), |n, now| n.cluster.remove_network(now, net));
    let refused = remove(&mut bench, 0).expect("runs").expect_err("refused").to_string();
    let id = lease.endpoint.short();
    let expected =
        format!("error while removing network: network web has active endpoints (name:\"c1\" id:\"{id}\")");
    assert_eq!(refused, expected);
    bench.detach(2, lease.endpoint);
    bench.net.run_for(Duration::from_millis(100));
    remove(&mut bench, 1).expect("runs").expect("removed");
    let text = net.long();
    bench.until("nobody knows it", |sim| sim.nodes().all(|(_, n)| n.cluster.resolve(&text).is_err()));
    bench.restart(0);
    bench.net.run_for(Duration::from_secs(20));
    assert!(bench.node(0).cluster.resolve(&text).is_err(), "its creator's disk does not bring it back");
    let refused = bench.net.with(addr(1), |n, now| n.cluster.remove_network(now, net)).expect("runs");
    assert_eq!(refused.expect_err("gone").to_string(), format!("network {text} not found"));
}

#[test]
fn removal_wins_over_endpoints_that_were_not_in_view_and_they_are_drained() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    bench.until("the other node has a reserve", |sim| {
        sim.node(addr(1)).is_some_and(|node| !node.cluster.ranges(net)[0].1.is_empty())
    });
    bench.net.partition(&[addr(0)], &[addr(1)]);
    let lease = bench.attach(1, net);
    let removed = bench.net.with(addr(0), |n, now| n.cluster.remove_network(now, net)).expect("runs");
    removed.expect("no endpoint in view");
    bench.net.heal();
    bench.until("the endpoint is drained", |sim| {
        sim.node(addr(1)).is_some_and(|node| node.drained == [lease.endpoint])
    });
    assert_eq!(bench.node(1).cluster.own_endpoints().count(), 0);
    let refused = bench.net.with(addr(1), |n, now| n.cluster.announce(now, lease.endpoint)).expect("runs");
    assert!(refused.is_err());
}

#[test]
fn a_mac_address_moves_once_it_was_given_up() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let mac = "02:00:00:00:00:07".parse().expect("a MAC address");
    bench.attach(2, net);
    let first = Attach { mac: Some(mac), ..bench.wish(net) };
    let first = bench.try_attach(0, first).expect("attached");
    bench.net.run_for(Duration::from_millis(100));
    assert_eq!(bench.forwards(2, net)[&mac.to_string()], addr(0).ip());
    for at in [0, 1] {
        let twice = Attach { mac: Some(mac), ..bench.wish(net) };
        let refused = bench.try_attach(at, twice).expect_err("taken").to_string();
        assert!(refused.starts_with("MAC address 02:00:00:00:00:07 is in use in network web"), "{refused}");
    }
    // As a virtual machine that migrates, which takes its address along.
    bench.detach(0, first.endpoint);
    bench.net.run_for(Duration::from_millis(100));
    let IpAddr::V4(address) = first.addresses[0].addr() else { panic!("an IPv4 network") };
    let moved = Attach { mac: Some(mac), ip4: Some(address), ..bench.wish(net) };
    let moved = bench.try_attach(1, moved).expect("attached");
    assert_eq!(moved.addresses, first.addresses);
    bench.net.run_for(Duration::from_millis(100));
    assert_eq!(bench.forwards(2, net)[&mac.to_string()], addr(1).ip());
    assert_eq!(bench.forwards(0, net).get(&mac.to_string()), None, "nothing is attached there any more");
}

#[test]
fn a_mac_address_that_two_nodes_claim_is_that_of_the_first_and_the_others_only_while_it_is_silent() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let mac = "02:00:00:00:00:07".parse().expect("a MAC address");
    bench.attach(2, net);
    bench.attach(1, net);
    // The second cannot know of the first, and has an address of its own.
    bench.net.partition(&[addr(0), addr(2)], &[addr(1)]);
    let first = Attach { mac: Some(mac), ..bench.wish(net) };
    let first = bench.try_attach(0, first).expect("attached");
    let second = Attach { mac: Some(mac), ..bench.wish(net) };
    bench.try_attach(1, second).expect("attached");
    let place = |sim: &Network<Node>| {
        let spec = sim.node(addr(2)).and_then(|node| node.cluster.segment(net))?;
        spec.remote.iter().find(|remote| remote.mac == mac).map(|remote| remote.vtep.address.ip())
    };
    bench.until("node 2 forwards to the first", |sim| place(sim) == Some(addr(0).ip()));
    bench.net.heal();
    let warned = |sim: &Network<Node>| {
        let warnings = sim.node(addr(2)).map(|node| node.cluster.status().warnings).unwrap_or_default();
        warnings.iter().any(|warning| warning.contains("is claimed by several nodes: it is that of n0"))
    };
    bench.until("node 2 hears of the second", warned);
    bench.net.run_for(Duration::from_secs(5));
    assert_eq!(place(&bench.net), Some(addr(0).ip()));
    bench.net.crash(addr(0));
    bench.until("the first is silent", |sim| place(sim) == Some(addr(1).ip()));
    bench.restart(0);
    bench.until("the first is back", |sim| place(sim) == Some(addr(0).ip()));
    bench.detach(0, first.endpoint);
    bench.until("the first gave it up", |sim| place(sim) == Some(addr(1).ip()));
    bench.until("nobody else claims it", |sim| !warned(sim));
}

#[test]
fn of_two_attachments_under_way_with_one_mac_address_the_second_is_refused() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "app", &["10.0.0.0/24"]);
    bench.known_to_all(net);
    // Node 1 has no range yet, so both wait for one.
    let mac = Some("02:00:00:00:00:07".parse().expect("a MAC address"));
    let wishes = [(); 2].map(|()| Attach { mac, ..bench.wish(net) });
    let [first, second] =
        wishes.map(|wish| bench.net.with(addr(1), |node, now| node.cluster.attach(now, wish)).expect("runs"));
    let ticket = first.expect("it waits");
    assert!(matches!(second, Err(ClusterError::Network(NetworkError::MacTaken { .. }))), "{second:?}");
    bench.until("the first is attached", |net| {
        net.node(addr(1)).is_some_and(|node| node.outcomes.get(&ticket).is_some_and(Result::is_ok))
    });
}

#[test]
fn a_certain_address_is_had_from_whoever_owns_it_or_not_at_all() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &["10.9.0.0/24"]);
    bench.known_to_all(net);
    let exact = |bench: &mut Bench, at, ip: &str| {
        let wish = Attach { ip4: Some(ip.parse().expect("an address")), ..bench.wish(net) };
        bench.try_attach(at, wish)
    };
    let lease = exact(&mut bench, 1, "10.9.0.77").expect("attached");
    assert_eq!(lease.addresses[0].to_string(), "10.9.0.77/24");
    for at in 0..3 {
        let taken = exact(&mut bench, at, "10.9.0.77").expect_err("taken").to_string();
        assert_eq!(taken, "Address already in use", "asked for on node {at}");
    }
    let gateway = exact(&mut bench, 2, "10.9.0.1").expect_err("reserved").to_string();
    assert_eq!(gateway, "Address already in use");
    let outside = exact(&mut bench, 2, "10.8.0.9").expect_err("outside").to_string();
    assert_eq!(outside, "invalid endpoint settings:\nno configured subnet contains IP address 10.8.0.9");
    bench.net.partition(&[addr(0)], &[addr(1), addr(2)]);
    let asked = bench.net.elapsed();
    let away = exact(&mut bench, 2, "10.9.0.200").expect_err("its owner does not answer");
    assert!(matches!(away, ClusterError::Unreachable { .. }), "{away}");
    assert!(away.to_string().contains("no answer from n0"), "{away}");
    assert!(bench.net.elapsed() - asked <= Duration::from_millis(5_100));
    bench.net.heal();
    bench.net.run_for(Duration::from_secs(40));
    exact(&mut bench, 2, "10.9.0.200").expect("its owner answers again");
}

#[test]
fn an_address_that_moved_on_is_asked_for_where_it_went() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &["10.9.0.0/26"]);
    bench.known_to_all(net);
    let exact = |bench: &mut Bench, at| {
        let wish = Attach { ip4: Some("10.9.0.50".parse().expect("an address")), ..bench.wish(net) };
        bench.try_attach(at, wish).expect("attached")
    };
    for at in [1, 2, 1, 0, 2] {
        let lease = exact(&mut bench, at);
        bench.detach(at, lease.endpoint);
    }
}

#[test]
fn a_node_cut_off_before_it_had_a_range_says_so_and_does_not_guess() {
    let mut bench = Bench::new(2);
    // Too small for a reserve at every node.
    let net = bench.create(0, "web", &["10.9.0.0/27"]);
    bench.known_to_all(net);
    bench.net.partition(&[addr(0)], &[addr(1)]);
    let wish = bench.wish(net);
    let away = bench.try_attach(1, wish).expect_err("nothing to give");
    assert!(matches!(away, ClusterError::Unreachable { .. }), "{away}");
    assert_eq!(away.class().status(), 503);
}

#[test]
fn a_node_with_a_reserve_attaches_when_it_is_cut_off() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    bench.until("everyone has a reserve", |sim| {
        sim.nodes().all(|(_, node)| !node.cluster.ranges(net)[0].1.is_empty())
    });
    bench.net.crash(addr(0));
    bench.net.partition(&[addr(1)], &[addr(2)]);
    let leases: Vec<_> = (0..10).flat_map(|_| [bench.attach(1, net), bench.attach(2, net)]).collect();
    let addresses: std::collections::BTreeSet<_> = leases.iter().map(|lease| lease.addresses[0]).collect();
    assert_eq!(addresses.len(), 20);
}

#[test]
fn a_full_subnet_says_so_on_every_node_and_a_freed_address_comes_back_after_its_rest() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &["10.9.0.0/29"]);
    bench.known_to_all(net);
    let mut leases: Vec<(usize, Lease)> = Vec::new();
    for at in [0, 1, 0, 1, 0] {
        leases.push((at, bench.attach(at, net)));
    }
    bench.net.run_for(Duration::from_millis(200));
    for at in 0..2 {
        let wish = bench.wish(net);
        let full = bench.try_attach(at, wish).expect_err("full").to_string();
        assert_eq!(full, "no available addresses on this pool", "on node {at}");
    }
    let (at, freed) = leases.swap_remove(0);
    bench.detach(at, freed.endpoint);
    let wish = bench.wish(net);
    assert!(bench.try_attach(at, wish).is_err(), "it rests");
    bench.restart(at);
    bench.net.run_for(timing().quarantine - Duration::from_secs(2));
    let wish = bench.wish(net);
    assert!(bench.try_attach(at, wish).is_err(), "it rests across a restart");
    bench.net.run_for(Duration::from_secs(4));
    assert_eq!(bench.attach(at, net).addresses, freed.addresses);
}

#[test]
fn an_address_is_held_for_the_endpoint_that_comes_for_it_across_a_restart_and_not_for_ever() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &["10.9.0.0/24"]);
    bench.known_to_all(net);
    let held = bench.hold(1, net, None).expect("held");
    let ip: IpAddr = held.trim_end_matches("/24").parse().expect("an address");
    let exact = |bench: &mut Bench, ip: IpAddr| {
        let IpAddr::V4(ip) = ip else { panic!("{ip} is of the subnet") };
        Attach { ip4: Some(ip), ..bench.wish(net) }
    };
    for at in 0..2 {
        let wish = exact(&mut bench, ip);
        assert!(bench.try_attach(at, wish).is_err(), "it is held, also for node {at}");
        assert!(bench.hold(at, net, Some(ip)).is_err(), "held once");
    }
    bench.restart(1);
    bench.net.run_for(Duration::from_secs(5));
    let wish = exact(&mut bench, ip);
    assert!(bench.try_attach(1, wish.clone()).is_err(), "a restart forgets no promise");
    let ticket = bench.net.with(addr(1), |node, now| node.cluster.attach_held(now, wish)).expect("runs");
    bench.net.run_for(Duration::from_secs(1));
    let outcome = bench.net.with(addr(1), |node, _| node.outcomes.remove(&ticket.expect("asked"))).flatten();
    let lease = outcome.expect("an outcome").expect("whoever it was held for has it");
    bench.net.run_for(Duration::from_secs(70));
    assert!(bench.hold(1, net, Some(ip)).is_err(), "it is an endpoint's now");
    bench.detach(1, lease.endpoint);

    let chosen = IpAddr::from([10, 9, 0, 200]);
    let other = bench.hold(0, net, Some(chosen)).expect("held");
    assert_eq!(other, "10.9.0.200/24");
    bench.net.run_for(Duration::from_secs(70));
    assert_eq!(bench.hold(1, net, Some(chosen)).expect("nobody came for it"), other);
    bench
        .net
        .with(addr(1), |node, _| node.cluster.release_hold(net, chosen))
        .expect("runs")
        .expect("released");
    let wish = exact(&mut bench, chosen);
    bench.try_attach(1, wish).expect("free again");
}

#[test]
fn the_address_of_a_freed_endpoint_can_be_asked_for_again_at_once() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    for at in [0, 0, 1, 1] {
        let wish = Attach { ip4: Some("10.1.0.9".parse().expect("an address")), ..bench.wish(net) };
        let lease = bench.try_attach(at, wish).expect("a user who names an address means it");
        bench.detach(at, lease.endpoint);
    }
}

#[test]
fn endpoints_of_a_dead_node_are_suspended_come_back_with_it_and_are_forgotten_without_it() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let lease = bench.attach(1, net);
    bench.attach(0, net);
    let mac = lease.mac.to_string();
    let state = |sim: &Network<Node>| -> Option<String> {
        let fdb = sim.node(addr(0))?.cluster.fdb(sim.now(), net);
        fdb.into_iter().find(|entry| entry.mac == mac).map(|entry| entry.state)
    };
    bench.until("it is forwarded to", |sim| state(sim).as_deref() == Some("remote"));
    bench.net.crash(addr(1));
    bench.until("its node's death is noticed", |sim| state(sim).as_deref() == Some("suspended"));
    assert_eq!(bench.forwards(0, net).len(), 1, "the packet path may still work");
    bench.restart(1);
    bench.until("it is back", |sim| state(sim).as_deref() == Some("remote"));
    assert_eq!(bench.node(1).cluster.own_endpoints().map(|own| own.lease).collect::<Vec<_>>(), [lease]);
    bench.net.crash(addr(1));
    bench.until("it is forgotten", |sim| state(sim).is_none());
    bench.net.run_for(Duration::from_secs(2));
    assert_eq!(bench.forwards(0, net).len(), 0);
}

#[test]
fn a_network_outlives_its_creator_and_a_newcomer_learns_of_it() {
    let mut bench = Bench::new(4);
    bench.net.crash(addr(3));
    let net = bench.create(0, "web", &["10.9.0.0/16"]);
    bench.until("the others know it", |sim| {
        sim.nodes().all(|(_, node)| node.cluster.resolve("web").is_ok_and(|found| found == net))
    });
    bench.until("everyone has a reserve", |sim| {
        sim.nodes().all(|(_, node)| !node.cluster.ranges(net)[0].1.is_empty())
    });
    bench.net.crash(addr(0));
    bench.net.run_for(Duration::from_secs(90));
    let disk = Arc::new(Memory::default());
    let mut newcomer = node(9, disk, 5, bench.net.now(), 3_000_000);
    newcomer.cluster.join(bench.net.now(), &[addr(1)]);
    bench.net.start(addr(9), newcomer);
    bench.until("the newcomer knows it", |sim| {
        sim.node(addr(9)).is_some_and(|node| node.cluster.resolve("web").is_ok_and(|found| found == net))
    });
    let lease = bench.attach(9, net);
    assert!(lease.addresses[0].to_string().starts_with("10.9."), "{lease:?}");
}

#[test]
fn a_node_that_leaves_hands_on_its_ranges_and_its_endpoints_go_at_once() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &["10.9.0.0/26"]);
    bench.known_to_all(net);
    let lease = bench.attach(0, net);
    bench.attach(1, net);
    bench.net.run_for(Duration::from_millis(100));
    let left = bench.net.with(addr(0), |node, now| node.cluster.leave(now)).expect("runs");
    left.expect("leaves");
    bench.until("it has left", |sim| sim.node(addr(0)).is_some_and(|node| node.left));
    bench.net.crash(addr(0));
    bench.net.run_for(Duration::from_secs(1));
    assert_eq!(bench.forwards(1, net).len(), 0);
    let owned: u128 = [1, 2]
        .iter()
        .flat_map(|&at| bench.node(at).cluster.ranges(net))
        .flat_map(|(_, claims)| claims)
        .map(|claim| claim.range.count())
        .sum();
    assert_eq!(owned, 64, "every address has an owner that is there");
    let wish = Attach { ip4: Some("10.9.0.40".parse().expect("an address")), ..bench.wish(net) };
    bench.try_attach(2, wish).expect("an heir has it");
    // The heirs keep what the leaver's last endpoint had in quarantine.
    let freed = lease.addresses[0].addr();
    for _ in 0..50 {
        let wish = bench.wish(net);
        let given = bench.try_attach(2, wish).expect("room").addresses[0].addr();
        assert_ne!(given, freed);
    }
}

#[test]
fn a_full_disk_refuses_promises_until_there_is_room() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let lease = bench.attach(0, net);
    bench.disks[0].fail(true);
    let wish = bench.wish(net);
    let refused = bench.try_attach(0, wish).expect_err("nothing can be promised");
    assert_eq!(refused.to_string(), "state at endpoint-attach: no space left on device");
    let refused = bench.net.with(addr(0), |n, now| n.cluster.detach(now, lease.endpoint)).expect("runs");
    assert!(refused.is_err());
    assert_eq!(bench.node(0).cluster.own_endpoints().count(), 1, "what was not given back is still there");
    assert!(bench.create_as(0, NetworkCreate { name: "other".to_owned(), ..Default::default() }).is_err());
    assert!(bench.node(0).cluster.status().warnings.iter().any(|w| w.contains("no space left")));
    bench.disks[0].fail(false);
    bench.attach(0, net);
    assert_eq!(bench.node(0).cluster.status().warnings, Vec::<String>::new());
}

#[test]
fn both_families_are_leased_and_automatic_addresses_stay_in_the_ip_range() {
    let mut bench = Bench::new(2);
    let config = IpamConfig {
        subnet: "10.9.0.0/16".to_owned(),
        ip_range: "10.9.5.0/24".to_owned(),
        gateway: "10.9.5.254".to_owned(),
        ..Default::default()
    };
    let request = NetworkCreate {
        name: "web".to_owned(),
        enable_ipv6: true,
        ipam: Ipam { config: vec![config], ..Default::default() },
        ..Default::default()
    };
    let net = bench.create_as(0, request).expect("created");
    bench.known_to_all(net);
    for at in [0, 1, 1] {
        let lease = bench.attach(at, net);
        let [v4, v6] = lease.addresses[..] else { panic!("two addresses: {lease:?}") };
        assert!(v4.to_string().starts_with("10.9.5.") && v4.prefix_len() == 16, "{v4}");
        assert!(v6.addr().is_ipv6() && v6.prefix_len() == 64, "{v6}");
        assert_eq!(lease.mtu, 1450);
    }
    let shown = bench.node(0).cluster.network(bench.net.now(), net).expect("known");
    assert!(shown.enable_ipv4 && shown.enable_ipv6);
    assert_eq!(shown.ipam.config[0].ip_range, "10.9.5.0/24");
}

#[test]
fn a_pinned_vni_is_used_by_everyone_and_given_once() {
    let mut bench = Bench::new(2);
    let options = [("weft.vni", "42"), ("weft.static_vteps", "192.0.2.9")];
    let options: BTreeMap<String, String> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let request =
        |name: &str| NetworkCreate { name: name.to_owned(), options: options.clone(), ..Default::default() };
    let net = bench.create_as(0, request("web")).expect("created");
    bench.known_to_all(net);
    bench.attach(0, net);
    bench.attach(1, net);
    for at in 0..2 {
        let spec = bench.node(at).cluster.segment(net).expect("a segment");
        assert_eq!((u32::from(spec.vni), spec.static_vteps.len()), (42, 1));
    }
    let refused = bench.create_as(1, request("other")).expect_err("taken").to_string();
    assert_eq!(refused, "could not assign vxlan id 42 to network other: network web has it");
}

#[test]
fn a_renumbered_host_is_forwarded_to_at_its_new_address() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let lease = bench.attach(1, net);
    bench.attach(0, net);
    bench.net.run_for(Duration::from_secs(1));
    bench.net.readdress(addr(1), addr(101));
    bench.net.with(addr(101), |node, now| node.cluster.set_advertise(now, addr(101)));
    let mac = lease.mac;
    bench.until("it is forwarded to at its new address", |sim| {
        let spec = sim.node(addr(0)).and_then(|node| node.cluster.segment(net));
        let entry = spec.and_then(|spec| spec.remote.iter().find(|endpoint| endpoint.mac == mac));
        entry.is_some_and(|endpoint| endpoint.vtep.address.ip() == addr(101).ip())
    });
}

#[test]
fn a_request_that_comes_twice_costs_one_block() {
    let mut bench = Bench::new(2);
    bench.net.conditions.duplicates = 1.0;
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    bench.attach(1, net);
    bench.net.run_for(Duration::from_secs(5));
    let shown = bench.node(1).cluster.network(bench.net.now(), net).expect("known");
    assert_eq!((shown.ranges[0].owned, shown.ranges[0].used), (256, 1));
}

#[test]
fn a_sandbox_is_in_a_network_once() {
    let mut bench = Bench::new(1);
    let net = bench.create(0, "web", &[]);
    let wish = bench.wish(net);
    bench.try_attach(0, wish.clone()).expect("attached");
    let twice = bench.try_attach(0, wish).expect_err("attached already").to_string();
    assert_eq!(twice, "endpoint with name c1 already exists in network web");
}

#[test]
fn networks_are_found_by_id_by_name_and_by_the_beginning_of_an_id() {
    let mut bench = Bench::new(1);
    let (a, b) = (bench.create(0, "a", &[]), bench.create(0, "b", &[]));
    let cluster = &bench.node(0).cluster;
    assert_eq!(cluster.resolve("a").expect("found"), a);
    assert_eq!(cluster.resolve(&b.long()).expect("found"), b);
    assert_eq!(cluster.resolve(&b.short()).expect("found"), b);
    assert_eq!(cluster.resolve("nope").expect_err("none").to_string(), "network nope not found");
    assert_eq!(cluster.resolve("").expect_err("none").to_string(), "network  not found");
}

#[test]
fn a_disk_set_back_to_before_a_grant_is_noticed_and_nothing_more_is_handed_out_there() {
    let mut bench = Bench::new(2);
    let net = bench.create(0, "web", &["10.9.0.0/27"]);
    bench.known_to_all(net);
    // Time enough to write down where the others are.
    bench.net.run_for(Duration::from_secs(2));
    let before = Arc::new((*bench.disks[0]).clone());
    bench.attach(1, net);
    bench.disks[0] = before;
    bench.restart(0);
    bench.net.run_for(Duration::from_secs(10));
    let given: Vec<_> = (0..40)
        .filter_map(|_| {
            let wish = bench.wish(net);
            bench.try_attach(0, wish).ok()
        })
        .map(|lease| lease.addresses[0])
        .collect();
    let theirs: Vec<_> = bench.node(1).cluster.own_endpoints().map(|own| own.lease.addresses[0]).collect();
    assert!(!theirs.iter().any(|address| given.contains(address)), "{theirs:?} again in {given:?}");
}

#[test]
fn a_copy_of_a_running_nodes_state_gives_way_and_the_node_promises_on() {
    let mut bench = Bench::new(3);
    let net = bench.create_as(1, encrypted("web")).expect("created");
    bench.known_to_all(net);
    let lease = bench.attach(1, net);
    bench.attach(2, net);
    bench.until("node 2 seals for node 1", |sim| is_sealed(sim, 2, 1));
    bench.net.run_for(Duration::from_secs(2));
    let disk = Arc::new((*bench.disks[1]).clone());
    let config = ClusterConfig { advertise: addr(7), ..config(1) };
    let copy = started(config, 1, disk, 5, bench.net.now(), 2_000_000);
    bench.net.start(addr(7), copy);
    bench.until("the copy gives way", |sim| sim.node(addr(7)).is_some_and(|node| node.gave_way));
    bench.net.crash(addr(7));
    bench.net.run_for(Duration::from_secs(10));
    assert!(!bench.node(1).gave_way);
    assert_eq!(bench.node(1).cluster.status().warnings, Vec::<String>::new());
    assert_eq!(bench.forwards(2, net)[&lease.mac.to_string()], addr(1).ip());
    let more = bench.attach(1, net);
    bench.until("node 2 forwards to it", |sim| {
        let spec = sim.node(addr(2)).and_then(|node| node.cluster.segment(net));
        spec.is_some_and(|spec| spec.remote.iter().any(|remote| remote.mac == more.mac))
    });
    assert!(is_sealed(&bench.net, 2, 1) && is_sealed(&bench.net, 1, 2));
    assert!(bench.node(0).cluster.status().warnings.iter().any(|w| w.contains("runs twice")));
    bench.restart(1);
    bench.until("it is heard after its next start", |sim| {
        sim.node(addr(2)).is_some_and(|node| node.cluster.status().members_alive == 3)
    });
}

#[test]
fn a_network_removed_long_ago_is_gone_for_who_was_away_too() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    bench.net.run_for(Duration::from_secs(3));
    bench.net.crash(addr(2));
    let gone = bench.net.with(addr(1), |n, now| n.cluster.remove_network(now, net)).expect("runs");
    gone.expect("removed");
    // Hundreds of others are removed since, so that this removal is no longer told to everybody.
    for n in 0..250 {
        let other = bench.create(0, &format!("net{n}"), &[]);
        bench.net.run_for(Duration::from_millis(20));
        let gone = bench.net.with(addr(0), |n, now| n.cluster.remove_network(now, other)).expect("runs");
        gone.expect("removed");
    }
    bench.net.run_for(Duration::from_secs(90));
    bench.restart(2);
    assert!(bench.node(2).cluster.resolve("web").is_ok(), "it cannot know yet");
    bench.until("it knows", |sim| sim.node(addr(2)).is_some_and(|node| node.cluster.resolve("web").is_err()));
}

#[test]
fn a_network_removed_by_a_host_with_a_wrong_clock_is_gone_everywhere_and_stays_so() {
    let mut bench = Bench::new(3);
    let net = bench.create(0, "web", &[]);
    bench.known_to_all(net);
    let right = 50 * 24 * 3600 * 1000;
    for (at, wall) in [(0, right), (1, 2_000_000), (2, right)] {
        bench.net.crash(addr(at));
        let mut node = node(at, bench.disks[at].clone(), 700 + at as u64, bench.net.now(), wall);
        node.cluster.join(bench.net.now(), &[addr((at + 1) % 3)]);
        bench.net.start(addr(at), node);
    }
    bench.known_to_all(net);
    bench.net.run_for(Duration::from_secs(5));
    let gone = bench.net.with(addr(1), |n, now| n.cluster.remove_network(now, net)).expect("runs");
    gone.expect("removed");
    for at in [0, 2] {
        let gone = |node: &Node| node.cluster.resolve("web").is_err();
        bench.until("it knows", |sim| sim.node(addr(at)).is_some_and(gone));
    }
    bench.net.run_for(Duration::from_secs(180));
    bench.restart(1);
    bench.net.run_for(Duration::from_secs(60));
    for at in 0..3 {
        assert!(bench.node(at).cluster.resolve("web").is_err(), "back on node {at}");
    }
}

#[test]
fn a_network_that_one_node_remembers_is_known_to_all_again_whichever_node_that_is() {
    for survivor in 1..6 {
        let mut bench = Bench::new(6);
        let net = bench.create(0, "web", &[]);
        bench.known_to_all(net);
        bench.net.run_for(Duration::from_secs(2));
        for at in (0..6).filter(|&at| at != survivor) {
            bench.net.crash(addr(at));
            bench.disks[at] = Arc::default();
        }
        for at in (0..6).filter(|&at| at != survivor) {
            let mut node = node(at, bench.disks[at].clone(), 500 + at as u64, bench.net.now(), 2_000_000);
            node.cluster.join(bench.net.now(), &[addr(survivor)]);
            bench.net.start(addr(at), node);
        }
        bench.known_to_all(net);
    }
}

/// A disk that counts its commits.
#[derive(Default)]
struct Counting {
    memory: Memory,
    learning: AtomicUsize,
}

impl Storage for Counting {
    fn commit(&self, step: &'static str, writes: &[Write]) -> Result<(), StorageError> {
        self.learning.fetch_add(usize::from(step == "network-learn"), Ordering::Relaxed);
        self.memory.commit(step, writes)
    }

    fn load(&self, table: Table) -> Result<Vec<Row>, StorageError> {
        self.memory.load(table)
    }
}

#[test]
fn a_newcomer_learns_hundreds_of_networks_with_a_few_commits() {
    let mut bench = Bench::new(2);
    let networks: Vec<NetworkId> = (0..300).map(|n| bench.create(n % 2, &format!("net{n}"), &[])).collect();
    bench.net.run_for(Duration::from_secs(20));
    let disk = Arc::new(Counting::default());
    let mut newcomer = node(9, disk.clone(), 5, bench.net.now(), 3_000_000);
    newcomer.cluster.join(bench.net.now(), &[addr(0), addr(1)]);
    bench.net.start(addr(9), newcomer);
    let ids: Vec<String> = networks.iter().map(NetworkId::long).collect();
    bench.until("the newcomer knows them all", |sim| {
        sim.node(addr(9)).is_some_and(|node| ids.iter().all(|id| node.cluster.resolve(id).is_ok()))
    });
    let learning = disk.learning.load(Ordering::Relaxed);
    assert!((1..=20).contains(&learning), "{learning} commits for 300 networks");
}

#[test]
fn a_network_and_its_removal_heard_in_one_breath_are_no_network() {
    let mut bench = Bench::new(3);
    bench.net.crash(addr(2));
    let net = bench.create(0, "web", &[]);
    bench.net.run_for(Duration::from_secs(1));
    bench.net.partition(&[addr(0)], &[addr(1)]);
    let gone = bench.net.with(addr(1), |n, now| n.cluster.remove_network(now, net)).expect("runs");
    gone.expect("removed");
    bench.restart(2);
    bench.net.heal();
    let text = net.long();
    bench.net.run_for(Duration::from_secs(30));
    assert!(bench.net.nodes().all(|(_, node)| node.cluster.resolve(&text).is_err()));
    bench.restart(2);
    assert!(bench.node(2).cluster.resolve(&text).is_err(), "nor after a restart");
}

fn encrypted(name: &str) -> NetworkCreate {
    let options = [("encrypted".to_owned(), String::new())].into();
    NetworkCreate { name: name.to_owned(), options, ..Default::default() }
}

/// Whether what `from` seals for `to` can be opened there.
fn is_sealed(sim: &Network<Node>, from: usize, to: usize) -> bool {
    let vtep = |number| SocketAddr::new(addr(number).ip(), 4789);
    let (Some(sender), Some(receiver)) = (sim.node(addr(from)), sim.node(addr(to))) else { return false };
    let send = sender.peers.get(&vtep(to)).and_then(|spec| spec.send.as_ref());
    let receive = receiver.peers.get(&vtep(from)).map(|spec| &spec.receive);
    let opens = |send: &SendSession| receive?.iter().find(|r| (r.index, &r.key) == (send.index, &send.key));
    send.and_then(opens).is_some()
}

#[test]
fn nodes_that_share_an_encrypted_network_have_sessions_ahead_of_traffic_and_others_have_none() {
    let mut bench = Bench::new(4);
    let net = bench.create_as(0, encrypted("web")).expect("created");
    let clear = bench.create(0, "clear", &[]);
    bench.known_to_all(net);
    bench.known_to_all(clear);
    bench.attach(0, net);
    bench.net.run_for(Duration::from_secs(3));
    let lease = bench.attach(1, net);
    assert_eq!(lease.mtu, 1426);
    (1..4).for_each(|at| drop(bench.attach(at, clear)));
    let took = bench.until("both can seal", |sim| is_sealed(sim, 0, 1) && is_sealed(sim, 1, 0));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    bench.net.run_for(Duration::from_secs(5));
    assert!(bench.node(2).peers.is_empty() && bench.node(3).peers.is_empty());
    let segment = bench.node(0).cluster.segment(net).expect("a segment");
    assert_eq!((segment.sealing, segment.mtu), (Some(net.0), 1426));
    assert_eq!(bench.node(2).cluster.segment(clear).expect("a segment").sealing, None);
    let shown = bench.node(0).cluster.network(bench.net.now(), net).expect("known");
    assert_eq!(shown.options["encrypted"], "true");
    let session = shown.peers.iter().find_map(|peer| peer.session.as_ref()).expect("one peer is sealed for");
    assert_eq!((session.state.as_str(), session.cipher.as_str()), ("established", "AES-256-GCM"));
}

#[test]
fn a_node_that_restarts_can_be_sealed_for_again_in_a_few_seconds() {
    let mut bench = Bench::new(2);
    let net = bench.create_as(0, encrypted("web")).expect("created");
    bench.known_to_all(net);
    bench.attach(0, net);
    bench.attach(1, net);
    bench.until("both can seal", |sim| is_sealed(sim, 0, 1) && is_sealed(sim, 1, 0));
    bench.net.run_for(Duration::from_secs(3));
    bench.restart(1);
    let took = bench.until("both can seal again", |sim| is_sealed(sim, 0, 1) && is_sealed(sim, 1, 0));
    assert!(took <= Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_node_that_claims_anothers_tunnel_end_is_not_sealed_for_and_takes_nothing_over() {
    let mut bench = Bench::new(3);
    let net = bench.create_as(0, encrypted("web")).expect("created");
    bench.known_to_all(net);
    (0..3).for_each(|at| drop(bench.attach(at, net)));
    bench.until("all can seal", |sim| (0..3).all(|n| is_sealed(sim, n, (n + 1) % 3)));
    let victim = SocketAddr::new(addr(1).ip(), 4789);
    let behind = |bench: &Bench| {
        let segment = bench.node(0).cluster.segment(net).expect("a segment");
        let remote = segment.remote.iter().filter(|endpoint| endpoint.vtep.address == victim);
        remote.map(|endpoint| endpoint.mac).collect::<Vec<_>>()
    };
    let (sessions, endpoints) = (bench.node(0).peers.get(&victim).cloned(), behind(&bench));
    bench.net.with(addr(2), |node, now| node.cluster.set_advertise(now, addr(1))).expect("runs");
    bench.net.run_for(Duration::from_secs(2));
    assert_eq!((bench.node(0).peers.get(&victim).cloned(), behind(&bench)), (sessions, endpoints));
    assert_eq!(bench.node(0).peers.len(), 1);
    let warnings = bench.node(0).cluster.status().warnings;
    assert!(warnings.iter().any(|text| text.contains("claims the tunnel end 10.0.0.1:4789")), "{warnings:?}");
    bench.net.with(addr(2), |node, now| node.cluster.set_advertise(now, addr(2))).expect("runs");
    bench.until("it is sealed for again", |sim| is_sealed(sim, 0, 2) && is_sealed(sim, 0, 1));
}

#[test]
fn sessions_end_with_the_last_shared_encrypted_network_and_with_the_member() {
    let mut bench = Bench::new(3);
    let net = bench.create_as(0, encrypted("web")).expect("created");
    bench.known_to_all(net);
    let leases: Vec<Lease> = (0..3).map(|at| bench.attach(at, net)).collect();
    bench.until("all can seal", |sim| (0..3).all(|n| is_sealed(sim, n, (n + 1) % 3)));
    bench.net.with(addr(2), |node, now| node.cluster.leave(now)).expect("runs").expect("leaves");
    bench.until("the one that left is forgotten", |sim| {
        sim.node(addr(0)).is_some_and(|node| node.peers.keys().all(|vtep| vtep.ip() != addr(2).ip()))
    });
    bench.detach(1, leases[1].endpoint);
    bench.net.run_for(Duration::from_secs(1_000));
    let session = |bench: &Bench| bench.node(0).peers.values().any(|spec| spec.send.is_some());
    assert!(!session(&bench), "it is wiped once it is idle");
}

#[test]
fn a_node_that_requires_encryption_makes_and_joins_nothing_else() {
    let mut bench = Bench::new(2);
    let clear = bench.create(0, "clear", &[]);
    let net = bench.create_as(0, encrypted("web")).expect("created");
    bench.known_to_all(clear);
    bench.known_to_all(net);
    let before = bench.attach(1, clear);
    bench.attach(0, clear);
    bench.net.crash(addr(1));
    let strict = ClusterConfig { require_encryption: true, ..config(1) };
    let mut strict = started(strict, 1, bench.disks[1].clone(), 44, bench.net.now(), 2_000_000);
    strict.cluster.join(bench.net.now(), &[addr(0)]);
    bench.net.start(addr(1), strict);
    bench.net.run_for(Duration::from_secs(5));
    let refused = bench.create_as(1, NetworkCreate { name: "other".to_owned(), ..Default::default() });
    let text = refused.expect_err("refused").to_string();
    assert!(text.starts_with("network other is not encrypted and this node requires it"), "{text}");
    let wish = bench.wish(clear);
    let text = bench.try_attach(1, wish).expect_err("refused").to_string();
    assert!(text.starts_with("network clear is not encrypted"), "{text}");
    let segment = bench.node(1).cluster.segment(clear).expect("what is attached stays");
    assert_eq!((segment.local.len(), segment.remote.len(), segment.members.len()), (1, 0, 0));
    assert_eq!(bench.forwards(0, clear).get(&before.mac.to_string()), None, "nobody sends to it");
    let warnings = bench.node(1).cluster.status().warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("network clear is not encrypted")),
        "{warnings:?}"
    );
    bench.attach(1, net);
}

#[test]
fn a_subnet_is_shared_out_so_that_a_dead_creator_strands_its_share_only() {
    let mut bench = Bench::new(4);
    let net = bench.create(0, "web", &["10.9.0.0/16"]);
    bench.known_to_all(net);
    bench.net.run_for(Duration::from_secs(60));
    let owned: Vec<u64> = (0..4)
        .map(|at| bench.node(at).cluster.network(bench.net.now(), net).expect("known").ranges[0].owned)
        .collect();
    assert_eq!(owned.iter().sum::<u64>(), 65_533, "without network, broadcast and gateway: {owned:?}");
    assert!(owned.iter().all(|&owned| owned >= 65_533 / 8), "{owned:?}");
}
