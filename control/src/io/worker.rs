//! The thread that works on the kernel, one piece of work after the other.
//!
//! The agent's loop hands it work and gets back what to do next, so neither ever waits for the other and everything
//! that happens to the kernel happens in the order it was decided.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::firewall::Loader;
use super::kernel::{Kernel, KernelError};
use super::namespace::Pins;
use super::node::Node;
use super::server::explain;
use crate::driver::overlay::{Wanted, pieces};
use crate::driver::{
    End, Piece, Scope, SeenLink, WantedEndpoint, bridge, far_name, free_interface, macvlan, port_name,
};
use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::plan::{Failure, Place, Plan, Step, run};

/// What names of endpoints of virtual machines begin with: there is no interface of that name.
const TAP_PREFIX: &str = "tap";

/// What the loop does once the kernel has done its part.
pub(crate) type Next = Box<dyn FnOnce(&mut Node) + Send>;
/// Links of a namespace by name.
type Links = BTreeMap<String, SeenLink>;
type Work = Box<dyn FnOnce(&mut Bench) -> Next + Send>;

/// The kernel, and what the thread remembers between pieces of work.
pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    pub(crate) firewall: Loader,
    /// Names picked for interfaces that the loop has not recorded yet.
    picked: BTreeMap<EndpointId, (SandboxId, String)>,
}

/// An endpoint that is being attached: it has no interface yet, and must not get one of these.
#[derive(Debug, Clone)]
pub(crate) struct Fresh {
    pub(crate) endpoint: EndpointId,
    pub(crate) network: NetworkId,
    pub(crate) taken: Vec<String>,
    /// What the interface's name begins with.
    pub(crate) prefix: String,
}

/// What settling is for: only what fails of that is its failure, what fails of other endpoints is a warning.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// Everything.
    All,
    /// What is no longer wanted.
    Removal,
    /// What is no longer wanted, in this sandbox too.
    Detached(SandboxId),
    /// A network of this host that is being made.
    Network(NetworkId),
    /// An endpoint that is being attached.
    Fresh(Fresh),
}

impl Purpose {
    fn fresh(&self) -> Option<&Fresh> {
        if let Self::Fresh(fresh) = self { Some(fresh) } else { None }
    }

    /// Has the interface made that is to be handed over.
    fn begin(&self, endpoints: &mut [WantedEndpoint]) {
        let Some(fresh) = self.fresh() else { return };
        for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.id == fresh.endpoint) {
            if let End::Handed { fresh } = &mut endpoint.end {
                *fresh = true;
            }
        }
    }

    /// Whether what fails of a piece is a failure of this.
    fn needs(&self, scope: Scope) -> bool {
        match (scope, self) {
            (Scope::All, _) | (_, Self::All) => true,
            (_, Self::Removal | Self::Detached(_)) => false,
            (Scope::Network(network), Self::Network(made)) => network == *made,
            (Scope::Network(network), Self::Fresh(fresh)) => network == fresh.network,
            (Scope::Endpoint(endpoint), Self::Fresh(fresh)) => endpoint == fresh.endpoint,
            (Scope::Endpoint(_), Self::Network(_)) => false,
        }
    }
}

/// What settling came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Name of the fresh endpoint's interface.
    pub(crate) interface: Option<String>,
    /// Steps that were needed.
    pub(crate) steps: usize,
    /// Networks that cannot be as things are, and why.
    pub(crate) left_alone: Vec<(NetworkId, String)>,
}

impl Bench {
    /// Brings the kernel to what is wanted, piece by piece; what of a piece fails is as it was.
    ///
    /// Endpoints without an interface name are others' fresh ones: they keep the name picked for them, and are left
    /// alone where none was.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn settle(&mut self, mut wanted: Wanted, purpose: Purpose) -> Result<Settled, String> {
        let sandboxes: Vec<_> = wanted.endpoints.iter().map(|endpoint| endpoint.sandbox).collect();
        purpose.begin(&mut wanted.endpoints);
        let in_host = wanted.endpoints.iter().any(|endpoint| endpoint.end.is_in_host());
        let observed = self.kernel.observe(wanted.network, sandboxes, in_host);
        let observed = observed.map_err(|fault| explain(&fault))?;
        let interface =
            self.name(&mut wanted.endpoints, (&observed.sandboxes, &observed.host), purpose.fresh())?;
        let wanted = wanted.validate().map_err(|fault| fault.to_string())?;
        self.finish(&pieces(&wanted, &observed), &purpose, interface)
    }

    /// As [`Bench::settle`], for networks of the host. Only where it is for everything, all sandboxes are looked at.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn settle_bridges(
        &mut self,
        mut wanted: bridge::Wanted,
        purpose: Purpose,
    ) -> Result<Settled, String> {
        wanted.endpoints_mut().for_each(|endpoints| purpose.begin(endpoints));
        let observed =
            self.kernel.observe_host(concerned(&wanted, &purpose)).map_err(|fault| explain(&fault))?;
        let mut interface = None;
        for endpoints in wanted.endpoints_mut() {
            let named = self.name(endpoints, (&observed.sandboxes, &observed.links), purpose.fresh())?;
            interface = interface.or(named);
        }
        let left_alone = self.check(&wanted, &observed, &purpose)?;
        let focus = purpose.fresh().map(|fresh| fresh.endpoint);
        let settled = self.finish(&bridge::pieces(&wanted, &observed, focus), &purpose, interface)?;
        Ok(Settled { left_alone, ..settled })
    }

    /// The networks that cannot be.
    fn check(
        &mut self,
        wanted: &bridge::Wanted,
        observed: &bridge::Observed,
        purpose: &Purpose,
    ) -> Result<Vec<(NetworkId, String)>, String> {
        let bridges =
            wanted.faults(observed).into_iter().map(|(network, fault)| (network, fault.to_string()));
        let children = macvlan::faults(wanted, observed).into_iter();
        let children = children.map(|(network, fault)| (network, fault.to_string()));
        let faults: Vec<_> = bridges.chain(children).collect();
        for (network, fault) in &faults {
            if matches!(purpose, Purpose::All) {
                tracing::warn!(%network, fault, "a network is left alone");
            } else if purpose.needs(Scope::Network(*network)) {
                return Err(fault.clone());
            }
        }
        let made = wanted
            .children
            .iter()
            .find(|network| matches!(purpose, Purpose::Network(made) if *made == network.network));
        if let Some(made) = made {
            self.kernel.probe(made.mode).map_err(|fault| explain(&fault))?;
        }
        Ok(faults)
    }

    /// Gives endpoints without an interface name theirs, and leaves out those that have none to get; tells the fresh
    /// one's.
    fn name(
        &mut self,
        endpoints: &mut Vec<WantedEndpoint>,
        (sandboxes, host): (&BTreeMap<SandboxId, Links>, &Links),
        fresh: Option<&Fresh>,
    ) -> Result<Option<(SandboxId, String)>, String> {
        let mut interface = None;
        for endpoint in endpoints.iter_mut() {
            if let Some(Fresh { taken, prefix, .. }) = fresh.filter(|fresh| fresh.endpoint == endpoint.id) {
                let nothing = BTreeMap::new();
                let (there, prefix) = match endpoint.end {
                    End::Namespace => {
                        let there = sandboxes.get(&endpoint.sandbox);
                        (there.ok_or("the sandbox's namespace is gone")?, prefix.as_str())
                    }
                    End::Descriptor => (&nothing, TAP_PREFIX),
                    End::Handed { .. } => {
                        endpoint.interface = far_name(endpoint.id);
                        interface = Some((endpoint.sandbox, endpoint.interface.clone()));
                        continue;
                    }
                    End::Device { .. } if host.contains_key(prefix) => {
                        return Err(format!(
                            "the host has an interface {prefix} already: choose another name"
                        ));
                    }
                    End::Device { .. } => {
                        endpoint.interface.clone_from(prefix);
                        interface = Some((endpoint.sandbox, prefix.clone()));
                        continue;
                    }
                };
                let picked = self.picked.values().filter(|(sandbox, _)| *sandbox == endpoint.sandbox);
                let picked = picked.map(|(_, name)| name);
                let taken = there.keys().chain(taken).chain(picked).map(String::as_str);
                endpoint.interface = free_interface(prefix, taken);
                interface = Some((endpoint.sandbox, endpoint.interface.clone()));
            } else if endpoint.interface.is_empty() {
                endpoint.interface =
                    self.picked.get(&endpoint.id).map(|(_, name)| name.clone()).unwrap_or_default();
            } else {
                self.picked.remove(&endpoint.id);
            }
        }
        endpoints.retain(|endpoint| !endpoint.interface.is_empty());
        Ok(interface)
    }

    fn finish(
        &mut self,
        pieces: &[Piece],
        purpose: &Purpose,
        interface: Option<(SandboxId, String)>,
    ) -> Result<Settled, String> {
        let mut failures = Vec::new();
        let outcome = self.carry_out(pieces, |scope, failure| {
            if !purpose.needs(scope) {
                return Some(failure);
            }
            failures.push(failure);
            None
        });
        self.kernel.close_all();
        outcome?;
        if !failures.is_empty() {
            return Err(failures.join("; "));
        }
        if let (Some(fresh), Some(interface)) = (purpose.fresh(), &interface) {
            self.picked.insert(fresh.endpoint, interface.clone());
        }
        // A guard is loaded again from time to time without need.
        let steps = pieces.iter().flat_map(|piece| &piece.plan.0);
        let steps = steps.filter(|step| !matches!(step, Step::Guard { .. })).count();
        Ok(Settled { interface: interface.map(|(_, name)| name), steps, ..Settled::default() })
    }

    /// Brings a sandbox's default routes to what is wanted: link and next hop of each.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn settle_routes(
        &mut self,
        sandbox: SandboxId,
        wanted: &[(String, IpAddr)],
    ) -> Result<usize, String> {
        let at = Place::Sandbox(sandbox);
        if wanted.is_empty() || !self.kernel.has(at) {
            return Ok(0);
        }
        let there = self.kernel.default_routes(at).map_err(|fault| explain(&fault))?;
        let missing =
            wanted.iter().filter(|(link, via)| !there.iter().any(|(hop, by)| hop == via && by == link));
        let step =
            |(name, via): &(String, IpAddr)| Step::SetDefaultRoute { at, name: name.clone(), via: *via };
        let plan = Plan(missing.map(step).collect());
        let outcome = run(&plan, &mut self.kernel).map_err(|failure| word(&failure));
        self.kernel.close_all();
        outcome.map(|()| plan.0.len())
    }

    /// Carries out each piece that can be. What is wrong in one sandbox is not the fault of who attaches or detaches
    /// another: `take` keeps what fails of what somebody waits for, and gives the rest back.
    fn carry_out(
        &mut self,
        pieces: &[Piece],
        mut take: impl FnMut(Scope, String) -> Option<String>,
    ) -> Result<(), String> {
        for Piece { scope, plan } in pieces {
            let Err(failure) = run(plan, &mut self.kernel) else { continue };
            let failure = word(&failure);
            match scope {
                Scope::All => return Err(failure),
                Scope::Network(network) => {
                    if let Some(failure) = take(*scope, failure) {
                        tracing::warn!(%network, failure, "a network is not as it should be");
                    }
                }
                Scope::Endpoint(endpoint) => {
                    if let Some(failure) = take(*scope, failure) {
                        tracing::warn!(%endpoint, failure, "an endpoint is not as it should be");
                    }
                }
            }
        }
        Ok(())
    }

    /// As [`Bench::settle`], where several interfaces are made to be handed over; tells what failed of which.
    ///
    /// # Errors
    /// What failed of all, in words.
    pub(crate) fn settle_handed(
        &mut self,
        mut wanted: Wanted,
        fresh: &BTreeSet<EndpointId>,
    ) -> Result<BTreeMap<EndpointId, String>, String> {
        for endpoint in wanted.endpoints.iter_mut().filter(|endpoint| fresh.contains(&endpoint.id)) {
            endpoint.end = End::Handed { fresh: true };
            self.picked.insert(endpoint.id, (endpoint.sandbox, far_name(endpoint.id)));
        }
        let sandboxes: Vec<_> = wanted.endpoints.iter().map(|endpoint| endpoint.sandbox).collect();
        let observed = self.kernel.observe(wanted.network, sandboxes, !fresh.is_empty());
        let observed = observed.map_err(|fault| explain(&fault))?;
        self.name(&mut wanted.endpoints, (&observed.sandboxes, &observed.host), None)?;
        let wanted = wanted.validate().map_err(|fault| fault.to_string())?;
        let mut failures = BTreeMap::new();
        let outcome = self.carry_out(&pieces(&wanted, &observed), |scope, failure| match scope {
            Scope::Endpoint(endpoint) if fresh.contains(&endpoint) => {
                failures.insert(endpoint, failure);
                None
            }
            _ => Some(failure),
        });
        self.kernel.close_all();
        outcome.map(|()| failures)
    }

    /// Those of the endpoints whose near end is gone from its place; none where the kernel does not answer.
    pub(crate) fn lost_ends(&mut self, ends: &[(EndpointId, Place)]) -> BTreeSet<EndpointId> {
        let mut lost = BTreeSet::new();
        let places: BTreeSet<Place> = ends.iter().map(|(_, at)| *at).collect();
        for at in places {
            let Ok(there) = self.kernel.link_names(at) else { continue };
            let gone = |(id, place): &&(EndpointId, Place)| *place == at && !there.contains(&port_name(*id));
            lost.extend(ends.iter().filter(gone).map(|(id, _)| *id));
        }
        lost
    }

    /// Forgets the name picked for an endpoint.
    pub(crate) fn unpick(&mut self, endpoint: EndpointId) {
        self.picked.remove(&endpoint);
    }
}

/// The sandboxes to look at.
fn concerned(wanted: &bridge::Wanted, purpose: &Purpose) -> BTreeSet<SandboxId> {
    match purpose {
        Purpose::All => wanted
            .endpoints()
            .map(|endpoint| endpoint.sandbox)
            .chain(wanted.holders.iter().copied())
            .collect(),
        // What else is in a sandbox goes with its end on the host.
        Purpose::Detached(sandbox) if !wanted.children.is_empty() => [*sandbox].into(),
        Purpose::Removal | Purpose::Network(_) | Purpose::Detached(_) => BTreeSet::new(),
        Purpose::Fresh(fresh) => {
            let fresh = wanted.endpoints().find(|endpoint| endpoint.id == fresh.endpoint);
            fresh.map(|endpoint| endpoint.sandbox).into_iter().collect()
        }
    }
}

/// A failure in words: what was attempted, why it failed, what is left over.
pub(crate) fn word(failure: &Failure<KernelError>) -> String {
    let mut text = format!("cannot {}: {}", failure.step, explain(&failure.cause));
    for (step, cause) in &failure.leftovers {
        text.push_str(&format!("; left over, for lack of '{step}': {}", explain(cause)));
    }
    text
}

/// Hands work to the thread.
pub(crate) struct Worker {
    work: Option<mpsc::Sender<Work>>,
    done: UnboundedSender<Next>,
    thread: Option<JoinHandle<Pins>>,
}

impl Worker {
    /// Starts the thread; what to do next arrives at `done`.
    ///
    /// # Errors
    /// No more threads.
    pub(crate) fn start(
        kernel: Kernel,
        firewall: Loader,
        done: UnboundedSender<Next>,
    ) -> std::io::Result<Self> {
        let (work, queue) = mpsc::channel::<Work>();
        let told = done.clone();
        let thread = std::thread::Builder::new().name("weft-kernel".into()).spawn(move || {
            let mut bench = Bench { kernel, firewall, picked: BTreeMap::new() };
            for work in queue {
                let next = work(&mut bench);
                bench.kernel.close_all();
                // The loop has ended: nobody is left to tell.
                let _ = done.send(next);
                if let Some(news) = bench.kernel.guard_news() {
                    let _ = done.send(Box::new(move |node| node.guarded(news)));
                }
            }
            bench.kernel.into_pins()
        })?;
        Ok(Self { work: Some(work), done: told, thread: Some(thread) })
    }

    /// The way back to the loop, for work that is handed on.
    pub(crate) fn done(&self) -> UnboundedSender<Next> {
        self.done.clone()
    }

    /// Has `work` done after everything before it; what it returns is done by the loop.
    pub(crate) fn hand<N>(&self, work: impl FnOnce(&mut Bench) -> N + Send + 'static)
    where
        N: FnOnce(&mut Node) + Send + 'static,
    {
        let work: Work = Box::new(move |bench| Box::new(work(bench)));
        if let Some(queue) = &self.work {
            // A thread that is gone has panicked, which its join reports.
            let _ = queue.send(work);
        }
    }

    /// Lets the thread finish what it was handed; uplinks go with the dataplane, pins stay.
    pub(crate) fn finish(mut self) -> Option<Pins> {
        self.work.take();
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}
