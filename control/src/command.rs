//! The command of a sandbox: what was asked for, and what became of it.
//!
//! The agent starts no command. Whoever does (`weft run`) watches over it as its supervisor and writes down what
//! happens, in files that the agent reads: they say the same whichever of the two ends first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::EndpointConfig;
use crate::sandbox::Owner;
use crate::timestamp::UnixMillis;

/// Network mode of a command in no network.
pub const NONE: &str = "none";
/// Network mode of a command in the host's own.
pub const HOST: &str = "host";
/// Network mode of a command in another sandbox's: before that one's name or id.
pub const SHARED: &str = "container:";
/// Exit status of what was killed (128 + 9), as shells report it.
const KILLED: u8 = 137;
/// Docker's way of writing a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What to run in a sandbox, and how the sandbox is attached whenever it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Command {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Variables on top of those of whoever starts it, as `KEY=VALUE`.
    pub env: Vec<String>,
    /// Directory to start in; empty for that of whoever starts it.
    pub working_dir: String,
    /// Host name in the sandbox; empty for the first 12 digits of its id.
    pub hostname: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// `none`, `host`, `container:ID`, or the first network.
    pub network_mode: String,
    /// Whether the sandbox goes when the command ends.
    pub auto_remove: bool,
    /// Whether its output goes to the log instead of the terminal.
    pub detached: bool,
    /// Whether its input stays open.
    pub open_stdin: bool,
    /// Whether it is a virtual machine, which gets descriptors of TAPs instead of a network namespace.
    pub tap: bool,
    /// Networks to attach the sandbox to.
    pub networks: Vec<Attachment>,
}

impl Command {
    /// Whether it lives in the host's network.
    #[must_use]
    pub fn is_of_host(&self) -> bool {
        self.network_mode == HOST
    }

    /// Whether it lives in the network of another sandbox or of the host.
    #[must_use]
    pub fn shares_network(&self) -> bool {
        self.is_of_host() || self.network_mode.starts_with(SHARED)
    }

    /// Whether it lives in no network.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.network_mode == NONE
    }
}

/// A network that a sandbox is attached to whenever its command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Attachment {
    /// Name or id.
    pub network: String,
    /// Wishes for the endpoint.
    pub endpoint_config: EndpointConfig,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Life {
    /// The process that watches over it; when it is gone, so is the command.
    pub supervisor: Owner,
    /// The command, once it runs.
    pub process: Option<Owner>,
    /// When it began to run; 0 for never.
    pub started: UnixMillis,
    /// When and how it ended.
    pub end: Option<End>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct End {
    /// When.
    pub at: UnixMillis,
    /// Its status, or 128 + n for signal n.
    pub exit_code: u8,
    /// Why it did not start, or empty.
    pub error: String,
}

/// State of a sandbox as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// `created`, `running` or `exited`.
    pub status: String,
    /// Whether it can be entered.
    pub running: bool,
    /// The command's process, or 0.
    pub pid: u32,
    /// How the command ended last.
    pub exit_code: u8,
    /// Why the command did not start or was lost, or empty.
    pub error: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC.
    pub finished_at: String,
}

impl State {
    /// A sandbox without a command: there to be entered for as long as it exists.
    #[must_use]
    pub fn standing(created: UnixMillis) -> Self {
        Self { status: "running".into(), running: true, started_at: created.to_string(), ..Self::never() }
    }

    fn never() -> Self {
        Self { started_at: NEVER.into(), finished_at: NEVER.into(), ..Self::default() }
    }
}

impl Life {
    /// A life that begins.
    #[must_use]
    pub fn under(supervisor: Owner) -> Self {
        Self { supervisor, process: None, started: UnixMillis::default(), end: None }
    }

    /// Whether the command has ended, given whether its supervisor runs.
    #[must_use]
    pub fn has_ended(&self, supervised: bool) -> bool {
        self.end.is_some() || !supervised
    }

    /// The state to show, given whether the supervisor runs.
    #[must_use]
    pub fn state(&self, supervised: bool) -> State {
        let mut state = State::never();
        if self.process.is_some() {
            state.started_at = self.started.to_string();
        }
        match (&self.end, self.process) {
            (Some(end), _) => {
                let finished_at = end.at.to_string();
                let error = end.error.clone();
                State { status: "exited".into(), exit_code: end.exit_code, error, finished_at, ..state }
            }
            (None, Some(process)) if supervised => {
                State { status: "running".into(), running: true, pid: process.pid, ..state }
            }
            (None, None) if supervised => State { status: "created".into(), ..state },
            (None, _) => {
                let error = "the process that watched over the command was killed".into();
                State { status: "exited".into(), exit_code: KILLED, error, ..state }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPERVISOR: Owner = Owner { pid: 7, started: 1 };
    const PROCESS: Owner = Owner { pid: 8, started: 2 };

    #[test]
    fn a_command_runs_only_while_somebody_watches_over_it() {
        let mut life = Life::under(SUPERVISOR);
        assert_eq!(life.state(true).status, "created");
        assert_eq!((life.state(false).status.as_str(), life.has_ended(false)), ("exited", true));
        life.process = Some(PROCESS);
        let running = life.state(true);
        assert_eq!((running.status.as_str(), running.running, running.pid), ("running", true, 8));
        assert!(!life.has_ended(true));
        let lost = life.state(false);
        assert_eq!((lost.status.as_str(), lost.running, lost.exit_code), ("exited", false, 137));
        assert!(lost.error.contains("killed"), "{}", lost.error);
    }

    #[test]
    fn an_end_that_was_written_down_stays_what_it_was() {
        let end = Some(End { at: UnixMillis(1_000), exit_code: 3, error: String::new() });
        let life = Life { process: Some(PROCESS), end, ..Life::under(SUPERVISOR) };
        for supervised in [true, false] {
            let state = life.state(supervised);
            assert_eq!((state.status.as_str(), state.exit_code, state.pid), ("exited", 3, 0));
            assert_eq!(state.finished_at, "1970-01-01T00:00:01.000000000Z");
            assert!(life.has_ended(supervised));
        }
    }
}
