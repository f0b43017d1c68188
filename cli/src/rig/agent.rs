//! Agents of a rig: real ones, child processes of this one.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_control::api::Status;

use super::{Host, Rig};
use crate::client::Client;
use crate::sys::{self, Birth};

/// How long an agent may take to answer.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Lines of its log that are shown where it fails.
const LOG_TAIL: usize = 20;

/// A running agent.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    log: PathBuf,
}

impl AgentProcess {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub(super) fn ask_to_stop(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Waits for its end, and makes it end where it does not.
    pub(super) fn wait_for_end(&mut self) {
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Sends SIGKILL and waits for the end.
    fn kill(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// # Errors
    /// It has ended, with the end of its log.
    fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().context("look after an agent")? {
            None => Ok(()),
            Some(status) => bail!("an agent ended ({status}); its last words:\n{}", last_words(&self.log)),
        }
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}

impl Rig {
    /// Makes a host a member: the first one makes the cluster, the others join it by the first one's token, for which
    /// an agent must run. Tells how long that took.
    ///
    /// # Errors
    /// What `weft init` or `weft join` say.
    pub fn admit(&mut self, index: usize) -> Result<Duration> {
        let start = Instant::now();
        let host = &self.hosts[index];
        if host.member {
            return Ok(Duration::ZERO);
        }
        let verb = if index == 0 { "init" } else { "join" };
        let mut command = self.command(host, verb)?;
        command.arg("--token-file").arg(self.token_file()).args(["--name", &host.name]);
        command.args(["--advertise", &host.address.to_string()]);
        let status = command.status().with_context(|| format!("start {}", self.program.display()))?;
        if !status.success() {
            bail!("'weft {verb}' ended on host {} ({status}):\n{}", host.name, last_words(&log_file(host)));
        }
        self.hosts[index].member = true;
        Ok(start.elapsed())
    }

    /// Starts a host's agent and waits until it answers; tells how long that took. A host that is no member becomes
    /// one first.
    ///
    /// # Errors
    /// It ends, or does not answer within 15 s.
    pub fn start_agent(&mut self, index: usize) -> Result<Duration> {
        self.admit(index)?;
        let start = Instant::now();
        let agent = self.spawn_agent(index)?;
        self.hosts[index].agent = Some(agent);
        let Self { hosts, interrupt, .. } = self;
        let host = &mut hosts[index];
        let answered = interrupt.until(START_LIMIT, || {
            host.agent.as_mut().map_or(Ok(()), AgentProcess::check_alive)?;
            Ok(status(host).ok())
        })?;
        match answered {
            Some(_) => Ok(start.elapsed()),
            None => {
                bail!("agent {} does not answer; its last words:\n{}", host.name, last_words(&log_file(host)))
            }
        }
    }

    /// Starts all agents and waits until each counts all the others; tells how long the latter took.
    ///
    /// # Errors
    /// One ends, or they do not find each other within 15 s.
    pub fn start_all(&mut self) -> Result<Duration> {
        for index in 0..self.hosts.len() {
            self.start_agent(index)?;
        }
        self.await_members(self.hosts.len())
    }

    /// Waits until every running agent counts so many members alive; tells how long that took.
    ///
    /// # Errors
    /// They do not within 15 s.
    pub fn await_members(&self, count: usize) -> Result<Duration> {
        let start = Instant::now();
        let met = self.interrupt.until(START_LIMIT, || {
            let counts = |host: &Host| status(host).is_ok_and(|status| status.members_alive == count);
            Ok(self.hosts.iter().filter(|host| host.agent.is_some()).all(counts).then_some(()))
        })?;
        met.map(|()| start.elapsed()).context("the agents do not find each other")
    }

    /// Ends a host's agent at once, as a crash does.
    pub fn kill_agent(&mut self, index: usize) {
        if let Some(mut agent) = self.hosts[index].agent.take() {
            agent.kill();
        }
    }

    fn spawn_agent(&self, index: usize) -> Result<AgentProcess> {
        let host = &self.hosts[index];
        let mut command = self.command(host, "agent")?;
        command.arg("--teardown-on-stop").arg("--run-dir").arg(host.run_dir());
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        Ok(AgentProcess { child, log: log_file(host) })
    }

    /// A verb that works on a host's state, in its namespace, with its log as output.
    fn command(&self, host: &Host, verb: &str) -> Result<Command> {
        let log = log_file(host);
        let output = File::options().create(true).append(true).open(&log).context("open an agent's log")?;
        let mut command = Command::new(&self.program);
        command.arg(verb).arg("--state-dir").arg(host.state_dir());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
            command.env_remove(name);
        }
        // A group of its own: Ctrl-C is for us to handle.
        command.process_group(0).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let namespace = Some(host.namespace.try_clone()?);
        sys::prepare(
            &mut command,
            Birth {
                parent: Pid::this(),
                mask: self.interrupt.mask_before(),
                namespace,
                descriptors: Vec::new(),
            },
        );
        Ok(command)
    }
}

impl Host {
    pub(super) fn client(&self) -> Result<Client> {
        Client::new(&self.socket()).map_err(|failure| anyhow::anyhow!(failure.message()))
    }
}

/// A host's agent at a glance.
fn status(host: &Host) -> Result<Status> {
    host.client()?.read("/status").map_err(|failure| anyhow::anyhow!(failure.message()))
}

fn log_file(host: &Host) -> PathBuf {
    host.directory.join("agent.log")
}
