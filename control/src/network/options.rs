//! Driver options of a network (`-o key=value`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use weft_dataplane::segment::Broadcast;
use weft_dataplane::wire::Vni;
use weft_dataplane::wire::vxlan::VXLAN_PORT;

use super::create::shortened;

const VNI: &str = "weft.vni";
const STATIC_VTEPS: &str = "weft.static_vteps";
const BROADCAST: &str = "weft.broadcast";
/// The same for networks of one host.
pub(crate) const DHCP: &str = "weft.dhcp";
/// Of networks whose creator's Docker engine hands out addresses itself.
pub(crate) const ADDRESSES: &str = "weft.addresses";
/// The value of that.
pub(crate) const OF_ENGINE: &str = "engine";
const ENCRYPTED: &str = "encrypted";
const WEFT_ENCRYPTED: &str = "weft.encrypted";
const MTU: &str = "com.docker.network.driver.mtu";
/// Flooding copies each frame once per static VTEP.
const MAX_STATIC_VTEPS: usize = 64;
/// IPv4 hosts must take 576 octets (RFC 791); below, little works.
const MIN_MTU: u16 = 576;
/// The least MTU of IPv6 (RFC 8200 §5).
pub(super) const MIN_MTU_V6: u16 = 1280;

/// What the driver options of a network say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// `weft.vni`: the VNI every node receives the network on; needed by VTEPs that speak no gossip.
    pub vni: Option<Vni>,
    /// `weft.static_vteps`: tunnel ends that speak no gossip, with port 4789 where none was given.
    pub static_vteps: Vec<SocketAddr>,
    /// `weft.broadcast`: whether broadcast and multicast cross hosts.
    pub broadcast: Broadcast,
    /// `encrypted`, or `weft.encrypted`: whether packets between nodes are sealed.
    pub encrypted: bool,
    /// `weft.dhcp`: whether endpoints get their addresses by DHCP, too.
    pub dhcp: bool,
    /// `weft.addresses=engine`: on the creator's host somebody else hands out the lowest free addresses, so that all
    /// others go from the top.
    pub engine_addresses: bool,
    /// `com.docker.network.driver.mtu`: largest inner IP packet, octets.
    pub mtu: Option<u16>,
}

/// An option that cannot be meant; the user's fault, nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows this key.
    #[error(
        "unknown driver option {0:?}: known are {ENCRYPTED}, {VNI}, {STATIC_VTEPS}, {BROADCAST}, {DHCP}, {ADDRESSES} and {MTU}"
    )]
    Unknown(String),
    /// Docker's text for a VNI that is none.
    #[error("invalid vxlan id value {0:?} passed: it must be a number in 1..=16777215")]
    Vni(String),
    /// Docker's text for an MTU that is none.
    #[error("invalid MTU value: {0}: it must be a number in {MIN_MTU}..=65466")]
    Mtu(String),
    /// Not `true` or `false`.
    #[error("invalid value {0:?} for {BROADCAST}: it must be true or false")]
    Broadcast(String),
    /// Not `true` or `false`.
    #[error("invalid value {0:?} for {DHCP}: it must be true or false")]
    Dhcp(String),
    /// Nobody else hands out addresses.
    #[error("invalid value {0:?} for {ADDRESSES}: it must be {OF_ENGINE}")]
    Addresses(String),
    /// Not `true` or `false`.
    #[error("invalid value {0:?} for {ENCRYPTED}: it must be true or false, or nothing for true")]
    Encrypted(String),
    /// VTEPs that speak no gossip have no keys.
    #[error(
        "{STATIC_VTEPS} cannot be used with {ENCRYPTED}: a VTEP that speaks no gossip cannot open packets"
    )]
    VtepsSealed,
    /// Not an address.
    #[error("invalid static VTEP {0:?}: it must be a unicast address, with or without a port")]
    StaticVtep(String),
    /// Too many static VTEPs.
    #[error("{0} static VTEPs are too many: at most {MAX_STATIC_VTEPS}")]
    TooManyVteps(usize),
    /// Static VTEPs cannot be told which VNI we want.
    #[error("{STATIC_VTEPS} needs {VNI}: a VTEP that speaks no gossip cannot learn the network's VNI")]
    VtepsWithoutVni,
}

impl Options {
    /// Reads the options.
    ///
    /// # Errors
    /// The first option, in order of keys, that cannot be meant.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        for (key, value) in options {
            match key.as_str() {
                VNI => parsed.vni = Some(vni(value)?),
                STATIC_VTEPS => parsed.static_vteps = static_vteps(value)?,
                BROADCAST => parsed.broadcast = broadcast(value)?,
                DHCP => parsed.dhcp = boolean(value).ok_or_else(|| OptionError::Dhcp(shortened(value)))?,
                ADDRESSES if value == OF_ENGINE => parsed.engine_addresses = true,
                ADDRESSES => return Err(OptionError::Addresses(shortened(value))),
                ENCRYPTED | WEFT_ENCRYPTED => parsed.encrypted |= encrypted(value)?,
                MTU => parsed.mtu = Some(mtu(value)?),
                _ => return Err(OptionError::Unknown(shortened(key))),
            }
        }
        if !parsed.static_vteps.is_empty() && parsed.encrypted {
            return Err(OptionError::VtepsSealed);
        }
        if !parsed.static_vteps.is_empty() && parsed.vni.is_none() {
            return Err(OptionError::VtepsWithoutVni);
        }
        Ok(parsed)
    }
}

fn vni(text: &str) -> Result<Vni, OptionError> {
    let number = text.parse::<u32>().ok().filter(|&n| n != 0);
    number.and_then(|n| Vni::try_from(n).ok()).ok_or_else(|| OptionError::Vni(shortened(text)))
}

/// 65,466 = 65,535 − 69: the largest UDP payload less the VXLAN and inner Ethernet headers, rounded for IPv6.
fn mtu(text: &str) -> Result<u16, OptionError> {
    let number = text.parse::<u16>().ok().filter(|n| (MIN_MTU..=65_466).contains(n));
    number.ok_or_else(|| OptionError::Mtu(shortened(text)))
}

/// The options in the words they are stored and shown in: one name and one value for what has several.
pub(super) fn in_one_spelling(mut options: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let spelled = [ENCRYPTED, WEFT_ENCRYPTED].map(|key| options.remove(key));
    if spelled.into_iter().flatten().any(|value| encrypted(&value) == Ok(true)) {
        options.insert(ENCRYPTED.to_owned(), "true".to_owned());
    }
    options
}

/// Docker's spelling is the key without a value.
fn encrypted(text: &str) -> Result<bool, OptionError> {
    match text {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(OptionError::Encrypted(shortened(text))),
    }
}

fn broadcast(text: &str) -> Result<Broadcast, OptionError> {
    match boolean(text) {
        Some(true) => Ok(Broadcast::Flood),
        Some(false) => Ok(Broadcast::Local),
        None => Err(OptionError::Broadcast(shortened(text))),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn static_vteps(text: &str) -> Result<Vec<SocketAddr>, OptionError> {
    let mut vteps = text.split(',').map(|part| static_vtep(part.trim())).collect::<Result<Vec<_>, _>>()?;
    vteps.sort();
    vteps.dedup();
    if vteps.len() > MAX_STATIC_VTEPS {
        return Err(OptionError::TooManyVteps(vteps.len()));
    }
    Ok(vteps)
}

fn static_vtep(text: &str) -> Result<SocketAddr, OptionError> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, VXLAN_PORT));
    let vtep = bare.or_else(|_| text.parse::<SocketAddr>()).ok();
    let reachable = |vtep: &SocketAddr| {
        let ip = vtep.ip();
        vtep.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255; 4])
    };
    vtep.filter(reachable).ok_or_else(|| OptionError::StaticVtep(shortened(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Options, OptionError> {
        Options::parse(&pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    #[test]
    fn options_are_read() {
        let options = parse(&[
            ("weft.vni", "42"),
            ("weft.static_vteps", "192.0.2.9, [2001:db8::1]:8472,192.0.2.9"),
            ("weft.broadcast", "true"),
            ("com.docker.network.driver.mtu", "1400"),
        ])
        .expect("valid");
        assert_eq!(options.vni.map(u32::from), Some(42));
        let vteps: Vec<String> = options.static_vteps.iter().map(SocketAddr::to_string).collect();
        assert_eq!(vteps, ["192.0.2.9:4789", "[2001:db8::1]:8472"]);
        assert_eq!((options.broadcast, options.mtu), (Broadcast::Flood, Some(1400)));
    }

    #[test]
    fn a_network_is_encrypted_as_docker_spells_it_and_shown_one_way() {
        for (key, value, expected) in [
            ("encrypted", "", true),
            ("encrypted", "true", true),
            ("weft.encrypted", "1", true),
            ("encrypted", "false", false),
            ("weft.encrypted", "0", false),
        ] {
            assert_eq!(
                parse(&[(key, value)]).map(|options| options.encrypted),
                Ok(expected),
                "{key}={value}"
            );
            let shown = in_one_spelling([(key.to_owned(), value.to_owned())].into());
            assert_eq!(shown.get("encrypted").map(String::as_str), expected.then_some("true"));
            assert_eq!(shown.len(), usize::from(expected));
        }
    }

    #[test]
    fn options_that_cannot_be_meant_are_refused_by_name() {
        for (pairs, text) in [
            (&[("secure", "")][..], "unknown driver option \"secure\""),
            (&[("encrypted", "maybe")], "invalid value \"maybe\" for encrypted"),
            (
                &[("encrypted", ""), ("weft.static_vteps", "192.0.2.9"), ("weft.vni", "42")],
                "weft.static_vteps cannot be used with encrypted",
            ),
            (&[("weft.vni", "0")], "invalid vxlan id value \"0\" passed"),
            (&[("weft.vni", "16777216")], "invalid vxlan id value \"16777216\" passed"),
            (&[("com.docker.network.driver.mtu", "70000")], "invalid MTU value: 70000"),
            (&[("com.docker.network.driver.mtu", "")], "invalid MTU value: "),
            (&[("weft.dhcp", "yes")], "invalid value \"yes\" for weft.dhcp"),
            (&[("weft.addresses", "me")], "invalid value \"me\" for weft.addresses"),
            (&[("weft.broadcast", "yes")], "invalid value \"yes\" for weft.broadcast"),
            (
                &[("weft.vni", "1"), ("weft.static_vteps", "host.example")],
                "invalid static VTEP \"host.example\"",
            ),
            (&[("weft.vni", "1"), ("weft.static_vteps", "0.0.0.0")], "invalid static VTEP"),
            (&[("weft.vni", "1"), ("weft.static_vteps", "239.1.1.1")], "invalid static VTEP"),
            (&[("weft.vni", "1"), ("weft.static_vteps", "")], "invalid static VTEP"),
            (&[("weft.static_vteps", "192.0.2.9")], "weft.static_vteps needs weft.vni"),
        ] {
            let error = parse(pairs).expect_err("refused").to_string();
            assert!(error.starts_with(text), "{pairs:?}: {error}");
        }
    }
}
