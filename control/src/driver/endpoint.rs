//! One endpoint in the kernel: its veth pair with its addresses, or its TAP, and its place on a bridge. Every driver with
//! a bridge has it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_dataplane::wire::MacAddr;

use super::bridge::mark;
use super::{MIN_MTU, MIN_MTU6, SeenLink, SeenPort, Setting, is_interface_name};
use crate::model::{EndpointId, NodeId, SandboxId};
use crate::plan::{Place, PortRole, Step};

/// One endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEndpoint {
    /// The endpoint.
    pub id: EndpointId,
    /// The sandbox it is in.
    pub sandbox: SandboxId,
    /// What is at its end.
    pub end: End,
    /// Name of its interface in the sandbox.
    pub interface: String,
    /// Its address.
    pub mac: MacAddr,
    /// Its addresses with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
}

/// What is at the end of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// An interface in a network namespace.
    #[default]
    Namespace,
    /// Whoever holds the descriptor of a TAP: a virtual machine.
    Descriptor,
    /// A TAP in the host's namespace, for a virtual machine whose monitor opens it by its name.
    Device {
        /// The node, whose mark its links have.
        node: NodeId,
        /// The user whose processes may open it.
        owner: u32,
    },
    /// An interface in the host's namespace that somebody (Docker) moves to where nobody looks: it is made once, and then
    /// known by its near end.
    Handed {
        /// Whether it is to be made.
        fresh: bool,
    },
}

impl End {
    /// Whether the links of the host tell of it.
    #[must_use]
    pub fn is_in_host(self) -> bool {
        matches!(self, Self::Device { .. } | Self::Handed { fresh: true })
    }
}

impl WantedEndpoint {
    /// Whether it can be had as things are: what its end is in must be there.
    pub(super) fn is_possible(&self, sandboxes: &BTreeMap<SandboxId, BTreeMap<String, SeenLink>>) -> bool {
        self.end != End::Namespace || sandboxes.contains_key(&self.sandbox)
    }
}

/// Why no plan can be made; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
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

/// Checks of the endpoints of one network everything that can be known without asking the kernel.
pub(super) fn validate(mtu: u16, endpoints: &[WantedEndpoint]) -> Result<(), WishError> {
    let six = endpoints.iter().flat_map(|e| &e.addresses).any(|a| a.addr().is_ipv6());
    if mtu < if six { MIN_MTU6 } else { MIN_MTU } {
        return Err(WishError::Mtu(mtu));
    }
    let mut macs = BTreeSet::new();
    for endpoint in endpoints {
        if !is_interface_name(&endpoint.interface) {
            return Err(WishError::InterfaceName(endpoint.interface.clone()));
        }
        if !endpoint.mac.is_assignable() {
            return Err(WishError::Mac(endpoint.mac));
        }
        if !macs.insert(endpoint.mac) {
            return Err(WishError::MacTwice(endpoint.mac));
        }
    }
    Ok(())
}

/// Name of the near end of an endpoint's veth pair: `v` and 12 digits of its id.
#[must_use]
pub fn port_name(endpoint: EndpointId) -> String {
    format!("v{}", endpoint.short())
}

/// Name of the end of a pair that is in the host's namespace: `w` and 12 digits of the endpoint's id.
#[must_use]
pub fn far_name(endpoint: EndpointId) -> String {
    format!("w{}", endpoint.short())
}

/// The first free name of `{prefix}0`, `{prefix}1`, …
#[must_use]
pub fn free_interface<'a>(prefix: &str, taken: impl IntoIterator<Item = &'a str>) -> String {
    let taken: BTreeSet<_> = taken.into_iter().collect();
    let free = (0..=taken.len()).map(|n| format!("{prefix}{n}")).find(|name| !taken.contains(name.as_str()));
    free.expect("there are more names than are taken")
}

/// Where endpoints' pairs come out.
pub(super) struct Site<'a> {
    /// The namespace of the bridge.
    pub(super) at: Place,
    /// The bridge.
    pub(super) bridge: &'a str,
    /// Largest packet, octets.
    pub(super) mtu: u16,
    /// What endpoints' ports are to the bridge.
    pub(super) role: PortRole,
    /// Address of the near end, where it is to be known again by it.
    pub(super) near: Option<MacAddr>,
    /// Links that are there.
    pub(super) links: Option<&'a BTreeMap<String, SeenLink>>,
    /// Links of the host, where an endpoint ends in one.
    pub(super) host: &'a BTreeMap<String, SeenLink>,
    /// Links of the sandboxes.
    pub(super) sandboxes: &'a BTreeMap<SandboxId, BTreeMap<String, SeenLink>>,
}

impl Site<'_> {
    /// What is to do for an endpoint; nothing when the kernel shows it as it is wanted.
    pub(super) fn plan(&self, endpoint: &WantedEndpoint, steps: &mut Vec<Step>) {
        match endpoint.end {
            End::Namespace => self.plan_pair(endpoint, steps),
            End::Descriptor => self.plan_tap(endpoint, steps),
            End::Device { node, owner } => self.plan_device(endpoint, (node, owner), steps),
            End::Handed { fresh } => self.plan_handed(endpoint, fresh, steps),
        }
    }

    /// A TAP in the host's namespace, and a pair from there to the bridge: what comes in by the one leaves by the other.
    /// A bridge of their own would do as well, but hands frames to the host's packet filter where others want that of
    /// bridges. The far end is set up last, so that one that is up has been joined to the TAP.
    fn plan_device(&self, endpoint: &WantedEndpoint, (node, owner): (NodeId, u32), steps: &mut Vec<Step>) {
        let (at, host, port) = (self.at, Place::Host, port_name(endpoint.id));
        let (name, far_name) = (&endpoint.interface, far_name(endpoint.id));
        let ours = |name: &str| self.host.get(name).filter(|link| link.mac == mark(node, name));
        let tap = ours(name);
        if tap.is_none() && self.host.contains_key(name) {
            // Somebody else's.
            return;
        }
        let near = self.links.and_then(|links| links.get(&port));
        let pair = near.zip(ours(&far_name));
        if pair.is_none() {
            if near.is_some() {
                steps.push(Step::DeleteLink { at, name: port.clone() });
            }
            let (name, peer, mac) = (port.clone(), far_name.clone(), mark(node, &far_name));
            steps.push(Step::AddVeth { at, name, near: self.near, peer_at: host, peer, mac, mtu: self.mtu });
        }
        let near = pair.map(|(near, _)| near);
        self.plan_near(&port, near, near.is_none(), steps);
        self.plan_pin(port, endpoint.mac, near, steps);
        if tap.is_none() {
            steps.push(Step::AddDevice { at: host, name: name.clone(), near: mark(node, name), owner });
        }
        let far = pair.map(|(_, far)| far);
        let joined = tap.is_some() && far.is_some_and(|far| far.up);
        for (link, seen) in [(name, tap), (&far_name, far)] {
            self.plan_in_host(link, seen, steps);
        }
        if !tap.is_some_and(|tap| tap.up) {
            steps.push(Step::SetUp { at: host, name: name.clone() });
        }
        if !joined {
            for (from, to) in [(name, &far_name), (&far_name, name)] {
                steps.push(Step::Redirect { at: host, from: from.clone(), to: to.clone() });
            }
            steps.push(Step::SetUp { at: host, name: far_name });
        }
    }

    /// A link by which the host says nothing itself.
    fn plan_in_host(&self, name: &str, seen: Option<&SeenLink>, steps: &mut Vec<Step>) {
        let at = Place::Host;
        if seen.is_none_or(|seen| seen.settings.get(&Setting::DisableIpv6) == Some(&0)) {
            steps.push(Step::SetSysctl { at, key: Setting::DisableIpv6.key(name), value: "1" });
        }
        if seen.is_none_or(|seen| seen.mtu != u32::from(self.mtu)) {
            steps.push(Step::SetMtu { at, name: name.to_owned(), mtu: self.mtu });
        }
    }

    /// A pair whose far end was moved away is not made anew: whoever moved it would not know. It goes with the near end,
    /// and the near end with the namespace it was moved to.
    fn plan_handed(&self, endpoint: &WantedEndpoint, fresh: bool, steps: &mut Vec<Step>) {
        let (at, port) = (self.at, port_name(endpoint.id));
        let near = self.links.and_then(|links| links.get(&port));
        let far = self.host.get(&endpoint.interface).filter(|far| far.mac == endpoint.mac);
        let near = match (near, far) {
            (Some(near), _) if !fresh => Some(near),
            (Some(near), Some(_)) => Some(near),
            (None, _) if !fresh => return,
            (half, _) => {
                if half.is_some() {
                    steps.push(Step::DeleteLink { at, name: port.clone() });
                }
                let (name, peer, peer_at) = (port.clone(), endpoint.interface.clone(), Place::Host);
                let (near, mac, mtu) = (self.near, endpoint.mac, self.mtu);
                steps.push(Step::AddVeth { at, name, near, peer_at, peer, mac, mtu });
                None
            }
        };
        self.plan_near(&port, near, near.is_none(), steps);
        self.plan_pin(port, endpoint.mac, near, steps);
    }

    /// A TAP that is there is whoever's holds its descriptor, also one that another agent made.
    fn plan_tap(&self, endpoint: &WantedEndpoint, steps: &mut Vec<Step>) {
        let (at, port) = (self.at, port_name(endpoint.id));
        let seen = self.links.and_then(|links| links.get(&port));
        if seen.is_none() {
            steps.push(Step::AddTap { at, name: port.clone(), near: self.near });
        }
        self.plan_near(&port, seen, false, steps);
        self.plan_pin(port, endpoint.mac, seen, steps);
    }

    fn plan_pair(&self, endpoint: &WantedEndpoint, steps: &mut Vec<Step>) {
        let (at, inside, mtu) = (self.at, Place::Sandbox(endpoint.sandbox), self.mtu);
        let (port, name) = (port_name(endpoint.id), endpoint.interface.clone());
        let near = self.links.and_then(|links| links.get(&port));
        let far = self.sandboxes.get(&endpoint.sandbox).and_then(|links| links.get(&name));
        let far = far.filter(|far| far.mac == endpoint.mac);
        let (near, far) = match (near, far) {
            (Some(near), Some(far)) => (Some(near), Some(far)),
            (half, _) => {
                if half.is_some() {
                    // The sandbox renamed, moved or re-addressed its end: make the pair anew.
                    steps.push(Step::DeleteLink { at, name: port.clone() });
                }
                let (name, peer, mac) = (port.clone(), name.clone(), endpoint.mac);
                steps.push(Step::AddVeth { at, name, near: self.near, peer_at: inside, peer, mac, mtu });
                (None, None)
            }
        };
        plan_settings(inside, endpoint, far, steps);
        self.plan_near(&port, near, near.is_none(), steps);
        self.plan_pin(port, endpoint.mac, near, steps);
        plan_far(inside, endpoint, far, Some(mtu), steps);
    }

    fn plan_pin(&self, port: String, mac: MacAddr, seen: Option<&SeenLink>, steps: &mut Vec<Step>) {
        let on_bridge = seen.and_then(|seen| seen.port.as_ref()).filter(|port| port.bridge == self.bridge);
        if !on_bridge.is_some_and(|on_bridge| on_bridge.pinned.contains(&mac)) {
            steps.push(Step::PinMac { at: self.at, port, mac });
        }
    }

    fn plan_near(&self, port: &str, near: Option<&SeenLink>, sized: bool, steps: &mut Vec<Step>) {
        let speaks = near.is_none_or(|near| near.settings.get(&Setting::DisableIpv6) == Some(&0));
        if self.at == Place::Host && speaks {
            // The host speaks by its bridge, not by each port.
            steps.push(Step::SetSysctl { at: self.at, key: Setting::DisableIpv6.key(port), value: "1" });
        }
        self.plan_port(port, near, sized, self.role, steps);
    }

    /// A port of the bridge: size, bridge, up. `sized` tells that it was made with the size it is to have.
    pub(super) fn plan_port(
        &self,
        name: &str,
        seen: Option<&SeenLink>,
        sized: bool,
        role: PortRole,
        steps: &mut Vec<Step>,
    ) {
        let (at, mtu) = (self.at, self.mtu);
        if !sized && seen.is_none_or(|seen| seen.mtu != u32::from(mtu)) {
            steps.push(Step::SetMtu { at, name: name.into(), mtu });
        }
        let right = |port: &SeenPort| port.bridge == self.bridge && port.has(role);
        if !seen.and_then(|seen| seen.port.as_ref()).is_some_and(right) {
            steps.push(Step::Enslave { at, name: name.into(), bridge: self.bridge.into(), role });
        }
        if !seen.is_some_and(|seen| seen.up) {
            steps.push(Step::SetUp { at, name: name.into() });
        }
    }
}

/// An endpoint's interface: size, addresses, up; a new one tells its neighbours.
pub(super) fn plan_far(
    at: Place,
    endpoint: &WantedEndpoint,
    far: Option<&SeenLink>,
    mtu: Option<u16>,
    steps: &mut Vec<Step>,
) {
    let name = || endpoint.interface.clone();
    if let (Some(far), Some(mtu)) = (far, mtu)
        && far.mtu != u32::from(mtu)
    {
        // Before the addresses: the kernel refuses IPv6 on links with an MTU below 1280.
        steps.push(Step::SetMtu { at, name: name(), mtu });
    }
    for address in &endpoint.addresses {
        if !far.is_some_and(|far| far.addresses.contains(address)) {
            steps.push(Step::AddAddress { at, name: name(), address: *address });
        }
    }
    if !far.is_some_and(|far| far.up) {
        steps.push(Step::SetUp { at, name: name() });
    }
    if far.is_none() {
        steps.push(Step::Tell { at, name: name(), mac: endpoint.mac });
    }
}

/// What the far end does by itself. Somebody inside, or the end of an agent halfway, may have left it otherwise.
pub(super) fn plan_settings(
    at: Place,
    endpoint: &WantedEndpoint,
    far: Option<&SeenLink>,
    steps: &mut Vec<Step>,
) {
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
