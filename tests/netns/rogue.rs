//! A sandbox that sends whatever it likes on a bridge of the host: neighbours, gateway and host notice nothing of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bad_input::counter;
use crate::frames::{Frame, advertisement, arp_reply, ip6, mac};
use crate::namespace::Namespace;
use crate::rig::{Host, Rig, Sandbox, needs_root};
use crate::spoof::{HONEST, Listener, Raw, counted, lies};
use crate::traffic::{Capture, pings};
use crate::wait::until;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 28, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd28, 0, 0, 0, 0, 0, 0, 1);

/// Makes the network `blue` with its sandboxes; gives the name of its bridge.
fn blue<'h>(a: &'h Host, sandboxes: [&str; 3]) -> (String, [Sandbox<'h>; 3]) {
    let id =
        a.ok(&["network", "create", "--subnet", "172.28.0.0/24", "--ipv6", "--subnet", "fd28::/64", "blue"]);
    (format!("wb-{}", &id[..12]), sandboxes.map(|name| a.sandbox(name, "blue", &[])))
}

fn mac_of(namespace: &Namespace, link: &str) -> String {
    let shown = namespace.run(&format!("ip -br link show {link}"));
    shown.split_whitespace().nth(2).expect("an address").to_owned()
}

/// Whether `namespace` takes whoever has `mac` for `address`, after it has asked.
fn knows(namespace: &Namespace, address: IpAddr, mac: &str) {
    assert!(pings(namespace, address), "{address} answers");
    let known = namespace.run(&format!("ip neigh show {address}"));
    assert!(known.contains(mac), "somebody else is taken for {address}: {known}");
}

/// What a liar says so as to be taken for the network's gateway, and to the host so as to be taken for `victim`.
fn lies_about_the_gateway(
    liar: &Sandbox<'_>,
    victim: &Sandbox<'_>,
    to: &Sandbox<'_>,
    gateway: [u8; 6],
) -> Vec<(&'static str, Vec<u8>)> {
    let [own, there] = [liar, to].map(|sandbox| mac(&sandbox.mac));
    let [own6, theirs6, there6] = [liar, victim, to].map(|sandbox| sandbox.ip6.expect("an IPv6 address"));
    let (me, you, host) = ((own, own6), (there, there6), (gateway, GATEWAY6));
    let all = ([0x33, 0x33, 0, 0, 0, 1], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let router = || [&[134, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8], &[1, 1], &own].concat();
    vec![
        ("spoofed_arp", arp_reply(own, there, 1, own, GATEWAY.octets())),
        ("spoofed_arp", arp_reply(own, [0xff; 6], 1, own, GATEWAY.octets())),
        ("spoofed_nd", ip6(me, you, 58, advertisement(GATEWAY6, own), 2)),
        ("spoofed_nd", ip6(me, all, 58, advertisement(GATEWAY6, own), 2)),
        ("router_advertisement", ip6(me, all, 58, router(), 2)),
        ("spoofed_arp", arp_reply(own, gateway, 1, own, victim.ip4().octets())),
        ("spoofed_nd", ip6(me, host, 58, advertisement(theirs6, own), 2)),
        ("router_advertisement", ip6(me, host, 58, router(), 2)),
        (
            "spoofed_ip",
            Frame { dst: gateway, ip_src: victim.ip4().octets(), ..Frame::from_to(liar, to) }.octets(),
        ),
    ]
}

#[test]
fn a_sandbox_that_forges_frames_fools_no_neighbour_on_a_bridge_of_the_host_and_not_the_host() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let (bridge, [web, near, liar]) = blue(a, ["web", "near", "liar"]);
    let raw = Raw::inside(&liar);
    let listener = Listener::new(&near, &web);
    until("what is not forged arrives", || {
        raw.says(&Frame { padding: HONEST, ..Frame::from_to(&liar, &near) }.octets());
        listener.hears() == Some(HONEST)
    });
    let gateway = mac_of(&a.namespace, &bridge);
    for address in [GATEWAY.into(), GATEWAY6.into()] {
        knows(&near.namespace, address, &gateway);
    }
    web.addresses().iter().for_each(|address| knows(&a.namespace, *address, &web.mac));

    counted(a, &raw, &lies(&liar, &web, &near), "bridge_");
    counted(a, &raw, &lies_about_the_gateway(&liar, &web, &near, mac(&gateway)), "bridge_");
    listener.is_not_fooled();
    for address in [GATEWAY.into(), GATEWAY6.into()] {
        knows(&near.namespace, address, &gateway);
    }
    web.addresses().iter().for_each(|address| knows(&a.namespace, *address, &web.mac));
    let routes = near.namespace.run("ip -6 route show default");
    assert!(routes.contains("via fd28::1") && routes.lines().count() == 1, "no other router: {routes}");
    assert_eq!(a.json(&["status"])["Warnings"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_flood_of_mac_addresses_teaches_a_bridge_nothing_and_shows_nobody_the_others_frames() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    let (bridge, [web, near, liar]) = blue(a, ["web", "near", "liar"]);
    let raw = Raw::inside(&liar);
    for address in web.addresses() {
        assert!(pings(&near.namespace, address));
    }
    let known = || a.namespace.run(&format!("bridge fdb show br {bridge}"));
    let before = known();
    let sniffer =
        Capture::start(&liar.namespace, &liar.interface, "icmp or icmp6 or udp", rig.dir.path().join("seen"));
    let flood = 4_000_u16;
    for number in 0..flood {
        let [high, low] = number.to_be_bytes();
        let src = [2, 0x66, 0, 0, high, low];
        let dst = if number % 2 == 0 { [0xff; 6] } else { mac(&near.mac) };
        raw.says(&Frame { src, dst, ..Frame::from_to(&liar, &near) }.octets());
    }
    until("every frame is counted", || counter(a, "Drops", "bridge_spoofed_mac") >= u64::from(flood));
    assert_eq!(known(), before, "nothing was learnt");
    for address in web.addresses() {
        assert!(pings(&near.namespace, address), "near still reaches {address}");
    }
    let pings = "icmp.type == 8 || icmp.type == 0 || icmpv6.type == 128";
    assert_eq!(sniffer.read(pings, &["eth.src"]), Vec::<Vec<String>>::new(), "frames that the liar has seen");
}
