//! Networks of this host as people see them, and as firewall, DNS and driver do.

use super::view::zone;
use super::{BridgeView, Definition, Driver, Endpoint, EndpointView, Local, Network, ParentView};
use crate::api;
use crate::model::{EndpointId, NetworkId, SandboxId};
use crate::names::Zone;
use crate::network::{Subnet, shown};

impl Local {
    /// Every network, without endpoints, ordered by name.
    #[must_use]
    pub fn shown(&self) -> Vec<api::Network> {
        let mut networks: Vec<_> = self.networks.values().map(|network| self.show(network)).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    /// One network with its endpoints; `node` is the name of this node.
    #[must_use]
    pub fn show_whole(&self, id: NetworkId, node: &str) -> Option<api::Network> {
        let network = self.networks.get(&id)?;
        let container = |(id, endpoint): (EndpointId, &Endpoint)| {
            (endpoint.sandbox.long(), self.show_endpoint(network, id, endpoint, node))
        };
        Some(api::Network { containers: self.of(id).map(container).collect(), ..self.show(network) })
    }

    fn show(&self, network: &Network) -> api::Network {
        let definition = &network.definition;
        let config = definition.subnets.iter().map(shown).collect();
        api::Network {
            name: definition.name.to_string(),
            id: definition.id.long(),
            created: definition.created.to_string(),
            scope: "local".to_owned(),
            driver: definition.driver.to_string(),
            enable_ipv4: definition.has(true) || definition.subnets.is_empty(),
            enable_ipv6: definition.has(false),
            ipam: api::Ipam { driver: "default".to_owned(), options: None, config },
            internal: definition.internal,
            attachable: false,
            ingress: false,
            config_from: api::ConfigFrom::default(),
            config_only: false,
            options: definition.options.clone(),
            labels: definition.labels.clone(),
            peers: Vec::new(),
            containers: Default::default(),
            vni: 0,
            mtu: match definition.driver {
                Driver::Bridge => network.options.mtu,
                _ => network.parent.as_ref().and_then(|options| options.mtu).unwrap_or(0),
            },
            ranges: ranges(network),
        }
    }

    fn show_endpoint(
        &self,
        network: &Network,
        id: EndpointId,
        endpoint: &Endpoint,
        node: &str,
    ) -> api::NetworkEndpoint {
        let cidr = |v4: bool| {
            let ip = endpoint.ips.iter().find(|ip| ip.is_ipv4() == v4);
            let len = ip.and_then(|ip| network.pool_of(*ip)).map(super::Pool::prefix_len);
            ip.zip(len).map(|(ip, len)| format!("{ip}/{len}")).unwrap_or_default()
        };
        api::NetworkEndpoint {
            name: endpoint.name.to_string(),
            endpoint_id: id.long(),
            mac_address: self.lease(id, endpoint).shown_mac(),
            ipv4_address: cidr(true),
            ipv6_address: cidr(false),
            node: node.to_owned(),
        }
    }

    /// Every bridge network with what is attached to it, in order of ids.
    pub fn bridges(&self) -> impl Iterator<Item = BridgeView> + '_ {
        let bridges = self.networks.values().filter(|network| network.definition.driver == Driver::Bridge);
        bridges.map(|network| self.view(network))
    }

    /// One bridge network with what is attached to it.
    #[must_use]
    pub fn bridge(&self, id: NetworkId) -> Option<BridgeView> {
        let network = self.networks.get(&id)?;
        (network.definition.driver == Driver::Bridge).then(|| self.view(network))
    }

    /// Every network with a parent and what is attached to it, in order of ids.
    pub fn children(&self) -> impl Iterator<Item = ParentView> + '_ {
        self.networks.values().filter_map(|network| {
            let (options, id) = (network.parent.as_ref()?, network.definition.id);
            let (parent, mode, mtu) = (network.parent()?, options.mode, options.mtu);
            Some(ParentView { network: id, parent, mode, mtu, endpoints: self.views(id) })
        })
    }

    /// Whether its endpoints are children of a link.
    #[must_use]
    pub fn has_parent(&self, id: NetworkId) -> bool {
        self.networks.get(&id).is_some_and(|network| network.parent.is_some())
    }

    /// The names of a network that has some.
    #[must_use]
    pub fn zone(&self, id: NetworkId) -> Option<Zone> {
        let definition = &self.networks.get(&id)?.definition;
        Some(zone(definition, &self.views(id)))
    }

    fn views(&self, network: NetworkId) -> Vec<EndpointView> {
        let view = |(id, endpoint): (EndpointId, &Endpoint)| EndpointView {
            endpoint: id,
            sandbox: endpoint.sandbox,
            name: endpoint.name.clone(),
            aliases: endpoint.aliases.clone(),
            addresses: self.lease(id, endpoint).addresses,
            mac: endpoint.mac(),
        };
        self.of(network).map(view).collect()
    }

    fn view(&self, network: &Network) -> BridgeView {
        let Network { definition, options, .. } = network;
        BridgeView {
            network: definition.id,
            name: definition.name.clone(),
            interface: network.interface(),
            presence: definition.presence(),
            subnets: definition.subnets.clone(),
            internal: definition.internal,
            icc: options.icc,
            masquerade: options.masquerade && !definition.internal,
            host_binding: options.host_binding,
            inhibit_ipv4: options.inhibit_ipv4,
            mtu: options.mtu,
            endpoints: self.views(definition.id),
        }
    }

    /// A network whose endpoints get their addresses by DHCP, too.
    #[must_use]
    pub fn with_dhcp(&self, id: NetworkId) -> Option<&Definition> {
        self.networks.get(&id).filter(|network| network.options.dhcp).map(|network| &network.definition)
    }

    /// What names of interfaces of a network begin with.
    #[must_use]
    pub fn interface_prefix(&self, id: NetworkId) -> &str {
        self.networks.get(&id).map_or("eth", |network| {
            network.parent.as_ref().map_or(network.options.prefix.as_str(), |options| &options.prefix)
        })
    }

    /// The networks a sandbox could leave by: priority, name, endpoint and gateways of each.
    pub fn ways_out(&self, sandbox: SandboxId) -> impl Iterator<Item = WayOut<'_>> {
        let of_sandbox = self.endpoints.iter().filter(move |(_, endpoint)| endpoint.sandbox == sandbox);
        of_sandbox.filter_map(|(id, endpoint)| {
            let network = self.networks.get(&endpoint.network)?;
            let definition = &network.definition;
            let here = |subnet: &&Subnet| endpoint.ips.iter().any(|ip| subnet.prefix.contains(ip));
            let gateways = definition.subnets.iter().filter(here).map(|subnet| subnet.gateway).collect();
            let name = definition.name.as_str();
            let out = WayOut { priority: endpoint.gateway_priority, name, endpoint: *id, gateways };
            (!definition.internal).then_some(out)
        })
    }
}

/// A network that leads out of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut<'a> {
    /// The highest is preferred.
    pub priority: i64,
    /// Name of the network; among equals the first is preferred.
    pub name: &'a str,
    /// The sandbox's endpoint in it.
    pub endpoint: EndpointId,
    /// Its gateways, at most one of each family.
    pub gateways: Vec<std::net::IpAddr>,
}

fn ranges(network: &Network) -> Vec<api::RangeUse> {
    let subnets = network.definition.subnets.iter().zip(&network.pools);
    let range = |(subnet, pool): (&Subnet, &super::Pool)| {
        let (owned, used) = pool.usage();
        api::RangeUse {
            subnet: subnet.prefix.to_string(),
            owned: u64::try_from(owned).unwrap_or(u64::MAX),
            used: used as u64,
        }
    };
    subnets.map(range).collect()
}
