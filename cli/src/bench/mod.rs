//! `weft bench`: how fast and how dear a path is, between two sandboxes or on a rig of its own, beside what weft is
//! compared with.
//!
//! All contenders run at the same time and are measured by turns, so that whatever else the machine does meets all;
//! medians and their ratios are what counts, not absolute figures.

use std::path::Path;

use anyhow::Context;

use crate::args::BenchArgs;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupted;
use crate::output::{Screen, escape};
use report::{Report, Settings};
use steps::Steps;

mod between;
mod contender;
mod environment;
mod figures;
mod installed;
mod own_rig;
mod plot;
mod programs;
mod progress;
mod report;
mod run;
mod steps;
mod table;
mod wireguard;

pub use environment::Environment;

/// Exit status after Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Measures and prints.
pub(crate) fn perform(
    args: &BenchArgs,
    client: impl FnOnce() -> Outcome<Client>,
    screen: &mut Screen,
) -> Outcome {
    if let Some(sandbox) = &args.serve {
        return between::serve(sandbox, client()?, screen);
    }
    args.plot.as_deref().map_or(Ok(()), check_place)?;
    let steps = Steps::new(&args.measures);
    let mut report = Report::new(Environment::read()?, Settings::new(&args.measures));
    let measured = match args.sandboxes.as_slice() {
        [from, to] => between::measure(from, to, args.network.as_deref(), client()?, &steps, &mut report),
        _ => own_rig::measure(args, &steps, &mut report),
    };
    match measured {
        Err(Failure::Failed(error)) if error.is::<Interrupted>() => return Err(Failure::Exit(INTERRUPTED)),
        other => other?,
    }
    show(&report, args, screen)
}

fn show(report: &Report, args: &BenchArgs, screen: &mut Screen) -> Outcome {
    if args.json {
        screen.json(report)?;
    } else {
        table::print(report, screen)?;
    }
    if let Some(file) = &args.plot {
        let drawn = plot::draw(report);
        std::fs::write(file, drawn).with_context(|| format!("write the plot {}", file.display()))?;
    }
    for fault in &report.faults {
        screen.complain(&format!("weft: {}", escape(fault)));
    }
    if report.faults.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

/// Looks whether there will be a place for the plot, before minutes are spent on it.
fn check_place(file: &Path) -> Outcome {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if directory.is_dir() && !file.is_dir() {
        return Ok(());
    }
    Err(Failure::Usage(format!("--plot {} is no file that could be written", file.display())))
}

#[cfg(test)]
mod tests;
