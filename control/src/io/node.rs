//! What the agent's loop knows and decides on: the cluster, the sandboxes, what is programmed.
//!
//! Everything here runs on the loop and never waits. Work on the kernel is handed to the [`Worker`] together with
//! what to do afterwards; calls are answered from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use weft_dataplane::change::Change;
use weft_dataplane::io::Dataplane;
use weft_dataplane::segment::SegmentSpec;
use weft_dataplane::wire::{MacAddr, Vni};

use super::dhcp::Dhcp;
use super::process;
use super::proxy::Relay;
use super::server::{Answer, Refusal};
use super::worker::{Purpose, Worker};
use crate::catalog::{self, Reach};
use crate::cluster::{Cluster, ClusterError, ClusterEvent, Ticket};
use crate::driver::WantedEndpoint;
use crate::driver::overlay::Wanted;
use crate::local::{Local, LocalError};
use crate::model::{EndpointId, Name, NetworkId, SandboxId};
use crate::network::{Attach, Lease, NetworkError, OwnEndpoint};
use crate::publish::Publishing;
use crate::sandbox::{self, SandboxError, Sandboxes};
use crate::storage::{Storage, StorageError, Table, Write};

mod bridges;
mod calls;
mod connect;
mod containers;
mod dhcp;
mod docker;
mod engine;
mod errand;
mod gateway;
mod lifecycle;
mod moved;
mod names;
mod publishing;
mod sandboxes;
mod shown;

pub(crate) use docker::Docker;
pub(crate) use engine::Engine;
use errand::{Errand, Errands};
use moved::Holders;
pub(crate) use names::Names;
pub(crate) use shown::Facts;

/// How a call is answered.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Refusal>>;

/// An attachment that waits for its addresses.
struct Waiting {
    sandbox: SandboxId,
    reply: Reply,
}

/// What was repaired or went wrong, counted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct NodeCounters {
    /// Audits of networks.
    pub(crate) audits: u64,
    /// Steps of repair that audits found necessary.
    pub(crate) repairs: u64,
    /// Work on the kernel that failed.
    pub(crate) kernel_failures: u64,
}

/// The agent's state.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) local: Local,
    storage: Arc<dyn Storage>,
    sandboxes: Sandboxes,
    publishing: Publishing,
    relay: Relay,
    dhcp: Dhcp,
    docker: Docker,
    engine: Option<Engine>,
    worker: Worker,
    pub(crate) names: Names,
    pub(crate) dataplane: Arc<Dataplane>,
    pub(crate) facts: Facts,
    pub(crate) counters: NodeCounters,
    /// Segments as the dataplane has them.
    programmed: BTreeMap<NetworkId, SegmentSpec>,
    holders: Holders,
    /// VNI and MTU the kernel was last settled with.
    settled: BTreeMap<NetworkId, (Vni, u16)>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Endpoints whose interface is being made.
    fresh: BTreeSet<EndpointId>,
    /// Interfaces made since the last tick. The bridge may not have passed on what they said at once.
    untold: Vec<(SandboxId, String, MacAddr)>,
    /// Removals that somebody waits for.
    errands: Errands,
    /// Names of sandboxes being made.
    making: BTreeSet<Name>,
    /// Members to fetch the keys of the cluster from.
    pub(crate) ring_at: Vec<SocketAddr>,
    /// Whether the firewall was taken away, for good.
    torn_down: bool,
    /// Whether the host is to be taken out of the cluster.
    pub(crate) leaving: bool,
    /// Whether the node has handed on what it had.
    pub(crate) left: bool,
    /// Where another agent runs with this node's identity that was there first.
    pub(crate) twin: Option<SocketAddr>,
    /// Started, and all that was there before is there again.
    pub(crate) recovered: bool,
}

/// The present, by the clock that orders events.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number nobody can guess.
///
/// # Errors
/// The operating system has no randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(internal)?;
    Ok(octets)
}

fn internal(fault: impl ToString) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, fault)
}

fn bad_request(fault: impl ToString) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, fault)
}

impl From<ClusterError> for Refusal {
    fn from(fault: ClusterError) -> Self {
        let status =
            StatusCode::from_u16(fault.class().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, super::server::explain(&fault))
    }
}

impl From<NetworkError> for Refusal {
    fn from(fault: NetworkError) -> Self {
        ClusterError::from(fault).into()
    }
}

impl From<LocalError> for Refusal {
    fn from(fault: LocalError) -> Self {
        let status =
            StatusCode::from_u16(fault.class().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, super::server::explain(&fault))
    }
}

impl From<SandboxError> for Refusal {
    fn from(fault: SandboxError) -> Self {
        let status = match fault {
            SandboxError::NotFound(_) => StatusCode::NOT_FOUND,
            SandboxError::Ambiguous(..) => StatusCode::BAD_REQUEST,
            SandboxError::Exists(_) => StatusCode::CONFLICT,
            SandboxError::TooMany => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, fault)
    }
}

impl From<StorageError> for Refusal {
    fn from(fault: StorageError) -> Self {
        internal(fault)
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Answer, Refusal> {
    serde_json::to_vec(value).map(|body| Answer::Json(status, body)).map_err(internal)
}

fn answer(reply: Reply, outcome: Result<Answer, Refusal>) {
    // A client that hung up wants no answer.
    let _ = reply.send(outcome);
}

impl Node {
    pub(crate) fn new(
        (cluster, local): (Cluster, Local),
        storage: Arc<dyn Storage>,
        (sandboxes, publishing): (Sandboxes, Publishing),
        (docker, engine): (Docker, Option<Engine>),
        (worker, names): (Worker, Names),
        dataplane: Arc<Dataplane>,
        facts: Facts,
    ) -> Self {
        Self {
            cluster,
            local,
            storage,
            sandboxes,
            publishing,
            relay: Relay::default(),
            dhcp: Dhcp::default(),
            docker,
            engine,
            worker,
            names,
            dataplane,
            facts,
            counters: NodeCounters::default(),
            programmed: BTreeMap::new(),
            holders: Holders::default(),
            settled: BTreeMap::new(),
            waiting: BTreeMap::new(),
            fresh: BTreeSet::new(),
            untold: Vec::new(),
            errands: Errands::default(),
            making: BTreeSet::new(),
            ring_at: Vec::new(),
            torn_down: false,
            leaving: false,
            left: false,
            twin: None,
            recovered: false,
        }
    }

    /// Gives the threads up, with all they still have to do.
    pub(crate) fn into_threads(self) -> (Worker, Names) {
        (self.worker, self.names)
    }

    /// Forgets the cluster and all that was in it.
    pub(crate) fn forget_everything(&self) -> Result<(), StorageError> {
        let mut writes = Vec::new();
        for table in Table::ALL {
            let rows = self.storage.load(table)?;
            writes.extend(rows.into_iter().map(|(key, _)| Write { table, key, value: None }));
        }
        self.storage.commit("leave", &writes)
    }

    fn commit(&self, step: &'static str, writes: &[Write]) -> Result<(), StorageError> {
        self.storage.commit(step, writes)
    }

    /// The network a user means.
    fn resolve(&self, text: &str) -> Result<Reach, NetworkError> {
        catalog::resolve(&self.cluster, &self.local, text)
    }

    /// The network of the cluster a user means.
    fn resolve_overlay(&self, text: &str) -> Result<NetworkId, Refusal> {
        match self.resolve(text)? {
            Reach::Cluster(id) => Ok(id),
            Reach::Local(_) => Err(bad_request(format!("network {text} is not an overlay network"))),
        }
    }

    /// Name of a network of either reach.
    fn name_of(&self, network: NetworkId) -> String {
        let local = self.local.definition(network).map(|definition| definition.name.to_string());
        local.or_else(|| self.cluster.names().remove(&network)).unwrap_or_else(|| network.short())
    }

    /// Endpoints of this node in networks of either reach.
    fn own_endpoints(&self) -> impl Iterator<Item = OwnEndpoint> + '_ {
        self.cluster.own_endpoints().chain(self.local.own_endpoints())
    }

    /// Takes in what the cluster has decided.
    pub(crate) fn drain_cluster(&mut self) {
        while let Some(event) = self.cluster.poll_event() {
            match event {
                ClusterEvent::Attached { ticket, result } => self.attached(ticket, result),
                ClusterEvent::Held { ticket, result } => self.address_held(ticket, result),
                ClusterEvent::SegmentChanged(network) => self.segment_changed(network),
                ClusterEvent::PeerChanged(change) => self.dataplane.apply(change),
                ClusterEvent::NetworkAdded(network) => {
                    tracing::info!(%network, "network known");
                    self.doubt_engine();
                }
                ClusterEvent::NetworkRemoved { network, endpoints } => {
                    self.network_removed(network, &endpoints);
                }
                ClusterEvent::FetchRing(from) => self.ring_at.push(from),
                ClusterEvent::Left => self.left = true,
                ClusterEvent::TwinFirst(at) => self.twin = Some(at),
            }
        }
        self.settle_names();
        self.settle_engine();
    }

    fn network_removed(&mut self, network: NetworkId, endpoints: &[EndpointId]) {
        tracing::info!(%network, "network removed");
        self.doubt_engine();
        for endpoint in endpoints {
            self.forget_interface(*endpoint);
        }
        self.settle_dhcp();
        self.segment_changed(network);
        self.settle(network);
        if !endpoints.is_empty() {
            self.settle_legs();
        }
    }

    /// Programs the dataplane with the segment as the records have it now, if it differs.
    fn segment_changed(&mut self, network: NetworkId) {
        let derived = self.cluster.segment(network);
        if derived == self.programmed.get(&network) {
            return;
        }
        let derived = derived.cloned();
        let before = self.programmed.remove(&network).map(|segment| segment.vni);
        if let Some(segment) = &derived {
            self.dataplane.apply(Change::SetSegment(segment.clone()));
            for (ip, mac) in self.holders.learn(network, segment) {
                self.dataplane.announce(segment.vni, ip, mac);
            }
            self.programmed.insert(network, segment.clone());
        } else {
            self.holders.forget(network);
        }
        // The VNI may have gone to another network meanwhile.
        if let Some(vni) = before.filter(|vni| self.programmed.values().all(|segment| segment.vni != *vni)) {
            self.dataplane.apply(Change::RemoveSegment(vni));
        }
        let shape = derived.map(|segment| (segment.vni, segment.mtu));
        if self.settled.get(&network).is_some_and(|settled| Some(*settled) != shape) {
            self.settle(network);
        }
    }

    /// What a network wants of the kernel. Endpoints whose interface is being made have no name here.
    fn wanted(&mut self, network: NetworkId) -> Wanted {
        let endpoints: Vec<_> =
            self.cluster.own_endpoints().filter(|own| own.lease.network == network).collect();
        let mtu = endpoints.first().map_or(u16::MAX, |own| own.lease.mtu);
        let segment = self.cluster.segment(network);
        let (vni, mtu) = segment.map_or((Vni::MAX, mtu), |segment| (segment.vni, segment.mtu));
        let endpoints = endpoints.into_iter().filter_map(|own| {
            let sandbox = self.sandboxes.get(own.sandbox)?;
            let named = sandbox.interfaces.get(&own.lease.endpoint).cloned();
            let interface = named.or_else(|| self.fresh.contains(&own.lease.endpoint).then(String::new))?;
            let Lease { endpoint: id, mac, addresses, .. } = own.lease;
            let end = sandbox.end(self.cluster.node_id());
            Some(WantedEndpoint { id, sandbox: own.sandbox, end, interface, mac, addresses })
        });
        let sealed = self.cluster.is_encrypted(network);
        let wanted = Wanted { network, vni, mtu, sealed, endpoints: endpoints.collect() };
        if wanted.endpoints.is_empty() {
            self.settled.remove(&network);
        } else {
            self.settled.insert(network, (vni, mtu));
        }
        wanted
    }

    /// Brings the kernel to what a network wants; failures are tried again by the next audit.
    fn settle(&mut self, network: NetworkId) {
        self.settle_for(network, Purpose::All, None);
    }

    /// As [`Node::settle`]; what fails of the purpose is noted for whoever waits.
    fn settle_for(&mut self, network: NetworkId, purpose: Purpose, errand: Option<Errand>) {
        let wanted = self.wanted(network);
        self.worker.hand(move |bench| {
            let outcome = bench.settle(wanted, purpose);
            move |node: &mut Self| node.settled(network, outcome.map(|_| ()), errand)
        });
    }

    fn settled(&mut self, network: NetworkId, outcome: Result<(), String>, errand: Option<Errand>) {
        if let Err(fault) = outcome {
            self.counters.kernel_failures += 1;
            tracing::warn!(%network, fault, "the kernel is not as it should be; the next audit tries again");
            self.errands.note(errand, fault);
        }
    }
}

/// An attachment's wish in the cluster's words.
fn wish(
    network: NetworkId,
    sandbox: &sandbox::Sandbox,
    config: &crate::api::EndpointConfig,
) -> Result<Attach, Refusal> {
    let crate::api::EndpointConfig { ipam_config, mac_address, aliases, .. } = config;
    let mac = match mac_address.as_str() {
        "" => None,
        text => Some(
            text.parse().map_err(|fault| bad_request(format!("invalid MAC address {text:?}: {fault}")))?,
        ),
    };
    let aliases: Result<Vec<Name>, _> = aliases.iter().map(|alias| alias.parse::<Name>()).collect();
    let mut aliases = aliases.map_err(bad_request)?;
    // What a sandbox calls itself is one of its names, as Docker has it.
    let hostname = sandbox.wishes.hostname.parse().ok().filter(|name| *name != sandbox.name);
    aliases.extend(hostname.filter(|name| !aliases.contains(name)));
    Ok(Attach {
        network,
        sandbox: sandbox.id,
        name: sandbox.name.clone(),
        ip4: ipam_config.ipv4_address,
        ip6: ipam_config.ipv6_address,
        mac,
        aliases,
    })
}

/// Whether the process a sandbox belongs to still runs; sandboxes of nobody are nobody's to lose.
fn owner_runs(sandbox: &sandbox::Sandbox) -> bool {
    sandbox.owner.is_some_and(process::runs)
}
