//! Names: which sandboxes are served, what they are answered from, and the files their resolvers read.
//!
//! Everything is derived from the records and compared with what there is, so that it does not matter what has
//! happened in between.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::containers::Seat;
use super::{Node, Reply, answer, json, now};
use crate::api;
use crate::io::dns::{Beside, Dns, DnsCounters, DoorsError, How};
use crate::io::namespace::Namespace;
use crate::io::resolver::{Host, SandboxFiles};
use crate::io::server::{Answer, Refusal, explain};
use crate::local::Definition;
use crate::model::{NetworkId, SandboxId};
use crate::names::{Asker, Files, Outside, View, hosts, resolv_conf};
use crate::plan::Place;
use crate::sandbox::{Origin, Sandbox};

/// The port of servers a user names.
const PORT: u16 = 53;
/// Share of the time that deriving names may take: one in so many.
const PAUSES: u32 = 10;

/// A sandbox whose questions are answered, or are to be.
enum Standing {
    Opening,
    Open,
    /// Until the next audit tries again.
    Failed,
}

/// An attachment that is done but for the names.
struct Parked {
    sandbox: SandboxId,
    reply: Reply,
    outcome: Result<Answer, Refusal>,
}

/// What the loop knows of names.
pub(crate) struct Names {
    dns: Dns,
    view: Arc<View>,
    standing: BTreeMap<SandboxId, Standing>,
    parked: Vec<Parked>,
    /// Namespaces of those that are containers.
    seated: BTreeMap<SandboxId, PathBuf>,
    /// Of these, the ones whose path is not to be seen from here.
    kept: BTreeMap<SandboxId, Namespace>,
    /// What an operator should know of sandboxes' names.
    troubles: BTreeMap<SandboxId, String>,
    files: SandboxFiles,
    host: Host,
    /// Networks whose names are to be derived again.
    renamed: BTreeSet<NetworkId>,
    /// Whether something of this node has changed.
    stale: bool,
    /// Names of others are derived again at the earliest then.
    earliest: Instant,
}

impl Names {
    pub(crate) fn new(dns: Dns, files: SandboxFiles, host: Host) -> Self {
        Self {
            dns,
            view: Arc::default(),
            standing: BTreeMap::new(),
            parked: Vec::new(),
            seated: BTreeMap::new(),
            kept: BTreeMap::new(),
            troubles: BTreeMap::new(),
            files,
            host,
            renamed: BTreeSet::new(),
            stale: true,
            earliest: now(),
        }
    }

    /// Something of this node's sandboxes has changed.
    pub(super) fn doubt(&mut self) {
        self.stale = true;
    }

    /// When names of others are to be derived again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.renamed.is_empty()).then_some(self.earliest)
    }

    pub(super) fn counters(&self) -> &DnsCounters {
        &self.dns.counters
    }

    /// The host's servers that others than the host reach, too.
    pub(super) fn servers_for_guests(&self) -> Vec<IpAddr> {
        let servers = self.host.servers().into_iter().map(|server| server.ip());
        servers.filter(|server| !server.is_loopback()).collect()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.standing.values().any(|standing| matches!(standing, Standing::Failed))
    }

    /// Gives port 53 of containers back to Docker's resolver, which is all they have while no agent runs.
    pub(crate) fn leave_containers(&mut self) {
        for (seat, namespace) in std::mem::take(&mut self.seated) {
            self.leave_container(seat, &namespace);
        }
    }

    /// A container that stays, as it only left its networks, loses what was put there.
    fn leave_container(&mut self, seat: SandboxId, namespace: &Path) {
        let kept = self.kept.remove(&seat);
        self.dns.orders().close(seat, Namespace::open(namespace).ok().or(kept));
    }

    /// Keeps a container's namespace where there is no other way back into it.
    pub(super) fn keep_container(&mut self, seat: SandboxId, namespace: &Namespace) {
        let unseen = self.seated.get(&seat).is_some_and(|path| Namespace::open(path).is_err());
        let kept = namespace.try_clone().ok().filter(|_| unseen);
        self.kept.extend(kept.map(|namespace| (seat, namespace)));
    }

    pub(super) fn is_opening(&self, sandbox: SandboxId) -> bool {
        matches!(self.standing.get(&sandbox), Some(Standing::Opening))
    }
}

/// A sandbox's place in a network.
struct Membership {
    interface: String,
    network: NetworkId,
    internal: bool,
    /// Whether there are names in the network.
    named: bool,
    addresses: Vec<IpAddr>,
}

fn has_names(places: &[Membership]) -> bool {
    places.iter().any(|place| place.named)
}

impl Node {
    /// Looks whether the host's servers are others now.
    pub(crate) fn follow_resolver(&mut self) {
        if self.names.host.refresh() {
            self.names.doubt();
            self.settle_names();
        }
    }

    /// Derives names anew where something has changed, and serves who is to be served.
    pub(crate) fn settle_names(&mut self) {
        self.names.renamed.extend(self.cluster.take_renamed());
        let due = !self.names.renamed.is_empty() && self.names.earliest <= now();
        if !self.names.stale && !due {
            return;
        }
        let began = now();
        let renamed = if due { std::mem::take(&mut self.names.renamed) } else { BTreeSet::new() };
        let memberships = self.memberships();
        let view = self.view(&memberships, &renamed);
        if *self.names.view != view {
            self.names.view = Arc::new(view);
            self.names.dns.tell(Arc::clone(&self.names.view));
        }
        if std::mem::take(&mut self.names.stale) {
            self.open_and_close();
            self.write_files(&memberships);
        }
        if due {
            self.names.earliest = now() + (now() - began).min(Duration::from_secs(1)) * PAUSES;
        }
    }

    /// Networks of each sandbox that weft made, in the order of interfaces.
    fn memberships(&self) -> BTreeMap<SandboxId, Vec<Membership>> {
        let mut memberships: BTreeMap<SandboxId, Vec<Membership>> = BTreeMap::new();
        for own in self.attachments() {
            // Whoever made a namespace has a resolver for it, perhaps at the same address.
            let made = |sandbox: &&Sandbox| sandbox.origin == Origin::Made;
            let Some(sandbox) = self.sandboxes.get(own.sandbox).filter(made) else { continue };
            let network = own.lease.network;
            let local = self.local.definition(network);
            memberships.entry(own.sandbox).or_default().push(Membership {
                interface: sandbox.interfaces.get(&own.lease.endpoint).cloned().unwrap_or_default(),
                network,
                internal: local.map_or_else(|| self.cluster.is_internal(network), |local| local.internal),
                named: local.is_none_or(Definition::has_names),
                addresses: own.lease.addresses.iter().map(|net| net.addr()).collect(),
            });
        }
        for places in memberships.values_mut() {
            places.sort_by(|a, b| (&a.interface, a.network).cmp(&(&b.interface, b.network)));
        }
        memberships
    }

    fn view(
        &self,
        memberships: &BTreeMap<SandboxId, Vec<Membership>>,
        renamed: &BTreeSet<NetworkId>,
    ) -> View {
        let mut view = View { servers: self.names.host.servers(), ..View::default() };
        let named = memberships.iter().filter(|(_, places)| has_names(places));
        for (&sandbox, places) in named {
            let servers =
                self.sandboxes.get(sandbox).map(|sandbox| sandbox.wishes.dns.as_slice()).unwrap_or_default();
            let outside = match servers {
                [] if places.iter().all(|place| place.internal) => Outside::Nowhere,
                [] => Outside::Host,
                own => Outside::Own(own.iter().map(|server| SocketAddr::new(*server, PORT)).collect()),
            };
            let networks = places.iter().filter(|place| place.named).map(|place| place.network).collect();
            view.askers.insert(sandbox, Arc::new(Asker { networks, outside }));
        }
        for (seat, Seat { networks, .. }) in self.seats() {
            view.askers.insert(seat, Arc::new(Asker { networks, outside: Outside::Engine }));
        }
        let networks: BTreeSet<NetworkId> =
            view.askers.values().flat_map(|asker| asker.networks.iter().copied()).collect();
        for network in networks {
            let known = self.names.view.zones.get(&network).filter(|_| !renamed.contains(&network));
            let of_cluster = || known.cloned().or_else(|| self.cluster.zone(network).map(Arc::new));
            let zone = self.local.zone(network).map(Arc::new).or_else(of_cluster);
            view.zones.extend(zone.map(|zone| (network, zone)));
        }
        view
    }

    fn open_and_close(&mut self) {
        let (view, mut seats) = (Arc::clone(&self.names.view), self.seats());
        let closed = self.names.standing.keys().copied().filter(|sandbox| !view.askers.contains_key(sandbox));
        for sandbox in closed.collect::<Vec<_>>() {
            self.names.standing.remove(&sandbox);
            self.names.troubles.remove(&sandbox);
            match self.names.seated.remove(&sandbox) {
                Some(namespace) => self.names.leave_container(sandbox, &namespace),
                None => self.close_names(sandbox),
            }
        }
        for &sandbox in view.askers.keys() {
            if let Entry::Vacant(place) = self.names.standing.entry(sandbox) {
                place.insert(Standing::Opening);
                match seats.remove(&sandbox) {
                    Some(Seat { namespace, .. }) => {
                        self.names.seated.insert(sandbox, namespace.clone());
                        self.open_container(sandbox, namespace);
                    }
                    None => self.open_names(sandbox),
                }
            }
        }
        self.warn_of_names();
    }

    fn open_names(&mut self, sandbox: SandboxId) {
        self.worker.hand(move |bench| {
            let opened = bench.kernel.open(Place::Sandbox(sandbox)).map_err(|fault| explain(&fault));
            move |node: &mut Self| match opened {
                Ok(namespace) if node.names.is_opening(sandbox) => {
                    node.order_names(sandbox, (namespace, Beside::Nobody));
                }
                // It has left its networks meanwhile.
                Ok(_) => {}
                Err(fault) => node.names_opened(sandbox, Err(fault)),
            }
        });
    }

    /// Has names answered in a namespace, and is told what came of it.
    pub(super) fn order_names(&self, sandbox: SandboxId, place: (Namespace, Beside)) {
        let done = self.worker.done();
        let told = move |outcome: Result<How, DoorsError>| {
            let outcome = outcome.map_err(|fault| explain(&fault));
            // The loop has ended: nobody is left to tell.
            let _ = done.send(Box::new(move |node: &mut Self| node.names_opened(sandbox, outcome)));
        };
        self.names.dns.orders().open(sandbox, place, Box::new(told));
    }

    /// A sandbox that stays, as it only left its networks, loses what was put there.
    fn close_names(&mut self, sandbox: SandboxId) {
        let (orders, stays) = (self.names.dns.orders(), self.sandboxes.get(sandbox).is_some());
        // By way of the worker, as opening goes: what is asked last is done last.
        self.worker.hand(move |bench| {
            let namespace = bench.kernel.open(Place::Sandbox(sandbox)).ok();
            orders.close(sandbox, namespace.filter(|_| stays));
            |_: &mut Self| {}
        });
    }

    pub(super) fn names_opened(&mut self, sandbox: SandboxId, outcome: Result<How, String>) {
        let Some(standing) = self.names.standing.get_mut(&sandbox) else { return };
        let trouble = match outcome {
            Ok(How::Redirected) => None,
            Ok(How::Direct(reason)) => Some(format!("port 53 is taken by names, because {reason}")),
            Err(fault) => Some(format!("no names are answered: {fault}")),
        };
        *standing = match &trouble {
            Some(text) if text.starts_with("no names") => Standing::Failed,
            _ => Standing::Open,
        };
        match trouble {
            Some(trouble) => drop(self.names.troubles.insert(sandbox, trouble)),
            None => drop(self.names.troubles.remove(&sandbox)),
        }
        self.warn_of_names();
        self.answer_parked();
    }

    fn warn_of_names(&mut self) {
        const WARNING: &str = "names";
        let count = self.names.troubles.len();
        let Some((sandbox, trouble)) = self.names.troubles.first_key_value() else {
            self.facts.warnings.remove(WARNING);
            return;
        };
        let made = self.sandboxes.get(*sandbox).map(|sandbox| sandbox.name.to_string());
        let seated = || self.names.seated.get(sandbox).map(|namespace| namespace.display().to_string());
        let name = made.or_else(seated).unwrap_or_else(|| sandbox.short());
        let others = if count > 1 { format!(" (and {} others)", count - 1) } else { String::new() };
        let text = format!("sandbox {name}{others}: {trouble}");
        if self.facts.warnings.insert(WARNING, text.clone()).as_ref() != Some(&text) {
            tracing::warn!(fault = text, "names are not as they should be");
        }
    }

    /// Lets the audit try again what failed.
    pub(super) fn retry_names(&mut self) {
        self.names.standing.retain(|_, standing| !matches!(standing, Standing::Failed));
        self.names.doubt();
        self.settle_names();
    }

    /// Answers an attachment once names are answered in the sandbox too.
    pub(super) fn answer_when_named(
        &mut self,
        sandbox: SandboxId,
        reply: Reply,
        outcome: Result<Answer, Refusal>,
    ) {
        self.names.parked.push(Parked { sandbox, reply, outcome });
        self.answer_parked();
    }

    fn answer_parked(&mut self) {
        for parked in std::mem::take(&mut self.names.parked) {
            if self.names.is_opening(parked.sandbox) {
                self.names.parked.push(parked);
            } else {
                answer(parked.reply, parked.outcome);
            }
        }
    }

    fn write_files(&mut self, memberships: &BTreeMap<SandboxId, Vec<Membership>>) {
        let made = self.sandboxes.iter().filter(|sandbox| sandbox.origin == Origin::Made);
        let wanted = made.map(|sandbox| {
            let places = memberships.get(&sandbox.id);
            let own: Vec<IpAddr> =
                places.into_iter().flatten().flat_map(|place| place.addresses.clone()).collect();
            let (wishes, hostname) = (&sandbox.wishes, sandbox.hostname());
            let named = places.is_some_and(|places| has_names(places));
            let resolver = self.names.host.resolver(named);
            let files = Files {
                resolv_conf: resolv_conf(resolver, wishes, named),
                hosts: hosts(wishes, &hostname, &own),
                hostname: format!("{hostname}\n"),
            };
            (sandbox.id, files)
        });
        let wanted = wanted.collect();
        self.names.files.settle(wanted);
    }

    /// What a command in the sandbox reads instead of the host's files; nothing for a namespace of somebody else.
    pub(super) fn show_files(&self, name: &str) -> Result<Answer, Refusal> {
        let sandbox = self.sandboxes.resolve(name)?;
        let files = self.names.files.get(sandbox.id);
        let shown = files.map(|files| {
            let paths = self.names.files.paths(sandbox.id);
            api::SandboxFiles {
                hostname: sandbox.hostname(),
                resolv_conf_path: paths.resolv_conf.display().to_string(),
                resolv_conf: files.resolv_conf.clone(),
                hosts_path: paths.hosts.display().to_string(),
                hosts: files.hosts.clone(),
                hostname_path: paths.hostname.display().to_string(),
            }
        });
        json(StatusCode::OK, &shown.unwrap_or_default())
    }
}
