//! The binary as a user calls it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The binary under test.
pub(crate) const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// The binary with no setting from outside.
pub(crate) fn weft() -> Command {
    let mut command = Command::new(WEFT);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEFT_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).env("RUST_BACKTRACE", "1");
    command
}

/// The binary talking to the agent at `socket`.
pub(crate) fn at(socket: &Path) -> Command {
    let mut command = weft();
    command.arg("--socket").arg(socket);
    command
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `command` to its end.
pub(crate) fn answer(command: &mut Command) -> Answer {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")).into()
}

/// Runs `command`, which must succeed, and gives its standard output.
pub(crate) fn success(command: &mut Command) -> String {
    let answer = answer(command);
    assert_eq!(answer.code, 0, "{command:?}: {answer:?}");
    answer.stdout
}
