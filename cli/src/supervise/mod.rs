//! Watches over the command of a sandbox from its start to its end, and writes down what becomes of it.
//!
//! In the foreground the caller's process does this, in the background one that was started for it: it outlives
//! the caller and the agent. The agent reads what is written down; it starts nothing itself.

use std::io;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::sys::prctl::set_child_subreaper;
use serde::{Deserialize, Serialize};
use weft_control::api::{Connect, Connected, Disconnect, Sandbox, SandboxCreate};
use weft_control::command::{Attachment, Command, End, Life};
use weft_control::io::commands::{Claim, Directory, identify};
use weft_control::timestamp::UnixMillis;

use crate::args::KeyValue;
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::output::{Screen, escape};
use crate::process::{Care, Job, Signals, Streams, end_others, exit_status, start, start_in, wait};
use crate::verbs::sandbox::{namespace_of, path, surroundings_of};

mod background;
pub(crate) mod log;
mod taps;

pub(crate) use background::{in_background, perform};
use log::Capture;
use taps::Taps;
pub(crate) use taps::described;

/// How long an agent that does not answer is asked again to detach what has ended; later it finds out by itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);

/// What to watch over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A command in a sandbox that is made for it.
    Run {
        /// The sandbox.
        request: Box<SandboxCreate>,
        /// The command.
        command: Command,
    },
    /// The command of a sandbox that has ended before.
    Start {
        /// Id.
        sandbox: String,
    },
}

/// A command under supervision.
struct Charge<'c> {
    client: &'c Client,
    sandbox: Sandbox,
    command: Command,
    directory: Directory,
    life: Life,
    /// Held to the end.
    _claim: Claim,
}

/// Starts a command, calls `started` once it runs, and returns when it has ended and its networks are detached.
///
/// # Errors
/// What kept it from starting: a sandbox made for it is gone again. [`Failure::Exit`] with the command's status where
/// that is not zero.
pub(crate) fn supervise(
    task: &Task,
    client: &Client,
    started: impl FnOnce(&Sandbox),
    screen: &mut Screen,
) -> Outcome {
    set_child_subreaper(true).context("become the reaper of the command's children")?;
    let signals = Signals::hold()?;
    let mut charge = Charge::take(task, client)?;
    let (child, capture) = match charge.start(&signals, screen) {
        Ok(begun) => begun,
        Err(failure) => {
            charge.give_up(task, &failure);
            return Err(failure);
        }
    };
    started(&charge.sandbox);
    let status = charge.watch(child, capture, &signals)?;
    charge.end(status, screen);
    if status == 0 { Ok(()) } else { Err(Failure::Exit(status)) }
}

impl<'c> Charge<'c> {
    /// Makes or finds the sandbox, and writes down who watches over it.
    fn take(task: &Task, client: &'c Client) -> Outcome<Self> {
        let (sandbox, command) = match task {
            Task::Run { request, command } => (client.change("/sandboxes/create", request)?, command.clone()),
            Task::Start { sandbox } => {
                let sandbox: Sandbox = client.read(&path(sandbox))?;
                let none =
                    || Failure::Refused { status: 409, message: format!("{} has no command", sandbox.name) };
                let command = sandbox.command.clone().ok_or_else(none)?;
                (sandbox, command)
            }
        };
        let me = identify(std::process::id()).context("find this process in /proc")?;
        let directory = Directory::at(sandbox.directory.as_ref());
        let claim = directory.claim().map_err(|fault| {
            if matches!(task, Task::Run { .. }) {
                // Nothing is left of a sandbox whose command cannot be written down.
                let _ = client.remove(&format!("{}?force=true", path(&sandbox.id)));
            }
            claimed(&sandbox, fault)
        })?;
        let charge = Self { client, directory, life: Life::under(me), sandbox, command, _claim: claim };
        let written = charge
            .directory
            .put_command(&charge.command)
            .and_then(|()| charge.directory.put_life(&charge.life));
        let written = written.with_context(|| format!("write in {}", charge.sandbox.directory));
        written.map_err(|fault| {
            let failure = Failure::from(fault);
            charge.give_up(task, &failure);
            failure
        })?;
        Ok(charge)
    }

    fn start(&mut self, signals: &Signals, screen: &mut Screen) -> Outcome<(Child, Option<Capture>)> {
        let mut taps = Taps::default();
        for wish in &self.command.networks {
            let connected = attach(&self.sandbox.id, wish, self.client)?;
            if self.command.tap {
                taps.add(&wish.network, connected, self.client.tap(&wish.network, &self.sandbox.id)?);
            }
        }
        self.sandbox.command = Some(self.command.clone());
        let child = self.spawn(&taps, signals, screen)?;
        // The command alone holds its TAPs, so that they end with it.
        drop(taps);
        self.oversee(child)
    }

    fn spawn(&self, taps: &Taps, signals: &Signals, screen: &mut Screen) -> Outcome<Child> {
        let cmd: Vec<_> = self.command.cmd.iter().map(Into::into).collect();
        let own = self.command.env.iter().filter_map(|text| text.parse().ok());
        let env: Vec<KeyValue> = own.chain(taps.variables()).collect();
        let streams = match self.command.detached {
            true => Streams::Captured { open_stdin: self.command.open_stdin },
            false => Streams::Inherited,
        };
        let directory = (!self.command.working_dir.is_empty()).then(|| Path::new(&self.command.working_dir));
        let job = Job { env: &env, directory, streams, descriptors: taps.descriptors(), ..Job::new(&cmd) };
        if self.command.tap {
            taps.lines().for_each(|line| screen.complain(&escape(&line)));
            return start(&job, signals);
        }
        let namespace = namespace_of(&self.sandbox, self.client)?;
        let around = surroundings_of(&self.sandbox, self.client)?;
        start_in(namespace, &Job { surroundings: around.as_ref(), ..job }, signals)
    }

    fn oversee(&mut self, mut child: Child) -> Outcome<(Child, Option<Capture>)> {
        let capture = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => {
                let capture = Capture::new(out.into(), err.into(), &self.directory.log());
                Some(capture.with_context(|| format!("open {}", self.directory.log().display()))?)
            }
            _ => None,
        };
        self.life.process = identify(child.id());
        self.life.started = now();
        self.note();
        Ok((child, capture))
    }

    /// Waits for the end of the command, and ends what it has left behind.
    fn watch(&self, mut child: Child, mut capture: Option<Capture>, signals: &Signals) -> Outcome<u8> {
        let status = wait(&mut child, signals, Care { capture: capture.as_mut(), reaps: true })?;
        end_others();
        if let Some(capture) = capture {
            capture.finish();
        }
        Ok(exit_status(status))
    }

    fn end(&mut self, exit_code: u8, screen: &mut Screen) {
        self.life.end = Some(End { at: now(), exit_code, error: String::new() });
        self.note();
        if !self.command.auto_remove {
            self.detach();
            return;
        }
        if let Err(failure) = self.client.remove(&format!("{}?force=true", path(&self.sandbox.id)))
            && !failure.is_not_found()
        {
            let why = format!("weft: sandbox {} is left: {}", self.sandbox.name, failure.message());
            screen.complain(&escape(&why));
        }
    }

    /// Writes down what became of the command. The directory may have gone with the sandbox.
    fn note(&self) {
        let _ = self.directory.put_life(&self.life);
    }

    /// Takes back what was made for a command that does not run.
    fn give_up(&self, task: &Task, failure: &Failure) {
        if matches!(task, Task::Run { .. }) {
            // An agent that is gone removes it when it comes back, or shows that it never ran.
            let _ = self.client.remove(&format!("{}?force=true", path(&self.sandbox.id)));
            return;
        }
        let end = End { at: now(), exit_code: failure.exit_status(), error: failure.message() };
        let _ = self.directory.put_life(&Life { end: Some(end), ..self.life.clone() });
        patiently(Instant::now(), || self.let_go());
    }

    /// Detaches the sandbox; what it was attached to is what it will be attached to when it starts again.
    fn detach(&self) {
        let begun = Instant::now();
        patiently(begun, || self.remember());
        patiently(begun, || self.let_go());
    }

    fn remember(&self) -> Outcome {
        let sandbox: Sandbox = self.client.read(&path(&self.sandbox.id))?;
        let networks = remembered(&self.command.networks, &sandbox);
        if networks != self.command.networks {
            // Of a medium that takes no more the networks of before are what is left.
            let _ = self.directory.put_command(&Command { networks, ..self.command.clone() });
        }
        Ok(())
    }

    fn let_go(&self) -> Outcome {
        let sandbox: Sandbox = self.client.read(&path(&self.sandbox.id))?;
        for network in sandbox.networks.values() {
            let request = Disconnect { container: sandbox.id.clone(), force: true };
            let outcome = self
                .client
                .order(&format!("/networks/{}/disconnect", segment(&network.network_id)), &request);
            // It may have been disconnected, or its network removed, in this moment.
            if let Err(failure @ Failure::Unreachable { .. }) = outcome {
                return Err(failure);
            }
        }
        Ok(())
    }
}

/// Why a command is not ours to watch over.
fn claimed(sandbox: &Sandbox, fault: io::Error) -> Failure {
    if fault.kind() == io::ErrorKind::WouldBlock {
        return Failure::Refused {
            status: 409,
            message: format!("the command of {} is being started", sandbox.name),
        };
    }
    let fault = anyhow::Error::from(fault).context(format!("write in {}", sandbox.directory));
    Failure::Failed(fault)
}

/// Does something that needs the agent, again while it does not answer.
fn patiently(begun: Instant, mut act: impl FnMut() -> Outcome) {
    while let Err(Failure::Unreachable { .. }) = act() {
        if begun.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(RETRY);
    }
}

/// The networks a sandbox is attached to, with the wishes of before.
fn remembered(wishes: &[Attachment], sandbox: &Sandbox) -> Vec<Attachment> {
    let is = |wish: &Attachment, name: &str, id: &str| wish.network == name || id.starts_with(&wish.network);
    let (mut kept, mut names) = (Vec::new(), sandbox.networks.clone());
    for wish in wishes {
        let found =
            names.iter().find(|(name, end)| is(wish, name, &end.network_id)).map(|(name, _)| name.clone());
        if let Some(name) = found {
            names.remove(&name);
            kept.push(wish.clone());
        }
    }
    kept.extend(names.into_keys().map(|network| Attachment { network, ..Attachment::default() }));
    kept
}

fn attach(sandbox: &str, wish: &Attachment, client: &Client) -> Outcome<Connected> {
    let request = Connect { container: sandbox.to_owned(), endpoint_config: wish.endpoint_config.clone() };
    client.change(&format!("/networks/{}/connect", segment(&wish.network)), &request)
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_control::api::SandboxEndpoint;

    use super::*;

    #[test]
    fn a_sandbox_comes_back_to_the_networks_it_was_last_in() {
        let end = |id: &str| SandboxEndpoint { network_id: id.into(), ..SandboxEndpoint::default() };
        let wish = |network: &str, alias: &str| {
            let mut wish = Attachment { network: network.into(), ..Attachment::default() };
            wish.endpoint_config.aliases = vec![alias.into()];
            wish
        };
        let wishes = [wish("front", "a"), wish("gone", "b"), wish("77ab", "c")];
        let networks = [("back", "aa01"), ("front", "bb02"), ("third", "77abcd")];
        let networks: BTreeMap<_, _> = networks.map(|(name, id)| (name.to_owned(), end(id))).into();
        let kept = remembered(&wishes, &Sandbox { networks, ..Sandbox::default() });
        let names: Vec<_> = kept.iter().map(|wish| wish.network.as_str()).collect();
        assert_eq!(names, ["front", "77ab", "back"]);
        assert_eq!(kept[0].endpoint_config.aliases, ["a"], "with the wishes of before");
    }
}
