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
//! endpoint moves. What sandboxes of one node say of their addresses to each other is not checked: their frames
//! stay in the kernel's bridge.
//! The namespace exists only while the node has endpoints in the network.
//!
//! [`pieces`] compares what is wanted with what the kernel shows, so attaching, detaching, restarting and repairing are
//! one and the same function.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_dataplane::wire::{MacAddr, Vni};

use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::plan::{Place, Plan, Step};

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

/// What the kernel shows of a network's hidden namespace and of the sandboxes it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The hidden namespace, if it is there.
    pub hidden: Option<Hidden>,
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
}

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenLink {
    /// Its address.
    pub mac: MacAddr,
    /// Octets.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Name of the bridge it is a port of.
    pub bridge: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
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
        // No link in here has an address; without these the kernel would speak of itself on every port.
        for key in ["net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6"] {
            steps.push(Step::SetSysctl { at, key: key.into(), value: "1" });
        }
    }
    let hidden = observed.hidden.as_ref().unwrap_or(&nothing);
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
        steps.push(Step::OpenUplink { at, name: UPLINK.into(), vni: wanted.vni });
    }
    plan_port(at, UPLINK, uplink, wanted.mtu, true, steps);
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
    if far.is_none() {
        let six = endpoint.addresses.iter().any(|a| a.addr().is_ipv6());
        let sysctl = |key: &str, value| {
            let key = format!("net/ipv6/conf/{name}/{key}");
            Step::SetSysctl { at: inside, key, value }
        };
        // Another sandbox must not be able to announce itself as a router (CVE-2020-13401), nor reach one by
        // IPv6 in a network that has none (CVE-2024-32473).
        steps.push(sysctl("accept_ra", "0"));
        steps.push(sysctl("disable_ipv6", if six { "0" } else { "1" }));
        // An address that comes back with another MAC would be dead to those who remember the first one.
        steps.push(sysctl("ndisc_notify", "1"));
        let key = format!("net/ipv4/conf/{name}/arp_notify");
        steps.push(Step::SetSysctl { at: inside, key, value: "1" });
    }
    plan_port(at, &port, near, wanted.mtu, false, steps);
    if near.is_none_or(|near| near.bridge.as_deref() != Some(BRIDGE)) {
        steps.push(Step::PinMac { at, port, mac: endpoint.mac });
    }
    if far.is_some_and(|far| far.mtu != u32::from(wanted.mtu)) {
        // Before the addresses: the kernel refuses IPv6 on links with an MTU below 1280.
        steps.push(Step::SetMtu { at: inside, name: name.clone(), mtu: wanted.mtu });
    }
    for address in &endpoint.addresses {
        if !far.is_some_and(|far| far.addresses.contains(address)) {
            if far.is_some() && address.addr().is_ipv6() {
                // Somebody inside may have switched IPv6 off, which took the address away.
                let key = format!("net/ipv6/conf/{name}/disable_ipv6");
                steps.push(Step::SetSysctl { at: inside, key, value: "0" });
            }
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

/// A port of the bridge: size, bridge, up. `seen` is absent when the link was only just made.
fn plan_port(at: Place, name: &str, seen: Option<&SeenLink>, mtu: u16, flood: bool, steps: &mut Vec<Step>) {
    let made_with_mtu = seen.is_none() && name != UPLINK;
    if !made_with_mtu && seen.is_none_or(|seen| seen.mtu != u32::from(mtu)) {
        steps.push(Step::SetMtu { at, name: name.into(), mtu });
    }
    if seen.is_none_or(|seen| seen.bridge.as_deref() != Some(BRIDGE)) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Perform, run};

    const NET: NetworkId = NetworkId([0xaa; 16]);

    fn endpoint(n: u8, addresses: &[&str]) -> WantedEndpoint {
        WantedEndpoint {
            id: EndpointId([n; 16]),
            sandbox: SandboxId([n; 16]),
            interface: "eth0".into(),
            mac: MacAddr([2, 0, 0, 0, 0, n]),
            addresses: addresses.iter().map(|a| a.parse().expect("a prefix")).collect(),
        }
    }

    fn wanted(endpoints: &[WantedEndpoint]) -> Validated {
        let vni = Vni::try_from(42).expect("it fits");
        let wanted = Wanted { network: NET, vni, mtu: 1450, endpoints: endpoints.to_vec() };
        wanted.validate().expect("it is possible")
    }

    /// A kernel that has the sandboxes `1..=sandboxes` and does as it is told.
    fn kernel(sandboxes: u8) -> Observed {
        let empty = |n| (SandboxId([n; 16]), BTreeMap::new());
        Observed { hidden: None, sandboxes: (1..=sandboxes).map(empty).collect() }
    }

    impl Observed {
        fn links(&mut self, at: Place) -> &mut BTreeMap<String, SeenLink> {
            match at {
                Place::Hidden(_) => &mut self.hidden.as_mut().expect("the namespace is there").links,
                Place::Sandbox(id) => self.sandboxes.get_mut(&id).expect("the sandbox is there"),
            }
        }

        fn link(&mut self, at: Place, name: &str) -> Result<&mut SeenLink, String> {
            self.links(at).get_mut(name).ok_or_else(|| format!("no {name} in {at}"))
        }

        fn add(&mut self, at: Place, name: &str, link: SeenLink) -> Result<(), String> {
            let before = self.links(at).insert(name.into(), link);
            before.map_or(Ok(()), |_| Err(format!("{name} exists in {at}")))
        }
    }

    impl Perform for Observed {
        type Error = String;

        fn perform(&mut self, step: &Step) -> Result<(), String> {
            match step.clone() {
                Step::MakeNamespace { .. } if self.hidden.is_some() => return Err("namespace exists".into()),
                Step::MakeNamespace { .. } => self.hidden = Some(Hidden::default()),
                Step::RemoveNamespace { .. } => self.hidden = None,
                Step::SetSysctl { .. } | Step::PinMac { .. } | Step::Tell { .. } => {}
                Step::AddBridge { at, name } => self.add(at, &name, SeenLink::default())?,
                Step::OpenUplink { at, name, vni } => {
                    self.add(at, &name, SeenLink { mtu: 1500, ..SeenLink::default() })?;
                    self.hidden.as_mut().expect("the namespace is there").uplink = Some(vni);
                }
                Step::CloseUplink { at } => {
                    self.links(at).remove(UPLINK);
                    self.hidden.as_mut().expect("the namespace is there").uplink = None;
                }
                Step::AddVeth { at, name, peer_at, peer, mac, mtu } => {
                    let mtu = u32::from(mtu);
                    self.add(peer_at, &peer, SeenLink { mac, mtu, ..SeenLink::default() })?;
                    self.add(at, &name, SeenLink { mtu, ..SeenLink::default() })?;
                }
                Step::DeleteLink { at, name } => {
                    self.links(at).remove(&name);
                    // The far end carries the number of the endpoint in its address.
                    let digits = name.get(1..3).and_then(|n| u8::from_str_radix(n, 16).ok());
                    for links in self.sandboxes.values_mut() {
                        links.retain(|_, link| Some(link.mac.0[5]) != digits);
                    }
                }
                Step::Enslave { at, name, bridge, .. } => self.link(at, &name)?.bridge = Some(bridge),
                Step::SetMtu { at, name, mtu } => self.link(at, &name)?.mtu = mtu.into(),
                Step::AddAddress { at, name, address } => self.link(at, &name)?.addresses.push(address),
                Step::DeleteAddress { at, name, address } => {
                    self.link(at, &name)?.addresses.retain(|a| *a != address);
                }
                Step::SetUp { at, name } => self.link(at, &name)?.up = true,
            }
            Ok(())
        }
    }

    fn settle(wanted: &Validated, kernel: &mut Observed) -> String {
        let first = plan(wanted, kernel);
        run(&first, kernel).expect("the plan fits the kernel");
        assert_eq!(plan(wanted, kernel).to_string(), "", "nothing is left to do");
        first.to_string()
    }

    #[test]
    fn the_first_endpoint_brings_namespace_bridge_and_uplink() {
        let made = settle(&wanted(&[endpoint(1, &["10.0.0.2/24"])]), &mut kernel(1));
        assert_eq!(
            made,
            "make the namespace of network aaaaaaaaaaaa\n\
             set net/ipv6/conf/all/disable_ipv6 to 1 in network aaaaaaaaaaaa\n\
             set net/ipv6/conf/default/disable_ipv6 to 1 in network aaaaaaaaaaaa\n\
             make bridge br0 in network aaaaaaaaaaaa\n\
             set br0 up in network aaaaaaaaaaaa\n\
             open uplink weft0 of VNI 42 in network aaaaaaaaaaaa\n\
             set MTU 1450 on weft0 in network aaaaaaaaaaaa\n\
             add weft0 to bridge br0 in network aaaaaaaaaaaa, gets unknown unicast\n\
             set weft0 up in network aaaaaaaaaaaa\n\
             join v010101010101 in network aaaaaaaaaaaa to eth0 in sandbox 010101010101, 02:00:00:00:00:01, MTU 1450\n\
             set net/ipv6/conf/eth0/accept_ra to 0 in sandbox 010101010101\n\
             set net/ipv6/conf/eth0/disable_ipv6 to 1 in sandbox 010101010101\n\
             set net/ipv6/conf/eth0/ndisc_notify to 1 in sandbox 010101010101\n\
             set net/ipv4/conf/eth0/arp_notify to 1 in sandbox 010101010101\n\
             add v010101010101 to bridge br0 in network aaaaaaaaaaaa\n\
             set v010101010101 up in network aaaaaaaaaaaa\n\
             pin 02:00:00:00:00:01 to v010101010101 in network aaaaaaaaaaaa\n\
             add 10.0.0.2/24 to eth0 in sandbox 010101010101\n\
             set eth0 up in sandbox 010101010101\n\
             tell of 02:00:00:00:00:01 on eth0 in sandbox 010101010101\n"
        );
    }

    #[test]
    fn a_further_endpoint_touches_nothing_of_the_first() {
        let mut kernel = kernel(2);
        let first = endpoint(1, &["10.0.0.2/24"]);
        settle(&wanted(std::slice::from_ref(&first)), &mut kernel);
        let made = settle(&wanted(&[first, endpoint(2, &["10.0.0.3/24", "fd00::3/64"])]), &mut kernel);
        assert!(!made.contains("0101"), "{made}");
        assert!(made.contains("set net/ipv6/conf/eth0/disable_ipv6 to 0 in sandbox 020202020202"));
        assert!(made.contains("add fd00::3/64 to eth0"));
    }

    #[test]
    fn a_restarted_agent_makes_only_the_uplink_anew() {
        let mut kernel = kernel(1);
        let wanted = wanted(&[endpoint(1, &["10.0.0.2/24"])]);
        settle(&wanted, &mut kernel);
        let hidden = kernel.hidden.as_mut().expect("it is there");
        hidden.links.remove(UPLINK);
        hidden.uplink = None;
        assert_eq!(
            settle(&wanted, &mut kernel),
            "open uplink weft0 of VNI 42 in network aaaaaaaaaaaa\n\
             set MTU 1450 on weft0 in network aaaaaaaaaaaa\n\
             add weft0 to bridge br0 in network aaaaaaaaaaaa, gets unknown unicast\n\
             set weft0 up in network aaaaaaaaaaaa\n"
        );
    }

    #[test]
    fn the_last_endpoint_takes_everything_with_it() {
        let mut kernel = kernel(1);
        settle(&wanted(&[endpoint(1, &["10.0.0.2/24"])]), &mut kernel);
        assert_eq!(
            settle(&wanted(&[]), &mut kernel),
            "delete v010101010101 in network aaaaaaaaaaaa\n\
             close the uplink of network aaaaaaaaaaaa\n\
             remove the namespace of network aaaaaaaaaaaa\n"
        );
        assert!(kernel.sandboxes[&SandboxId([1; 16])].is_empty(), "the sandbox has no interface left");
    }

    #[test]
    fn an_endpoint_whose_sandbox_is_gone_is_cleared_away() {
        let mut kernel = kernel(2);
        let both = wanted(&[endpoint(1, &["10.0.0.2/24"]), endpoint(2, &["10.0.0.3/24"])]);
        settle(&both, &mut kernel);
        kernel.sandboxes.remove(&SandboxId([2; 16]));
        assert_eq!(settle(&both, &mut kernel), "delete v020202020202 in network aaaaaaaaaaaa\n");
    }

    #[test]
    fn a_changed_vni_opens_the_uplink_anew() {
        let mut kernel = kernel(1);
        let before = wanted(&[endpoint(1, &["10.0.0.2/24"])]);
        settle(&before, &mut kernel);
        let mut after = before.0;
        after.vni = Vni::try_from(43).expect("it fits");
        let made = settle(&after.validate().expect("it is possible"), &mut kernel);
        assert!(
            made.starts_with("close the uplink of network aaaaaaaaaaaa\nopen uplink weft0 of VNI 43"),
            "{made}"
        );
    }

    #[test]
    fn a_plan_that_fails_anywhere_leaves_the_kernel_as_before() {
        struct Failing(Observed, usize);
        impl Perform for Failing {
            type Error = String;
            fn perform(&mut self, step: &Step) -> Result<(), String> {
                self.1 = self.1.wrapping_sub(1);
                if self.1 == 0 { Err("told to".into()) } else { self.0.perform(step) }
            }
        }
        let wanted = wanted(&[endpoint(1, &["10.0.0.2/24", "fd00::2/64"])]);
        let steps = plan(&wanted, &kernel(1));
        for fail_at in 1..=steps.0.len() {
            let mut failing = Failing(kernel(1), fail_at);
            run(&steps, &mut failing).expect_err("it was told to fail");
            assert_eq!(failing.0, kernel(1), "failed at step {fail_at}");
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_leaves_the_others_alone_and_what_is_gone_goes() {
        let (all, rest) = (wanted(&[1, 2, 3].map(|n| endpoint(n, &["10.0.0.2/24"]))), [2, 3]);
        let mut kernel = kernel(3);
        settle(&all, &mut kernel);
        // Sandbox 2 hides its end behind another link of that name; sandbox 1 is detached.
        let other = SeenLink { mac: MacAddr([2, 9, 9, 9, 9, 9]), ..SeenLink::default() };
        kernel.sandboxes.insert(SandboxId([2; 16]), BTreeMap::from([("eth0".to_owned(), other)]));
        let after = wanted(&rest.map(|n| endpoint(n, &["10.0.0.2/24", "10.0.0.9/24"])));
        let mut failed = Vec::new();
        for piece in pieces(&after, &kernel) {
            if run(&piece.plan, &mut kernel).is_err() {
                failed.push(piece.endpoint);
            }
        }
        assert_eq!(failed, [Some(EndpointId([2; 16]))]);
        let third = &kernel.sandboxes[&SandboxId([3; 16])]["eth0"];
        assert_eq!(third.addresses.len(), 2, "the third got its new address");
        let hidden = &kernel.hidden.as_ref().expect("it is in use").links;
        assert!(!hidden.contains_key(&port_name(EndpointId([1; 16]))), "the first is gone");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_planned() {
        let vni = Vni::try_from(42).expect("it fits");
        let with =
            |endpoints: Vec<WantedEndpoint>, mtu| Wanted { network: NET, vni, mtu, endpoints }.validate();
        let named = |interface: &str| WantedEndpoint { interface: interface.into(), ..endpoint(1, &[]) };
        assert_eq!(with(vec![], 67), Err(OverlayError::Mtu(67)));
        assert_eq!(with(vec![endpoint(1, &["fd00::2/64"])], 1279), Err(OverlayError::Mtu(1279)));
        for bad in ["", "sixteen-letters-", "../x", "a b", "a/b", "a.b"] {
            assert_eq!(with(vec![named(bad)], 1450), Err(OverlayError::InterfaceName(bad.into())));
        }
        let zero = WantedEndpoint { mac: MacAddr::default(), ..endpoint(1, &[]) };
        assert_eq!(with(vec![zero], 1450), Err(OverlayError::Mac(MacAddr::default())));
        let twice =
            vec![endpoint(1, &[]), WantedEndpoint { sandbox: SandboxId([2; 16]), ..endpoint(1, &[]) }];
        assert_eq!(with(twice, 1450), Err(OverlayError::MacTwice(MacAddr([2, 0, 0, 0, 0, 1]))));
    }

    #[test]
    fn interfaces_take_the_first_free_number() {
        assert_eq!(free_interface([]), "eth0");
        assert_eq!(free_interface(["lo", "eth0", "eth2"]), "eth1");
    }

    proptest! {
        #[test]
        fn whatever_is_broken_is_repaired(breaks in prop::collection::vec((0..8_u8, 1..=3_u8), 1..6)) {
            let mut kernel = kernel(3);
            let wanted = wanted(&[
                endpoint(1, &["10.0.0.2/24"]),
                endpoint(2, &["10.0.0.3/24", "fd00::3/64"]),
                endpoint(3, &["10.0.0.4/24"]),
            ]);
            settle(&wanted, &mut kernel);
            for (what, n) in breaks {
                let port = port_name(EndpointId([n; 16]));
                let hidden = kernel.hidden.as_mut().expect("it is there");
                let sandbox = kernel.sandboxes.get_mut(&SandboxId([n; 16])).expect("it is there");
                match what {
                    0 => { hidden.links.remove(UPLINK); }
                    1 => { hidden.links.remove(&port); sandbox.remove("eth0"); }
                    2 => { hidden.links.entry(port).and_modify(|link| link.bridge = None); }
                    3 => { hidden.links.entry(BRIDGE.into()).and_modify(|link| link.up = false); }
                    4 => { sandbox.entry("eth0".into()).and_modify(|link| link.addresses.clear()); }
                    5 => { sandbox.entry("eth0".into()).and_modify(|link| link.mtu = 9000); }
                    6 => { sandbox.remove("eth0").map(|link| sandbox.insert("renamed".into(), link)); }
                    _ => { hidden.links.insert("v999999999999".into(), SeenLink::default()); }
                }
            }
            settle(&wanted, &mut kernel);
        }
    }
}
