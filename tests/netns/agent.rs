//! An agent as a child process.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::wait::eventually;

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    /// Starts `command` inside `namespace`, its words appended to `log`.
    pub(crate) fn start(namespace: &Namespace, command: &mut Command, log: &Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).expect("log opened");
        let again = log.try_clone().expect("log shared");
        Self { child: namespace.spawn(command.stdin(Stdio::null()).stdout(log).stderr(again)) }
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the agent has ended.
    pub(crate) fn still_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => panic!("the agent ended: {status}"),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The exit code once the agent has ended, within it `None` when a signal ended it.
    pub(crate) fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("waiting for the agent").map(|status| status.code())
    }

    /// Sends `signal`.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signal sent");
    }

    /// Asks for the end by SIGTERM and waits for it; gives the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        eventually("the agent ends on SIGTERM", || self.ended().ok_or_else(|| "it runs on".to_owned()))
    }

    /// Ends the agent by SIGKILL.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
