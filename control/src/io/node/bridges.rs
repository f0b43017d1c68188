//! Networks of this host: their bridges, and the ways out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Errand, Node, Reply, answer, internal, json, wall};
use crate::api::{NetworkCreate, NetworkCreated};
use crate::catalog;
use crate::driver::bridge::{Wanted, WantedBridge};
use crate::driver::macvlan::WantedNetwork;
use crate::driver::{WantedEndpoint, far_name};
use crate::io::server::{Answer, Refusal, explain};
use crate::io::worker::Purpose;
use crate::local::{BridgeView, EndpointView, ParentView};
use crate::model::{NetworkId, SandboxId};
use crate::sandbox::{Origin, Sandbox};
use crate::timestamp::UnixMillis;
use axum::http::StatusCode;

impl Node {
    /// Makes a network of this host: written down, then made; one that can't be made is forgotten again.
    pub(super) fn create_local(&mut self, request: NetworkCreate, reply: Reply) {
        self.worker.hand(move |bench| {
            let routed = bench.kernel.routed();
            let routed = routed.map_err(|fault| internal(explain(&fault)));
            move |node: &mut Self| match routed.and_then(|routed| node.define_local(request, &routed)) {
                Ok(id) => node.make_bridge(id, move |_, outcome| {
                    let created = NetworkCreated { id: id.long(), warning: String::new() };
                    answer(reply, outcome.and_then(|()| json(StatusCode::CREATED, &created)));
                }),
                Err(refusal) => answer(reply, Err(refusal)),
            }
        });
    }

    /// Writes a network down; `routed` are the prefixes of the host's routes.
    pub(super) fn define_local(
        &mut self,
        request: NetworkCreate,
        routed: &[IpNet],
    ) -> Result<NetworkId, Refusal> {
        let used: Vec<IpNet> = routed.iter().copied().chain(self.cluster.subnets()).collect();
        catalog::admit(&self.cluster, &self.local, &request.name)?;
        Ok(self.local.create(UnixMillis(wall()), request, &used)?)
    }

    /// Has the kernel make a network that is written down, and goes on with `then`.
    pub(super) fn make_bridge(
        &mut self,
        id: NetworkId,
        then: impl FnOnce(&mut Self, Result<(), Refusal>) + Send + 'static,
    ) {
        // Closed before there is anything to close.
        self.settle_firewall();
        let wanted = self.wanted_bridges();
        self.worker.hand(move |bench| {
            let outcome = bench.settle_bridges(wanted, Purpose::Network(id));
            move |node: &mut Self| node.bridge_made(id, outcome.map(|_| ()), then)
        });
    }

    fn bridge_made(
        &mut self,
        id: NetworkId,
        outcome: Result<(), String>,
        then: impl FnOnce(&mut Self, Result<(), Refusal>) + Send + 'static,
    ) {
        match outcome {
            Ok(()) => {
                tracing::info!(network = %id, "network made");
                self.look_for_obstacles();
                then(self, Ok(()));
            }
            Err(fault) => {
                self.counters.kernel_failures += 1;
                if let Err(fault) = self.local.remove(id) {
                    tracing::warn!(network = %id, %fault, "a network that could not be made stays");
                }
                self.settle_bridges(Purpose::Removal, None);
                self.settle_firewall();
                // Who hears of it finds nothing left.
                self.worker.hand(move |_| move |node: &mut Self| then(node, Err(internal(fault))));
            }
        }
    }

    /// Removes a network of this host.
    pub(super) fn remove_local(&mut self, id: NetworkId, name: &str, reply: Reply) {
        match self.local.remove(id) {
            Ok(()) => {
                let errand = self.errands.begin();
                self.settle_bridges(Purpose::Removal, Some(errand));
                self.settle_firewall();
                let done = format!("network {name} is removed");
                self.answer_after(errand, reply, Answer::Done(StatusCode::NO_CONTENT), done);
            }
            Err(fault) => answer(reply, Err(fault.into())),
        }
    }

    /// Brings the host's bridges to what networks want; failures are tried again by the next audit.
    pub(super) fn settle_bridges(&mut self, purpose: Purpose, errand: Option<Errand>) {
        let wanted = self.wanted_bridges();
        let all = matches!(purpose, Purpose::All);
        self.worker.hand(move |bench| {
            let outcome = bench.settle_bridges(wanted, purpose);
            move |node: &mut Self| match outcome {
                Ok(settled) if all => node.note_left_alone(&settled.left_alone),
                Ok(_) => {}
                Err(fault) => {
                    node.counters.kernel_failures += 1;
                    tracing::warn!(
                        fault,
                        "networks of this host are not as they should be; the next audit tries again"
                    );
                    node.errands.note(errand, fault);
                }
            }
        });
    }

    /// What networks of this host want of the kernel.
    pub(super) fn wanted_bridges(&self) -> Wanted {
        let bridges = self.local.bridges().map(|bridge| self.wanted_bridge(bridge));
        let children: Vec<_> = self.local.children().map(|network| self.wanted_network(network)).collect();
        let sandboxes = self.sandboxes.iter().map(|sandbox| sandbox.id);
        let holders = if children.is_empty() { BTreeSet::new() } else { sandboxes.collect() };
        let (me, devices) = (self.cluster.node_id(), self.devices());
        Wanted { me, bridges: bridges.collect(), children, devices, holders }
    }

    /// Links in the host that endpoints end in.
    fn devices(&self) -> BTreeSet<String> {
        let is_device = |sandbox: &&Sandbox| matches!(sandbox.origin, Origin::Device { .. });
        let devices: BTreeMap<_, _> = (self.sandboxes.iter().filter(is_device))
            .map(|sandbox| (sandbox.id, sandbox.name.to_string()))
            .collect();
        if devices.is_empty() {
            return BTreeSet::new();
        }
        let own = self.own_endpoints().filter(|own| devices.contains_key(&own.sandbox));
        let ends: Vec<String> = own.map(|own| far_name(own.lease.endpoint)).collect();
        devices.into_values().chain(ends).collect()
    }

    fn wanted_network(&self, view: ParentView) -> WantedNetwork {
        let endpoints = view.endpoints.iter().filter_map(|endpoint| self.wanted_endpoint(endpoint));
        let ParentView { network, parent, mode, mtu, .. } = view.clone();
        WantedNetwork { network, parent, mode, mtu, endpoints: endpoints.collect() }
    }

    /// Takes note of networks that cannot be as things are.
    pub(super) fn note_left_alone(&mut self, left_alone: &[(NetworkId, String)]) {
        const WARNING: &str = "networks";
        if left_alone.is_empty() {
            self.facts.warnings.remove(WARNING);
            return;
        }
        let named = left_alone.iter().map(|(network, fault)| format!("{} ({fault})", self.name_of(*network)));
        let text = format!("networks of this host do not work: {}", named.collect::<Vec<_>>().join(", "));
        self.facts.warnings.insert(WARNING, text);
    }

    fn wanted_bridge(&self, bridge: BridgeView) -> WantedBridge {
        let gateway = |subnet: &crate::network::Subnet| {
            let own = subnet.gateway.is_ipv6() || !bridge.inhibit_ipv4;
            own.then(|| IpNet::new(subnet.gateway, subnet.prefix.prefix_len()).ok()).flatten()
        };
        let endpoints = bridge.endpoints.iter().filter_map(|endpoint| self.wanted_endpoint(endpoint));
        WantedBridge {
            network: bridge.network,
            mtu: bridge.mtu,
            addresses: bridge.subnets.iter().filter_map(gateway).collect(),
            ipv6: bridge.subnets.iter().any(|subnet| subnet.gateway.is_ipv6()),
            forwards: !bridge.internal,
            icc: bridge.icc,
            presence: bridge.presence,
            endpoints: endpoints.collect(),
            interface: bridge.interface,
        }
    }

    fn wanted_endpoint(&self, endpoint: &EndpointView) -> Option<WantedEndpoint> {
        let sandbox = self.sandboxes.get(endpoint.sandbox)?;
        let EndpointView { endpoint: id, mac, addresses, .. } = endpoint.clone();
        let named = sandbox.interfaces.get(&id).cloned();
        let interface = named.or_else(|| self.fresh.contains(&id).then(String::new))?;
        Some(WantedEndpoint {
            id,
            sandbox: sandbox.id,
            end: sandbox.end(self.cluster.node_id()),
            interface,
            mac,
            addresses,
        })
    }

    /// Where whatever no other route takes leaves a sandbox: link and next hop, at most one of each family.
    pub(super) fn default_routes(&self, sandbox: SandboxId) -> Vec<(String, IpAddr)> {
        let Some(interfaces) = self.sandboxes.get(sandbox).map(|sandbox| &sandbox.interfaces) else {
            return Vec::new();
        };
        let mut ways: Vec<_> = self.local.ways_out(sandbox).collect();
        ways.sort_by_key(|way| (std::cmp::Reverse(way.priority), way.name));
        let hops = ways.iter().filter_map(|way| Some((interfaces.get(&way.endpoint)?, way)));
        let hops: Vec<_> =
            hops.flat_map(|(link, way)| way.gateways.iter().map(move |hop| (link, *hop))).collect();
        let first = |v4: bool| hops.iter().find(|(_, hop)| hop.is_ipv4() == v4);
        [first(true), first(false)].into_iter().flatten().map(|(link, hop)| ((*link).clone(), *hop)).collect()
    }

    /// Brings a sandbox's default routes to what its networks want.
    pub(super) fn settle_routes(&mut self, sandbox: SandboxId, errand: Option<Errand>) {
        let wanted = self.default_routes(sandbox);
        self.worker.hand(move |bench| {
            let outcome = bench.settle_routes(sandbox, &wanted);
            move |node: &mut Self| {
                if let Err(fault) = outcome {
                    node.counters.kernel_failures += 1;
                    tracing::warn!(%sandbox, fault, "a sandbox has no way out; the next audit tries again");
                    node.errands.note(errand, fault);
                }
            }
        });
    }
}
