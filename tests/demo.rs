//! `weft demo` as a newcomer runs it: to its end, interrupted, kept, and without the right to.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

const WEFT: &str = env!("CARGO_BIN_EXE_weft");
/// A user without rights.
const NOBODY: u32 = 65_534;

#[test]
fn a_kept_demo_shows_everything_answers_until_interrupted_and_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let _stage = stage();
    let mut demo = Demo::start(&["--hosts", "3", "--keep"]);
    let shown = demo.read_until("Ctrl-C here ends all of it.");
    for part in [
        "host c  192.0.2.3  weft join TOKEN joins it in",
        "each knows all the others",
        "$ weft network create -d overlay --ipv6 blue",
        "box-c   box-b",
        "TCP, one stream",
        "UDP, 64 bytes",
        "round trip, median",
        "killed: box-c is still there, but answers nobody",
        "host a calls c dead after",
        "box-c answers again",
    ] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }
    assert!(!shown.contains('\x1b'), "no colours where no terminal is:\n{shown}");

    let socket = demo.directory().join("a/run/weft.sock");
    assert!(shown.contains(&format!("export WEFT_SOCKET={}", socket.display())), "{shown}");
    let peers = Command::new(WEFT).arg("--socket").arg(&socket).arg("peers").output().expect("ran");
    assert_eq!(String::from_utf8_lossy(&peers.stdout).matches("alive").count(), 3, "{peers:?}");

    let (status, rest) = demo.interrupt(Signal::SIGINT);
    assert_eq!(status, Some(0), "{rest}");
    assert!(rest.contains("nothing left behind"), "{rest}");
}

#[test]
fn a_demo_that_is_interrupted_anywhere_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let _stage = stage();
    for (part, signal) in [
        ("weft: 2 hosts", Signal::SIGINT),
        ("host b", Signal::SIGTERM),
        ("sandbox box-a", Signal::SIGHUP),
        ("Traffic from host a", Signal::SIGINT),
    ] {
        let mut demo = Demo::start(&["--hosts", "2"]);
        demo.read_until(part);
        let (status, rest) = demo.interrupt(signal);
        assert_eq!(status, Some(130), "{signal} after {part:?}: {rest}");
    }
}

#[test]
fn what_a_killed_demo_left_is_removed_by_the_next() {
    if !privileged() {
        return;
    }
    let _stage = stage();
    let mut killed = Demo::start(&["--hosts", "2"]);
    killed.read_until("sandbox box-a");
    killed.child.kill().expect("killed");
    killed.child.wait().expect("ended");
    assert!(killed.directory().exists(), "a killed demo can't clean up");
    let mut next = Demo::start(&["--hosts", "2"]);
    next.read_until("host a");
    assert!(!killed.directory().exists(), "the next one did");
    next.interrupt(Signal::SIGINT);
}

#[test]
fn without_root_the_demo_says_what_to_do() {
    if !privileged() {
        return;
    }
    // Where an ordinary user may reach it.
    let directory = tempfile::tempdir().expect("directory");
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("opened");
    let program = directory.path().join("weft");
    fs::copy(WEFT, &program).expect("copied");
    let output = Command::new(program).arg("demo").uid(NOBODY).gid(NOBODY).output().expect("ran");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("needs root") && words.contains("sudo"), "{words}");
}

/// Demos play one after the other: each measures, and all would starve each other.
static STAGE: Mutex<()> = Mutex::new(());

/// A running demo; whatever happens to the test, it ends.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(WEFT)
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    fn directory(&self) -> PathBuf {
        format!("/run/weft-demo-{}", self.child.id()).into()
    }

    /// Everything said up to and with the line that contains this.
    fn read_until(&mut self, part: &str) -> String {
        let mut said = String::new();
        while !said.lines().last().is_some_and(|line| line.contains(part)) {
            let count = self.output.read_line(&mut said).expect("UTF-8");
            assert!(count > 0, "the demo ended before it said {part:?}:\n{said}");
        }
        said
    }

    /// Ends it by a signal: its exit status, and what it still said. Nothing of it may be left.
    fn interrupt(&mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signal sent");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("UTF-8");
        let status = self.child.wait().expect("ended").code();
        self.assert_gone();
        (status, rest)
    }

    fn assert_gone(&self) {
        let directory = self.directory();
        assert!(!directory.exists(), "{} is left", directory.display());
        let name = directory.display().to_string();
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        assert!(!mounts.contains(&name), "pins are left:\n{mounts}");
        assert_eq!(processes_that_mention(&name), Vec::<String>::new(), "agents are left");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        for _ in 0..600 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
    }
}

fn stage() -> MutexGuard<'static, ()> {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn processes_that_mention(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

/// Whether a test may run; without root it fails, unless the caller asked for skipping.
fn privileged() -> bool {
    if Uid::effective().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("WEFT_ALLOW_SKIP").is_some_and(|v| v == "1"),
        "needs root; WEFT_ALLOW_SKIP=1 skips"
    );
    let _ = std::io::stderr().write_all(b"skipped without root: a test of the demo\n");
    false
}
