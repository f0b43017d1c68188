//! What names mean on this node: an immutable picture, derived whole from the records and swapped whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{NetworkId, SandboxId};

/// One endpoint as names see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its names; the first is what its addresses are called in return.
    pub names: Vec<&'a str>,
    /// Its addresses in the network.
    pub addresses: &'a [IpAddr],
}

/// The names of one network, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    name: String,
    subnets: Vec<IpNet>,
    names: BTreeMap<String, Vec<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
}

/// Where questions about the rest of the world go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Outside {
    /// Nowhere: every network of the asker is internal.
    #[default]
    Nowhere,
    /// To the servers of the host, from the host's network namespace.
    Host,
    /// To these servers, from the asker's own namespace: they see no more of the world than the asker does.
    Own(Vec<SocketAddr>),
    /// To the resolver of Docker in the asker's own namespace, at the same address. It knows names that weft does not,
    /// those of networks with weft's names too, as of containers that are linked.
    Engine,
}

/// A sandbox that asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asker {
    /// Networks it is in, in the order they are searched.
    pub networks: Vec<NetworkId>,
    /// Where its other questions go.
    pub outside: Outside,
}

/// Everything answers are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Names by network.
    pub zones: BTreeMap<NetworkId, Arc<Zone>>,
    /// Sandboxes that may ask.
    pub askers: BTreeMap<SandboxId, Arc<Asker>>,
    /// Servers of the host, in the order they are asked.
    pub servers: Vec<SocketAddr>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Somebody in the asker's networks is called so.
    pub(super) known: bool,
    /// The addresses asked for, of the first network that has some.
    pub(super) addresses: Vec<IpAddr>,
}

impl Zone {
    /// Derives a network's names. Where several endpoints have a name it means all of them.
    #[must_use]
    pub fn derive<'a>(
        name: &str,
        subnets: Vec<IpNet>,
        endpoints: impl IntoIterator<Item = Named<'a>>,
    ) -> Self {
        let mut zone = Self { name: name.to_ascii_lowercase(), subnets, ..Self::default() };
        for endpoint in endpoints {
            zone.add(&endpoint);
        }
        for addresses in zone.names.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        zone
    }

    fn add(&mut self, endpoint: &Named<'_>) {
        let names =
            endpoint.names.iter().map(|name| name.to_ascii_lowercase()).filter(|name| is_domain(name));
        for (place, name) in names.enumerate() {
            if place == 0 && is_domain(&self.name) {
                let whole = format!("{name}.{}", self.name);
                self.reverse.extend(endpoint.addresses.iter().map(|address| (*address, whole.clone())));
            }
            self.names.entry(name).or_default().extend(endpoint.addresses);
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&address))
    }

    /// What `name` begins with, if it is a name below this network's.
    fn below<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(self.name.as_str())?.strip_suffix('.')
    }
}

/// Whether a name of the model can be one of DNS: no label empty, none longer than 63 octets.
fn is_domain(name: &str) -> bool {
    name.split('.').all(|label| (1..=63).contains(&label.len()))
}

impl View {
    fn zones_of<'v>(&'v self, asker: &'v Asker) -> impl Iterator<Item = &'v Zone> {
        asker.networks.iter().filter_map(|network| self.zones.get(network)).map(Arc::as_ref)
    }

    /// Addresses of `name` (lower case, without the last dot): first as it is in each network, then with the network's
    /// name taken off.
    pub(super) fn find(&self, asker: &Asker, name: &str, wanted: impl Fn(&IpAddr) -> bool) -> Found {
        let mut found = Found::default();
        let whole = self.zones_of(asker).map(|zone| zone.names.get(name));
        let cut = self.zones_of(asker).map(|zone| zone.names.get(zone.below(name)?));
        for addresses in whole.chain(cut).flatten() {
            found.known = true;
            found.addresses = addresses.iter().copied().filter(&wanted).collect();
            if !found.addresses.is_empty() {
                break;
            }
        }
        found
    }

    /// What the address is called in a network of the asker's.
    pub(super) fn reverse<'v>(&'v self, asker: &'v Asker, address: IpAddr) -> Option<&'v str> {
        self.zones_of(asker).find_map(|zone| zone.reverse.get(&address)).map(String::as_str)
    }

    /// Whether the address is one of the asker's networks', which nobody else can know anything about.
    pub(super) fn is_inside(&self, asker: &Asker, address: IpAddr) -> bool {
        self.zones_of(asker).any(|zone| zone.has(address))
    }

    /// Whether `name` is directly below the name of one of the asker's networks: a sandbox's, if anybody's.
    pub(super) fn is_below(&self, asker: &Asker, name: &str) -> bool {
        self.zones_of(asker).any(|zone| zone.below(name).is_some_and(|host| !host.contains('.')))
    }
}
