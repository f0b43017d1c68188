//! Docker's rules for subnets, ranges, gateways and auxiliary addresses, with Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::create::{CreateError, shortened};
use super::{Definition, MAX_DEFINITION, MAX_SUBNETS, Subnet};
use crate::api::IpamConfig;
use crate::ipam::Range;

/// A subnet as a user wrote it, each text parsed and in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubnetWish {
    /// With an unspecified address: any pool of that length.
    pub(crate) prefix: IpNet,
    pub(super) ip_range: Option<IpNet>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) auxiliary: BTreeMap<String, IpAddr>,
}

impl SubnetWish {
    /// `0.0.0.0/N` and `::/N` mean any pool of that length.
    pub(super) fn is_any(&self) -> bool {
        self.prefix.addr().is_unspecified()
    }
}

/// Parses every entry and answers either all of them or one line per fault.
pub(super) fn subnets(configs: &[IpamConfig]) -> Result<Vec<SubnetWish>, CreateError> {
    if configs.len() > MAX_SUBNETS {
        return Err(CreateError::Config(vec![format!(
            "{} subnets are too many: at most {MAX_SUBNETS}",
            configs.len()
        )]));
    }
    let mut faults = Vec::new();
    let wishes = configs.iter().filter_map(|config| subnet(config, &mut faults)).collect();
    if faults.is_empty() { Ok(wishes) } else { Err(CreateError::Config(faults)) }
}

fn subnet(config: &IpamConfig, faults: &mut Vec<String>) -> Option<SubnetWish> {
    let text = shortened(&config.subnet);
    let Ok(prefix) = config.subnet.parse::<IpNet>() else {
        faults.push(format!("invalid subnet {text}: invalid CIDR block notation"));
        return None;
    };
    let mut fault = |what: String| faults.push(what);
    if prefix != prefix.trunc() {
        fault(format!("invalid subnet {prefix}: it should be {}", prefix.trunc()));
    }
    if let Some(why) = unusable(prefix) {
        fault(format!("invalid subnet {prefix}: {why}"));
    }
    let ip_range = (!config.ip_range.is_empty()).then(|| ip_range(&config.ip_range, prefix));
    let gateway = (!config.gateway.is_empty()).then(|| address(&config.gateway, prefix));
    let mut wish = SubnetWish { prefix, ip_range: None, gateway: None, auxiliary: BTreeMap::new() };
    match ip_range.transpose() {
        Ok(range) => wish.ip_range = range,
        Err(why) => fault(format!("invalid ip-range {}: {why}", shortened(&config.ip_range))),
    }
    match gateway.transpose() {
        Ok(gateway) => wish.gateway = gateway,
        Err(why) => fault(format!("invalid gateway {}: {why}", shortened(&config.gateway))),
    }
    for (name, text) in &config.auxiliary_addresses {
        match address(text, prefix) {
            Ok(ip) => drop(wish.auxiliary.insert(name.clone(), ip)),
            Err(why) => fault(format!("invalid auxiliary address {}: {why}", shortened(name))),
        }
    }
    Some(wish)
}

fn ip_range(text: &str, subnet: IpNet) -> Result<IpNet, String> {
    let range: IpNet = text.parse().map_err(|_| "invalid CIDR block notation".to_owned())?;
    same_family(range.addr(), subnet)?;
    if range.prefix_len() < subnet.prefix_len() {
        return Err(format!("CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range != range.trunc() {
        return Err(format!("it should be {}", range.trunc()));
    }
    if !subnet.contains(&range) && !subnet.addr().is_unspecified() {
        return Err(format!("parent subnet {subnet} doesn't contain ip-range"));
    }
    Ok(range)
}

fn address(text: &str, subnet: IpNet) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    same_family(ip, subnet)?;
    if !subnet.contains(&ip) && !subnet.addr().is_unspecified() {
        return Err(format!("parent subnet {subnet} doesn't contain this address"));
    }
    Ok(ip)
}

fn same_family(ip: IpAddr, subnet: IpNet) -> Result<(), String> {
    if ip.is_ipv4() == subnet.addr().is_ipv4() {
        return Ok(());
    }
    Err(format!("parent subnet is an IPv{} block", if subnet.addr().is_ipv4() { 4 } else { 6 }))
}

/// Why no endpoint could live in `prefix`.
fn unusable(prefix: IpNet) -> Option<&'static str> {
    let ip = prefix.addr();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_multicast() || ip.is_loopback() || link_local || prefix.prefix_len() == 0 {
        Some("it is not a range that endpoints can have addresses of")
    } else if prefix.prefix_len() == prefix.max_prefix_len() {
        Some("it has no address left beside the gateway")
    } else {
        None
    }
}

/// Holds a definition of another node to the rules a local one is made by.
pub(super) fn definition(definition: &Definition) -> Result<(), CreateError> {
    let configs: Vec<IpamConfig> = definition.subnets.iter().map(shown).collect();
    let unusual = definition.subnets.is_empty() || subnets(&configs)?.iter().any(SubnetWish::is_any);
    if unusual || overlapping(&definition.subnets) {
        return Err(CreateError::Overlap);
    }
    bounded(definition)
}

/// Refuses definitions that do not fit in one record.
pub(super) fn bounded(definition: &Definition) -> Result<(), CreateError> {
    let octets = postcard::to_stdvec(definition).map_or(usize::MAX, |encoded| encoded.len());
    if octets > MAX_DEFINITION { Err(CreateError::TooBig(octets)) } else { Ok(()) }
}

/// Whether two of the subnets overlap.
pub(super) fn overlapping(subnets: &[Subnet]) -> bool {
    let pair = |i: usize| subnets[..i].iter().any(|other| overlap(other.prefix, subnets[i].prefix));
    (0..subnets.len()).any(pair)
}

/// Whether two prefixes share an address.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.addr().is_ipv4() == b.addr().is_ipv4() && Range::of(a).intersection(Range::of(b)).is_some()
}

/// A subnet in the API's words.
pub(crate) fn shown(subnet: &Subnet) -> IpamConfig {
    IpamConfig {
        subnet: subnet.prefix.to_string(),
        ip_range: subnet.ip_range.map(|r| r.to_string()).unwrap_or_default(),
        gateway: subnet.gateway.to_string(),
        auxiliary_addresses: subnet.auxiliary.iter().map(|(n, ip)| (n.clone(), ip.to_string())).collect(),
    }
}
