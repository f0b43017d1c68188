//! The rig itself, with the kernel's VXLAN: what the measurements of weft stand beside must work alone.

use std::time::Duration;

use super::*;
use crate::traffic::{UDP_SIZE, UdpLoad};

fn rig(purpose: &'static str, hosts: u8, wiring: Wiring) -> Option<Rig> {
    let root = nix::unistd::Uid::effective().is_root();
    if !root && std::env::var_os("WEFT_ALLOW_SKIP").is_some_and(|value| value == "1") {
        return None;
    }
    assert!(root, "needs root; WEFT_ALLOW_SKIP=1 skips");
    Some(Rig::build(&Blueprint { purpose, hosts, wiring, program: "/bin/false".into() }).expect("rig"))
}

#[test]
fn the_kernels_vxlan_carries_pings_tcp_and_datagrams_between_two_hosts() {
    let Some(rig) = rig("test-cable", 2, Wiring::Cable) else { return };
    let [a, b] = rig.kernel_stations(0, 1).expect("stations");
    let limit = Duration::from_secs(10);
    let ends = rig.ends(&a, &b);
    assert!(ends.ping(limit).expect("ping").is_some());
    let time = Duration::from_millis(200);
    assert!(ends.tcp(1, time).expect("TCP").octets > 0);
    let delivery = ends.udp(UdpLoad { size: UDP_SIZE, rate: 1_000, time }).expect("UDP");
    assert_eq!(delivery.arrivals.received, delivery.departures.sent);
    assert!(rig.ends(&b, &a).round_trips_under_load(2, time).expect("round trips").count > 0);
}

#[test]
fn hosts_on_a_switch_reach_each_other_and_nothing_is_left_of_them() {
    let Some(rig) = rig("test-switch", 3, Wiring::Switch) else { return };
    let directory = rig.directory().to_owned();
    let [a, .., c] = rig.hosts() else { panic!("three hosts") };
    let mut pinger =
        a.namespace.run(|| crate::traffic::Pinger::open(c.address, 1)).expect("enter").expect("socket");
    let answered = pinger.until_answered(Duration::from_millis(100), Duration::from_secs(10)).expect("ping");
    assert!(answered.is_some());
    assert!(directory.exists());
    drop(rig);
    assert!(!directory.exists());
}

#[test]
fn an_agent_that_ends_at_once_is_an_error_with_its_last_words() {
    let Some(mut rig) = rig("test-agent", 2, Wiring::Cable) else { return };
    let error = format!("{:#}", rig.start_agent(0).expect_err("false ends at once"));
    assert!(error.contains("ended on host a"), "{error}");
}
