//! Networks of one host: bridges, their addresses, who reaches whom.

use crate::rig::{Rig, needs_root};
use crate::traffic::pings;
use crate::wait::until;

#[test]
fn two_sandboxes_of_a_bridge_reach_each_other_and_their_gateway() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let id =
        a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "--ipv6", "--subnet", "fd28::/64", "blue"]);
    let bridge = format!("wb-{}", &id[..12]);
    assert!(
        a.namespace.run(&format!("ip -o addr show dev {bridge}")).contains("172.28.0.1/24"),
        "the bridge is there"
    );
    let (web, db) = (a.sandbox("web", "blue", &[]), a.sandbox("db", "blue", &[]));
    assert_eq!((web.ip4().to_string(), db.ip4().to_string()), ("172.28.0.2".into(), "172.28.0.3".into()));
    for address in
        db.addresses().into_iter().chain(["172.28.0.1", "fd28::1"].map(|ip| ip.parse().expect("an address")))
    {
        assert!(pings(&web.namespace, address), "web reaches {address}");
    }
    for address in web.addresses() {
        assert!(pings(&a.namespace, address), "the host reaches {address}");
    }
    assert_eq!(
        web.namespace.run("ip route show default").trim(),
        "default via 172.28.0.1 dev eth0 proto static"
    );
    assert!(web.namespace.run("ip -6 route show default").contains("via fd28::1 dev eth0"));
    let refused = a.refused(1, &["network", "rm", "blue"]);
    assert!(
        refused.contains("network blue has active endpoints (name:\"") && refused.contains("name:\"db\""),
        "{refused}"
    );
    a.ok(&["network", "disconnect", "blue", "db"]);
    a.ok(&["sandbox", "rm", "web"]);
    a.ok(&["network", "rm", "blue"]);
    let links = a.namespace.run("ip -o link");
    assert!(!links.contains(&bridge) && links.lines().count() == 2, "nothing of it is left: {links}");
    assert_eq!(a.namespace.run("nft list tables bridge").trim(), "");
}

#[test]
fn a_bridge_that_cannot_be_made_keeps_no_other_from_being_repaired() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let bridge = |name: &str| {
        let id = a.ok(&["network", "create", name]);
        drop(a.sandbox(&format!("in-{name}"), name, &[]));
        format!("wb-{}", &id[..12])
    };
    let bridges = ["blue", "red", "green"].map(bridge);
    // Another name of a link that is not weft's: the kernel refuses it to a bridge.
    a.stop();
    bridges.iter().for_each(|bridge| drop(a.namespace.run(&format!("ip link del {bridge}"))));
    a.namespace.run(&format!("ip link property add dev u0 altname {}", bridges[1]));
    a.start(&[]);
    let reaches = |name: &str| {
        let sandbox = a.attached(&format!("in-{name}"), name);
        let shown = sandbox.namespace.run("ip route show default");
        let gateway = shown.split_whitespace().nth(2).and_then(|gateway| gateway.parse().ok());
        gateway.is_some_and(|gateway| pings(&sandbox.namespace, gateway))
    };
    for name in ["blue", "green"] {
        until(&format!("{name} is there again"), || reaches(name));
    }
    assert!(!reaches("red"), "it has no bridge");
    a.namespace.run(&format!("ip link property del dev u0 altname {}", bridges[1]));
    until("the next audit makes red", || reaches("red"));
}
