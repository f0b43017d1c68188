//! Attaching sandboxes to networks and detaching them.

use std::net::IpAddr;

use axum::http::StatusCode;
use weft_dataplane::segment::SegmentSpec;

use super::{Errand, Node, Reply, Waiting, answer, bad_request, internal, json, now, wish};
use crate::api::{Connect, Connected, Disconnect};
use crate::catalog::Reach;
use crate::cluster::{ClusterError, Ticket};
use crate::command::Command;
use crate::driver::port_name;
use crate::io::commands::Directory;
use crate::io::server::{Answer, Refusal};
use crate::io::worker::{Fresh, Purpose, Settled};
use crate::local::{Driver, LocalError};
use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::network::{Lease, NetworkError, OwnEndpoint};
use crate::plan::Place;
use crate::sandbox::{Origin, Sandbox, save};

/// What a wish for addresses came to.
enum Asked {
    /// Others are asked for some.
    Waits(Ticket, SandboxId),
    /// There are some.
    Has(Lease, SandboxId),
}

impl Node {
    /// Attaches a sandbox: addresses first, then the kernel, then everybody is told.
    pub(super) fn connect(&mut self, network: &str, request: &Connect, reply: Reply) {
        let found = self.resolve(network).map_err(Refusal::from);
        match found.and_then(|reach| self.ask_for_addresses(reach, request)) {
            Ok(Asked::Waits(ticket, sandbox)) => {
                self.waiting.insert(ticket, Waiting { sandbox, reply });
                self.drain_cluster();
            }
            Ok(Asked::Has(lease, sandbox)) => self.make_interface(lease, sandbox, reply),
            Err(refusal) => answer(reply, Err(refusal)),
        }
    }

    fn ask_for_addresses(&mut self, network: Reach, request: &Connect) -> Result<Asked, Refusal> {
        let sandbox = self.sandboxes.resolve(&request.container)?;
        let (id, config) = (sandbox.id, &request.endpoint_config);
        check_ours(sandbox)?;
        self.check_mode(id)?;
        match network {
            Reach::Cluster(network) => {
                let wish = wish(network, sandbox, config)?;
                Ok(Asked::Waits(self.cluster.attach(now(), wish)?, id))
            }
            Reach::Local(network) if self.local.gateway_bridge() == Some(network) => {
                Err(LocalError::GatewayEndpoints.into())
            }
            Reach::Local(network) => {
                if !sandbox.has_namespace() && self.local.has_parent(network) {
                    let text = "a virtual machine has no place on a macvlan or ipvlan network: use one of the driver \
                                bridge or overlay";
                    return Err(bad_request(text));
                }
                let wish = wish(network, sandbox, config)?;
                Ok(Asked::Has(self.local.attach(now(), wish, config.gw_priority)?, id))
            }
        }
    }

    /// What lives in no network, or in that of others, stays there.
    fn check_mode(&self, sandbox: SandboxId) -> Result<(), LocalError> {
        match self.command_of(sandbox) {
            Some(command) if command.shares_network() => Err(LocalError::Shared),
            Some(command) if command.is_private() => Err(LocalError::Private),
            _ => Ok(()),
        }
    }

    fn command_of(&self, sandbox: SandboxId) -> Option<Command> {
        Directory::at(&self.commands_of(sandbox)).command()
    }

    /// The cluster has addresses for an attachment, or none.
    pub(super) fn attached(&mut self, ticket: Ticket, result: Result<Lease, ClusterError>) {
        let Some(result) = self.docker_attached(ticket, result) else { return };
        let Some(Waiting { sandbox, reply }) = self.waiting.remove(&ticket) else { return };
        match result {
            Err(fault) => answer(reply, Err(fault.into())),
            Ok(lease) if self.sandboxes.get(sandbox).is_none() => {
                self.give_up(&lease);
                answer(reply, Err(Refusal::new(StatusCode::NOT_FOUND, "the sandbox was removed meanwhile")));
            }
            Ok(lease) => self.make_interface(lease, sandbox, reply),
        }
    }

    fn make_interface(&mut self, lease: Lease, sandbox: SandboxId, reply: Reply) {
        // Names are made to be answered while the interface is made.
        self.names.doubt();
        self.settle_names();
        if self.local.endpoint(lease.endpoint).is_some() {
            let made = lease.clone();
            return self.make_local(&lease, sandbox, move |node, outcome| {
                node.interface_made(made, sandbox, outcome, reply);
            });
        }
        let fresh = self.begin_interface(&lease, sandbox);
        self.segment_changed(lease.network);
        let wanted = self.wanted(lease.network);
        self.worker.hand(move |bench| {
            let outcome = bench.settle(wanted, Purpose::Fresh(fresh));
            move |node: &mut Self| node.interface_made(lease, sandbox, outcome, reply)
        });
    }

    /// Makes the interface of an endpoint in a network of this host, and goes on with `then`.
    pub(super) fn make_local(
        &mut self,
        lease: &Lease,
        sandbox: SandboxId,
        then: impl FnOnce(&mut Self, Result<Settled, String>) + Send + 'static,
    ) {
        let fresh = self.begin_interface(lease, sandbox);
        self.settle_firewall();
        let wanted = self.wanted_bridges();
        self.worker.hand(move |bench| {
            let outcome = bench.settle_bridges(wanted, Purpose::Fresh(fresh));
            move |node: &mut Self| then(node, outcome)
        });
    }

    pub(super) fn begin_interface(&mut self, lease: &Lease, sandbox: SandboxId) -> Fresh {
        self.fresh.insert(lease.endpoint);
        let sandbox = self.sandboxes.get(sandbox);
        let taken = sandbox.map(|sandbox| sandbox.interfaces.values().cloned().collect());
        let device = sandbox.filter(|sandbox| matches!(sandbox.origin, Origin::Device { .. }));
        let prefix = device.map_or(self.local.interface_prefix(lease.network), |device| device.name.as_str());
        let prefix = prefix.to_owned();
        let (endpoint, network) = (lease.endpoint, lease.network);
        Fresh { endpoint, network, taken: taken.unwrap_or_default(), prefix }
    }

    fn interface_made(
        &mut self,
        lease: Lease,
        sandbox: SandboxId,
        outcome: Result<Settled, String>,
        reply: Reply,
    ) {
        let outcome = self.keep_interface(&lease, sandbox, outcome).and_then(|interface| {
            if self.local.endpoint(lease.endpoint).is_none() {
                self.cluster.announce(now(), lease.endpoint)?;
            }
            Ok(interface)
        });
        self.names.doubt();
        self.drain_cluster();
        match outcome {
            Ok(interface) => {
                let then = move |node: &mut Self, leg| node.open(&lease, sandbox, interface, leg, reply);
                self.ensure_leg(sandbox, None, Box::new(then));
            }
            Err(refusal) => self.refuse_attachment(&lease, refusal, reply),
        }
    }

    /// An attachment has its interface, and a way out that is as good as can be: ports come next.
    fn open(
        &mut self,
        lease: &Lease,
        sandbox: SandboxId,
        interface: String,
        leg: Result<(), Refusal>,
        reply: Reply,
    ) {
        // A sandbox without ports does without a way out, for the time being.
        let published = if self.waits_for_ports(sandbox) { leg } else { Ok(()) };
        match published.and_then(|()| self.publish(sandbox)) {
            Ok(()) => self.show_way_out(lease, sandbox, interface, reply),
            Err(refusal) => self.refuse_attachment(lease, refusal, reply),
        }
    }

    fn refuse_attachment(&mut self, lease: &Lease, refusal: Refusal, reply: Reply) {
        self.counters.kernel_failures += 1;
        self.give_up(lease);
        self.drain_cluster();
        answer(reply, Err(refusal));
    }

    /// The last step of an attachment: default routes may lead elsewhere now.
    fn show_way_out(&mut self, lease: &Lease, sandbox: SandboxId, interface: String, reply: Reply) {
        if self.sandboxes.get(sandbox).is_some_and(Sandbox::has_namespace) {
            self.untold.push((sandbox, interface.clone(), lease.mac));
        }
        tracing::info!(endpoint = %lease.endpoint, network = %lease.network, interface, "attached");
        self.drop_leg(sandbox, None);
        self.settle_firewall();
        self.settle_dhcp();
        let gateways = self.gateways_of(sandbox, lease.endpoint);
        let (wanted, connected) = (self.default_routes(sandbox), connected(lease, interface, gateways));
        self.worker.hand(move |bench| {
            let routed = bench.settle_routes(sandbox, &wanted);
            move |node: &mut Self| {
                let outcome = routed.map_err(internal).and_then(|_| json(StatusCode::OK, &connected));
                node.answer_when_named(sandbox, reply, outcome);
            }
        });
    }

    /// Writes down the interface that was made for an endpoint, and gives its name.
    pub(super) fn keep_interface(
        &mut self,
        lease: &Lease,
        sandbox: SandboxId,
        outcome: Result<Settled, String>,
    ) -> Result<String, Refusal> {
        self.fresh.remove(&lease.endpoint);
        let interface = outcome.map_err(internal)?.interface;
        let interface = interface.ok_or_else(|| internal("the interface got no name"))?;
        self.record_interface(lease, sandbox, &interface)?;
        Ok(interface)
    }

    /// Writes down which interface an endpoint is; from then on it is there for good.
    fn record_interface(
        &mut self,
        lease: &Lease,
        sandbox: SandboxId,
        interface: &str,
    ) -> Result<(), Refusal> {
        let gone = || Refusal::new(StatusCode::NOT_FOUND, "the sandbox was removed meanwhile");
        let mut sandbox = self.sandboxes.get(sandbox).cloned().ok_or_else(gone)?;
        sandbox.interfaces.insert(lease.endpoint, interface.to_owned());
        self.commit("sandbox-interface", &[save(&sandbox)])?;
        self.sandboxes.put(sandbox);
        Ok(())
    }

    /// Next hops out of an endpoint's network.
    pub(super) fn gateways_of(&self, sandbox: SandboxId, endpoint: EndpointId) -> Vec<IpAddr> {
        let way = self.local.ways_out(sandbox).find(|way| way.endpoint == endpoint);
        way.map(|way| way.gateways).unwrap_or_default()
    }

    /// Takes back an attachment that came to nothing.
    pub(super) fn give_up(&mut self, lease: &Lease) {
        if let Err(fault) = self.detach(lease.endpoint, lease.network, None) {
            // The sweep finds an endpoint without an interface and tries again.
            tracing::warn!(endpoint = %lease.endpoint, fault = %fault.message, "an endpoint could not be given up");
        }
    }

    /// Gives an endpoint up in the cluster, in memory and in the kernel.
    pub(super) fn detach(
        &mut self,
        endpoint: EndpointId,
        network: NetworkId,
        errand: Option<Errand>,
    ) -> Result<(), Refusal> {
        let leaves = self.attachments().find(|own| own.lease.endpoint == endpoint).map(|own| own.sandbox);
        if self.local.endpoint(endpoint).is_some() {
            self.detach_local(endpoint, errand)?;
        } else {
            self.detach_from_cluster(endpoint, network, errand)?;
        }
        if let Some(sandbox) = leaves {
            self.settle_leg(sandbox, errand);
        }
        Ok(())
    }

    fn detach_local(&mut self, endpoint: EndpointId, errand: Option<Errand>) -> Result<(), Refusal> {
        let sandbox = self
            .local
            .endpoint(endpoint)
            .ok_or(LocalError::from(NetworkError::NoEndpoint(endpoint)))?
            .sandbox;
        self.local.detach(now(), endpoint)?;
        self.unmake_interface(endpoint);
        // Another way out is open before this one is closed.
        self.settle_routes(sandbox, errand);
        self.settle_bridges(Purpose::Detached(sandbox), errand);
        self.settle_firewall();
        Ok(())
    }

    fn detach_from_cluster(
        &mut self,
        endpoint: EndpointId,
        network: NetworkId,
        errand: Option<Errand>,
    ) -> Result<(), Refusal> {
        match self.cluster.detach(now(), endpoint) {
            Ok(()) | Err(ClusterError::Network(NetworkError::NoEndpoint(_))) => {}
            Err(fault) => return Err(fault.into()),
        }
        self.unmake_interface(endpoint);
        self.segment_changed(network);
        self.settle_for(network, Purpose::Removal, errand);
        Ok(())
    }

    pub(super) fn unmake_interface(&mut self, endpoint: EndpointId) {
        self.forget_interface(endpoint);
        self.settle_dhcp();
        self.worker.hand(move |bench| {
            bench.unpick(endpoint);
            |_: &mut Self| {}
        });
    }

    /// Removes an endpoint's interface from its sandbox's record. The row may stay behind if the state cannot be
    /// written: an interface of no endpoint means nothing, and a restart drops it.
    pub(super) fn forget_interface(&mut self, endpoint: EndpointId) {
        let holder = self.sandboxes.iter().find(|sandbox| sandbox.interfaces.contains_key(&endpoint));
        let Some(mut sandbox) = holder.cloned() else { return };
        sandbox.interfaces.remove(&endpoint);
        self.names.doubt();
        if let Err(fault) = self.commit("sandbox-interface", &[save(&sandbox)]) {
            tracing::warn!(%fault, "an interface could not be forgotten");
        }
        self.sandboxes.put(sandbox);
    }

    /// Detaches a sandbox; answers once the kernel has done its part.
    pub(super) fn disconnect(&mut self, network: &str, request: &Disconnect, reply: Reply) {
        let (sandbox, endpoint) = match self.endpoint_of(network, &request.container) {
            Err(refusal) => return answer(reply, Err(refusal)),
            Ok(own) => (own.sandbox, own.lease.endpoint),
        };
        let (network, request) = (network.to_owned(), request.clone());
        // Another way out is open before this one is closed; where none can be, that is no reason to stay.
        let then = move |node: &mut Self, _| node.end_attachment(&network, &request, reply);
        self.ensure_leg(sandbox, Some(endpoint), Box::new(then));
    }

    fn end_attachment(&mut self, network: &str, request: &Disconnect, reply: Reply) {
        let errand = self.errands.begin();
        let ended = self.endpoint_of(network, &request.container).and_then(|own| {
            self.detach(own.lease.endpoint, own.lease.network, Some(errand))?;
            Ok(own.sandbox)
        });
        match ended {
            Err(refusal) => answer(reply, Err(refusal)),
            Ok(sandbox) => {
                self.let_go_if_unused(sandbox, errand);
                self.drain_cluster();
                let done = format!("container {} is disconnected from network {network}", request.container);
                self.answer_after(errand, reply, Answer::Done(StatusCode::OK), done);
            }
        }
    }

    /// A sandbox's endpoint in a network.
    fn endpoint_of(&self, network: &str, sandbox: &str) -> Result<OwnEndpoint, Refusal> {
        let (Reach::Cluster(id) | Reach::Local(id)) = self.resolve(network)?;
        if self.local.gateway_bridge() == Some(id) {
            return Err(LocalError::GatewayEndpoints.into());
        }
        let holder = self.sandboxes.resolve(sandbox)?;
        check_ours(holder)?;
        let holder = holder.id;
        let mut own = self.own_endpoints();
        let Some(endpoint) = own.find(|own| own.sandbox == holder && own.lease.network == id) else {
            return Err(self.not_connected(id, holder, sandbox, network));
        };
        if self.fresh.contains(&endpoint.lease.endpoint) {
            return Err(bad_request(format!("container {sandbox} is being connected")));
        }
        Ok(endpoint)
    }

    /// Why a sandbox without an endpoint in a network cannot leave it.
    fn not_connected(&self, id: NetworkId, sandbox: SandboxId, who: &str, network: &str) -> Refusal {
        let of_host = self.local.definition(id).is_some_and(|network| network.driver == Driver::Host);
        if of_host && self.command_of(sandbox).is_some_and(|command| command.is_of_host()) {
            return LocalError::DisconnectHost.into();
        }
        Refusal::new(StatusCode::FORBIDDEN, format!("container {who} is not connected to network {network}"))
    }

    /// Gives the TAP of a virtual machine's endpoint away, once.
    pub(super) fn take_tap(&mut self, network: &str, sandbox: &str, reply: Reply) {
        let endpoint = match self.endpoint_of(network, sandbox) {
            Ok(endpoint) => endpoint.lease,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let local = self.local.endpoint(endpoint.endpoint).is_some();
        let at = if local { Place::Host } else { Place::Hidden(endpoint.network) };
        let none =
            format!("container {sandbox} has no TAP in network {network} that somebody could still get");
        self.worker.hand(move |bench| {
            let taken = bench.kernel.take_tap(at, &port_name(endpoint.endpoint)).map(Answer::Descriptor);
            let outcome = taken.ok_or_else(|| Refusal::new(StatusCode::CONFLICT, none));
            move |_: &mut Self| answer(reply, outcome)
        });
    }

    /// A namespace somebody handed over, or a TAP's name, is of no use to us once it has no endpoint.
    fn let_go_if_unused(&mut self, sandbox: SandboxId, errand: Errand) {
        let kept = |origin| matches!(origin, Origin::Made | Origin::Machine);
        let unused = |sandbox: &&Sandbox| !kept(sandbox.origin) && sandbox.interfaces.is_empty();
        if self.sandboxes.get(sandbox).filter(unused).is_some()
            && let Err(refusal) = self.forget_sandbox(sandbox, Some(errand))
        {
            tracing::warn!(%sandbox, fault = %refusal.message, "an adopted namespace could not be let go");
        }
    }

    /// The segment as it is programmed.
    pub(super) fn programmed(&self, network: NetworkId) -> Option<&SegmentSpec> {
        self.programmed.get(&network)
    }
}

/// What Docker made is Docker's to change.
pub(super) fn check_ours(sandbox: &Sandbox) -> Result<(), Refusal> {
    if sandbox.origin == Origin::Docker {
        let text = format!("{} is a container of Docker: use docker for that", sandbox.name);
        return Err(Refusal::new(StatusCode::CONFLICT, text));
    }
    Ok(())
}

fn connected(lease: &Lease, interface: String, gateways: Vec<IpAddr>) -> Connected {
    Connected {
        endpoint_id: lease.endpoint.long(),
        interface,
        mac_address: lease.shown_mac(),
        addresses: lease.addresses.iter().map(ToString::to_string).collect(),
        gateways,
        mtu: lease.mtu,
    }
}
