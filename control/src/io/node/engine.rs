//! Docker's engine on this host, as the loop knows it: what was heard of it, and what it is asked for.
//!
//! Everything follows from comparing the last look at the engine with the records, so that it does not matter who was
//! away meanwhile. What is asked of the engine is asked by tasks of their own: the loop never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Node, now};
use crate::api;
use crate::docker::engine::{Container, EngineNetwork, GATEWAY, MakeNetwork, PLUGIN};
use crate::docker::settle::{Named, Obstacle, Seen, Step, settle};
use crate::docker::{Bindings, DockerId, NETWORK, Told};
use crate::io::docker::{Client, News};
use crate::io::namespace::Namespace;
use crate::io::netlink::Links;
use crate::io::server::explain;
use crate::model::NetworkId;
use crate::network::{ADDRESSES, LOCAL_POOLS};

/// How long something must have been so that it is no moment of somebody's change.
const LASTING: Duration = Duration::from_secs(5);
/// When a step that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Networks that the engine is asked to make at a time.
const MAKES: usize = 8;

/// What the loop knows of the engine.
pub(crate) struct Engine {
    client: Client,
    /// Networks as last seen; none before the first look, and while the engine is away.
    networks: Option<Vec<EngineNetwork>>,
    /// Containers in networks of weft's, by id.
    containers: BTreeMap<String, Container>,
    /// Ids of networks that it is known to have had.
    shown: BTreeSet<String>,
    /// Networks that it has removed, by id, before it answered that it has made them; and which they were.
    doubtful: BTreeMap<String, NetworkId>,
    away: Option<String>,
    /// Whether something has changed since it was last compared with the cluster.
    stale: bool,
    obstacles: Vec<Obstacle>,
    under_way: BTreeSet<Step>,
    /// Steps that were taken, until a look shows what came of them.
    taken: BTreeSet<Step>,
    /// Why steps failed, and when.
    failed: BTreeMap<Step, (String, Instant)>,
    /// Since when networks of weft's in the engine have not been known here.
    unbound: BTreeMap<DockerId, Instant>,
    /// Since when networks and endpoints that are known here have not been in the engine.
    missing: BTreeMap<DockerId, Instant>,
    /// Networks and endpoints that were known here when the engine started.
    before: BTreeSet<DockerId>,
}

impl Engine {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            networks: None,
            containers: BTreeMap::new(),
            shown: BTreeSet::new(),
            doubtful: BTreeMap::new(),
            away: None,
            stale: true,
            obstacles: Vec::new(),
            under_way: BTreeSet::new(),
            taken: BTreeSet::new(),
            failed: BTreeMap::new(),
            unbound: BTreeMap::new(),
            missing: BTreeMap::new(),
            before: BTreeSet::new(),
        }
    }

    fn warnings(&self) -> impl Iterator<Item = String> {
        let away = self.away.iter().map(|fault| {
            format!("{fault}: networks and names of containers are as they were (is --docker its socket?)")
        });
        let obstacles = self.obstacles.iter().map(ToString::to_string);
        let failed = self.failed.values().map(|(fault, _)| fault.clone());
        away.chain(obstacles).chain(failed)
    }

    /// Ids of the networks last seen.
    pub(super) fn network_ids(&self) -> BTreeSet<String> {
        self.networks.iter().flatten().map(|network| network.id.clone()).collect()
    }

    /// Whether an engine that removes this network, which is that one of the cluster, may be taking it back while it makes
    /// it: nothing has shown it yet. False while the engine cannot be looked at. Where the engine is being asked to make
    /// it, its answer will tell.
    pub(super) fn may_take_back(&mut self, id: &DockerId, network: NetworkId) -> bool {
        let unseen = self.networks.is_some() && !self.shown.contains(id.as_str());
        if unseen && self.under_way.contains(&Step::Make(network)) {
            self.doubtful.insert(id.as_str().to_owned(), network);
        }
        unseen
    }

    /// Whether another look will show what has been missing for a while.
    fn is_doubted(&self) -> bool {
        self.networks.is_some() && !self.missing.is_empty()
    }

    /// The engine has started, while these were known here: it is not making them.
    pub(super) fn begins(&mut self, known: BTreeSet<DockerId>) {
        self.before = known;
    }

    /// Notes what is missing now, and tells what is no moment of the engine's work.
    pub(super) fn note_missing(&mut self, missing: BTreeSet<DockerId>) -> Vec<DockerId> {
        let since = |id: DockerId| (id.clone(), self.missing.get(&id).copied().unwrap_or_else(now));
        self.missing = missing.into_iter().map(since).collect();
        let lasting =
            self.missing.iter().filter(|(id, since)| since.elapsed() > LASTING || self.before.contains(id));
        lasting.map(|(id, _)| id.clone()).collect()
    }

    /// A process of the container that has this namespace, in the engine's PID namespace.
    pub(super) fn process_of(&self, namespace: &Path) -> Option<u32> {
        let of = |container: &&Container| Path::new(&container.network_settings.sandbox_key) == namespace;
        self.containers.values().find(of).map(|container| container.state.pid).filter(|pid| *pid != 0)
    }
}

impl Node {
    /// What an operator should look at.
    pub(super) fn engine_warnings(&self) -> Vec<String> {
        self.engine.iter().flat_map(Engine::warnings).collect()
    }

    /// Something has changed that the engine is to have.
    pub(crate) fn doubt_engine(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.stale = true;
        }
    }

    /// Whether the engine is to be looked at again soon.
    pub(crate) fn doubts_engine(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::is_doubted)
    }

    /// Takes in what a look at the engine has shown.
    pub(crate) fn engine_told(&mut self, news: News) {
        let Some(engine) = &mut self.engine else { return };
        match news {
            News::Away(fault) => engine.is_away(fault),
            News::Networks(networks) => {
                if engine.away.take().is_some() {
                    tracing::info!("Docker's engine is there");
                }
                engine.shown.extend(networks.iter().map(|network| network.id.clone()));
                engine.networks = Some(networks);
                engine.taken.clear();
            }
            News::Destroyed(id) => self.forget_destroyed(&id),
            News::Endpoints(endpoints) => self.forget_missing(&endpoints),
            News::Running(containers) => engine.containers.retain(|id, _| containers.contains(id)),
            News::Container(container) => {
                self.name_container(&container);
                let namespace = PathBuf::from(&container.network_settings.sandbox_key);
                if let Some(engine) = &mut self.engine {
                    engine.containers.insert(container.id.clone(), container);
                }
                self.find_again(namespace);
            }
            News::Attached(attached) => self.name_attached(&attached),
            News::Gone(container) => drop(engine.containers.remove(&container)),
        }
        self.doubt_engine();
        self.drain_cluster();
    }

    /// Does what is to be done so that the engine has the cluster's networks, where something has changed.
    pub(super) fn settle_engine(&mut self) {
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.stale) else { return };
        engine.stale = false;
        let bindings = self.docker.bindings();
        let fleeting = engine.fleeting(bindings);
        let Some(networks) = &engine.networks else { return };
        let named = |(id, name)| (id, Named { name, subnets: self.cluster.subnets_of(id) });
        let cluster = self.cluster.names().into_iter().map(named).collect();
        let local = self.local.names().map(|(id, _)| id).collect();
        let seen = Seen { engine: networks, bindings, cluster: &cluster, local: &local, fleeting: &fleeting };
        let (steps, obstacles) = settle(seen);
        let steps: BTreeSet<Step> = steps.into_iter().collect();
        engine.failed.retain(|step, _| steps.contains(step));
        engine.note(obstacles);
        for step in steps {
            self.take_step(step);
        }
    }

    /// The engine has removed a network whatever the plugin said to it: engines do not heed that. Where it must stay,
    /// as containers of other hosts are in it, the engine gets it anew.
    fn forget_destroyed(&mut self, id: &str) {
        if let Some(engine) = &mut self.engine {
            engine.networks.iter_mut().for_each(|networks| networks.retain(|network| network.id != id));
            engine.shown.remove(id);
        }
        let Ok(id) = id.parse::<DockerId>() else { return };
        if self.docker.bindings().network(&id).is_some() {
            self.lose_docker_network(&id);
        }
    }

    fn take_step(&mut self, step: Step) {
        if !self.engine.as_ref().is_some_and(|engine| engine.is_due(&step)) {
            return;
        }
        let outcome = match &step {
            Step::Name { docker } => self.name_network(docker),
            Step::Bind { docker, network } => self.bind_docker_network(docker, *network),
            Step::Gateway => return self.make_gateway(),
            Step::Make(network) => return self.make_in_engine(*network, step),
            Step::Remove { docker } => return self.remove_from_engine(docker.clone(), step),
        };
        self.step_taken(step, outcome.map(|()| None));
    }

    fn name_network(&mut self, docker: &DockerId) -> Result<(), String> {
        let networks = self.engine.iter().filter_map(|engine| engine.networks.as_ref()).flatten();
        let Some(network) = networks.into_iter().find(|network| network.id == docker.as_str()) else {
            return Ok(());
        };
        let ranges = network.ipam.config.iter().filter(|config| !config.ip_range.is_empty());
        let told = Told {
            name: network.name.clone(),
            labels: network.labels.clone(),
            ranges: ranges.map(|config| (config.subnet.clone(), config.ip_range.clone())).collect(),
        };
        let outcome = self.name_docker_network(docker, &told);
        outcome.map_err(|fault| {
            format!("network {} of this host's Docker engine is not usable: {fault}", told.name)
        })
    }

    fn make_in_engine(&mut self, id: NetworkId, step: Step) {
        let Some(network) = self.cluster.network(now(), id) else { return };
        let request = MakeNetwork { network: request(&network), check_duplicate: true };
        self.ask_engine(step, async move |client| {
            client.make_network(&request).await.map(Some).map_err(|fault| {
                let (name, fault) = (request.network.name, explain(&fault));
                format!("network {name} of the cluster cannot be made in this host's Docker engine: {fault}")
            })
        });
    }

    fn make_gateway(&mut self) {
        let networks = self.engine.iter().filter_map(|engine| engine.networks.as_ref()).flatten();
        let mut used: Vec<IpNet> = networks.flat_map(EngineNetwork::subnets).collect();
        used.extend(self.cluster.subnets());
        self.ask_engine(Step::Gateway, async move |client| {
            let failed =
                |fault: String| format!("{GATEWAY} cannot be made in this host's Docker engine: {fault}");
            used.extend(routed().await.map_err(failed)?);
            let network = MakeNetwork::gateway(&used);
            let network = network.ok_or_else(|| failed(format!("no subnet of {LOCAL_POOLS} is free")))?;
            client.make_network(&network).await.map(Some).map_err(|fault| failed(explain(&fault)))
        });
    }

    fn remove_from_engine(&mut self, docker: DockerId, step: Step) {
        self.ask_engine(step, async move |client| {
            client.remove_network(docker.as_str()).await.map(|()| None).map_err(|fault| {
                let id = docker.short();
                format!(
                    "network {id}, which is removed, cannot be removed from this host's Docker engine: {}",
                    explain(&fault)
                )
            })
        });
    }

    /// Has a step taken by a task of its own, which tells the id of what it made.
    fn ask_engine<W>(&mut self, step: Step, work: impl FnOnce(Client) -> W)
    where
        W: Future<Output = Result<Option<String>, String>> + Send + 'static,
    {
        let Some(engine) = &mut self.engine else { return };
        engine.under_way.insert(step.clone());
        let (work, done) = (work(engine.client.clone()), self.worker.done());
        tokio::spawn(async move {
            let outcome = work.await;
            // The loop may have ended.
            let _ = done.send(Box::new(move |node: &mut Self| node.step_taken(step, outcome)));
        });
    }

    fn step_taken(&mut self, step: Step, outcome: Result<Option<String>, String>) {
        let Some(engine) = &mut self.engine else { return };
        engine.under_way.remove(&step);
        match outcome {
            Ok(made) => {
                engine.failed.remove(&step);
                engine.taken.insert(step);
                if let Some(id) = made {
                    self.made_in_engine(id);
                }
            }
            Err(fault) => {
                // What it has removed of that it has taken back.
                engine.doubtful.retain(|_, network| step != Step::Make(*network));
                let known = engine.failed.insert(step, (fault.clone(), now()));
                if known.is_none_or(|(known, _)| known != fault) {
                    tracing::warn!(fault, "Docker's engine and the cluster differ");
                }
            }
        }
    }

    /// The engine has made a network. One that it has removed before it said so was removed by its user.
    fn made_in_engine(&mut self, id: String) {
        let Some(engine) = &mut self.engine else { return };
        let Some(network) = engine.doubtful.remove(&id) else {
            engine.shown.insert(id);
            return;
        };
        if let Err(refusal) = self.remove_for_docker(network) {
            tracing::warn!(%network, fault = refusal.message, "a network that was removed in the engine stays");
        }
        self.drain_cluster();
    }
}

impl Engine {
    /// Networks of the engine that are not known here, and were a moment ago for all that is known.
    fn fleeting(&mut self, bindings: &Bindings) -> BTreeSet<DockerId> {
        let networks = self.networks.iter().flatten();
        let known = networks.filter_map(|network| network.id.parse::<DockerId>().ok());
        let unbound = known.filter(|id| bindings.network(id).is_none());
        let since = |id: DockerId| (id.clone(), self.unbound.get(&id).copied().unwrap_or_else(now));
        self.unbound = unbound.map(since).collect();
        let fleeting = self.unbound.iter().filter(|(_, since)| since.elapsed() < LASTING);
        fleeting.map(|(id, _)| id.clone()).collect()
    }

    /// Whether a step is to be taken now: it is not under way, its outcome was seen, and it has not failed just now.
    fn is_due(&self, step: &Step) -> bool {
        let rests = self.failed.get(step).is_some_and(|(_, at)| at.elapsed() < AGAIN);
        let making = self.under_way.iter().filter(|step| matches!(step, Step::Make(_))).count();
        let waits = matches!(step, Step::Make(_)) && making >= MAKES;
        !rests && !waits && !self.under_way.contains(step) && !self.taken.contains(step)
    }

    fn is_away(&mut self, fault: String) {
        self.networks = None;
        self.shown.clear();
        if self.away.as_ref() != Some(&fault) {
            tracing::warn!(fault, "Docker's engine is away");
            self.away = Some(fault);
        }
    }

    fn note(&mut self, obstacles: Vec<Obstacle>) {
        for obstacle in obstacles.iter().filter(|obstacle| !self.obstacles.contains(obstacle)) {
            tracing::warn!(fault = %obstacle, "Docker's engine and the cluster differ");
        }
        self.obstacles = obstacles;
    }
}

/// Prefixes that the host has routes to.
async fn routed() -> Result<Vec<IpNet>, String> {
    let host = Namespace::current().map_err(|fault| explain(&fault))?;
    let links = Links::open(&host).map_err(|fault| explain(&fault))?;
    links.routed().await.map_err(|fault| explain(&fault))
}

/// The network of an engine that is to be this one of the cluster.
fn request(network: &api::Network) -> api::NetworkCreate {
    let mut options = network.options.clone();
    // Of the others' making: here weft gives the addresses.
    options.remove(ADDRESSES);
    api::NetworkCreate {
        name: network.name.clone(),
        driver: PLUGIN.to_owned(),
        enable_ipv6: network.enable_ipv6,
        ipam: api::Ipam {
            driver: PLUGIN.to_owned(),
            options: Some([(NETWORK.to_owned(), network.id.clone())].into()),
            config: network.ipam.config.clone(),
        },
        options,
        labels: network.labels.clone(),
        attachable: true,
        internal: network.internal,
    }
}
