//! Endpoints whose containers are gone without a word: a killed engine does not tell, when it is back, of what it no
//! longer knows, and a call that broke off is not taken back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::super::{Node, now};
use crate::docker::protocol::CreateEndpoint;
use crate::docker::{DockerId, PendingPools};
use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::network::{Attach, OwnEndpoint};
use crate::plan::Place;
use crate::sandbox::Origin;

/// Longest that an endpoint is in no container.
const IDLE: Duration = Duration::from_secs(120);

impl Node {
    /// An engine has started. What another one was in the middle of ended with that: it knows nothing of pools without a
    /// network, of addresses without an endpoint, of endpoints in no container.
    pub(super) fn begin_with_engine(&mut self) {
        self.docker.pools = PendingPools::default();
        self.cluster.release_holds();
        let known = self.docker.bindings.endpoints().map(|(id, _)| id);
        for id in known.filter(|id| self.is_idle(id)).cloned().collect::<Vec<_>>() {
            tracing::info!(
                docker = id.short(),
                "an endpoint was not put in a container before its engine ended"
            );
            self.forget_docker_endpoint(&id);
        }
        let bindings = &self.docker.bindings;
        let known = bindings.networks().map(|(id, _)| id).chain(bindings.endpoints().map(|(id, _)| id));
        if let Some(engine) = &mut self.engine {
            engine.begins(known.cloned().collect());
        }
    }

    /// An engine that gives an address to another endpoint of a network has forgotten the one that had it.
    pub(super) fn forget_forgotten(&mut self, call: &CreateEndpoint, wish: &Attach) {
        for ip in wish.fixed() {
            let holder = self.docker_holder(wish.network, ip).filter(|id| *id != call.endpoint);
            let known = holder.as_ref().and_then(|id| self.docker.bindings.endpoint(id));
            if known.is_some_and(|known| known.network == call.network)
                && let Some(id) = holder
            {
                tracing::info!(docker = id.short(), %ip, "the engine gives an endpoint's address to another one");
                self.forget_docker_endpoint(&id);
            }
        }
    }

    /// The endpoint of a container that has an address.
    pub(super) fn docker_holder(&self, network: NetworkId, ip: IpAddr) -> Option<DockerId> {
        let has = |own: &OwnEndpoint| {
            own.lease.network == network && own.lease.addresses.iter().any(|net| net.addr() == ip)
        };
        let holder = self.own_endpoints().find(has)?.sandbox;
        self.docker.endpoint_of(holder).cloned()
    }

    /// Near ends of interfaces that containers have, in one network or in all, with where they are; children of a link
    /// have none.
    pub(in crate::io::node) fn handed_over(&self, network: Option<NetworkId>) -> Vec<(EndpointId, Place)> {
        let handed = self.sandboxes.iter().filter(|sandbox| sandbox.origin == Origin::Docker);
        let handed: BTreeSet<EndpointId> =
            handed.flat_map(|sandbox| sandbox.interfaces.keys().copied()).collect();
        let settled = |own: &OwnEndpoint| {
            network.is_none_or(|network| own.lease.network == network)
                && handed.contains(&own.lease.endpoint)
                && !self.fresh.contains(&own.lease.endpoint)
                && !self.local.has_parent(own.lease.network)
        };
        let place = |own: OwnEndpoint| match self.local.endpoint(own.lease.endpoint) {
            Some(_) => (own.lease.endpoint, Place::Host),
            None => (own.lease.endpoint, Place::Hidden(own.lease.network)),
        };
        self.own_endpoints().filter(settled).map(place).collect()
    }

    /// Gives up endpoints, of one network or of all, whose interfaces went with their containers; goes on with `then`.
    pub(in crate::io::node) fn forget_lost_endpoints(
        &mut self,
        network: Option<NetworkId>,
        then: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        let handed = self.handed_over(network);
        if handed.is_empty() {
            return then(self);
        }
        self.worker.hand(move |bench| {
            let lost = bench.lost_ends(&handed);
            move |node: &mut Self| {
                node.forget_lost(&lost);
                then(node);
            }
        });
    }

    /// Gives up these endpoints, if they are still as they were.
    pub(in crate::io::node) fn forget_lost(&mut self, lost: &BTreeSet<EndpointId>) {
        let still: BTreeSet<EndpointId> = self.handed_over(None).into_iter().map(|(id, _)| id).collect();
        let is_lost =
            |own: &OwnEndpoint| lost.contains(&own.lease.endpoint) && still.contains(&own.lease.endpoint);
        let sandboxes: Vec<SandboxId> = self.own_endpoints().filter(is_lost).map(|own| own.sandbox).collect();
        for sandbox in sandboxes {
            if let Some(id) = self.docker.endpoint_of(sandbox).cloned() {
                tracing::info!(docker = id.short(), "an endpoint went with its container");
                self.forget_docker_endpoint(&id);
            }
        }
    }

    /// Forgets an endpoint that has an address and is in no container.
    pub(super) fn forget_idle_endpoint(&mut self, network: NetworkId, ip: IpAddr) {
        if let Some(id) = self.docker_holder(network, ip).filter(|id| self.is_idle(id)) {
            self.forget_docker_endpoint(&id);
        }
    }

    /// Whether an endpoint is in no container, nor about to be.
    fn is_idle(&self, id: &DockerId) -> bool {
        let sandbox = self.sandboxes.get(id.sandbox());
        let fresh = self.lease_of(id.sandbox()).is_some_and(|lease| self.fresh.contains(&lease.endpoint));
        let leasing = self.docker.leasing.values().any(|leasing| leasing.endpoint == *id);
        !fresh && !leasing && sandbox.is_none_or(|sandbox| sandbox.interfaces.is_empty())
    }

    /// Forgets endpoints that have been in no container for long: engines put them in one at once, and remove them when
    /// they leave it, but for those whose call broke off.
    pub(in crate::io::node) fn sweep_idle_endpoints(&mut self) {
        let known = self.docker.bindings.endpoints().map(|(id, _)| id);
        let idle: Vec<DockerId> = known.filter(|id| self.is_idle(id)).cloned().collect();
        let present = now();
        let before = std::mem::take(&mut self.docker.idle);
        for id in idle {
            let since = before.get(&id).copied().unwrap_or(present);
            if present - since >= IDLE {
                tracing::info!(docker = id.short(), "an endpoint of Docker in no container is given up");
                self.forget_docker_endpoint(&id);
            } else {
                self.docker.idle.insert(id, since);
            }
        }
    }

    /// Forgets endpoints that were written down, and to which nothing was promised before the agent ended.
    pub(in crate::io::node) fn sweep_docker(&mut self) {
        let known = self.docker.bindings.endpoints().map(|(id, _)| id);
        let empty: Vec<_> = known.filter(|id| self.lease_of(id.sandbox()).is_none()).cloned().collect();
        for endpoint in empty {
            self.forget_docker_endpoint(&endpoint);
        }
    }
}
