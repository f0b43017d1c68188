//! Network namespaces without names: they are gone when the test process and all in them are.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Output};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace kept by a descriptor of this process.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes an empty namespace with its loopback up.
    pub(crate) fn create() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the thread's namespace")
        })
        .join()
        .expect("thread ran");
        let namespace = Self { file };
        namespace.run("ip link set lo up");
        namespace
    }

    /// Opens the namespace at `path`.
    pub(crate) fn open(path: &Path) -> Self {
        Self { file: File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) }
    }

    /// A path that leads to this namespace as long as it is kept.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Does `work` on a thread inside: sockets it opens and processes it starts belong here.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `command` inside.
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        self.enter(|| command.spawn()).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs `command` inside to its end.
    pub(crate) fn output(&self, command: &mut Command) -> Output {
        self.enter(|| command.output()).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs a command line (words split at blanks) inside, asserts its success, gives its output.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.output(&mut words(line));
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether a command line succeeds inside; its output is dropped.
    pub(crate) fn succeeds(&self, line: &str) -> bool {
        self.output(&mut words(line)).status.success()
    }
}

/// The command a line of words stands for.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}
