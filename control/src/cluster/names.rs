//! Names of endpoints, as the records have them now.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Cluster;
use super::record::Endpoint;
use crate::model::NetworkId;
use crate::names::{Named, Zone};
use crate::network::Definition;

impl Cluster {
    /// Networks whose names may be others than when this was asked last.
    pub fn take_renamed(&mut self) -> BTreeSet<NetworkId> {
        std::mem::take(&mut self.renamed)
    }

    /// The names of a network: of announced endpoints of this node, and of those of nodes that answer.
    #[must_use]
    pub fn zone(&self, id: NetworkId) -> Option<Zone> {
        let network = self.networks.get(&id)?;
        let apart = self.stays_apart(network);
        let own = self.endpoints.values().filter(|own| own.network == id && own.announced);
        let own = own.map(|own| (own.endpoint.ips.as_slice(), &own.endpoint));
        let alive = |node| !apart && self.is_alive(node);
        let views =
            self.views.iter().filter(|(node, view)| alive(**node) && view.memberships.contains_key(&id));
        let others = views.flat_map(|(&node, view)| {
            let endpoints = view.endpoints.get(&id).into_iter().flatten();
            endpoints.map(move |(_, endpoint)| (network.addresses_of(node, endpoint), endpoint))
        });
        let named: Vec<_> =
            own.chain(others).map(|(addresses, e)| (addresses, e, e.sandbox.short())).collect();
        let subnets = network.definition.subnets.iter().map(|subnet| subnet.prefix).collect();
        Some(Zone::derive(&self.name_of(id), subnets, named.iter().map(named_as)))
    }

    /// Whether a network has no way out.
    #[must_use]
    pub fn is_internal(&self, id: NetworkId) -> bool {
        self.networks.get(&id).is_some_and(|network| network.definition.internal)
    }

    /// A network whose endpoints get their addresses by DHCP, too.
    #[must_use]
    pub fn with_dhcp(&self, id: NetworkId) -> Option<&Definition> {
        self.networks.get(&id).filter(|network| network.options.dhcp).map(|network| &network.definition)
    }
}

/// Name, aliases, and the first digits of the sandbox's id.
fn named_as<'e>((addresses, endpoint, id): &'e (&'e [IpAddr], &'e Endpoint, String)) -> Named<'e> {
    let aliases = endpoint.aliases.iter().map(|alias| alias.as_str());
    let names = [endpoint.name.as_str()].into_iter().chain(aliases).chain([id.as_str()]);
    Named { names: names.collect(), addresses }
}
