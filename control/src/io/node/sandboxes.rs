//! Making, adopting and removing sandboxes.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use super::connect::check_ours;
use super::{Errand, Node, Reply, answer, bad_request, internal, json, random, wall};
use crate::api::{HostConfig, SandboxCreate};
use crate::driver::is_interface_name;
use crate::io::commands::Directory;
use crate::io::kernel::KernelError;
use crate::io::namespace::{Namespace, NamespaceId};
use crate::io::process;
use crate::io::server::{Answer, Refusal, explain};
use crate::io::worker::{Bench, Purpose, word};
use crate::model::{Name, SandboxId};
use crate::names::Wishes;
use crate::network::OwnEndpoint;
use crate::plan::{Place, run, run_through};
use crate::publish::{self, Ports};
use crate::sandbox::{Origin, Owner, Sandbox, forget, plan_made, plan_removed, save};

/// Processes named in a refusal.
const NAMED: usize = 5;

impl Node {
    /// Makes an empty sandbox.
    pub(super) fn create_sandbox(&mut self, request: SandboxCreate, client: Option<u32>, reply: Reply) {
        match self.admit(request, client) {
            Ok((sandbox, ports)) => self.make(sandbox, ports, reply),
            Err(refusal) => answer(reply, Err(refusal)),
        }
    }

    fn admit(&self, request: SandboxCreate, client: Option<u32>) -> Result<(Sandbox, Ports), Refusal> {
        let id = SandboxId(random()?);
        let name: Name = match request.name.as_str() {
            "" => format!("sandbox-{}", id.short()).parse().map_err(bad_request)?,
            text => text.parse().map_err(bad_request)?,
        };
        let HostConfig { port_bindings, publish_all_ports } = &request.host_config;
        let ports = Ports::requested(request.exposed_ports.keys(), port_bindings, *publish_all_ports);
        let ports = ports.map_err(bad_request)?;
        let owner = if request.ephemeral { Some(owner(client)?) } else { None };
        self.admit_name(&name)?;
        let SandboxCreate { hostname, dns, dns_search, dns_options, extra_hosts, .. } = &request;
        let wishes =
            Wishes::check(hostname, dns, dns_search, dns_options, extra_hosts).map_err(bad_request)?;
        let origin = match (request.tap, request.tap_owner) {
            (_, Some(_)) if !is_interface_name(name.as_str()) => {
                return Err(bad_request(format!("invalid interface name {:?}", name.as_str())));
            }
            (_, Some(owner)) => Origin::Device { owner },
            (true, None) => Origin::Machine,
            (false, None) => Origin::Made,
        };
        let (created, interfaces) = (wall(), BTreeMap::new());
        Ok((Sandbox { id, name, created, origin, owner, interfaces, wishes }, ports))
    }

    fn admit_name(&self, name: &Name) -> Result<(), Refusal> {
        if self.making.contains(name) {
            return Err(crate::sandbox::SandboxError::Exists(name.clone()).into());
        }
        Ok(self.sandboxes.admit(name)?)
    }

    /// Namespace first, record second: what a crash leaves between the two is a pin that nobody remembers.
    fn make(&mut self, sandbox: Sandbox, ports: Ports, reply: Reply) {
        if !sandbox.has_namespace() {
            return self.made(sandbox, ports, Ok(()), reply);
        }
        self.making.insert(sandbox.name.clone());
        self.worker.hand(move |bench| {
            let made = make_namespace(bench, &sandbox);
            move |node: &mut Self| node.made(sandbox, ports, made, reply)
        });
    }

    fn made(&mut self, sandbox: Sandbox, ports: Ports, made: Result<(), String>, reply: Reply) {
        self.making.remove(&sandbox.name);
        let outcome = made.map_err(internal).and_then(|()| {
            let ports_row = (!ports.is_empty()).then(|| publish::save(sandbox.id, &ports));
            let rows: Vec<_> = ports_row.into_iter().chain([save(&sandbox)]).collect();
            self.commit("sandbox-create", &rows).inspect_err(|_| {
                self.remove_namespace(sandbox.id, None);
            })?;
            self.publishing.put(sandbox.id, ports);
            self.sandboxes.put(sandbox.clone());
            self.names.doubt();
            self.settle_names();
            tracing::info!(sandbox = %sandbox.id, "sandbox made");
            json(StatusCode::CREATED, &self.show_sandbox(&sandbox))
        });
        answer(reply, outcome);
    }

    /// Takes a namespace somebody else made. One that is a sandbox already stays that sandbox.
    pub(super) fn adopt(&mut self, name: &str, namespace: Namespace, reply: Reply) {
        let name: Name = match name.parse() {
            Ok(name) => name,
            Err(fault) => return answer(reply, Err(bad_request(fault))),
        };
        let id = match random() {
            Ok(octets) => SandboxId(octets),
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let known: Vec<_> = self.sandboxes.iter().map(|sandbox| sandbox.id).collect();
        let hidden: Vec<_> = self.settled.keys().map(|network| Place::Hidden(*network)).collect();
        self.worker.hand(move |bench| {
            let same = same_as(bench, &namespace, &known, &hidden);
            move |node: &mut Self| match same {
                Ok(Some(known)) => node.answer_known(known, reply),
                Ok(None) => node.pin_adopted(id, name, namespace, reply),
                Err(fault) => answer(reply, Err(bad_request(fault))),
            }
        });
    }

    fn answer_known(&mut self, known: SandboxId, reply: Reply) {
        let gone = || internal("the sandbox was removed meanwhile");
        let sandbox = self.sandboxes.get(known).ok_or_else(gone);
        let outcome = sandbox.and_then(|sandbox| json(StatusCode::OK, &self.show_sandbox(sandbox)));
        answer(reply, outcome);
    }

    fn pin_adopted(&mut self, id: SandboxId, name: Name, namespace: Namespace, reply: Reply) {
        if let Err(refusal) = self.admit_name(&name) {
            return answer(reply, Err(refusal));
        }
        let (origin, owner, interfaces) = (Origin::Adopted, None, BTreeMap::new());
        let wishes = Wishes::default();
        let sandbox = Sandbox { id, name, created: wall(), origin, owner, interfaces, wishes };
        self.making.insert(sandbox.name.clone());
        self.worker.hand(move |bench| {
            bench.kernel.name_sandbox(sandbox.id, sandbox.name.as_str());
            let pinned =
                bench.kernel.pins().pin(sandbox.name.as_str(), &namespace).map_err(|fault| explain(&fault));
            move |node: &mut Self| node.made(sandbox, Ports::default(), pinned, reply)
        });
    }

    /// Removes a sandbox with its endpoints; one with processes in it only if forced, or if it is ephemeral.
    pub(super) fn remove_sandbox(&mut self, name: &str, force: bool, reply: Reply) {
        let found = self.sandboxes.resolve(name).map_err(Refusal::from);
        let (id, ask) = match found.and_then(|sandbox| check_ours(sandbox).map(|()| sandbox)) {
            Ok(sandbox) => (sandbox.id, !force && sandbox.owner.is_none() && sandbox.origin == Origin::Made),
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        self.worker.hand(move |bench| {
            let inside = if ask { bench.kernel.processes_in(id, NAMED) } else { Vec::new() };
            move |node: &mut Self| node.remove_if_empty(id, &inside, reply)
        });
    }

    fn remove_if_empty(&mut self, id: SandboxId, inside: &[u32], reply: Reply) {
        let Some(sandbox) = self.sandboxes.get(id) else {
            return answer(reply, Ok(Answer::Done(StatusCode::NO_CONTENT)));
        };
        if !inside.is_empty() {
            let pids: Vec<_> = inside.iter().map(ToString::to_string).collect();
            let text = format!(
                "sandbox {} has running processes (pid {}); end them, or remove it by force",
                sandbox.name,
                pids.join(", ")
            );
            return answer(reply, Err(Refusal::new(StatusCode::CONFLICT, text)));
        }
        let (errand, done) = (self.errands.begin(), format!("sandbox {} is removed", sandbox.name));
        let outcome = self.forget_sandbox(id, Some(errand));
        self.drain_cluster();
        match outcome {
            Ok(()) => self.answer_after(errand, reply, Answer::Done(StatusCode::NO_CONTENT), done),
            Err(refusal) => answer(reply, Err(refusal)),
        }
    }

    /// Removes a sandbox: from the records first, so that a crash leaves nothing that comes back.
    pub(super) fn forget_sandbox(&mut self, id: SandboxId, errand: Option<Errand>) -> Result<(), Refusal> {
        let rows = self.unpublishing(id).into_iter().chain(self.docker.forgetting(id));
        let rows: Vec<_> = rows.chain([forget(id)]).collect();
        self.commit("sandbox-remove", &rows)?;
        self.unpublished(id);
        self.docker.forgotten(id);
        let removed = self.sandboxes.remove(id);
        self.names.doubt();
        tracing::info!(sandbox = %id, "sandbox removed");
        let fresh = |own: &OwnEndpoint| self.fresh.contains(&own.lease.endpoint);
        let own = self.own_endpoints().filter(|own| own.sandbox == id && !fresh(own));
        for own in own.collect::<Vec<_>>() {
            if let Err(refusal) = self.detach(own.lease.endpoint, own.lease.network, errand) {
                // The sweep finds an endpoint without a sandbox and tries again.
                tracing::warn!(endpoint = %own.lease.endpoint, fault = %refusal.message, "an endpoint stays for now");
                self.errands.note(errand, refusal.message);
            }
        }
        if removed.is_some_and(|sandbox| matches!(sandbox.origin, Origin::Device { .. })) {
            self.settle_bridges(Purpose::Removal, errand);
        }
        self.remove_namespace(id, errand);
        Ok(())
    }

    fn remove_namespace(&mut self, id: SandboxId, errand: Option<Errand>) {
        let directory = Directory::at(&self.commands_of(id));
        self.worker.hand(move |bench| {
            if let Err(fault) = directory.remove() {
                tracing::warn!(sandbox = %id, %fault, "files of a command are left over");
            }
            let failed = run_through(&plan_removed(id), &mut bench.kernel);
            bench.kernel.forget_sandbox(id);
            move |node: &mut Self| {
                for (step, fault) in failed {
                    node.counters.kernel_failures += 1;
                    let fault = format!("cannot {step}: {}", explain(&fault));
                    tracing::warn!(fault, "a namespace is left over; the next audit tries again");
                    node.errands.note(errand, fault);
                }
            }
        });
    }

    /// Opens a sandbox's namespace for somebody else.
    pub(super) fn open_sandbox(&mut self, name: &str, reply: Reply) {
        let id = match self.sandboxes.resolve(name) {
            Ok(sandbox) if sandbox.has_namespace() => sandbox.id,
            Ok(sandbox) if sandbox.origin == Origin::Docker => {
                return answer(reply, check_ours(sandbox).map(|()| Answer::Done(StatusCode::OK)));
            }
            Ok(sandbox) => {
                let name = &sandbox.name;
                let text =
                    format!("container {name} is a virtual machine: there is no network namespace to enter");
                return answer(reply, Err(Refusal::new(StatusCode::CONFLICT, text)));
            }
            Err(fault) => return answer(reply, Err(fault.into())),
        };
        self.worker.hand(move |bench| {
            let opened =
                bench.kernel.open(Place::Sandbox(id)).map(|opened| Answer::Descriptor(opened.into()));
            move |_: &mut Self| answer(reply, opened.map_err(|fault| internal(explain(&fault))))
        });
    }
}

/// The process an ephemeral sandbox goes with: the one at the other end of the socket.
fn owner(client: Option<u32>) -> Result<Owner, Refusal> {
    let hidden = "an ephemeral sandbox goes with the process that asks for it, which the agent cannot see: \
        it runs in another PID namespace";
    client.and_then(process::identify).ok_or_else(|| bad_request(hidden))
}

/// Makes and pins a sandbox's namespace.
pub(super) fn make_namespace(bench: &mut Bench, sandbox: &Sandbox) -> Result<(), String> {
    bench.kernel.name_sandbox(sandbox.id, sandbox.name.as_str());
    run(&plan_made(sandbox.id), &mut bench.kernel).map_err(|failure| word(&failure))
}

/// The sandbox whose namespace this is; none of ours may be the hidden one of a network.
fn same_as(
    bench: &Bench,
    namespace: &Namespace,
    known: &[SandboxId],
    hidden: &[Place],
) -> Result<Option<SandboxId>, String> {
    let wanted = namespace.id().map_err(|fault| explain(&fault))?;
    let id = |at: Place| -> Result<NamespaceId, KernelError> { Ok(bench.kernel.open(at)?.id()?) };
    if hidden.iter().any(|at| id(*at).is_ok_and(|id| id == wanted)) {
        return Err("this namespace is weft's own".to_owned());
    }
    Ok(known.iter().copied().find(|known| id(Place::Sandbox(*known)).is_ok_and(|id| id == wanted)))
}
