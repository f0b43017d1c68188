//! Who may say what inside a network's bridge: a table of nftables in the hidden namespace.
//!
//! Frames between sandboxes of one node never reach the dataplane, so the kernel checks for them what the dataplane
//! checks for all others: source MAC, source address, the claims of ARP and ND, and that no sandbox plays router or
//! DHCP server. The text is made from parsed types alone and is one batch, which nftables takes whole or not at all.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_dataplane::neighbour::link_local;
use weft_dataplane::wire::MacAddr;

use super::{WantedEndpoint, port_name};

/// The table: family and name.
pub const TABLE: &str = "bridge weft";
/// Its counters, named as the dataplane's reasons for the same drops.
pub const COUNTERS: [&str; 9] = [
    "vlan_tagged",
    "spoofed_mac",
    "malformed_arp",
    "spoofed_arp",
    "spoofed_ip",
    "spoofed_nd",
    "router_advertisement",
    "router_redirect",
    "dhcp_server",
];
const CHAINS: [&str; 3] = ["of_arp", "of_ipv4", "of_ipv6"];
/// Sets with the types of their elements. nft 1.0.6 has no name for the target of an advertisement.
const SETS: [(&str, &str); 5] = [
    ("ports", "type ifname"),
    ("macs", "type ifname . ether_addr"),
    ("ipv4", "type ifname . ipv4_addr"),
    ("ipv6", "type ifname . ipv6_addr"),
    ("claims", "typeof iifname . @th,64,128"),
];
/// Chain and rule, in order. Frames of other ports than endpoints' pass: they come from the dataplane, which has
/// checked them.
const RULES: [(&str, &str); 17] = [
    ("guard", "iifname != @ports accept"),
    ("guard", "ether type { 8021q, 8021ad } counter name vlan_tagged drop"),
    ("guard", "iifname . ether saddr != @macs counter name spoofed_mac drop"),
    ("guard", "ether type vmap { arp : goto of_arp, ip : goto of_ipv4, ip6 : goto of_ipv6 }"),
    // Linux takes ARP of hardware type 6 as well, which the names of the fields below do not cover.
    ("of_arp", "arp htype != 1 counter name malformed_arp drop"),
    ("of_arp", "arp ptype != ip counter name malformed_arp drop"),
    ("of_arp", "arp hlen != 6 counter name malformed_arp drop"),
    ("of_arp", "arp plen != 4 counter name malformed_arp drop"),
    ("of_arp", "iifname . arp saddr ether != @macs counter name spoofed_arp drop"),
    ("of_arp", "iifname . arp saddr ip != @ipv4 counter name spoofed_arp drop"),
    ("of_ipv4", "iifname . ip saddr != @ipv4 counter name spoofed_ip drop"),
    ("of_ipv4", "udp sport 67 counter name dhcp_server drop"),
    ("of_ipv6", "iifname . ip6 saddr != @ipv6 counter name spoofed_ip drop"),
    ("of_ipv6", "icmpv6 type nd-router-advert counter name router_advertisement drop"),
    ("of_ipv6", "icmpv6 type nd-redirect counter name router_redirect drop"),
    (
        "of_ipv6",
        "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @claims counter name spoofed_nd drop",
    ),
    ("of_ipv6", "udp sport 547 counter name dhcp_server drop"),
];

/// What the endpoints of a network may use, by port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard(BTreeMap<String, Allowed>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    mac: MacAddr,
    ips: Vec<IpAddr>,
}

impl Guard {
    /// What `endpoints` may use: their own addresses, the link-local one of their MAC, and none.
    pub(super) fn of<'e>(endpoints: impl IntoIterator<Item = &'e WantedEndpoint>) -> Self {
        let allowed = |endpoint: &WantedEndpoint| {
            let ips = endpoint.addresses.iter().map(ipnet::IpNet::addr);
            let formed = [
                IpAddr::V6(link_local(endpoint.mac)),
                Ipv4Addr::UNSPECIFIED.into(),
                Ipv6Addr::UNSPECIFIED.into(),
            ];
            Allowed { mac: endpoint.mac, ips: ips.chain(formed).collect() }
        };
        Self(endpoints.into_iter().map(|endpoint| (port_name(endpoint.id), allowed(endpoint))).collect())
    }

    /// Number of endpoints.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.0.len()
    }

    /// The batch that makes the table so, whatever it was before; its counters go on. Without endpoints there is none.
    #[must_use]
    pub fn batch(&self) -> String {
        let mut text = format!("add table {TABLE}\n");
        if self.0.is_empty() {
            line(&mut text, format_args!("delete table {TABLE}"));
            return text;
        }
        for counter in COUNTERS {
            line(&mut text, format_args!("add counter {TABLE} {counter}"));
        }
        for (set, of) in SETS {
            line(&mut text, format_args!("add set {TABLE} {set} {{ {of}; }}\nflush set {TABLE} {set}"));
        }
        for chain in CHAINS {
            line(&mut text, format_args!("add chain {TABLE} {chain}\nflush chain {TABLE} {chain}"));
        }
        let hook = "{ type filter hook prerouting priority -200; policy accept; }";
        line(&mut text, format_args!("add chain {TABLE} guard {hook}\nflush chain {TABLE} guard"));
        self.elements("add", &mut text);
        for (chain, rule) in RULES {
            line(&mut text, format_args!("add rule {TABLE} {chain} {rule}"));
        }
        text
    }

    /// The batch that takes a table from `before` to this, where that only takes whole endpoints; it costs a third.
    #[must_use]
    pub fn changes(&self, before: &Self) -> Option<String> {
        let other = |(port, allowed): (&String, &Allowed)| self.0.get(port).is_some_and(|now| now != allowed);
        if self.0.is_empty() || before.0.is_empty() || before.0.iter().any(other) {
            return None;
        }
        let without = |these: &Self, those: &Self| {
            let these = these.0.iter().filter(|(port, _)| !those.0.contains_key(*port));
            Self(these.map(|(port, allowed)| (port.clone(), allowed.clone())).collect())
        };
        let mut text = String::new();
        without(before, self).elements("delete", &mut text);
        without(self, before).elements("add", &mut text);
        Some(text)
    }

    fn elements(&self, verb: &str, text: &mut String) {
        for (port, Allowed { mac, ips }) in &self.0 {
            let mut add = |set: &str, element: fmt::Arguments<'_>| {
                line(text, format_args!("{verb} element {TABLE} {set} {{ \"{port}\"{element} }}"));
            };
            add("macs", format_args!(" . {mac}"));
            for ip in ips {
                match ip {
                    IpAddr::V4(ip) => add("ipv4", format_args!(" . {ip}")),
                    IpAddr::V6(ip) => {
                        add("ipv6", format_args!(" . {ip}"));
                        add("claims", format_args!(" . {:#034x}", ip.to_bits()));
                    }
                }
            }
            add("ports", format_args!(""));
        }
    }
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::End;
    use crate::model::{EndpointId, SandboxId};

    fn guard(numbers: &[u8]) -> Guard {
        let endpoints: Vec<_> = numbers
            .iter()
            .map(|&n| WantedEndpoint {
                id: EndpointId([n; 16]),
                end: End::Namespace,
                sandbox: SandboxId([n; 16]),
                interface: "eth0".into(),
                mac: MacAddr([2, 0, 0, 0, 0, n]),
                addresses: [format!("10.0.0.{n}/24"), format!("fd00::{n}/64")]
                    .map(|net| net.parse().expect("a prefix"))
                    .into(),
            })
            .collect();
        Guard::of(&endpoints)
    }

    #[test]
    fn an_endpoint_may_use_its_own_addresses_and_none() {
        let text = guard(&[7]).batch();
        for element in [
            "ports { \"v070707070707\" }",
            "macs { \"v070707070707\" . 02:00:00:00:00:07 }",
            "ipv4 { \"v070707070707\" . 10.0.0.7 }",
            "ipv4 { \"v070707070707\" . 0.0.0.0 }",
            "ipv6 { \"v070707070707\" . fd00::7 }",
            "ipv6 { \"v070707070707\" . fe80::ff:fe00:7 }",
            "ipv6 { \"v070707070707\" . :: }",
            "claims { \"v070707070707\" . 0xfd000000000000000000000000000007 }",
        ] {
            assert!(text.contains(&format!("add element {TABLE} {element}\n")), "{element} in {text}");
        }
        assert_eq!(text.matches("add element").count(), 10, "{text}");
    }

    #[test]
    fn endpoints_come_and_go_one_by_one() {
        let (one, two) = (guard(&[1]), guard(&[1, 2]));
        let added = two.changes(&one).expect("the first stays");
        let only = |text: &str, verb: &str| {
            text.lines().all(|line| line.starts_with(verb) && line.contains("v020202020202"))
        };
        assert!(only(&added, "add element") && added.lines().count() == 10, "{added}");
        let gone = one.changes(&two).expect("the first stays");
        assert!(only(&gone, "delete element") && gone.lines().count() == 10, "{gone}");
        assert_eq!(one.changes(&one).as_deref(), Some(""));
    }

    #[test]
    fn a_table_is_made_whole_and_goes_with_its_last_endpoint() {
        assert_eq!(guard(&[1]).changes(&guard(&[])), None);
        assert_eq!(guard(&[]).changes(&guard(&[1])), None);
        assert_eq!(guard(&[]).batch(), format!("add table {TABLE}\ndelete table {TABLE}\n"));
        let mut other = guard(&[1]);
        other.0.values_mut().for_each(|allowed| allowed.ips.clear());
        assert_eq!(other.changes(&guard(&[1])), None, "what an endpoint may use does not change bit by bit");
    }

    #[test]
    fn every_counter_is_used_and_every_used_one_is_made() {
        let used: Vec<_> = RULES.iter().filter_map(|(_, rule)| rule.split("counter name ").nth(1)).collect();
        for counter in COUNTERS {
            assert!(used.contains(&&*format!("{counter} drop")), "{counter}");
        }
        assert!(used.iter().all(|rest| COUNTERS.contains(&rest.trim_end_matches(" drop"))));
    }
}
