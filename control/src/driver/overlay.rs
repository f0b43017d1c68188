//! The overlay driver: a network's shape in this node's kernel.
//!
//! ```text
//!   hidden namespace                          sandboxes
//!   weft0 (TAP, to the dataplane)
//!     │
//!    br0 ── v1f0c… ──────────────────────────── eth0
//!     ├──── v9a37… ──────────────────────────── eth0
//!     └──── v27b0… (TAP, its descriptor with a virtual machine)
//! ```
//!
//! No port of the bridge learns: local addresses are pinned to their ports and everything unknown goes to the uplink
//! alone, so a sandbox cannot draw another's frames to itself by sending from its MAC, and nothing has to age when an
//! endpoint moves. Sandboxes' ports are locked to their pinned addresses, and a [`Guard`] checks what they say of
//! their other addresses: frames between sandboxes of one node stay in the kernel's bridge.
//! The namespace exists only while the node has endpoints in the network.
//!
//! [`pieces`] compares what is wanted with what the kernel shows, so attaching, detaching, restarting and repairing are
//! one and the same function.

use std::collections::{BTreeMap, BTreeSet};

use weft_dataplane::wire::{MacAddr, Vni};

use super::endpoint::{self, Site};
use super::{Guard, Piece, Pieces, Scope, SeenLink, Setting, WantedEndpoint, WishError, port_name};
use crate::model::{NetworkId, SandboxId};
use crate::plan::{Place, PortRole, Step};

/// Name of the bridge in a hidden namespace.
pub const BRIDGE: &str = "br0";
/// Name of the TAP in a hidden namespace.
pub const UPLINK: &str = "weft0";

/// The address of the bridge, the same on every node: whoever answers DHCP has it.
#[must_use]
pub fn bridge_mac(network: NetworkId) -> MacAddr {
    let [a, b, c, d, e, f, ..] = network.0;
    MacAddr::local_from_random([a, b, c, d, e, f])
}

/// What a network wants of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The network.
    pub network: NetworkId,
    /// VNI this node receives it on.
    pub vni: Vni,
    /// Largest inner IP packet, octets.
    pub mtu: u16,
    /// Whether its packets are sealed.
    pub sealed: bool,
    /// This node's endpoints.
    pub endpoints: Vec<WantedEndpoint>,
}

/// What the kernel shows of a network's hidden namespace and of the sandboxes it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The hidden namespace, if it is there.
    pub hidden: Option<Hidden>,
    /// Links of the host by name, where an endpoint ends in one.
    pub host: BTreeMap<String, SeenLink>,
    /// Links of sandboxes by name; a sandbox whose namespace is gone is absent.
    pub sandboxes: BTreeMap<SandboxId, BTreeMap<String, SeenLink>>,
}

/// A hidden namespace as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Links by name.
    pub links: BTreeMap<String, SeenLink>,
    /// VNI whose traffic the dataplane carries through the uplink, if it does.
    pub uplink: Option<Vni>,
    /// What guards it, as far as is known.
    pub guard: Option<Guard>,
}

/// A [`Wanted`] that was found possible; the only thing plans are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated(Wanted);

impl Wanted {
    /// Checks everything that can be known without asking the kernel.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn validate(self) -> Result<Validated, WishError> {
        endpoint::validate(self.mtu, &self.endpoints)?;
        Ok(Validated(self))
    }
}

/// What to do so that the kernel shows what is wanted, in the order it is to happen; empty when it does.
///
/// Every endpoint is a piece of its own, so that a sandbox which makes its own impossible (no IPv6, another link
/// of that name) takes nobody else's with it; what is to go goes first, whatever fails after.
#[must_use]
pub fn pieces(wanted: &Validated, observed: &Observed) -> Vec<Piece> {
    let wanted = &wanted.0;
    let here = |e: &&WantedEndpoint| e.is_possible(&observed.sandboxes);
    let endpoints: Vec<_> = wanted.endpoints.iter().filter(here).collect();
    let mut pieces = Pieces::default();
    if endpoints.is_empty() {
        pieces.add(Scope::All, |steps| plan_removal(wanted.network, observed, steps));
        return pieces.0;
    }
    let keep: BTreeSet<_> = endpoints.iter().map(|e| port_name(e.id)).collect();
    let site = site(wanted, observed);
    pieces.add(Scope::All, |steps| plan_stray_ports(wanted.network, observed, &keep, steps));
    pieces.add(Scope::All, |steps| plan_hidden(wanted, &site, observed, steps));
    pieces.add(Scope::All, |steps| plan_guard(wanted.network, &endpoints, observed, steps));
    for endpoint in &endpoints {
        pieces.add(Scope::Endpoint(endpoint.id), |steps| site.plan(endpoint, steps));
    }
    pieces.0
}

fn site<'a>(wanted: &Wanted, observed: &'a Observed) -> Site<'a> {
    Site {
        at: Place::Hidden(wanted.network),
        bridge: BRIDGE,
        mtu: wanted.mtu,
        role: PortRole::Endpoint,
        near: None,
        links: observed.hidden.as_ref().map(|hidden| &hidden.links),
        host: &observed.host,
        sandboxes: &observed.sandboxes,
    }
}

/// All pieces as one plan.
#[cfg(test)]
pub(crate) fn plan(wanted: &Validated, observed: &Observed) -> crate::plan::Plan {
    crate::plan::Plan(pieces(wanted, observed).into_iter().flat_map(|piece| piece.plan.0).collect())
}

/// Bridge and uplink.
fn plan_hidden(wanted: &Wanted, site: &Site<'_>, observed: &Observed, steps: &mut Vec<Step>) {
    let at = Place::Hidden(wanted.network);
    let nothing = Hidden::default();
    if observed.hidden.is_none() {
        steps.push(Step::MakeNamespace { at });
    }
    let hidden = observed.hidden.as_ref().unwrap_or(&nothing);
    let speaks = |link: &SeenLink| link.settings.get(&Setting::DisableIpv6) == Some(&0);
    if observed.hidden.is_none() || hidden.links.values().any(speaks) {
        // No link in here has an address; without these the kernel would speak of itself on every port.
        for links in ["all", "default"] {
            steps.push(Step::SetSysctl { at, key: Setting::DisableIpv6.key(links), value: "1" });
        }
    }
    let bridge = hidden.links.get(BRIDGE);
    if bridge.is_none() {
        let mac = Some(bridge_mac(wanted.network));
        steps.push(Step::AddBridge { at, name: BRIDGE.into(), mac });
    }
    if !bridge.is_some_and(|bridge| bridge.up) {
        steps.push(Step::SetUp { at, name: BRIDGE.into() });
    }
    let uplink = hidden.links.get(UPLINK).filter(|_| hidden.uplink == Some(wanted.vni));
    if uplink.is_none() {
        if hidden.uplink.is_some() {
            steps.push(Step::CloseUplink { at });
        }
        steps.push(Step::OpenUplink { at, name: UPLINK.into(), vni: wanted.vni, sealed: wanted.sealed });
    }
    site.plan_port(UPLINK, uplink, false, PortRole::Uplink, steps);
}

/// What the endpoints may say; before they can say anything.
fn plan_guard(network: NetworkId, endpoints: &[&WantedEndpoint], observed: &Observed, steps: &mut Vec<Step>) {
    let guard = Guard::of(endpoints.iter().copied());
    if observed.hidden.as_ref().and_then(|hidden| hidden.guard.as_ref()) != Some(&guard) {
        steps.push(Step::Guard { at: Place::Hidden(network), guard });
    }
}

/// Ports of endpoints that are no more.
fn plan_stray_ports(network: NetworkId, observed: &Observed, keep: &BTreeSet<String>, steps: &mut Vec<Step>) {
    let at = Place::Hidden(network);
    let links = observed.hidden.iter().flat_map(|hidden| hidden.links.keys());
    let strays = links.filter(|name| name.starts_with('v') && !keep.contains(*name));
    steps.extend(strays.map(|name| Step::DeleteLink { at, name: name.clone() }));
}

/// Everything of the network, ends in sandboxes first: they go at once, a namespace only when the kernel gets to it.
fn plan_removal(network: NetworkId, observed: &Observed, steps: &mut Vec<Step>) {
    let at = Place::Hidden(network);
    let Some(hidden) = &observed.hidden else { return };
    plan_stray_ports(network, observed, &BTreeSet::new(), steps);
    if hidden.uplink.is_some() {
        steps.push(Step::CloseUplink { at });
    }
    steps.push(Step::RemoveNamespace { at });
}

#[cfg(test)]
mod tests;
