//! From start to stop: what is opened in which order, the loop, and what is left.
//!
//! The loop is the one place where things happen to the cluster's state; everything else (packets, kernel work,
//! clients, time) reaches it through a queue or a socket.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, sleep_until, timeout};

use super::edges::{Edges, Settings};
use super::{Advertise, AgentConfig, AgentError, FirstStart, ReadyReport, seeds};
use crate::admission::{AdmissionError, Answer, Errand, Outcome, Welcome};
use crate::cluster::{Cluster, ClusterConfig, ClusterError, Timing};
use crate::docker::Bindings;
use crate::identity::Identity;
use crate::io::admission::{self, AskError, Asking};
use crate::io::dns::Dns;
use crate::io::docker::{Client, News, Watcher, plugin};
use crate::io::firewall::{Disturbed, Loader, Ours, Watch};
use crate::io::holding::{Held, clear_socket, failed, hold};
use crate::io::joining;
use crate::io::kernel::Kernel;
use crate::io::namespace::{Namespace, Pins};
use crate::io::netlink::Links;
use crate::io::node::{Docker, Engine, Facts, Names, Node, now, random, wall};
use crate::io::resolver::{Host, SandboxFiles};
use crate::io::server::{self, Asked, SocketFile, explain};
use crate::io::store::Store;
use crate::io::streams::{Doors, Guest, Received, StreamCounters, count};
use crate::io::underlay::{self, Underlay};
use crate::io::worker::{Next, Worker};
use crate::local::Local;
use crate::model::NodeId;
use crate::publish::Publishing;
use crate::sandbox::Sandboxes;
use crate::storage::{Storage, Table};
use crate::timestamp::UnixMillis;
use crate::trust::{Papers, Settings as Joined};

/// Regular care: processes that own sandboxes, the underlay address.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two audits of everything.
const AUDIT_EVERY: u32 = 30;
/// Ticks between two looks at the underlay's MTU.
const MTU_EVERY: u32 = 5;
/// Longest a stopping agent waits for others to take what it hands on.
const LEAVE_PATIENCE: Duration = Duration::from_secs(8);
/// Calls of clients waiting for the loop.
const DESK: usize = 64;
/// Messages of streams waiting for the loop.
const INBOX: usize = 64;
/// Longest that the last answer takes to its client.
const ANSWERED: Duration = Duration::from_millis(100);
/// Ticks between two looks at the certificate.
const RENEW_EVERY: u32 = 60;
/// Strangers, and their questions, waiting for the loop.
const GUESTS: usize = 16;
/// Datagrams taken in before anything else is looked at.
const BATCH: usize = 64;

/// Runs an agent in the calling thread's network namespace until `stop` resolves; `ready` is called once it serves
/// and everything from before is there again.
///
/// When it stops, sandboxes and the kernel's part of networks stay for the next start, unless
/// [`AgentConfig::teardown_on_stop`]: then all of it is removed, address ranges are handed to other members and the
/// node says goodbye.
///
/// # Errors
/// What keeps it from starting, with who is at fault; what it made until then is undone.
pub async fn run(
    config: AgentConfig,
    ready: impl FnOnce(&ReadyReport),
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let mut stop = pin!(stop);
    let mut agent = tokio::select! {
        agent = Agent::start(&config) => agent?,
        () = &mut stop => return Ok(()),
    };
    agent.node.recover();
    let (asked, calls) = mpsc::channel(DESK);
    agent.calls = calls;
    let plugin = config.docker.plugin_dir.as_deref().map(plugin::socket);
    let mut plugin = plugin.map(|path| Server::plugin(path, asked.clone())).transpose()?;
    let mut server = Server::new(config.socket.clone(), &config.run_dir, asked)?;
    let mut ready = Some(ready);
    loop {
        if agent.node.recovered && ready.is_some() {
            server.serve()?;
            plugin.as_mut().map_or(Ok(()), Server::serve)?;
            if let Some(ready) = ready.take() {
                ready(&agent.report(&server.path));
            }
        }
        tokio::select! {
            () = &mut stop => break,
            () = agent.turn() => {}
        }
        if let Some(at) = agent.node.twin {
            drop((server, plugin));
            agent.stop(false).await;
            return Err(AgentError::Twin { at, state: config.state_dir });
        }
        if agent.node.leaving {
            // The answer to whoever asked for it is on its way.
            tokio::time::sleep(ANSWERED).await;
            break;
        }
    }
    drop((server, plugin));
    agent.stop(config.teardown_on_stop).await;
    Ok(())
}

/// The networks of this host, with the predefined ones.
async fn local_networks(config: &AgentConfig, storage: Arc<dyn Storage>) -> Result<Local, AgentError> {
    let start = |fault: &dyn std::error::Error| AgentError::Start(explain(fault));
    let host = Namespace::current().map_err(|fault| start(&fault))?;
    let links = Links::open(&host).map_err(|fault| start(&fault))?;
    let routed = links.routed().await.map_err(|fault| start(&fault))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|fault| AgentError::Start(format!("no randomness: {fault}")))?;
    let local = Local::start(storage, seed, UnixMillis(wall()), &routed, &config.bridge);
    local.map_err(|fault| start(&fault))
}

/// What an operator can do about an address that is gone.
fn remedy(advertise: &Advertise) -> String {
    match advertise {
        Advertise::Address(address) => format!(
            "add {address} again, or restart the agent with another --advertise (of an interface the address is \
             followed when it changes)"
        ),
        Advertise::Interface(name) => format!("give {name} an address that others can reach"),
        Advertise::Default => "give the host an address that others can reach".to_owned(),
    }
}

/// A socket, the API's or the plugin's; served once everything is there again.
struct Server {
    path: PathBuf,
    is_plugin: bool,
    asked: Option<mpsc::Sender<Asked>>,
    serving: Option<(JoinHandle<()>, SocketFile)>,
}

impl Server {
    fn new(path: Option<PathBuf>, run_dir: &Path, asked: mpsc::Sender<Asked>) -> Result<Self, AgentError> {
        let path = path.unwrap_or_else(|| run_dir.join("weft.sock"));
        clear_socket(&path)?;
        Ok(Self { path, is_plugin: false, asked: Some(asked), serving: None })
    }

    fn plugin(path: PathBuf, asked: mpsc::Sender<Asked>) -> Result<Self, AgentError> {
        clear_socket(&path)?;
        Ok(Self { path, is_plugin: true, asked: Some(asked), serving: None })
    }

    fn serve(&mut self) -> Result<(), AgentError> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let bind = if self.is_plugin { plugin::bind } else { server::bind };
        let listener = bind(&self.path).map_err(failed(format!("serve on {}", self.path.display())))?;
        let serving = match self.is_plugin {
            true => tokio::spawn(plugin::serve(listener, asked)),
            false => tokio::spawn(server::serve(listener, asked)),
        };
        self.serving = Some((serving, SocketFile(self.path.clone())));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((serving, _)) = &self.serving {
            serving.abort();
        }
    }
}

/// What a member said to a request for the keys.
type RingAnswer = Result<(NodeId, Welcome), AdmissionError>;

/// Everything the loop looks at.
struct Agent {
    node: Node,
    edges: Edges,
    settings: Settings,
    advertise: Advertise,
    underlay: Underlay,
    inbox: mpsc::Receiver<Received>,
    guests: mpsc::Receiver<Guest>,
    renewed: mpsc::Receiver<Outcome>,
    renewed_in: mpsc::Sender<Outcome>,
    askings: mpsc::Receiver<Asking>,
    askings_in: mpsc::Sender<Asking>,
    rings: mpsc::Receiver<RingAnswer>,
    rings_in: mpsc::Sender<RingAnswer>,
    calls: mpsc::Receiver<Asked>,
    done: UnboundedReceiver<Next>,
    seeds: mpsc::Receiver<Vec<std::net::SocketAddr>>,
    seeking: JoinHandle<()>,
    /// Looks at Docker's engine, if there is one.
    watcher: Option<Watcher>,
    /// Somebody has changed the firewall.
    disturbed: mpsc::Receiver<Disturbed>,
    watching: JoinHandle<()>,
    tick: tokio::time::Interval,
    ticks: u32,
    buffer: Vec<u8>,
    /// Dropped last: until then the directory is ours.
    held: Held,
}

impl Agent {
    async fn start(config: &AgentConfig) -> Result<Self, AgentError> {
        let held = hold(&config.run_dir, 0o750)?;
        let store = Store::open(&config.state_dir).map_err(|fault| AgentError::Start(explain(&fault)))?;
        let storage: Arc<dyn Storage> = Arc::new(store);
        let joined = membership(&config.first, &*storage).await?;
        let name = config.name.clone().unwrap_or(joined.name);
        let advertise = match &config.advertise {
            Advertise::Default => joined.advertise.parse().unwrap_or_default(),
            given => given.clone(),
        };
        let underlay = underlay::find(&advertise).await?;
        let (inbox_in, inbox) = mpsc::channel(INBOX);
        let (guests_in, guests) = mpsc::channel(GUESTS);
        let (askings_in, askings) = mpsc::channel(GUESTS);
        let (rings_in, rings) = mpsc::channel(GUESTS);
        let (renewed_in, renewed) = mpsc::channel(1);
        let counters = Arc::new(StreamCounters::default());
        let mut settings = Settings {
            gossip_port: config.gossip_port.unwrap_or(joined.gossip_port),
            data_port: config.data_port,
            workers: config.workers,
            doors: Doors {
                inbox: inbox_in,
                guests: Some(guests_in),
                seats: Arc::default(),
                counters: Arc::clone(&counters),
            },
        };
        let edges = Edges::open(underlay.address, &settings)?;
        settings.gossip_port = edges.gossip.port();
        settings.data_port = edges.dataplane.local_address().port();
        let cluster = ClusterConfig {
            name: name.clone(),
            advertise: edges.gossip,
            data_port: settings.data_port,
            underlay_mtu: underlay.mtu,
            require_encryption: config.require_encryption,
            timing: Timing { rekey: config.rekey_after, ..Timing::default() },
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|fault| AgentError::Start(format!("no randomness: {fault}")))?;
        let cluster = Cluster::start(cluster, Arc::clone(&storage), seed, now(), UnixMillis(wall()));
        let cluster = cluster.map_err(|fault| AgentError::Start(explain(&fault)))?;
        let local = local_networks(config, Arc::clone(&storage)).await?;
        let sandboxes =
            storage.load(Table::Sandboxes).map_err(|fault| AgentError::Start(fault.to_string()))?;
        let sandboxes = Sandboxes::load(sandboxes).map_err(|fault| AgentError::Start(fault.to_string()))?;
        let publishing = storage.load(Table::Ports).map_err(|fault| AgentError::Start(fault.to_string()))?;
        let publishing =
            Publishing::load(publishing).map_err(|fault| AgentError::Start(fault.to_string()))?;
        let docker = [Table::DockerNetworks, Table::DockerEndpoints].map(|table| storage.load(table));
        let [networks, endpoints] =
            docker.map(|rows| rows.map_err(|fault| AgentError::Start(fault.to_string())));
        let bindings = Bindings::load(networks?, endpoints?);
        let bindings = bindings.map_err(|fault| AgentError::Start(fault.to_string()))?;
        let docker = Docker::new(bindings, config.docker.engine.is_some());
        let client = config.docker.engine.as_deref().map(Client::new);
        let namespaces = config.run_dir.join("netns");
        let pins = Pins::open(&namespaces).map_err(|fault| AgentError::Start(explain(&fault)))?;
        let (done_in, done) = mpsc::unbounded_channel();
        let ours = Ours::default();
        let host_namespace = Namespace::current().map_err(|fault| AgentError::Start(explain(&fault)))?;
        let worker = Kernel::new(pins, edges.carrier())
            .and_then(|kernel| Worker::start(kernel, Loader::new(host_namespace, ours.clone())?, done_in));
        let (disturbed_in, disturbed) = mpsc::channel(1);
        let watch = Watch::open(ours).map_err(failed("listen to changes of the firewall"))?;
        let watching = tokio::spawn(watch.tell(disturbed_in));
        let worker = worker.map_err(failed("start the kernel's thread"))?;
        let host = Host::new(config.resolv_conf.clone());
        let files = SandboxFiles::new(config.run_dir.join("sandboxes"));
        let dns = Dns::start().map_err(failed("start the thread of names"))?;
        let facts = Facts {
            name,
            workers: config.workers.get(),
            started: now(),
            namespaces,
            commands: config.state_dir.join("sandboxes"),
            streams: counters,
            warnings: BTreeMap::new(),
        };
        let node = Node::new(
            (cluster, local),
            storage,
            (sandboxes, publishing),
            (docker, client.clone().map(Engine::new)),
            (worker, Names::new(dns, files, host)),
            Arc::clone(&edges.dataplane),
            facts,
        );
        let (seeds_in, seeds) = mpsc::channel(1);
        let seeking = tokio::spawn(seeds::resolve(config.join.clone(), edges.gossip, seeds_in));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (_, calls) = mpsc::channel(1);
        Ok(Self {
            node,
            edges,
            settings,
            advertise,
            underlay,
            inbox,
            guests,
            renewed,
            renewed_in,
            askings,
            askings_in,
            rings,
            rings_in,
            calls,
            done,
            seeds,
            seeking,
            watcher: client.map(Watcher::start),
            disturbed,
            watching,
            tick,
            ticks: 0,
            buffer: vec![0; 1 << 16],
            held,
        })
    }

    fn report(&self, socket: &Path) -> ReadyReport {
        ReadyReport {
            name: self.node.facts.name.clone(),
            node_id: self.node.cluster.node_id(),
            advertise: self.underlay.address,
            data_port: self.settings.data_port,
            gossip_port: self.settings.gossip_port,
            socket: socket.to_owned(),
        }
    }

    /// Waits for one thing to happen and takes it in. Nothing is lost if it is not waited for to the end.
    async fn turn(&mut self) {
        self.flush();
        let due = self.node.cluster.poll_timeout().into_iter().chain(self.node.names.poll_timeout()).min();
        let due = due.unwrap_or_else(|| now() + TICK);
        tokio::select! {
            readable = self.edges.udp.readable() => if readable.is_ok() { self.receive() },
            Some(received) = self.inbox.recv() => self.handle_stream(received),
            Some(guest) = self.guests.recv() => self.admit(guest),
            Some(outcome) = self.renewed.recv() => self.node.cluster.use_chain(now(), outcome.chain),
            Some(asking) = self.askings.recv() => self.decide(asking),
            Some(answer) = self.rings.recv() => self.node.cluster.ring_fetched(now(), answer),
            Some(next) = self.done.recv() => next(&mut self.node),
            Some(asked) = self.calls.recv() => self.node.handle(asked),
            Some(found) = self.seeds.recv() => self.join(&found),
            Some(news) = heard(&mut self.watcher), if self.node.recovered => self.node.engine_told(news),
            Some(what) = self.disturbed.recv() => self.node.disturbed(what),
            ready = self.edges.bell.readable() => {
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
                self.node.drain_dataplane();
            }
            _ = self.tick.tick() => self.care().await,
            () = sleep_until(due.into()) => self.node.cluster.handle_timeout(now()),
        }
        self.node.drain_cluster();
        self.fetch_ring();
        self.flush();
    }

    fn receive(&mut self) {
        for _ in 0..BATCH {
            let Ok((length, from)) = self.edges.udp.try_recv_from(&mut self.buffer) else { return };
            self.node.cluster.handle_datagram(now(), from, &mut self.buffer[..length]);
        }
    }

    /// Somebody wants to join, or more than gossip gives.
    fn admit(&self, guest: Guest) {
        let (presented, desk, from) = (self.node.cluster.presented(), self.askings_in.clone(), guest.from);
        tokio::spawn(async move {
            if let Err(fault) = admission::serve(guest, presented, desk).await {
                tracing::debug!(%from, fault = explain(&fault), "an exchange with a stranger came to nothing");
            }
        });
    }

    /// Asks members for the keys of the cluster.
    fn fetch_ring(&mut self) {
        for member in std::mem::take(&mut self.node.ring_at) {
            let (identity, errand) = self.node.cluster.ring_errand();
            let (answers, from) = (self.rings_in.clone(), self.edges.gossip.ip());
            tokio::spawn(async move {
                let answer = match admission::ask(member, Some(from), &identity, errand).await {
                    Ok(outcome) => Ok((outcome.member, outcome.welcome)),
                    Err(AskError::Admission(fault)) => Err(fault),
                    Err(fault) => {
                        tracing::debug!(%member, fault = explain(&fault), "a member was not asked for keys");
                        return;
                    }
                };
                // The agent may be stopping.
                let _ = answers.send(answer).await;
            });
        }
    }

    fn decide(&mut self, asking: Asking) {
        let answer = self.node.cluster.admit(now(), asking.question);
        if let Answer::Refused(reason) = &answer {
            // Anybody can bring this about, as often as they like.
            count(&self.settings.doors.counters.not_admitted);
            tracing::debug!(%reason, "somebody was not let in");
        }
        // Whoever asked may have hung up.
        let _ = asking.answer.send(answer);
    }

    fn handle_stream(&mut self, mut received: Received) {
        let opened = self.node.cluster.handle_stream(now(), received.from, &mut received.message);
        received.judge(opened);
    }

    fn join(&mut self, found: &[std::net::SocketAddr]) {
        if self.node.cluster.status().members_alive <= 1 {
            self.node.cluster.join(now(), found);
        }
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.node.cluster.poll_transmit() {
            self.edges.transmit(transmit);
        }
    }

    async fn care(&mut self) {
        if !self.node.recovered {
            return;
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.node.cluster.set_wall(now(), UnixMillis(wall()));
        if let Ok(fresh) = random() {
            self.node.cluster.stir(&fresh);
        }
        self.seat_members();
        self.node.bury();
        self.node.tell_again();
        self.node.settle_parked();
        self.node.follow_resolver();
        self.node.note_traffic();
        self.node.doubt_engine();
        if self.node.doubts_engine() || self.ticks.is_multiple_of(AUDIT_EVERY) {
            self.watcher.iter().for_each(Watcher::look_again);
        }
        if self.ticks.is_multiple_of(AUDIT_EVERY) {
            self.node.audit();
        }
        if self.ticks.is_multiple_of(RENEW_EVERY) {
            self.renew();
        }
        self.follow_underlay().await;
    }

    /// Has the certificate renewed when it is time.
    fn renew(&mut self) {
        let Some(admins) = self.node.cluster.renewal(now()) else { return };
        self.node.cluster.renew_own(now());
        let (identity, chain) = self.node.cluster.papers();
        let (secret, chain, renewed) = (identity.secret(), chain.clone(), self.renewed_in.clone());
        let from = self.edges.gossip.ip();
        tokio::spawn(async move {
            let identity = Identity::from_secret(&secret);
            for admin in admins {
                let errand = Errand::Renew(chain.clone());
                match admission::ask(admin, Some(from), &identity, errand).await {
                    // The loop may have ended.
                    Ok(outcome) => return drop(renewed.send(outcome).await),
                    Err(fault) => tracing::debug!(%admin, fault = explain(&fault), "no renewal"),
                }
            }
        });
    }

    /// Keeps seats for connections of members.
    fn seat_members(&self) {
        let members = self.node.cluster.gossip().members();
        let hosts = members.map(|member| member.addr.ip().to_canonical()).collect();
        self.settings.doors.seats.set_members(hosts);
    }

    /// Moves to the new address when the host no longer has the one in use.
    async fn follow_underlay(&mut self) {
        const WARNING: &str = "underlay";
        if underlay::is_there(self.underlay.address) {
            self.node.facts.warnings.remove(WARNING);
            return self.follow_mtu().await;
        }
        let moved = match self.find_again().await {
            Ok(underlay) => Edges::open(underlay.address, &self.settings).map(|edges| (underlay, edges)),
            Err(fault) => Err(fault),
        };
        match moved {
            Ok((underlay, edges)) => {
                tracing::info!(from = %self.underlay.address, to = %underlay.address, "the underlay address changed");
                self.node.cluster.set_advertise(now(), edges.gossip);
                self.node.set_underlay_mtu(underlay.mtu);
                self.node.use_dataplane(Arc::clone(&edges.dataplane), edges.carrier());
                self.node.facts.warnings.remove(WARNING);
                self.edges = edges;
                self.underlay = underlay;
            }
            Err(fault) => {
                let text = format!(
                    "{} is gone from this host: {fault}; {}",
                    self.underlay.address,
                    remedy(&self.advertise)
                );
                if self.node.facts.warnings.insert(WARNING, text.clone()).is_none() {
                    tracing::warn!(fault = text, "others cannot reach this node");
                }
            }
        }
    }

    /// Networks get the packet size that the underlay carries now.
    async fn follow_mtu(&mut self) {
        if !self.ticks.is_multiple_of(MTU_EVERY) {
            return;
        }
        let Ok(found) = underlay::find(&Advertise::Address(self.underlay.address)).await else { return };
        if found.mtu != self.underlay.mtu {
            tracing::info!(
                from = self.underlay.mtu,
                to = found.mtu,
                interface = found.interface,
                "the underlay's MTU changed"
            );
            self.node.set_underlay_mtu(found.mtu);
        }
        self.underlay = found;
    }

    /// An interface keeps its role when its address changes.
    async fn find_again(&self) -> Result<Underlay, AgentError> {
        match &self.advertise {
            Advertise::Default => {
                let same = Advertise::Interface(self.underlay.interface.clone());
                match underlay::find(&same).await {
                    Ok(underlay) => Ok(underlay),
                    Err(_) => underlay::find(&Advertise::Default).await,
                }
            }
            given => underlay::find(given).await,
        }
    }

    /// Ends: what was asked for is answered, what is owed to others is sent.
    async fn stop(mut self, teardown: bool) {
        let teardown = teardown || self.node.leaving;
        self.seeking.abort();
        self.watching.abort();
        self.calls.close();
        self.watcher = None;
        self.node.names.leave_containers();
        if teardown {
            self.node.tear_down();
            if let Err(fault) = self.node.cluster.leave(now()) {
                tracing::warn!(%fault, "this node could not say goodbye");
            }
            let deadline = Instant::now() + LEAVE_PATIENCE;
            while !self.node.left && Instant::now() < deadline {
                let _ = timeout(Duration::from_millis(200), self.turn()).await;
                self.node.drain_cluster();
            }
        }
        self.flush();
        if self.node.leaving
            && let Err(fault) = self.node.forget_everything()
        {
            tracing::error!(%fault, "the cluster could not be forgotten: remove the state directory");
        }
        let Self { node, edges, held, mut done, .. } = self;
        let (worker, names) = node.into_threads();
        // The threads finish what they were handed; waiting for them may take a while.
        let finish = move || {
            let pins = worker.finish();
            drop(names);
            pins
        };
        let pins = tokio::task::spawn_blocking(finish).await.ok().flatten();
        while done.try_recv().is_ok() {}
        if let Some(pins) = pins {
            pins.close();
        }
        drop(edges);
        drop(held);
    }
}

/// The watcher's next news, if there is a watcher.
async fn heard(watcher: &mut Option<Watcher>) -> Option<News> {
    watcher.as_mut()?.news.recv().await
}

/// How the host is set up as a member; one that is none yet may become one now.
async fn membership(first: &FirstStart, store: &dyn Storage) -> Result<Joined, AgentError> {
    let papers = Papers::load(store).map_err(|fault| AgentError::Start(fault.to_string()))?;
    if let Some(papers) = papers {
        return Ok(papers.settings);
    }
    match first {
        FirstStart::Refuse => Err(AgentError::Start(ClusterError::NoCluster.to_string())),
        FirstStart::Init { settings, token_file } => {
            let (member, token) = joining::init(store, settings.clone()).await?;
            if let Some(file) = token_file {
                joining::write_token(file, &token)?;
            }
            Ok(member.settings)
        }
        FirstStart::Join { settings, token_file } => {
            let member = joining::join_when_possible(store, token_file, settings.clone()).await?;
            Ok(member.settings)
        }
    }
}
