//! A process of its own for each command in the background.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command as Program, Stdio};

use anyhow::Context;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::{Deserialize, Serialize};

use super::{Task, supervise};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::Screen;
use crate::sys;

/// What a supervisor says once its command runs, or cannot.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Started(Begun),
    Refused { status: u16, message: String },
    Failed { status: u8, message: String },
}

/// A command in the background.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Id of its sandbox, 64 hexadecimal digits.
    pub(crate) id: String,
}

/// Starts a process that watches over a command, and returns once the command runs.
///
/// # Errors
/// What kept the command from starting.
pub(crate) fn in_background(task: &Task, client: &Client) -> Outcome<Begun> {
    let mut program = Program::new("/proc/self/exe");
    program.arg("--socket").arg(client.socket()).arg("supervise");
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    sys::in_session_of_its_own(&mut program);
    let mut child = program.spawn().context("start a process to watch over the command")?;
    let task = serde_json::to_vec(task).context("say what to run")?;
    if let Some(mut input) = child.stdin.take() {
        // One that ended says why, or says nothing.
        let _ = input.write_all(&task);
    }
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("wait for the command to start")?;
    }
    match serde_json::from_str(&line).context("the process that was to watch over the command ended")? {
        Report::Started(begun) => Ok(begun),
        Report::Refused { status, message } => Err(Failure::Refused { status, message }),
        Report::Failed { status, message } => Err(Failure::NotStarted { message, status }),
    }
}

/// Watches over the command that standard input says, reports once on standard output, and goes on silently.
///
/// # Errors
/// None that anybody hears of: what went wrong was reported.
pub(crate) fn perform(client: &Client) -> Outcome {
    let task: Task = serde_json::from_reader(io::stdin().lock()).context("read what to watch over")?;
    let mut screen = Screen::terminal();
    let mut told = false;
    let outcome = supervise(
        &task,
        client,
        |sandbox| {
            told = true;
            report(&Report::Started(Begun { id: sandbox.id.clone() }));
            let _ = be_silent();
        },
        &mut screen,
    );
    if let Err(failure) = outcome
        && !told
    {
        report(&describe(failure));
    }
    Ok(())
}

fn describe(failure: Failure) -> Report {
    let status = failure.exit_status();
    match failure {
        Failure::Refused { status, message } => Report::Refused { status, message },
        other => {
            let message = other.message();
            Report::Failed { status, message: message.strip_prefix("weft: ").unwrap_or(&message).to_owned() }
        }
    }
}

fn report(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // A caller that is gone wants no report.
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
}

/// Lets go of the caller's streams and directory.
fn be_silent() -> io::Result<()> {
    let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    std::env::set_current_dir("/")
}
