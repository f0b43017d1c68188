//! The bridge driver: networks of one host, as bridges in the host's own namespace.
//!
//! ```text
//!   host                                      sandboxes
//!   weft0 (172.17.0.1) ── v1f0c… ──────────── eth0 (172.17.0.2, default route by 172.17.0.1)
//!     └────────────────── v9a37… ──────────── eth0
//! ```
//!
//! Ports are what they are in the overlay's bridge: pinned, locked, without learning, guarded. So a sandbox can use no
//! address but its own, and one network's frames never get into another's.
//!
//! The host's namespace has links of others too. Ours are told by their address, which a hash of this node's id and
//! the link's name gives them when they are made ([`mark`]): nothing else is ever changed or removed, and whatever of
//! ours is not wanted goes. All bridges are planned together, for they share a namespace and a guard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use weft_dataplane::wire::MacAddr;

use super::endpoint::{self, Site};
use super::macvlan::{self, WantedNetwork};
use super::{Guard, Piece, Pieces, Scope, SeenLink, Setting, WantedEndpoint, WishError, port_name};
use crate::model::{EndpointId, NetworkId, NodeId, SandboxId};
use crate::plan::{Place, PortRole, Step};

#[cfg(test)]
mod tests;

/// What this node's own networks want of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// This node.
    pub me: NodeId,
    /// Every bridge network.
    pub bridges: Vec<WantedBridge>,
    /// Every network with a parent.
    pub children: Vec<WantedNetwork>,
    /// Links of endpoints that end in the host, whatever their network.
    pub devices: BTreeSet<String>,
    /// Sandboxes that may have children, wanted or not.
    pub holders: BTreeSet<SandboxId>,
}

/// One bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBridge {
    /// The network.
    pub network: NetworkId,
    /// Name of the bridge.
    pub interface: String,
    /// Largest packet, octets.
    pub mtu: u16,
    /// Addresses of the bridge with the prefix lengths of their subnets: the gateways.
    pub addresses: Vec<IpNet>,
    /// Whether it has an IPv6 subnet.
    pub ipv6: bool,
    /// Whether the host forwards for it.
    pub forwards: bool,
    /// Whether endpoints may talk to each other.
    pub icc: bool,
    /// When the bridge is there.
    pub presence: Presence,
    /// Its endpoints.
    pub endpoints: Vec<WantedEndpoint>,
}

/// When the bridge of a network is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// For as long as the network is.
    Always,
    /// From its first endpoint on.
    Lasting,
    /// While it has endpoints.
    Used,
}

/// What the host shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Links by name.
    pub links: BTreeMap<String, SeenLink>,
    /// What guards the bridges, as far as is known.
    pub guard: Option<Guard>,
    /// Whether the host forwards IPv4 and IPv6.
    pub forwarding: [bool; 2],
    /// Links of sandboxes by name; a sandbox whose namespace is gone is absent.
    pub sandboxes: BTreeMap<SandboxId, BTreeMap<String, SeenLink>>,
}

/// Why a bridge is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BridgeError {
    /// Another link has its name.
    #[error(
        "the host has an interface {0} that is not weft's: remove it, or choose another name with -o \
         com.docker.network.bridge.name (of the network bridge: --bridge)"
    )]
    Foreign(String),
    /// What is wanted is not possible.
    #[error(transparent)]
    Wish(#[from] WishError),
}

/// The address that makes link `name` known as this node's: locally administered, from a hash.
#[must_use]
pub fn mark(me: NodeId, name: &str) -> MacAddr {
    let hash = Sha256::new_with_prefix(b"weft link").chain_update(me.0).chain_update(name).finalize();
    MacAddr::local_from_random([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]])
}

impl WantedBridge {
    fn is_needed(&self) -> bool {
        self.presence == Presence::Always || !self.endpoints.is_empty()
    }

    /// Whether the bridge stays where it is there.
    fn is_kept(&self) -> bool {
        self.presence == Presence::Lasting || self.is_needed()
    }

    fn check(&self, me: NodeId, observed: &Observed) -> Result<(), BridgeError> {
        endpoint::validate(self.mtu, &self.endpoints)?;
        let foreign = |link: &&SeenLink| link.mac != mark(me, &self.interface);
        match observed.links.get(&self.interface).filter(foreign) {
            Some(_) => Err(BridgeError::Foreign(self.interface.clone())),
            None => Ok(()),
        }
    }
}

impl Wanted {
    /// Nothing at all.
    #[must_use]
    pub fn nothing(me: NodeId) -> Self {
        Self {
            me,
            bridges: Vec::new(),
            children: Vec::new(),
            devices: BTreeSet::new(),
            holders: BTreeSet::new(),
        }
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = &WantedEndpoint> {
        let bridges = self.bridges.iter().map(|bridge| &bridge.endpoints);
        bridges.chain(self.children.iter().map(|network| &network.endpoints)).flatten()
    }

    /// The endpoints of every network.
    pub fn endpoints_mut(&mut self) -> impl Iterator<Item = &mut Vec<WantedEndpoint>> {
        let bridges = self.bridges.iter_mut().map(|bridge| &mut bridge.endpoints);
        bridges.chain(self.children.iter_mut().map(|network| &mut network.endpoints))
    }

    /// Bridges that cannot be, and why; [`pieces`] leaves them alone.
    #[must_use]
    pub fn faults(&self, observed: &Observed) -> BTreeMap<NetworkId, BridgeError> {
        let needed = self.bridges.iter().filter(|bridge| bridge.is_needed());
        needed.filter_map(|bridge| Some((bridge.network, bridge.check(self.me, observed).err()?))).collect()
    }
}

/// What to do so that the host shows what is wanted, in the order it is to happen; empty when it does.
///
/// With a `focus`, only what that endpoint needs: the others' sandboxes are not looked at. What is to go goes first.
#[must_use]
pub fn pieces(wanted: &Wanted, observed: &Observed, focus: Option<EndpointId>) -> Vec<Piece> {
    let faults = wanted.faults(observed);
    let sound = || wanted.bridges.iter().filter(|bridge| !faults.contains_key(&bridge.network));
    let mut pieces = Pieces::default();
    pieces.add(Scope::All, |steps| macvlan::plan_strays(wanted, observed, steps));
    pieces.add(Scope::All, |steps| plan_strays(wanted, observed, steps));
    for bridge in sound().filter(|bridge| bridge.is_needed()) {
        pieces.add(Scope::Network(bridge.network), |steps| plan_bridge(wanted.me, bridge, observed, steps));
    }
    pieces.add(Scope::All, |steps| plan_forwarding(sound(), observed, steps));
    pieces.add(Scope::All, |steps| plan_guard(sound(), observed, steps));
    for bridge in sound() {
        let concerned = |endpoint: &&WantedEndpoint| {
            focus.is_none_or(|focus| focus == endpoint.id) && endpoint.is_possible(&observed.sandboxes)
        };
        for endpoint in bridge.endpoints.iter().filter(concerned) {
            let site = site(wanted.me, bridge, endpoint.id, observed);
            pieces.add(Scope::Endpoint(endpoint.id), |steps| site.plan(endpoint, steps));
        }
    }
    macvlan::plan(wanted, observed, focus, &mut pieces);
    pieces.0
}

fn site<'a>(me: NodeId, bridge: &'a WantedBridge, endpoint: EndpointId, observed: &'a Observed) -> Site<'a> {
    Site {
        at: Place::Host,
        bridge: &bridge.interface,
        mtu: bridge.mtu,
        role: if bridge.icc { PortRole::Endpoint } else { PortRole::Isolated },
        near: Some(mark(me, &port_name(endpoint))),
        links: Some(&observed.links),
        host: &observed.links,
        sandboxes: &observed.sandboxes,
    }
}

/// Links of ours that nobody wants any more; ports first, so that nothing is sent into a bridge that is about to go.
fn plan_strays(wanted: &Wanted, observed: &Observed, steps: &mut Vec<Step>) {
    let bridges = wanted.bridges.iter().filter(|bridge| bridge.is_kept());
    let bridges = bridges.map(|bridge| bridge.interface.clone());
    let endpoints = wanted.bridges.iter().flat_map(|bridge| &bridge.endpoints);
    let keep: BTreeSet<String> = bridges.chain(endpoints.map(|endpoint| port_name(endpoint.id))).collect();
    let ours = observed.links.iter().filter(|(name, link)| link.mac == mark(wanted.me, name));
    let mut strays: Vec<_> =
        ours.filter(|(name, _)| !keep.contains(*name) && !wanted.devices.contains(*name)).collect();
    strays.sort_by_key(|(_, link)| link.port.is_none());
    steps
        .extend(strays.into_iter().map(|(name, _)| Step::DeleteLink { at: Place::Host, name: name.clone() }));
}

/// A bridge with its addresses.
fn plan_bridge(me: NodeId, bridge: &WantedBridge, observed: &Observed, steps: &mut Vec<Step>) {
    let (at, name) = (Place::Host, bridge.interface.clone());
    let seen = observed.links.get(&name);
    if seen.is_none() {
        steps.push(Step::AddBridge { at, name: name.clone(), mac: Some(mark(me, &name)) });
    }
    let without = i32::from(!bridge.ipv6);
    for (setting, number, value) in [
        (Setting::DisableIpv6, without, if bridge.ipv6 { "0" } else { "1" }),
        // Sandboxes are no routers of the host.
        (Setting::AcceptRa, 0, "0"),
    ] {
        if seen.is_none_or(|seen| seen.settings.get(&setting).is_some_and(|seen| *seen != number)) {
            steps.push(Step::SetSysctl { at, key: setting.key(&name), value });
        }
    }
    if seen.is_none_or(|seen| seen.mtu != u32::from(bridge.mtu)) {
        steps.push(Step::SetMtu { at, name: name.clone(), mtu: bridge.mtu });
    }
    let there = seen.map(|seen| seen.addresses.as_slice()).unwrap_or_default();
    let unwanted = |address: &&IpNet| !bridge.addresses.contains(address) && !is_link_local(address.addr());
    for address in there.iter().filter(unwanted) {
        steps.push(Step::DeleteAddress { at, name: name.clone(), address: *address });
    }
    for address in bridge.addresses.iter().filter(|address| !there.contains(address)) {
        steps.push(Step::AddAddress { at, name: name.clone(), address: *address });
    }
    if !seen.is_some_and(|seen| seen.up) {
        steps.push(Step::SetUp { at, name });
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The host routes between a network and the outside.
fn plan_forwarding<'b>(
    bridges: impl Iterator<Item = &'b WantedBridge>,
    observed: &Observed,
    steps: &mut Vec<Step>,
) {
    let forwarding: Vec<_> = bridges.filter(|bridge| bridge.forwards && bridge.is_needed()).collect();
    let [v4, v6] = observed.forwarding;
    if !v4 && !forwarding.is_empty() {
        steps.push(Step::SetSysctl { at: Place::Host, key: "net/ipv4/ip_forward".into(), value: "1" });
    }
    if !v6 && forwarding.iter().any(|bridge| bridge.ipv6) {
        // A host that forwards takes no router advertisements, unless it is told to (ip-sysctl.rst, accept_ra): it
        // must not lose its own way out.
        let believes = |link: &SeenLink| link.settings.get(&Setting::AcceptRa) == Some(&1);
        for (name, _) in observed.links.iter().filter(|(_, link)| believes(link)) {
            steps.push(Step::SetSysctl { at: Place::Host, key: Setting::AcceptRa.key(name), value: "2" });
        }
        let key = "net/ipv6/conf/all/forwarding".into();
        steps.push(Step::SetSysctl { at: Place::Host, key, value: "1" });
    }
}

/// What endpoints may say; before they can say anything.
fn plan_guard<'b>(
    bridges: impl Iterator<Item = &'b WantedBridge>,
    observed: &Observed,
    steps: &mut Vec<Step>,
) {
    let guard = Guard::of(bridges.flat_map(|bridge| &bridge.endpoints));
    // One of nobody is loaded once too, in the place of what an agent before this one may have left.
    if observed.guard.as_ref() != Some(&guard) {
        steps.push(Step::Guard { at: Place::Host, guard });
    }
}
