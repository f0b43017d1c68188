//! Networks on a link of the host: who is on the link's segment, with which addresses, and what stays of it.

use std::net::{IpAddr, Ipv4Addr};

use crate::audit::Snapshot;
use crate::dns::{A, ask};
use crate::greeter::{Greeter, SHORT, ask_for};
use crate::namespace::Namespace;
use crate::rig::{Host, Rig, needs_root};
use crate::traffic::pings;
use crate::wait::until;

/// The host's link on a segment of its own; the host is .2 there.
const PARENT: &str = "lan0";

/// A machine on that segment: .1, which others take for their router.
fn segment(host: &Host) -> Namespace {
    let router = Namespace::create();
    plug_in(host, &router);
    router.run("ip addr add 10.20.0.1/24 dev port");
    router.run("ip addr add fd20::1/64 dev port nodad");
    router.run("ip addr add 198.51.100.1/32 dev lo");
    router
}

/// Gives the host its link, to a port of `router`.
fn plug_in(host: &Host, router: &Namespace) {
    host.namespace.run(&format!("ip link add {PARENT} type veth peer name port netns {}", router.path()));
    host.namespace.run(&format!("ip link set {PARENT} addrgenmode none up"));
    host.namespace.run(&format!("ip addr add 10.20.0.2/24 dev {PARENT}"));
    router.run("ip link set port up");
}

/// A host with an agent and such a link.
fn host_on_a_segment() -> (Rig, Namespace) {
    let rig = Rig::cluster(1);
    let router = segment(&rig.hosts[0]);
    (rig, router)
}

fn create(host: &Host, name: &str, flags: &[&str]) {
    let parent = format!("parent={PARENT}");
    let mut arguments = vec!["network", "create", "-d", "macvlan", "-o", &parent];
    arguments.extend(flags);
    arguments.push(name);
    host.ok(&arguments);
}

const SUBNET: [&str; 6] =
    ["--subnet", "10.20.0.0/24", "--ip-range", "10.20.0.128/25", "--gateway", "10.20.0.1"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn sandboxes_are_machines_on_the_segment_of_their_networks_parent() {
    needs_root!();
    let (rig, router) = host_on_a_segment();
    let a = &rig.hosts[0];
    let before = Snapshot::of(a);
    let six = ["--ipv6", "--subnet", "fd20::/64", "--gateway", "fd20::1"];
    create(a, "lan", &[&SUBNET[..], &six, &["--aux-address", "printer=10.20.0.128"]].concat());
    let web = a.sandbox("web", "lan", &["--alias", "www"]);
    let db = a.sandbox("db", "lan", &["--ip", "10.20.0.9"]);
    assert_eq!((web.ip4(), db.ip4()), (Ipv4Addr::new(10, 20, 0, 129), Ipv4Addr::new(10, 20, 0, 9)));
    for address in db.addresses().into_iter().chain(["10.20.0.1", "fd20::1", "198.51.100.1"].map(ip)) {
        assert!(pings(&web.namespace, address), "web reaches {address}");
    }
    for address in web.addresses() {
        assert!(pings(&router, address), "the router reaches {address}");
        assert!(!pings(&a.namespace, address), "the host is kept from {address}, as of the kernel");
    }
    assert_eq!(
        web.namespace.run("ip route show default").trim(),
        "default via 10.20.0.1 dev eth0 proto static"
    );
    assert!(web.namespace.run("ip -6 route show default").contains("via fd20::1 dev eth0"));
    assert_eq!(ask(&web.namespace, "db", A).addresses(), [db.ip4().into()].into());
    assert_eq!(ask(&db.namespace, "www.lan", A).addresses(), [web.ip4().into()].into());

    let shown = &a.json(&["network", "inspect", "lan"])[0];
    assert_eq!((&shown["Driver"], &shown["Scope"]), (&"macvlan".into(), &"local".into()));
    assert_eq!(shown["Options"]["parent"], PARENT);
    assert_eq!(shown["Containers"].as_object().map(|ends| ends.len()), Some(2), "{shown}");
    assert!(a.ok(&["network", "ls", "--filter", "driver=macvlan"]).contains("lan"));
    drop((web, db));
    a.ok(&["sandbox", "rm", "web", "db"]);
    assert_eq!(a.ok(&["network", "prune", "-f"]), "Deleted Networks:\nlan");
    before.assert_returns(a);
}

#[test]
fn addresses_of_others_are_handed_to_nobody_and_published_ports_are_not_there() {
    needs_root!();
    let (rig, router) = host_on_a_segment();
    let a = &rig.hosts[0];
    create(a, "lan", &[&SUBNET[..], &["--aux-address", "printer=10.20.0.128"]].concat());
    assert_eq!(
        a.sandbox("first", "lan", &[]).ip4(),
        Ipv4Addr::new(10, 20, 0, 129),
        "the lowest one that is free"
    );
    a.ok(&["sandbox", "create", "-p", "8080:80", "web"]);
    let taken = a.refused(1, &["network", "connect", "--ip", "10.20.0.128", "lan", "web"]);
    assert!(taken.contains("Address already in use"), "{taken}");
    let outside = a.refused(1, &["network", "connect", "--ip", "10.21.0.1", "lan", "web"]);
    assert!(outside.contains("no configured subnet contains IP address 10.21.0.1"), "{outside}");
    a.ok(&["network", "connect", "lan", "web"]);
    let web = a.attached("web", "lan");
    let _server = Greeter::at(&web.namespace, "web", 80);
    assert!(ask_for(&router, (web.ip4(), 80), SHORT).is_some(), "every port of it is on the segment");
    for host in [Ipv4Addr::LOCALHOST, a.ip4, Ipv4Addr::new(10, 20, 0, 2)] {
        assert_eq!(ask_for(&a.namespace, (host, 8080), SHORT), None, "as with Docker, -p does nothing");
    }
    let ports = &a.json(&["sandbox", "inspect", "web"])[0]["NetworkSettings"]["Ports"];
    assert_eq!(*ports, serde_json::json!({"80/tcp": null}));
}

#[test]
fn modes_say_whom_endpoints_reach() {
    needs_root!();
    let (rig, router) = host_on_a_segment();
    let a = &rig.hosts[0];
    create(a, "alone", &[&SUBNET[..], &["-o", "macvlan_mode=private"]].concat());
    let (one, two) = (a.sandbox("one", "alone", &[]), a.sandbox("two", "alone", &[]));
    assert!(!pings(&one.namespace, two.ip4().into()), "private ones do not reach each other");
    assert!(pings(&one.namespace, ip("10.20.0.1")) && pings(&router, two.ip4().into()));
    drop((one, two));
    a.ok(&["sandbox", "rm", "one", "two"]);
    a.ok(&["network", "rm", "alone"]);

    let parents = a.namespace.run(&format!("ip -br link show {PARENT}"));
    create(a, "whole", &[&SUBNET[..], &["-o", "macvlan_mode=passthru"]].concat());
    let one = a.sandbox("one", "whole", &["--mac-address", "02:00:00:00:20:01"]);
    assert!(pings(&router, one.ip4().into()));
    assert!(router.run("ip neigh show dev port").contains("02:00:00:00:20:01"));
    a.ok(&["sandbox", "create", "two"]);
    let refused = a.refused(1, &["network", "connect", "whole", "two"]);
    assert!(refused.contains("mode passthru, which has one endpoint: disconnect one first"), "{refused}");
    drop(one);
    a.ok(&["sandbox", "rm", "one"]);
    assert_eq!(
        a.namespace.run(&format!("ip -br link show {PARENT}")),
        parents,
        "the parent has its address back"
    );
    a.ok(&["network", "connect", "whole", "two"]);
    assert!(pings(&router, a.attached("two", "whole").ip4().into()));
}

#[test]
fn networks_share_a_parent_as_in_docker_and_internal_ones_have_no_way_out() {
    needs_root!();
    let (rig, _router) = host_on_a_segment();
    let a = &rig.hosts[0];
    create(a, "lan", &SUBNET);
    create(
        a,
        "more",
        &["--subnet", "10.22.0.0/24", "--subnet", "10.23.0.0/24", "--internal", "-o", "weft.mtu=1400"],
    );
    let id = a.ok(&["network", "inspect", "lan", "--format", "{{.Id}}"]);
    let more = a.ok(&["network", "inspect", "more", "--format", "{{.Id}}"]);
    let passthru =
        ["network", "create", "-d", "macvlan", "-o", "parent=lan0", "-o", "macvlan_mode=passthru", "third"];
    let refused = a.refused(1, &passthru);
    let text =
        format!("cannot use mode passthru, macvlan network {id} is already using parent interface lan0");
    // Of those that use it the first in order of ids is named.
    assert!(refused.contains(&text) || refused.contains(&text.replace(&id, &more)), "{refused}");
    let (one, two) = (a.sandbox("one", "more", &[]), a.sandbox("two", "more", &["--ip", "10.23.0.9"]));
    assert_eq!((one.ip4(), two.ip4()), (Ipv4Addr::new(10, 22, 0, 2), Ipv4Addr::new(10, 23, 0, 9)));
    assert_eq!(one.namespace.run("ip route show default"), "");
    assert!(one.namespace.run("ip -o link show eth0").contains(" mtu 1400 "));
    drop((one, two));
    a.ok(&["sandbox", "rm", "one", "two"]);
    a.ok(&["network", "rm", "more", "lan"]);
    a.ok(&passthru);
    let refused = a.refused(1, &["network", "create", "-d", "macvlan", "-o", "parent=lan0", "lan"]);
    assert!(refused.contains("is already using parent interface lan0 in mode passthru"), "{refused}");
}

#[test]
fn what_cannot_be_made_is_refused_at_once_and_leaves_nothing() {
    needs_root!();
    let (rig, _router) = host_on_a_segment();
    let a = &rig.hosts[0];
    let before = (Snapshot::of(a), a.ok(&["network", "ls"]));
    for (driver, options, text) in [
        (
            "macvlan",
            vec!["macvlan_mode=router"],
            "requested macvlan mode 'router' is not valid, 'bridge' mode is",
        ),
        ("ipvlan", vec!["ipvlan_mode=l9"], "requested ipvlan mode 'l9' is not valid, 'l2' mode is"),
        ("ipvlan", vec!["ipvlan_flag=x"], "requested ipvlan flag 'x' is not valid, 'bridge' is"),
        ("macvlan", vec!["parent=lo"], "loopback interface is not a valid macvlan parent link"),
        (
            "macvlan",
            vec!["parent=nic7"],
            "invalid subinterface vlan name nic7, example formatting is eth0.10",
        ),
        ("macvlan", vec!["parent=nic7.5"], "-o parent interface was not found on the host: nic7"),
        ("macvlan", vec!["parent=lan0.4095"], "vlan id must be between 1-4094, received: 4095"),
        ("macvlan", vec!["parent=lan0.0"], "vlan id must be between 1-4094, received: 0"),
        (
            "macvlan",
            vec!["parent=lan0.x"],
            "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)",
        ),
        (
            "macvlan",
            vec!["parent=lan0.1.2"],
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan",
        ),
        (
            "macvlan",
            vec!["parent=lan0", "weft.mtu=9000"],
            "invalid MTU number: 9000: the parent interface lan0 carries 1500 at most",
        ),
        ("macvlan", vec!["parent=lan0", "colour=red"], "unknown driver option \"colour\""),
    ] {
        let mut arguments = vec!["network", "create", "-d", driver];
        options.iter().for_each(|option| arguments.extend(["-o", option]));
        arguments.push("n");
        let refused = a.refused(1, &arguments);
        assert!(refused.contains(text), "{arguments:?}: {refused}");
    }
    assert_eq!((Snapshot::of(a), a.ok(&["network", "ls"])), before);
}

/// Whether the kernel knows links of this kind: it finds one without anything invalid, and does not say that it knows
/// none.
fn has(host: &Host, kind: &str) -> bool {
    let output = host.namespace.output(&mut crate::namespace::words(&format!("ip link add type {kind}")));
    let known = !String::from_utf8_lossy(&output.stderr).contains("Unknown device type");
    if output.status.success() {
        host.namespace.run(&format!("ip link del {kind}0"));
    }
    known
}

#[test]
fn what_the_kernel_has_is_made_and_removed_and_what_it_lacks_is_named_with_its_module() {
    needs_root!();
    let (rig, _router) = host_on_a_segment();
    let a = &rig.hosts[0];
    let before = Snapshot::of(a);
    for (driver, options, kind, module) in [
        ("macvlan", "-o parent=lan0.50", "vlan", "8021q"),
        ("macvlan", "", "dummy", "dummy"),
        ("ipvlan", "-o parent=lan0 -o ipvlan_mode=l2", "ipvlan", "ipvlan"),
    ] {
        let line = format!("network create -d {driver} {options} n");
        let words: Vec<_> = line.split_whitespace().collect();
        if has(a, kind) {
            a.ok(&words);
            let (one, two) = (a.sandbox("one", "n", &[]), a.sandbox("two", "n", &[]));
            assert!(pings(&one.namespace, two.ip4().into()), "{line}");
            drop((one, two));
            a.ok(&["sandbox", "rm", "one", "two"]);
            a.ok(&["network", "rm", "n"]);
        } else {
            let refused = a.refused(1, &words);
            assert!(refused.contains("the kernel of this host has no "), "{refused}");
            assert!(refused.contains(&format!("'modprobe {module}'")), "{refused}");
            assert_ne!(a.weft(&["network", "inspect", "n"]).code, 0);
        }
        before.assert_returns(a);
    }
}

#[test]
fn a_network_outlives_its_agent_and_its_parent() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let router = segment(a);
    a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "blue"]);
    create(a, "lan", &SUBNET);
    let web = a.sandbox("web", "lan", &[]);
    let links = web.namespace.run("ip -o link");
    a.kill();
    assert!(pings(&router, web.ip4().into()), "the kernel goes on without the agent");
    a.start(&[]);
    a.stop();
    a.start(&[]);
    assert_eq!(web.namespace.run("ip -o link"), links, "nothing was made anew");
    assert!(pings(&web.namespace, ip("198.51.100.1")), "by the router");

    // Somebody pulls the card, and plugs it in again.
    a.kill();
    a.namespace.run(&format!("ip link del {PARENT}"));
    a.start(&[]);
    let warnings = || a.json(&["status"])["Warnings"].to_string();
    until("it is named", || warnings().contains("lan (invalid subinterface vlan name lan0"));
    let other = a.sandbox("other", "blue", &[]);
    assert!(pings(&other.namespace, ip("172.28.0.1")), "other networks go on");
    a.ok(&["sandbox", "create", "late"]);
    let refused = a.refused(1, &["network", "connect", "lan", "late"]);
    assert!(refused.contains("the host has no interface lan0 (-o parent)"), "{refused}");
    plug_in(a, &router);
    router.run("ip addr add 10.20.0.1/24 dev port");
    a.ok(&["network", "connect", "lan", "late"]);
    assert!(pings(&a.attached("late", "lan").namespace, ip("10.20.0.1")));
    a.stop();
    a.start(&[]);
    until("web is back with its address and its way out", || pings(&web.namespace, ip("198.51.100.1")));
    assert!(!warnings().contains("lan ("), "{}", warnings());
}

#[test]
fn a_parent_that_is_a_bridges_port_is_refused_in_plain_words() {
    needs_root!();
    let (rig, _router) = host_on_a_segment();
    let a = &rig.hosts[0];
    a.namespace.run("ip link add br9 type bridge");
    a.namespace.run(&format!("ip link set {PARENT} master br9"));
    create(a, "lan", &SUBNET);
    a.ok(&["sandbox", "create", "web"]);
    let refused = a.refused(1, &["network", "connect", "lan", "web"]);
    assert!(refused.contains("lan0 takes no such children now: it is a port of a bridge"), "{refused}");
    a.namespace.run(&format!("ip link set {PARENT} nomaster"));
    a.ok(&["network", "connect", "lan", "web"]);
}

#[test]
fn an_endpoint_given_up_by_an_agent_that_died_of_it_is_gone_from_its_sandbox() {
    needs_root!();
    let (rig, router) = host_on_a_segment();
    let a = &rig.hosts[0];
    create(a, "lan", &SUBNET);
    let web = a.sandbox("web", "lan", &[]);
    a.stop();
    a.start_command(a.agent_command(a.ip4.into()).env("WEFT_KILL_AT", "local-endpoint-detach:after"));
    assert_ne!(a.weft(&["network", "disconnect", "lan", "web"]).code, 0);
    until("it is dead", || a.ended().is_some());
    assert!(pings(&router, web.ip4().into()), "the kernel has not heard of it");
    a.start(&[]);
    until("it is gone", || web.namespace.run("ip -o link").lines().count() == 1);
    assert!(!pings(&router, web.ip4().into()));
}
