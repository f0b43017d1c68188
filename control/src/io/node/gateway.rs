//! Legs: the way out of sandboxes that are in overlay networks alone. Which of them have one follows from their
//! networks, whatever has happened in between.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Errand, Node, internal, now};
use crate::io::server::{Refusal, explain};
use crate::io::worker::Settled;
use crate::local::{Outlet, needs_leg};
use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::network::{Lease, OwnEndpoint};
use crate::sandbox::Origin;

/// What goes on once a sandbox has the leg it needs, or cannot have one.
type Then = Box<dyn FnOnce(&mut Node, Result<(), Refusal>) + Send>;

/// Names what an operator should know of legs.
const WARNING: &str = "gateway";

impl Node {
    /// Endpoints that users asked for: all but legs.
    pub(super) fn attachments(&self) -> impl Iterator<Item = OwnEndpoint> + '_ {
        let bridge = self.local.gateway_bridge();
        self.own_endpoints().filter(move |own| Some(own.lease.network) != bridge)
    }

    /// Sandboxes that are to have a leg, once the endpoint `without` is gone. Namespaces that others made have the ways out
    /// that those gave them.
    fn wanted_legs(&self, without: Option<EndpointId>) -> BTreeSet<SandboxId> {
        let mut outlets: BTreeMap<SandboxId, Vec<Outlet>> = BTreeMap::new();
        for own in self.attachments().filter(|own| Some(own.lease.endpoint) != without) {
            outlets.entry(own.sandbox).or_default().push(self.outlet(own.lease.network));
        }
        let made = |id: &SandboxId| self.sandboxes.get(*id).is_some_and(|s| s.origin == Origin::Made);
        outlets.retain(|sandbox, networks| needs_leg(networks) && made(sandbox));
        outlets.into_keys().collect()
    }

    fn outlet(&self, network: NetworkId) -> Outlet {
        match self.local.definition(network) {
            Some(local) if local.internal => Outlet::Internal,
            Some(_) => Outlet::Gateway,
            None if self.cluster.is_internal(network) => Outlet::Internal,
            None => Outlet::Overlay,
        }
    }

    /// Gives legs to those who need one, and takes them from the others.
    pub(super) fn settle_legs(&mut self) {
        let (wanted, there) = (self.wanted_legs(None), self.local.legs().collect::<BTreeMap<_, _>>());
        for sandbox in there.keys().filter(|sandbox| !wanted.contains(sandbox)) {
            self.drop_leg(*sandbox, None);
        }
        let missing: Vec<_> = wanted.into_iter().filter(|sandbox| !there.contains_key(sandbox)).collect();
        if missing.is_empty() {
            self.facts.warnings.remove(WARNING);
        }
        for sandbox in missing {
            self.give_leg(sandbox, Box::new(move |node, _| node.publish_or_warn(sandbox)));
        }
    }

    /// As [`Node::settle_legs`], for one sandbox.
    pub(super) fn settle_leg(&mut self, sandbox: SandboxId, errand: Option<Errand>) {
        self.drop_leg(sandbox, errand);
        self.ensure_leg(sandbox, None, Box::new(move |node, _| node.publish_or_warn(sandbox)));
    }

    /// Goes on with `then` once the sandbox has the leg that it needs without that endpoint.
    pub(super) fn ensure_leg(&mut self, sandbox: SandboxId, without: Option<EndpointId>, then: Then) {
        if self.local.leg(sandbox).is_none() && self.wanted_legs(without).contains(&sandbox) {
            self.give_leg(sandbox, then);
        } else {
            then(self, Ok(()));
        }
    }

    /// Takes the leg of a sandbox that needs none. One that is being made is looked at again when it is.
    pub(super) fn drop_leg(&mut self, sandbox: SandboxId, errand: Option<Errand>) {
        let Some(leg) = self.local.leg(sandbox).filter(|leg| !self.fresh.contains(leg)) else { return };
        // Those of a sandbox that is being removed go with it.
        if self.sandboxes.get(sandbox).is_none() || self.wanted_legs(None).contains(&sandbox) {
            return;
        }
        let Some(bridge) = self.local.gateway_bridge() else { return };
        if let Err(refusal) = self.detach(leg, bridge, errand) {
            tracing::warn!(%sandbox, fault = %refusal.message, "a leg in the gateway bridge stays for now");
        }
    }

    fn give_leg(&mut self, sandbox: SandboxId, then: Then) {
        if self.local.gateway_bridge().is_some() {
            return self.attach_leg(sandbox, then);
        }
        self.worker.hand(move |bench| {
            let routed = bench.kernel.routed().map_err(|fault| internal(explain(&fault)));
            move |node: &mut Self| match routed.and_then(|routed| node.define_gateway_bridge(&routed)) {
                Ok(()) => node.attach_leg(sandbox, then),
                Err(refusal) => node.go_on_without_leg(sandbox, refusal, then),
            }
        });
    }

    fn define_gateway_bridge(&mut self, routed: &[IpNet]) -> Result<(), Refusal> {
        // Another sandbox's leg may have brought it meanwhile.
        if self.local.gateway_bridge().is_none() {
            let network = self.define_local(crate::local::gateway_bridge(), routed)?;
            tracing::info!(%network, "the gateway bridge is made");
        }
        Ok(())
    }

    fn attach_leg(&mut self, sandbox: SandboxId, then: Then) {
        match self.lease_leg(sandbox) {
            Ok(Some(lease)) => {
                let made = lease.clone();
                self.make_local(&lease, sandbox, move |node, outcome| {
                    node.leg_made(&made, sandbox, outcome, then);
                });
            }
            Ok(None) => then(self, Ok(())),
            Err(refusal) => self.go_on_without_leg(sandbox, refusal, then),
        }
    }

    /// The leg's addresses, durably; nothing if somebody else has asked for it meanwhile.
    fn lease_leg(&mut self, sandbox: SandboxId) -> Result<Option<Lease>, Refusal> {
        if self.local.leg(sandbox).is_some() {
            return Ok(None);
        }
        let gone = || internal("the sandbox was removed meanwhile");
        let name = self.sandboxes.get(sandbox).ok_or_else(gone)?.name.clone();
        let own = self.own_endpoints().filter(|own| own.sandbox == sandbox);
        let beside: Vec<IpNet> = own.flat_map(|own| own.lease.addresses).collect();
        Ok(Some(self.local.attach_leg(now(), (sandbox, name), &beside)?))
    }

    fn leg_made(&mut self, lease: &Lease, sandbox: SandboxId, outcome: Result<Settled, String>, then: Then) {
        match self.keep_interface(lease, sandbox, outcome) {
            Ok(interface) => {
                tracing::info!(%sandbox, interface, "it has a leg in the gateway bridge");
                self.untold.push((sandbox, interface, lease.mac));
                self.settle_firewall();
                self.settle_routes(sandbox, None);
                then(self, Ok(()));
            }
            Err(refusal) => {
                self.give_up(lease);
                self.go_on_without_leg(sandbox, refusal, then);
            }
        }
    }

    /// Others of the sandbox's networks are no worse for it: it is told, and tried again by each audit.
    fn go_on_without_leg(&mut self, sandbox: SandboxId, refusal: Refusal, then: Then) {
        self.counters.kernel_failures += 1;
        let name =
            self.sandboxes.get(sandbox).map_or_else(|| sandbox.short(), |found| found.name.to_string());
        let text = format!("sandbox {name} has no way out of its overlay networks: {}", refusal.message);
        if self.facts.warnings.insert(WARNING, text.clone()).as_ref() != Some(&text) {
            tracing::warn!(text, "the next audit tries again");
        }
        then(self, Err(refusal));
    }
}
