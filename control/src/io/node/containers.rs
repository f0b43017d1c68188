//! Containers of Docker's engine: what their endpoints are called, and the resolver that weft puts in front of Docker's
//! in each of them.
//!
//! Docker's resolver knows the containers of its own host alone. weft's is in front of it, at the same address: it
//! answers names of endpoints of every host, and asks Docker's for everything else (`io::dns::doors`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::{Node, now};
use crate::docker::DockerId;
use crate::docker::engine::{Attached, Called, Container};
use crate::io::dns::Beside;
use crate::io::namespace::{Namespace, NamespaceError};
use crate::io::server::explain;
use crate::local::Definition;
use crate::model::{EndpointId, NetworkId, SandboxId};

/// Longest a container that is being started is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has its namespace.
const LOOK: Duration = Duration::from_millis(10);

/// A container that has a resolver of weft's: one, whatever number of networks it is in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seat {
    /// Where its network namespace is, or will be.
    pub(super) namespace: PathBuf,
    /// Networks with names that it is in.
    pub(super) networks: Vec<NetworkId>,
}

impl Node {
    /// Calls the endpoints of a container as it is called.
    pub(super) fn name_container(&mut self, container: &Container) {
        for (docker, called) in container.called() {
            let Ok(docker) = docker.parse::<DockerId>() else { continue };
            let own = self.own_endpoints().find(|own| own.sandbox == docker.sandbox());
            if let Some(own) = own {
                self.call_endpoint(own.lease.endpoint, called);
            }
        }
    }

    /// Calls the endpoint of a container that is being started as its network does; aliases are known later.
    pub(super) fn name_attached(&mut self, attached: &Attached) {
        let Ok(docker) = attached.endpoint_id.parse::<DockerId>() else { return };
        let Ok(name) = attached.name.parse() else { return };
        let own = self.own_endpoints().find(|own| own.sandbox == docker.sandbox() && own.aliases.is_empty());
        if let Some(own) = own {
            self.call_endpoint(own.lease.endpoint, Called { name, aliases: Vec::new() });
        }
    }

    fn call_endpoint(&mut self, endpoint: EndpointId, called: Called) {
        let Called { name, aliases } = called;
        let outcome = match self.local.endpoint(endpoint) {
            Some(_) => self.local.rename(endpoint, name, aliases).map_err(|fault| explain(&fault)),
            None => self.cluster.rename(now(), endpoint, name, aliases).map_err(|fault| explain(&fault)),
        };
        match outcome {
            Ok(renamed) if renamed => self.names.doubt(),
            Ok(_) => {}
            Err(fault) => tracing::warn!(%endpoint, fault, "a container's names are not known to others"),
        }
    }

    /// Forgets what the engine had and has no more, as it was removed while the agent was away, or was not written down
    /// when the engine ended: what was missing for a while already, or was there before the engine, so that it is not what
    /// is being made right now. `endpoints` are those that the engine has.
    pub(super) fn forget_missing(&mut self, endpoints: &BTreeSet<String>) {
        let Some(engine) = &mut self.engine else { return };
        let networks = engine.network_ids();
        let bindings = self.docker.bindings();
        let lost = bindings.networks().map(|(id, _)| id).filter(|id| !networks.contains(id.as_str()));
        let stray = bindings.endpoints().map(|(id, _)| id).filter(|id| !endpoints.contains(id.as_str()));
        let missing = lost.chain(stray).cloned().collect();
        for id in engine.note_missing(missing) {
            tracing::info!(docker = id.short(), "the engine has it no more");
            if self.docker.bindings().network(&id).is_some() {
                self.lose_docker_network(&id);
            } else {
                self.forget_docker_endpoint(&id);
            }
        }
    }

    /// Containers that names are answered in.
    pub(super) fn seats(&self) -> BTreeMap<SandboxId, Seat> {
        let mut seats: BTreeMap<SandboxId, Seat> = BTreeMap::new();
        for endpoint in
            self.docker_endpoints().into_iter().filter(|endpoint| !endpoint.sandbox_key.is_empty())
        {
            let namespace = PathBuf::from(&endpoint.sandbox_key);
            let seat = seats.entry(seat_of(&namespace)).or_default();
            seat.namespace = namespace;
            if self.local.definition(endpoint.network).is_none_or(Definition::has_names) {
                seat.networks.push(endpoint.network);
            }
        }
        seats.retain(|_, seat| !seat.networks.is_empty());
        seats
    }

    /// Opens a container's resolver once its namespace is there: the engine makes that after it has asked for the
    /// endpoint's interface, and just before the container's first process.
    pub(super) fn open_container(&self, seat: SandboxId, namespace: PathBuf) {
        let process = self.engine.as_ref().and_then(|engine| engine.process_of(&namespace));
        let done = self.worker.done();
        tokio::spawn(async move {
            let found = find(namespace, process).await.map_err(|fault| explain(&fault));
            // The loop may have ended.
            let _ = done.send(Box::new(move |node: &mut Self| node.container_found(seat, found)));
        });
    }

    /// Looks again for a namespace that was not found yet: now a process that is in it may be known.
    pub(super) fn find_again(&mut self, namespace: PathBuf) {
        let seat = seat_of(&namespace);
        if self.names.is_opening(seat) {
            self.open_container(seat, namespace);
        } else if self.names.has_failed() {
            self.retry_names();
        }
    }

    fn container_found(&mut self, seat: SandboxId, found: Result<Namespace, String>) {
        // It has left meanwhile, or was found another way.
        if !self.names.is_opening(seat) {
            return;
        }
        match found {
            Ok(namespace) => {
                self.names.keep_container(seat, &namespace);
                self.order_names(seat, (namespace, Beside::Engine));
            }
            Err(fault) => self.names_opened(seat, Err(fault)),
        }
    }
}

/// What stands for a container among sandboxes. Paths are unique on a host.
fn seat_of(namespace: &Path) -> SandboxId {
    let digest: [u8; 32] = Sha256::digest(namespace.as_os_str().as_encoded_bytes()).into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    SandboxId(id)
}

/// Waits for the namespace of a container; where its path cannot be seen from here, a process that is in it will do.
async fn find(path: PathBuf, process: Option<u32>) -> Result<Namespace, NamespaceError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let path = path.clone();
        let opening = tokio::task::spawn_blocking(move || open(&path, process));
        match opening.await {
            Ok(Err(_)) if Instant::now() < deadline => sleep(LOOK).await,
            Ok(opened) => return opened,
            // The runtime is ending.
            Err(_) => std::future::pending().await,
        }
    }
}

fn open(path: &Path, process: Option<u32>) -> Result<Namespace, NamespaceError> {
    Namespace::open(path).or_else(|fault| process.map_or(Err(fault), Namespace::of_process))
}
