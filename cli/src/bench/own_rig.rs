//! `weft bench --self`: two hosts made for it, one underlay after the other.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::contender::{self, Contender};
use super::progress::Progress;
use super::report::Report;
use super::run::Run;
use super::steps::Steps;
use super::wireguard;
use crate::args::{BenchArgs, ContenderName, UnderlayChoice};
use crate::failure::Outcome;
use crate::rig::{Blueprint, Rig, UPLINK, Wiring};

/// Features of a link that a plain NIC has not (`ethtool -K`).
const OFF: [&str; 7] = [
    "tso",
    "gso",
    "tx",
    "rx",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
];

/// What joins the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Underlay {
    Veth,
    WireLike,
}

/// Measures on each underlay that was asked for.
pub(super) fn measure(args: &BenchArgs, steps: &Steps, report: &mut Report) -> Outcome {
    let (underlays, contenders) = (underlays(args.underlay), once_each(&args.contender));
    wireguard::check_installed(&contenders)?;
    let mut progress = Progress::new(steps.estimate(contenders.len() * underlays.len()));
    for underlay in underlays {
        measure_on(*underlay, &contenders, steps, &mut progress, report)?;
    }
    Ok(())
}

/// In the order they were first named.
fn once_each(names: &[ContenderName]) -> Vec<ContenderName> {
    let mut once = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(*name);
        }
    }
    once
}

fn underlays(choice: UnderlayChoice) -> &'static [Underlay] {
    match choice {
        UnderlayChoice::Veth => &[Underlay::Veth],
        UnderlayChoice::WireLike => &[Underlay::WireLike],
        UnderlayChoice::All => &[Underlay::Veth, Underlay::WireLike],
    }
}

fn measure_on(
    underlay: Underlay,
    contenders: &[ContenderName],
    steps: &Steps,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<()> {
    let program = std::env::current_exe().context("find our own program")?;
    let blueprint = Blueprint { purpose: "bench", hosts: 2, wiring: Wiring::Cable, program };
    let mut rig = Rig::build(&blueprint)?;
    if underlay == Underlay::WireLike {
        make_wire_like(&rig)?;
    }
    progress.say(&format!("{}: starting two hosts", underlay.name()));
    rig.start_all()?;
    let contenders: Vec<Contender> =
        contenders.iter().map(|name| contender::make(*name, &rig)).collect::<Result<_>>()?;
    let interrupt = rig.interrupt();
    contenders.iter().try_for_each(|contender| contender.await_answer(interrupt))?;
    let run = Run { place: underlay.name(), contenders: &contenders, steps, interrupt, progress };
    run.measure(report)
}

impl Underlay {
    fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::WireLike => "wire-like",
        }
    }
}

/// Switches the offloads off at both ends of the cable.
fn make_wire_like(rig: &Rig) -> Result<()> {
    for host in rig.hosts() {
        let mut command = Command::new("ethtool");
        command.args(["-K", UPLINK, "gro", "on"]).args(OFF.iter().flat_map(|feature| [*feature, "off"]));
        let output = host.namespace.run(|| command.output())?.context(
            "a wire-like underlay needs the program 'ethtool': install it, or measure on '--underlay veth' alone",
        )?;
        ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
