//! Carries plans out, and shows what the kernel has.
//!
//! Lives on a thread of its own: namespaces and links take the kernel milliseconds, and gossip must not wait. Nothing
//! is kept open between plans, so a namespace ends when its pin goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::IpNet;
use weft_dataplane::io::{Tap, TapError};
use weft_dataplane::wire::{MacAddr, Vni};

use super::kill::{self, Side};
use super::namespace::{Namespace, NamespaceError, Pins, read_sysctl, set_sysctl};
use super::netlink::{Child, Link, Links, NetlinkError, PortOptions, Veth};
use super::process;
use crate::driver::macvlan::{MacvlanMode, Mode, SeenChild};
use crate::driver::overlay::{Hidden, Observed};
use crate::driver::{SeenLink, SeenPort, Setting, bridge};
use crate::model::{NetworkId, SandboxId};
use crate::plan::{Perform, Place, PortRole, Step};

mod guards;

use guards::Guards;

/// Looks, a millisecond apart, at whether a new link is connected yet.
const CONNECTED_LOOKS: u32 = 50;

/// Why the kernel did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// Making, opening, pinning.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Links and addresses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A TAP for a virtual machine.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The uplink's TAP, or the dataplane that serves it.
    #[error("cannot open the uplink: {0}")]
    Uplink(String),
    /// Something is not built into the kernel.
    #[error(
        "the kernel of this host has no {what}: load its module ('modprobe {module}'), or run a kernel that has it"
    )]
    Lacks {
        /// What.
        what: &'static str,
        /// The module that has it.
        module: &'static str,
    },
    /// A link takes no such children.
    #[error(
        "{0} takes no such children now: it is a port of a bridge, or has children of another kind or mode"
    )]
    Parent(String),
    /// What only namespaces of ours have is asked of the host's.
    #[error("{0} has no pin")]
    Unpinned(Place),
    /// A sandbox that nobody told of.
    #[error("sandbox {} has no name here", .0.short())]
    Unnamed(SandboxId),
    /// A test asked for it.
    #[error("told to fail")]
    Told,
}

/// Whoever serves uplinks: the dataplane.
pub(crate) trait Carrier: Send {
    /// Makes TAP `name` inside `namespace` and serves it as the port of `vni`, which lets nothing through but while that
    /// is the VNI of the network `sealing`, or, without one, of a network in clear.
    fn open(
        &self,
        namespace: &Namespace,
        name: &str,
        vni: Vni,
        sealing: Option<NetworkId>,
    ) -> Result<(), String>;

    /// Stops serving the port of `vni`; its TAP goes away.
    fn close(&self, vni: Vni);
}

/// The kernel of this host, as the agent uses it.
pub(crate) struct Kernel {
    pins: Pins,
    host: Namespace,
    runtime: tokio::runtime::Runtime,
    carrier: Box<dyn Carrier>,
    uplinks: BTreeMap<NetworkId, Vni>,
    names: BTreeMap<SandboxId, String>,
    /// Descriptors of TAPs that nobody has asked for yet, by place and name.
    taps: BTreeMap<(Place, String), OwnedFd>,
    /// Open namespaces of the plan at hand.
    opened: BTreeMap<Place, (Namespace, Links)>,
    guards: Guards,
    /// In tests, the number of steps left until one is told to fail.
    fail_in: Option<usize>,
}

/// Pin of a network's hidden namespace. Sandboxes' names never begin with a dot.
pub(crate) fn hidden_pin(network: NetworkId) -> String {
    format!(".{network}")
}

/// The network whose hidden namespace is pinned as `pin`.
pub(crate) fn network_of_pin(pin: &str) -> Option<NetworkId> {
    let digits = pin.strip_prefix('.').filter(|digits| digits.len() == 32 && digits.is_ascii())?;
    let mut id = [0; 16];
    for (octet, at) in id.iter_mut().zip((0..32).step_by(2)) {
        *octet = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(NetworkId(id))
}

impl Kernel {
    /// A kernel whose namespaces are pinned in `pins`, whose host is the calling thread's namespace and whose uplinks
    /// `carrier` serves.
    ///
    /// # Errors
    /// No descriptors for netlink's event loop.
    pub(crate) fn new(pins: Pins, carrier: Box<dyn Carrier>) -> std::io::Result<Self> {
        let host = Namespace::current().map_err(std::io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (uplinks, names, opened) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (guards, taps) = (Guards::default(), BTreeMap::new());
        Ok(Self { pins, host, runtime, carrier, uplinks, names, taps, opened, guards, fail_in: None })
    }

    /// Ends it: uplinks go with the dataplane, pins stay.
    pub(crate) fn into_pins(self) -> Pins {
        // A runtime that is just dropped waits, which an asynchronous caller may not.
        self.runtime.shutdown_background();
        self.pins
    }

    /// The pins.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Gives every uplink up and takes them to another dataplane; plans will open them anew.
    pub(crate) fn use_carrier(&mut self, carrier: Box<dyn Carrier>) {
        for vni in std::mem::take(&mut self.uplinks).into_values() {
            self.carrier.close(vni);
        }
        self.carrier = carrier;
    }

    /// Forgets an uplink that the dataplane lost, so that a plan opens it anew.
    pub(crate) fn lose_uplink(&mut self, vni: Vni) {
        self.carrier.close(vni);
        self.uplinks.retain(|_, held| *held != vni);
    }

    /// The descriptor of a TAP that was made and that nobody has got yet. From now on it lives as long as that.
    pub(crate) fn take_tap(&mut self, at: Place, name: &str) -> Option<OwnedFd> {
        self.taps.remove(&(at, name.to_owned()))
    }

    /// Tells the pin of a sandbox.
    pub(crate) fn name_sandbox(&mut self, sandbox: SandboxId, pin: &str) {
        self.names.insert(sandbox, pin.to_owned());
    }

    /// Forgets the pin of a sandbox.
    pub(crate) fn forget_sandbox(&mut self, sandbox: SandboxId) {
        self.names.remove(&sandbox);
    }

    /// Has what guards networks loaded again, whatever it is now.
    pub(crate) fn doubt_guards(&mut self) {
        self.guards.doubt();
    }

    /// Why some network's bridge is not guarded, if that has changed.
    pub(crate) fn guard_news(&mut self) -> Option<Option<String>> {
        self.guards.news()
    }

    /// Frames that bridges' guards have dropped, by reason.
    pub(crate) fn guard_drops(&self) -> BTreeMap<String, u64> {
        let namespaces: Vec<_> = self.guards.tables().filter_map(|at| self.open(at).ok()).collect();
        self.guards.drops(namespaces.iter())
    }

    /// Ends a plan: closes what was opened for it.
    pub(crate) fn close_all(&mut self) {
        self.opened.clear();
    }

    /// Lets the step after `steps` more fail.
    #[cfg(test)]
    pub(crate) fn fail_in(&mut self, steps: Option<usize>) {
        self.fail_in = steps;
    }

    fn pin_of(&self, at: Place) -> Result<String, KernelError> {
        match at {
            Place::Hidden(network) => Ok(hidden_pin(network)),
            Place::Sandbox(id) => self.names.get(&id).cloned().ok_or(KernelError::Unnamed(id)),
            Place::Host => Err(KernelError::Unpinned(at)),
        }
    }

    /// Whether the namespace is there.
    pub(crate) fn has(&self, at: Place) -> bool {
        self.open(at).is_ok()
    }

    /// Opens the namespace.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn open(&self, at: Place) -> Result<Namespace, KernelError> {
        match at {
            Place::Host => Ok(self.host.try_clone()?),
            Place::Hidden(_) | Place::Sandbox(_) => Ok(self.pins.find(&self.pin_of(at)?)?),
        }
    }

    /// Processes in the sandbox, at most `most` of them.
    pub(crate) fn processes_in(&self, sandbox: SandboxId, most: usize) -> Vec<u32> {
        self.open(Place::Sandbox(sandbox))
            .map(|namespace| process::inside(&namespace, most))
            .unwrap_or_default()
    }

    fn enter(&mut self, at: Place) -> Result<(), KernelError> {
        if !self.opened.contains_key(&at) {
            let namespace = self.open(at)?;
            let _context = self.runtime.enter();
            let links = Links::open(&namespace)?;
            self.opened.insert(at, (namespace, links));
        }
        Ok(())
    }

    /// The namespace and links of `at`, opened for the plan at hand.
    fn inside(&mut self, at: Place) -> Result<(&Namespace, &Links, &tokio::runtime::Runtime), KernelError> {
        self.enter(at)?;
        let (namespace, links) = self.opened.get(&at).expect("it has just been opened");
        Ok((namespace, links, &self.runtime))
    }

    /// What is there of `network`, in `sandboxes` and, where that is asked for, in the host's namespace.
    ///
    /// # Errors
    /// The kernel did not answer; a namespace that is not there is no error.
    pub(crate) fn observe(
        &mut self,
        network: NetworkId,
        sandboxes: impl IntoIterator<Item = SandboxId>,
        in_host: bool,
    ) -> Result<Observed, KernelError> {
        let links = self.links(Place::Hidden(network))?;
        if links.is_none()
            && let Some(vni) = self.uplinks.remove(&network)
        {
            // Somebody took the namespace away under the uplink, which holds no more than itself.
            self.carrier.close(vni);
        }
        let (uplink, guard) =
            (self.uplinks.get(&network).copied(), self.guards.loaded(Place::Hidden(network)).cloned());
        let hidden = links.map(|links| Hidden { links, uplink, guard });
        let mut observed = Observed { hidden, ..Observed::default() };
        if in_host {
            observed.host = self.links(Place::Host)?.unwrap_or_default();
        }
        for sandbox in sandboxes {
            if let Some(links) = self.links(Place::Sandbox(sandbox))? {
                observed.sandboxes.insert(sandbox, links);
            }
        }
        Ok(observed)
    }

    /// What is there of bridges of the host and in `sandboxes`.
    ///
    /// # Errors
    /// The kernel did not answer; a namespace that is not there is no error.
    pub(crate) fn observe_host(
        &mut self,
        sandboxes: impl IntoIterator<Item = SandboxId>,
    ) -> Result<bridge::Observed, KernelError> {
        let links = self.links(Place::Host)?.unwrap_or_default();
        let guard = self.guards.loaded(Place::Host).cloned();
        // A kernel without IPv6 forwards none.
        let forwards = |key: &str| read_sysctl(&self.host, key).is_ok_and(|value| value.trim() != "0");
        let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].map(forwards);
        let mut observed = bridge::Observed { links, guard, forwarding, ..Default::default() };
        for sandbox in sandboxes {
            if let Some(links) = self.links(Place::Sandbox(sandbox))? {
                observed.sandboxes.insert(sandbox, links);
            }
        }
        Ok(observed)
    }

    /// Names of the links in a namespace, or nothing where there is no such namespace.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub(crate) fn link_names(&mut self, at: Place) -> Result<BTreeSet<String>, KernelError> {
        Ok(self.links(at)?.unwrap_or_default().into_keys().collect())
    }

    /// Fails where the kernel has no such children.
    ///
    /// # Errors
    /// It has none, or did not answer.
    pub(crate) fn probe(&mut self, mode: Mode) -> Result<(), KernelError> {
        let (_, links, runtime) = self.inside(Place::Host)?;
        runtime.block_on(links.probe(mode)).map_err(match mode {
            Mode::Macvlan(_) => lacks("macvlan links", "macvlan"),
            Mode::Ipvlan(..) => lacks("ipvlan links", "ipvlan"),
        })
    }

    /// Prefixes that the host's routes lead to.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub(crate) fn routed(&mut self) -> Result<Vec<IpNet>, KernelError> {
        let (_, links, runtime) = self.inside(Place::Host)?;
        Ok(runtime.block_on(links.routed())?)
    }

    /// The default routes of a sandbox: next hop and link.
    ///
    /// # Errors
    /// The kernel did not answer, or there is no such sandbox.
    pub(crate) fn default_routes(&mut self, at: Place) -> Result<Vec<(IpAddr, String)>, KernelError> {
        let (_, links, runtime) = self.inside(at)?;
        Ok(runtime.block_on(links.default_routes())?)
    }

    /// Links in a namespace, or nothing where there is no such namespace.
    fn links(&mut self, at: Place) -> Result<Option<BTreeMap<String, SeenLink>>, KernelError> {
        let (_, links, runtime) = match self.inside(at) {
            Err(KernelError::Namespace(fault)) if fault.is_missing() => return Ok(None),
            Err(KernelError::Unnamed(_)) => return Ok(None),
            other => other?,
        };
        let found = runtime.block_on(Found::ask(links))?;
        Ok(Some(found.links.iter().map(|link| (link.name.clone(), found.seen(link))).collect()))
    }

    fn change(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::MakeNamespace { at } => {
                let pin = self.pin_of(*at)?;
                self.pins.pin(&pin, &Namespace::create()?)?;
            }
            Step::RemoveNamespace { at } => {
                self.guards.retire(*at, self.open(*at).ok().as_ref());
                self.taps.retain(|(place, _), _| place != at);
                self.opened.remove(at);
                // A virtual machine has none.
                self.pin_of(*at).map_or(Ok(()), |pin| self.pins.remove(&pin))?;
            }
            Step::SetSysctl { at, key, value } => {
                let (namespace, ..) = self.inside(*at)?;
                match set_sysctl(namespace, key, value) {
                    // A kernel without IPv6 has nothing to be kept from; only asking for IPv6 fails there.
                    Err(fault) if fault.is_missing() && *value != "0" => {}
                    Err(fault) if fault.is_missing() && key.ends_with("accept_ra") => {}
                    other => other?,
                }
            }
            Step::Guard { at, guard } => {
                self.enter(*at)?;
                let (namespace, _) = self.opened.get(at).expect("it has just been opened");
                self.guards.load(*at, namespace, guard);
            }
            Step::OpenUplink { at, name, vni, sealed } => self.open_uplink(*at, name, *vni, *sealed)?,
            Step::CloseUplink { at: Place::Hidden(network) } => {
                if let Some(vni) = self.uplinks.remove(network) {
                    self.carrier.close(vni);
                }
            }
            Step::CloseUplink { .. } => {}
            Step::AddVeth { at, name, near, peer_at, peer, mac, mtu } => {
                self.enter(*peer_at)?;
                self.enter(*at)?;
                let opened = "it has just been opened";
                let (_, links) = self.opened.get(at).expect(opened);
                let (namespace, _) = self.opened.get(peer_at).expect(opened);
                let (near, mac, mtu) = (*near, Some(*mac), (*mtu).into());
                let veth = Veth { name, near, peer, namespace, mac, mtu };
                self.runtime.block_on(links.add_veth(veth))?;
            }
            Step::AddVlan { at, name, parent, id, group } => {
                let (_, links, runtime) = self.inside(*at)?;
                let made = runtime.block_on(links.add_vlan(name, parent, *id, *group));
                made.map_err(lacks("802.1Q VLANs", "8021q"))?;
            }
            Step::AddDummy { at, name, group } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.add_dummy(name, *group)).map_err(lacks("dummy links", "dummy"))?;
            }
            Step::AddChild { at, name, parent, mode, mac, mtu, group } => {
                self.enter(Place::Host)?;
                self.enter(*at)?;
                let opened = "it has just been opened";
                let (_, links) = self.opened.get(&Place::Host).expect(opened);
                let (namespace, inside) = self.opened.get(at).expect(opened);
                let (mode, mac, mtu, group) = (*mode, *mac, *mtu, *group);
                let child = Child { name, namespace, parent, mode, mac, mtu, group };
                self.runtime.block_on(add_child(links, inside, child))?;
            }
            Step::AddBridge { at, name, mac } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.add_bridge(name, *mac))?;
            }
            Step::AddDevice { at, name, near, owner } => {
                let (namespace, links, runtime) = self.inside(*at)?;
                namespace.run(|| Tap::keep(name, *owner))??;
                runtime.block_on(links.set_mac(name, *near))?;
            }
            Step::Redirect { at, from, to } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.redirect(from, to))?;
            }
            Step::AddTap { at, name, near } => self.add_tap(*at, name, *near)?,
            Step::DeleteLink { at, name } => {
                self.taps.remove(&(*at, name.clone()));
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.delete(name))?;
            }
            Step::Enslave { at, name, bridge, role } => {
                let (_, links, runtime) = self.inside(*at)?;
                let flood = *role == PortRole::Uplink;
                let (locked, isolated) = (Some(!flood), *role == PortRole::Isolated);
                let options = PortOptions { learning: false, flood, locked, isolated };
                runtime.block_on(links.enslave(name, bridge, options))?;
            }
            Step::PinMac { at, port, mac } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.add_static_fdb(port, *mac))?;
            }
            Step::SetMtu { at, name, mtu } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.set_mtu(name, (*mtu).into()))?;
            }
            Step::AddAddress { at, name, address } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.add_address(name, *address))?;
            }
            Step::DeleteAddress { at, name, address } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.delete_address(name, *address))?;
            }
            Step::SetDefaultRoute { at, name, via } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.set_default_route(name, *via))?;
            }
            Step::Tell { at, name, mac } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(tell(links, name, *mac))?;
            }
            Step::SetUp { at, name } => {
                let (_, links, runtime) = self.inside(*at)?;
                runtime.block_on(links.set_up(name))?;
            }
        }
        Ok(())
    }

    fn add_tap(&mut self, at: Place, name: &str, near: Option<MacAddr>) -> Result<(), KernelError> {
        let (namespace, links, runtime) = self.inside(at)?;
        let tap = namespace.run(|| Tap::lend(name))??;
        // What fails from here on takes the TAP with it.
        near.map_or(Ok(()), |mac| runtime.block_on(links.set_mac(name, mac)))?;
        self.taps.insert((at, name.to_owned()), tap);
        Ok(())
    }

    fn open_uplink(&mut self, at: Place, name: &str, vni: Vni, sealed: bool) -> Result<(), KernelError> {
        let Place::Hidden(network) = at else {
            return Err(KernelError::Uplink(format!("{at} has no uplink")));
        };
        self.enter(at)?;
        let (namespace, _) = self.opened.get(&at).expect("it has just been opened");
        self.carrier.open(namespace, name, vni, sealed.then_some(network)).map_err(KernelError::Uplink)?;
        self.uplinks.insert(network, vni);
        Ok(())
    }
}

impl Perform for Kernel {
    type Error = KernelError;

    fn perform(&mut self, step: &Step) -> Result<(), KernelError> {
        match self.fail_in.as_mut() {
            Some(0) => {
                self.fail_in = None;
                return Err(KernelError::Told);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        tracing::debug!(%step, "kernel");
        kill::point(step.name(), Side::Before);
        self.change(step)?;
        kill::point(step.name(), Side::After);
        Ok(())
    }
}

/// Says in plain words that the kernel does not know a kind of links.
fn lacks(what: &'static str, module: &'static str) -> impl FnOnce(NetlinkError) -> KernelError {
    move |fault| if fault.is_unsupported() { KernelError::Lacks { what, module } } else { fault.into() }
}

/// Makes a child, or nothing.
async fn add_child(links: &Links, inside: &Links, child: Child<'_>) -> Result<(), KernelError> {
    let made = links.add_child(child).await;
    made.map_err(
        |fault| {
            if fault.is_busy() { KernelError::Parent(child.parent.to_owned()) } else { fault.into() }
        },
    )?;
    // The kernel gives such a child the parent's address, and the parent what the child is given then.
    if child.mode == Mode::Macvlan(MacvlanMode::Passthru)
        && let Err(fault) = inside.set_mac(child.name, child.mac).await
    {
        inside.delete(child.name).await?;
        return Err(fault.into());
    }
    Ok(())
}

/// Has the kernel tell of a link's addresses, once frames from it get anywhere: a bridge passes nothing on before
/// the kernel has noticed that the port is connected, a millisecond or so after it is set up.
async fn tell(links: &Links, name: &str, mac: MacAddr) -> Result<(), NetlinkError> {
    for _ in 0..CONNECTED_LOOKS {
        // Who was detached meanwhile has nothing to tell.
        let Some(link) = links.find(name).await? else { return Ok(()) };
        if link.mac != mac {
            // It has its parent's address, which is no news and cannot be set.
            return Ok(());
        }
        if link.running {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Setting the address it has makes the kernel tell of it (NETDEV_CHANGEADDR in devinet.c and ndisc.c).
    links.set_mac(name, mac).await
}

/// Everything a namespace shows.
struct Found {
    links: Vec<Link>,
    addresses: Vec<(u32, IpNet)>,
    pinned: Vec<(u32, MacAddr)>,
}

impl Found {
    async fn ask(links: &Links) -> Result<Self, NetlinkError> {
        let found = links.list().await?;
        let addresses = links.all_addresses().await?;
        let any_port = found.iter().any(|link| link.port.is_some());
        let pinned = if any_port { links.static_fdb().await? } else { Vec::new() };
        Ok(Self { links: found, addresses, pinned })
    }

    fn seen(&self, link: &Link) -> SeenLink {
        let addresses = self.addresses.iter().filter(|(index, _)| *index == link.index);
        SeenLink {
            index: link.index,
            group: link.group,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            port: self.port(link),
            child: link.parent.zip(link.mode).map(|(parent, mode)| SeenChild { parent, mode }),
            addresses: addresses.map(|(_, net)| *net).collect(),
            settings: settings(link),
        }
    }

    fn port(&self, link: &Link) -> Option<SeenPort> {
        let PortOptions { learning, flood, locked, isolated } = link.port?;
        let bridge = self.links.iter().find(|other| link.controller == Some(other.index))?.name.clone();
        let pinned = self.pinned.iter().filter(|(index, _)| *index == link.index).map(|(_, mac)| *mac);
        Some(SeenPort { bridge, learning, flood, locked, isolated, pinned: pinned.collect() })
    }
}

fn settings(link: &Link) -> BTreeMap<Setting, i32> {
    let ipv6 = link.ipv6.iter().flat_map(|ipv6| {
        [
            (Setting::AcceptRa, ipv6.accept_ra),
            (Setting::DisableIpv6, ipv6.disable_ipv6),
            (Setting::NdiscNotify, ipv6.ndisc_notify),
        ]
    });
    link.arp_notify.map(|arp| (Setting::ArpNotify, arp)).into_iter().chain(ipv6).collect()
}

#[cfg(test)]
mod tests;
