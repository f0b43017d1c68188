//! A Docker engine of its own on a host of the rig: the real one, in the host's network namespace and a mount namespace
//! of its own, which the agent shares.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::docker_relay::Relay;
use crate::rig::Host;
use crate::wait::{eventually, until};
use crate::weft::{self, Answer};

/// The image every engine has: this machine's busybox.
pub(crate) const IMAGE: &str = "bb:1";

/// Where engines look for plugins.
const PLUGINS: &str = "/run/docker/plugins";
/// Where they do not.
const BEHIND: &str = "/run/docker/behind";

/// What the engine needs for itself, below the directory `$1`, for as long as standard input is open.
const SETTING: &str = "
for own in /run/docker /run/containerd; do mkdir -p $own; mount -t tmpfs own $own; done
mkdir -p /etc/docker /run/docker/plugins
mount --bind $1/etc /etc/docker
touch $1/set; exec cat";

/// A running engine; with everything it started it ends when dropped.
pub(crate) struct Engine<'h> {
    pub(crate) host: &'h Host,
    dir: PathBuf,
    /// Where the agent serves its plugin's socket.
    plugins: &'static str,
    /// Keeps the mount namespace.
    keeper: Child,
    daemon: Option<Child>,
}

impl<'h> Engine<'h> {
    /// Starts an engine on the host, with the image, and waits until it answers.
    pub(crate) fn start(host: &'h Host) -> Self {
        let dir = host.dir.join("docker");
        for part in ["etc", "lib"] {
            std::fs::create_dir_all(dir.join(part)).expect("the engine's directory");
        }
        let mut setting = Command::new("unshare");
        setting.args(["-m", "--propagation", "private", "sh", "-c", SETTING, "engine"]).arg(&dir);
        let keeper = host.namespace.spawn(setting.stdin(Stdio::piped()).stdout(Stdio::null()));
        until("the engine's mount namespace is set up", || dir.join("set").exists());
        let mut engine = Self { host, dir, plugins: PLUGINS, keeper, daemon: None };
        engine.launch();
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/compose/busybox.sh");
        weft::success(Command::new(recipe).arg(IMAGE).env("DOCKER_HOST", engine.address()));
        engine
    }

    /// Starts the daemon, or starts it again, and waits until it answers.
    pub(crate) fn launch(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log"));
        let log = log.expect("the engine's log");
        let again = log.try_clone().expect("log shared");
        let dir = self.dir.display();
        let mut command = self.inside("dockerd");
        command.args([
            "--exec-root",
            "/run/docker/x",
            "--ip6tables=false",
            "--userland-proxy=false",
            "--data-root",
        ]);
        command.args([
            format!("{dir}/lib"),
            format!("--pidfile={dir}/pid"),
            format!("--host={}", self.address()),
        ]);
        let command = command.stdin(Stdio::null()).stdout(log).stderr(again);
        self.daemon = Some(self.host.namespace.spawn(command));
        self.wait();
    }

    /// A command in the engine's mount namespace.
    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.id().to_string(), "-m", "--"]).arg(program);
        command
    }

    fn wait(&self) {
        eventually(&format!("the engine on {} answers", self.host.name), || {
            let answer = self.docker("version");
            if answer.code == 0 { Ok(()) } else { Err(format!("{answer:?}\n{}", self.log())) }
        });
    }

    /// What the engine has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The engine's socket.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    /// Starts this host's agent as the engine's plugin, in the engine's mount namespace.
    pub(crate) fn start_agent(&self, flags: &[&str]) {
        self.host.start_command(self.agent_command().args(flags));
    }

    /// Has the agent killed at a point that a call of `docker` leads it to, and then started again as it was. The engine of
    /// 20.10 repeats a call that broke off, but without its body: the command may fail.
    pub(crate) fn kill_agent_at(&self, point: &str, command: &str, flags: &[&str]) {
        self.host.stop();
        self.host.start_command(self.agent_command().args(flags).env("WEFT_KILL_AT", point));
        std::thread::scope(|scope| {
            scope.spawn(|| self.docker(command));
            until(&format!("the agent dies at {point}"), || self.host.ended().is_some());
            self.start_agent(flags);
        });
    }

    fn agent_command(&self) -> Command {
        let agent = self.host.agent_command(self.host.ip4.into());
        let mut command = self.inside(agent.get_program());
        command.args(agent.get_args());
        command.args(["--docker-plugin-dir", self.plugins]);
        for (name, value) in agent.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Path of the plugin's socket, as seen from outside.
    pub(crate) fn plugin(&self) -> PathBuf {
        self.socket_in(PLUGINS)
    }

    fn socket_in(&self, plugins: &str) -> PathBuf {
        format!("/proc/{}/root{plugins}/weft.sock", self.keeper.id()).into()
    }

    /// Puts a relay before the agent that is to be started.
    pub(crate) fn relay(&mut self) -> Relay {
        self.plugins = BEHIND;
        Relay::start(self.socket_in(PLUGINS), self.socket_in(BEHIND))
    }

    /// Process id of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the engine runs").id()
    }

    /// Calls `docker` with a line of words.
    pub(crate) fn docker(&self, line: &str) -> Answer {
        weft::answer(&mut self.command(line))
    }

    /// Calls `docker`, which must succeed; gives its standard output without the line's end.
    pub(crate) fn ok(&self, line: &str) -> String {
        let answer = self.docker(line);
        assert_eq!(answer.code, 0, "docker {line} on {}: {answer:?}", self.host.name);
        answer.stdout.trim_end().to_owned()
    }

    /// Calls `docker`, which must fail; gives its standard error.
    pub(crate) fn refused(&self, line: &str) -> String {
        let answer = self.docker(line);
        assert_ne!(answer.code, 0, "docker {line} on {}: {answer:?}", self.host.name);
        answer.stderr
    }

    /// A call of `docker`, to be completed.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(self.address()).args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    /// Starts a container that sleeps, with more words for `docker run`.
    pub(crate) fn run(&self, name: &str, words: &str) {
        self.ok(&format!("run -d --name {name} {words} {IMAGE} sleep 3600"));
    }

    /// IPv4 address of a container in a network.
    pub(crate) fn address_of(&self, container: &str, network: &str) -> String {
        self.inspect(container, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
    }

    /// What `docker inspect` shows of something by a template.
    pub(crate) fn inspect(&self, what: &str, template: &str) -> String {
        weft::success(self.command("inspect -f").args([template, what])).trim_end().to_owned()
    }

    /// Whether a container reaches an address or name.
    pub(crate) fn reaches(&self, container: &str, to: &str) -> Result<(), String> {
        let answer = self.docker(&format!("exec {container} ping -c 1 -W 1 {to}"));
        if answer.code == 0 { Ok(()) } else { Err(format!("{container} does not reach {to}: {answer:?}")) }
    }

    /// Ends the engine by SIGKILL; its containers run on.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            self.wait_for_containerd();
        }
    }

    /// Waits for the end of what dies with the daemon; another one would take it for alive.
    fn wait_for_containerd(&self) {
        let file = format!("/proc/{}/root/run/docker/x/containerd/containerd.pid", self.keeper.id());
        let pid = std::fs::read_to_string(file).unwrap_or_default();
        let process = PathBuf::from("/proc").join(if pid.is_empty() { "none" } else { pid.trim() });
        let _ = std::iter::repeat_with(|| std::thread::sleep(std::time::Duration::from_millis(10)))
            .take(500)
            .find(|()| !process.exists());
    }

    /// Ends the engine as an operator does, and its containers with it.
    pub(crate) fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        if let Ok(pid) = i32::try_from(daemon.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = daemon.wait();
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            let text = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            let text = format!("--- engine {}\n{text}\n", self.host.name);
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
        // Held open, so that its number is not that of somebody's new container once the last process in it has ended.
        let mine = std::fs::File::open(format!("/proc/{}/ns/mnt", self.keeper.id())).ok();
        self.kill();
        end_all(mine.as_ref().and_then(|mine| mine.metadata().ok()).map(|mine| mine.ino()));
        let _ = self.keeper.wait();
    }
}

/// The mount namespace of a process, which tells whatever the engine started for itself.
fn namespace_of(pid: u32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|namespace| namespace.ino())
}

/// Ends every process in the mount namespace, and those that they started: containers have others.
fn end_all(namespace: Option<u64>) {
    let Some(namespace) = namespace else { return };
    loop {
        let all: Vec<(u32, u32)> = processes();
        let mut doomed: Vec<u32> =
            all.iter().map(|(pid, _)| *pid).filter(|pid| namespace_of(*pid) == Some(namespace)).collect();
        let mut at = 0;
        while let Some(parent) = doomed.get(at).copied() {
            let children = all.iter().filter(|(pid, of)| *of == parent && !doomed.contains(pid));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            doomed.extend(children);
            at += 1;
        }
        if doomed.is_empty() {
            return;
        }
        for pid in doomed.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Every process that is no zombie, with its parent.
fn processes() -> Vec<(u32, u32)> {
    let read = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        (state != "Z").then_some((pid, parent))
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(read).collect()
}
