//! Options of bridge networks, in real namespaces: who is kept from whom, how large packets are, whose links stay.

use crate::audit::Snapshot;
use crate::greeter::{Greeter, SHORT, ask, ask_for};
use crate::rig::{Rig, needs_root};
use crate::traffic::pings;

#[test]
fn without_icc_neighbours_are_kept_apart_and_the_way_out_works() {
    needs_root!();
    let rig = Rig::with_client(1);
    let [a, client] = rig.hosts.as_slice() else { panic!("two hosts") };
    let icc = "com.docker.network.bridge.enable_icc=false";
    let subnets = ["--subnet", "172.28.0.0/24", "--ipv6", "--subnet", "fd28::/64"];
    a.ok(&[&["network", "create", "-o", icc][..], &subnets, &["apart"]].concat());
    let (one, two) = (a.sandbox("one", "apart", &[]), a.sandbox("two", "apart", &[]));
    let _servers = [Greeter::at(&one.namespace, "one", 80), Greeter::at(&client.namespace, "client", 80)];
    for address in one.addresses() {
        assert!(!pings(&two.namespace, address), "two does not reach {address}");
        assert_eq!(ask_for(&two.namespace, (address, 80), SHORT), None, "{address}");
        assert!(ask(&a.namespace, (address, 80)).is_some(), "the host reaches {address}");
    }
    // A neighbour's address by way of the gateway is the same neighbour.
    two.namespace.run(&format!("ip route replace {} via 172.28.0.1", one.ip4()));
    assert_eq!(ask_for(&two.namespace, (one.ip4(), 80), SHORT), None, "nor by the gateway");
    for sandbox in [&one, &two] {
        assert_eq!(ask(&sandbox.namespace, (client.ip4, 80)), Some(format!("client {}", a.ip4)));
        assert_eq!(ask(&sandbox.namespace, (client.ip6, 80)), Some(format!("client {}", a.ip6)));
    }
}

#[test]
fn interfaces_get_the_mtu_that_was_asked_for_and_no_larger_packet_passes() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&[
        "network",
        "create",
        "-o",
        "com.docker.network.driver.mtu=1300",
        "--subnet",
        "172.28.0.0/24",
        "small",
    ]);
    let (one, two) = (a.sandbox("one", "small", &[]), a.sandbox("two", "small", &[]));
    for sandbox in [&one, &two] {
        let shown = sandbox.namespace.run(&format!("ip -o link show {}", sandbox.interface));
        assert!(shown.contains(" mtu 1300 "), "{}: {shown}", sandbox.name);
    }
    let ping =
        |size: u16, to: &str| one.namespace.succeeds(&format!("ping -n -q -c 1 -W 5 -M do -s {size} {to}"));
    for to in [two.ip4().to_string(), "172.28.0.1".to_owned()] {
        assert!(ping(1300 - 28, &to) && !ping(1301 - 28, &to), "to {to}");
    }
}

#[test]
fn a_bridges_name_that_is_anothers_is_refused_and_that_one_stays_as_it_is() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.namespace.run("ip link add br9 type bridge");
    a.namespace.run("ip addr add 10.9.9.1/24 dev br9");
    a.namespace.run("ip link set br9 addrgenmode none up");
    let links = || a.namespace.run("ip addr show br9") + &a.namespace.run("ip addr show u0");
    let before = (Snapshot::of(a), links(), a.ok(&["network", "ls"]));
    for name in ["br9", "u0", "lo"] {
        let option = format!("com.docker.network.bridge.name={name}");
        let refused = a.refused(1, &["network", "create", "-o", &option, "mine"]);
        let said = refused.contains(&format!("the host has an interface {name} that is not weft's"))
            || refused.contains("invalid interface name \"lo\"");
        assert!(said, "{refused}");
        assert_eq!((Snapshot::of(a), links(), a.ok(&["network", "ls"])), before, "after {name}");
    }
    a.ok(&["network", "create", "-o", "com.docker.network.bridge.name=mine0", "mine"]);
    assert!(a.namespace.succeeds("ip link show mine0"));
    a.ok(&["network", "rm", "mine"]);
    before.0.assert_returns(a);
}

#[test]
fn the_predefined_bridge_is_where_the_operator_says() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    a.start(&["--bip", "10.99.0.1/24"]);
    let web = a.sandbox("web", "bridge", &[]);
    assert_eq!(web.ip4().to_string(), "10.99.0.2");
    assert!(pings(&web.namespace, std::net::Ipv4Addr::new(10, 99, 0, 1).into()));
    assert!(a.namespace.run("ip -o addr show dev weft0").contains("10.99.0.1/24"));
    drop(web);
    a.ok(&["sandbox", "rm", "web"]);
    a.stop();
    a.start(&["--bip", "10.98.0.1/16"]);
    let web = a.sandbox("web", "bridge", &[]);
    assert_eq!(web.ip4().to_string(), "10.98.0.2");
    let addresses = a.namespace.run("ip -o -4 addr show dev weft0");
    assert!(addresses.contains("10.98.0.1/16") && !addresses.contains("10.99"), "{addresses}");
    a.stop();
    let mut command = a.agent_command(a.ip4.into());
    let refused = a.ends(command.args(["--bip", "10.97.0.1/24"]));
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("--bip 10.97.0.1/24: the network bridge has the subnet 10.98.0.0/16"),
        "{refused:?}"
    );
}
