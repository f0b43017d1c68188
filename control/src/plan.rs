//! Plans: what to ask of the kernel, step by step, each step with the one that takes it back.
//!
//! A driver computes a [`Plan`] from what is wanted and what is there; nothing happens until [`run`] gives its steps
//! to a [`Perform`]er. A step that fails has changed nothing; the steps before it are then undone in reverse, so a
//! plan happens whole or not at all. Removals are not taken back: they are planned last.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_dataplane::wire::{MacAddr, Vni};

use crate::driver::Guard;
use crate::driver::macvlan::Mode;
use crate::model::{NetworkId, SandboxId};

/// A network namespace, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The hidden namespace of a network on this node: bridge, uplink, near ends of local sandboxes.
    Hidden(NetworkId),
    /// A sandbox.
    Sandbox(SandboxId),
    /// The agent's own: the host's.
    Host,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden(network) => write!(f, "network {}", network.short()),
            Self::Sandbox(sandbox) => write!(f, "sandbox {}", sandbox.short()),
            Self::Host => f.write_str("the host"),
        }
    }
}

/// What a port is to its bridge. None learns addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRole {
    /// Leads elsewhere: gets unicast frames for unknown addresses.
    Uplink,
    /// Leads to an endpoint: gets frames for its pinned address and takes them from that one only.
    Endpoint,
    /// An endpoint that reaches the bridge itself but no other such port.
    Isolated,
}

/// One thing asked of the kernel; `at` is the namespace it happens in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes and pins the namespace.
    MakeNamespace {
        /// Which.
        at: Place,
    },
    /// Unpins the namespace, which ends it unless processes are in it.
    RemoveNamespace {
        /// Which.
        at: Place,
    },
    /// Writes `/proc/sys/{key}`.
    SetSysctl {
        /// Where.
        at: Place,
        /// Path below `/proc/sys`.
        key: String,
        /// New value.
        value: &'static str,
    },
    /// Makes a bridge, down.
    AddBridge {
        /// Where.
        at: Place,
        /// Name.
        name: String,
        /// Its address; the kernel picks one if absent.
        mac: Option<MacAddr>,
    },
    /// Makes the TAP uplink, down, and hands its queues to the dataplane as the port of `vni`.
    OpenUplink {
        /// Where; always a hidden namespace.
        at: Place,
        /// Name.
        name: String,
        /// Segment it belongs to.
        vni: Vni,
        /// Whether packets of that are sealed.
        sealed: bool,
    },
    /// Takes the uplink from the dataplane; the TAP goes with it.
    CloseUplink {
        /// Where.
        at: Place,
    },
    /// Makes a veth pair, both ends down.
    AddVeth {
        /// Where the near end is.
        at: Place,
        /// Name of the near end.
        name: String,
        /// Address of the near end; the kernel picks one if absent.
        near: Option<MacAddr>,
        /// Where the far end is.
        peer_at: Place,
        /// Name of the far end.
        peer: String,
        /// Address of the far end.
        mac: MacAddr,
        /// Of both ends, octets.
        mtu: u16,
    },
    /// Makes a TAP, down, and keeps its descriptor until somebody asks for it.
    AddTap {
        /// Where.
        at: Place,
        /// Name.
        name: String,
        /// Its address; the kernel picks one if absent.
        near: Option<MacAddr>,
    },
    /// Makes a link of the host that is one VLAN (IEEE 802.1Q) of another, down.
    AddVlan {
        /// Where.
        at: Place,
        /// Name.
        name: String,
        /// The other.
        parent: String,
        /// Number of the VLAN.
        id: u16,
        /// What it is known by.
        group: u32,
    },
    /// Makes a link that leads nowhere, down.
    AddDummy {
        /// Where.
        at: Place,
        /// Name.
        name: String,
        /// What it is known by.
        group: u32,
    },
    /// Makes a link in a sandbox that is a child of one of the host's, down.
    AddChild {
        /// Where the child is.
        at: Place,
        /// Name of the child.
        name: String,
        /// The host's link.
        parent: String,
        /// What the child is to it.
        mode: Mode,
        /// Address of the child, where it has one of its own.
        mac: MacAddr,
        /// Octets; the parent's if absent.
        mtu: Option<u16>,
        /// What it is known by.
        group: u32,
    },
    /// Makes a TAP, down, that stays for somebody to open by its name.
    AddDevice {
        /// Where.
        at: Place,
        /// Name.
        name: String,
        /// Its address.
        near: MacAddr,
        /// The user whose processes may open it.
        owner: u32,
    },
    /// Has whatever comes in by a link leave by another one; takes the place of another such order.
    Redirect {
        /// Where.
        at: Place,
        /// The link.
        from: String,
        /// The other one.
        to: String,
    },
    /// Removes a link.
    DeleteLink {
        /// Where.
        at: Place,
        /// Name.
        name: String,
    },
    /// Makes the link a port of the bridge.
    Enslave {
        /// Where.
        at: Place,
        /// The link.
        name: String,
        /// The bridge.
        bridge: String,
        /// What it is to it.
        role: PortRole,
    },
    /// Pins the address to the bridge port.
    PinMac {
        /// Where.
        at: Place,
        /// The port.
        port: String,
        /// The address.
        mac: MacAddr,
    },
    /// Sets the largest packet.
    SetMtu {
        /// Where.
        at: Place,
        /// The link.
        name: String,
        /// Octets.
        mtu: u16,
    },
    /// Adds an address.
    AddAddress {
        /// Where.
        at: Place,
        /// The link.
        name: String,
        /// With the prefix length of its subnet.
        address: IpNet,
    },
    /// Removes an address.
    DeleteAddress {
        /// Where.
        at: Place,
        /// The link.
        name: String,
        /// With the prefix length of its subnet.
        address: IpNet,
    },
    /// Sets a link up.
    SetUp {
        /// Where.
        at: Place,
        /// The link.
        name: String,
    },
    /// Says what the endpoints may say inside the bridge; a kernel that cannot check it does without.
    Guard {
        /// Where bridges of ours are.
        at: Place,
        /// What they may use.
        guard: Guard,
    },
    /// Has whatever no other route takes leave by the link; takes the place of another such route.
    SetDefaultRoute {
        /// Where.
        at: Place,
        /// The link.
        name: String,
        /// The next hop, reached by that link.
        via: IpAddr,
    },
    /// Lets the link tell its neighbours whose its addresses are (gratuitous ARP, unsolicited advertisement).
    Tell {
        /// Where.
        at: Place,
        /// The link.
        name: String,
        /// Its address.
        mac: MacAddr,
    },
}

impl Step {
    /// Names of all kinds of steps, as [`Step::name`] gives them.
    pub const NAMES: [&'static str; 23] = [
        "make-namespace",
        "remove-namespace",
        "set-sysctl",
        "add-bridge",
        "open-uplink",
        "close-uplink",
        "add-veth",
        "add-tap",
        "add-device",
        "redirect",
        "add-vlan",
        "add-dummy",
        "add-child",
        "delete-link",
        "enslave",
        "pin-mac",
        "set-mtu",
        "add-address",
        "delete-address",
        "set-up",
        "guard",
        "set-default-route",
        "tell",
    ];

    /// Name of the kind of step, for logs and for tests that end the agent at it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::MakeNamespace { .. } => "make-namespace",
            Self::RemoveNamespace { .. } => "remove-namespace",
            Self::SetSysctl { .. } => "set-sysctl",
            Self::AddBridge { .. } => "add-bridge",
            Self::OpenUplink { .. } => "open-uplink",
            Self::CloseUplink { .. } => "close-uplink",
            Self::AddVeth { .. } => "add-veth",
            Self::AddTap { .. } => "add-tap",
            Self::AddDevice { .. } => "add-device",
            Self::Redirect { .. } => "redirect",
            Self::AddVlan { .. } => "add-vlan",
            Self::AddDummy { .. } => "add-dummy",
            Self::AddChild { .. } => "add-child",
            Self::DeleteLink { .. } => "delete-link",
            Self::Enslave { .. } => "enslave",
            Self::PinMac { .. } => "pin-mac",
            Self::SetMtu { .. } => "set-mtu",
            Self::AddAddress { .. } => "add-address",
            Self::DeleteAddress { .. } => "delete-address",
            Self::SetUp { .. } => "set-up",
            Self::Guard { .. } => "guard",
            Self::SetDefaultRoute { .. } => "set-default-route",
            Self::Tell { .. } => "tell",
        }
    }

    /// The step that takes this one back, if it makes something of its own.
    ///
    /// What has none (a port's bridge, a link's state) goes with the link it was done to, and removals stay.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::MakeNamespace { at } => Self::RemoveNamespace { at },
            Self::AddBridge { at, name, .. }
            | Self::AddVeth { at, name, .. }
            | Self::AddTap { at, name, .. }
            | Self::AddDevice { at, name, .. }
            | Self::AddVlan { at, name, .. }
            | Self::AddDummy { at, name, .. }
            | Self::AddChild { at, name, .. } => Self::DeleteLink { at, name },
            Self::OpenUplink { at, .. } => Self::CloseUplink { at },
            Self::AddAddress { at, name, address } => Self::DeleteAddress { at, name, address },
            _ => return None,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeNamespace { at } => write!(f, "make the namespace of {at}"),
            Self::RemoveNamespace { at } => write!(f, "remove the namespace of {at}"),
            Self::SetSysctl { at, key, value } => write!(f, "set {key} to {value} in {at}"),
            Self::AddBridge { at, name, .. } => write!(f, "make bridge {name} in {at}"),
            Self::OpenUplink { at, name, vni, .. } => write!(f, "open uplink {name} of VNI {vni} in {at}"),
            Self::CloseUplink { at } => write!(f, "close the uplink of {at}"),
            Self::AddVeth { at, name, peer_at, peer, mac, mtu, .. } => {
                write!(f, "join {name} in {at} to {peer} in {peer_at}, {mac}, MTU {mtu}")
            }
            Self::AddDevice { at, name, owner, .. } => write!(f, "make TAP {name} of user {owner} in {at}"),
            Self::Redirect { at, from, to } => write!(f, "redirect {from} to {to} in {at}"),
            Self::AddTap { at, name, .. } => write!(f, "make TAP {name} in {at}"),
            Self::AddVlan { at, name, parent, id, .. } => {
                write!(f, "make {name}, VLAN {id} of {parent}, in {at}")
            }
            Self::AddDummy { at, name, .. } => write!(f, "make dummy {name} in {at}"),
            Self::AddChild { at, name, parent, mode, .. } => {
                write!(f, "make {name} in {at} a child of {parent} by {}", mode.driver())
            }
            Self::DeleteLink { at, name } => write!(f, "delete {name} in {at}"),
            Self::Enslave { at, name, bridge, role } => {
                let role = match role {
                    PortRole::Uplink => "gets unknown unicast",
                    PortRole::Endpoint => "locked",
                    PortRole::Isolated => "locked, isolated",
                };
                write!(f, "add {name} to bridge {bridge} in {at}, {role}")
            }
            Self::PinMac { at, port, mac } => write!(f, "pin {mac} to {port} in {at}"),
            Self::SetMtu { at, name, mtu } => write!(f, "set MTU {mtu} on {name} in {at}"),
            Self::AddAddress { at, name, address } => write!(f, "add {address} to {name} in {at}"),
            Self::DeleteAddress { at, name, address } => write!(f, "remove {address} from {name} in {at}"),
            Self::SetUp { at, name } => write!(f, "set {name} up in {at}"),
            Self::Guard { at, guard } => {
                let number = guard.endpoints();
                write!(f, "guard {number} endpoint{} in {at}", if number == 1 { "" } else { "s" })
            }
            Self::SetDefaultRoute { at, name, via } => {
                write!(f, "set the default route via {via} by {name} in {at}")
            }
            Self::Tell { at, name, mac } => write!(f, "tell of {mac} on {name} in {at}"),
        }
    }
}

/// Steps in the order they are to happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan(pub Vec<Step>);

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Whoever carries steps out. A step that fails must have changed nothing.
pub trait Perform {
    /// Why a step failed.
    type Error;

    /// Carries out one step.
    ///
    /// # Errors
    /// Nothing has changed.
    fn perform(&mut self, step: &Step) -> Result<(), Self::Error>;
}

/// A plan that failed and was taken back.
#[derive(Debug)]
pub struct Failure<E> {
    /// The step that failed.
    pub step: Step,
    /// Why.
    pub cause: E,
    /// Undo steps that failed as well: what they name is left over.
    pub leftovers: Vec<(Step, E)>,
}

/// Carries out `plan` whole, or takes back what was done.
///
/// # Errors
/// The step that failed, and what could not be undone.
pub fn run<P: Perform>(plan: &Plan, performer: &mut P) -> Result<(), Box<Failure<P::Error>>> {
    for (done, step) in plan.0.iter().enumerate() {
        if let Err(cause) = performer.perform(step) {
            let undo = plan.0[..done].iter().rev().filter_map(Step::inverse).collect();
            let leftovers = run_through(&Plan(undo), performer);
            return Err(Box::new(Failure { step: step.clone(), cause, leftovers }));
        }
    }
    Ok(())
}

/// Carries out every step that can be, whatever the others say; returns those that failed.
pub fn run_through<P: Perform>(plan: &Plan, performer: &mut P) -> Vec<(Step, P::Error)> {
    plan.0
        .iter()
        .filter_map(|step| performer.perform(step).err().map(|fault| (step.clone(), fault)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers which links are there; fails at the step it is told to.
    #[derive(Default)]
    struct Pretend {
        there: Vec<String>,
        performed: usize,
        fail_at: Option<usize>,
    }

    impl Perform for Pretend {
        type Error = &'static str;

        fn perform(&mut self, step: &Step) -> Result<(), Self::Error> {
            self.performed += 1;
            if self.fail_at == Some(self.performed) {
                return Err("told to");
            }
            match step {
                Step::AddBridge { name, .. } | Step::AddVeth { name, .. } => self.there.push(name.clone()),
                Step::DeleteLink { name, .. } => self.there.retain(|there| there != name),
                Step::MakeNamespace { .. } => self.there.push("namespace".into()),
                Step::RemoveNamespace { .. } => self.there.retain(|there| there != "namespace"),
                _ => {}
            }
            Ok(())
        }
    }

    fn three_steps() -> Plan {
        let at = Place::Hidden(NetworkId([1; 16]));
        Plan(vec![
            Step::MakeNamespace { at },
            Step::AddBridge { at, name: "br0".into(), mac: None },
            Step::SetUp { at, name: "br0".into() },
            Step::AddBridge { at, name: "br1".into(), mac: None },
        ])
    }

    #[test]
    fn a_failure_at_any_step_leaves_things_as_before() {
        for fail_at in 1..=4 {
            let mut kernel = Pretend { fail_at: Some(fail_at), ..Pretend::default() };
            let failure = run(&three_steps(), &mut kernel).expect_err("it was told to fail");
            assert_eq!(failure.step, three_steps().0[fail_at - 1]);
            assert!(failure.leftovers.is_empty());
            assert_eq!(kernel.there, Vec::<String>::new(), "failed at {fail_at}");
        }
    }

    #[test]
    fn a_plan_without_failure_happens_whole() {
        let mut kernel = Pretend::default();
        run(&three_steps(), &mut kernel).expect("nothing fails");
        assert_eq!(kernel.there, ["namespace", "br0", "br1"]);
    }

    #[test]
    fn an_undo_that_fails_is_reported_and_the_rest_is_still_undone() {
        // The fourth step fails, then the first undo step (the fifth performed).
        struct Twice(Pretend);
        impl Perform for Twice {
            type Error = &'static str;
            fn perform(&mut self, step: &Step) -> Result<(), Self::Error> {
                self.0.fail_at = [4, 5].into_iter().find(|at| *at == self.0.performed + 1);
                self.0.perform(step)
            }
        }
        let mut kernel = Twice(Pretend::default());
        let failure = run(&three_steps(), &mut kernel).expect_err("it was told to fail");
        assert_eq!(failure.leftovers.len(), 1);
        assert_eq!(kernel.0.there, ["br0"]);
    }

    #[test]
    fn teardown_carries_on_past_failures() {
        let mut kernel = Pretend { fail_at: Some(1), ..Pretend::default() };
        let failed = run_through(&three_steps(), &mut kernel);
        assert_eq!(failed.len(), 1);
        assert_eq!(kernel.there, ["br0", "br1"]);
    }

    #[test]
    fn every_kind_of_step_is_listed_by_name() {
        for step in &three_steps().0 {
            assert!(Step::NAMES.contains(&step.name()));
        }
        let mut names = Step::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Step::NAMES.len());
    }
}
