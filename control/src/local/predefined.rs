//! The networks that are always there.

use ipnet::IpNet;
use rand::RngExt as _;

use super::definition::PREDEFINED;
use super::options::{BridgeOptions, parse_interface};
use super::{Definition, Driver, Local, LocalError};
use crate::ipam::Range;
use crate::model::NetworkId;
use crate::network::{CreateError, LOCAL_POOLS, Subnet, free_local, overlap, shortened};
use crate::timestamp::UnixMillis;

/// Bridge of the network `bridge` where nothing else is said.
const INTERFACE: &str = "weft0";

/// How the predefined network `bridge` is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The gateway's address with the length of the subnet (`--bip`).
    pub bip: Option<IpNet>,
    /// Name of its interface (`--bridge`).
    pub interface: Option<String>,
}

/// A default that cannot be meant; the operator's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefaultsError {
    /// No address with room for a gateway and others.
    #[error(
        "--bip {0:?}: it must be the gateway's address with the length of the subnet, e.g. 172.17.0.1/16"
    )]
    Bip(String),
    /// No name of an interface.
    #[error("--bridge {0:?}: it must be the name of an interface: at most 15 letters, digits, '_' and '-'")]
    Interface(String),
}

impl Defaults {
    /// Reads `--bip`: an IPv4 address that a host can have, with the length of its subnet.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_bip(text: &str) -> Result<IpNet, DefaultsError> {
        let net = text.parse::<IpNet>().ok().filter(|net| {
            let (ip, inside) = (net.addr(), net.prefix_len() <= 30);
            let edge = ip == net.network() || ip == net.broadcast();
            ip.is_ipv4() && inside && !edge && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()
        });
        net.ok_or_else(|| DefaultsError::Bip(shortened(text)))
    }

    /// Reads `--bridge`.
    ///
    /// # Errors
    /// No interface can have that name.
    pub fn parse_interface(text: &str) -> Result<String, DefaultsError> {
        let wrong = || DefaultsError::Interface(shortened(text));
        parse_interface(text).ok().flatten().ok_or_else(wrong)
    }
}

impl Local {
    /// Makes the predefined networks that are missing, and `bridge` anew where it is to be otherwise.
    pub(super) fn predefine(
        &mut self,
        wall: UnixMillis,
        host: &[IpNet],
        defaults: &Defaults,
    ) -> Result<(), LocalError> {
        for (name, driver) in PREDEFINED {
            let mut all = self.networks.values().map(|network| &network.definition);
            let before = all.find(|definition| definition.name.as_str() == name).cloned();
            let Some(definition) = self.predefined(name, driver, before.as_ref(), host, defaults)? else {
                continue;
            };
            let created = before.map_or(wall, |before| before.created);
            self.add(Definition { created, ..definition })?;
        }
        Ok(())
    }

    /// The definition a predefined network gets, if it is not as it should be.
    fn predefined(
        &mut self,
        name: &str,
        driver: Driver,
        before: Option<&Definition>,
        host: &[IpNet],
        defaults: &Defaults,
    ) -> Result<Option<Definition>, LocalError> {
        let id = before.map_or_else(|| NetworkId(self.rng.random()), |before| before.id);
        let (subnets, options) = match driver {
            Driver::Bridge => {
                let interface = defaults.interface.as_deref().unwrap_or(INTERFACE);
                let subnet = self.subnet_of_bridge(before, host, defaults)?;
                (vec![subnet], BridgeOptions::of_predefined(interface))
            }
            Driver::Host | Driver::Null | Driver::Macvlan | Driver::Ipvlan => {
                (Vec::new(), Default::default())
            }
        };
        if before.is_some_and(|before| before.subnets == subnets && before.options == options) {
            return Ok(None);
        }
        let name = name.parse().map_err(CreateError::Name)?;
        let (created, internal, labels) = (UnixMillis(0), false, Default::default());
        Ok(Some(Definition { id, name, created, driver, subnets, internal, options, labels }))
    }

    fn subnet_of_bridge(
        &self,
        before: Option<&Definition>,
        host: &[IpNet],
        defaults: &Defaults,
    ) -> Result<Subnet, LocalError> {
        let before = before.and_then(|before| Some((before.id, before.subnets.first()?.clone())));
        let wanted = match (defaults.bip, &before) {
            (None, Some((_, subnet))) => return Ok(subnet.clone()),
            (Some(bip), _) => Subnet {
                prefix: bip.trunc(),
                ip_range: None,
                gateway: bip.addr(),
                auxiliary: Default::default(),
            },
            (None, None) => {
                let used: Vec<IpNet> = self.subnets().into_iter().chain(host.iter().copied()).collect();
                let prefix = free_local(None, &used).ok_or(CreateError::NoPool(LOCAL_POOLS))?;
                let gateway = Range::address(prefix, Range::of(prefix).first() + 1);
                Subnet { prefix, ip_range: None, gateway, auxiliary: Default::default() }
            }
        };
        let others = self
            .networks
            .values()
            .filter(|network| Some(network.definition.id) != before.as_ref().map(|b| b.0));
        let mut others = others.flat_map(|network| &network.definition.subnets);
        if others.any(|other| overlap(other.prefix, wanted.prefix)) {
            return Err(CreateError::Overlap.into());
        }
        match before {
            Some((id, subnet)) if subnet != wanted && self.endpoints.values().any(|e| e.network == id) => {
                let wanted = format!("{}/{}", wanted.gateway, wanted.prefix.prefix_len());
                Err(LocalError::Bip { wanted, subnet: subnet.prefix.to_string() })
            }
            _ => Ok(wanted),
        }
    }
}
