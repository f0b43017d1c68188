//! Three hosts, ten sandboxes each: everyone reaches everyone, whatever the offloads.

use std::net::IpAddr;

use crate::rig::{Rig, Sandbox, UNDERLAY, needs_root};
use crate::traffic::{Sample, iperf, pings, unreachable};
use crate::wait::eventually;

/// Switches of ethtool that change which of the offload paths frames take.
const SWITCHES: [&str; 5] = ["tx", "rx", "tso", "gso", "gro"];

#[test]
fn every_pair_of_thirty_sandboxes_on_three_hosts_pings_over_ipv4_and_ipv6() {
    needs_root!();
    let rig = Rig::cluster(3);
    rig.hosts[0].ok(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--ipv6",
        "--subnet",
        "10.7.0.0/24",
        "--subnet",
        "2001:db8:7::/64",
        "blue",
    ]);
    let sandboxes: Vec<Sandbox<'_>> = std::thread::scope(|scope| {
        let per_host = |host| move || (0..10).map(|n| name_and_attach(host, n)).collect::<Vec<_>>();
        let threads: Vec<_> = rig.hosts.iter().map(|host| scope.spawn(per_host(host))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("attached")).collect()
    });
    rig.converge("blue");

    let everyone: Vec<IpAddr> = sandboxes.iter().flat_map(Sandbox::addresses).collect();
    assert_eq!(everyone.len(), 60, "thirty sandboxes have an address of each family");
    std::thread::scope(|scope| {
        for share in sandboxes.chunks(8) {
            let everyone = &everyone;
            scope.spawn(move || {
                for sandbox in share {
                    let missing = unreachable(sandbox, everyone);
                    assert!(missing.is_empty(), "{} does not reach {missing:?}", sandbox.name);
                }
            });
        }
    });
}

fn name_and_attach(host: &crate::rig::Host, number: usize) -> Sandbox<'_> {
    let name = format!("{}{number}", host.name);
    eventually(&format!("{name} is attached"), || match host.weft(&["network", "inspect", "blue"]).code {
        0 => Ok(()),
        _ => Err(format!("{} does not know the network", host.name)),
    });
    host.sandbox(&name, "blue", &[])
}

#[test]
fn tcp_and_a_gibibyte_file_arrive_whole_both_ways_with_every_offload_on_and_off() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);

    for (address, flags) in
        [(db.ip4.map(IpAddr::V4), [].as_slice()), (db.ip6.map(IpAddr::V6), &["--reverse"])]
    {
        let octets = iperf(&web, &db, address.expect("both families"), flags);
        assert!(octets > 10_000_000, "iperf3 {flags:?} moved only {octets} octets");
    }

    let gibibyte = Sample::new(rig.dir.path(), 1 << 30);
    gibibyte.travels_both_ways(&web, &db);
    for switch in SWITCHES {
        turn(&rig, &[&web, &db], switch, "off");
    }
    gibibyte.travels_both_ways(&web, &db);
}

#[test]
fn files_arrive_whole_with_any_single_offload_off_in_the_sandbox_or_on_the_underlay() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);
    let sample = Sample::new(rig.dir.path(), 24 << 20);
    for switch in SWITCHES {
        turn(&rig, &[], switch, "off");
        sample.travels_both_ways(&web, &db);
        turn(&rig, &[], switch, "on");
        turn_in_sandboxes(&[&web, &db], switch, "off");
        sample.travels_both_ways(&web, &db);
        turn_in_sandboxes(&[&web, &db], switch, "on");
    }
}

#[test]
fn an_ipv6_underlay_carries_both_families() {
    needs_root!();
    let rig = Rig::wire(&["a", "b"]);
    rig.hosts.iter().for_each(|host| host.start_command(&mut host.agent_command(host.ip6.into())));
    rig.meet(2);
    let (web, db) = pair(&rig);
    db.addresses()
        .into_iter()
        .for_each(|address| assert!(pings(&web.namespace, address), "{address} answers"));
    Sample::new(rig.dir.path(), 24 << 20).travels_both_ways(&web, &db);
}

#[test]
fn datagrams_of_any_size_come_back_whole_over_both_families() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (web, db) = pair(&rig);
    for address in db.addresses() {
        for size in [4, 512, 1_400, 1_423, 9_000, 30_000] {
            let whole = crate::traffic::udp_echo(&web.namespace, &db.namespace, address, 20, size);
            assert!(whole > 0.9, "{size} octets to {address}: {whole} came back");
        }
    }
}

/// A network of both families and one sandbox on each of the first two hosts.
pub(crate) fn pair(rig: &Rig) -> (Sandbox<'_>, Sandbox<'_>) {
    let [a, b, ..] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--ipv6",
        "--subnet",
        "10.7.0.0/24",
        "--subnet",
        "2001:db8:7::/64",
        "blue",
    ]);
    eventually("b knows the network", || match b.weft(&["network", "inspect", "blue"]) {
        answer if answer.code == 0 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    let pair = (a.sandbox("web", "blue", &[]), b.sandbox("db", "blue", &[]));
    rig.converge("blue");
    pair
}

/// Turns an offload on the underlay of every host and in the sandboxes; fails where the kernel has no such switch.
fn turn(rig: &Rig, sandboxes: &[&Sandbox<'_>], switch: &str, state: &str) {
    for host in &rig.hosts {
        host.namespace.run(&format!("ethtool -K {UNDERLAY} {switch} {state}"));
    }
    turn_in_sandboxes(sandboxes, switch, state);
}

fn turn_in_sandboxes(sandboxes: &[&Sandbox<'_>], switch: &str, state: &str) {
    for sandbox in sandboxes {
        sandbox.namespace.run(&format!("ethtool -K {} {switch} {state}", sandbox.interface));
    }
}
