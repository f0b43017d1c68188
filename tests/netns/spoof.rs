//! A sandbox that sends whatever it likes fools neither the sandboxes of its host nor others, and the honest ones
//! notice nothing of what keeps it from that.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use weft_dataplane::io::{Tap, TapQueue};
use weft_dataplane::neighbour::link_local;
use weft_dataplane::wire::{MacAddr, vnet};

use crate::bad_input::{counter, counters};
use crate::everyone::pair;
use crate::frames::{Frame, advertisement, arp_reply, ip6, mac, udp};
use crate::namespace::Namespace;
use crate::rig::{Host, Rig, Sandbox, needs_root};
use crate::traffic::{Sample, pings, udp_echo};
use crate::wait::{eventually, until};

/// Copies of each frame, so that one lost on the way proves nothing.
const COPIES: u64 = 3;

/// Octets of a datagram that is not forged; forged ones have others.
pub(crate) const HONEST: usize = 11;

/// A sandbox's way to put frames of any content on its interface: a TAP on a bridge with it.
pub(crate) struct Raw(TapQueue);

impl Raw {
    pub(crate) fn inside(sandbox: &Sandbox<'_>) -> Self {
        let namespace = &sandbox.namespace;
        let mut queues = namespace.enter(|| Tap::create("raw", 1)).expect("a TAP").into_queues();
        for command in [
            "ip link add rawbr type bridge stp_state 0 mcast_snooping 0",
            "ip link set rawbr addrgenmode none",
            "ip link set raw addrgenmode none",
            "ip link set raw master rawbr",
            "ip link set raw up",
            "ip link set rawbr up",
            &format!("ip link set {} master rawbr", sandbox.interface),
        ] {
            namespace.run(command);
        }
        Self(queues.remove(0))
    }

    pub(crate) fn says(&self, frame: &[u8]) {
        let octets = [&[0; vnet::HEADER_LEN], frame].concat();
        nix::unistd::write(self.0.as_fd(), &octets).expect("written");
    }
}

/// What a liar says to `to` so as to be taken for `victim`, each with the reason it is dropped for.
pub(crate) fn lies(
    liar: &Sandbox<'_>,
    victim: &Sandbox<'_>,
    to: &Sandbox<'_>,
) -> Vec<(&'static str, Vec<u8>)> {
    let [own, theirs, there] = [liar, victim, to].map(|sandbox| mac(&sandbox.mac));
    let [own6, theirs6, there6] = [liar, victim, to].map(|sandbox| sandbox.ip6.expect("an IPv6 address"));
    let honest = Frame::from_to(liar, to);
    let ip = victim.ip4().octets();
    let (me, you) = ((own, own6), (there, there6));
    let mut dhcp = honest.octets();
    dhcp[34..36].copy_from_slice(&67_u16.to_be_bytes());
    let formed = link_local(MacAddr(theirs));
    vec![
        ("spoofed_mac", Frame::from_to(victim, to).octets()),
        ("spoofed_mac", Frame { src: theirs, ..honest.clone() }.octets()),
        ("spoofed_ip", Frame { ip_src: ip, ..honest }.octets()),
        ("spoofed_arp", arp_reply(own, there, 1, own, ip)),
        ("spoofed_arp", arp_reply(own, there, 1, theirs, liar.ip4().octets())),
        ("malformed_arp", arp_reply(own, there, 6, own, ip)),
        ("spoofed_ip", ip6((own, theirs6), you, 17, udp(9_999), 6)),
        ("spoofed_ip", ip6((own, formed), you, 17, udp(9_999), 6)),
        ("spoofed_nd", ip6(me, you, 58, advertisement(theirs6, own), 2)),
        ("spoofed_nd", ip6(me, you, 58, advertisement(formed, own), 2)),
        ("router_advertisement", ip6(me, you, 58, [&[134, 0][..], &[0; 14]].concat(), 2)),
        ("router_redirect", ip6(me, you, 58, [&[137, 0][..], &[0; 38]].concat(), 2)),
        ("dhcp_server", dhcp),
        ("dhcp_server", ip6(me, you, 17, udp(547), 6)),
    ]
}

/// Sends each of `lies`, which must be counted under `prefix` at `host`.
pub(crate) fn counted(host: &Host, raw: &Raw, lies: &[(&'static str, Vec<u8>)], prefix: &str) {
    for (reason, frame) in lies {
        let name = format!("{prefix}{reason}");
        let before = counter(host, "Drops", &name);
        (0..COPIES).for_each(|_| raw.says(frame));
        eventually(&format!("{name} is counted for {frame:02x?}"), || {
            let now = counter(host, "Drops", &name);
            if now >= before + COPIES { Ok(()) } else { Err(format!("{:?}", counters(host, "Drops"))) }
        });
    }
}

/// A sandbox that listens to whatever comes to port 9999, and knows `victim`.
pub(crate) struct Listener<'s, 'h> {
    sandbox: &'s Sandbox<'h>,
    victim: &'s Sandbox<'h>,
    sockets: [UdpSocket; 2],
}

impl<'s, 'h> Listener<'s, 'h> {
    pub(crate) fn new(sandbox: &'s Sandbox<'h>, victim: &'s Sandbox<'h>) -> Self {
        let bind = |ip: IpAddr| {
            let socket = sandbox.namespace.enter(|| UdpSocket::bind((ip, 9_999))).expect("bound");
            socket.set_nonblocking(true).expect("set");
            socket
        };
        let sockets = [sandbox.ip4().into(), IpAddr::V6(sandbox.ip6.expect("an IPv6 address"))].map(bind);
        for address in victim.addresses() {
            assert!(pings(&sandbox.namespace, address), "{} reaches {}", sandbox.name, victim.name);
        }
        Self { sandbox, victim, sockets }
    }

    /// Octets of the next datagram that has come.
    pub(crate) fn hears(&self) -> Option<usize> {
        self.sockets.iter().find_map(|socket| socket.recv(&mut [0; 64]).ok())
    }

    pub(crate) fn is_not_fooled(&self) {
        let name = &self.sandbox.name;
        while let Some(octets) = self.hears() {
            assert_eq!(octets, HONEST, "something forged reached {name}");
        }
        for address in self.victim.addresses() {
            // an interface that tells of itself a second time forgets its neighbours
            assert!(pings(&self.sandbox.namespace, address), "{name} reaches {address}");
            let known = self.sandbox.namespace.run(&format!("ip neigh show {address}"));
            assert!(known.contains(&self.victim.mac), "{name} takes somebody else for {address}: {known}");
        }
    }
}

#[test]
fn a_sandbox_that_forges_frames_fools_no_sandbox_of_its_host_and_none_of_another() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, far) = pair(&rig);
    let a = &rig.hosts[0];
    let near = a.sandbox("near", "blue", &[]);
    let liar = a.sandbox("liar", "blue", &[]);
    rig.converge("blue");
    let raw = Raw::inside(&liar);
    for to in [&near, &far] {
        let listener = Listener::new(to, &web);
        until("what is not forged arrives", || {
            raw.says(&Frame { padding: HONEST, ..Frame::from_to(&liar, to) }.octets());
            listener.hears() == Some(HONEST)
        });
        counted(a, &raw, &lies(&liar, &web, to), "bridge_");
        listener.is_not_fooled();
    }
    let before = counter(a, "Drops", "bridge_vlan_tagged");
    let tagged = [&Frame::from_to(&web, &near).octets()[..12], &[0x81, 0, 0, 1, 8, 0], &[0; 40]].concat();
    raw.says(&tagged);
    until("a tagged frame is counted", || counter(a, "Drops", "bridge_vlan_tagged") > before);
    assert_eq!(a.json(&["status"])["Warnings"].as_array().map(Vec::len), Some(0));
}

#[test]
fn without_nft_networks_work_the_operator_is_told_and_other_hosts_are_not_fooled() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let bin = a.dir.join("bin");
    std::fs::create_dir(&bin).expect("made");
    std::fs::write(bin.join("nft"), "#!/bin/sh\necho 'Error: Operation not supported' >&2\nexit 1\n")
        .expect("written");
    std::fs::set_permissions(bin.join("nft"), std::fs::Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    a.start_command(a.agent_command(a.ip4.into()).env("PATH", path));
    b.start(&[]);
    rig.meet(2);
    let (web, far) = pair(&rig);
    let liar = a.sandbox("liar", "blue", &[]);
    rig.converge("blue");
    let warned = a.json(&["status"])["Warnings"].to_string();
    assert!(warned.contains("Operation not supported") && warned.contains("IP addresses"), "{warned}");

    let raw = Raw::inside(&liar);
    let listener = Listener::new(&far, &web);
    let (by_mac, others): (Vec<_>, Vec<_>) =
        lies(&liar, &web, &far).into_iter().partition(|(reason, _)| *reason == "spoofed_mac");
    by_mac.iter().for_each(|(_, frame)| raw.says(frame));
    counted(a, &raw, &others, "");
    listener.is_not_fooled();
    assert_eq!(counter(a, "Drops", "spoofed_mac"), 0, "the locked port takes no other MAC address");
    unlock(a);
    let nobody = Frame { src: [2, 0, 0, 0, 0, 0x99], ..Frame::from_to(&liar, &far) }.octets();
    counted(a, &raw, &[("spoofed_mac", nobody)], "");
    listener.is_not_fooled();
}

/// Lets every port of the host's networks take all MAC addresses, as kernels before 5.18 do.
fn unlock(host: &Host) {
    let pins = crate::audit::mounts_under(&host.dir);
    let hidden = pins.iter().find(|at| at.contains("/netns/.")).expect("the network's namespace");
    let inside = Namespace::open(std::path::Path::new(hidden));
    let links = inside.run("ip -o link show type veth");
    for port in links.lines().filter_map(|line| line.split([':', '@']).nth(1)) {
        inside.run(&format!("bridge link set dev {} locked off", port.trim()));
    }
}

#[test]
fn honest_sandboxes_of_one_host_are_not_hindered_by_what_stops_liars() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, far) = pair(&rig);
    let a = &rig.hosts[0];
    let near = a.sandbox("near", "blue", &[]);
    rig.converge("blue");
    let sample = Sample::new(rig.dir.path(), 64 << 20);
    for to in [&near, &far] {
        for address in to.addresses() {
            sample.travels(&web.namespace, &to.namespace, address);
            sample.travels(
                &to.namespace,
                &web.namespace,
                if address.is_ipv4() { web.addresses()[0] } else { web.addresses()[1] },
            );
        }
        for size in [64, 1_400, 8_000] {
            assert!(
                udp_echo(&web.namespace, &to.namespace, to.ip4().into(), 50, size) > 0.9,
                "{size} octets"
            );
        }
    }
    // an interface that comes up anew forms its link-local address and makes sure that nobody has it
    near.namespace.run(&format!("ip link set {} down", near.interface));
    near.namespace.run(&format!("ip link set {} up", near.interface));
    let formed: Ipv6Addr = link_local(MacAddr(mac(&near.mac)));
    until("it is its own", || {
        let shown = near.namespace.run(&format!("ip -o addr show dev {} to {formed}", near.interface));
        !shown.is_empty() && !shown.contains("tentative") && !shown.contains("dadfailed")
    });
    let ping = format!("ping -n -q -c 1 -W 5 {formed}%{}", web.interface);
    assert!(web.namespace.succeeds(&ping), "the link-local address answers");
    let dropped: u64 =
        counters(a, "Drops").iter().filter(|(name, _)| name.starts_with("bridge_")).map(|(_, n)| n).sum();
    assert_eq!(dropped, 0, "{:?}", counters(a, "Drops"));
}
