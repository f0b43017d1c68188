//! From a user's wishes to a definition.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::options::{MIN_MTU_V6, OptionError, Options, in_one_spelling};
use super::pools::{default_gateway, free_global, unique_local};
use super::validate::{self, SubnetWish};
use super::{Class, Definition, Subnet};
use crate::api::{IpamConfig, NetworkCreate};
use crate::ipam::number;
use crate::model::{InvalidName, Name, NetworkId, NodeId};
use crate::timestamp::UnixMillis;

/// Names Docker keeps for networks it makes itself.
const PREDEFINED: [&str; 5] = ["bridge", "host", "none", "default", "ingress"];

/// Why a network cannot be made; nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The name is kept for a built-in network; Docker's text, its last space included.
    #[error("operation is not permitted on predefined {0} network ")]
    Predefined(Name),
    /// No such driver here.
    #[error(
        "could not find plugin {0} in v1 plugin registry: plugin not found: weft has the drivers bridge, overlay, macvlan \
         and ipvlan"
    )]
    Driver(String),
    /// No such address manager here.
    #[error("invalid IPAM driver {0:?}: weft has the driver default")]
    IpamDriver(String),
    /// A driver option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Subnets, ranges, gateways: one line per fault.
    #[error("invalid network config:\n{}", .0.join("\n"))]
    Config(Vec<String>),
    /// A subnet is in use by another network, or given twice.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// No default pool is left.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the \
         network: {0} is in use"
    )]
    NoPool(&'static str),
    /// The gateway is given to another.
    #[error("failed to allocate gateway ({0}): Address already in use")]
    Gateway(std::net::IpAddr),
    /// A subnet or range without an address for the gateway.
    #[error("failed to allocate gateway (): no available addresses on this pool")]
    NoGateway,
    /// Labels, options or auxiliary addresses beyond what one record holds.
    #[error("the network's definition has {0} octets, at most {max} fit: shorten its labels", max = super::MAX_DEFINITION)]
    TooBig(usize),
}

impl CreateError {
    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Overlap | Self::Predefined(_) => Class::Refused,
            Self::Driver(_) => Class::NotFound,
            _ => Class::Invalid,
        }
    }
}

/// What a user may wish of a network whatever its driver, each text understood.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) name: Name,
    pub(crate) subnets: Vec<SubnetWish>,
    pub(crate) ipv6: bool,
    pub(crate) internal: bool,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Wish {
    /// Reads a request; its driver and that one's options are left to who knows them.
    ///
    /// # Errors
    /// The user's fault, in Docker's words where Docker has some.
    pub(crate) fn parse(request: NetworkCreate) -> Result<Self, CreateError> {
        let name = admit_name(&request.name)?;
        if !["", "default"].contains(&request.ipam.driver.as_str()) {
            return Err(CreateError::IpamDriver(shortened(&request.ipam.driver)));
        }
        let subnets = validate::subnets(&request.ipam.config)?;
        let ipv6 = request.enable_ipv6 || subnets.iter().any(|wish| wish.prefix.addr().is_ipv6());
        let NetworkCreate { internal, options, labels, .. } = request;
        Ok(Self { name, subnets, ipv6, internal, options, labels })
    }

    /// The subnets: those asked for, an IPv4 one where none was, and an IPv6 one where only the family was. `free`
    /// finds an IPv4 one of a length, beside those in use, where any will do.
    ///
    /// # Errors
    /// A subnet overlaps one in `used`, or nothing is free.
    pub(crate) fn place(
        &self,
        id: NetworkId,
        used: &[IpNet],
        free: impl Fn(Option<u8>, &[IpNet]) -> Result<IpNet, CreateError>,
    ) -> Result<Vec<Subnet>, CreateError> {
        let mut taken = used.to_vec();
        let mut subnets = Vec::new();
        for wish in self.with_defaults(id) {
            let prefix = match wish.prefix {
                IpNet::V4(any) if wish.is_any() => {
                    free(Some(any.prefix_len()).filter(|&len| len != 0), &taken)?
                }
                IpNet::V6(_) if wish.is_any() => unique_local(id),
                prefix if taken.iter().any(|&other| validate::overlap(other, prefix)) => {
                    return Err(CreateError::Overlap);
                }
                prefix => prefix,
            };
            taken.push(prefix);
            subnets.push(complete(wish, prefix)?);
        }
        Ok(subnets)
    }

    fn with_defaults(&self, id: NetworkId) -> Vec<SubnetWish> {
        let any =
            |prefix| SubnetWish { prefix, ip_range: None, gateway: None, auxiliary: Default::default() };
        let mut wishes = self.subnets.clone();
        if !wishes.iter().any(|wish| wish.prefix.addr().is_ipv4()) {
            wishes.insert(0, any(IpNet::V4(ipnet::Ipv4Net::default())));
        }
        if self.ipv6 && !wishes.iter().any(|wish| wish.prefix.addr().is_ipv6()) {
            wishes.push(any(unique_local(id)));
        }
        wishes
    }
}

/// A name that a user's network may have.
///
/// # Errors
/// It is none, or kept for a built-in network.
pub(crate) fn admit_name(text: &str) -> Result<Name, CreateError> {
    let name: Name = text.parse()?;
    if PREDEFINED.contains(&name.as_str()) { Err(CreateError::Predefined(name)) } else { Ok(name) }
}

/// A user's text in an error, bounded.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A user's wishes for a network of the cluster; what is left open depends on the networks that exist.
#[derive(Debug, Clone)]
pub struct NetworkWish {
    wish: Wish,
    options: Options,
}

impl NetworkWish {
    /// Reads a request.
    ///
    /// # Errors
    /// The user's fault, in Docker's words where Docker has some.
    pub fn parse(request: NetworkCreate) -> Result<Self, CreateError> {
        if !["", "overlay"].contains(&request.driver.as_str()) {
            return Err(CreateError::Driver(shortened(&request.driver)));
        }
        let options = Options::parse(&request.options)?;
        let wish = Wish::parse(request)?;
        if let Some(mtu) = options.mtu.filter(|&mtu| wish.ipv6 && mtu < MIN_MTU_V6) {
            return Err(OptionError::Mtu(format!("{mtu} (IPv6 needs {MIN_MTU_V6})")).into());
        }
        Ok(Self { wish, options })
    }

    /// The wanted name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.wish.name
    }

    /// The driver options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Makes the definition; `used` are the subnets of every known network, `underlay` addresses of hosts, which
    /// default pools keep away from.
    ///
    /// # Errors
    /// A subnet overlaps, or nothing is free.
    pub fn define(
        self,
        id: NetworkId,
        creator: NodeId,
        created: UnixMillis,
        used: &[IpNet],
        underlay: &[IpNet],
    ) -> Result<Definition, CreateError> {
        let free = |len, taken: &[IpNet]| {
            let avoided: Vec<IpNet> = taken.iter().chain(underlay).copied().collect();
            // Better a pool that a host's own network overlaps than none: namespaces keep them apart.
            free_global(len, &avoided)
                .or_else(|| free_global(len, taken))
                .ok_or(CreateError::NoPool("10.0.0.0/8"))
        };
        let subnets = self.wish.place(id, used, free)?;
        let Wish { name, internal, options, labels, .. } = self.wish;
        let options = in_one_spelling(options);
        let definition = Definition { id, name, created, creator, subnets, internal, options, labels };
        validate::bounded(&definition)?;
        Ok(definition)
    }
}

/// Fills in the gateway and holds the reserved addresses apart.
fn complete(wish: SubnetWish, prefix: IpNet) -> Result<Subnet, CreateError> {
    let SubnetWish { ip_range, gateway, auxiliary, .. } = wish;
    let others: Vec<_> = auxiliary.values().copied().collect();
    let gateway = match gateway {
        Some(gateway) if others.contains(&gateway) => return Err(CreateError::Gateway(gateway)),
        Some(gateway) => gateway,
        None => default_gateway(prefix, ip_range, &others).ok_or(CreateError::NoGateway)?,
    };
    let inside = |ip: &std::net::IpAddr| prefix.contains(ip);
    if !others.iter().chain([&gateway]).all(inside) || ip_range.is_some_and(|range| !prefix.contains(&range))
    {
        return Err(CreateError::Config(vec![format!(
            "invalid subnet {prefix}: gateway, ip-range and auxiliary addresses need a subnet that is named"
        )]));
    }
    debug_assert!(crate::ipam::Range::of(prefix).contains(number(gateway)));
    Ok(Subnet { prefix, ip_range, gateway, auxiliary })
}

impl Definition {
    /// Its subnets in the API's words.
    #[must_use]
    pub fn shown_subnets(&self) -> Vec<IpamConfig> {
        self.subnets.iter().map(validate::shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Ipam;

    /// Subnet, range and gateway.
    type Entry = (&'static str, &'static str, &'static str);

    const ID: NetworkId = NetworkId([7; 16]);

    fn request(config: &[(&str, &str, &str)]) -> NetworkCreate {
        let entry = |&(subnet, range, gateway): &(&str, &str, &str)| IpamConfig {
            subnet: subnet.to_owned(),
            ip_range: range.to_owned(),
            gateway: gateway.to_owned(),
            ..Default::default()
        };
        let ipam = Ipam { config: config.iter().map(entry).collect(), ..Default::default() };
        NetworkCreate { name: "n1".to_owned(), ipam, ..Default::default() }
    }

    fn define(request: NetworkCreate, used: &[&str]) -> Result<Definition, CreateError> {
        let used: Vec<IpNet> = used.iter().map(|t| t.parse().expect("a prefix")).collect();
        NetworkWish::parse(request)?.define(ID, NodeId([1; 16]), UnixMillis(1), &used, &[])
    }

    fn text(request: NetworkCreate, used: &[&str]) -> String {
        define(request, used).expect_err("refused").to_string()
    }

    #[test]
    fn a_network_without_wishes_gets_a_free_16_and_its_first_address_as_gateway() {
        let definition = define(request(&[]), &["10.0.0.0/16"]).expect("valid");
        let [subnet] = &definition.subnets[..] else { panic!("one subnet: {:?}", definition.subnets) };
        assert_eq!(subnet.prefix.to_string(), "10.1.0.0/16");
        assert_eq!(subnet.gateway.to_string(), "10.1.0.1");
        assert!(definition.check().is_ok());
    }

    #[test]
    fn default_pools_keep_away_from_the_underlay() {
        let underlay = ["10.0.0.0/24".parse().expect("a prefix")];
        let wish = NetworkWish::parse(request(&[])).expect("valid");
        let definition = wish.define(ID, NodeId([1; 16]), UnixMillis(1), &[], &underlay).expect("free");
        assert_eq!(definition.subnets[0].prefix.to_string(), "10.1.0.0/16");
    }

    #[test]
    fn ipv6_adds_a_unique_local_64_and_a_v6_subnet_brings_an_ipv4_one() {
        let dual = define(NetworkCreate { enable_ipv6: true, ..request(&[]) }, &[]).expect("valid");
        assert_eq!(dual.subnets[1].prefix.prefix_len(), 64);
        let given = define(request(&[("fd00:1::/64", "", "")]), &[]).expect("valid");
        assert_eq!(given.subnets[0].prefix.to_string(), "10.0.0.0/16");
        assert_eq!(given.subnets[1].gateway.to_string(), "fd00:1::1");
    }

    #[test]
    fn any_pool_of_a_size_can_be_asked_for() {
        let definition = define(request(&[("0.0.0.0/24", "", "")]), &["10.0.0.0/24"]).expect("valid");
        assert_eq!(definition.subnets[0].prefix.to_string(), "10.0.1.0/24");
    }

    #[test]
    fn faults_of_the_configuration_have_dockers_words() {
        let cases: [(&[Entry], &str); 9] = [
            (&[("10.0.0.5/24", "", "")], "invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24"),
            (
                &[("10.0.0.0/24", "10.0.0.0/16", "")],
                "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24",
            ),
            (&[("10.0.0.0/24", "10.0.0.7/25", "")], "invalid ip-range 10.0.0.7/25: it should be 10.0.0.0/25"),
            (
                &[("10.0.0.0/24", "10.0.1.0/25", "")],
                "invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range",
            ),
            (
                &[("10.0.0.0/24", "", "10.0.1.1")],
                "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
            ),
            (&[("10.0.0.0/24", "", "gw")], "invalid gateway gw: invalid address"),
            (&[("10.0.0.0/24", "", "fd00::1")], "invalid gateway fd00::1: parent subnet is an IPv4 block"),
            (&[("10.0.0.0", "", "")], "invalid subnet 10.0.0.0: invalid CIDR block notation"),
            (
                &[("10.0.0.5/24", "", "10.9.9.9")],
                "invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24\n\
                 invalid gateway 10.9.9.9: parent subnet 10.0.0.5/24 doesn't contain this address",
            ),
        ];
        for (config, expected) in cases {
            assert_eq!(text(request(config), &[]), format!("invalid network config:\n{expected}"));
        }
    }

    #[test]
    fn faults_of_auxiliary_addresses_are_named() {
        let mut bad = request(&[("10.0.0.0/24", "", "10.0.0.1")]);
        bad.ipam.config[0].auxiliary_addresses.insert("router".to_owned(), "10.1.0.1".to_owned());
        let expected = "invalid network config:\ninvalid auxiliary address router: \
                        parent subnet 10.0.0.0/24 doesn't contain this address";
        assert_eq!(text(bad.clone(), &[]), expected);
        bad.ipam.config[0].auxiliary_addresses.insert("router".to_owned(), "10.0.0.1".to_owned());
        assert_eq!(text(bad, &[]), "failed to allocate gateway (10.0.0.1): Address already in use");
    }

    #[test]
    fn subnets_that_overlap_others_or_each_other_are_refused() {
        let overlap = "invalid pool request: Pool overlaps with other one on this address space";
        assert_eq!(text(request(&[("10.5.0.0/24", "", "")]), &["10.5.0.0/16"]), overlap);
        assert_eq!(text(request(&[("10.5.0.0/24", "", ""), ("10.5.0.128/25", "", "")]), &[]), overlap);
    }

    #[test]
    fn unknown_drivers_reserved_names_and_oversized_labels_are_refused() {
        let driver = NetworkCreate { driver: "wan".to_owned(), ..request(&[]) };
        assert!(text(driver, &[]).starts_with("could not find plugin wan in v1 plugin registry"));
        let named = |name: &str| NetworkCreate { name: name.to_owned(), ..request(&[]) };
        assert_eq!(text(named("host"), &[]), "operation is not permitted on predefined host network ");
        assert!(text(named("../x"), &[]).starts_with("invalid name"));
        let mut labelled = request(&[]);
        labelled.labels.insert("k".to_owned(), "v".repeat(4_000));
        assert!(text(labelled, &[]).contains("at most 3500 fit"));
    }

    #[test]
    fn subnets_nobody_can_live_in_are_refused() {
        for subnet in ["224.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "fe80::/64", "10.0.0.1/32", "ff00::/8"]
        {
            assert!(
                text(request(&[(subnet, "", "")]), &[]).starts_with("invalid network config:"),
                "{subnet}"
            );
        }
    }

    #[test]
    fn a_definition_from_a_broken_member_is_refused() {
        let good = define(request(&[]), &[]).expect("valid");
        let mut outside = good.clone();
        outside.subnets[0].gateway = "192.0.2.1".parse().expect("an address");
        let mut twice = good.clone();
        twice.subnets.push(twice.subnets[0].clone());
        let mut none = good;
        none.subnets.clear();
        for bad in [outside, twice, none] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
