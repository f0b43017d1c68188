//! `weft stop`, `weft kill`, `weft rm`: the ends of commands and sandboxes.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use weft_control::api::Sandbox;
use weft_control::command::Life;
use weft_control::io::commands::{Directory, is_supervised, runs};

use super::path;
use super::run::start_one;
use crate::args::{KillArgs, RemoveArgs, StopArgs};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::Screen;
use crate::verbs::each::each;

/// How long a killed command and what watches over it may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Ends commands.
pub(crate) fn stop(args: &StopArgs, client: &Client, screen: &mut Screen) -> Outcome {
    each(&args.names, false, screen, |name| stop_one(name, args.time, client))
}

/// Ends commands and starts them again.
pub(crate) fn restart(args: &StopArgs, client: &Client, screen: &mut Screen) -> Outcome {
    each(&args.names, false, screen, |name| {
        stop_one(name, args.time, client)?;
        start_one(name, client)
    })
}

fn stop_one(name: &str, seconds: i64, client: &Client) -> Outcome {
    let sandbox: Sandbox = client.read(&path(name))?;
    let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
    end(&sandbox, Signal::SIGTERM, patience)
}

/// Sends commands a signal.
pub(crate) fn kill(args: &KillArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let signal = signal(&args.signal)?;
    each(&args.names, false, screen, |name| {
        let sandbox: Sandbox = client.read(&path(name))?;
        let not_running = || {
            let message = format!("cannot kill container: {name}: container {} is not running", sandbox.name);
            Failure::Refused { status: 409, message }
        };
        let life = running(&Directory::at(sandbox.directory.as_ref())).ok_or_else(not_running)?;
        send(&life, signal)
    })
}

/// `TERM`, `SIGTERM`, `15`.
fn signal(text: &str) -> Outcome<Signal> {
    let number = text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let unknown = || Failure::Usage(format!("invalid signal: {text}"));
    number.or_else(|| name.parse().ok()).ok_or_else(unknown)
}

/// Removes sandboxes; a command that runs is ended first where this is forced.
pub(crate) fn remove(args: &RemoveArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let force = if args.force { "?force=true" } else { "" };
    each(&args.names, args.force, screen, |name| {
        let sandbox: Sandbox = client.read(&path(name))?;
        may_go(&sandbox, args.force)?;
        match client.remove(&format!("{}{force}", path(&sandbox.id))) {
            // It has gone with its command.
            Err(failure) if failure.is_not_found() => Ok(()),
            other => other,
        }
    })
}

fn may_go(sandbox: &Sandbox, force: bool) -> Outcome {
    if running(&Directory::at(sandbox.directory.as_ref())).is_none() {
        return Ok(());
    }
    if force {
        return end(sandbox, Signal::SIGKILL, Some(Duration::ZERO));
    }
    let message = format!(
        "cannot remove container {:?}: container is running: stop the container before removing or force remove",
        sandbox.name
    );
    Err(Failure::Refused { status: 409, message })
}

/// The life of a command that has not ended.
fn running(directory: &Directory) -> Option<Life> {
    directory.life().filter(|life| !life.has_ended(is_supervised(life)))
}

/// Ends the command of a sandbox and waits until whatever watches over it has cleaned up; `patience` is the time until
/// SIGKILL, absent for ever. A sandbox without a command, or whose command has ended, is left as it is.
fn end(sandbox: &Sandbox, signal: Signal, patience: Option<Duration>) -> Outcome {
    let directory = Directory::at(sandbox.directory.as_ref());
    let Some(life) = running(&directory) else { return Ok(()) };
    send(&life, signal)?;
    if is_gone(&life, patience) {
        return Ok(());
    }
    // It may have started only now.
    send(&running(&directory).unwrap_or_else(|| life.clone()), Signal::SIGKILL)?;
    if is_gone(&life, Some(KILLED)) {
        return Ok(());
    }
    Err(anyhow::anyhow!("{} does not end; its supervisor is process {}", sandbox.name, life.supervisor.pid)
        .into())
}

/// Waits until what watches over a command is gone.
fn is_gone(life: &Life, patience: Option<Duration>) -> bool {
    let begun = Instant::now();
    while runs(life.supervisor) {
        if patience.is_some_and(|patience| begun.elapsed() >= patience) {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Sends a command a signal, if it is there.
fn send(life: &Life, signal: Signal) -> Outcome {
    let Some(process) = life.process.filter(|process| runs(*process)) else { return Ok(()) };
    let Ok(pid) = i32::try_from(process.pid) else { return Ok(()) };
    match nix::sys::signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(fault) => Err(fault).with_context(|| format!("signal process {pid}")).map_err(Failure::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_with_or_without_its_prefix_and_a_number() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(signal(text).expect("a signal"), Signal::SIGTERM);
        }
        for text in ["", "NOPE", "0", "-1", "999"] {
            assert_eq!(signal(text).expect_err(text).message(), format!("weft: invalid signal: {text}"));
        }
    }
}
