//! What is measured: weft in clear and sealed, and what it is compared with.

use std::time::Duration;

use anyhow::{Context, Result};

use super::report::ContenderShown;
use super::wireguard::{self, Tunnel};
use crate::args::ContenderName;
use crate::interrupt::Interrupt;
use crate::rig::Rig;
use crate::traffic::{End, Ends, Station};

/// The name of the one that the others are compared with.
pub(super) const KERNEL: &str = "kernel-vxlan";
/// What seals weft's networks.
pub(super) const SEALED_BY: &str = "AES-256-GCM";
/// How long agents and first answers may take.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Two ends, and what joins them.
pub(super) struct Contender {
    pub(super) name: String,
    /// Nothing in clear.
    pub(super) cipher: Option<&'static str>,
    from: Station,
    to: Box<dyn End>,
    /// Programs of others that carry the traffic, and their version.
    _tunnels: Vec<Tunnel>,
    version: Option<String>,
}

impl Contender {
    pub(super) fn new(
        name: &str,
        cipher: Option<&'static str>,
        from: Station,
        to: impl End + 'static,
    ) -> Self {
        Self { name: name.to_owned(), cipher, from, to: Box::new(to), _tunnels: Vec::new(), version: None }
    }

    fn between(name: &str, cipher: Option<&'static str>, [from, to]: [Station; 2]) -> Self {
        Self::new(name, cipher, from, to)
    }

    /// Carried by programs of this version, which live as long.
    pub(super) fn carried_by(self, tunnels: Vec<Tunnel>, version: String) -> Self {
        Self { _tunnels: tunnels, version: Some(version), ..self }
    }

    /// It, as a report names it.
    pub(super) fn shown(&self) -> ContenderShown {
        ContenderShown { name: self.name.clone(), cipher: self.cipher, version: self.version.clone() }
    }

    /// Its ends.
    pub(super) fn ends<'a>(&'a self, interrupt: &'a Interrupt) -> Ends<'a> {
        Ends { from: &self.from, to: &*self.to, interrupt }
    }

    /// Waits until the far end answers.
    ///
    /// # Errors
    /// It does not within 15 s.
    pub(super) fn await_answer(&self, interrupt: &Interrupt) -> Result<()> {
        let answered = self.ends(interrupt).ping(START_LIMIT)?;
        answered.map(drop).with_context(|| format!("{}: the far end does not answer", self.name))
    }
}

/// Makes one on a rig of two hosts whose agents run.
pub(super) fn make(name: ContenderName, rig: &Rig) -> Result<Contender> {
    match name {
        ContenderName::WeftClear => Ok(Contender::between("weft-clear", None, weft(rig, "clear", false)?)),
        ContenderName::WeftSealed => {
            let stations = weft(rig, "sealed", true)?;
            Ok(Contender::between("weft-sealed", Some(SEALED_BY), stations))
        }
        ContenderName::KernelVxlan => Ok(Contender::between(KERNEL, None, rig.kernel_stations(0, 1)?)),
        ContenderName::Raw => Ok(Contender::between("raw", None, raw(rig)?)),
        ContenderName::WireguardGo | ContenderName::Boringtun | ContenderName::Gotatun => {
            wireguard::contender(name, rig)
        }
    }
}

/// A network, and a sandbox in it on either host.
fn weft(rig: &Rig, name: &str, sealed: bool) -> Result<[Station; 2]> {
    rig.create_overlay(name, sealed, START_LIMIT)?;
    Ok([rig.station(0, name, &format!("{name}-near"))?, rig.station(1, name, &format!("{name}-far"))?])
}

/// The hosts themselves.
fn raw(rig: &Rig) -> Result<[Station; 2]> {
    let [near, far] = rig.hosts() else { anyhow::bail!("the underlay joins two hosts") };
    Ok([
        Station::new(near.namespace.try_clone()?, near.address, None, None),
        Station::new(far.namespace.try_clone()?, far.address, None, None),
    ])
}
