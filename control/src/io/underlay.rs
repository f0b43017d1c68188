//! The host's own addresses, and which of them others are told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::agent::{Advertise, AgentError};
use super::netlink::{Link, Links};

/// Largest IP packet assumed where the interface does not say, octets (Ethernet).
const DEFAULT_MTU: u16 = 1500;

/// Where this node is on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// Address others are told.
    pub(crate) address: IpAddr,
    /// Interface that has it.
    pub(crate) interface: String,
    /// Largest IP packet of the interface, octets.
    pub(crate) mtu: u16,
}

/// An address of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    interface: String,
    address: IpAddr,
    loopback: bool,
}

/// Finds the address to advertise.
///
/// # Errors
/// There is none, or several could be meant; the text lists them.
pub(crate) async fn find(advertise: &Advertise) -> Result<Underlay, AgentError> {
    let links = Links::here().map_err(|fault| AgentError::Start(fault.to_string()))?;
    let default = links.default_route_link().await.ok().flatten();
    let mut own = own_addresses()?;
    if *advertise == Advertise::Default {
        let inner = inner_bridges(&links.list().await.unwrap_or_default());
        own.retain(|own| !inner.contains(&own.interface));
    }
    let Own { interface, address, .. } = choose(advertise, &own, default.as_deref())?;
    let link = links.find(&interface).await.ok().flatten();
    // What is larger than any IP packet carries all of them.
    let mtu = link.map_or(DEFAULT_MTU, |link| u16::try_from(link.mtu).unwrap_or(u16::MAX));
    // Loopback carries 64 KiB packets, tunnels of Ethernet need not.
    Ok(Underlay { address, interface, mtu: if address.is_loopback() { DEFAULT_MTU } else { mtu } })
}

/// Whether the host still has the address; when that cannot be told, it has.
pub(crate) fn is_there(address: IpAddr) -> bool {
    own_addresses().map_or(true, |own| own.iter().any(|own| own.address == address))
}

fn own_addresses() -> Result<Vec<Own>, AgentError> {
    let all = getifaddrs().map_err(|fault| AgentError::Io {
        attempt: "list the host's addresses".into(),
        source: fault.into(),
    })?;
    let own = all.filter_map(|entry| {
        let address = entry.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::from(four.ip()));
        let ip = four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::from(six.ip())))?;
        let loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        Some(Own { interface: entry.interface_name, address: ip, loopback })
    });
    Ok(own.collect())
}

/// Bridges that lead to no other host: all their ports are containers' and virtual machines'. Ours and Docker's are.
fn inner_bridges(links: &[Link]) -> BTreeSet<String> {
    let outer = |link: &&Link| !["veth", "tun"].contains(&link.kind.as_str());
    let outer: BTreeSet<_> = links.iter().filter(outer).filter_map(|link| link.controller).collect();
    let inner = |link: &&Link| link.kind == "bridge" && !outer.contains(&link.index);
    links.iter().filter(inner).map(|link| link.name.clone()).collect()
}

/// Picks the address; IPv4 before IPv6, in the kernel's order.
fn choose(advertise: &Advertise, own: &[Own], default: Option<&str>) -> Result<Own, AgentError> {
    let refuse = |text: String| Err(AgentError::Advertise(text));
    let first = |interface: &str| {
        let mut there = own.iter().filter(|own| own.interface == interface && is_global(own.address));
        let six = there.clone().next();
        there.find(|own| own.address.is_ipv4()).or(six).cloned()
    };
    match advertise {
        Advertise::Address(address) => match own.iter().find(|own| own.address == *address) {
            Some(found) => Ok(found.clone()),
            None if address.is_unspecified() || address.is_multicast() => {
                refuse(format!("{address} is not an address others can reach this host by"))
            }
            None => refuse(format!("{address} is not an address of this host; it has {}", list(own))),
        },
        Advertise::Interface(name) => match first(name) {
            Some(found) => Ok(found),
            None if own.iter().any(|own| own.interface == *name) => {
                refuse(format!("interface {name} has no address others can reach this host by"))
            }
            None => refuse(format!(
                "{name} is neither an address nor an interface with one; this host has {}",
                list(own)
            )),
        },
        Advertise::Default => {
            if let Some(found) = default.and_then(first) {
                return Ok(found);
            }
            let global: Vec<_> = own.iter().filter(|own| !own.loopback && is_global(own.address)).collect();
            let four: Vec<_> = global.iter().filter(|own| own.address.is_ipv4()).collect();
            match (&four[..], &global[..]) {
                ([only], _) => Ok((**only).clone()),
                ([], [only]) => Ok((*only).clone()),
                ([], []) => refuse(
                    "this host has no address others can reach it by; give one with --advertise".into(),
                ),
                _ => refuse(format!(
                    "this host has no default route but {}; choose one with --advertise",
                    list(own)
                )),
            }
        }
    }
}

/// Whether other hosts can send to it: not link-local, which needs a scope.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => !four.is_link_local() && !four.is_unspecified(),
        IpAddr::V6(six) => !six.is_unicast_link_local() && !six.is_unspecified(),
    }
}

fn list(own: &[Own]) -> String {
    let reachable = own.iter().filter(|own| !own.loopback && is_global(own.address));
    let shown: Vec<_> = reachable.map(|own| format!("{} ({})", own.address, own.interface)).collect();
    if shown.is_empty() { "no address but loopback".into() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(addresses: &[(&str, &str)]) -> Vec<Own> {
        let own = |(interface, address): &(&str, &str)| Own {
            interface: (*interface).into(),
            address: address.parse().expect("an address"),
            loopback: *interface == "lo",
        };
        addresses.iter().map(own).collect()
    }

    fn chosen(advertise: &str, own: &[Own], default: Option<&str>) -> Result<String, String> {
        let Ok(advertise) = advertise.parse::<Advertise>();
        let found = choose(&advertise, own, default);
        found.map(|own| own.address.to_string()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_default_is_where_the_default_route_leads() {
        let own = host(&[
            ("lo", "127.0.0.1"),
            ("eth0", "fe80::1"),
            ("eth0", "192.0.2.1"),
            ("docker0", "172.17.0.1"),
        ]);
        assert_eq!(chosen("", &own, Some("eth0")), Ok("192.0.2.1".into()));
        let refused = chosen("", &own, None).expect_err("two could be meant");
        assert!(refused.contains("192.0.2.1 (eth0), 172.17.0.1 (docker0)"), "{refused}");
        assert!(chosen("", &host(&[("lo", "127.0.0.1")]), None).is_err());
        assert_eq!(chosen("", &host(&[("lo", "::1"), ("e", "2001:db8::1")]), None), Ok("2001:db8::1".into()));
    }

    #[test]
    fn a_bridge_of_containers_leads_to_no_other_host() {
        let link = |index, name: &str, kind: &str, controller| Link {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            controller,
            ..Link::default()
        };
        let links = [
            link(2, "eth0", "", Some(5)),
            link(3, "veth0", "veth", Some(4)),
            link(4, "docker0", "bridge", None),
            link(5, "br0", "bridge", None),
            link(6, "tap0", "tun", Some(5)),
            link(7, "weft_gwbridge", "bridge", None),
        ];
        assert_eq!(inner_bridges(&links), ["docker0".to_owned(), "weft_gwbridge".to_owned()].into());
    }

    #[test]
    fn an_address_must_be_the_hosts_own() {
        let own = host(&[("lo", "127.0.0.1"), ("eth0", "192.0.2.1")]);
        assert_eq!(chosen("192.0.2.1", &own, None), Ok("192.0.2.1".into()));
        let refused = chosen("192.0.2.9", &own, None).expect_err("it is not ours");
        assert_eq!(refused, "192.0.2.9 is not an address of this host; it has 192.0.2.1 (eth0)");
        assert!(chosen("0.0.0.0", &own, None).is_err());
    }

    #[test]
    fn an_interface_stands_for_its_address() {
        let own = host(&[("eth0", "2001:db8::1"), ("eth0", "192.0.2.1"), ("eth1", "fe80::2")]);
        assert_eq!(chosen("eth0", &own, None), Ok("192.0.2.1".into()));
        assert!(chosen("eth1", &own, None).expect_err("link-local only").contains("eth1"));
        assert!(chosen("eth7", &own, None).expect_err("not there").contains("neither"));
    }
}
