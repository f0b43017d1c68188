//! Plans for the host's bridges, against a pretended host.

use super::*;
use crate::driver::macvlan::SeenChild;
use crate::driver::{End, SeenPort, port_name};
use crate::plan::{Perform, Plan, run};

const ME: NodeId = NodeId([1; 16]);
const SETTINGS: [Setting; 4] =
    [Setting::AcceptRa, Setting::DisableIpv6, Setting::NdiscNotify, Setting::ArpNotify];

fn endpoint(n: u8) -> WantedEndpoint {
    WantedEndpoint {
        id: EndpointId([n; 16]),
        end: End::Namespace,
        sandbox: SandboxId([n; 16]),
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
        addresses: vec![format!("10.5.0.{n}/24").parse().expect("a prefix")],
    }
}

fn bridge(n: u8, endpoints: &[u8]) -> WantedBridge {
    WantedBridge {
        network: NetworkId([n; 16]),
        interface: format!("wb-{n}"),
        mtu: 1500,
        addresses: vec!["10.5.0.1/24".parse().expect("a prefix")],
        ipv6: false,
        forwards: true,
        icc: true,
        presence: Presence::Always,
        endpoints: endpoints.iter().map(|n| endpoint(*n)).collect(),
    }
}

fn wanted(bridges: &[WantedBridge]) -> Wanted {
    Wanted { bridges: bridges.to_vec(), ..Wanted::nothing(ME) }
}

/// A host with a link of somebody else's, and sandboxes `1..=sandboxes`; it does as it is told.
fn host(sandboxes: u8) -> Observed {
    let empty = |n| (SandboxId([n; 16]), BTreeMap::new());
    let settings = BTreeMap::from([(Setting::AcceptRa, 1)]);
    let uplink = SeenLink { mac: MacAddr([2; 6]), settings, ..SeenLink::default() };
    Observed {
        links: [("u0".to_owned(), uplink)].into(),
        sandboxes: (1..=sandboxes).map(empty).collect(),
        guard: Some(Guard::default()),
        ..Observed::default()
    }
}

impl Observed {
    fn place(&mut self, at: Place) -> &mut BTreeMap<String, SeenLink> {
        match at {
            Place::Host => &mut self.links,
            Place::Sandbox(id) => self.sandboxes.get_mut(&id).expect("the sandbox is there"),
            Place::Hidden(_) => panic!("bridges of the host are in no hidden namespace"),
        }
    }

    fn link(&mut self, at: Place, name: &str) -> Result<&mut SeenLink, String> {
        self.place(at).get_mut(name).ok_or_else(|| format!("no {name} in {at}"))
    }

    fn add(&mut self, at: Place, name: &str, mac: MacAddr, mtu: u32) -> Result<(), String> {
        let settings = SETTINGS.into_iter().zip([1, 0, 0, 0]).collect();
        let before =
            self.place(at).insert(name.into(), SeenLink { mac, mtu, settings, ..SeenLink::default() });
        before.map_or(Ok(()), |_| Err(format!("{name} exists in {at}")))
    }
}

impl Observed {
    /// Gives a new link a number nobody has, and its group.
    fn number(&mut self, at: Place, name: &str, group: u32) {
        let index = self.place(at).values().map(|link| link.index).max().unwrap_or(0) + 1;
        if let Some(link) = self.place(at).get_mut(name) {
            (link.index, link.group) = (index, group);
        }
    }
}

impl Perform for Observed {
    type Error = String;

    fn perform(&mut self, step: &Step) -> Result<(), String> {
        match step.clone() {
            Step::AddBridge { at, name, mac } => self.add(at, &name, mac.unwrap_or_default(), 1500)?,
            Step::AddVeth { at, name, near, peer_at, peer, mac, mtu } => {
                self.add(peer_at, &peer, mac, mtu.into())?;
                self.add(at, &name, near.unwrap_or_default(), mtu.into())?;
            }
            Step::AddTap { at, name, near } => self.add(at, &name, near.unwrap_or_default(), 1500)?,
            Step::AddVlan { at, name, parent, group, .. } => {
                self.link(at, &parent)?;
                self.add(at, &name, MacAddr::default(), 1500)?;
                self.number(at, &name, group);
            }
            Step::AddDummy { at, name, group } => {
                self.add(at, &name, MacAddr::default(), 1500)?;
                self.number(at, &name, group);
            }
            Step::AddChild { at, name, parent, mode, mac, mtu, group } => {
                let parent = self.link(Place::Host, &parent)?.index;
                self.add(at, &name, mac, mtu.unwrap_or(1500).into())?;
                self.number(at, &name, group);
                self.link(at, &name)?.child = Some(SeenChild { parent, mode });
            }
            Step::DeleteLink { at, name } => {
                let gone = self.place(at).remove(&name).filter(|_| at == Place::Host);
                if let Some(index) = gone.map(|gone| gone.index).filter(|index| *index != 0) {
                    let of_it = |link: &SeenLink| link.child.is_some_and(|child| child.parent == index);
                    self.sandboxes.values_mut().for_each(|links| links.retain(|_, link| !of_it(link)));
                }
                let digits = name.get(1..3).and_then(|n| u8::from_str_radix(n, 16).ok());
                for links in self.sandboxes.values_mut() {
                    links.retain(|_, link| Some(link.mac.0[5]) != digits);
                }
            }
            Step::SetSysctl { key, .. } if key == "net/ipv4/ip_forward" => self.forwarding[0] = true,
            Step::SetSysctl { key, .. } if key.ends_with("all/forwarding") => self.forwarding[1] = true,
            Step::SetSysctl { at, key, value } => {
                let value = value.parse().map_err(|_| "not a number")?;
                for (name, link) in self.place(at) {
                    let found = SETTINGS.into_iter().find(|setting| setting.key(name) == key);
                    found.map(|setting| link.settings.insert(setting, value));
                }
            }
            Step::Enslave { at, name, bridge, role } => {
                let link = self.link(at, &name)?;
                let pinned = link.port.take().map(|port| port.pinned).unwrap_or_default();
                let (flood, isolated) = (role == PortRole::Uplink, role == PortRole::Isolated);
                let locked = Some(!flood);
                link.port = Some(SeenPort { bridge, learning: false, flood, locked, isolated, pinned });
            }
            Step::PinMac { at, port, mac } => {
                self.link(at, &port)?.port.as_mut().ok_or("not a port")?.pinned.insert(mac);
            }
            Step::SetMtu { at, name, mtu } => self.link(at, &name)?.mtu = mtu.into(),
            Step::AddAddress { at, name, address } => self.link(at, &name)?.addresses.push(address),
            Step::DeleteAddress { at, name, address } => {
                self.link(at, &name)?.addresses.retain(|there| *there != address);
            }
            Step::SetUp { at, name } => self.link(at, &name)?.up = true,
            Step::Guard { guard, .. } => self.guard = Some(guard),
            Step::Tell { .. } => {}
            other => panic!("{other} is nothing for bridges of the host"),
        }
        Ok(())
    }
}

fn plan(wanted: &Wanted, observed: &Observed) -> Plan {
    Plan(pieces(wanted, observed, None).into_iter().flat_map(|piece| piece.plan.0).collect())
}

fn settled(wanted: &Wanted, mut observed: Observed) -> Observed {
    run(&plan(wanted, &observed), &mut observed).expect("the plan fits the host");
    observed
}

#[test]
fn a_plan_carried_out_leaves_nothing_to_do_whatever_was_there() {
    let states: Vec<Vec<WantedBridge>> = vec![
        vec![],
        vec![bridge(1, &[])],
        vec![bridge(1, &[1, 2]), bridge(2, &[])],
        vec![bridge(2, &[3])],
        vec![WantedBridge { icc: false, mtu: 1400, ..bridge(1, &[1, 2]) }],
        vec![WantedBridge {
            ipv6: true,
            addresses: vec!["fd05::1/64".parse().expect("a prefix")],
            ..bridge(1, &[2])
        }],
    ];
    for from in &states {
        for to in &states {
            let before = settled(&wanted(from), host(3));
            let after = settled(&wanted(to), before);
            assert!(
                plan(&wanted(to), &after).is_empty(),
                "{from:?} to {to:?}: {}",
                plan(&wanted(to), &after)
            );
            assert!(after.links.contains_key("u0"), "what is not ours stays");
        }
    }
}

#[test]
fn whatever_beginning_of_a_plan_was_carried_out_the_rest_is_found() {
    let target = wanted(&[bridge(1, &[1, 2])]);
    let steps = plan(&target, &host(2)).0;
    for done in 0..=steps.len() {
        let mut observed = host(2);
        run(&Plan(steps[..done].to_vec()), &mut observed).expect("the beginning of a plan fits the host");
        let finished = settled(&target, observed.clone());
        assert_eq!(finished.links.keys().collect::<Vec<_>>().len(), 4, "after {done} steps");
        assert!(plan(&target, &finished).is_empty(), "after {done} steps");
        let gone = settled(&wanted(&[]), observed);
        assert_eq!(gone.links.keys().collect::<Vec<_>>(), ["u0"], "after {done} steps nothing is left");
    }
}

#[test]
fn a_link_of_somebody_else_is_never_touched() {
    let mut observed = host(1);
    observed.links.insert("wb-1".into(), SeenLink { mac: MacAddr([2; 6]), ..SeenLink::default() });
    let target = wanted(&[bridge(1, &[1]), bridge(2, &[])]);
    let faults = target.faults(&observed);
    assert_eq!(faults[&NetworkId([1; 16])], BridgeError::Foreign("wb-1".into()));
    let after = settled(&target, observed.clone());
    assert_eq!(after.links["wb-1"], observed.links["wb-1"]);
    assert!(after.links.contains_key("wb-2"), "the other network's is made");
    assert_eq!(settled(&wanted(&[]), after).links["wb-1"], observed.links["wb-1"]);
}

#[test]
fn sandboxes_without_icc_are_isolated_from_each_other_alone() {
    let apart = settled(&wanted(&[WantedBridge { icc: false, ..bridge(1, &[1]) }]), host(1));
    let port = apart.links[&port_name(EndpointId([1; 16]))].port.as_ref().expect("a port");
    assert!(port.isolated && port.locked == Some(true) && !port.flood && !port.learning);
    assert_eq!(port.pinned, [MacAddr([2, 0, 0, 0, 0, 1])].into());
}

#[test]
fn the_host_forwards_for_networks_with_a_way_out_and_keeps_its_own() {
    let inner = WantedBridge { forwards: false, ..bridge(1, &[1]) };
    assert_eq!(settled(&wanted(&[inner]), host(1)).forwarding, [false, false]);
    assert_eq!(settled(&wanted(&[bridge(1, &[])]), host(1)).forwarding, [true, false]);
    let six = settled(&wanted(&[WantedBridge { ipv6: true, ..bridge(1, &[]) }]), host(1));
    assert_eq!(six.forwarding, [true, true]);
    assert_eq!(six.links["u0"].settings[&Setting::AcceptRa], 2, "it still hears of its routers");
}

#[test]
fn a_guard_that_an_agent_before_may_have_left_is_replaced_by_that_of_nobody() {
    let unknown = Observed { guard: None, ..host(0) };
    let nobody = Step::Guard { at: Place::Host, guard: Guard::default() };
    assert_eq!(plan(&wanted(&[]), &unknown).0, [nobody]);
    assert!(plan(&wanted(&[]), &host(0)).is_empty());
}

#[test]
fn the_default_bridge_is_made_with_its_first_endpoint_and_stays_and_the_gateway_bridge_does_not() {
    for (presence, stays) in [(Presence::Lasting, true), (Presence::Used, false)] {
        let lazy = |endpoints| WantedBridge { presence, ..bridge(1, endpoints) };
        assert!(plan(&wanted(&[lazy(&[])]), &host(1)).is_empty());
        let used = settled(&wanted(&[lazy(&[1])]), host(1));
        assert!(used.links.contains_key("wb-1"));
        let unused = settled(&wanted(&[lazy(&[])]), used);
        assert_eq!((unused.links.contains_key("wb-1"), unused.links.len()), (stays, 1 + usize::from(stays)));
    }
}

#[test]
fn attaching_one_endpoint_does_nothing_to_the_others() {
    let target = wanted(&[bridge(1, &[1, 2])]);
    let pieces = pieces(&target, &host(2), Some(EndpointId([2; 16])));
    let all: Vec<_> = pieces.iter().map(|piece| piece.scope).collect();
    let one =
        [Scope::Network(NetworkId([1; 16])), Scope::All, Scope::All, Scope::Endpoint(EndpointId([2; 16]))];
    assert_eq!(all, one, "the bridge, what all need, and the endpoint");
}

#[test]
fn a_mark_is_an_address_a_link_can_have_and_differs_by_node_and_name() {
    let marks = [mark(ME, "a"), mark(ME, "b"), mark(NodeId([2; 16]), "a")];
    assert!(marks.iter().all(|mark| mark.is_assignable()));
    assert!(marks[0] != marks[1] && marks[0] != marks[2]);
}
