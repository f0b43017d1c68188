//! The API's calls, one by one.

use std::time::Duration;

use axum::http::StatusCode;

use super::{Node, Reply, answer, internal, json, now};
use crate::api::{KeyRotated, NetworkCreate, NetworkCreated, TokenCreate, TokenCreated};
use crate::catalog::{self, Reach};
use crate::io::server::{Answer, Asked, Call, Refusal, explain};
use crate::io::worker::Purpose;
use crate::local::{Driver, GATEWAY_BRIDGE, LocalError};
use crate::plan::Place;
use crate::trust::{MAX_TOKEN_LIFE, Role, TOKEN_LIFE, TokenTerms};

impl Node {
    /// Begins a call; the answer may come later.
    pub(crate) fn handle(&mut self, asked: Asked) {
        let Asked { call, answer: reply } = asked;
        match call {
            Call::Connect { network, request } => self.connect(&network, &request, reply),
            Call::Disconnect { network, request } => self.disconnect(&network, &request, reply),
            Call::CreateSandbox { request, client } => self.create_sandbox(request, client, reply),
            Call::RemoveSandbox { name, force } => self.remove_sandbox(&name, force, reply),
            Call::OpenSandbox(name) => self.open_sandbox(&name, reply),
            Call::OpenNetwork(name) => self.open_network(&name, reply),
            Call::TakeTap { network, sandbox } => self.take_tap(&network, &sandbox, reply),
            Call::Adopt { name, namespace } => self.adopt(&name, namespace, reply),
            Call::RemoveNetwork(name) => self.remove_network(&name, reply),
            Call::CreateNetwork(request) if Driver::named(&request.driver).is_some() => {
                self.create_local(request, reply);
            }
            Call::Stats => self.stats(reply),
            Call::Docker(call) => self.docker_call(call, reply),
            other => {
                let outcome = self.handle_at_once(other);
                self.drain_cluster();
                answer(reply, outcome);
            }
        }
    }

    fn handle_at_once(&mut self, call: Call) -> Result<Answer, Refusal> {
        match call {
            Call::Networks => json(StatusCode::OK, &self.show_networks()),
            Call::Network(name) => {
                let reach = self.resolve(&name)?;
                self.note_traffic();
                json(StatusCode::OK, &self.show_network(reach))
            }
            Call::CreateNetwork(request) => self.create_network(request),
            Call::Fdb(name) => self.show_fdb(&name),
            Call::Sandboxes => json(StatusCode::OK, &self.show_sandboxes()),
            Call::Sandbox(name) => json(StatusCode::OK, &self.show_sandbox(self.sandboxes.resolve(&name)?)),
            Call::SandboxFiles(name) => self.show_files(&name),
            Call::Keys => json(StatusCode::OK, &self.cluster.keys(now())),
            Call::RotateKeys => {
                let epoch = self.cluster.rotate_keys(now())?.to_string();
                json(StatusCode::CREATED, &KeyRotated { epoch })
            }
            Call::Status => json(StatusCode::OK, &self.show_status()),
            Call::Peers => {
                self.note_traffic();
                json(StatusCode::OK, &self.cluster.peers(now()))
            }
            Call::Tokens => json(StatusCode::OK, &self.cluster.tokens(now())),
            Call::CreateToken(request) => self.create_token(&request),
            Call::RevokeToken(id) => {
                self.cluster.revoke_token(now(), &id)?;
                Ok(Answer::Done(StatusCode::NO_CONTENT))
            }
            Call::Nodes => json(StatusCode::OK, &self.cluster.nodes(now())),
            Call::RemoveNode(node) => {
                self.cluster.remove_node(now(), &node)?;
                Ok(Answer::Done(StatusCode::NO_CONTENT))
            }
            Call::RevokeNode { node, request } => {
                self.cluster.revoke_node(now(), &node, &request.reason)?;
                Ok(Answer::Done(StatusCode::OK))
            }
            Call::Leave(request) => self.begin_to_leave(request.force),
            later => Err(internal(format!("{later:?} cannot be answered at once"))),
        }
    }

    fn create_token(&mut self, request: &TokenCreate) -> Result<Answer, Refusal> {
        let role = match request.role.as_str() {
            "" => Role::Node,
            text => text.parse().map_err(super::bad_request)?,
        };
        let life = match request.ttl_seconds {
            0 => TOKEN_LIFE,
            seconds => Duration::from_secs(seconds),
        };
        if life > MAX_TOKEN_LIFE {
            return Err(super::bad_request("a token is good for 30 days at most"));
        }
        let terms = TokenTerms { role, max_uses: request.uses, life };
        let (token, shown) = self.cluster.create_token(now(), super::random()?, terms)?;
        json(StatusCode::CREATED, &TokenCreated { token: token.to_text().to_string(), shown })
    }

    /// The agent takes down what is here, says goodbye and forgets the cluster.
    fn begin_to_leave(&mut self, force: bool) -> Result<Answer, Refusal> {
        let attached = self.attachments().count();
        if attached > 0 && !force {
            let text =
                format!("{attached} sandbox attachment(s) would go with it: remove them, or use --force");
            return Err(Refusal::new(StatusCode::FORBIDDEN, text));
        }
        if self.cluster.is_last_admin(now()) && !force {
            let text = "this is the only admin of the cluster: let another in with 'weft token create --role admin', \
                        or use --force";
            return Err(Refusal::new(StatusCode::FORBIDDEN, text));
        }
        self.leaving = true;
        Ok(Answer::Done(StatusCode::OK))
    }

    fn create_network(&mut self, request: NetworkCreate) -> Result<Answer, Refusal> {
        catalog::admit(&self.cluster, &self.local, &request.name)?;
        if request.name == GATEWAY_BRIDGE {
            return Err(LocalError::GatewayDriver.into());
        }
        let id = self.cluster.create_network(now(), request)?;
        json(StatusCode::CREATED, &NetworkCreated { id: id.long(), warning: String::new() })
    }

    /// Opens the hidden namespace of a network, for whoever wants to look at its frames.
    fn open_network(&mut self, name: &str, reply: Reply) {
        let id = match self.resolve_overlay(name) {
            Ok(id) => id,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let absent =
            format!("network {name} has no endpoint on this host, so that no frame of it comes here");
        self.worker.hand(move |bench| {
            let there = bench.kernel.has(Place::Hidden(id));
            let opened = bench.kernel.open(Place::Hidden(id)).map(|opened| Answer::Descriptor(opened.into()));
            let outcome = opened.map_err(|fault| match there {
                true => internal(explain(&fault)),
                false => Refusal::new(StatusCode::CONFLICT, absent),
            });
            move |_: &mut Self| answer(reply, outcome)
        });
    }

    /// Counters; those of the kernel are asked for.
    fn stats(&mut self, reply: Reply) {
        self.worker.hand(move |bench| {
            let in_bridges = bench.kernel.guard_drops();
            move |node: &mut Self| answer(reply, json(StatusCode::OK, &node.show_stats(&in_bridges)))
        });
    }

    fn remove_network(&mut self, name: &str, reply: Reply) {
        let id = match self.resolve(name) {
            Ok(Reach::Cluster(id)) => id,
            Ok(Reach::Local(id)) => return self.remove_local(id, name, reply),
            Err(fault) => return answer(reply, Err(fault.into())),
        };
        let outcome = self.cluster.remove_network(now(), id);
        self.drain_cluster();
        match outcome {
            Ok(()) => {
                let errand = self.errands.begin();
                self.settle_for(id, Purpose::Removal, Some(errand));
                let done = format!("network {name} is removed");
                self.answer_after(errand, reply, Answer::Done(StatusCode::NO_CONTENT), done);
            }
            Err(fault) => answer(reply, Err(fault.into())),
        }
    }
}
