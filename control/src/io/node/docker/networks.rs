//! Networks of Docker: made, named, forgotten.

use ipnet::IpNet;

use super::super::{Node, Reply, answer, now, wall};
use super::{done, refused};
use crate::catalog;
use crate::docker::protocol::CreateNetwork;
use crate::docker::{Binding, Bindings, DockerId, Kind, PoolError, Told, Wish};
use crate::io::server::Refusal;
use crate::model::NetworkId;
use crate::network::{NetworkWish, overlap};
use crate::timestamp::UnixMillis;

/// Networks of the engine.
const MAX_NETWORKS: usize = 1_000;

/// A network of Docker when something is asked of it.
pub(super) enum Standing {
    /// Its name is not known yet.
    Waits,
    /// It is this one.
    Is(NetworkId),
}

impl Node {
    /// Makes a network, or sets one aside until its name is known. The same call again changes nothing.
    pub(super) fn create_docker_network(&mut self, call: &CreateNetwork, reply: Reply) {
        let id = &call.network;
        if self.docker.bindings.network(id).is_some() {
            return answer(reply, done());
        }
        let binding = match self.admit_docker_network(call) {
            Ok(binding) => binding,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let at_once = matches!(binding, Binding::Pending(_)) && !self.docker.watched;
        if let Err(refusal) = self.bind(id, binding) {
            return answer(reply, Err(refusal));
        }
        if at_once {
            let told = Told { name: id.short().to_owned(), ..Told::default() };
            return self.make_docker_network(&id.clone(), &told, Some(reply));
        }
        answer(reply, done());
    }

    fn admit_docker_network(&mut self, call: &CreateNetwork) -> Result<Binding, Refusal> {
        if self.docker.bindings.networks().count() >= MAX_NETWORKS {
            return Err(refused(format!("this agent serves {MAX_NETWORKS} networks of Docker already")));
        }
        let wish = Wish::read(call).map_err(refused)?;
        match &wish.kind {
            Kind::Known(network) => self.known_network(network, &wish).map(Binding::Bound),
            Kind::Overlay => {
                if let Some(network) = self.network_of_pools(&wish) {
                    return Ok(Binding::Bound(network));
                }
                let told = Told { name: call.network.short().to_owned(), ..Told::default() };
                NetworkWish::parse(wish.request(&told)).map_err(refused)?;
                let used = self.subnets_for_docker();
                let twice = |prefix: IpNet| used.iter().any(|&other| overlap(other, prefix));
                if wish.prefixes().any(twice) {
                    return Err(refused(PoolError::Overlap));
                }
                Ok(Binding::Pending(wish))
            }
            Kind::Local(_) => Ok(Binding::Pending(wish)),
        }
    }

    /// The network of weft that the engine has named when it asked for these pools, which are no others' then. So a
    /// network needs no driver option that says which it is, and has those of its maker on every host.
    fn network_of_pools(&mut self, wish: &Wish) -> Option<NetworkId> {
        let prefixes: Vec<IpNet> = wish.prefixes().collect();
        let to_come = prefixes.iter().any(|prefix| self.docker.pools.has(now(), *prefix));
        if wish.is_engine_addressed() || prefixes.is_empty() || to_come {
            return None;
        }
        let has = |id: &NetworkId| {
            let subnets = self.cluster.subnets_of(*id);
            prefixes.iter().all(|prefix| subnets.contains(prefix))
        };
        self.cluster.names().into_keys().find(has)
    }

    /// Subnets of the cluster's networks, and of those that are to be.
    pub(super) fn subnets_for_docker(&self) -> Vec<IpNet> {
        let pending = self.docker.bindings.networks().filter_map(|(_, binding)| match binding {
            Binding::Pending(wish) if wish.kind == Kind::Overlay => Some(wish.prefixes()),
            _ => None,
        });
        self.cluster.subnets().into_iter().chain(pending.flatten()).collect()
    }

    /// The network of weft that a user names, if it has the subnets that the engine says.
    fn known_network(&self, text: &str, wish: &Wish) -> Result<NetworkId, Refusal> {
        let id = self.resolve_overlay(text)?;
        let subnets = self.cluster.subnets_of(id);
        match wish.prefixes().find(|prefix| !subnets.contains(prefix)) {
            None => Ok(id),
            Some(other) => {
                let has: Vec<_> = subnets.iter().map(ToString::to_string).collect();
                let name = self.name_of(id);
                Err(refused(format!("network {name} has no subnet {other}: it has {}", has.join(", "))))
            }
        }
    }

    /// Writes down what a network is, and goes on with whoever waited for it.
    fn bind(&mut self, id: &DockerId, binding: Binding) -> Result<(), Refusal> {
        self.commit("docker-network", &[Bindings::save_network(id, &binding)])?;
        self.docker.bindings.put_network(id.clone(), binding);
        Ok(())
    }

    /// Tells the name of a network, and what else only the engine knows of it.
    ///
    /// # Errors
    /// In words: no such network can be made. Whoever waits for it is told the same.
    pub(crate) fn name_docker_network(&mut self, id: &DockerId, told: &Told) -> Result<(), String> {
        if self.is_pending(id) {
            self.make_docker_network(id, told, None);
        }
        self.docker.refused.get(id).map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Makes the network that is to be; `reply` is who waits for it, beside endpoints.
    fn make_docker_network(&mut self, id: &DockerId, told: &Told, reply: Option<Reply>) {
        let Some(Binding::Pending(wish)) = self.docker.bindings.network(id).cloned() else { return };
        let outcome = match &wish.kind {
            Kind::Local(_) => return self.make_local_docker_network(id, &wish, told, reply),
            Kind::Known(network) => self.known_network(network, &wish),
            Kind::Overlay => self.make_overlay_for_docker(id, &wish, told),
        };
        self.docker_network_made(id, outcome, reply);
    }

    fn make_overlay_for_docker(
        &mut self,
        id: &DockerId,
        wish: &Wish,
        told: &Told,
    ) -> Result<NetworkId, Refusal> {
        let network = id.network();
        if self.cluster.has_network(network) {
            // It was made just before the agent ended.
            return Ok(network);
        }
        catalog::admit(&self.cluster, &self.local, &told.name)?;
        Ok(self.cluster.create_network_as(now(), network, wish.request(told))?)
    }

    fn make_local_docker_network(&mut self, id: &DockerId, wish: &Wish, told: &Told, reply: Option<Reply>) {
        let network = id.network();
        let made = if self.local.definition(network).is_some() {
            Ok(network)
        } else {
            let admitted = catalog::admit(&self.cluster, &self.local, &told.name).map_err(Refusal::from);
            admitted.and_then(|()| {
                let request = wish.request(told);
                Ok(self.local.create_as(UnixMillis(wall()), network, request, &[])?)
            })
        };
        match made {
            Err(refusal) => self.docker_network_made(id, Err(refusal), reply),
            Ok(network) => {
                let id = id.clone();
                self.make_bridge(network, move |node, outcome| {
                    node.docker_network_made(&id, outcome.map(|()| network), reply);
                });
            }
        }
    }

    fn docker_network_made(&mut self, id: &DockerId, made: Result<NetworkId, Refusal>, reply: Option<Reply>) {
        if !self.is_pending(id) {
            // The engine has removed it meanwhile, and what was made of it is gone with that.
            if let Some(reply) = reply {
                answer(reply, Err(refused("the network was removed meanwhile")));
            }
            return;
        }
        let outcome = made.and_then(|network| self.bind(id, Binding::Bound(network)));
        match &outcome {
            Ok(()) => {
                tracing::info!(docker = id.short(), network = %id.network(), "network of Docker made");
                self.docker.refused.remove(id);
            }
            Err(refusal) => {
                tracing::warn!(docker = id.short(), fault = refusal.message, "network of Docker not made");
                self.docker.refused.insert(id.clone(), refusal.message.clone());
            }
        }
        if let Some(reply) = reply {
            if outcome.is_err() {
                self.forget_docker_network(id);
            }
            answer(reply, outcome.and_then(|()| done()));
        }
        self.settle_parked();
        self.drain_cluster();
    }

    /// Says which network of weft a network of Docker is, where that was forgotten here.
    ///
    /// # Errors
    /// In words: the state cannot be made durable.
    pub(crate) fn bind_docker_network(&mut self, id: &DockerId, network: NetworkId) -> Result<(), String> {
        if self.docker.bindings.network(id) != Some(&Binding::Bound(network)) {
            self.bind(id, Binding::Bound(network)).map_err(|refusal| refusal.message)?;
            self.docker.refused.remove(id);
            self.settle_parked();
        }
        Ok(())
    }

    /// The engine has no such network any more. What of weft it was stays.
    pub(crate) fn forget_docker_network(&mut self, id: &DockerId) {
        let of_network = self.docker.bindings.endpoints().filter(|(_, endpoint)| endpoint.network == *id);
        for endpoint in of_network.map(|(endpoint, _)| endpoint.clone()).collect::<Vec<_>>() {
            self.forget_docker_endpoint(&endpoint);
        }
        match self.commit("docker-network", &[Bindings::forget_network(id)]) {
            Ok(()) => {
                self.docker.bindings.remove_network(id);
                self.docker.refused.remove(id);
            }
            Err(fault) => tracing::warn!(docker = id.short(), %fault, "a network of Docker stays known"),
        }
    }

    /// The engine has lost a network without a word to the plugin, or against its word. One of the cluster stays; one of
    /// this host was the engine's alone.
    pub(crate) fn lose_docker_network(&mut self, id: &DockerId) {
        let bound = self.docker.bindings.network(id).cloned();
        self.forget_docker_network(id);
        let Some(Binding::Bound(network)) = bound else { return };
        if self.local.definition(network).is_none() {
            return;
        }
        if let Err(refusal) = self.remove_for_docker(network) {
            tracing::warn!(docker = id.short(), %network, fault = refusal.message, "a network of Docker stays");
        }
    }

    pub(super) fn is_pending(&self, id: &DockerId) -> bool {
        matches!(self.docker.bindings.network(id), Some(Binding::Pending(_)))
    }

    /// What a network is now.
    ///
    /// # Errors
    /// Nobody told of it.
    pub(super) fn standing(&self, id: &DockerId) -> Result<Standing, Refusal> {
        match self.docker.bindings.network(id) {
            Some(Binding::Pending(_)) => Ok(Standing::Waits),
            Some(Binding::Bound(network)) => Ok(Standing::Is(*network)),
            None => Err(refused(format!(
                "this agent knows nothing of Docker's network {}: remove that and make it again",
                id.short()
            ))),
        }
    }
}
