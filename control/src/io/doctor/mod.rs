//! Looks at a host for `weft doctor`: what [`crate::doctor`] judges. Changes nothing, asks no other host but for echoes.
//!
//! Everything that needs a privilege says so instead of failing, and everything that waits waits for a bounded time.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use weft_dataplane::io::Tap;

use super::agent::Advertise;
use super::firewall::{Seen, seen};
use super::leftovers;
use super::namespace::Namespace;
use super::netlink::Links;
use super::underlay;
use crate::api::{Peer, Status};
use crate::doctor::{Agent, Facts, Kernel, Nft, Privileges, Tun, Underlay, VxlanDevice};

mod docker;
mod echo;
mod host;
mod ports;

/// What to look at.
#[derive(Debug)]
pub struct Scope {
    /// Version of this program.
    pub version: &'static str,
    /// Path of the agent's socket.
    pub socket: PathBuf,
    /// What the agent said, or why it did not.
    pub agent: Result<(Status, Vec<Peer>), String>,
    /// Address that an agent would advertise.
    pub advertise: Advertise,
    /// UDP port of the dataplane that an agent would have.
    pub data_port: u16,
    /// UDP and TCP port of gossip that an agent would have.
    pub gossip_port: u16,
    /// Where an agent keeps its state.
    pub state_dir: PathBuf,
    /// Where an agent pins namespaces.
    pub run_dir: PathBuf,
    /// Socket of Docker's engine.
    pub engine: PathBuf,
    /// Where the engine looks for plugins.
    pub plugin_dir: PathBuf,
    /// Whether the kernel's clock is kept.
    pub clock_kept: Option<bool>,
}

/// Looks at everything, for at most some seconds.
///
/// # Errors
/// No descriptors for netlink's event loop.
pub fn gather(scope: Scope) -> std::io::Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let root = Uid::effective().is_root();
    let (agent, data_port, gossip_port) = match scope.agent {
        Ok((status, peers)) => {
            let ports = (status.data_port, status.gossip_port);
            (Agent::Answers { status: Box::new(status), peers }, ports.0, ports.1)
        }
        Err(why) => (Agent::Silent(why), scope.data_port, scope.gossip_port),
    };
    let underlay = runtime.block_on(find_underlay(&agent, &scope.advertise));
    let paths = match (&agent, &underlay) {
        (Agent::Answers { peers, .. }, Ok(underlay)) => echo::paths(peers, underlay),
        _ => Vec::new(),
    };
    let ports = ports::ports(data_port, gossip_port, matches!(agent, Agent::Answers { .. }));
    let Seen { closed, tables } = seen(&[data_port, gossip_port]);
    let (kernel, tun, nft) = runtime.block_on(trials(root));
    Ok(Facts {
        version: scope.version,
        agent,
        socket: scope.socket.display().to_string(),
        privileges: Privileges { root, lacking: host::lacking() },
        kernel,
        tun,
        nft,
        ports,
        vxlan: runtime.block_on(vxlan_devices(root)),
        underlay,
        closed_chains: closed,
        paths,
        clock_kept: scope.clock_kept,
        bridge_filtering: host::bridge_filtering(),
        engine: docker::engine(&scope.engine),
        plugin: docker::plugin_of(&scope.plugin_dir),
        leftovers: runtime.block_on(leftovers::find(&scope.run_dir, &scope.state_dir, None, tables)),
    })
}

async fn find_underlay(agent: &Agent, advertise: &Advertise) -> Result<Underlay, String> {
    let given = match agent {
        Agent::Answers { status, .. } => &Advertise::Address(status.advertise),
        Agent::Silent(_) => advertise,
    };
    let found = underlay::find(given).await.map_err(|fault| fault.to_string())?;
    Ok(Underlay { address: found.address, interface: found.interface, mtu: found.mtu })
}

/// What takes a namespace to try in, which goes away again.
async fn trials(root: bool) -> (Kernel, Tun, Nft) {
    let (mut kernel, driver) = (host::kernel(), Tap::is_possible());
    let untried = host::tun(driver);
    let nft = host::nft();
    let Some(scratch) = root.then(|| Namespace::create().ok()).flatten() else {
        return (kernel, untried, nft);
    };
    kernel.bridge = Some(host::try_bridge(&scratch).await);
    let tun = if matches!(untried, Tun::Untried) { host::try_tap(&scratch) } else { untried };
    (kernel, tun, host::try_nft(&scratch, nft))
}

/// VXLAN devices here, and where Docker and `ip netns` keep namespaces: their sockets are here if they were made here.
async fn vxlan_devices(root: bool) -> Vec<VxlanDevice> {
    let mut devices = Vec::new();
    if let Ok(links) = Links::here() {
        add_vxlan(&mut devices, &links, "").await;
    }
    for directory in ["/run/docker/netns", "/run/netns"].into_iter().filter(|_| root) {
        for path in entries(Path::new(directory)) {
            let links = Namespace::open(&path).ok().and_then(|namespace| Links::open(&namespace).ok());
            if let Some(links) = links {
                add_vxlan(&mut devices, &links, &path.display().to_string()).await;
            }
        }
    }
    devices
}

async fn add_vxlan(devices: &mut Vec<VxlanDevice>, links: &Links, place: &str) {
    let found = links.list().await.unwrap_or_default().into_iter();
    devices.extend(found.filter_map(|link| {
        Some(VxlanDevice { port: link.vxlan_port?, name: link.name, place: place.to_owned() })
    }));
}

/// Paths in a directory, in order; none where it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
