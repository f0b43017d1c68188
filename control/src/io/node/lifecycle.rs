//! Start, regular care, and the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_dataplane::change::{Change, Event};
use weft_dataplane::io::Dataplane;
use weft_dataplane::wire::Vni;

use super::sandboxes::make_namespace;
use super::{Node, now, owner_runs};
use crate::driver::bridge;
use crate::driver::overlay::Wanted;
use crate::io::commands::{self, Directory};
use crate::io::firewall::Disturbed;
use crate::io::kernel::{Carrier, hidden_pin, network_of_pin};
use crate::io::server::explain;
use crate::io::worker::{Bench, Purpose};
use crate::model::{NetworkId, SandboxId};
use crate::network::OwnEndpoint;
use crate::plan::{Place, Plan, Step, run_through};
use crate::reconcile::audit;
use crate::sandbox::{Origin, Return, Sandbox};

impl Node {
    /// Brings back what was there before the agent ended, however it ended; [`Node::recovered`] tells when.
    pub(crate) fn recover(&mut self) {
        let sandboxes: Vec<_> = self.sandboxes.iter().cloned().collect();
        let handed = self.handed_over(None);
        self.worker.hand(move |bench| {
            let lost: Vec<_> =
                sandboxes.iter().filter(|sandbox| !comes_back(bench, sandbox)).map(|s| s.id).collect();
            let ends = bench.lost_ends(&handed);
            move |node: &mut Self| {
                node.forget_lost(&ends);
                node.recover_networks(&lost);
            }
        });
    }

    fn recover_networks(&mut self, lost: &[SandboxId]) {
        for sandbox in lost {
            if let Err(refusal) = self.forget_sandbox(*sandbox, None) {
                tracing::warn!(%sandbox, fault = %refusal.message, "a lost sandbox stays for now");
            }
        }
        self.sweep();
        self.sweep_docker();
        self.drop_stale_interfaces();
        self.detach_ended();
        let networks: BTreeSet<_> = self.cluster.own_endpoints().map(|own| own.lease.network).collect();
        for network in &networks {
            self.segment_changed(*network);
            self.settle(*network);
        }
        self.settle_legs();
        self.publish_all();
        self.settle_firewall();
        self.settle_bridges(Purpose::All, None);
        self.settle_all_routes();
        self.settle_dhcp();
        self.look_for_obstacles();
        self.sweep_pins(networks);
        self.sweep_commands();
        self.drain_cluster();
        self.worker.hand(|_| |node: &mut Self| node.recovered = true);
    }

    /// Interfaces whose endpoint was given up just before the agent ended.
    fn drop_stale_interfaces(&mut self) {
        let endpoints: BTreeSet<_> = self.own_endpoints().map(|own| own.lease.endpoint).collect();
        let interfaces = self.sandboxes.iter().flat_map(|sandbox| sandbox.interfaces.keys().copied());
        let stale: Vec<_> = interfaces.filter(|endpoint| !endpoints.contains(endpoint)).collect();
        for endpoint in stale {
            self.forget_interface(endpoint);
        }
    }

    /// Endpoints that belong to nothing: their sandbox is gone, or their interface was never made.
    fn sweep(&mut self) {
        let stray = |sandbox: SandboxId, endpoint| {
            let sandbox = self.sandboxes.get(sandbox);
            let keeps = |s: &Sandbox| s.origin == Origin::Docker || s.interfaces.contains_key(&endpoint);
            !self.fresh.contains(&endpoint) && !sandbox.is_some_and(keeps)
        };
        let own = self.own_endpoints();
        let strays: Vec<_> =
            own.filter(|own| stray(own.sandbox, own.lease.endpoint)).map(|own| own.lease).collect();
        for lease in strays {
            tracing::info!(endpoint = %lease.endpoint, "an endpoint of nothing is given up");
            if let Err(refusal) = self.detach(lease.endpoint, lease.network, None) {
                tracing::warn!(endpoint = %lease.endpoint, fault = %refusal.message, "it stays for now");
            }
        }
    }

    /// Endpoints of sandboxes whose command ended while nobody was there to detach them: its supervisor was killed, or
    /// this agent was down.
    fn detach_ended(&mut self) {
        let ended = |own: &OwnEndpoint| {
            let life = Directory::at(&self.commands_of(own.sandbox)).life();
            let ended = life.is_some_and(|life| life.has_ended(commands::is_supervised(&life)));
            ended && !self.fresh.contains(&own.lease.endpoint)
        };
        let ended: Vec<_> = self.cluster.own_endpoints().filter(ended).map(|own| own.lease).collect();
        for lease in ended {
            tracing::info!(endpoint = %lease.endpoint, "an endpoint of a command that ended is given up");
            if let Err(refusal) = self.detach(lease.endpoint, lease.network, None) {
                tracing::warn!(endpoint = %lease.endpoint, fault = %refusal.message, "it stays for now");
            }
        }
    }

    /// Files of commands whose sandbox was forgotten just before the agent ended.
    fn sweep_commands(&mut self) {
        let root = self.facts.commands.clone();
        let keep: BTreeSet<_> = self.sandboxes.iter().map(|sandbox| self.commands_of(sandbox.id)).collect();
        self.worker.hand(move |_| {
            if let Err(fault) = commands::keep_only(&root, &keep) {
                tracing::warn!(%fault, "files of commands are left over");
            }
            |_: &mut Self| {}
        });
    }

    /// Pins that nobody remembers: what a crash left behind, or a removal that failed.
    fn sweep_pins(&mut self, networks: BTreeSet<NetworkId>) {
        let names = self.sandboxes.iter().map(|sandbox| &sandbox.name).chain(&self.making);
        let names = names.map(ToString::to_string);
        let keep: BTreeSet<String> = names.chain(networks.iter().copied().map(hidden_pin)).collect();
        self.worker.hand(move |bench| {
            let found = bench.kernel.pins().list().unwrap_or_default();
            for pin in found.iter().filter(|pin| !keep.contains(*pin)) {
                tracing::info!(pin, "a namespace nobody remembers is removed");
                remove_pin(bench, pin);
            }
            |_: &mut Self| {}
        });
    }

    /// Compares everything with the records and repairs what differs.
    pub(crate) fn audit(&mut self) {
        self.counters.audits += 1;
        self.sweep();
        self.detach_ended();
        let mut networks: BTreeSet<_> = self.programmed.keys().copied().collect();
        networks.extend(self.cluster.own_endpoints().map(|own| own.lease.network));
        self.worker.hand(|bench| {
            bench.kernel.doubt_guards();
            |_: &mut Self| {}
        });
        for network in networks.iter().copied() {
            if let Some(derived) = self.cluster.segment(network) {
                self.counters.repairs += audit(self.programmed.get(&network), derived).len() as u64;
            }
            self.segment_changed(network);
            let wanted = self.wanted(network);
            self.worker.hand(move |bench| {
                let outcome = bench.settle(wanted, Purpose::All);
                move |node: &mut Self| {
                    if let Ok(settled) = &outcome {
                        node.counters.repairs += settled.steps as u64;
                    }
                    node.settled(network, outcome.map(|_| ()), None);
                }
            });
        }
        self.settle_legs();
        self.disturbed(Disturbed::Tables);
        self.disturbed(Disturbed::Rules);
        self.look_for_obstacles();
        self.audit_bridges();
        self.sweep_idle_endpoints();
        self.forget_lost_endpoints(None, |_| {});
        self.settle_all_routes();
        self.settle_dhcp();
        self.sweep_pins(networks);
        self.retry_names();
        self.drain_cluster();
    }

    fn audit_bridges(&mut self) {
        let wanted = self.wanted_bridges();
        self.worker.hand(move |bench| {
            let outcome = bench.settle_bridges(wanted, Purpose::All);
            move |node: &mut Self| match outcome {
                Ok(settled) => {
                    node.counters.repairs += settled.steps as u64;
                    node.note_left_alone(&settled.left_alone);
                }
                Err(fault) => {
                    node.counters.kernel_failures += 1;
                    tracing::warn!(fault, "bridges are not as they should be; the next audit tries again");
                }
            }
        });
    }

    fn settle_all_routes(&mut self) {
        let sandboxes: Vec<_> = self.sandboxes.iter().map(|sandbox| sandbox.id).collect();
        for sandbox in sandboxes {
            self.settle_routes(sandbox, None);
        }
    }

    /// Removes ephemeral sandboxes whose process has ended.
    pub(crate) fn bury(&mut self) {
        let owned = self.sandboxes.iter().filter(|sandbox| sandbox.owner.is_some());
        let orphans: Vec<_> =
            owned.filter(|sandbox| !owner_runs(sandbox)).map(|sandbox| sandbox.id).collect();
        for sandbox in orphans {
            if let Err(refusal) = self.forget_sandbox(sandbox, None) {
                tracing::warn!(%sandbox, fault = %refusal.message, "an orphan stays for now");
            }
        }
        self.drain_cluster();
    }

    /// Lets interfaces that were just made tell their neighbours once more.
    pub(crate) fn tell_again(&mut self) {
        let tell = |(sandbox, name, mac)| Step::Tell { at: Place::Sandbox(sandbox), name, mac };
        let steps: Vec<_> = std::mem::take(&mut self.untold).into_iter().map(tell).collect();
        if steps.is_empty() {
            return;
        }
        self.worker.hand(move |bench| {
            // Whatever has been removed meanwhile has nothing to tell.
            drop(run_through(&Plan(steps), &mut bench.kernel));
            |_: &mut Self| {}
        });
    }

    /// Tells the cluster what was sealed and opened.
    pub(crate) fn note_traffic(&mut self) {
        self.cluster.note_traffic(now(), self.dataplane.peers());
    }

    /// Whether the kernel guards what sandboxes of one network say to each other on this host.
    pub(crate) fn guarded(&mut self, fault: Option<String>) {
        const WARNING: &str = "guard";
        let Some(fault) = fault else {
            self.facts.warnings.remove(WARNING);
            return;
        };
        let text = format!(
            "sandboxes of one network on this host can use each other's IP addresses: {fault}; it is tried again \
             every half minute"
        );
        tracing::warn!(fault, "the kernel does not check what sandboxes say of their addresses");
        self.facts.warnings.insert(WARNING, text);
    }

    /// Takes in what packets have taught the dataplane.
    pub(crate) fn drain_dataplane(&mut self) {
        while let Some(event) = self.dataplane.poll_event() {
            match event {
                Event::Learned { vni, mac, vtep } => tracing::debug!(%vni, %mac, %vtep, "learned"),
                Event::LearnRefused { vni, .. } => {
                    tracing::debug!(%vni, "too many addresses behind static VTEPs");
                }
                Event::PortLost { vni } => self.port_lost(vni),
                Event::SessionWanted { .. } | Event::SessionConfirmed { .. } | Event::SessionWorn { .. } => {
                    self.cluster.note(now(), event);
                }
            }
        }
    }

    fn port_lost(&mut self, vni: Vni) {
        tracing::warn!(%vni, "an uplink is gone; it is made anew");
        self.worker.hand(move |bench| {
            bench.kernel.lose_uplink(vni);
            |_: &mut Self| {}
        });
        let of_vni = |(network, segment): (&NetworkId, &weft_dataplane::segment::SegmentSpec)| {
            (segment.vni == vni).then_some(*network)
        };
        let networks: Vec<_> = self.programmed.iter().filter_map(of_vni).collect();
        for network in networks {
            self.settle(network);
        }
    }

    /// Goes on with another dataplane, on another underlay address.
    pub(crate) fn use_dataplane(&mut self, dataplane: Arc<Dataplane>, carrier: Box<dyn Carrier>) {
        for segment in self.programmed.values() {
            dataplane.apply(Change::SetSegment(segment.clone()));
        }
        let before = std::mem::replace(&mut self.dataplane, dataplane);
        self.cluster.reset_sessions(now());
        self.worker.hand(move |bench| {
            bench.kernel.use_carrier(carrier);
            drop(before);
            |_: &mut Self| {}
        });
        let networks: Vec<_> = self.programmed.keys().copied().collect();
        for network in networks {
            self.settle(network);
        }
    }

    /// Gives networks the packet size that the underlay carries now, and tells which of them need more.
    pub(crate) fn set_underlay_mtu(&mut self, mtu: u16) {
        const WARNING: &str = "mtu";
        self.cluster.set_underlay_mtu(now(), mtu);
        self.drain_cluster();
        let networks: BTreeSet<_> = self.cluster.own_endpoints().map(|own| own.lease.network).collect();
        let names = self.cluster.names();
        let too_small = |network: &NetworkId| {
            let fault = self.wanted(*network).validate().err()?;
            Some(format!("{} ({fault})", names.get(network).cloned().unwrap_or_else(|| network.short())))
        };
        let needy: Vec<_> = networks.iter().filter_map(too_small).collect();
        if needy.is_empty() {
            self.facts.warnings.remove(WARNING);
            return;
        }
        let text = format!(
            "the underlay's MTU of {mtu} is too small for {}; IPv6 needs 1280 inside, which is 1350 on the underlay",
            needy.join(", ")
        );
        tracing::warn!(fault = text, "networks do not work as they should");
        self.facts.warnings.insert(WARNING, text);
    }

    /// Removes every sandbox, every endpoint and every namespace of this node.
    pub(crate) fn tear_down(&mut self) {
        let sandboxes: Vec<_> = self.sandboxes.iter().map(|sandbox| sandbox.id).collect();
        for sandbox in sandboxes {
            if let Err(refusal) = self.forget_sandbox(sandbox, None) {
                tracing::warn!(%sandbox, fault = %refusal.message, "a sandbox is left over");
            }
        }
        self.sweep();
        self.drain_cluster();
        let nothing = bridge::Wanted::nothing(self.cluster.node_id());
        self.worker.hand(move |bench| {
            let outcome = bench.settle_bridges(nothing, Purpose::Removal);
            |_: &mut Self| {
                if let Err(fault) = outcome {
                    tracing::warn!(fault, "bridges are left over");
                }
            }
        });
        self.tear_firewall_down();
        self.sweep_pins(BTreeSet::new());
    }
}

/// Whether a sandbox is still there or there again.
fn comes_back(bench: &mut Bench, sandbox: &Sandbox) -> bool {
    bench.kernel.name_sandbox(sandbox.id, sandbox.name.as_str());
    let there = bench.kernel.has(Place::Sandbox(sandbox.id));
    match sandbox.comes_back(there, owner_runs(sandbox)) {
        Return::Keep => {
            if sandbox.origin == Origin::Made {
                // An agent that ended between making the namespace and this left it down.
                let at = Place::Sandbox(sandbox.id);
                drop(run_through(&Plan(vec![Step::SetUp { at, name: "lo".into() }]), &mut bench.kernel));
            }
            true
        }
        Return::Remove => false,
        Return::MakeAnew => make_namespace(bench, sandbox)
            .inspect_err(
                |fault| tracing::warn!(sandbox = %sandbox.id, fault, "a sandbox cannot be made anew"),
            )
            .is_ok(),
    }
}

/// Removes a pinned namespace: a network's by its plan, so that ends in sandboxes go at once, others by unpinning.
fn remove_pin(bench: &mut Bench, pin: &str) {
    let emptied = network_of_pin(pin).map(|network| {
        let nothing = Wanted { network, vni: Vni::MAX, mtu: u16::MAX, sealed: false, endpoints: Vec::new() };
        bench.settle(nothing, Purpose::Removal)
    });
    if let Some(Err(fault)) = emptied {
        tracing::warn!(pin, fault, "a network's namespace could not be emptied");
    }
    if let Err(fault) = bench.kernel.pins().remove(pin) {
        tracing::warn!(pin, fault = %explain(&fault), "left over");
    }
}
