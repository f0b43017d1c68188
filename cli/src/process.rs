//! Runs a command in a network namespace: its signals are ours, its exit status is ours, and it dies with us.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::args::KeyValue;
use crate::failure::{Failure, Outcome};
use crate::supervise::log::Capture;
use crate::surroundings::Surroundings;
use crate::sys::{self, Birth};

/// Signals that are passed on to the command.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];
/// `si_code` of a signal the kernel made, as a terminal's Ctrl-C (`SI_KERNEL`, asm-generic/siginfo.h).
const FROM_KERNEL: i32 = 0x80;
/// The end of the command is seen by `SIGCHLD`; should that go to a thread that discards it, by looking again.
const LOOK_AGAIN: u16 = 200;
/// Most rounds of killing what a command left behind.
const MOST_ROUNDS: u32 = 1_000;
/// Between two of them, where something takes its time to end.
const LOOK_FOR_OTHERS: Duration = Duration::from_millis(5);
/// Number of the first descriptor that a command gets beside its three streams.
pub(crate) const FIRST_DESCRIPTOR: i32 = 3;
/// A command that was not found, as shells report it.
const NOT_FOUND: u8 = 127;
/// A command that can't be executed, as shells report it.
const NOT_EXECUTABLE: u8 = 126;

/// A command to run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Program and arguments; never empty.
    pub(crate) command: &'a [OsString],
    /// Variables on top of our own.
    pub(crate) env: &'a [KeyValue],
    /// Where to start, if elsewhere.
    pub(crate) directory: Option<&'a Path>,
    /// What it finds around it; nothing where it is to find what we do.
    pub(crate) surroundings: Option<&'a Surroundings>,
    /// Its input and output.
    pub(crate) streams: Streams,
    /// What it has as descriptor 3 and after.
    pub(crate) descriptors: &'a [OwnedFd],
}

/// Where a command's input comes from and its output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Ours.
    Inherited,
    /// Output to pipes; input from nothing, or from a pipe that nobody writes to.
    Captured {
        /// Whether the input stays open.
        open_stdin: bool,
    },
}

/// What to care for while a command runs.
#[derive(Debug, Default)]
pub(crate) struct Care<'a> {
    /// Its output.
    pub(crate) capture: Option<&'a mut Capture>,
    /// Whether to let go of processes that it has left to us (`PR_SET_CHILD_SUBREAPER`) as they end.
    pub(crate) reaps: bool,
}

impl<'a> Job<'a> {
    /// A command with our streams, in our directory, without more variables.
    pub(crate) fn new(command: &'a [OsString]) -> Self {
        let (env, descriptors) = (&[], &[]);
        Self { command, env, directory: None, surroundings: None, streams: Streams::Inherited, descriptors }
    }
}

/// Signals held back for as long as this lives, so that none gets lost while a command is prepared.
///
/// Make it while the process has one thread: threads made later inherit the mask.
pub(crate) struct Signals {
    source: SignalFd,
    previous: SigSet,
}

impl Signals {
    /// Holds back what [`Job`]s are to get, and the end of children.
    pub(crate) fn hold() -> io::Result<Self> {
        let mut held: SigSet = FORWARDED.into_iter().collect();
        held.add(Signal::SIGCHLD);
        let mut previous = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut previous))?;
        // Somebody else in this process may read the signal that was announced to us.
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { source: SignalFd::with_flags(&held, flags)?, previous })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Fails only for a wrong argument.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.previous), None);
    }
}

/// Runs a command in a namespace and waits for it; the calling thread is back in its own network namespace afterwards.
///
/// # Errors
/// [`Failure::Exit`] with the command's status (128 + n for signal n) where that is not zero.
pub(crate) fn run_in(namespace: OwnedFd, job: &Job<'_>, signals: &Signals) -> Outcome {
    let mut child = start_in(namespace, job, signals)?;
    match exit_status(wait(&mut child, signals, Care::default())?) {
        0 => Ok(()),
        status => Err(Failure::Exit(status)),
    }
}

/// Starts a command in our own network namespace.
pub(crate) fn start(job: &Job<'_>, signals: &Signals) -> Outcome<Child> {
    spawn(job, signals)
}

/// Starts a command in a namespace; the calling thread is back in its own network namespace afterwards.
pub(crate) fn start_in(namespace: OwnedFd, job: &Job<'_>, signals: &Signals) -> Outcome<Child> {
    let home = File::open("/proc/thread-self/ns/net").context("open our own network namespace")?;
    job.surroundings.map(Surroundings::enter).transpose()?;
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context("enter the sandbox (this needs root)")?;
    drop(namespace);
    let child = spawn(job, signals);
    // Back at once: only the child holds the sandbox's namespace, so that it ends with its command.
    setns(home.as_fd(), CloneFlags::CLONE_NEWNET).context("leave the sandbox")?;
    child
}

fn spawn(job: &Job<'_>, signals: &Signals) -> Outcome<Child> {
    let Some((program, arguments)) = job.command.split_first() else {
        return Err(Failure::Usage("no command given".to_owned()));
    };
    if let Some(directory) = job.directory.filter(|directory| !directory.is_dir()) {
        let message = format!("cannot start in {}: there is no such directory", directory.display());
        return Err(Failure::NotStarted { message, status: NOT_EXECUTABLE });
    }
    let mut command = Command::new(program);
    if let Some(directory) = job.directory {
        command.current_dir(directory);
    }
    if let Streams::Captured { open_stdin } = job.streams {
        command.stdin(if open_stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    command.args(arguments).envs(job.env.iter().map(|pair| (&pair.key, &pair.value)));
    let (descriptors, _seats) = seat(job.descriptors).context("pass descriptors on to the command")?;
    let birth = Birth { parent: Pid::this(), mask: signals.previous, namespace: None, descriptors };
    sys::prepare(&mut command, birth);
    command.spawn().map_err(|error| Failure::NotStarted {
        message: format!("cannot run {}: {error}", program.display()),
        status: if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE },
    })
}

/// Copies of descriptors with numbers behind those that they are to have, and whatever keeps these numbers from being
/// given to somebody else until the command is started: the pipe by which `spawn` hears of a failure, above all.
fn seat(descriptors: &[OwnedFd]) -> io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let behind = FIRST_DESCRIPTOR + i32::try_from(descriptors.len()).unwrap_or(i32::MAX / 2);
    let mut seats = Vec::new();
    while !descriptors.is_empty() && seats.last().is_none_or(|last: &OwnedFd| last.as_raw_fd() < behind) {
        seats.push(OwnedFd::from(File::open("/dev/null")?));
    }
    // The kernel gives the lowest number that is free.
    let copies = descriptors.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
    Ok((copies, seats))
}

/// Waits for the end of the command, passing signals on to it and its output to where that goes.
pub(crate) fn wait(child: &mut Child, signals: &Signals, mut care: Care<'_>) -> Outcome<ExitStatus> {
    // Held open here, since `try_wait` would leave it and `wait` would close it.
    let _input = child.stdin.take();
    loop {
        if care.reaps {
            reap_others(child);
        }
        if let Some(status) = child.try_wait().context("wait for the command")? {
            return Ok(status);
        }
        let signalled = is_signalled(signals, care.capture.as_deref())?;
        if let Some(capture) = &mut care.capture {
            capture.take();
        }
        if !signalled {
            continue;
        }
        let Some(signal) = signals.source.read_signal().context("read a signal")? else { continue };
        // A terminal signals its whole foreground group, the command included; passing such a signal on would
        // deliver it twice.
        if signal.ssi_code != FROM_KERNEL {
            forward(child, i32::try_from(signal.ssi_signo).unwrap_or(0));
        }
    }
}

/// Waits for a signal, for output or for some time.
fn is_signalled(signals: &Signals, capture: Option<&Capture>) -> Outcome<bool> {
    let mut ready = vec![PollFd::new(signals.source.as_fd(), PollFlags::POLLIN)];
    let pipes = capture.into_iter().flat_map(Capture::pipes);
    ready.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
    match poll(&mut ready, LOOK_AGAIN) {
        Ok(0) | Err(Errno::EINTR) => return Ok(false),
        other => other.context("wait for a signal")?,
    };
    Ok(ready.first().and_then(PollFd::any).unwrap_or(false))
}

/// Lets go of children that have ended, but for the command.
fn reap_others(child: &Child) {
    let looking = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(ended) = waitid(Id::All, looking) {
        // The command's own end is for whoever waits for it.
        let Some(other) = ended.pid().filter(|pid| pid.as_raw().unsigned_abs() != child.id()) else { return };
        let _ = waitpid(other, Some(WaitPidFlag::WNOHANG));
    }
}

/// Kills processes that a command has left to us, and theirs, until none is left; the command itself has ended.
pub(crate) fn end_others() {
    for _ in 0..MOST_ROUNDS {
        for child in children() {
            // It may have ended by itself.
            let _ = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(_) => return,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(LOOK_FOR_OTHERS),
            Ok(_) => {}
        }
    }
}

/// Our children (`man 5 proc_pid_task_tid_children`).
fn children() -> Vec<Pid> {
    let us = Pid::this();
    let listed = std::fs::read_to_string(format!("/proc/{us}/task/{us}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

fn forward(child: &Child, number: i32) {
    let (Ok(pid), Ok(signal)) = (i32::try_from(child.id()), Signal::try_from(number)) else { return };
    if signal == Signal::SIGCHLD {
        return;
    }
    // The command may be gone already; its end is reported by SIGCHLD.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// The command's own status, or 128 + n where signal n ended it, as shells report it.
pub(crate) fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, env: &[KeyValue]) -> Outcome {
        let command = ["sh", "-c", script].map(OsString::from);
        let signals = Signals::hold()?;
        let mut child = spawn(&Job { env, ..Job::new(&command) }, &signals)?;
        match exit_status(wait(&mut child, &signals, Care::default())?) {
            0 => Ok(()),
            status => Err(Failure::Exit(status)),
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_command() {
        assert!(run("exit 0", &[]).is_ok());
        assert_eq!(run("exit 42", &[]).expect_err("42").exit_status(), 42);
        assert_eq!(run("kill -9 $$", &[]).expect_err("killed").exit_status(), 128 + 9);
    }

    #[test]
    fn the_command_gets_the_variables() {
        let env = ["WEFT_TEST_PORT=80".parse().expect("pair")];
        assert!(run("test \"$WEFT_TEST_PORT\" = 80", &env).is_ok());
    }

    #[test]
    fn the_command_starts_with_our_own_signal_mask() {
        assert_eq!(run("kill -TERM $$; exit 7", &[]).expect_err("ended by TERM").exit_status(), 128 + 15);
    }

    #[test]
    fn a_command_that_cannot_start_says_so_as_shells_do() {
        let signals = Signals::hold().expect("signals");
        let job = |program: &str| {
            let command = [OsString::from(program)];
            spawn(&Job::new(&command), &signals).expect_err("no such program").exit_status()
        };
        assert_eq!(job("/nonexistent/program"), 127);
        assert_eq!(job("/etc"), 126);
    }
}
