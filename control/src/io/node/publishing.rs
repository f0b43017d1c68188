//! Published ports and the firewall: which ports of the host lead to which sandboxes, and what the kernel is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use axum::http::StatusCode;

use super::Node;
use crate::driver::bridge::Presence;
use crate::firewall::{Bridge, Firewall, Forward};
use crate::io::firewall::Disturbed;
use crate::io::proxy::{self, Held};
use crate::io::server::Refusal;
use crate::local::{BridgeView, EndpointView};
use crate::model::SandboxId;
use crate::publish::{Conflict, Ports, Published, Taken, Wish, addresses_of, forget, save};
use crate::storage::Write;

/// Ports that the host gives to whoever asks for any, unless it says otherwise.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;
/// Where it says so.
const EPHEMERAL_SETTING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Endpoints that sandboxes' ports are published by.
type Ways<'b> = BTreeMap<SandboxId, &'b EndpointView>;
/// Ports with the sockets that hold them.
type Taking = Vec<(Published, Held)>;

impl Node {
    /// Gives a sandbox that has a way out its ports, durably, unless it has them.
    ///
    /// # Errors
    /// A port is somebody else's, in Docker's words, or the state cannot be written; nothing was given.
    pub(super) fn publish(&mut self, sandbox: SandboxId) -> Result<(), Refusal> {
        let wanted = self.publishing.get(sandbox).filter(|_| self.waits_for_ports(sandbox)).cloned();
        let Some(ports) = wanted else { return Ok(()) };
        let bridges: Vec<_> = self.local.bridges().collect();
        let Some((bridge, endpoint)) = self.way_in(sandbox, &bridges) else { return Ok(()) };
        let taking = take_all(self.publishing.taken(), &ports.wishes, bridge)
            .map_err(|conflict| refusal(endpoint, &conflict))?;
        let given = taking.iter().map(|(published, _)| *published).collect();
        let ports = Ports { given, ..ports };
        self.commit("ports-publish", &[save(sandbox, &ports)])?;
        self.publishing.put(sandbox, ports);
        for (published, held) in taking {
            self.relay(published, held, endpoint);
        }
        Ok(())
    }

    /// Whether a sandbox is to have ports and has none.
    pub(super) fn waits_for_ports(&self, sandbox: SandboxId) -> bool {
        self.publishing.get(sandbox).is_some_and(|ports| !ports.wishes.is_empty() && ports.given.is_empty())
    }

    /// Relays what the kernel does not translate; where there is no thread to do it, the port is at least held.
    fn relay(&mut self, published: Published, held: Held, endpoint: &EndpointView) {
        let Some(target) = target(&published, endpoint) else { return };
        if let Err(fault) = self.relay.serve(published, held, target) {
            tracing::warn!(port = %published.port, %fault, "a published port is not relayed");
        }
    }

    /// Writes what takes a sandbox's ports from it, or nothing.
    pub(super) fn unpublishing(&self, sandbox: SandboxId) -> Option<Write> {
        self.publishing.get(sandbox).map(|_| forget(sandbox))
    }

    /// Takes the ports from a sandbox whose record is gone.
    pub(super) fn unpublished(&mut self, sandbox: SandboxId) {
        for one in self.publishing.remove(sandbox).map(|ports| ports.given).unwrap_or_default() {
            self.relay.close(&one);
        }
    }

    /// Brings published ports and firewall to what networks and sandboxes are now. Ports of sandboxes without a way
    /// out are given up.
    pub(super) fn settle_firewall(&mut self) {
        if self.torn_down {
            return;
        }
        let bridges: Vec<_> = self.local.bridges().collect();
        let ways = self.ways_in(&bridges);
        self.give_up_ports(&ways);
        self.hold_ports(&ways);
        let wanted = self.firewall(&bridges, &ways);
        self.worker.hand(move |bench| {
            let outcome = bench.firewall.load(wanted);
            move |node: &mut Self| node.firewall_loaded(outcome)
        });
    }

    /// Loads again what somebody has changed, or may have.
    pub(crate) fn disturbed(&mut self, what: Disturbed) {
        self.worker.hand(move |bench| {
            bench.firewall.doubt(what);
            |_: &mut Self| {}
        });
        self.settle_firewall();
    }

    /// Gives ports to whoever waits for some, as after a crash while they were being given.
    pub(super) fn publish_all(&mut self) {
        let sandboxes: Vec<_> = self.publishing.iter().map(|(sandbox, _)| sandbox).collect();
        for sandbox in sandboxes {
            self.publish_or_warn(sandbox);
        }
    }

    /// As [`Node::publish`], where nobody waits for it.
    pub(super) fn publish_or_warn(&mut self, sandbox: SandboxId) {
        if let Err(refusal) = self.publish(sandbox) {
            tracing::warn!(%sandbox, fault = %refusal.message, "a sandbox has no published ports");
        }
    }

    /// Takes the firewall away, for good; the bridges are gone.
    pub(super) fn tear_firewall_down(&mut self) {
        self.torn_down = true;
        self.worker.hand(|bench| {
            let outcome = bench.firewall.load(Firewall::default());
            |_: &mut Self| {
                if let Err(fault) = outcome {
                    tracing::warn!(fault, "the firewall is left over");
                }
            }
        });
    }

    /// Looks at what other firewalls of this host do to sandboxes.
    pub(super) fn look_for_obstacles(&mut self) {
        const WARNING: &str = "forwarding";
        self.worker.hand(|bench| {
            let obstacle = bench.firewall.obstacle();
            |node: &mut Self| {
                let told = match &obstacle {
                    Some(text) => node.facts.warnings.insert(WARNING, text.clone()),
                    None => node.facts.warnings.remove(WARNING),
                };
                if let Some(text) = obstacle.filter(|_| told.is_none()) {
                    tracing::warn!(text, "sandboxes cannot be reached from outside, nor get out");
                }
            }
        });
    }

    /// A firewall that cannot be loaded is no reason for a call to fail: what is closed is safe.
    fn firewall_loaded(&mut self, outcome: Result<(), String>) {
        const WARNING: &str = "firewall";
        let Err(fault) = outcome else {
            self.facts.warnings.remove(WARNING);
            return;
        };
        self.counters.kernel_failures += 1;
        let text = format!(
            "networks of this host have no way out and published ports are relayed at best: {fault}; it is tried again \
             every half minute"
        );
        if self.facts.warnings.insert(WARNING, text).is_none() {
            tracing::warn!(fault, "the firewall is not as it should be");
        }
    }

    fn give_up_ports(&mut self, ways: &Ways<'_>) {
        let held = self.publishing.iter().filter(|(_, ports)| !ports.given.is_empty());
        let without = held.filter(|(sandbox, _)| !ways.contains_key(sandbox));
        let without: Vec<_> = without.map(|(sandbox, ports)| (sandbox, ports.clone())).collect();
        for (sandbox, mut ports) in without {
            let given = std::mem::take(&mut ports.given);
            if let Err(fault) = self.commit("ports-give-up", &[save(sandbox, &ports)]) {
                tracing::warn!(%sandbox, %fault, "published ports stay for now");
                continue;
            }
            self.publishing.put(sandbox, ports);
            given.iter().for_each(|one| self.relay.close(one));
        }
    }

    /// Holds the ports that sandboxes have and nobody holds, as after a restart, and follows their sandboxes' addresses.
    fn hold_ports(&mut self, ways: &Ways<'_>) {
        const WARNING: &str = "ports";
        let mut lost = Vec::new();
        for (sandbox, one) in self.publishing.given().collect::<Vec<_>>() {
            let Some(endpoint) = ways.get(&sandbox) else { continue };
            let serves = self.relay.serving().get(&one).copied();
            if serves.is_some() && serves == target(&one, endpoint) {
                continue;
            }
            self.relay.close(&one);
            match proxy::hold(&one) {
                Ok(held) => self.relay(one, held, endpoint),
                Err(conflict) => lost.push(format!("{} ({})", endpoint.name, conflict)),
            }
        }
        if lost.is_empty() {
            self.facts.warnings.remove(WARNING);
        } else {
            let text = format!("published ports are shared with programs of this host: {}", lost.join(", "));
            self.facts.warnings.insert(WARNING, text);
        }
    }

    fn firewall(&self, bridges: &[BridgeView], ways: &Ways<'_>) -> Firewall {
        let forward = |(sandbox, one): (SandboxId, Published)| {
            let host = SocketAddr::new(one.host, one.host_port);
            let target = target(&one, ways.get(&sandbox)?)?;
            Some(Forward { protocol: one.port.protocol, host, target })
        };
        let used = bridges
            .iter()
            .filter(|bridge| bridge.presence == Presence::Always || !bridge.endpoints.is_empty());
        Firewall::of(used.map(bridge), self.publishing.given().filter_map(forward))
    }

    fn ways_in<'b>(&self, bridges: &'b [BridgeView]) -> Ways<'b> {
        let sandboxes = self.publishing.iter().filter(|(_, ports)| !ports.wishes.is_empty());
        let way = |(sandbox, _)| self.way_in(sandbox, bridges).map(|(_, endpoint)| (sandbox, endpoint));
        sandboxes.filter_map(way).collect()
    }

    /// The endpoint that a sandbox's ports are published by: the one its default route leaves by.
    fn way_in<'b>(
        &self,
        sandbox: SandboxId,
        bridges: &'b [BridgeView],
    ) -> Option<(&'b BridgeView, &'b EndpointView)> {
        let ways = self.local.ways_out(sandbox);
        let way = ways.min_by_key(|way| (std::cmp::Reverse(way.priority), way.name))?.endpoint;
        let endpoints = bridges.iter().flat_map(|b| b.endpoints.iter().map(move |endpoint| (b, endpoint)));
        endpoints.into_iter().find(|(_, endpoint)| endpoint.endpoint == way)
    }
}

fn bridge(view: &BridgeView) -> Bridge {
    let BridgeView { interface, internal, icc, masquerade, .. } = view;
    let subnets = view.subnets.iter().map(|subnet| subnet.prefix).collect();
    let (internal, icc, masquerade) = (*internal, *icc, *masquerade);
    Bridge { interface: interface.clone(), subnets, internal, icc, masquerade }
}

/// Where a published port leads: the sandbox's address of the same family, or else the other.
fn target(one: &Published, endpoint: &EndpointView) -> Option<SocketAddr> {
    let addresses = || endpoint.addresses.iter().map(ipnet::IpNet::addr);
    let same = addresses().find(|address: &IpAddr| address.is_ipv4() == one.host.is_ipv4());
    Some(SocketAddr::new(same.or_else(|| addresses().next())?, one.port.number))
}

fn refusal(endpoint: &EndpointView, conflict: &Conflict) -> Refusal {
    let EndpointView { name, endpoint, .. } = endpoint;
    let text = format!(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {name} \
         ({}): {conflict}",
        endpoint.long()
    );
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn take_all(mut taken: Taken, wishes: &[Wish], bridge: &BridgeView) -> Result<Taking, Conflict> {
    let (ephemeral, ipv6) = (ephemeral(), proxy::has_ipv6());
    let mut taking: Taking = Vec::new();
    for wish in wishes {
        let addresses = addresses_of(wish, bridge.host_binding, ipv6);
        for (published, held) in take(&taken, wish, &addresses, ephemeral.clone())? {
            taken.take(&published);
            taking.push((published, held));
        }
    }
    Ok(taking)
}

/// The first of a wish's ports that no program of the host has.
fn take(
    taken: &Taken,
    wish: &Wish,
    addresses: &[IpAddr],
    ephemeral: RangeInclusive<u16>,
) -> Result<Taking, Conflict> {
    let mut last = Conflict::Exhausted;
    for grant in taken.grants(wish, addresses, ephemeral)? {
        let held = grant.0.iter().map(|one| proxy::hold(one).map(|held| (*one, held)));
        match held.collect() {
            Ok(taking) => return Ok(taking),
            Err(conflict) => last = conflict,
        }
    }
    Err(last)
}

fn ephemeral() -> RangeInclusive<u16> {
    let setting = std::fs::read_to_string(EPHEMERAL_SETTING).unwrap_or_default();
    let mut bounds = setting.split_whitespace().map(str::parse);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => first..=last,
        _ => EPHEMERAL,
    }
}
