//! Against the real kernel: needs root. `WEFT_ALLOW_SKIP=1` skips them where it is not to be had.

use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;
use crate::driver::overlay::{UPLINK, Wanted, plan};
use crate::driver::{End, WantedEndpoint};
use crate::model::EndpointId;
use crate::plan::{Plan, run, run_through};
use crate::sandbox::{plan_made, plan_removed};
use weft_dataplane::wire::MacAddr;

const NET: NetworkId = NetworkId([0xab; 16]);

/// Stands in for the dataplane: a veth end as the uplink.
#[derive(Clone, Default)]
struct Dummy(Arc<Mutex<Vec<u32>>>);

impl Carrier for Dummy {
    fn open(&self, namespace: &Namespace, name: &str, vni: Vni, _: Option<NetworkId>) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|fault| fault.to_string())?.block_on(async {
            let links = Links::open(namespace).map_err(|fault| fault.to_string())?;
            let veth = Veth { name, near: None, peer: "far", namespace, mac: None, mtu: 1500 };
            links.add_veth(veth).await.map_err(|fault| fault.to_string())
        })?;
        self.0.lock().map_err(|_| "a test panicked holding it")?.push(vni.into());
        Ok(())
    }

    fn close(&self, vni: Vni) {
        self.0.lock().expect("no test panics holding it").retain(|open| *open != u32::from(vni));
    }
}

/// Whether this process may change the kernel's network; panics where it may not and nobody allowed skipping.
fn privileged() -> bool {
    let may = Namespace::create().is_ok();
    let skip = std::env::var_os("WEFT_ALLOW_SKIP").is_some();
    assert!(may || skip, "this test needs root; WEFT_ALLOW_SKIP=1 skips it");
    may
}

fn kernel(directory: &std::path::Path) -> (Kernel, Dummy) {
    let dummy = Dummy::default();
    let pins = Pins::open(&directory.join("netns")).expect("a directory for pins");
    let mut kernel = Kernel::new(pins, Box::new(dummy.clone())).expect("an event loop");
    for n in 1..=2 {
        kernel.name_sandbox(SandboxId([n; 16]), &format!("sandbox{n}"));
        run(&plan_made(SandboxId([n; 16])), &mut kernel).expect("a sandbox");
    }
    kernel.close_all();
    (kernel, dummy)
}

fn tear_down(mut kernel: Kernel) {
    for n in 1..=2 {
        assert!(run_through(&plan_removed(SandboxId([n; 16])), &mut kernel).is_empty());
    }
    assert_eq!(kernel.pins().list().expect("a directory"), Vec::<String>::new());
}

fn endpoint(n: u8) -> WantedEndpoint {
    WantedEndpoint {
        id: EndpointId([n; 16]),
        end: End::Namespace,
        sandbox: SandboxId([n; 16]),
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
        addresses: vec![
            format!("10.9.0.{n}/24").parse().expect("a prefix"),
            format!("fd09::{n}/64").parse().expect("a prefix"),
        ],
    }
}

fn settle(kernel: &mut Kernel, endpoints: &[WantedEndpoint]) -> Plan {
    let vni = Vni::try_from(42).expect("it fits");
    let wanted = Wanted { network: NET, vni, mtu: 1450, sealed: false, endpoints: endpoints.to_vec() };
    let wanted = wanted.validate().expect("it is possible");
    let all = [SandboxId([1; 16]), SandboxId([2; 16])];
    let observed = kernel.observe(NET, all, false).expect("the kernel answers");
    let steps = plan(&wanted, &observed);
    run(&steps, kernel).unwrap_or_else(|failure| panic!("{} failed: {:?}", failure.step, failure.cause));
    let again = plan(&wanted, &kernel.observe(NET, all, false).expect("the kernel answers"));
    assert_eq!(again.to_string(), "", "nothing is left to do");
    kernel.close_all();
    steps
}

fn pings(kernel: &Kernel, from: &str, to: &str) -> bool {
    let namespace = kernel.pins().find(from).expect("a sandbox");
    let args = ["-c", "1", "-W", "2", to];
    let status = namespace
        .run(|| Command::new("ping").args(args).output())
        .expect("enterable")
        .expect("ping is there");
    status.status.success()
}

#[test]
fn two_sandboxes_on_one_node_reach_each_other_and_removal_leaves_nothing() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (mut kernel, dummy) = kernel(directory.path());
    settle(&mut kernel, &[endpoint(1), endpoint(2)]);
    assert!(pings(&kernel, "sandbox1", "10.9.0.2"), "IPv4");
    assert!(pings(&kernel, "sandbox2", "fd09::1"), "IPv6");
    assert_eq!(*dummy.0.lock().expect("not poisoned"), [42]);

    settle(&mut kernel, &[endpoint(1)]);
    assert!(!pings(&kernel, "sandbox1", "10.9.0.2"), "a removed endpoint answers no more");
    settle(&mut kernel, &[]);
    assert_eq!(kernel.pins().list().expect("a directory"), ["sandbox1", "sandbox2"]);
    let seen = kernel.observe(NET, [SandboxId([1; 16])], false).expect("the kernel answers");
    assert_eq!(seen.sandboxes[&SandboxId([1; 16])].keys().collect::<Vec<_>>(), ["lo"]);
    assert!(dummy.0.lock().expect("not poisoned").is_empty());
    kernel.close_all();
    tear_down(kernel);
}

#[test]
fn a_step_that_fails_anywhere_leaves_the_kernel_as_before() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (mut kernel, dummy) = kernel(directory.path());
    let all = [SandboxId([1; 16]), SandboxId([2; 16])];
    let before = kernel.observe(NET, all, false).expect("the kernel answers");
    let vni = Vni::try_from(42).expect("it fits");
    let wanted =
        Wanted { network: NET, vni, mtu: 1450, sealed: false, endpoints: vec![endpoint(1), endpoint(2)] };
    let steps = plan(&wanted.validate().expect("it is possible"), &before);
    for fail_in in 0..steps.0.len() {
        kernel.fail_in(Some(fail_in));
        let failure = run(&steps, &mut kernel).expect_err("it was told to fail");
        assert!(matches!(failure.cause, KernelError::Told), "{:?}", failure.cause);
        assert!(failure.leftovers.is_empty(), "{:?}", failure.leftovers);
        kernel.close_all();
        assert_eq!(
            kernel.observe(NET, all, false).expect("the kernel answers"),
            before,
            "failed at step {fail_in}"
        );
        assert!(dummy.0.lock().expect("not poisoned").is_empty());
    }
    kernel.close_all();
    tear_down(kernel);
}

#[test]
fn damage_done_behind_our_back_is_repaired() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (mut kernel, _) = kernel(directory.path());
    settle(&mut kernel, &[endpoint(1), endpoint(2)]);
    let damage = |kernel: &mut Kernel, at: Place, name: &str| {
        run(&Plan(vec![Step::DeleteLink { at, name: name.into() }]), kernel).expect("it is there");
        kernel.close_all();
    };
    damage(&mut kernel, Place::Sandbox(SandboxId([1; 16])), "eth0");
    settle(&mut kernel, &[endpoint(1), endpoint(2)]);
    assert!(pings(&kernel, "sandbox2", "10.9.0.1"), "the pair was made anew");
    damage(&mut kernel, Place::Hidden(NET), UPLINK);
    let repaired = settle(&mut kernel, &[endpoint(1), endpoint(2)]);
    assert!(repaired.to_string().starts_with("close the uplink"), "{repaired}");
    settle(&mut kernel, &[]);
    tear_down(kernel);
}

#[test]
fn options_of_ports_pinned_addresses_and_settings_that_were_changed_are_set_again() {
    if !privileged() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (mut kernel, _) = kernel(directory.path());
    settle(&mut kernel, &[endpoint(1), endpoint(2)]);
    let port = crate::driver::port_name(EndpointId([1; 16]));
    let hidden = hidden_pin(NET);
    for (namespace, command, repair) in [
        (&*hidden, format!("bridge link set dev {port} learning on flood on"), "add v01"),
        (&hidden, format!("bridge link set dev {UPLINK} flood off"), "add weft0"),
        (
            &hidden,
            format!("bridge fdb del 02:00:00:00:00:01 dev {port} master static"),
            "pin 02:00:00:00:00:01",
        ),
        (
            &hidden,
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=0".to_owned(),
            "set net/ipv6/conf/all/disable_ipv6",
        ),
        (
            "sandbox1",
            "sysctl -qw net.ipv6.conf.eth0.accept_ra=2".to_owned(),
            "set net/ipv6/conf/eth0/accept_ra",
        ),
        (
            "sandbox1",
            "sysctl -qw net.ipv6.conf.eth0.ndisc_notify=0".to_owned(),
            "set net/ipv6/conf/eth0/ndisc",
        ),
        (
            "sandbox1",
            "sysctl -qw net.ipv4.conf.eth0.arp_notify=0".to_owned(),
            "set net/ipv4/conf/eth0/arp_not",
        ),
        (
            "sandbox1",
            "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1".to_owned(),
            "set net/ipv6/conf/eth0/disable",
        ),
    ] {
        let at = kernel.pins().find(namespace).expect("it is pinned");
        let mut words = command.split(' ');
        let output = at.run(|| Command::new(words.next().expect("a word")).args(words).output());
        let output = output.expect("enterable").expect("it runs");
        assert!(output.status.success(), "{command}: {output:?}");
        let repaired = settle(&mut kernel, &[endpoint(1), endpoint(2)]).to_string();
        assert!(repaired.starts_with(repair), "{command}: {repaired}");
    }
    settle(&mut kernel, &[]);
    tear_down(kernel);
}

#[test]
fn the_pin_of_a_network_names_it() {
    assert_eq!(network_of_pin(&hidden_pin(NET)), Some(NET));
    for other in
        ["web", "", ".", ".abc", ".zz345678901234567890123456789012", ".é2345678901234567890123456789012"]
    {
        assert_eq!(network_of_pin(other), None, "{other}");
    }
}
