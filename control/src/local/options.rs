//! Driver options of bridge networks, and why options are refused; both `com.docker.network.…` and `weft.…` are understood.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Driver;
use crate::driver::is_interface_name;
use crate::network::{DHCP, shortened};

/// What Docker's options begin with.
pub(super) const DOCKER: &str = "com.docker.network.";
/// Our own spelling of the same.
const WEFT: &str = "weft.";
pub(super) const NAME: &str = "bridge.name";
pub(super) const ICC: &str = "bridge.enable_icc";
const MASQUERADE: &str = "bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "bridge.host_binding_ipv4";
const INHIBIT: &str = "bridge.inhibit_ipv4";
const DEFAULT: &str = "bridge.default_bridge";
pub(super) const MTU: &str = "driver.mtu";
pub(super) const PREFIX: &str = "container_iface_prefix";
/// Largest packet where nothing else is said, octets.
pub(super) const DEFAULT_MTU: u16 = 1500;
/// IPv4 links must take 68 octets (RFC 791 §3.2).
const MIN_MTU: u16 = 68;
/// IPv6 links must take 1280 (RFC 8200 §5).
const MIN_MTU_V6: u16 = 1280;
/// Longest prefix of an interface's name, so that a number fits behind it.
const PREFIX_MAX: usize = 11;

/// What the driver options of a bridge network say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Name of the bridge's interface, if it is to have a certain one.
    pub interface: Option<String>,
    /// Whether its endpoints may talk to each other.
    pub icc: bool,
    /// Whether what leaves the host gets an address of the host.
    pub masquerade: bool,
    /// Address that ports are published on where none is given.
    pub host_binding: Option<IpAddr>,
    /// Whether the bridge has no IPv4 address of its own.
    pub inhibit_ipv4: bool,
    /// Largest packet, octets.
    pub mtu: u16,
    /// What names of interfaces in sandboxes begin with.
    pub prefix: String,
    /// Whether endpoints get their addresses by DHCP, too.
    pub dhcp: bool,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            interface: None,
            icc: true,
            masquerade: true,
            host_binding: None,
            inhibit_ipv4: false,
            mtu: DEFAULT_MTU,
            prefix: "eth".to_owned(),
            dhcp: false,
        }
    }
}

/// An option that cannot be meant; the user's fault, nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows this key.
    #[error(
        "unknown driver option {0:?}: the driver bridge knows {DOCKER}{NAME}, {ICC}, {MASQUERADE}, {HOST_BINDING}, \
         {INHIBIT}, {MTU} and {PREFIX}, and {DHCP}"
    )]
    Unknown(String),
    /// Nobody knows this key of a driver with a parent.
    #[error(
        "unknown driver option {key:?}: the driver {driver} knows parent, {}, {DOCKER}{MTU} and {DOCKER}{PREFIX}",
        if *.driver == Driver::Ipvlan { "ipvlan_mode, ipvlan_flag" } else { "macvlan_mode" }
    )]
    UnknownToParent {
        /// The key.
        key: String,
        /// The driver.
        driver: Driver,
    },
    /// Not a mode.
    #[error("requested macvlan mode '{0}' is not valid, 'bridge' mode is the macvlan driver default")]
    MacvlanMode(String),
    /// Not a mode.
    #[error("requested ipvlan mode '{0}' is not valid, 'l2' mode is the ipvlan driver default")]
    IpvlanMode(String),
    /// Not a flag.
    #[error("requested ipvlan flag '{0}' is not valid, 'bridge' is the ipvlan driver default")]
    IpvlanFlag(String),
    /// The loopback interface has no children.
    #[error("loopback interface is not a valid {0} parent link")]
    Loopback(Driver),
    /// No link can have that name.
    #[error("invalid parent interface name {0:?}: at most 15 characters without '/', ':' and spaces")]
    Parent(String),
    /// Not a truth value, in the words of Docker and of Go.
    #[error("failed to parse {0} value: {1} (strconv.ParseBool: parsing {1:?}: invalid syntax)")]
    Bool(String, String),
    /// Not a number, likewise.
    #[error("failed to parse {0} value: {1} (strconv.Atoi: parsing {1:?}: invalid syntax)")]
    Number(String, String),
    /// Not an address.
    #[error("failed to parse {0} value: {1} (invalid ip)")]
    Address(String, String),
    /// No packet has that size, or not with IPv6.
    #[error("invalid MTU number: {0}: it must be between {1} and 65535")]
    Mtu(i64, u16),
    /// Not a name of an interface.
    #[error("invalid interface name {0:?}: at most 15 letters, digits, '_' and '-'")]
    Interface(String),
}

impl BridgeOptions {
    /// Reads options as [`in_dockers_spelling`] gives them.
    ///
    /// # Errors
    /// The first option, in order of keys, that cannot be meant.
    pub fn parse(options: &BTreeMap<String, String>, ipv6: bool) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        for (key, value) in options {
            match key.strip_prefix(DOCKER) {
                Some(NAME) => parsed.interface = parse_interface(value)?,
                Some(ICC) => parsed.icc = boolean(key, value)?,
                Some(MASQUERADE) => parsed.masquerade = boolean(key, value)?,
                Some(INHIBIT) => parsed.inhibit_ipv4 = boolean(key, value)?,
                Some(HOST_BINDING) => parsed.host_binding = address(key, value)?,
                Some(MTU) => parsed.mtu = mtu(key, value, ipv6)?,
                Some(PREFIX) => parsed.prefix = prefix(value)?,
                Some(DEFAULT) => drop(boolean(key, value)?),
                None if key == DHCP => parsed.dhcp = boolean(key, value)?,
                _ => return Err(OptionError::Unknown(shortened(key))),
            }
        }
        Ok(parsed)
    }

    /// The options of the predefined network, all of them, as Docker shows them.
    pub(super) fn of_predefined(interface: &str) -> BTreeMap<String, String> {
        let pairs = [
            (DEFAULT, "true"),
            (ICC, "true"),
            (MASQUERADE, "true"),
            (HOST_BINDING, "0.0.0.0"),
            (NAME, interface),
            (MTU, "1500"),
        ];
        pairs.map(|(rest, value)| (key(rest), value.to_owned())).into()
    }
}

/// An option in Docker's spelling.
pub(super) fn key(rest: &str) -> String {
    format!("{DOCKER}{rest}")
}

/// Options in Docker's spelling, which is the one that is shown; unknown ones as they are.
pub(super) fn in_dockers_spelling(options: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let respell = |(key, value): (String, String)| match key.strip_prefix(WEFT) {
        Some(_) if key == DHCP => (key, value),
        Some("mtu") => (self::key(MTU), value),
        Some(rest) => (self::key(rest), value),
        None => (key, value),
    };
    options.into_iter().map(respell).collect()
}

/// Go's truth values (`strconv.ParseBool`).
pub(super) fn boolean(key: &str, text: &str) -> Result<bool, OptionError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(OptionError::Bool(key.to_owned(), shortened(text))),
    }
}

fn address(key: &str, text: &str) -> Result<Option<IpAddr>, OptionError> {
    let address: IpAddr = text.parse().map_err(|_| OptionError::Address(key.to_owned(), shortened(text)))?;
    Ok(Some(address).filter(|address| !address.is_unspecified()))
}

pub(super) fn mtu(key: &str, text: &str, ipv6: bool) -> Result<u16, OptionError> {
    let number: i64 = text.parse().map_err(|_| OptionError::Number(key.to_owned(), shortened(text)))?;
    let least = if ipv6 { MIN_MTU_V6 } else { MIN_MTU };
    match u16::try_from(number) {
        Ok(0) => Ok(DEFAULT_MTU),
        Ok(mtu) if mtu >= least => Ok(mtu),
        _ => Err(OptionError::Mtu(number, least)),
    }
}

/// A name for a bridge, if one is given.
pub(super) fn parse_interface(text: &str) -> Result<Option<String>, OptionError> {
    if text.is_empty() {
        return Ok(None);
    }
    // Names that the kernel, our own ports and the path of a setting would not tell apart.
    let bad = !is_interface_name(text) || text == "lo" || text == "all" || text == "default";
    if bad { Err(OptionError::Interface(shortened(text))) } else { Ok(Some(text.to_owned())) }
}

pub(super) fn prefix(text: &str) -> Result<String, OptionError> {
    if is_interface_name(text) && text.len() <= PREFIX_MAX && text != "lo" {
        Ok(text.to_owned())
    } else {
        Err(OptionError::Interface(shortened(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<BridgeOptions, OptionError> {
        let options = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        BridgeOptions::parse(&in_dockers_spelling(options), false)
    }

    #[test]
    fn options_are_understood_in_both_spellings() {
        for begin in [DOCKER, WEFT] {
            let key = |rest: &str| format!("{begin}{rest}");
            let parsed = parse(&[
                (&key("bridge.name"), "my-bridge"),
                (&key("bridge.enable_icc"), "false"),
                (&key("bridge.enable_ip_masquerade"), "0"),
                (&key("bridge.host_binding_ipv4"), "127.0.0.1"),
                (&key("driver.mtu"), "1450"),
            ]);
            let expected = BridgeOptions {
                interface: Some("my-bridge".into()),
                icc: false,
                masquerade: false,
                host_binding: Some([127, 0, 0, 1].into()),
                mtu: 1450,
                ..BridgeOptions::default()
            };
            assert_eq!(parsed, Ok(expected), "{begin}");
        }
        assert_eq!(parse(&[("weft.dhcp", "true")]).map(|options| options.dhcp), Ok(true));
        assert_eq!(parse(&[("weft.mtu", "1400")]).map(|options| options.mtu), Ok(1400));
        assert_eq!(parse(&[("weft.driver.mtu", "0")]).map(|options| options.mtu), Ok(1500));
    }

    #[test]
    fn options_that_cannot_be_meant_are_refused_by_name() {
        for (key, value, text) in [
            (
                "bridge.enable_icc",
                "maybe",
                "failed to parse com.docker.network.bridge.enable_icc value: maybe (",
            ),
            ("driver.mtu", "big", "failed to parse com.docker.network.driver.mtu value: big ("),
            ("driver.mtu", "-5", "invalid MTU number: -5"),
            ("driver.mtu", "70000", "invalid MTU number: 70000"),
            (
                "bridge.host_binding_ipv4",
                "here",
                "failed to parse com.docker.network.bridge.host_binding_ipv4",
            ),
            ("bridge.name", "a/b", "invalid interface name"),
            ("bridge.name", "a-name-that-is-too-long", "invalid interface name"),
            ("bridge.name", "all", "invalid interface name"),
            ("container_iface_prefix", "a b", "invalid interface name"),
            ("bridge.colour", "red", "unknown driver option \"com.docker.network.bridge.colour\""),
        ] {
            let error = parse(&[(&format!("{DOCKER}{key}"), value)]).expect_err("refused").to_string();
            assert!(error.starts_with(text), "{key}={value}: {error}");
        }
        let six = BridgeOptions::parse(&[(format!("{DOCKER}{MTU}"), "1000".to_owned())].into(), true);
        assert_eq!(six, Err(OptionError::Mtu(1000, 1280)));
    }
}
