//! The node as Docker's plugin: what the engine calls for, done on the loop. Nothing here ever asks the engine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::Serialize;

use super::{Node, Reply, answer, json, now};
use crate::cluster::Ticket;
use crate::docker::protocol::{Call, Interface, capabilities};
use crate::docker::{Bindings, DockerId, PendingPools};
use crate::io::server::{Answer, Refusal};
use crate::model::{NetworkId, SandboxId};
use crate::storage::Write;

mod endpoints;
mod ipam;
mod lost;
mod networks;
mod removals;
mod rounds;

use rounds::Round;

/// Longest a call waits for the name of its network.
const PATIENCE: Duration = Duration::from_secs(15);
/// Calls that wait for names at once.
const MAX_PARKED: usize = 1_024;

/// What the loop knows of Docker.
#[derive(Default)]
pub(crate) struct Docker {
    bindings: Bindings,
    pools: PendingPools,
    /// Whether somebody tells the names of networks.
    watched: bool,
    /// Why networks could not be made when they were named.
    refused: BTreeMap<DockerId, String>,
    parked: Vec<Parked>,
    /// Endpoints in no container, and since when they were seen so.
    idle: BTreeMap<DockerId, Instant>,
    /// Addresses that were given back with their endpoints, and when.
    returned: Vec<(NetworkId, IpAddr, Instant)>,
    rounds: BTreeMap<NetworkId, Round>,
    leasing: BTreeMap<Ticket, Leasing>,
    holding: BTreeMap<Ticket, Reply>,
}

/// A call that waits for the name of its network.
struct Parked {
    network: DockerId,
    call: Call,
    reply: Reply,
    deadline: Instant,
}

/// An endpoint that waits for its addresses.
struct Leasing {
    endpoint: DockerId,
    asked: Interface,
    reply: Reply,
}

impl Docker {
    /// What networks and endpoints of the engine are.
    pub(super) fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    pub(crate) fn new(bindings: Bindings, watched: bool) -> Self {
        Self { bindings, watched, ..Self::default() }
    }

    /// The writes that forget the endpoint of a sandbox.
    pub(super) fn forgetting(&self, sandbox: SandboxId) -> Option<Write> {
        self.endpoint_of(sandbox).map(Bindings::forget_endpoint)
    }

    /// Takes in that the endpoint of a sandbox is forgotten.
    pub(super) fn forgotten(&mut self, sandbox: SandboxId) {
        if let Some(endpoint) = self.endpoint_of(sandbox).cloned() {
            self.bindings.remove_endpoint(&endpoint);
        }
    }

    fn endpoint_of(&self, sandbox: SandboxId) -> Option<&DockerId> {
        self.bindings.endpoints().map(|(id, _)| id).find(|id| id.sandbox() == sandbox)
    }
}

impl Node {
    /// Begins a call of the engine; the answer may come later.
    pub(super) fn docker_call(&mut self, call: Call, reply: Reply) {
        match call {
            Call::GetCapabilities => {
                self.begin_with_engine();
                answer(reply, well(&capabilities()));
            }
            Call::CreateNetwork(call) => self.create_docker_network(&call, reply),
            Call::DeleteNetwork(call) => self.delete_docker_network(call.network, reply),
            Call::CreateEndpoint(call) => self.create_docker_endpoint(call, reply),
            Call::DeleteEndpoint(call) => self.delete_docker_endpoint(&call, reply),
            Call::Join(call) => self.join_docker_endpoint(&call, reply),
            Call::Leave(call) => self.leave_docker_endpoint(&call, reply),
            Call::RequestPool(call) => {
                let outcome = self.request_pool(&call);
                answer(reply, outcome);
            }
            Call::ReleasePool(call) => {
                let outcome = self.release_pool(&call.pool);
                answer(reply, outcome);
            }
            Call::RequestAddress(call) => self.request_address(call, 0, reply),
            Call::ReleaseAddress(call) => {
                let outcome = self.release_address(&call);
                answer(reply, outcome);
            }
        }
    }

    /// Has a call wait until its network has a name.
    fn park(&mut self, network: DockerId, call: Call, reply: Reply) {
        if let Some(fault) = self.docker.refused.get(&network) {
            return answer(reply, Err(refused(fault)));
        }
        if self.docker.parked.len() >= MAX_PARKED {
            return answer(reply, Err(refused("too many calls wait for the names of their networks")));
        }
        self.docker.parked.push(Parked { network, call, reply, deadline: now() + PATIENCE });
    }

    /// Goes on with the calls that waited for a network, or for too long.
    pub(crate) fn settle_parked(&mut self) {
        let present = now();
        for parked in std::mem::take(&mut self.docker.parked) {
            if self.is_pending(&parked.network) && !self.docker.refused.contains_key(&parked.network) {
                if parked.deadline > present {
                    self.docker.parked.push(parked);
                    continue;
                }
                let waited = PATIENCE.as_secs();
                let text = format!(
                    "the agent has not learned the name of network {} from the engine in {waited} s: is --docker the \
                     socket of this engine?",
                    parked.network.short()
                );
                answer(parked.reply, Err(refused(text)));
            } else {
                self.docker_call(parked.call, parked.reply);
            }
        }
    }
}

/// A refusal in words; the engine looks at nothing else of it.
fn refused(text: impl ToString) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, text)
}

/// The answer that says no more than that it is done.
fn nothing() -> Answer {
    Answer::Json(StatusCode::OK, b"{}".to_vec())
}

fn done() -> Result<Answer, Refusal> {
    Ok(nothing())
}

fn well(value: &impl Serialize) -> Result<Answer, Refusal> {
    json(StatusCode::OK, value)
}
