use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::driver::{End, SeenPort, free_interface};
use crate::model::EndpointId;
use crate::plan::{Perform, Plan, run};
use weft_dataplane::wire::MacAddr;

const NET: NetworkId = NetworkId([0xaa; 16]);
const SETTINGS: [Setting; 4] =
    [Setting::AcceptRa, Setting::DisableIpv6, Setting::NdiscNotify, Setting::ArpNotify];

fn endpoint(n: u8, addresses: &[&str]) -> WantedEndpoint {
    WantedEndpoint {
        id: EndpointId([n; 16]),
        end: End::Namespace,
        sandbox: SandboxId([n; 16]),
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
        addresses: addresses.iter().map(|a| a.parse().expect("a prefix")).collect(),
    }
}

fn wanted(endpoints: &[WantedEndpoint]) -> Validated {
    let vni = Vni::try_from(42).expect("it fits");
    let wanted = Wanted { network: NET, vni, mtu: 1450, sealed: false, endpoints: endpoints.to_vec() };
    wanted.validate().expect("it is possible")
}

/// A kernel that has the sandboxes `1..=sandboxes` and does as it is told.
fn kernel(sandboxes: u8) -> Observed {
    let empty = |n| (SandboxId([n; 16]), BTreeMap::new());
    Observed { hidden: None, host: BTreeMap::new(), sandboxes: (1..=sandboxes).map(empty).collect() }
}

impl Observed {
    fn links(&mut self, at: Place) -> &mut BTreeMap<String, SeenLink> {
        match at {
            Place::Hidden(_) => &mut self.hidden.as_mut().expect("the namespace is there").links,
            Place::Sandbox(id) => self.sandboxes.get_mut(&id).expect("the sandbox is there"),
            Place::Host => &mut self.host,
        }
    }

    fn link(&mut self, at: Place, name: &str) -> Result<&mut SeenLink, String> {
        self.links(at).get_mut(name).ok_or_else(|| format!("no {name} in {at}"))
    }

    fn add(&mut self, at: Place, name: &str, mut link: SeenLink) -> Result<(), String> {
        // As in the kernel, what is new is as the namespace's links are by default.
        link.settings.extend(self.links(at).get("lo").into_iter().flat_map(|lo| lo.settings.clone()));
        let before = self.links(at).insert(name.into(), link);
        before.map_or(Ok(()), |_| Err(format!("{name} exists in {at}")))
    }
}

impl Perform for Observed {
    type Error = String;

    fn perform(&mut self, step: &Step) -> Result<(), String> {
        match step.clone() {
            Step::MakeNamespace { .. } if self.hidden.is_some() => return Err("namespace exists".into()),
            Step::MakeNamespace { .. } => {
                let lo =
                    SeenLink { settings: BTreeMap::from([(Setting::DisableIpv6, 0)]), ..SeenLink::default() };
                let links = BTreeMap::from([("lo".to_owned(), lo)]);
                self.hidden = Some(Hidden { links, ..Hidden::default() });
            }
            Step::RemoveNamespace { .. } => self.hidden = None,
            Step::Tell { .. } | Step::SetDefaultRoute { .. } => {}
            Step::Guard { guard, .. } => {
                self.hidden.as_mut().expect("the namespace is there").guard = Some(guard);
            }
            Step::SetSysctl { at, key, value } => {
                let value = value.parse().map_err(|_| "not a number")?;
                for (name, link) in self.links(at) {
                    let found = SETTINGS.into_iter().find(|s| [s.key(name), s.key("all")].contains(&key));
                    found.map(|setting| link.settings.insert(setting, value));
                }
            }
            Step::PinMac { at, port, mac } => {
                let port = self.link(at, &port)?.port.as_mut().ok_or("not a port")?;
                port.pinned.insert(mac);
            }
            Step::AddBridge { at, name, .. } => self.add(at, &name, SeenLink::default())?,
            Step::OpenUplink { at, name, vni, .. } => {
                self.add(at, &name, SeenLink { mtu: 1500, ..SeenLink::default() })?;
                self.hidden.as_mut().expect("the namespace is there").uplink = Some(vni);
            }
            Step::CloseUplink { at } => {
                self.links(at).remove(UPLINK);
                self.hidden.as_mut().expect("the namespace is there").uplink = None;
            }
            Step::AddVeth { at, name, peer_at, peer, mac, mtu, .. } => {
                let mtu = u32::from(mtu);
                let settings = SETTINGS.into_iter().zip([1, 0, 0, 0]).collect();
                self.add(peer_at, &peer, SeenLink { mac, mtu, settings, ..SeenLink::default() })?;
                self.add(at, &name, SeenLink { mtu, ..SeenLink::default() })?;
            }
            Step::AddDevice { .. } | Step::Redirect { .. } => panic!("{step} is for TAPs in the host"),
            Step::AddTap { at, name, .. } => {
                self.add(at, &name, SeenLink { mtu: 1500, ..SeenLink::default() })?;
            }
            Step::DeleteLink { at, name } => {
                self.links(at).remove(&name);
                // The far end carries the number of the endpoint in its address.
                let digits = name.get(1..3).and_then(|n| u8::from_str_radix(n, 16).ok());
                for links in self.sandboxes.values_mut() {
                    links.retain(|_, link| Some(link.mac.0[5]) != digits);
                }
            }
            Step::Enslave { at, name, bridge, role } => {
                let flood = role == PortRole::Uplink;
                let link = self.link(at, &name)?;
                let pinned = link.port.take().map(|port| port.pinned).unwrap_or_default();
                link.port = Some(SeenPort {
                    bridge,
                    learning: false,
                    flood,
                    locked: Some(!flood),
                    isolated: role == PortRole::Isolated,
                    pinned,
                });
            }
            Step::SetMtu { at, name, mtu } => self.link(at, &name)?.mtu = mtu.into(),
            Step::AddAddress { at, name, address } => self.link(at, &name)?.addresses.push(address),
            Step::DeleteAddress { at, name, address } => {
                self.link(at, &name)?.addresses.retain(|a| *a != address);
            }
            Step::SetUp { at, name } => self.link(at, &name)?.up = true,
            Step::AddVlan { .. } | Step::AddDummy { .. } | Step::AddChild { .. } => {
                return Err(format!("{step} is nothing for an overlay"));
            }
        }
        Ok(())
    }
}

fn settle(wanted: &Validated, kernel: &mut Observed) -> String {
    let first = plan(wanted, kernel);
    run(&first, kernel).expect("the plan fits the kernel");
    assert_eq!(plan(wanted, kernel).to_string(), "", "nothing is left to do");
    first.to_string()
}

#[test]
fn the_first_endpoint_brings_namespace_bridge_and_uplink() {
    let made = settle(&wanted(&[endpoint(1, &["10.0.0.2/24"])]), &mut kernel(1));
    assert_eq!(
        made,
        "make the namespace of network aaaaaaaaaaaa\n\
         set net/ipv6/conf/all/disable_ipv6 to 1 in network aaaaaaaaaaaa\n\
         set net/ipv6/conf/default/disable_ipv6 to 1 in network aaaaaaaaaaaa\n\
         make bridge br0 in network aaaaaaaaaaaa\n\
         set br0 up in network aaaaaaaaaaaa\n\
         open uplink weft0 of VNI 42 in network aaaaaaaaaaaa\n\
         set MTU 1450 on weft0 in network aaaaaaaaaaaa\n\
         add weft0 to bridge br0 in network aaaaaaaaaaaa, gets unknown unicast\n\
         set weft0 up in network aaaaaaaaaaaa\n\
         guard 1 endpoint in network aaaaaaaaaaaa\n\
         join v010101010101 in network aaaaaaaaaaaa to eth0 in sandbox 010101010101, 02:00:00:00:00:01, MTU 1450\n\
         set net/ipv6/conf/eth0/accept_ra to 0 in sandbox 010101010101\n\
         set net/ipv6/conf/eth0/disable_ipv6 to 1 in sandbox 010101010101\n\
         set net/ipv6/conf/eth0/ndisc_notify to 1 in sandbox 010101010101\n\
         set net/ipv4/conf/eth0/arp_notify to 1 in sandbox 010101010101\n\
         add v010101010101 to bridge br0 in network aaaaaaaaaaaa, locked\n\
         set v010101010101 up in network aaaaaaaaaaaa\n\
         pin 02:00:00:00:00:01 to v010101010101 in network aaaaaaaaaaaa\n\
         add 10.0.0.2/24 to eth0 in sandbox 010101010101\n\
         set eth0 up in sandbox 010101010101\n\
         tell of 02:00:00:00:00:01 on eth0 in sandbox 010101010101\n"
    );
}

#[test]
fn a_virtual_machine_has_a_tap_in_the_place_of_a_pair_and_keeps_it_when_the_agent_restarts() {
    let mut kernel = kernel(0);
    let machine = WantedEndpoint { end: End::Descriptor, ..endpoint(1, &["10.0.0.2/24"]) };
    let made = settle(&wanted(std::slice::from_ref(&machine)), &mut kernel);
    let (_, tap) =
        made.split_once("guard 1 endpoint in network aaaaaaaaaaaa\n").expect("guarded before it speaks");
    assert_eq!(
        tap,
        "make TAP v010101010101 in network aaaaaaaaaaaa\n\
         set MTU 1450 on v010101010101 in network aaaaaaaaaaaa\n\
         add v010101010101 to bridge br0 in network aaaaaaaaaaaa, locked\n\
         set v010101010101 up in network aaaaaaaaaaaa\n\
         pin 02:00:00:00:00:01 to v010101010101 in network aaaaaaaaaaaa\n"
    );
    let hidden = kernel.hidden.as_mut().expect("it is there");
    hidden.links.remove(UPLINK);
    hidden.uplink = None;
    let made = settle(&wanted(&[machine]), &mut kernel);
    assert!(!made.contains("v01"), "{made}");
    let gone = settle(&wanted(&[]), &mut kernel);
    assert!(gone.starts_with("delete v010101010101 in network aaaaaaaaaaaa\n"), "{gone}");
}

#[test]
fn an_interface_that_is_handed_over_is_made_once_and_then_known_by_its_near_end() {
    let handed = |fresh| WantedEndpoint {
        end: End::Handed { fresh },
        interface: "w1".into(),
        ..endpoint(1, &["10.0.0.2/24"])
    };
    let mut kernel = kernel(0);
    let made = settle(&wanted(&[handed(true)]), &mut kernel);
    assert!(made.contains("join v010101010101 in network aaaaaaaaaaaa to w1 in the host"), "{made}");
    assert_eq!(settle(&wanted(&[handed(true)]), &mut kernel), "", "asked for twice, it is the same");
    kernel.host.clear();
    assert_eq!(settle(&wanted(&[handed(false)]), &mut kernel), "", "its far end is somewhere else");
    let again = settle(&wanted(&[handed(true)]), &mut kernel);
    assert!(again.starts_with("delete v010101010101"), "whoever asks for it again has lost it: {again}");
    kernel.host.clear();
    kernel.links(Place::Hidden(NET)).remove("v010101010101");
    let gone = settle(&wanted(&[handed(false)]), &mut kernel);
    assert_eq!(gone, "", "what went with its container is not made anew behind the engine's back");
}

#[test]
fn a_further_endpoint_touches_nothing_of_the_first() {
    let mut kernel = kernel(2);
    let first = endpoint(1, &["10.0.0.2/24"]);
    settle(&wanted(std::slice::from_ref(&first)), &mut kernel);
    let made = settle(&wanted(&[first, endpoint(2, &["10.0.0.3/24", "fd00::3/64"])]), &mut kernel);
    assert!(!made.contains("0101"), "{made}");
    assert!(made.contains("set net/ipv6/conf/eth0/disable_ipv6 to 0 in sandbox 020202020202"));
    assert!(made.contains("add fd00::3/64 to eth0"));
}

#[test]
fn a_restarted_agent_makes_only_the_uplink_anew() {
    let mut kernel = kernel(1);
    let wanted = wanted(&[endpoint(1, &["10.0.0.2/24"])]);
    settle(&wanted, &mut kernel);
    let hidden = kernel.hidden.as_mut().expect("it is there");
    hidden.links.remove(UPLINK);
    hidden.uplink = None;
    assert_eq!(
        settle(&wanted, &mut kernel),
        "open uplink weft0 of VNI 42 in network aaaaaaaaaaaa\n\
         set MTU 1450 on weft0 in network aaaaaaaaaaaa\n\
         add weft0 to bridge br0 in network aaaaaaaaaaaa, gets unknown unicast\n\
         set weft0 up in network aaaaaaaaaaaa\n"
    );
}

#[test]
fn what_an_agent_that_ended_halfway_left_undone_is_done() {
    let whole = wanted(&[endpoint(1, &["10.0.0.2/24", "fd00::2/64"])]);
    let steps = plan(&whole, &kernel(1)).0;
    let mut settled = kernel(1);
    settle(&whole, &mut settled);
    for done in 0..steps.len() {
        let mut kernel = kernel(1);
        run(&Plan(steps[..done].to_vec()), &mut kernel).expect("the beginning of a plan fits the kernel");
        // The TAP went with the process that had it open.
        if let Some(hidden) = &mut kernel.hidden {
            hidden.links.remove(UPLINK);
            hidden.uplink = None;
        }
        settle(&whole, &mut kernel);
        assert_eq!(kernel, settled, "ended after {done} steps");
    }
}

#[test]
fn the_last_endpoint_takes_everything_with_it() {
    let mut kernel = kernel(1);
    settle(&wanted(&[endpoint(1, &["10.0.0.2/24"])]), &mut kernel);
    assert_eq!(
        settle(&wanted(&[]), &mut kernel),
        "delete v010101010101 in network aaaaaaaaaaaa\n\
         close the uplink of network aaaaaaaaaaaa\n\
         remove the namespace of network aaaaaaaaaaaa\n"
    );
    assert!(kernel.sandboxes[&SandboxId([1; 16])].is_empty(), "the sandbox has no interface left");
}

#[test]
fn an_endpoint_whose_sandbox_is_gone_is_cleared_away() {
    let mut kernel = kernel(2);
    let both = wanted(&[endpoint(1, &["10.0.0.2/24"]), endpoint(2, &["10.0.0.3/24"])]);
    settle(&both, &mut kernel);
    kernel.sandboxes.remove(&SandboxId([2; 16]));
    assert_eq!(
        settle(&both, &mut kernel),
        "delete v020202020202 in network aaaaaaaaaaaa\nguard 1 endpoint in network aaaaaaaaaaaa\n"
    );
}

#[test]
fn a_changed_vni_opens_the_uplink_anew() {
    let mut kernel = kernel(1);
    let before = wanted(&[endpoint(1, &["10.0.0.2/24"])]);
    settle(&before, &mut kernel);
    let mut after = before.0;
    after.vni = Vni::try_from(43).expect("it fits");
    let made = settle(&after.validate().expect("it is possible"), &mut kernel);
    assert!(
        made.starts_with("close the uplink of network aaaaaaaaaaaa\nopen uplink weft0 of VNI 43"),
        "{made}"
    );
}

#[test]
fn a_plan_that_fails_anywhere_leaves_the_kernel_as_before() {
    struct Failing(Observed, usize);
    impl Perform for Failing {
        type Error = String;
        fn perform(&mut self, step: &Step) -> Result<(), String> {
            self.1 = self.1.wrapping_sub(1);
            if self.1 == 0 { Err("told to".into()) } else { self.0.perform(step) }
        }
    }
    let wanted = wanted(&[endpoint(1, &["10.0.0.2/24", "fd00::2/64"])]);
    let steps = plan(&wanted, &kernel(1));
    for fail_at in 1..=steps.0.len() {
        let mut failing = Failing(kernel(1), fail_at);
        run(&steps, &mut failing).expect_err("it was told to fail");
        assert_eq!(failing.0, kernel(1), "failed at step {fail_at}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_leaves_the_others_alone_and_what_is_gone_goes() {
    let (all, rest) = (wanted(&[1, 2, 3].map(|n| endpoint(n, &["10.0.0.2/24"]))), [2, 3]);
    let mut kernel = kernel(3);
    settle(&all, &mut kernel);
    // Sandbox 2 hides its end behind another link of that name; sandbox 1 is detached.
    let other = SeenLink { mac: MacAddr([2, 9, 9, 9, 9, 9]), ..SeenLink::default() };
    kernel.sandboxes.insert(SandboxId([2; 16]), BTreeMap::from([("eth0".to_owned(), other)]));
    let after = wanted(&rest.map(|n| endpoint(n, &["10.0.0.2/24", "10.0.0.9/24"])));
    let mut failed = Vec::new();
    for piece in pieces(&after, &kernel) {
        if run(&piece.plan, &mut kernel).is_err() {
            failed.push(piece.scope);
        }
    }
    assert_eq!(failed, [Scope::Endpoint(EndpointId([2; 16]))]);
    let third = &kernel.sandboxes[&SandboxId([3; 16])]["eth0"];
    assert_eq!(third.addresses.len(), 2, "the third got its new address");
    let hidden = &kernel.hidden.as_ref().expect("it is in use").links;
    assert!(!hidden.contains_key(&port_name(EndpointId([1; 16]))), "the first is gone");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_planned() {
    let vni = Vni::try_from(42).expect("it fits");
    let with = |endpoints: Vec<WantedEndpoint>, mtu| {
        Wanted { network: NET, vni, mtu, sealed: false, endpoints }.validate()
    };
    let named = |interface: &str| WantedEndpoint { interface: interface.into(), ..endpoint(1, &[]) };
    assert_eq!(with(vec![], 67), Err(WishError::Mtu(67)));
    assert_eq!(with(vec![endpoint(1, &["fd00::2/64"])], 1279), Err(WishError::Mtu(1279)));
    for bad in ["", "sixteen-letters-", "../x", "a b", "a/b", "a.b"] {
        assert_eq!(with(vec![named(bad)], 1450), Err(WishError::InterfaceName(bad.into())));
    }
    let zero = WantedEndpoint { mac: MacAddr::default(), ..endpoint(1, &[]) };
    assert_eq!(with(vec![zero], 1450), Err(WishError::Mac(MacAddr::default())));
    let twice = vec![endpoint(1, &[]), WantedEndpoint { sandbox: SandboxId([2; 16]), ..endpoint(1, &[]) }];
    assert_eq!(with(twice, 1450), Err(WishError::MacTwice(MacAddr([2, 0, 0, 0, 0, 1]))));
}

#[test]
fn interfaces_take_the_first_free_number() {
    assert_eq!(free_interface("eth", []), "eth0");
    assert_eq!(free_interface("eth", ["lo", "eth0", "eth2"]), "eth1");
}

proptest! {
    #[test]
    fn whatever_is_broken_is_repaired(breaks in prop::collection::vec((0..15_u8, 1..=3_u8), 1..6)) {
        let mut kernel = kernel(3);
        let wanted = wanted(&[
            endpoint(1, &["10.0.0.2/24"]),
            endpoint(2, &["10.0.0.3/24", "fd00::3/64"]),
            endpoint(3, &["10.0.0.4/24"]),
        ]);
        settle(&wanted, &mut kernel);
        for (what, n) in breaks {
            let port = port_name(EndpointId([n; 16]));
            let hidden = kernel.hidden.as_mut().expect("it is there");
            let sandbox = kernel.sandboxes.get_mut(&SandboxId([n; 16])).expect("it is there");
            match what {
                0 => { hidden.links.remove(UPLINK); }
                1 => { hidden.links.remove(&port); sandbox.remove("eth0"); }
                2 => { hidden.links.entry(port).and_modify(|link| link.port = None); }
                3 => { hidden.links.entry(BRIDGE.into()).and_modify(|link| link.up = false); }
                4 => { sandbox.entry("eth0".into()).and_modify(|link| link.addresses.clear()); }
                5 => { sandbox.entry("eth0".into()).and_modify(|link| link.mtu = 9000); }
                6 => { sandbox.remove("eth0").map(|link| sandbox.insert("renamed".into(), link)); }
                7 => { hidden.links.insert("v999999999999".into(), SeenLink::default()); }
                8 => { sandbox.entry("eth0".into()).and_modify(|link| link.settings.values_mut().for_each(|v| *v ^= 1)); }
                9 => { hidden.links.entry("lo".into()).and_modify(|link| link.settings.values_mut().for_each(|v| *v = 0)); }
                _ => {
                    let port = hidden.links.get_mut(&port).and_then(|link| link.port.as_mut());
                    match (what, port) {
                        (10, Some(port)) => port.learning = true,
                        (11, Some(port)) => port.flood = !port.flood,
                        (12, Some(port)) => port.locked = Some(false),
                        (13, _) => hidden.guard = None,
                        (_, Some(port)) => port.pinned.clear(),
                        (_, None) => {}
                    }
                }
            }
        }
        settle(&wanted, &mut kernel);
    }
}
