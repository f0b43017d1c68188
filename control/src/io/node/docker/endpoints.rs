//! Endpoints of containers: promised, made for the engine to take, taken back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_dataplane::wire::MacAddr;

use super::super::{Node, Reply, answer, now, wall};
use super::networks::Standing;
use super::rounds::Joining;
use super::{Leasing, done, nothing, refused, well};
use crate::cluster::{ClusterError, Ticket};
use crate::docker::protocol::{Call, CreateEndpoint, EndpointRef, Interface, InterfaceName, Join, Joined};
use crate::docker::{Bindings, DockerId, Endpoint};
use crate::io::server::Refusal;
use crate::io::worker::{Purpose, Settled};
use crate::local::Driver;
use crate::model::{EndpointId, Name, NetworkId, SandboxId};
use crate::names::Wishes;
use crate::network::{Attach, Lease, NetworkError};
use crate::sandbox::{Origin, Sandbox, save};

/// What names of interfaces in containers begin with.
const PREFIX: &str = "eth";

/// An endpoint of a container, as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerEndpoint {
    /// The endpoint of weft.
    pub(crate) endpoint: EndpointId,
    /// Its network.
    pub(crate) network: NetworkId,
    /// Path of its container's network namespace; empty before it has joined.
    pub(crate) sandbox_key: String,
}

impl Node {
    /// Promises addresses to an endpoint. The same call again gets the same answer.
    pub(super) fn create_docker_endpoint(&mut self, call: CreateEndpoint, reply: Reply) {
        let network = match self.standing(&call.network) {
            Ok(Standing::Waits) => {
                return self.park(call.network.clone(), Call::CreateEndpoint(call), reply);
            }
            Ok(Standing::Is(network)) => network,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let wish = match self.docker_wish(network, &call) {
            Ok(wish) => wish,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let sandbox = wish.sandbox;
        self.forget_forgotten(&call, &wish);
        if let Some(lease) = self.lease_of(sandbox) {
            return answer(reply, well(&created(&call.interface, &lease)));
        }
        if let Err(refusal) = self.remember_docker_endpoint(&call, &wish.name) {
            return answer(reply, Err(refusal));
        }
        let leasing = Leasing { endpoint: call.endpoint, asked: call.interface, reply };
        self.lease_for_docker(wish, leasing);
        self.drain_cluster();
    }

    fn docker_wish(&self, network: NetworkId, call: &CreateEndpoint) -> Result<Attach, Refusal> {
        let known = self.docker.bindings.endpoint(&call.endpoint);
        if known.is_some_and(|known| known.network != call.network) {
            return Err(refused("an endpoint of this id is in another network"));
        }
        if self.docker.leasing.values().any(|leasing| leasing.endpoint == call.endpoint) {
            return Err(refused("this endpoint is being made"));
        }
        let Interface { address, address_ipv6, mac_address } = &call.interface;
        let mac = match mac_address.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|fault| refused(format!("invalid MAC address: {fault}")))?),
        };
        let ip4 = match read_address(address)?.map(|net| net.addr()) {
            Some(IpAddr::V4(ip)) => Some(ip),
            Some(other) => return Err(refused(format!("invalid IPv4 address {other}"))),
            None => None,
        };
        let ip6 = match read_address(address_ipv6)?.map(|net| net.addr()) {
            Some(IpAddr::V6(ip)) => Some(ip),
            Some(other) => return Err(refused(format!("invalid IPv6 address {other}"))),
            None => None,
        };
        let name: Name = format!("docker-{}", call.endpoint.short()).parse().map_err(refused)?;
        let (sandbox, aliases) = (call.endpoint.sandbox(), Vec::new());
        let mac = mac.or_else(|| self.lasting_mac(network, ip4?));
        Ok(Attach { network, sandbox, name, ip4, ip6, mac, aliases })
    }

    /// The MAC address that goes with an address, as Docker's own drivers have it: whoever remembers the container that had
    /// it before its restart finds it again. Nothing where somebody has it, or where children have their parent's.
    fn lasting_mac(&self, network: NetworkId, ip: Ipv4Addr) -> Option<MacAddr> {
        let [a, b, c, d] = ip.octets();
        let mac = MacAddr([0x02, 0x42, a, b, c, d]);
        let of_parent =
            self.local.definition(network).is_some_and(|network| network.driver == Driver::Ipvlan);
        let taken = self.own_endpoints().any(|own| own.lease.network == network && own.lease.mac == mac);
        let taken = taken || self.cluster.has_mac(network, mac);
        (!of_parent && !taken).then_some(mac)
    }

    /// Writes an endpoint down with the sandbox that it is, before anything is promised to it.
    fn remember_docker_endpoint(&mut self, call: &CreateEndpoint, name: &Name) -> Result<(), Refusal> {
        if self.docker.bindings.endpoint(&call.endpoint).is_some() {
            return Ok(());
        }
        self.sandboxes.admit(name)?;
        let sandbox = Sandbox {
            id: call.endpoint.sandbox(),
            name: name.clone(),
            created: wall(),
            origin: Origin::Docker,
            owner: None,
            interfaces: Default::default(),
            wishes: Wishes::default(),
        };
        if self.sandboxes.get(sandbox.id).is_some() {
            return Err(refused("another endpoint has half of this id"));
        }
        let endpoint = Endpoint { network: call.network.clone(), sandbox_key: String::new() };
        let rows = [save(&sandbox), Bindings::save_endpoint(&call.endpoint, &endpoint)];
        self.commit("docker-endpoint-create", &rows)?;
        self.sandboxes.put(sandbox);
        self.docker.bindings.put_endpoint(call.endpoint.clone(), endpoint);
        Ok(())
    }

    fn lease_for_docker(&mut self, wish: Attach, leasing: Leasing) {
        if self.local.definition(wish.network).is_some() {
            let result = self.local.attach(now(), wish, 0).map_err(Refusal::from);
            return self.docker_leased(leasing, result);
        }
        let fixed: Vec<_> = wish.fixed().collect();
        let network = wish.network;
        match self.cluster.attach_held(now(), wish) {
            Ok(ticket) => drop(self.docker.leasing.insert(ticket, leasing)),
            Err(fault) => {
                let refusal = self.explain_taken(network, &fixed, fault);
                self.docker_leased(leasing, Err(refusal));
            }
        }
    }

    /// Says whose an address is that is taken: the engine has chosen it without knowing.
    fn explain_taken(&self, network: NetworkId, fixed: &[IpAddr], fault: ClusterError) -> Refusal {
        let taken = matches!(fault, ClusterError::Network(NetworkError::AddressTaken));
        let holder = fixed.iter().find_map(|&ip| Some((ip, self.cluster.holder_of(network, ip)?)));
        match holder.filter(|_| taken) {
            Some((ip, holder)) => {
                let name = self.name_of(network);
                refused(format!("{fault}: {ip} of network {name} is that of {holder}"))
            }
            None => fault.into(),
        }
    }

    /// The cluster has addresses for an endpoint, or none; whether it was one of Docker's.
    pub(in crate::io::node) fn docker_attached(
        &mut self,
        ticket: Ticket,
        result: Result<Lease, ClusterError>,
    ) -> Option<Result<Lease, ClusterError>> {
        let Some(leasing) = self.docker.leasing.remove(&ticket) else { return Some(result) };
        let result = result.map_err(|fault| {
            let asked = [&leasing.asked.address, &leasing.asked.address_ipv6].into_iter();
            let fixed: Vec<_> = asked.filter_map(|text| Some(read_address(text).ok()??.addr())).collect();
            let network = self.docker.bindings.endpoint(&leasing.endpoint).map(|e| e.network.clone());
            match network.and_then(|network| self.standing(&network).ok()) {
                Some(Standing::Is(network)) => self.explain_taken(network, &fixed, fault),
                _ => fault.into(),
            }
        });
        self.docker_leased(leasing, result);
        None
    }

    fn docker_leased(&mut self, leasing: Leasing, result: Result<Lease, Refusal>) {
        let Leasing { endpoint, asked, reply } = leasing;
        match result {
            Ok(lease) if self.docker.bindings.endpoint(&endpoint).is_none() => {
                self.give_up(&lease);
                answer(reply, Err(refused("the endpoint was removed meanwhile")));
            }
            Ok(lease) => answer(reply, well(&created(&asked, &lease))),
            Err(refusal) => {
                self.forget_docker_endpoint(&endpoint);
                answer(reply, Err(refusal));
            }
        }
    }

    pub(super) fn lease_of(&self, sandbox: SandboxId) -> Option<Lease> {
        self.own_endpoints().find(|own| own.sandbox == sandbox).map(|own| own.lease)
    }

    /// Makes an endpoint's interface, in the host's namespace for the engine to take.
    pub(super) fn join_docker_endpoint(&mut self, call: &Join, reply: Reply) {
        let sandbox = call.endpoint.sandbox();
        let lease = match self.admit_join(call) {
            Ok(lease) => lease,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let joined = self.joined(&lease, sandbox, call.publishes());
        let joining = Joining { joined, lease, sandbox, reply };
        if self.local.endpoint(joining.lease.endpoint).is_none() {
            return self.join_next(joining);
        }
        let lease = joining.lease.clone();
        self.make_local(&lease, sandbox, move |node, outcome| {
            node.docker_joined(joining, outcome);
            node.settle_firewall();
            node.drain_cluster();
        });
    }

    /// Writes down which container an endpoint is in.
    fn admit_join(&mut self, call: &Join) -> Result<Lease, Refusal> {
        let mut known = self.known_endpoint(&call.network, &call.endpoint)?.clone();
        let lease = self.lease_of(call.endpoint.sandbox());
        let lease = lease.ok_or_else(|| refused("this endpoint has no addresses: create it first"))?;
        if self.fresh.contains(&lease.endpoint) {
            return Err(refused("this endpoint is joining already"));
        }
        if call.sandbox_key.len() > 4_096 {
            return Err(refused("the path of the container's network namespace is too long"));
        }
        known.sandbox_key.clone_from(&call.sandbox_key);
        self.commit("docker-endpoint-join", &[Bindings::save_endpoint(&call.endpoint, &known)])?;
        self.docker.bindings.put_endpoint(call.endpoint.clone(), known);
        Ok(lease)
    }

    fn known_endpoint(&self, network: &DockerId, endpoint: &DockerId) -> Result<&Endpoint, Refusal> {
        let known = self.docker.bindings.endpoint(endpoint).filter(|known| known.network == *network);
        known.ok_or_else(|| refused(format!("endpoint {} not found", endpoint.short())))
    }

    /// What the engine is told of an endpoint but for its name.
    ///
    /// A container that publishes ports is told of no way out by a bridge: the engine adds its own then, and publishes by
    /// that. No answer to the engine could make it show ports that a plugin has published.
    fn joined(&self, lease: &Lease, sandbox: SandboxId, publishes: bool) -> Joined {
        let local = self.local.definition(lease.network);
        let internal = local.map_or_else(|| self.cluster.is_internal(lease.network), |local| local.internal);
        let by_engine = publishes && local.is_some_and(|local| local.driver == Driver::Bridge);
        let gateways = if by_engine { Vec::new() } else { self.gateways_of(sandbox, lease.endpoint) };
        let of = |v4: bool| gateways.iter().find(|ip| ip.is_ipv4() == v4);
        Joined {
            interface_name: InterfaceName { src_name: String::new(), dst_prefix: PREFIX.to_owned() },
            gateway: of(true).map(ToString::to_string).unwrap_or_default(),
            gateway_ipv6: of(false).map(ToString::to_string).unwrap_or_default(),
            disable_gateway_service: internal,
        }
    }

    /// An endpoint has its interface, or none.
    pub(super) fn docker_joined(&mut self, joining: Joining, outcome: Result<Settled, String>) {
        let Joining { lease, sandbox, mut joined, reply } = joining;
        let lease = &lease;
        let outcome = self.keep_interface(lease, sandbox, outcome).and_then(|interface| {
            if self.local.endpoint(lease.endpoint).is_none() {
                self.cluster.announce(now(), lease.endpoint)?;
            }
            joined.interface_name.src_name = interface;
            well(&joined)
        });
        if let Err(refusal) = &outcome {
            self.counters.kernel_failures += 1;
            tracing::warn!(endpoint = %lease.endpoint, fault = refusal.message, "a container was not joined");
            if self.sandboxes.get(sandbox).is_none() {
                self.give_up(lease);
            }
        } else {
            tracing::info!(endpoint = %lease.endpoint, network = %lease.network, "a container is joined");
        }
        self.names.doubt();
        answer(reply, outcome);
    }

    /// Takes an endpoint's interface away; the addresses stay its own. Who has none, or is not known, has left.
    pub(super) fn leave_docker_endpoint(&mut self, call: &EndpointRef, reply: Reply) {
        let lease = self.lease_of(call.endpoint.sandbox());
        let Some(lease) = lease.filter(|_| self.docker.bindings.endpoint(&call.endpoint).is_some()) else {
            return answer(reply, done());
        };
        let left = self.forget_sandbox_key(&call.endpoint);
        if let Err(refusal) = left {
            return answer(reply, Err(refusal));
        }
        self.unmake_interface(lease.endpoint);
        if self.local.endpoint(lease.endpoint).is_none() {
            self.leave_next(lease.network, reply);
            return self.drain_cluster();
        }
        let errand = self.errands.begin();
        self.settle_bridges(Purpose::Removal, Some(errand));
        self.drain_cluster();
        let text = format!("endpoint {} has left", call.endpoint.short());
        self.answer_after(errand, reply, nothing(), text);
    }

    fn forget_sandbox_key(&mut self, id: &DockerId) -> Result<(), Refusal> {
        let Some(mut known) = self.docker.bindings.endpoint(id).cloned() else { return Ok(()) };
        known.sandbox_key.clear();
        self.commit("docker-endpoint-leave", &[Bindings::save_endpoint(id, &known)])?;
        self.docker.bindings.put_endpoint(id.clone(), known);
        Ok(())
    }

    /// Gives an endpoint's addresses back. One that is not known is gone already.
    pub(super) fn delete_docker_endpoint(&mut self, call: &EndpointRef, reply: Reply) {
        if self.docker.bindings.endpoint(&call.endpoint).is_none() {
            return answer(reply, done());
        }
        self.note_returned(call.endpoint.sandbox());
        let errand = self.errands.begin();
        let outcome = self.forget_sandbox(call.endpoint.sandbox(), Some(errand));
        self.drain_cluster();
        match outcome {
            Ok(()) => {
                let text = format!("endpoint {} is removed", call.endpoint.short());
                self.answer_after(errand, reply, nothing(), text);
            }
            Err(refusal) => answer(reply, Err(refusal)),
        }
    }

    /// The engine has no such endpoint any more, or it came to nothing.
    pub(crate) fn forget_docker_endpoint(&mut self, id: &DockerId) {
        if self.docker.bindings.endpoint(id).is_none() {
            return;
        }
        if let Err(refusal) = self.forget_sandbox(id.sandbox(), None) {
            tracing::warn!(docker = id.short(), fault = refusal.message, "an endpoint of Docker stays");
        }
        self.drain_cluster();
    }

    /// Endpoints of containers that have addresses.
    pub(crate) fn docker_endpoints(&self) -> Vec<DockerEndpoint> {
        let own = self.own_endpoints().map(|own| (own.sandbox, (own.lease.endpoint, own.lease.network)));
        let leased: BTreeMap<SandboxId, (EndpointId, NetworkId)> = own.collect();
        let known = |(docker, known): (&DockerId, &Endpoint)| {
            let &(endpoint, network) = leased.get(&docker.sandbox())?;
            Some(DockerEndpoint { endpoint, network, sandbox_key: known.sandbox_key.clone() })
        };
        self.docker.bindings.endpoints().filter_map(known).collect()
    }
}

/// What an endpoint has beyond what the engine said.
fn created(asked: &Interface, lease: &Lease) -> serde_json::Value {
    let of = |v4: bool| lease.addresses.iter().find(|net| net.addr().is_ipv4() == v4);
    // An engine that gives addresses gives one of each family that its network has.
    let chooses = asked.address.is_empty() && asked.address_ipv6.is_empty();
    let address = |v4: bool| of(v4).filter(|_| chooses).map(ToString::to_string).unwrap_or_default();
    let interface = Interface {
        address: address(true),
        address_ipv6: address(false),
        mac_address: if asked.mac_address.is_empty() { lease.shown_mac() } else { String::new() },
    };
    serde_json::json!({ "Interface": interface })
}

fn read_address(text: &str) -> Result<Option<IpNet>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(80).collect();
    text.parse().map(Some).map_err(|_| refused(format!("invalid address {shown:?}")))
}
