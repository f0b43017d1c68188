//! The overlay driver: a network's shape in this node's kernel.
//!
//! ```text
//!   hidden namespace                          sandboxes
//!   weft0 (TAP, to the dataplane)
//!     │
//!    br0 ── v1f0c… ──────────────────────────── eth0
//!     └──── v9a37… ──────────────────────────── eth0
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

use std::collections::BTreeSet;

use ipnet::IpNet;
use weft_dataplane::wire::{MacAddr, Vni};

use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::plan::{Place, Plan, Step};

mod guard;
mod observed;

pub use guard::{COUNTERS, Guard, TABLE};
pub use observed::{Hidden, Observed, SeenLink, SeenPort, Setting};

/// Name of the bridge in a hidden namespace.
pub const BRIDGE: &str = "br0";
/// Name of the TAP in a hidden namespace.
pub const UPLINK: &str = "weft0";
/// Smallest MTU an IPv4 link may have (RFC 791 §3.2).
const MIN_MTU: u16 = 68;
/// Smallest MTU an IPv6 link may have (RFC 8200 §5).
const MIN_MTU6: u16 = 1280;

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

/// One endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEndpoint {
    /// The endpoint.
    pub id: EndpointId,
    /// The sandbox it is in.
    pub sandbox: SandboxId,
    /// Name of its interface in the sandbox.
    pub interface: String,
    /// Its address.
    pub mac: MacAddr,
    /// Its addresses with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
}

/// Why no plan can be made; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// Packets of this size cannot be carried.
    #[error("invalid MTU value: {0}")]
    Mtu(u16),
    /// Not a name the kernel takes.
    #[error("invalid interface name {0:?}")]
    InterfaceName(String),
    /// Group or zero address.
    #[error("invalid MAC address {0}")]
    Mac(MacAddr),
    /// Two endpoints of the network have one address.
    #[error("MAC address {0} is used twice in the network")]
    MacTwice(MacAddr),
}

/// A [`Wanted`] that was found possible; the only thing plans are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated(Wanted);

impl Wanted {
    /// Checks everything that can be known without asking the kernel.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn validate(self) -> Result<Validated, OverlayError> {
        let six = self.endpoints.iter().flat_map(|e| &e.addresses).any(|a| a.addr().is_ipv6());
        if self.mtu < if six { MIN_MTU6 } else { MIN_MTU } {
            return Err(OverlayError::Mtu(self.mtu));
        }
        let mut macs = BTreeSet::new();
        for endpoint in &self.endpoints {
            if !is_interface_name(&endpoint.interface) {
                return Err(OverlayError::InterfaceName(endpoint.interface.clone()));
            }
            if !endpoint.mac.is_assignable() {
                return Err(OverlayError::Mac(endpoint.mac));
            }
            if !macs.insert(endpoint.mac) {
                return Err(OverlayError::MacTwice(endpoint.mac));
            }
        }
        Ok(Validated(self))
    }
}

/// Whether the kernel takes `name` for a link (`net/core/dev.c`, `dev_valid_name`), and every path does too.
fn is_interface_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    plain && (1..=15).contains(&name.len())
}

/// Name of the near end of an endpoint's veth pair: `v` and 12 digits of its id.
#[must_use]
pub fn port_name(endpoint: EndpointId) -> String {
    format!("v{}", endpoint.short())
}

/// The first free name of `eth0`, `eth1`, …
#[must_use]
pub fn free_interface<'a>(taken: impl IntoIterator<Item = &'a str>) -> String {
    let taken: BTreeSet<_> = taken.into_iter().collect();
    let free = (0..=taken.len()).map(|n| format!("eth{n}")).find(|name| !taken.contains(name.as_str()));
    free.expect("there are more names than are taken")
}

/// Steps that happen whole or not at all, whatever becomes of the other pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The endpoint it is for; none where the whole network needs it.
    pub endpoint: Option<EndpointId>,
    /// What to do.
    pub plan: Plan,
}

/// What to do so that the kernel shows what is wanted, in the order it is to happen; empty when it does.
///
/// Every endpoint is a piece of its own, so that a sandbox which makes its own impossible (no IPv6, another link
/// of that name) takes nobody else's with it; what is to go goes first, whatever fails after.
#[must_use]
pub fn pieces(wanted: &Validated, observed: &Observed) -> Vec<Piece> {
    let wanted = &wanted.0;
    let here = |e: &&WantedEndpoint| observed.sandboxes.contains_key(&e.sandbox);
    let endpoints: Vec<_> = wanted.endpoints.iter().filter(here).collect();
    let mut pieces = Vec::new();
    let mut piece = |endpoint, plan_piece: &dyn Fn(&mut Vec<Step>)| {
        let mut steps = Vec::new();
        plan_piece(&mut steps);
        if !steps.is_empty() {
            pieces.push(Piece { endpoint, plan: Plan(steps) });
        }
    };
    if endpoints.is_empty() {
        piece(None, &|steps| plan_removal(wanted.network, observed, steps));
        return pieces;
    }
    let keep: BTreeSet<_> = endpoints.iter().map(|e| port_name(e.id)).collect();
    piece(None, &|steps| plan_stray_ports(wanted.network, observed, &keep, steps));
    piece(None, &|steps| plan_hidden(wanted, observed, steps));
    piece(None, &|steps| plan_guard(wanted.network, &endpoints, observed, steps));
    for endpoint in &endpoints {
        piece(Some(endpoint.id), &|steps| plan_endpoint(wanted, endpoint, observed, steps));
    }
    pieces
}

/// All pieces as one plan.
#[cfg(test)]
pub(crate) fn plan(wanted: &Validated, observed: &Observed) -> Plan {
    Plan(pieces(wanted, observed).into_iter().flat_map(|piece| piece.plan.0).collect())
}

/// Bridge and uplink.
fn plan_hidden(wanted: &Wanted, observed: &Observed, steps: &mut Vec<Step>) {
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
        steps.push(Step::AddBridge { at, name: BRIDGE.into() });
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
    plan_port(at, UPLINK, uplink, wanted.mtu, true, steps);
}

/// What the endpoints may say; before they can say anything.
fn plan_guard(network: NetworkId, endpoints: &[&WantedEndpoint], observed: &Observed, steps: &mut Vec<Step>) {
    let guard = Guard::of(endpoints.iter().copied());
    if observed.hidden.as_ref().and_then(|hidden| hidden.guard.as_ref()) != Some(&guard) {
        steps.push(Step::Guard { at: Place::Hidden(network), guard });
    }
}

/// One endpoint: its pair, its addresses, its place on the bridge.
fn plan_endpoint(wanted: &Wanted, endpoint: &WantedEndpoint, observed: &Observed, steps: &mut Vec<Step>) {
    let (at, inside) = (Place::Hidden(wanted.network), Place::Sandbox(endpoint.sandbox));
    let (port, name) = (port_name(endpoint.id), endpoint.interface.clone());
    let near = observed.hidden.as_ref().and_then(|hidden| hidden.links.get(&port));
    let far = observed.sandboxes.get(&endpoint.sandbox).and_then(|links| links.get(&name));
    let far = far.filter(|far| far.mac == endpoint.mac);
    let (near, far) = match (near, far) {
        (Some(near), Some(far)) => (Some(near), Some(far)),
        (half, _) => {
            if half.is_some() {
                // The sandbox renamed, moved or re-addressed its end: make the pair anew.
                steps.push(Step::DeleteLink { at, name: port.clone() });
            }
            let (name, peer, mac) = (port.clone(), name.clone(), endpoint.mac);
            steps.push(Step::AddVeth { at, name, peer_at: inside, peer, mac, mtu: wanted.mtu });
            (None, None)
        }
    };
    plan_settings(inside, endpoint, far, steps);
    plan_port(at, &port, near, wanted.mtu, false, steps);
    let on_bridge = near.and_then(|near| near.port.as_ref()).filter(|port| port.bridge == BRIDGE);
    if !on_bridge.is_some_and(|on_bridge| on_bridge.pinned.contains(&endpoint.mac)) {
        steps.push(Step::PinMac { at, port, mac: endpoint.mac });
    }
    if far.is_some_and(|far| far.mtu != u32::from(wanted.mtu)) {
        // Before the addresses: the kernel refuses IPv6 on links with an MTU below 1280.
        steps.push(Step::SetMtu { at: inside, name: name.clone(), mtu: wanted.mtu });
    }
    for address in &endpoint.addresses {
        if !far.is_some_and(|far| far.addresses.contains(address)) {
            steps.push(Step::AddAddress { at: inside, name: name.clone(), address: *address });
        }
    }
    if !far.is_some_and(|far| far.up) {
        steps.push(Step::SetUp { at: inside, name: name.clone() });
    }
    if far.is_none() {
        steps.push(Step::Tell { at: inside, name, mac: endpoint.mac });
    }
}

/// What the far end does by itself. Somebody inside, or the end of an agent halfway, may have left it otherwise.
fn plan_settings(at: Place, endpoint: &WantedEndpoint, far: Option<&SeenLink>, steps: &mut Vec<Step>) {
    let six = endpoint.addresses.iter().any(|a| a.addr().is_ipv6());
    let settings = [
        // Another sandbox must not be able to announce itself as a router (CVE-2020-13401), nor reach one by
        // IPv6 in a network that has none (CVE-2024-32473).
        (Setting::AcceptRa, 0, "0"),
        if six { (Setting::DisableIpv6, 0, "0") } else { (Setting::DisableIpv6, 1, "1") },
        // An address that comes back with another MAC would be dead to those who remember the first one.
        (Setting::NdiscNotify, 1, "1"),
        (Setting::ArpNotify, 1, "1"),
    ];
    for (setting, number, value) in settings {
        if far.is_none_or(|far| far.settings.get(&setting).is_some_and(|seen| *seen != number)) {
            steps.push(Step::SetSysctl { at, key: setting.key(&endpoint.interface), value });
        }
    }
}

/// A port of the bridge: size, bridge, up. `seen` is absent when the link was only just made.
fn plan_port(at: Place, name: &str, seen: Option<&SeenLink>, mtu: u16, flood: bool, steps: &mut Vec<Step>) {
    let made_with_mtu = seen.is_none() && name != UPLINK;
    if !made_with_mtu && seen.is_none_or(|seen| seen.mtu != u32::from(mtu)) {
        steps.push(Step::SetMtu { at, name: name.into(), mtu });
    }
    let right = |port: &SeenPort| {
        let locked = port.locked.is_none_or(|locked| locked != flood);
        port.bridge == BRIDGE && !port.learning && port.flood == flood && locked
    };
    if !seen.and_then(|seen| seen.port.as_ref()).is_some_and(right) {
        steps.push(Step::Enslave { at, name: name.into(), bridge: BRIDGE.into(), flood });
    }
    if !seen.is_some_and(|seen| seen.up) {
        steps.push(Step::SetUp { at, name: name.into() });
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
