//! The macvlan and ipvlan drivers: networks of one host whose endpoints are children of one of the host's own links.
//!
//! ```text
//!   host                         sandboxes
//!   eth0, the parent ──┬──────── eth0 (10.0.0.20, default route by the router on the parent's segment)
//!                      └──────── eth0 (10.0.0.21)
//! ```
//!
//! A child is made in its sandbox at once, and has no other end in the host. Children, and parents that were made for a
//! network (802.1Q links, dummies), are known again by their group, a number that follows from this node's id
//! ([`group`]; `ip link show group N`): nothing else is ever removed. Parents keep the MAC addresses they have, so that
//! one that is made for ipvlan says nothing new to the segment.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::bridge::{Observed, Wanted};
use super::endpoint::{self, plan_far, plan_settings};
use super::{End, Pieces, Scope, SeenLink, Setting, WantedEndpoint, WishError};
use crate::model::{EndpointId, NetworkId, NodeId};
use crate::plan::{Place, Step};

#[cfg(test)]
mod tests;

/// What children are to their parent (`ip-link(8)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each has a MAC address of its own.
    Macvlan(MacvlanMode),
    /// Each has the parent's MAC address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

impl Mode {
    /// The driver with children of this kind.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }
}

/// Whom a child with a MAC address of its own reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacvlanMode {
    /// The other children and the segment.
    Bridge,
    /// The segment alone.
    Private,
    /// The other children where the segment's switch sends frames back.
    Vepa,
    /// The segment, as the parent itself: there is one child.
    Passthru,
}

/// What the kernel does with packets of children that have the parent's MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Switches them.
    L2,
    /// Routes them, without the host's netfilter.
    L3,
    /// Routes them, with the host's netfilter.
    L3s,
}

/// Whom such a child reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// The other children and the segment.
    Bridge,
    /// The segment alone.
    Private,
    /// The other children where the segment's switch sends frames back.
    Vepa,
}

/// The link of the host that the children of a network have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// One of the host's. A missing one is made if its name says how: `eth0.50` is VLAN 50 of `eth0`.
    Link(String),
    /// One that leads nowhere, made for the network.
    Dummy(String),
}

impl Parent {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Link(name) | Self::Dummy(name) => name,
        }
    }
}

/// One network with a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedNetwork {
    /// The network.
    pub network: NetworkId,
    /// Its parent.
    pub parent: Parent,
    /// What children are to it.
    pub mode: Mode,
    /// Largest packet, octets; the parent's if absent.
    pub mtu: Option<u16>,
    /// Its endpoints.
    pub endpoints: Vec<WantedEndpoint>,
}

/// A link as a child, where its parent is in another namespace or in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenChild {
    /// Index of the parent in its namespace.
    pub parent: u32,
    /// What it is to it.
    pub mode: Mode,
}

/// Why a network with a parent is left alone, in Docker's words where Docker has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParentError {
    /// Neither there nor the name of a VLAN.
    #[error(
        "invalid subinterface vlan name {0}, example formatting is eth0.10: the host has no interface {0} (-o parent)"
    )]
    NoVlan(String),
    /// Several dots.
    #[error("required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {0}")]
    Format(String),
    /// No number behind the dot.
    #[error("unable to parse a valid vlan id from: {0} (ex. eth0.10 for vlan 10)")]
    Id(String),
    /// No VLAN has that number (IEEE 802.1Q).
    #[error("vlan id must be between 1-4094, received: {0}")]
    Range(i64),
    /// Not there.
    #[error("-o parent interface was not found on the host: {0}")]
    Missing(String),
    /// Children carry no larger packets than their parent.
    #[error("invalid MTU number: {mtu}: the parent interface {parent} carries {most} at most")]
    Mtu {
        /// What was asked for, octets.
        mtu: u16,
        /// The parent.
        parent: String,
        /// What it carries, octets.
        most: u32,
    },
    /// What is wanted is not possible.
    #[error(transparent)]
    Wish(#[from] WishError),
}

/// The group of links that this node made with or as a parent; positive, as tools want it.
#[must_use]
pub fn group(me: NodeId) -> u32 {
    let hash = Sha256::new_with_prefix(b"weft group").chain_update(me.0).finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 1 | 1
}

/// The link and the number that the name of a VLAN's link says.
///
/// # Errors
/// It says none.
fn vlan(name: &str) -> Result<(&str, u16), ParentError> {
    let (parent, id) = name.split_once('.').ok_or_else(|| ParentError::NoVlan(name.to_owned()))?;
    if id.contains('.') {
        return Err(ParentError::Format(name.to_owned()));
    }
    let id: i64 = id.parse().map_err(|_| ParentError::Id(id.to_owned()))?;
    match u16::try_from(id) {
        Ok(number @ 1..=4094) => Ok((parent, number)),
        _ => Err(ParentError::Range(id)),
    }
}

impl WantedNetwork {
    fn check(&self, observed: &Observed) -> Result<(), ParentError> {
        endpoint::validate(self.mtu.unwrap_or(u16::MAX), &self.endpoints)?;
        let Parent::Link(name) = &self.parent else { return Ok(()) };
        let (parent, seen) = match observed.links.get(name) {
            Some(seen) => (name.as_str(), seen),
            None => {
                let (below, _) = vlan(name)?;
                let seen = observed.links.get(below);
                (below, seen.ok_or_else(|| ParentError::Missing(below.to_owned()))?)
            }
        };
        match self.mtu.filter(|mtu| u32::from(*mtu) > seen.mtu) {
            Some(mtu) => Err(ParentError::Mtu { mtu, parent: parent.to_owned(), most: seen.mtu }),
            None => Ok(()),
        }
    }

    /// Whether `link` is the child that `endpoint` is to have. A parent that is not found and cannot be
    /// made may have another name now.
    fn has(&self, endpoint: &WantedEndpoint, link: &SeenLink, observed: &Observed) -> bool {
        let parent = observed.links.get(self.parent.name()).map(|parent| parent.index);
        let of_it = |child: &SeenChild| match parent {
            Some(parent) => parent == child.parent,
            None => self.check(observed).is_err(),
        };
        let right = |child: &SeenChild| child.mode == self.mode && of_it(child);
        let own_mac = matches!(self.mode, Mode::Macvlan(_));
        link.child.as_ref().is_some_and(right) && (!own_mac || link.mac == endpoint.mac)
    }

    fn plan_parent(&self, me: NodeId, observed: &Observed, steps: &mut Vec<Step>) {
        let (at, name, group) = (Place::Host, self.parent.name().to_owned(), group(me));
        let seen = observed.links.get(&name);
        match (&self.parent, seen) {
            (_, Some(seen)) if seen.group != group => return,
            (_, Some(_)) => {}
            (Parent::Dummy(_), None) => steps.push(Step::AddDummy { at, name: name.clone(), group }),
            (Parent::Link(_), None) => {
                let Ok((parent, id)) = vlan(&name) else { return };
                let parent = parent.to_owned();
                steps.push(Step::AddVlan { at, name: name.clone(), parent, id, group });
            }
        }
        // The host is not on that segment itself.
        if seen.is_none_or(|seen| seen.settings.get(&Setting::DisableIpv6) == Some(&0)) {
            steps.push(Step::SetSysctl { at, key: Setting::DisableIpv6.key(&name), value: "1" });
        }
        if !seen.is_some_and(|seen| seen.up) {
            steps.push(Step::SetUp { at, name });
        }
    }

    /// A child in the host's namespace, for somebody to move it away. It is made once; wherever it is then is theirs to know.
    fn plan_handed(&self, me: NodeId, endpoint: &WantedEndpoint, observed: &Observed, steps: &mut Vec<Step>) {
        let name = endpoint.interface.clone();
        let there = observed.links.get(&name);
        if there.is_some_and(|link| self.has(endpoint, link, observed)) {
            return;
        }
        if there.is_some() {
            steps.push(Step::DeleteLink { at: Place::Host, name: name.clone() });
        }
        let (parent, mode, mtu) = (self.parent.name().to_owned(), self.mode, self.mtu);
        let (at, mac, group) = (Place::Host, endpoint.mac, group(me));
        steps.push(Step::AddChild { at, name, parent, mode, mac, mtu, group });
    }

    fn plan_child(&self, me: NodeId, endpoint: &WantedEndpoint, observed: &Observed, steps: &mut Vec<Step>) {
        let (at, name) = (Place::Sandbox(endpoint.sandbox), endpoint.interface.clone());
        let there = observed.sandboxes.get(&endpoint.sandbox).and_then(|links| links.get(&name));
        let child = there.filter(|link| self.has(endpoint, link, observed));
        if child.is_none() {
            let (parent, mode, mtu) = (self.parent.name().to_owned(), self.mode, self.mtu);
            steps.push(Step::AddChild { at, name, parent, mode, mac: endpoint.mac, mtu, group: group(me) });
        }
        plan_settings(at, endpoint, child, steps);
        plan_far(at, endpoint, child, self.mtu, steps);
    }
}

/// Networks that cannot be, and why; [`plan`] leaves them alone.
#[must_use]
pub fn faults(wanted: &Wanted, observed: &Observed) -> BTreeMap<NetworkId, ParentError> {
    let fault = |network: &WantedNetwork| Some((network.network, network.check(observed).err()?));
    wanted.children.iter().filter_map(fault).collect()
}

/// Children that nobody wants any more, then parents that were made for networks that are gone.
pub(super) fn plan_strays(wanted: &Wanted, observed: &Observed, steps: &mut Vec<Step>) {
    let group = group(wanted.me);
    for (sandbox, links) in &observed.sandboxes {
        let at = Place::Sandbox(*sandbox);
        let kept = |name: &str, link: &SeenLink| {
            wanted.children.iter().any(|network| {
                let is = |end: &&WantedEndpoint| end.sandbox == *sandbox && end.interface == name;
                network.endpoints.iter().filter(is).any(|end| network.has(end, link, observed))
            })
        };
        let ours = links.iter().filter(|(_, link)| link.group == group);
        let strays = ours.filter(|(name, link)| !kept(name, link));
        steps.extend(strays.map(|(name, _)| Step::DeleteLink { at, name: name.clone() }));
    }
    let at = Place::Host;
    let is_handed =
        |end: &WantedEndpoint, name: &str| matches!(end.end, End::Handed { .. }) && end.interface == name;
    let needed = |name: &str| {
        wanted.children.iter().any(|network| {
            network.parent.name() == name || network.endpoints.iter().any(|end| is_handed(end, name))
        })
    };
    let ours = observed.links.iter().filter(|(_, link)| link.group == group);
    let strays = ours.filter(|(name, _)| !needed(name));
    steps.extend(strays.map(|(name, _)| Step::DeleteLink { at, name: name.clone() }));
}

/// Parents and children of every network that can be.
pub(super) fn plan(wanted: &Wanted, observed: &Observed, focus: Option<EndpointId>, pieces: &mut Pieces) {
    let faults = faults(wanted, observed);
    let mut parents = BTreeSet::new();
    for network in wanted.children.iter().filter(|network| !faults.contains_key(&network.network)) {
        if parents.insert(network.parent.name()) {
            let scope = Scope::Network(network.network);
            pieces.add(scope, |steps| network.plan_parent(wanted.me, observed, steps));
        }
        let concerned = |endpoint: &&WantedEndpoint| {
            focus.is_none_or(|focus| focus == endpoint.id) && endpoint.is_possible(&observed.sandboxes)
        };
        for endpoint in network.endpoints.iter().filter(concerned) {
            pieces.add(Scope::Endpoint(endpoint.id), |steps| match endpoint.end {
                End::Handed { fresh: true } => network.plan_handed(wanted.me, endpoint, observed, steps),
                End::Handed { fresh: false } => {}
                _ => network.plan_child(wanted.me, endpoint, observed, steps),
            });
        }
    }
}
