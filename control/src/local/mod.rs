//! Networks of this node alone: `bridge`, `host`, `none`, further bridges, and what is attached to them.
//!
//! Pure state with durable rows: every change is made durable before it is answered, and a restart finds exactly what
//! was answered. What the kernel has to do about it is the bridge driver's to find out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod attach;
mod definition;
mod error;
mod gateway;
mod options;
mod parent;
mod pool;
mod predefined;
mod shown;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time starts somewhere")]
mod tests;
mod view;

pub use attach::Endpoint;
pub use definition::{Definition, Driver};
pub use error::LocalError;
pub use gateway::{GATEWAY_BRIDGE, Outlet, gateway_bridge, needs_leg};
pub use options::{BridgeOptions, OptionError};
pub use predefined::{Defaults, DefaultsError};
pub use shown::WayOut;
pub use view::{BridgeView, EndpointView, ParentView};

use self::options::{DEFAULT_MTU, in_dockers_spelling};
use self::parent::ParentOptions;
use self::pool::Pool;
use crate::api::NetworkCreate;
use crate::driver::macvlan::Parent;
use crate::ledger::{self, Ledger};
use crate::model::{EndpointId, NetworkId};
use crate::network::{CreateError, LOCAL_POOLS, NetworkError, Wish, free_local};
use crate::storage::{Storage, Table};
use crate::timestamp::UnixMillis;

/// Networks of one host; each bridge costs the kernel a device and a walk of every audit.
pub const MAX_NETWORKS: usize = 1_000;
/// Tables only this module writes.
const TABLES: [Table; 2] = [Table::LocalNetworks, Table::LocalEndpoints];

/// A network with what follows from its definition, and what of its addresses is in use.
#[derive(Debug, Clone)]
struct Network {
    definition: Definition,
    options: BridgeOptions,
    /// Options of a driver with a parent.
    parent: Option<ParentOptions>,
    pools: Vec<Pool>,
}

impl Network {
    fn of(definition: Definition) -> Result<Self, LocalError> {
        let options = definition.bridge_options()?;
        let parent = definition.parent_options()?;
        let pools = definition.subnets.iter().map(|subnet| Pool::new(subnet.space())).collect();
        Ok(Self { definition, options, parent, pools })
    }

    fn interface(&self) -> String {
        let own = || format!("wb-{}", self.definition.id.short());
        self.options.interface.clone().unwrap_or_else(own)
    }

    /// Largest packet where nothing else is known, octets.
    fn mtu(&self) -> u16 {
        self.parent.as_ref().map_or(self.options.mtu, |options| options.mtu.unwrap_or(DEFAULT_MTU))
    }

    /// Whether endpoints have their parent's MAC address.
    fn is_ipvlan(&self) -> bool {
        self.definition.driver == Driver::Ipvlan
    }

    /// The link that its endpoints are children of, where its driver has one.
    fn parent(&self) -> Option<Parent> {
        let own = || Parent::Dummy(format!("dm-{}", self.definition.id.short()));
        self.parent.as_ref().map(|options| options.parent.clone().map_or_else(own, Parent::Link))
    }

    fn pool_of(&self, ip: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.holds(ip))
    }

    fn pool_of_mut(&mut self, ip: IpAddr) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.holds(ip))
    }
}

/// The networks of this node alone.
pub struct Local {
    ledger: Ledger,
    rng: StdRng,
    networks: BTreeMap<NetworkId, Network>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
}

impl Local {
    /// Reads the state back, and makes the predefined networks where there are none yet.
    ///
    /// `seed` is from the operating system's generator; `host` are the prefixes that the host's own routes use.
    ///
    /// # Errors
    /// The state cannot be read or written, or the defaults cannot be had.
    pub fn start(
        storage: Arc<dyn Storage>,
        seed: [u8; 32],
        wall: UnixMillis,
        host: &[IpNet],
        defaults: &Defaults,
    ) -> Result<Self, LocalError> {
        let ledger = Ledger::load(storage, &TABLES)?;
        let rng = StdRng::from_seed(seed);
        let mut local = Self { ledger, rng, networks: BTreeMap::new(), endpoints: BTreeMap::new() };
        local.load()?;
        local.predefine(wall, host, defaults)?;
        Ok(local)
    }

    fn load(&mut self) -> Result<(), LocalError> {
        for (_, row) in self.ledger.rows(Table::LocalNetworks, &[]) {
            let network = Network::of(decode(row, "network")?)?;
            self.networks.insert(network.definition.id, network);
        }
        for (key, row) in self.ledger.rows(Table::LocalEndpoints, &[]) {
            let endpoint: Endpoint = decode(row, "endpoint")?;
            let id = EndpointId(key.try_into().map_err(|_| LocalError::Corrupt("endpoint"))?);
            let network = self.networks.get_mut(&endpoint.network).ok_or(LocalError::Corrupt("endpoint"))?;
            for ip in &endpoint.ips {
                network.pool_of_mut(*ip).ok_or(LocalError::Corrupt("endpoint"))?.take(*ip);
            }
            self.endpoints.insert(id, endpoint);
        }
        Ok(())
    }

    /// Makes a network, durably. `host` are prefixes that default pools keep away from: those of the host's own
    /// routes and of the cluster's networks. Whether its name is free elsewhere is the caller's to know.
    ///
    /// # Errors
    /// The wishes are refused, or the state cannot be made durable; nothing was made.
    pub fn create(
        &mut self,
        wall: UnixMillis,
        request: NetworkCreate,
        host: &[IpNet],
    ) -> Result<NetworkId, LocalError> {
        let id = NetworkId(self.rng.random());
        self.create_as(wall, id, request, host)
    }

    /// As [`Local::create`], with an id that somebody else drew.
    ///
    /// # Errors
    /// As those; or there is such a network already.
    pub fn create_as(
        &mut self,
        wall: UnixMillis,
        id: NetworkId,
        request: NetworkCreate,
        host: &[IpNet],
    ) -> Result<NetworkId, LocalError> {
        let driver = match Driver::named(&request.driver) {
            Some(driver @ (Driver::Bridge | Driver::Macvlan | Driver::Ipvlan)) => driver,
            Some(Driver::Host) => return Err(LocalError::OneOnly("host")),
            Some(Driver::Null) => return Err(LocalError::OneOnly("null")),
            None => return Err(CreateError::Driver(request.driver.chars().take(80).collect()).into()),
        };
        let wish = Wish::parse(request)?;
        self.check_room()?;
        self.check_name(wish.name.as_str())?;
        if self.networks.contains_key(&id) {
            return Err(NetworkError::NameTaken(id.long()).into());
        }
        let free = |len, taken: &[IpNet]| {
            let avoided: Vec<IpNet> = taken.iter().chain(host).copied().collect();
            free_local(len, &avoided).ok_or(CreateError::NoPool(LOCAL_POOLS))
        };
        let subnets = wish.place(id, &self.subnets(), free)?;
        let of = |v4: bool| subnets.iter().filter(move |subnet| subnet.prefix.addr().is_ipv4() == v4).count();
        if driver == Driver::Bridge && (of(true) > 1 || of(false) > 1) {
            return Err(LocalError::Subnets);
        }
        let Wish { name, internal, options, labels, .. } = wish;
        let mut options = in_dockers_spelling(options);
        if name.as_str() == GATEWAY_BRIDGE {
            options = gateway::options(driver, internal, options)?;
        }
        let mut definition =
            Definition { id, name, created: wall, driver, subnets, internal, options, labels };
        // What has no parent leads nowhere.
        definition.internal |= definition.parent_options()?.is_some_and(|options| options.parent.is_none());
        self.add(definition)?;
        Ok(id)
    }

    fn check_room(&self) -> Result<(), LocalError> {
        if self.networks.len() >= MAX_NETWORKS { Err(LocalError::Full(MAX_NETWORKS)) } else { Ok(()) }
    }

    fn check_name(&self, name: &str) -> Result<(), NetworkError> {
        let taken = self.networks.values().any(|network| network.definition.name.as_str() == name);
        if taken { Err(NetworkError::NameTaken(name.to_owned())) } else { Ok(()) }
    }

    fn subnets(&self) -> Vec<IpNet> {
        let definitions = self.networks.values().map(|network| &network.definition);
        definitions.flat_map(|definition| definition.subnets.iter().map(|subnet| subnet.prefix)).collect()
    }

    /// Makes a definition durable and takes it in.
    fn add(&mut self, definition: Definition) -> Result<(), LocalError> {
        let network = Network::of(definition)?;
        let id = network.definition.id;
        let interface = network.interface();
        let same = |other: &&Network| {
            other.definition.driver == Driver::Bridge
                && other.definition.id != id
                && other.interface() == interface
        };
        if network.definition.driver == Driver::Bridge
            && let Some(other) = self.networks.values().find(same)
        {
            let (id, other) = (id.long(), other.definition.id.long());
            return Err(LocalError::SameInterface { id, interface, other });
        }
        self.check_parent(&network)?;
        let row = ledger::put(Table::LocalNetworks, id.0, encode(&network.definition));
        self.ledger.commit("local-network-create", vec![row])?;
        self.networks.insert(id, network);
        Ok(())
    }

    /// Parents are shared as in Docker: by macvlan networks, unless one is in mode passthru.
    fn check_parent(&self, network: &Network) -> Result<(), LocalError> {
        let Some((options, parent)) = network.parent.as_ref().zip(network.parent()) else { return Ok(()) };
        let driver = network.definition.driver;
        let others = self.networks.values().filter(|other| {
            other.definition.driver == driver && other.definition.id != network.definition.id
        });
        for other in others.filter(|other| other.parent().as_ref() == Some(&parent)) {
            let (id, parent) = (other.definition.id, parent.name().to_owned());
            let passthru = other.parent.as_ref().is_some_and(ParentOptions::is_passthru);
            if driver == Driver::Ipvlan {
                return Err(LocalError::ParentTaken { other: format!("dm-{}", id.short()), parent });
            } else if options.is_passthru() {
                return Err(LocalError::PassthruShared { other: id.long(), parent });
            } else if passthru {
                return Err(LocalError::PassthruTaken { other: id.long(), parent });
            }
        }
        Ok(())
    }

    /// Removes a network, durably.
    ///
    /// # Errors
    /// It is predefined, has endpoints, or the state cannot be made durable; then it is still there.
    pub fn remove(&mut self, id: NetworkId) -> Result<(), LocalError> {
        let definition = &self.network(id)?.definition;
        if definition.is_predefined() {
            return Err(LocalError::Predefined(definition.name.clone()));
        }
        let endpoints: Vec<_> = (self.endpoints.iter())
            .filter(|(_, endpoint)| endpoint.network == id)
            .map(|(id, endpoint)| (endpoint.name.to_string(), *id))
            .collect();
        if !endpoints.is_empty() {
            let name = definition.name.to_string();
            return Err(NetworkError::Active { name, endpoints }.into());
        }
        self.ledger.commit("local-network-remove", vec![ledger::delete(Table::LocalNetworks, id.0)])?;
        self.networks.remove(&id);
        Ok(())
    }

    fn network(&self, id: NetworkId) -> Result<&Network, NetworkError> {
        self.networks.get(&id).ok_or_else(|| NetworkError::NoNetwork(id.long()))
    }

    /// How a network was made.
    #[must_use]
    pub fn definition(&self, id: NetworkId) -> Option<&Definition> {
        self.networks.get(&id).map(|network| &network.definition)
    }

    /// Names by id.
    pub fn names(&self) -> impl Iterator<Item = (NetworkId, &str)> {
        self.networks.iter().map(|(id, network)| (*id, network.definition.name.as_str()))
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data of bounded size has an encoding")
}

fn decode<T: DeserializeOwned>(row: &[u8], what: &'static str) -> Result<T, LocalError> {
    postcard::from_bytes(row).map_err(|_| LocalError::Corrupt(what))
}
