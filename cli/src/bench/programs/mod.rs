//! Traffic of programs that others made: iperf3, redis with its own benchmark, nginx with wrk.
//!
//! A server starts in the far sandbox for each turn and its client in the near one; both end with the turn. All they
//! write is in the rig's directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::figures::Figure;
use super::installed::is_installed;
use crate::args::Part;
use crate::interrupt::Interrupt;
use crate::traffic::{Ends, Station};

mod http;
mod iperf3;
mod redis;
mod route;
mod running;

/// What a turn takes beside the time its client is told.
const OVERHEAD: Duration = Duration::from_millis(300);

/// A server of others and what measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Iperf3,
    Redis,
    Http,
}

/// A program, as a report names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ProgramShown {
    pub(super) name: &'static str,
    pub(super) version: String,
}

/// Where a program is measured.
struct Site<'a> {
    near: &'a Station,
    far: &'a Station,
    /// Where programs put what they write.
    directory: PathBuf,
    interrupt: &'a Interrupt,
}

impl Program {
    /// What a measure is carried by; `None` where that is our own generator.
    pub(super) fn of(part: Part) -> Option<Self> {
        match part {
            Part::Iperf3 => Some(Self::Iperf3),
            Part::Redis => Some(Self::Redis),
            Part::Http => Some(Self::Http),
            _ => None,
        }
    }

    /// As `--only` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Iperf3 => "iperf3",
            Self::Redis => "redis",
            Self::Http => "http",
        }
    }

    /// As people read it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Iperf3 => "iperf3, 1 stream",
            Self::Redis => "redis, 50 clients",
            Self::Http => "HTTP by nginx and wrk",
        }
    }

    /// The server and its client, each with the word that makes it tell its version.
    fn commands(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Iperf3 => &[("iperf3", "--version")],
            Self::Redis => &[("redis-server", "--version"), ("redis-benchmark", "--version")],
            Self::Http => &[("nginx", "-v"), ("wrk", "-v")],
        }
    }

    /// Debian's packages of them.
    fn packages(self) -> &'static str {
        match self {
            Self::Iperf3 => "iperf3",
            Self::Redis => "redis-server, redis-tools",
            Self::Http => "nginx-light, wrk",
        }
    }

    /// About how long a turn takes whose measurements are to take `time`.
    pub(super) fn estimate(self, time: Duration) -> Duration {
        let whole = Duration::from_secs(whole_seconds(time));
        match self {
            Self::Iperf3 => whole + OVERHEAD,
            Self::Redis => time * 2 + OVERHEAD,
            Self::Http => (whole + OVERHEAD) * 2,
        }
    }

    /// Measures one turn between two sandboxes of this host; files go into `directory`.
    ///
    /// # Errors
    /// A program does not start, fails or says what is not understood; or interrupted.
    pub(super) fn measure(self, ends: &Ends<'_>, directory: &Path, time: Duration) -> Result<Vec<Figure>> {
        let far = ends.to.station().context("the far end is not on this host")?;
        let directory = directory.join(self.name());
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let site = Site { near: ends.from, far, directory, interrupt: ends.interrupt };
        route::choose_congestion(site.near, site.far.address)?;
        route::choose_congestion(site.far, site.near.address)?;
        match self {
            Self::Iperf3 => iperf3::measure(&site, time),
            Self::Redis => redis::measure(&site, time),
            Self::Http => http::measure(&site, time),
        }
    }
}

/// Looks for programs before anything is made.
///
/// # Errors
/// One is not there.
pub(super) fn check_installed(programs: &[Program]) -> Result<()> {
    for program in programs {
        let names: Vec<_> =
            program.commands().iter().map(|(name, _)| *name).chain([route::PROGRAM]).collect();
        ensure!(
            names.iter().all(|name| is_installed(name)),
            "--only {} needs the programs '{}': install Debian's packages {} and iproute2, or leave it out",
            program.name(),
            names.join("', '"),
            program.packages()
        );
    }
    Ok(())
}

/// Programs and their versions, for a report.
pub(super) fn shown(programs: &[Program]) -> Vec<ProgramShown> {
    let commands = programs.iter().flat_map(|program| program.commands());
    commands.map(|(name, word)| ProgramShown { name, version: version(name, word) }).collect()
}

fn version(program: &str, word: &str) -> String {
    let output = Command::new(program).arg(word).stdin(Stdio::null()).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    version_in(&String::from_utf8_lossy(&said)).unwrap_or("of no version").to_owned()
}

/// The first thing in a text that looks like a version: numbers with dots between.
fn version_in(text: &str) -> Option<&str> {
    let words = text.split(|character: char| !character.is_ascii_digit() && character != '.');
    words.map(|word| word.trim_matches('.')).find(|word| word.contains('.'))
}

/// As programs are told times that know no parts of a second.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests;
