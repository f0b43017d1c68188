//! Several hosts on one machine: network namespaces on a veth underlay, each with an agent of its own.
//!
//! The demo and the benchmarks are played on it. Nothing of it has a name in the machine's own namespaces but one
//! directory, `/run/weft-<purpose>-<pid>`: namespaces live by the descriptors held here and by their processes, so
//! that even a killed rig leaves no link behind; what agents pinned is swept by the next rig of that purpose.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tokio::runtime::Runtime;
use weft_control::io::namespace::Namespace;
use weft_control::io::netlink::{Links, PortOptions, Veth};

use crate::interrupt::Interrupt;

mod agent;
mod kernel;
mod leftovers;
mod station;
mod wire;

pub use agent::AgentProcess;

/// The underlay of every rig: TEST-NET-1 (RFC 5737), which no real network has.
const UNDERLAY: [u8; 3] = [192, 0, 2];
/// Its packet size, octets.
const UNDERLAY_MTU: u32 = 1500;
/// A host's end of its cable.
pub const UPLINK: &str = "eth0";
/// The bridge that stands for the switch.
const SWITCH: &str = "switch0";

/// What a rig is made of.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// What it is for, as part of its directory's name.
    pub purpose: &'static str,
    /// How many hosts; at most 16.
    pub hosts: u8,
    /// What joins them.
    pub wiring: Wiring,
    /// The `weft` program that agents are started from.
    pub program: PathBuf,
}

/// What joins the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// A bridge in a namespace of its own.
    Switch,
    /// One veth pair between two hosts.
    Cable,
}

/// Hosts, and what joins them. Dropping it ends every agent and removes what is left.
pub struct Rig {
    hosts: Vec<Host>,
    directory: PathBuf,
    program: PathBuf,
    runtime: Runtime,
    interrupt: Interrupt,
    /// Held for as long as the rig lives: the switch is in it.
    switch: Namespace,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// `a`, `b`, `c`…
    pub name: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its underlay address.
    pub address: IpAddr,
    directory: PathBuf,
    member: bool,
    agent: Option<AgentProcess>,
}

impl Host {
    /// The socket of its agent.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("weft.sock")
    }

    /// The process of its agent, if one runs.
    #[must_use]
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(AgentProcess::pid)
    }

    fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }
}

impl Rig {
    /// Makes the hosts and joins them; no agent runs yet. To be called on the main thread while it is the only one.
    ///
    /// # Errors
    /// Not root, or the kernel refuses; nothing is left behind.
    pub fn build(blueprint: &Blueprint) -> Result<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            bail!("making hosts out of network namespaces needs root: run it again with sudo");
        }
        let interrupt = Interrupt::watch().context("watch for Ctrl-C")?;
        leftovers::sweep(blueprint.purpose);
        let directory = leftovers::directory(blueprint.purpose, std::process::id());
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("make {}", directory.display()))?;
        let mut rig = Self {
            hosts: Vec::new(),
            directory,
            program: blueprint.program.clone(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            interrupt,
            switch: Namespace::create()?,
        };
        rig.hosts = (1..=blueprint.hosts).map(|number| rig.host(number)).collect::<Result<_>>()?;
        match blueprint.wiring {
            Wiring::Switch => rig.join_byswitch()?,
            Wiring::Cable => rig.join_by_cable()?,
        }
        Ok(rig)
    }

    /// The hosts, in order of their names.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where everything of this rig is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What Ctrl-C is noticed by.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    fn token_file(&self) -> PathBuf {
        self.directory.join("token")
    }

    fn host(&self, number: u8) -> Result<Host> {
        let name = char::from(b'a' + (number - 1)).to_string();
        let [a, b, c] = UNDERLAY;
        let directory = self.directory.join(&name);
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let address = Ipv4Addr::new(a, b, c, number).into();
        Ok(Host { name, namespace: Namespace::create()?, address, directory, member: false, agent: None })
    }

    fn join_byswitch(&self) -> Result<()> {
        self.runtime.block_on(async {
            let switch = Links::open(&self.switch)?;
            switch.add_bridge(SWITCH, None).await?;
            switch.set_up(SWITCH).await?;
            for host in &self.hosts {
                let port = format!("port-{}", host.name);
                let namespace = &host.namespace;
                switch
                    .add_veth(Veth {
                        name: &port,
                        near: None,
                        peer: UPLINK,
                        namespace,
                        mac: None,
                        mtu: UNDERLAY_MTU,
                    })
                    .await?;
                switch
                    .enslave(
                        &port,
                        SWITCH,
                        PortOptions { learning: true, flood: true, locked: None, isolated: false },
                    )
                    .await?;
                switch.set_up(&port).await?;
                bring_up(host).await?;
            }
            Ok(())
        })
    }

    fn join_by_cable(&self) -> Result<()> {
        let [near, far] = self.hosts.as_slice() else { bail!("a cable joins two hosts") };
        self.runtime.block_on(async {
            let veth = Veth {
                name: UPLINK,
                near: None,
                peer: UPLINK,
                namespace: &far.namespace,
                mac: None,
                mtu: UNDERLAY_MTU,
            };
            Links::open(&near.namespace)?.add_veth(veth).await?;
            bring_up(near).await?;
            bring_up(far).await
        })
    }
}

async fn bring_up(host: &Host) -> Result<()> {
    let links = Links::open(&host.namespace)?;
    links.set_up("lo").await?;
    links.add_address(UPLINK, IpNet::new(host.address, 24)?).await?;
    Ok(links.set_up(UPLINK).await?)
}

impl Drop for Rig {
    fn drop(&mut self) {
        let mut agents: Vec<_> = self.hosts.iter_mut().filter_map(|host| host.agent.take()).collect();
        agents.iter().for_each(AgentProcess::ask_to_stop);
        agents.iter_mut().for_each(AgentProcess::wait_for_end);
        leftovers::remove(&self.directory);
    }
}

#[cfg(test)]
mod tests;
