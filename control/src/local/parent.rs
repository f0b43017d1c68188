//! Driver options of `macvlan` and `ipvlan` networks.

use std::collections::BTreeMap;

use super::Driver;
use super::options::{DOCKER, MTU, OptionError, PREFIX, mtu, prefix};
use crate::driver::macvlan::{IpvlanFlag, IpvlanMode, MacvlanMode, Mode};
use crate::network::shortened;

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
/// Longest name of a link, octets (`IFNAMSIZ`, `netdevice(7)`).
const NAME_MAX: usize = 15;

/// What the driver options of a network with a parent say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParentOptions {
    /// The parent, if it is to be a certain link.
    pub(super) parent: Option<String>,
    /// What endpoints are to it.
    pub(super) mode: Mode,
    /// Largest packet, octets; the parent's if absent.
    pub(super) mtu: Option<u16>,
    /// What names of interfaces in sandboxes begin with.
    pub(super) prefix: String,
}

impl ParentOptions {
    /// Reads options as `in_dockers_spelling` gives them; nothing for drivers
    /// without a parent.
    ///
    /// # Errors
    /// An option that cannot be meant.
    pub(super) fn parse(
        driver: Driver,
        options: &BTreeMap<String, String>,
        ipv6: bool,
    ) -> Result<Option<Self>, OptionError> {
        if !matches!(driver, Driver::Macvlan | Driver::Ipvlan) {
            return Ok(None);
        }
        let (mut parent, mut largest, mut begin) = (None, None, "eth".to_owned());
        for (key, value) in options {
            match (key.as_str(), driver, key.strip_prefix(DOCKER)) {
                (PARENT, ..) => parent = parse_parent(value, driver)?,
                (_, _, Some(MTU)) => largest = Some(mtu(key, value, ipv6)?),
                (_, _, Some(PREFIX)) => begin = prefix(value)?,
                (MACVLAN_MODE, Driver::Macvlan, _) | (IPVLAN_MODE | IPVLAN_FLAG, Driver::Ipvlan, _) => {}
                _ => return Err(OptionError::UnknownToParent { key: shortened(key), driver }),
            }
        }
        let said = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
        let mode = match driver {
            Driver::Ipvlan => Mode::Ipvlan(ipvlan_mode(said(IPVLAN_MODE))?, ipvlan_flag(said(IPVLAN_FLAG))?),
            _ => Mode::Macvlan(macvlan_mode(said(MACVLAN_MODE))?),
        };
        Ok(Some(Self { parent, mode, mtu: largest, prefix: begin }))
    }

    /// Whether one endpoint is all there can be.
    pub(super) fn is_passthru(&self) -> bool {
        self.mode == Mode::Macvlan(MacvlanMode::Passthru)
    }
}

/// A name that the kernel takes for a link (`net/core/dev.c`, `dev_valid_name`), if one is given.
fn parse_parent(text: &str, driver: Driver) -> Result<Option<String>, OptionError> {
    match text {
        "" => Ok(None),
        "lo" => Err(OptionError::Loopback(driver)),
        _ if is_link_name(text) => Ok(Some(text.to_owned())),
        _ => Err(OptionError::Parent(shortened(text))),
    }
}

fn is_link_name(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    plain && (1..=NAME_MAX).contains(&text.len()) && text != "." && text != ".."
}

fn macvlan_mode(text: &str) -> Result<MacvlanMode, OptionError> {
    match text {
        "" | "bridge" => Ok(MacvlanMode::Bridge),
        "private" => Ok(MacvlanMode::Private),
        "vepa" => Ok(MacvlanMode::Vepa),
        "passthru" => Ok(MacvlanMode::Passthru),
        _ => Err(OptionError::MacvlanMode(shortened(text))),
    }
}

fn ipvlan_mode(text: &str) -> Result<IpvlanMode, OptionError> {
    match text {
        "" | "l2" => Ok(IpvlanMode::L2),
        "l3" => Ok(IpvlanMode::L3),
        "l3s" => Ok(IpvlanMode::L3s),
        _ => Err(OptionError::IpvlanMode(shortened(text))),
    }
}

fn ipvlan_flag(text: &str) -> Result<IpvlanFlag, OptionError> {
    match text {
        "" | "bridge" => Ok(IpvlanFlag::Bridge),
        "private" => Ok(IpvlanFlag::Private),
        "vepa" => Ok(IpvlanFlag::Vepa),
        _ => Err(OptionError::IpvlanFlag(shortened(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: Driver, pairs: &[(&str, &str)]) -> Result<ParentOptions, String> {
        let options = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let parsed = ParentOptions::parse(driver, &options, false).map_err(|fault| fault.to_string())?;
        Ok(parsed.expect("these drivers have a parent"))
    }

    #[test]
    fn modes_and_flags_are_dockers_and_so_are_their_defaults() {
        let plain = parse(Driver::Macvlan, &[]).expect("nothing is needed");
        assert_eq!((plain.parent, plain.mode), (None, Mode::Macvlan(MacvlanMode::Bridge)));
        let said = parse(Driver::Macvlan, &[("parent", "eth0.50"), ("macvlan_mode", "passthru")]);
        let said = said.expect("both are known");
        assert_eq!(said.parent.as_deref(), Some("eth0.50"));
        assert!(said.is_passthru());
        let plain = parse(Driver::Ipvlan, &[("ipvlan_mode", "")]).expect("nothing is needed");
        assert_eq!(plain.mode, Mode::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge));
        let said = parse(Driver::Ipvlan, &[("ipvlan_mode", "l3s"), ("ipvlan_flag", "vepa")]);
        assert_eq!(said.expect("both are known").mode, Mode::Ipvlan(IpvlanMode::L3s, IpvlanFlag::Vepa));
        let sized = parse(Driver::Macvlan, &[("com.docker.network.driver.mtu", "1400")]);
        assert_eq!(sized.expect("known").mtu, Some(1400));
    }

    #[test]
    fn options_that_cannot_be_meant_are_refused_in_dockers_words() {
        use Driver::{Ipvlan, Macvlan};
        for (driver, key, value, text) in [
            (
                Macvlan,
                "macvlan_mode",
                "router",
                "requested macvlan mode 'router' is not valid, 'bridge' mode is the macvlan driver default",
            ),
            (
                Ipvlan,
                "ipvlan_mode",
                "l4",
                "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
            ),
            (
                Ipvlan,
                "ipvlan_flag",
                "open",
                "requested ipvlan flag 'open' is not valid, 'bridge' is the ipvlan driver default",
            ),
            (Macvlan, "parent", "lo", "loopback interface is not a valid macvlan parent link"),
            (Ipvlan, "parent", "lo", "loopback interface is not a valid ipvlan parent link"),
            (Macvlan, "parent", "a/b", "invalid parent interface name \"a/b\""),
            (Macvlan, "parent", "an-interface-0.50", "invalid parent interface name"),
            (Macvlan, "ipvlan_mode", "l2", "unknown driver option \"ipvlan_mode\": the driver macvlan knows"),
            (
                Ipvlan,
                "macvlan_mode",
                "vepa",
                "unknown driver option \"macvlan_mode\": the driver ipvlan knows",
            ),
        ] {
            let error = parse(driver, &[(key, value)]).expect_err("refused");
            assert!(error.starts_with(text), "{key}={value}: {error}");
        }
    }

    #[test]
    fn drivers_without_a_parent_have_no_such_options() {
        let options = [("parent".to_owned(), "eth0".to_owned())].into();
        assert_eq!(ParentOptions::parse(Driver::Host, &options, false), Ok(None));
    }
}
