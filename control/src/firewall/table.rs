//! The table of nftables, as text made from parsed types alone.

use std::fmt::{self, Display, Write as _};

use weft_dataplane::wire::vxlan::VXLAN_PORT;

use super::{Bridge, Family, Firewall, Forward, MARK};

/// Name of the tables.
pub const TABLE: &str = "weft";

impl Family {
    /// As `nft` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.0/8",
            Self::V6 => "::1",
        }
    }
}

/// Replaces the table of a family whole; where there is nothing to do, there is none.
///
/// The table is added before it is deleted, since only what is there can be deleted. All of a batch is one
/// transaction: at no time is there no table.
pub(super) fn batch(firewall: &Firewall, family: Family) -> String {
    let mut text = Text { text: String::new(), family };
    text.line(format_args!("add table {0} {TABLE}\ndelete table {0} {TABLE}", family.name()));
    if !firewall.is_empty() {
        text.line(format_args!("add table {} {TABLE}", family.name()));
        sets(&mut text, firewall);
        incoming(&mut text, firewall);
        passing(&mut text);
        leaving(&mut text, firewall);
    }
    text.text
}

struct Text {
    text: String,
    family: Family,
}

impl Text {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn add(&mut self, what: &str, rest: fmt::Arguments<'_>) {
        let family = self.family.name();
        self.line(format_args!("add {what} {family} {TABLE} {rest}"));
    }

    fn chain(&mut self, name: &str, hook: &str) {
        self.add("chain", format_args!("{name} {{ {hook} }}"));
    }

    fn rule(&mut self, chain: &str, rule: fmt::Arguments<'_>) {
        self.add("rule", format_args!("{chain} {rule}"));
    }

    /// A set or map with its elements; an empty one may have no list.
    fn set(&mut self, what: &str, name: &str, of: &str, elements: &[String]) {
        let elements = match elements.join(", ") {
            list if list.is_empty() => String::new(),
            list => format!("elements = {{ {list} }};"),
        };
        self.add(what, format_args!("{name} {{ {of}; {elements} }}"));
    }
}

/// A name of an interface as a string of nft's; the kernel allows no quotes that matter, and we make none.
fn quoted(interface: impl Display) -> String {
    let name: String =
        interface.to_string().chars().filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c)).collect();
    format!("\"{name}\"")
}

fn names<'b>(bridges: impl Iterator<Item = &'b Bridge>) -> Vec<String> {
    bridges.map(|bridge| quoted(&bridge.interface)).collect()
}

fn sets(text: &mut Text, firewall: &Firewall) {
    let family = text.family;
    let bridges = || firewall.bridges.iter();
    let pairs = |icc: bool| {
        let bridges = bridges().filter(move |bridge| bridge.icc == icc);
        bridges.map(|bridge| format!("{0} . {0}", quoted(&bridge.interface))).collect::<Vec<_>>()
    };
    let subnets: Vec<_> = bridges().flat_map(|b| b.subnets_of(family)).map(|net| net.to_string()).collect();
    text.set("set", "bridges", "type ifname", &names(bridges()));
    text.set("set", "closed", "type ifname", &names(bridges().filter(|bridge| bridge.closed(family))));
    text.set("set", "talking", "type ifname . ifname", &pairs(true));
    text.set("set", "silent", "type ifname . ifname", &pairs(false));
    let of = format!("type {}; flags interval", family.address_type());
    text.set("set", "subnets", &of, &subnets);
    let translated: Vec<_> =
        firewall.forwards.iter().filter(|f| f.by_kernel() && Family::of(f.host.ip()) == family).collect();
    let (anywhere, somewhere): (Vec<_>, Vec<_>) =
        translated.into_iter().partition(|forward| forward.host.ip().is_unspecified());
    let key = |forward: &Forward| format!("{} . {}", forward.protocol, forward.host.port());
    let value = |forward: &Forward| format!("{} . {}", forward.target.ip(), forward.target.port());
    let to = format!("{} . inet_service", family.address_type());
    let elements: Vec<_> = anywhere.into_iter().map(|f| format!("{} : {}", key(f), value(f))).collect();
    text.set("map", "published", &format!("type inet_proto . inet_service : {to}"), &elements);
    let elements: Vec<_> =
        somewhere.into_iter().map(|f| format!("{} . {} : {}", f.host.ip(), key(f), value(f))).collect();
    let of = format!("type {} . inet_proto . inet_service : {to}", family.address_type());
    text.set("map", "published_at", &of, &elements);
    let served = firewall.forwards.iter().filter(|f| !f.by_kernel() && Family::of(f.host.ip()) == family);
    let local: Vec<_> = served.clone().filter(|f| f.host.ip().is_loopback()).map(key).collect();
    let proxied: Vec<_> = served.filter(|f| !f.host.ip().is_loopback()).map(key).collect();
    let from_beside = |forward: &Forward| {
        let behind = |bridge: &&Bridge| bridge.subnets.iter().any(|net| net.contains(&forward.target.ip()));
        let bridge = firewall.bridges.iter().find(behind)?;
        Some(format!("{} . {}", quoted(&bridge.interface), key(forward)))
    };
    let mut hairpins: Vec<_> = firewall.forwards.iter().filter_map(from_beside).collect();
    hairpins.sort();
    hairpins.dedup();
    text.set("set", "hairpins", "type ifname . inet_proto . inet_service", &hairpins);
    text.set("set", "host_only", "type inet_proto . inet_service", &local);
    text.set("set", "proxied", "type inet_proto . inet_service", &proxied);
}

/// What arrives, before it is routed.
fn incoming(text: &mut Text, firewall: &Firewall) {
    let (ip, loopback) = (text.family.name(), text.family.loopback());
    text.chain("arriving", "type filter hook prerouting priority -300; policy accept;");
    // The kernel lets nothing in for loopback addresses, unless somebody has set route_localnet.
    text.rule(
        "arriving",
        format_args!("iifname != \"lo\" {ip} daddr {loopback} meta l4proto . th dport @host_only drop"),
    );
    text.chain("publish", "");
    for key in [
        format!("{ip} daddr . meta l4proto . th dport map @published_at"),
        "meta l4proto . th dport map @published".to_owned(),
    ] {
        text.rule("publish", format_args!("dnat {ip} to {key}"));
    }
    text.chain("inward", "type nat hook prerouting priority -100; policy accept;");
    // Where br_netfilter is loaded, what comes from beside the sandbox would be bridged back to where it came from.
    text.rule("inward", format_args!("iifname . meta l4proto . th dport @hairpins return"));
    text.rule("inward", format_args!("fib daddr type local jump publish"));
    text.chain("own", "type nat hook output priority -100; policy accept;");
    text.rule("own", format_args!("{ip} daddr != {loopback} fib daddr type local jump publish"));
    text.chain("stamp", "type filter hook prerouting priority -90; policy accept;");
    text.rule("stamp", format_args!("iifname @bridges meta mark set meta mark | {MARK:#x}"));
    text.rule("stamp", format_args!("{ip} daddr @subnets meta mark set meta mark | {MARK:#x}"));
    text.chain("input", "type filter hook input priority 0; policy accept;");
    text.rule("input", format_args!("iifname @closed meta l4proto . th dport @proxied drop"));
    for bridge in firewall.bridges.iter().filter(|bridge| bridge.internal) {
        // From an internal network the host is reached at the network's own gateway alone.
        let link_local = if text.family == Family::V6 { Some("fe80::/10".to_owned()) } else { None };
        let own = bridge.subnets_of(text.family).map(|net| net.to_string()).chain(link_local);
        let own = own.collect::<Vec<_>>().join(", ");
        if !own.is_empty() {
            let interface = quoted(&bridge.interface);
            text.rule(
                "input",
                format_args!("iifname {interface} fib daddr type local {ip} daddr != {{ {own} }} drop"),
            );
        }
    }
}

/// What is passed on. First come bridged frames, which are seen here where br_netfilter is loaded.
///
/// Nobody behind a bridge speaks VXLAN to the outside: with the host's address on it, other hosts would take it for the
/// host's own, and for frames of networks that the sandbox is not in.
fn passing(text: &mut Text) {
    text.chain("forward", "type filter hook forward priority 0; policy accept;");
    for rule in [
        "iifname . oifname @talking accept",
        "iifname @closed drop",
        "oifname @closed drop",
        "ct status dnat accept",
        &format!("iifname @bridges udp dport {VXLAN_PORT} drop"),
        "iifname . oifname @silent drop",
        "iifname @bridges oifname @bridges drop",
        "oifname @bridges ct state established,related accept",
        "oifname @bridges drop",
    ] {
        text.rule("forward", format_args!("{rule}"));
    }
}

/// What leaves gets an address of the host.
fn leaving(text: &mut Text, firewall: &Firewall) {
    text.chain("outward", "type nat hook postrouting priority 100; policy accept;");
    let ip = text.family.name();
    for bridge in firewall.bridges.iter().filter(|bridge| bridge.masquerade && !bridge.internal) {
        let interface = quoted(&bridge.interface);
        for net in bridge.subnets_of(text.family) {
            text.rule("outward", format_args!("{ip} saddr {net} oifname != {interface} masquerade"));
        }
    }
}
