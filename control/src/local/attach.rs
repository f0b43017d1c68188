//! Endpoints of networks of this host: addresses found, promised, given back.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use weft_dataplane::wire::MacAddr;

use super::{Driver, Local, LocalError, Network, encode};
use crate::ledger;
use crate::model::{EndpointId, Name, NetworkId, SandboxId};
use crate::network::{Attach, Lease, MAX_ALIASES, NetworkError, OwnEndpoint};
use crate::storage::Table;

/// An endpoint as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its network.
    pub network: NetworkId,
    /// The sandbox it is in.
    pub sandbox: SandboxId,
    /// Name of the sandbox when it was attached.
    pub name: Name,
    /// Further names.
    pub aliases: Vec<Name>,
    /// Its MAC address.
    mac: [u8; 6],
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// The network with the highest carries the sandbox's default route.
    pub gateway_priority: i64,
}

impl Endpoint {
    /// Its MAC address.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        MacAddr(self.mac)
    }
}

impl Local {
    /// Attaches a sandbox, durably.
    ///
    /// # Errors
    /// The wish cannot be fulfilled, or the state cannot be made durable; nothing was promised.
    pub fn attach(&mut self, now: Instant, wish: Attach, gateway_priority: i64) -> Result<Lease, LocalError> {
        self.check_wish(&wish)?;
        let ips = self.find_addresses(now, &wish)?;
        let mac = wish.mac.unwrap_or_else(|| self.fresh_mac(wish.network));
        let Attach { network, sandbox, name, aliases, .. } = wish;
        let endpoint = Endpoint { network, sandbox, name, aliases, mac: mac.0, ips, gateway_priority };
        let id = EndpointId(self.rng.random());
        let row = ledger::put(Table::LocalEndpoints, id.0, encode(&endpoint));
        self.ledger.commit("local-endpoint-attach", vec![row])?;
        if let Some(network) = self.networks.get_mut(&network) {
            for ip in &endpoint.ips {
                if let Some(pool) = network.pool_of_mut(*ip) {
                    pool.take(*ip);
                }
            }
        }
        let lease = self.lease(id, &endpoint);
        self.endpoints.insert(id, endpoint);
        Ok(lease)
    }

    /// Calls an endpoint so, durably. Answers whether it was called otherwise.
    ///
    /// # Errors
    /// There is no such endpoint, it would have too many names, or the state cannot be made durable; then it is called
    /// as before.
    pub fn rename(&mut self, id: EndpointId, name: Name, aliases: Vec<Name>) -> Result<bool, LocalError> {
        if aliases.len() > MAX_ALIASES {
            return Err(NetworkError::Aliases(aliases.len()).into());
        }
        let endpoint = self.endpoints.get_mut(&id).ok_or(NetworkError::NoEndpoint(id))?;
        let renamed = Endpoint { name, aliases, ..endpoint.clone() };
        let differs = renamed != *endpoint;
        if differs {
            let row = ledger::put(Table::LocalEndpoints, id.0, encode(&renamed));
            self.ledger.commit("local-endpoint-rename", vec![row])?;
            *endpoint = renamed;
        }
        Ok(differs)
    }

    /// Gives an endpoint up, durably; its addresses rest before they are handed out again.
    ///
    /// # Errors
    /// There is none, or the state cannot be made durable; then it is still there.
    pub fn detach(&mut self, now: Instant, id: EndpointId) -> Result<(), LocalError> {
        let endpoint = self.endpoints.get(&id).ok_or(NetworkError::NoEndpoint(id))?;
        self.ledger.commit("local-endpoint-detach", vec![ledger::delete(Table::LocalEndpoints, id.0)])?;
        if let Some(network) = self.networks.get_mut(&endpoint.network) {
            for ip in &endpoint.ips {
                if let Some(pool) = network.pool_of_mut(*ip) {
                    pool.release(now, *ip);
                }
            }
        }
        self.endpoints.remove(&id);
        Ok(())
    }

    /// Endpoints, in order of ids.
    pub fn own_endpoints(&self) -> impl Iterator<Item = OwnEndpoint> + '_ {
        self.endpoints.iter().map(|(&id, endpoint)| OwnEndpoint {
            lease: self.lease(id, endpoint),
            sandbox: endpoint.sandbox,
            name: endpoint.name.clone(),
            aliases: endpoint.aliases.clone(),
        })
    }

    /// An endpoint as it is stored.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    pub(super) fn lease(&self, id: EndpointId, endpoint: &Endpoint) -> Lease {
        let network = self.networks.get(&endpoint.network);
        let with_prefix = |ip: &IpAddr| {
            let len = network.and_then(|network| Some(network.pool_of(*ip)?.prefix_len()));
            len.and_then(|len| IpNet::new(*ip, len).ok()).unwrap_or_else(|| IpNet::from(*ip))
        };
        let own_mac = !network.is_some_and(Network::is_ipvlan);
        Lease {
            endpoint: id,
            network: endpoint.network,
            mac: if own_mac { endpoint.mac() } else { MacAddr::default() },
            addresses: endpoint.ips.iter().map(with_prefix).collect(),
            mtu: network.map_or(u16::MAX, Network::mtu),
        }
    }

    fn check_wish(&self, wish: &Attach) -> Result<(), LocalError> {
        let network = self.network(wish.network)?;
        let definition = &network.definition;
        match definition.driver {
            Driver::Host => return Err(LocalError::ConnectHost),
            Driver::Null => return Err(LocalError::Private),
            Driver::Bridge | Driver::Macvlan | Driver::Ipvlan => {}
        }
        if definition.is_predefined() && wish.fixed().next().is_some() {
            return Err(LocalError::FixedAddress);
        }
        if definition.is_predefined() && !wish.aliases.is_empty() {
            return Err(LocalError::Aliases);
        }
        if wish.aliases.len() > MAX_ALIASES {
            return Err(NetworkError::Aliases(wish.aliases.len()).into());
        }
        if self.of(wish.network).any(|(_, endpoint)| endpoint.sandbox == wish.sandbox) {
            let (sandbox, network) = (wish.name.to_string(), definition.name.to_string());
            return Err(NetworkError::Attached { sandbox, network }.into());
        }
        self.check_child(network, wish)?;
        Ok(self.check_addresses(network, wish)?)
    }

    fn check_child(&self, network: &Network, wish: &Attach) -> Result<(), LocalError> {
        let Some(options) = &network.parent else { return Ok(()) };
        if network.is_ipvlan() && wish.mac.is_some() {
            return Err(LocalError::ParentMac);
        }
        match self.of(wish.network).next() {
            Some((_, holder)) if options.is_passthru() => {
                let (network, holder) = (network.definition.name.to_string(), holder.name.clone());
                Err(LocalError::PassthruFull { network, holder })
            }
            _ => Ok(()),
        }
    }

    fn check_addresses(&self, network: &Network, wish: &Attach) -> Result<(), NetworkError> {
        for ip in wish.fixed() {
            let pool = network.pool_of(ip).ok_or(NetworkError::OutsideSubnets(ip))?;
            if !pool.is_free(ip) {
                return Err(NetworkError::AddressTaken);
            }
        }
        let Some(mac) = wish.mac else { return Ok(()) };
        if !mac.is_assignable() {
            return Err(NetworkError::Mac(mac.to_string()));
        }
        let holder = self.of(wish.network).find(|(_, endpoint)| endpoint.mac() == mac);
        holder.map_or(Ok(()), |(_, holder)| {
            let (mac, network) = (mac.to_string(), network.definition.name.to_string());
            Err(NetworkError::MacTaken { mac, network, holder: holder.name.to_string() })
        })
    }

    pub(super) fn of(&self, network: NetworkId) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        let of = self.endpoints.iter().filter(move |(_, endpoint)| endpoint.network == network);
        of.map(|(id, endpoint)| (*id, endpoint))
    }

    /// One address of each family the network has.
    fn find_addresses(&self, now: Instant, wish: &Attach) -> Result<Vec<IpAddr>, LocalError> {
        let network = self.network(wish.network)?;
        let fixed = |v4: bool| wish.fixed().find(|ip| ip.is_ipv4() == v4);
        let pools = |v4: bool| network.pools.iter().filter(move |pool| pool.is_v4() == v4);
        let find = |v4: bool| fixed(v4).or_else(|| pools(v4).find_map(|pool| pool.pick(now)));
        let families = [true, false].into_iter().filter(|v4| pools(*v4).next().is_some());
        let found: Option<Vec<_>> = families.map(find).collect();
        Ok(found.ok_or(NetworkError::Exhausted)?)
    }

    fn fresh_mac(&mut self, network: NetworkId) -> MacAddr {
        loop {
            let mac = MacAddr::local_from_random(self.rng.random());
            if !self.of(network).any(|(_, endpoint)| endpoint.mac() == mac) {
                return mac;
            }
        }
    }
}
