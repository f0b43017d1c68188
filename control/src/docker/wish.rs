//! What a network of Docker is to be in weft: read from the engine's call, and from what a watcher tells of it later.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::protocol::{CreateNetwork, IpamData};
use super::{ADDRESS_SPACE, DRIVER, NETWORK};
use crate::api::{Ipam, IpamConfig, NetworkCreate};
use crate::network::{ADDRESSES, OF_ENGINE, shortened};

/// Under this the engine hands on the user's driver options.
const GENERIC: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// What a network of Docker is to be in weft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// What it is.
    pub kind: Kind,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Driver options, without those that say what it is.
    pub options: BTreeMap<String, String>,
    /// Its subnets.
    pub subnets: Vec<IpamData>,
}

/// What a network of Docker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A network of weft that is there, as its user names it.
    Known(String),
    /// A network of the cluster.
    Overlay,
    /// A network of this host, of this driver.
    Local(String),
}

/// What the engine tells of a network outside the plugin's calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Parts of subnets that automatic addresses come from, by subnet.
    pub ranges: BTreeMap<String, String>,
}

/// A wish that cannot be fulfilled; the user's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// Options come as texts.
    #[error("invalid value of driver option {0:?}: it must be a text")]
    Option(String),
    /// No such driver.
    #[error("invalid value {0:?} for {DRIVER}: it must be overlay, bridge, macvlan or ipvlan")]
    Driver(String),
    /// Addresses of a network that is there are weft's to give.
    #[error(
        "a network of weft that is there gives out its addresses itself: add --ipam-driver weft --ipam-opt {NETWORK}={0}"
    )]
    Addresses(String),
    /// Networks of one host leave addresses to the engine.
    #[error("networks of {DRIVER}={0} get their addresses from Docker: leave --ipam-driver out")]
    LocalAddresses(String),
}

impl Wish {
    /// Reads the call that makes a network.
    ///
    /// # Errors
    /// The user's fault.
    pub fn read(call: &CreateNetwork) -> Result<Self, WishError> {
        let mut options = generic(call.options.get(GENERIC))?;
        // The address manager `null` says so where it has none.
        let none = |subnet: &&IpamData| ["0.0.0.0/0", "::/0"].contains(&subnet.pool.as_str());
        let subnets = call.ipv4.iter().chain(&call.ipv6).filter(|subnet| !none(subnet));
        let subnets: Vec<IpamData> = subnets.cloned().collect();
        let kind = kind(options.remove(NETWORK), options.remove(DRIVER))?;
        let wish = Self {
            kind,
            internal: is_set(call.options.get(INTERNAL)),
            ipv6: is_set(call.options.get(ENABLE_IPV6)) || !call.ipv6.is_empty(),
            options,
            subnets,
        };
        match &wish.kind {
            Kind::Known(network) if wish.is_engine_addressed() => {
                Err(WishError::Addresses(shortened(network)))
            }
            // Without any from the engine weft would choose some that the engine uses.
            Kind::Local(driver) if !wish.is_engine_addressed() => {
                Err(WishError::LocalAddresses(driver.clone()))
            }
            _ => Ok(wish),
        }
    }

    /// Whether the engine hands out some of its addresses.
    #[must_use]
    pub fn is_engine_addressed(&self) -> bool {
        self.subnets.iter().any(|subnet| subnet.address_space != ADDRESS_SPACE)
    }

    /// Its prefixes, as far as they are some.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.subnets.iter().filter_map(|subnet| subnet.pool.parse().ok())
    }

    /// The request for the network of weft.
    #[must_use]
    pub fn request(&self, told: &Told) -> NetworkCreate {
        let mut options = self.options.clone();
        let driver = match &self.kind {
            Kind::Local(driver) => driver.clone(),
            Kind::Known(_) | Kind::Overlay => "overlay".to_owned(),
        };
        if driver == "overlay" && self.is_engine_addressed() {
            options.insert(ADDRESSES.to_owned(), OF_ENGINE.to_owned());
        }
        let config = self.subnets.iter().map(|subnet| config(subnet, told)).collect();
        NetworkCreate {
            name: told.name.clone(),
            driver,
            enable_ipv6: self.ipv6,
            ipam: Ipam { config, ..Ipam::default() },
            options,
            labels: told.labels.clone(),
            attachable: true,
            internal: self.internal,
        }
    }
}

fn kind(network: Option<String>, driver: Option<String>) -> Result<Kind, WishError> {
    match (network, driver.as_deref().unwrap_or("overlay")) {
        (Some(network), _) => Ok(Kind::Known(network)),
        (None, "overlay") => Ok(Kind::Overlay),
        (None, local @ ("bridge" | "macvlan" | "ipvlan")) => Ok(Kind::Local(local.to_owned())),
        (None, other) => Err(WishError::Driver(shortened(other))),
    }
}

fn generic(value: Option<&Value>) -> Result<BTreeMap<String, String>, WishError> {
    let Some(Value::Object(generic)) = value else { return Ok(BTreeMap::new()) };
    let text = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        _ => Err(WishError::Option(shortened(key))),
    };
    generic.iter().map(text).collect()
}

fn is_set(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value == true || value == "true")
}

fn config(subnet: &IpamData, told: &Told) -> IpamConfig {
    let address = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    let auxiliary = subnet.aux_addresses.iter().map(|(name, text)| (name.clone(), address(text)));
    let gateway = match address(&subnet.gateway) {
        none if none.is_empty() => last_address(&subnet.pool).unwrap_or_default(),
        gateway => gateway,
    };
    IpamConfig {
        subnet: subnet.pool.clone(),
        ip_range: told.ranges.get(&subnet.pool).cloned().unwrap_or_default(),
        gateway,
        auxiliary_addresses: auxiliary.collect(),
    }
}

/// Where the engine has set no address aside for a gateway, the last one is: it hands out the lowest.
fn last_address(pool: &str) -> Option<String> {
    let prefix: IpNet = pool.parse().ok()?;
    let last = match prefix {
        IpNet::V4(v4) => v4.hosts().next_back()?.to_string(),
        IpNet::V6(v6) => v6.broadcast().to_string(),
    };
    Some(last)
}
