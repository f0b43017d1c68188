use super::*;

fn bridge(interface: &str, subnets: &[&str]) -> Bridge {
    Bridge {
        interface: interface.to_owned(),
        subnets: subnets.iter().map(|net| net.parse().expect("a subnet")).collect(),
        internal: false,
        icc: true,
        masquerade: true,
    }
}

fn forward(protocol: Protocol, host: &str, target: &str) -> Forward {
    Forward { protocol, host: host.parse().expect("an address"), target: target.parse().expect("an address") }
}

fn example() -> Firewall {
    let front = bridge("br-front", &["172.18.0.1/16", "fd00:1::1/64"]);
    let back = Bridge { internal: true, ..bridge("br-back", &["172.19.0.0/16"]) };
    let quiet = Bridge { icc: false, masquerade: false, ..bridge("br-quiet", &["172.20.0.0/16"]) };
    let forwards = [
        forward(Protocol::Tcp, "0.0.0.0:8080", "172.18.0.2:80"),
        forward(Protocol::Tcp, "[::]:8080", "[fd00:1::2]:80"),
        forward(Protocol::Udp, "192.0.2.1:53", "172.18.0.2:5353"),
        forward(Protocol::Tcp, "127.0.0.1:9000", "172.18.0.2:90"),
        forward(Protocol::Tcp, "[::]:7000", "172.20.0.2:70"),
    ];
    Firewall::of([front, back, quiet], forwards)
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "{line}\nin\n{text}");
}

#[test]
fn each_family_has_what_is_translated_in_it() {
    let text = example().batch();
    let published = "type inet_proto . inet_service : ipv4_addr . inet_service";
    has(
        &text,
        &format!(
            "add map ip weft published {{ {published}; elements = {{ tcp . 8080 : 172.18.0.2 . 80 }}; }}"
        ),
    );
    let published = "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service";
    has(
        &text,
        &format!(
            "add map ip weft published_at {{ {published}; elements = {{ 192.0.2.1 . udp . 53 : 172.18.0.2 . 5353 }}; }}"
        ),
    );
    let published = "type inet_proto . inet_service : ipv6_addr . inet_service";
    has(
        &text,
        &format!(
            "add map ip6 weft published {{ {published}; elements = {{ tcp . 8080 : fd00:1::2 . 80 }}; }}"
        ),
    );
    has(&text, "add set ip weft host_only { type inet_proto . inet_service; elements = { tcp . 9000 }; }");
    let hairpins = "\"br-front\" . tcp . 8080, \"br-front\" . tcp . 9000, \"br-front\" . udp . 53, \"br-quiet\" . tcp . 7000";
    let of = "type ifname . inet_proto . inet_service";
    has(&text, &format!("add set ip weft hairpins {{ {of}; elements = {{ {hairpins} }}; }}"));
    has(&text, "add set ip6 weft proxied { type inet_proto . inet_service; elements = { tcp . 7000 }; }");
}

#[test]
fn networks_say_who_gets_out_and_who_talks() {
    let text = example().batch();
    has(&text, "add rule ip weft outward ip saddr 172.18.0.0/16 oifname != \"br-front\" masquerade");
    has(&text, "add rule ip6 weft outward ip6 saddr fd00:1::/64 oifname != \"br-front\" masquerade");
    assert!(!text.contains("saddr 172.20.0.0/16"), "it is not masqueraded");
    assert!(!text.contains("saddr 172.19.0.0/16"), "an internal network has no way out");
    has(&text, "add set ip weft closed { type ifname; elements = { \"br-back\" }; }");
    has(&text, "add set ip6 weft closed { type ifname; elements = { \"br-back\", \"br-quiet\" }; }");
    has(
        &text,
        "add set ip weft silent { type ifname . ifname; elements = { \"br-quiet\" . \"br-quiet\" }; }",
    );
    has(&text, "add rule ip6 weft forward iifname @bridges udp dport 4789 drop");
    let input = "iifname \"br-back\" fib daddr type local ip daddr != { 172.19.0.0/16 } drop";
    has(&text, &format!("add rule ip weft input {input}"));
}

#[test]
fn without_networks_no_table_is_left() {
    let gone = "add table ip weft\ndelete table ip weft\nadd table ip6 weft\ndelete table ip6 weft\n";
    assert_eq!(Firewall::default().batch(), gone);
    assert!(Firewall::default().rules().is_empty());
    assert!(example().batch().starts_with("add table ip weft\ndelete table ip weft\nadd table ip weft\n"));
}

#[test]
fn a_name_of_an_interface_is_nothing_but_a_name() {
    let text = Firewall::of([bridge("a\" }; flush ruleset\n#", &["10.0.0.0/8"])], []).batch();
    has(&text, "add set ip weft bridges { type ifname; elements = { \"a};flushruleset#\" }; }");
}

#[test]
fn rules_let_nothing_pass_unmarked_and_of_internal_networks_nothing_at_all() {
    let rules = example().rules();
    let of =
        |name: &str| rules.iter().filter(|r| r.from.as_deref() == Some(name)).cloned().collect::<Vec<_>>();
    let front = of("br-front");
    assert_eq!(front.iter().map(|r| r.family).collect::<Vec<_>>(), Family::BOTH);
    assert!(front.iter().all(|rule| rule.unmarked && rule.action == Action::Blackhole));
    assert!(!of("br-back")[0].unmarked, "a mark opens no internal network");
    let to: Vec<_> = rules.iter().filter(|rule| rule.from.is_none()).collect();
    assert_eq!(to.len(), 4, "one a subnet");
    for rule in to {
        let own =
            rules.iter().find(|own| own.to == rule.to && own.action == Action::Main).expect("the host's own");
        assert!(own.priority < rule.priority && own.from.as_deref() == Some("lo"));
        assert_eq!(rule.unmarked, rule.to != Some("172.19.0.0/16".parse().expect("a subnet")));
    }
    assert!(rules.iter().all(|rule| PRIORITIES.contains(&rule.priority)));
}

#[test]
fn the_same_in_another_order_is_the_same_firewall() {
    let (a, b) = (bridge("a", &["10.0.0.0/8", "fd00::/8"]), bridge("b", &["11.0.0.0/8"]));
    let turned = Bridge { subnets: a.subnets.iter().rev().copied().collect(), ..a.clone() };
    assert_eq!(Firewall::of([b.clone(), turned], []), Firewall::of([a, b], []));
}

#[test]
fn only_datagrams_go_stale() {
    let bridges = [bridge("a", &["10.0.0.0/8"])];
    let tcp = forward(Protocol::Tcp, "0.0.0.0:80", "10.0.0.2:80");
    let udp = forward(Protocol::Udp, "0.0.0.0:80", "10.0.0.2:80");
    let moved = Forward { target: "10.0.0.3:80".parse().expect("an address"), ..udp };
    let (before, after) = (Firewall::of(bridges.clone(), [tcp, udp]), Firewall::of(bridges, [moved]));
    assert_eq!(after.stale(&before), [udp, moved]);
    assert_eq!(after.stale(&after), []);
}
