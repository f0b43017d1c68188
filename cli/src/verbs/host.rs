//! Verbs about the host itself: `doctor`, `cleanup`. They need no agent.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use weft_control::api::{Peer, Status};
use weft_control::doctor::{Facts, Finding, State, examine};
use weft_control::io::doctor::{Scope, gather};
use weft_control::io::leftovers;

use crate::args::{CleanupArgs, DoctorArgs};
use crate::client::Client;
use crate::config::{self, Layout};
use crate::failure::{Failure, Outcome};
use crate::output::{Colour, Screen, escape};
use crate::sys;

/// Width of the two columns before what was found.
const STATE: usize = 9;
const CHECK: usize = 20;

/// What is printed as JSON.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report<'r> {
    findings: &'r [Finding],
    problems: usize,
    warnings: usize,
    ports: Vec<String>,
}

impl<'r> Report<'r> {
    fn new(facts: &Facts, findings: &'r [Finding]) -> Self {
        let count = |state| findings.iter().filter(|finding| finding.state == state).count();
        let ports = facts.ports.iter().map(|port| format!("{}/{}", port.number, port.transport.name()));
        Self {
            findings,
            problems: count(State::Problem),
            warnings: count(State::Warning),
            ports: ports.collect(),
        }
    }
}

/// Looks at this host and says what is to be mended.
pub(crate) fn doctor(args: &DoctorArgs, socket: Option<&Path>, screen: &mut Screen) -> Outcome {
    let facts = gather(scope(args, socket)?).context("look at this host")?;
    let findings = examine(&facts);
    let report = Report::new(&facts, &findings);
    if args.read.json {
        screen.json(&report)?;
    } else {
        show(&report, screen)?;
    }
    if report.problems > 0 { Err(Failure::Exit(1)) } else { Ok(()) }
}

fn scope(args: &DoctorArgs, socket: Option<&Path>) -> Outcome<Scope> {
    let Layout { state_dir, run_dir, advertise, data_port, gossip_port, docker } = config::layout(args)?;
    let socket = socket.map_or_else(|| run_dir.join("weft.sock"), PathBuf::from);
    Ok(Scope {
        version: env!("CARGO_PKG_VERSION"),
        agent: ask(&socket),
        socket,
        advertise,
        data_port,
        gossip_port,
        state_dir,
        run_dir,
        engine: docker.engine.unwrap_or_else(|| config::USUAL_ENGINE.into()),
        plugin_dir: docker.plugin_dir.unwrap_or_else(|| config::DEFAULT_PLUGIN_DIR.into()),
        clock_kept: sys::clock_is_kept(),
    })
}

fn ask(socket: &Path) -> Result<(Status, Vec<Peer>), String> {
    let ask = || -> Outcome<_> {
        let client = Client::new(socket)?;
        Ok((client.read("/status")?, client.read("/peers")?))
    };
    ask().map_err(|failure| match failure {
        Failure::Unreachable { source, .. } => source.to_string(),
        other => other.message(),
    })
}

fn show(report: &Report<'_>, screen: &mut Screen) -> Outcome {
    for Finding { check, state, found, why, remedy } in report.findings {
        let (word, colour) = match state {
            State::Ok => ("ok", Colour::Green),
            State::Warning => ("warning", Colour::Yellow),
            State::Problem => ("problem", Colour::Red),
        };
        let word = screen.paint(colour, &format!("{word:<STATE$}"));
        screen.line(&format!("{word}{check:<CHECK$}{}", escape(found)))?;
        for (label, text) in [("why", why), ("do", remedy)].into_iter().filter(|(_, text)| !text.is_empty()) {
            screen.line(&format!("{:>1$}  {text}", label, STATE + CHECK - 2, text = escape(text)))?;
        }
    }
    screen.line(&format!("\nOpen between the hosts: {}", report.ports.join(", ")))?;
    let Report { problems, warnings, .. } = report;
    Ok(screen.line(&format!("{problems} problems, {warnings} warnings"))?)
}

/// Removes what agents of this host left in the kernel.
pub(crate) fn cleanup(args: &CleanupArgs, screen: &mut Screen) -> Outcome {
    let (state_dir, run_dir) = config::places(&args.place)?;
    let removed = leftovers::remove(&run_dir, &state_dir).map_err(anyhow::Error::from)?;
    if removed.is_empty() {
        return Ok(screen.line("Nothing of weft's was left here.")?);
    }
    Ok(screen.line(&format!("Removed: {}", escape(&removed.listed())))?)
}
