//! What networks of one host promise, before any kernel is asked.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::api::{Ipam, IpamConfig};
use crate::model::SandboxId;
use crate::network::Attach;
use crate::storage::Memory;
use weft_dataplane::wire::MacAddr;

const WALL: UnixMillis = UnixMillis(1);

fn start(memory: &Arc<Memory>, defaults: &Defaults) -> Result<Local, LocalError> {
    let storage: Arc<dyn Storage> = Arc::<Memory>::clone(memory);
    Local::start(storage, [7; 32], WALL, &[], defaults)
}

fn local() -> Local {
    start(&Arc::default(), &Defaults::default()).expect("a fresh state")
}

fn request(name: &str, subnets: &[&str]) -> NetworkCreate {
    let config = |subnet: &&str| IpamConfig { subnet: (*subnet).to_owned(), ..Default::default() };
    let ipam = Ipam { config: subnets.iter().map(config).collect(), ..Default::default() };
    NetworkCreate { name: name.to_owned(), ipam, ..Default::default() }
}

fn create(local: &mut Local, request: NetworkCreate) -> Result<NetworkId, String> {
    local.create(WALL, request, &[]).map_err(|fault| fault.to_string())
}

fn wish(network: NetworkId, n: u8) -> Attach {
    Attach {
        network,
        sandbox: SandboxId([n; 16]),
        name: format!("s{n}").parse().expect("a name"),
        ip4: None,
        ip6: None,
        mac: None,
        aliases: Vec::new(),
    }
}

fn predefined(local: &Local, name: &str) -> NetworkId {
    local.names().find(|(_, named)| *named == name).expect("it is always there").0
}

#[test]
fn the_predefined_networks_are_there_from_the_first_start_and_stay_the_same() {
    let memory = Arc::default();
    let first = start(&memory, &Defaults::default()).expect("a fresh state").shown();
    let shown: Vec<_> =
        first.iter().map(|n| (n.name.as_str(), n.driver.as_str(), n.scope.as_str())).collect();
    assert_eq!(shown, [("bridge", "bridge", "local"), ("host", "host", "local"), ("none", "null", "local")]);
    assert_eq!(first[0].ipam.config[0].subnet, "172.17.0.0/16");
    assert_eq!(first[0].options["com.docker.network.bridge.name"], "weft0");
    assert_eq!(start(&memory, &Defaults::default()).expect("the same state").shown(), first);
}

#[test]
fn default_pools_keep_away_from_the_hosts_routes() {
    let host = ["172.17.0.0/16", "172.18.5.0/24"].map(|net| net.parse().expect("a prefix"));
    let memory: Arc<dyn Storage> = Arc::new(Memory::default());
    let mut local = Local::start(memory, [7; 32], WALL, &host, &Defaults::default()).expect("a fresh state");
    assert_eq!(local.shown()[0].ipam.config[0].subnet, "172.19.0.0/16");
    let id = local.create(WALL, request("blue", &[]), &host).expect("there are pools");
    assert_eq!(local.definition(id).expect("made").subnets[0].gateway.to_string(), "172.20.0.1");
}

#[test]
fn the_default_bridge_can_be_elsewhere_while_nobody_is_in_it() {
    let memory = Arc::default();
    let bip = |text| Defaults { bip: Some(Defaults::parse_bip(text).expect("an address")), interface: None };
    let mut local = start(&memory, &bip("10.9.0.1/24")).expect("a fresh state");
    let bridge = predefined(&local, "bridge");
    assert_eq!(local.bridge(bridge).expect("a bridge").subnets[0].gateway.to_string(), "10.9.0.1");
    local.attach(Instant::now(), wish(bridge, 1), 0).expect("there is room");
    drop(local);
    let refused = start(&memory, &bip("10.8.0.1/24")).err().map(|fault| fault.to_string());
    assert!(refused.expect("somebody is in it").starts_with("--bip 10.8.0.1/24: the network bridge has"));
    assert!(start(&memory, &Defaults::default()).is_ok(), "without a wish it stays where it is");
    for bad in ["10.9.0.0/24", "10.9.0.255/24", "10.9.0.1", "10.9.0.1/31", "fd00::1/64", "127.0.0.1/8", "x"] {
        assert!(Defaults::parse_bip(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_was_answered_is_there_after_a_restart_and_what_was_not_is_not() {
    let memory: Arc<Memory> = Arc::default();
    let mut local = start(&memory, &Defaults::default()).expect("a fresh state");
    let id = create(&mut local, request("blue", &["10.5.0.0/24"])).expect("valid");
    let lease = local.attach(Instant::now(), wish(id, 1), 5).expect("there is room");
    assert_eq!(lease.addresses, ["10.5.0.2/24".parse().expect("a prefix")]);
    memory.fail(true);
    assert!(local.attach(Instant::now(), wish(id, 2), 0).is_err());
    assert!(local.detach(Instant::now(), lease.endpoint).is_err());
    assert!(create(&mut local, request("red", &[])).is_err());
    memory.fail(false);
    let before: Vec<_> = local.bridges().collect();
    drop(local);
    let mut local = start(&memory, &Defaults::default()).expect("the same state");
    assert_eq!(local.bridges().collect::<Vec<_>>(), before);
    assert_eq!(local.own_endpoints().map(|own| own.lease).collect::<Vec<_>>(), [lease]);
    let next = local.attach(Instant::now(), wish(id, 2), 0).expect("there is room");
    assert_eq!(next.addresses[0].to_string(), "10.5.0.3/24", "the first one's address is known to be taken");
}

#[test]
fn an_endpoint_gets_an_address_of_each_family_and_those_it_asks_for() {
    let mut local = local();
    let id = create(&mut local, request("blue", &["fd05::/64", "10.5.0.0/24"])).expect("valid");
    let now = Instant::now();
    let texts =
        |lease: crate::network::Lease| lease.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(local.attach(now, wish(id, 1), 0).expect("room")), ["10.5.0.2/24", "fd05::2/64"]);
    let fixed = Attach { ip4: Some([10, 5, 0, 9].into()), ..wish(id, 2) };
    assert_eq!(texts(local.attach(now, fixed, 0).expect("it is free")), ["10.5.0.9/24", "fd05::3/64"]);
    let refused = |local: &mut Local, wish| local.attach(now, wish, 0).expect_err("refused").to_string();
    for ip in [[10, 5, 0, 9], [10, 5, 0, 1], [10, 5, 0, 255]] {
        assert_eq!(
            refused(&mut local, Attach { ip4: Some(ip.into()), ..wish(id, 3) }),
            "Address already in use"
        );
    }
    let outside = Attach { ip4: Some([10, 6, 0, 1].into()), ..wish(id, 3) };
    let words = "invalid endpoint settings:\nno configured subnet contains IP address 10.6.0.1";
    assert_eq!(refused(&mut local, outside), words);
    assert_eq!(refused(&mut local, wish(id, 1)), "endpoint with name s1 already exists in network blue");
}

#[test]
fn what_docker_refuses_is_refused_in_its_words() {
    let mut local = local();
    create(&mut local, request("blue", &["10.5.0.0/24"])).expect("valid");
    let overlap = "invalid pool request: Pool overlaps with other one on this address space";
    let of = |driver: &str| NetworkCreate { driver: driver.to_owned(), ..request("n", &[]) };
    let with = |key: &str, value: &str| NetworkCreate {
        options: [(key.to_owned(), value.to_owned())].into(),
        ..request("n", &[])
    };
    for (request, words) in [
        (request("blue", &[]), "network with name blue already exists"),
        (request("bridge", &[]), "operation is not permitted on predefined bridge network "),
        (request("n", &["10.5.0.128/25"]), overlap),
        (request("n", &["10.6.0.0/24", "10.7.0.0/24"]), "bridge driver doesn't support multiple subnets"),
        (of("host"), "only one instance of \"host\" network is allowed"),
        (of("null"), "only one instance of \"null\" network is allowed"),
        (with("com.docker.network.bridge.name", "weft0"), "cannot create network "),
        (
            with("com.docker.network.driver.mtu", "x"),
            "failed to parse com.docker.network.driver.mtu value: x (",
        ),
    ] {
        let refused = create(&mut local, request).expect_err("refused");
        assert!(refused.starts_with(words), "{refused}");
    }
    let (bridge, host, none) =
        (predefined(&local, "bridge"), predefined(&local, "host"), predefined(&local, "none"));
    let now = Instant::now();
    let fixed = Attach { ip4: Some([172, 17, 0, 9].into()), ..wish(bridge, 1) };
    let named = Attach { aliases: vec!["web".parse().expect("a name")], ..wish(bridge, 1) };
    for (wish, words) in [
        (
            fixed,
            "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only",
        ),
        (
            named,
            "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks",
        ),
        (
            wish(host, 1),
            "cannot connect container to host network - container must be created in host network mode",
        ),
        (
            wish(none, 1),
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
    ] {
        assert_eq!(local.attach(now, wish, 0).expect_err("refused").to_string(), words);
    }
    let refused = local.remove(bridge).expect_err("refused").to_string();
    assert_eq!(refused, "bridge is a pre-defined network and cannot be removed");
}

fn with_parent(driver: &str, name: &str, options: &[(&str, &str)]) -> NetworkCreate {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    NetworkCreate { driver: driver.to_owned(), options, ..request(name, &[]) }
}

#[test]
fn parents_are_shared_as_in_docker() {
    let mut local = local();
    let (eth0, passthru) = (("parent", "eth0"), ("macvlan_mode", "passthru"));
    let first = create(&mut local, with_parent("macvlan", "first", &[eth0])).expect("valid");
    create(&mut local, with_parent("macvlan", "second", &[eth0, ("macvlan_mode", "vepa")])).expect("shared");
    let refused =
        create(&mut local, with_parent("macvlan", "third", &[eth0, passthru])).expect_err("refused");
    assert!(refused.starts_with("cannot use mode passthru, macvlan network "), "{refused}");
    let whole =
        create(&mut local, with_parent("macvlan", "whole", &[("parent", "eth1"), passthru])).expect("alone");
    let refused =
        create(&mut local, with_parent("macvlan", "n", &[("parent", "eth1")])).expect_err("refused");
    let words = "is already using parent interface eth1 in mode passthru";
    assert_eq!(refused, format!("macvlan network {} {words}", whole.long()));
    let ipvlan = create(&mut local, with_parent("ipvlan", "ip", &[eth0])).expect("another driver");
    let refused = create(&mut local, with_parent("ipvlan", "more", &[eth0])).expect_err("refused");
    assert_eq!(refused, format!("network dm-{} is already using parent interface eth0", ipvlan.short()));

    let now = Instant::now();
    local.attach(now, wish(whole, 1), 0).expect("the first");
    let refused = local.attach(now, wish(whole, 2), 0).expect_err("the only one").to_string();
    assert!(refused.starts_with("network whole is in macvlan mode passthru"), "{refused}");
    let mac = Attach { mac: Some(MacAddr([2, 0, 0, 0, 0, 1])), ..wish(ipvlan, 1) };
    let refused = local.attach(now, mac, 0).expect_err("it has the parent's").to_string();
    assert_eq!(refused, "ipvlan interfaces do not support custom mac address assignment");
    assert_eq!(local.attach(now, wish(ipvlan, 1), 0).expect("room").shown_mac(), "");
    assert_ne!(local.attach(now, wish(first, 1), 0).expect("room").shown_mac(), "");
}

#[test]
fn a_network_without_a_parent_is_internal_and_has_one_that_leads_nowhere() {
    let mut local = local();
    let id = create(&mut local, with_parent("macvlan", "inner", &[])).expect("valid");
    assert!(local.definition(id).expect("made").internal);
    let children: Vec<_> = local.children().map(|network| network.parent).collect();
    assert_eq!(children, [Parent::Dummy(format!("dm-{}", id.short()))]);
    local.attach(Instant::now(), wish(id, 1), 0).expect("room");
    assert_eq!(local.ways_out(SandboxId([1; 16])).count(), 0);
}

#[test]
fn an_endpoint_has_one_address_of_each_family_and_the_gateway_of_its_subnet() {
    let mut local = local();
    let subnets = ["10.5.0.0/30", "fd05::/64", "10.6.0.0/24"];
    let several = NetworkCreate {
        driver: "macvlan".into(),
        options: [("parent".into(), "eth0".into())].into(),
        ..request("lan", &subnets)
    };
    let id = create(&mut local, several).expect("valid");
    let now = Instant::now();
    let texts = |local: &mut Local, wish| {
        let lease = local.attach(now, wish, 0).expect("room");
        lease.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&mut local, wish(id, 1)), ["10.5.0.2/30", "fd05::2/64"]);
    assert_eq!(texts(&mut local, wish(id, 2)), ["10.6.0.2/24", "fd05::3/64"], "the first subnet is full");
    let gateways = |n| {
        local
            .ways_out(SandboxId([n; 16]))
            .flat_map(|way| way.gateways)
            .map(|ip| ip.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(gateways(1), ["10.5.0.1", "fd05::1"]);
    assert_eq!(gateways(2), ["fd05::1", "10.6.0.1"]);
}

#[test]
fn a_network_is_removed_once_nothing_is_in_it_and_its_subnet_is_free_again() {
    let mut local = local();
    let id = create(&mut local, request("blue", &["10.5.0.0/24"])).expect("valid");
    let now = Instant::now();
    let lease = local.attach(now, wish(id, 1), 0).expect("room");
    let refused = local.remove(id).expect_err("refused").to_string();
    assert!(refused.contains("network blue has active endpoints (name:\"s1\" id:\""), "{refused}");
    local.detach(now, lease.endpoint).expect("it is there");
    local.remove(id).expect("nothing is in it");
    create(&mut local, request("red", &["10.5.0.0/24"])).expect("the subnet is free");
}

#[test]
fn pools_run_out_with_dockers_words() {
    let mut local = local();
    let made = (0..).map_while(|n| create(&mut local, request(&format!("n{n}"), &[])).ok()).count();
    assert_eq!(made, 30, "one of 31 is the default bridge's");
    let refused = create(&mut local, request("last", &[])).expect_err("none is left");
    let words = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network";
    assert!(refused.starts_with(words), "{refused}");
    let tiny = create(&mut local, request("tiny", &["10.5.0.0/30"])).expect("valid");
    local.attach(Instant::now(), wish(tiny, 1), 0).expect("one address");
    let refused = local.attach(Instant::now(), wish(tiny, 2), 0).expect_err("none is left").to_string();
    assert_eq!(refused, "no available addresses on this pool");
}

#[test]
fn a_sandbox_leaves_by_the_network_of_highest_priority_and_never_by_an_internal_one() {
    let mut local = local();
    let blue = create(&mut local, request("blue", &[])).expect("valid");
    let inner = NetworkCreate { internal: true, ..request("inner", &[]) };
    let inner = create(&mut local, inner).expect("valid");
    let now = Instant::now();
    local.attach(now, wish(blue, 1), 3).expect("room");
    local.attach(now, wish(inner, 1), 9).expect("room");
    let ways: Vec<_> =
        local.ways_out(SandboxId([1; 16])).map(|way| (way.priority, way.name.to_owned())).collect();
    assert_eq!(ways, [(3, "blue".to_owned())]);
}

#[test]
fn a_leg_is_an_endpoint_of_the_gateway_bridge_that_anything_else_is_preferred_to() {
    let memory = Arc::default();
    let mut local = start(&memory, &Defaults::default()).expect("a fresh state");
    let (now, sandbox) = (Instant::now(), SandboxId([1; 16]));
    let web = || (sandbox, "web".parse().expect("a name"));
    assert_eq!(
        local.attach_leg(now, web(), &[]).expect_err("none").to_string(),
        "network weft_gwbridge not found"
    );
    let bridge = create(&mut local, gateway_bridge()).expect("valid");
    let view = local.bridge(bridge).expect("a bridge");
    assert_eq!((view.interface.as_str(), view.icc, view.masquerade), ("weft_gwbridge", false, true));
    let beside = ["172.18.9.9/24".parse().expect("an address")];
    let refused = local.attach_leg(now, web(), &beside).expect_err("its addresses are in two networks");
    assert!(refused.to_string().starts_with("its networks have addresses of weft_gwbridge, 172.18.0.0/16: "));
    let leg = local.attach_leg(now, web(), &["10.7.0.2/24".parse().expect("an address")]).expect("room");
    assert_eq!(
        (local.leg(sandbox), leg.addresses[0].to_string().as_str()),
        (Some(leg.endpoint), "172.18.0.2/16")
    );
    let blue = create(&mut local, request("zzz", &[])).expect("valid");
    local.attach(now, wish(blue, 1), -9).expect("room");
    let first = |local: &Local| {
        local
            .ways_out(sandbox)
            .min_by_key(|way| std::cmp::Reverse(way.priority))
            .map(|way| way.name.to_owned())
    };
    assert_eq!(first(&local).as_deref(), Some("zzz"));
    drop(local);
    let local = start(&memory, &Defaults::default()).expect("the same state");
    assert_eq!(local.legs().collect::<Vec<_>>(), [(sandbox, leg.endpoint)]);
}
