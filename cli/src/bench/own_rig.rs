//! `weft bench --self`: two hosts made for it, one underlay after the other.

use anyhow::{Context, Result};

use super::contender::{self, Contender};
use super::programs;
use super::progress::Progress;
use super::report::Report;
use super::run::Run;
use super::steps::Steps;
use super::wireguard;
use crate::args::{BenchArgs, ContenderName, UnderlayChoice};
use crate::failure::Outcome;
use crate::rig::{Blueprint, Rig, Wiring};

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
    programs::check_installed(&steps.programs())?;
    report.programs = programs::shown(&steps.programs());
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
        rig.make_wire_like()?;
    }
    progress.say(&format!("{}: starting two hosts", underlay.name()));
    rig.start_all()?;
    let contenders: Vec<Contender> =
        contenders.iter().map(|name| contender::make(*name, &rig)).collect::<Result<_>>()?;
    let interrupt = rig.interrupt();
    contenders.iter().try_for_each(|contender| contender.await_answer(interrupt))?;
    let directory = Some(rig.directory());
    let run = Run { place: underlay.name(), contenders: &contenders, steps, interrupt, directory, progress };
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
