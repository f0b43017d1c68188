//! How a verb ends other than well, and the exit status that tells scripts which way.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use weft_control::api::ErrorMessage;

use crate::format::FormatError;
use crate::output::{Screen, escape};

/// A verb's outcome.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What shells report of tools that SIGPIPE ends (128 + 13).
const BROKEN_PIPE: u8 = 141;

/// What Docker's client reports of a format that is no template (`EX_USAGE`, sysexits.h).
const NO_TEMPLATE: u8 = 64;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The agent refused or failed; its text is shown as it is, since it begins with Docker's words.
    Refused {
        /// HTTP status of the answer.
        status: u16,
        /// The agent's words.
        message: String,
    },
    /// No agent answers at the socket.
    Unreachable {
        /// Where we looked.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// This program could not do its part.
    Failed(anyhow::Error),
    /// The command line contradicts itself in a way the argument parser cannot see.
    Usage(String),
    /// `--format` is no template (64, as Docker's), or asks for what the data has not.
    Format(FormatError),
    /// A command could not be started.
    NotStarted {
        /// Which, and why.
        message: String,
        /// 126 or 127, as shells report it.
        status: u8,
    },
    /// A command that was run ended so, or errors were shown already.
    Exit(u8),
}

impl Failure {
    /// An answer with an error status: the message in its body, or the body itself.
    pub(crate) fn refused(status: u16, body: &[u8]) -> Self {
        let message = serde_json::from_slice::<ErrorMessage>(body).map_or_else(
            |_| format!("status {status}: {}", String::from_utf8_lossy(body).trim()),
            |e| e.message,
        );
        Self::Refused { status, message }
    }

    /// Whether the agent said that the thing does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The message for a person, without colour; empty where there is nothing to say.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Refused { message, .. } => message.clone(),
            Self::Failed(error) => format!("weft: {error:#}"),
            Self::Format(fault) => fault.to_string(),
            Self::Usage(message) | Self::NotStarted { message, .. } => format!("weft: {message}"),
            Self::Exit(_) => String::new(),
            Self::Unreachable { socket, source } => format!(
                "weft: no agent answers at {}: {source}\n{}",
                socket.display(),
                match source.kind() {
                    io::ErrorKind::PermissionDenied => "Run this as root, or join the group of the socket.",
                    _ =>
                        "Start one with 'weft agent' (as root), or name another agent's socket with --socket PATH \
                         or WEFT_SOCKET.",
                }
            ),
        }
    }

    /// Shows the message and picks the exit status.
    pub(crate) fn report(&self, screen: &mut Screen) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::from(BROKEN_PIPE);
        }
        for line in self.message().lines() {
            screen.complain(&escape(line));
        }
        ExitCode::from(self.exit_status())
    }

    /// 1 failed, 2 wrong usage, 3 no agent, or the status of the command that was run.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Failed(_) => 1,
            Self::Format(FormatError::Parse(_)) => NO_TEMPLATE,
            Self::Format(FormatError::Run(_)) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Exit(status) | Self::NotStarted { status, .. } => *status,
        }
    }

    /// The reader of our output went away (`weft … | head`): no fault of anyone.
    fn is_broken_pipe(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<FormatError> for Failure {
    fn from(fault: FormatError) -> Self {
        Self::Format(fault)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}
