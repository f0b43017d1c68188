//! Plans for networks with a parent, against the pretended host of the bridge driver's tests.

use super::*;
use crate::driver::bridge::pieces;
use crate::driver::{End, Guard};
use crate::model::SandboxId;
use crate::plan::{Plan, run};
use weft_dataplane::wire::MacAddr;

const ME: NodeId = NodeId([1; 16]);
const BRIDGE: Mode = Mode::Macvlan(MacvlanMode::Bridge);

fn endpoint(n: u8) -> WantedEndpoint {
    WantedEndpoint {
        id: EndpointId([n; 16]),
        sandbox: SandboxId([n; 16]),
        end: End::Namespace,
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
        addresses: vec![format!("10.5.0.{n}/24").parse().expect("a prefix")],
    }
}

fn network(n: u8, parent: Parent, endpoints: &[u8]) -> WantedNetwork {
    let endpoints = endpoints.iter().map(|n| endpoint(*n)).collect();
    WantedNetwork { network: NetworkId([n; 16]), parent, mode: BRIDGE, mtu: None, endpoints }
}

fn link(name: &str) -> Parent {
    Parent::Link(name.to_owned())
}

fn wanted(children: &[WantedNetwork]) -> Wanted {
    Wanted { children: children.to_vec(), ..Wanted::nothing(ME) }
}

/// A host with a link `u0` and one of somebody's VLANs, and three sandboxes, the first with a child of somebody's.
fn host() -> Observed {
    let link = |index| SeenLink { index, mac: MacAddr([2; 6]), mtu: 1500, ..SeenLink::default() };
    let theirs = SeenLink { child: Some(SeenChild { parent: 1, mode: BRIDGE }), ..link(9) };
    let sandboxes = (1..=3).map(|n| (SandboxId([n; 16]), BTreeMap::new()));
    let mut observed = Observed {
        links: [("u0".to_owned(), link(1)), ("u0.7".to_owned(), link(2))].into(),
        sandboxes: sandboxes.collect(),
        guard: Some(Guard::default()),
        ..Observed::default()
    };
    observed.sandboxes.entry(SandboxId([1; 16])).or_default().insert("theirs".into(), theirs);
    observed
}

fn plan(wanted: &Wanted, observed: &Observed) -> Plan {
    Plan(pieces(wanted, observed, None).into_iter().flat_map(|piece| piece.plan.0).collect())
}

fn settled(wanted: &Wanted, mut observed: Observed) -> Observed {
    run(&plan(wanted, &observed), &mut observed).expect("the plan fits the host");
    observed
}

fn states() -> Vec<Vec<WantedNetwork>> {
    let ipvlan = Mode::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge);
    vec![
        vec![],
        vec![network(1, link("u0"), &[1, 2])],
        vec![network(1, link("u0"), &[2]), network(2, link("u0.7"), &[3])],
        vec![network(1, link("u0.50"), &[1]), network(2, link("u0.50"), &[2])],
        vec![network(1, Parent::Dummy("dm-1".into()), &[1, 2])],
        vec![WantedNetwork { mode: ipvlan, ..network(1, link("u0"), &[1, 2]) }],
        vec![WantedNetwork { mtu: Some(1400), ..network(1, link("u0"), &[1, 2]) }],
    ]
}

#[test]
fn a_plan_carried_out_leaves_nothing_to_do_whatever_was_there() {
    for from in &states() {
        for to in &states() {
            let after = settled(&wanted(to), settled(&wanted(from), host()));
            let rest = plan(&wanted(to), &after);
            assert!(rest.is_empty(), "{from:?} to {to:?}: {rest}");
            assert!(after.links.contains_key("u0") && after.links.contains_key("u0.7"), "others' links stay");
            assert!(after.sandboxes[&SandboxId([1; 16])].contains_key("theirs"));
        }
    }
}

#[test]
fn whatever_beginning_of_a_plan_was_carried_out_the_rest_is_found() {
    for state in &states() {
        let target = wanted(state);
        let steps = plan(&target, &host()).0;
        for done in 0..=steps.len() {
            let mut observed = host();
            run(&Plan(steps[..done].to_vec()), &mut observed).expect("the beginning of a plan fits the host");
            let finished = settled(&target, observed.clone());
            assert!(plan(&target, &finished).is_empty(), "after {done} steps");
            assert_eq!(
                settled(&wanted(&[]), observed).links,
                host().links,
                "nothing is left after {done} steps"
            );
        }
    }
}

#[test]
fn a_vlan_that_is_missing_is_made_once_and_one_of_somebodys_is_used_as_it_is() {
    let two = [network(1, link("u0.50"), &[1]), network(2, link("u0.50"), &[2])];
    let steps = plan(&wanted(&two[..1]), &host()).to_string();
    assert!(steps.starts_with("make u0.50, VLAN 50 of u0, in the host\n"), "{steps}");
    let both = settled(&wanted(&two), host());
    let one = settled(&wanted(&two[1..]), both);
    assert!(one.links.contains_key("u0.50"), "another network needs it");
    assert!(!settled(&wanted(&[]), one).links.contains_key("u0.50"));
    let theirs = settled(&wanted(&[network(1, link("u0.7"), &[1])]), host());
    assert_eq!(theirs.links, host().links);
}

#[test]
fn parents_that_cannot_be_are_named_in_dockers_words() {
    for (name, text) in [
        (
            "nic",
            "invalid subinterface vlan name nic, example formatting is eth0.10: the host has no interface nic",
        ),
        ("nic.5", "-o parent interface was not found on the host: nic"),
        ("u0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ("u0.0", "vlan id must be between 1-4094, received: 0"),
        ("u0.4095", "vlan id must be between 1-4094, received: 4095"),
        ("u0.-1", "vlan id must be between 1-4094, received: -1"),
        (
            "u0.1.2",
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received u0.1.2",
        ),
    ] {
        let target = wanted(&[network(1, link(name), &[1])]);
        let fault = faults(&target, &host()).remove(&NetworkId([1; 16])).map(|fault| fault.to_string());
        assert!(fault.as_ref().is_some_and(|fault| fault.starts_with(text)), "{name}: {fault:?}");
        assert!(plan(&target, &host()).is_empty(), "{name} is left alone");
    }
}

#[test]
fn packets_larger_than_the_parents_are_refused() {
    let sized = |parent, mtu| wanted(&[WantedNetwork { mtu: Some(mtu), ..network(1, link(parent), &[1]) }]);
    for parent in ["u0", "u0.50"] {
        assert!(faults(&sized(parent, 1500), &host()).is_empty());
        let fault = faults(&sized(parent, 1501), &host()).remove(&NetworkId([1; 16]));
        let text = "invalid MTU number: 1501: the parent interface u0 carries 1500 at most";
        assert_eq!(fault.map(|fault| fault.to_string()).as_deref(), Some(text));
    }
}

#[test]
fn a_child_that_was_tampered_with_is_made_anew() {
    let target = wanted(&[network(1, link("u0"), &[2])]);
    let right = settled(&target, host());
    let tamper = |how: fn(&mut SeenLink)| {
        let mut observed = right.clone();
        let links = observed.sandboxes.get_mut(&SandboxId([2; 16])).expect("a sandbox");
        how(links.get_mut("eth0").expect("its child"));
        settled(&target, observed)
    };
    assert_eq!(tamper(|child| child.mac = MacAddr([2, 9, 9, 9, 9, 9])), right);
    assert_eq!(tamper(|child| child.up = false), right);
    let other = SeenChild { parent: 1, mode: Mode::Macvlan(MacvlanMode::Vepa) };
    assert!(plan(&target, &tamper(|child| child.child = None)).is_empty());
    let mut observed = right.clone();
    let links = observed.sandboxes.get_mut(&SandboxId([2; 16])).expect("a sandbox");
    links.get_mut("eth0").expect("its child").child = Some(other);
    assert_eq!(settled(&target, observed), right);
}

#[test]
fn children_of_a_parent_that_has_another_name_now_are_left_alone() {
    let target = wanted(&[network(1, link("u0"), &[2])]);
    let mut observed = settled(&target, host());
    let parent = observed.links.remove("u0").expect("it is there");
    observed.links.insert("u1".into(), parent);
    assert!(plan(&target, &observed).is_empty());
}

#[test]
fn a_group_is_a_positive_number_of_the_nodes_own() {
    let groups = [group(ME), group(NodeId([2; 16]))];
    assert!(groups[0] != groups[1]);
    assert!(groups.iter().all(|group| (1..=i32::MAX.unsigned_abs()).contains(group)));
}
