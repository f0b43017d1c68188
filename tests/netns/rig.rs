//! Hosts as network namespaces on one switch, each with an agent of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::namespace::Namespace;
use crate::wait::eventually;
use crate::weft::{self, Answer};

/// Whether a test may run; without root it fails, unless the caller asked for skipping.
pub(crate) fn privileged() -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("WEFT_ALLOW_SKIP").is_some_and(|v| v == "1"),
        "needs root; WEFT_ALLOW_SKIP=1 skips"
    );
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("skipped without root: {name}\n").as_bytes(),
    );
    false
}

/// Ends a test that lacks its privilege.
macro_rules! needs_root {
    () => {
        if !crate::rig::privileged() {
            return;
        }
    };
}
pub(crate) use needs_root;

/// The underlay and everything on it.
pub(crate) struct Rig {
    // hosts first: their agents end before the switch and the directory go
    pub(crate) hosts: Vec<Host>,
    pub(crate) switch: Namespace,
    pub(crate) dir: TempDir,
}

impl Rig {
    /// Wires hosts of these names to a switch; no agent runs yet.
    pub(crate) fn wire(names: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("weft-rig-").tempdir().expect("a directory");
        let switch = Namespace::create();
        switch.run("ip link add br0 type bridge stp_state 0 mcast_snooping 0");
        switch.run("ip link set br0 up");
        let hosts = names
            .iter()
            .zip(1..)
            .map(|(name, number)| Host::wire(name, number, &switch, dir.path()))
            .collect();
        Self { hosts, switch, dir }
    }

    /// Hosts `a`, `b`, … with an agent each, all of which see each other alive.
    pub(crate) fn cluster(size: usize) -> Self {
        Self::cluster_with(size, &[])
    }

    /// As [`Rig::cluster`], with more flags for every agent.
    pub(crate) fn cluster_with(size: usize, flags: &[&str]) -> Self {
        let rig = Self::wire(&["a", "b", "c", "d", "e"][..size]);
        rig.hosts.iter().for_each(|host| host.start(flags));
        rig.meet(size);
        rig
    }

    /// As [`Rig::cluster`], with one more host at the end that has no agent: `client`.
    pub(crate) fn with_client(size: usize) -> Self {
        let rig = Self::wire(&[&["a", "b"][..size], &["client"]].concat());
        rig.hosts[..size].iter().for_each(|host| host.start(&[]));
        rig.meet(size);
        rig
    }

    /// Waits until every host with an agent counts `alive` members.
    pub(crate) fn meet(&self, alive: usize) {
        for host in self.running() {
            eventually(&format!("{} meets {alive} members", host.name), || {
                let seen = host.json(&["status"])["MembersAlive"].as_u64();
                if seen == Some(alive as u64) { Ok(()) } else { Err(format!("{seen:?} alive")) }
            });
        }
    }

    /// The hosts whose agent runs.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.agent.lock().is_ok_and(|agent| agent.is_some()))
    }

    /// Cuts or joins `host` by dropping whatever the switch would pass from or to it.
    pub(crate) fn cut(&self, host: &Host) {
        let port = &host.port;
        self.switch.run("nft add table bridge cut");
        self.switch.run("nft add chain bridge cut pass { type filter hook forward priority 0 ; }");
        self.switch.run(&format!("nft add rule bridge cut pass iifname {port} drop"));
        self.switch.run(&format!("nft add rule bridge cut pass oifname {port} drop"));
    }

    /// Ends every cut.
    pub(crate) fn heal(&self) {
        self.switch.run("nft delete table bridge cut");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for host in &self.hosts {
            host.kill_quietly();
        }
        crate::audit::sweep(self.dir.path());
    }
}

/// One host: a namespace with an underlay address, directories, perhaps an agent.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) ip4: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
    /// The switch's end of the wire.
    pub(crate) port: String,
    pub(crate) dir: PathBuf,
    /// Where the first host's token is, or will be.
    token: PathBuf,
    first: bool,
    agent: Mutex<Option<Agent>>,
}

/// The host's end of the wire.
pub(crate) const UNDERLAY: &str = "u0";

impl Host {
    fn wire(name: &str, number: u8, switch: &Namespace, dir: &Path) -> Self {
        let namespace = Namespace::create();
        let port = format!("p-{name}");
        let (ip4, ip6) =
            (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()));
        switch.run(&format!("ip link add {port} type veth peer name {UNDERLAY} netns {}", namespace.path()));
        switch.run(&format!("ip link set {port} master br0 up"));
        // no link-local address, which would turn up some time later
        namespace.run(&format!("ip link set {UNDERLAY} addrgenmode none"));
        namespace.run(&format!("ip link set {UNDERLAY} up"));
        namespace.run(&format!("ip addr add {ip4}/24 dev {UNDERLAY}"));
        namespace.run(&format!("ip addr add {ip6}/64 dev {UNDERLAY} nodad"));
        let host = Self {
            name: name.to_owned(),
            namespace,
            ip4,
            ip6,
            port,
            dir: dir.join(name),
            token: dir.join("token"),
            first: number == 1,
            agent: Mutex::new(None),
        };
        std::fs::create_dir(&host.dir).expect("the host's directory");
        host
    }

    /// Path of the agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("run/weft.sock")
    }

    /// The command that starts this host's agent, advertising `address`. At its first start the first host makes the
    /// cluster, and the others join by its token, for which an agent must run.
    pub(crate) fn agent_command(&self, address: IpAddr) -> Command {
        self.agent_command_with(address, &self.token)
    }

    /// As [`Host::agent_command`], with a token file of the test's own.
    pub(crate) fn agent_command_with(&self, address: IpAddr, token: &Path) -> Command {
        let mut command = weft::weft();
        command.args(["agent", "--name", &self.name, "--advertise", &address.to_string(), "--token-file"]);
        command
            .arg(token)
            .arg("--state-dir")
            .arg(self.dir.join("state"))
            .arg("--run-dir")
            .arg(self.dir.join("run"));
        if self.first {
            command.arg("--init");
        }
        command
    }

    /// Starts the agent on the IPv4 underlay and waits until it answers.
    pub(crate) fn start(&self, flags: &[&str]) {
        self.start_command(self.agent_command(self.ip4.into()).args(flags));
    }

    /// Starts `command` as the agent and waits until it answers.
    pub(crate) fn start_command(&self, command: &mut Command) {
        let agent = Agent::start(&self.namespace, command, &self.dir.join("agent.log"));
        *self.slot() = Some(agent);
        eventually(&format!("agent {} answers", self.name), || {
            self.slot().as_mut().map_or(Ok(()), Agent::still_runs)?;
            let answer = self.weft(&["status", "--json"]);
            if answer.code == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }

    /// Starts `command` as an agent that must end by itself.
    pub(crate) fn ends(&self, command: &mut Command) -> Answer {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace.spawn(piped);
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().expect("asked").is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // of no consequence for one that has ended; the others show by their exit code that they did not
        let _ = child.kill();
        child.wait_with_output().expect("ended").into()
    }

    /// Puts an agent started by hand under the rig's care.
    pub(crate) fn adopt(&self, agent: Agent) {
        *self.slot() = Some(agent);
    }

    /// Waits for the agent's own end and gives its exit code, `None` when a signal ended it.
    pub(crate) fn ended(&self) -> Option<Option<i32>> {
        let mut slot = self.slot();
        let code = slot.as_mut()?.ended()?;
        *slot = None;
        Some(code)
    }

    /// Sends the agent a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        self.slot().as_ref().expect("an agent runs").signal(signal);
    }

    /// Ends the agent as an operator does; it must end well.
    pub(crate) fn stop(&self) {
        let code = self.slot().take().expect("an agent runs").stop();
        assert_eq!(code, Some(0), "agent {} ends well:\n{}", self.name, self.log());
    }

    /// Ends the agent without a word.
    pub(crate) fn kill(&self) {
        self.slot().take().expect("an agent runs").kill();
    }

    fn kill_quietly(&self) {
        if let Some(agent) = self.slot().take() {
            agent.kill();
        }
        if std::thread::panicking() {
            let text = format!("--- agent {}\n{}\n", self.name, tail(&self.log(), 4_000));
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        } else {
            assert!(!self.log().contains("panicked"), "agent {} panicked:\n{}", self.name, self.log());
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Agent>> {
        self.agent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Process id of the agent.
    pub(crate) fn pid(&self) -> u32 {
        self.slot().as_ref().expect("an agent runs").pid()
    }

    /// What the agent has said since the host came to be.
    pub(crate) fn log(&self) -> String {
        std::fs::read(self.dir.join("agent.log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// A call of the binary to this host's agent, to be completed.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = weft::at(&self.socket());
        command.args(arguments);
        command
    }

    /// Calls the binary.
    pub(crate) fn weft(&self, arguments: &[&str]) -> Answer {
        weft::answer(&mut self.command(arguments))
    }

    /// Calls the binary, which must succeed; gives its standard output without the line's end.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        weft::success(&mut self.command(arguments)).trim_end().to_owned()
    }

    /// Calls a read verb with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut command = self.command(arguments);
        let answer = weft::answer(command.arg("--json"));
        assert_eq!(answer.code, 0, "{command:?}: {answer:?}");
        answer.json()
    }

    /// Calls the binary, which must fail with `code`; gives its standard error.
    pub(crate) fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let answer = self.weft(arguments);
        assert_eq!(answer.code, code, "weft {arguments:?}: {answer:?}");
        assert!(!answer.stderr.trim().is_empty(), "weft {arguments:?} fails without a word");
        assert!(!answer.stderr.contains("panicked"), "weft {arguments:?}: {}", answer.stderr);
        answer.stderr
    }

    /// Calls the binary, which must pass on the `code` of a command that says nothing.
    pub(crate) fn refused_silently(&self, code: i32, arguments: &[&str]) {
        let answer = self.weft(arguments);
        assert_eq!((answer.code, answer.stderr.as_str()), (code, ""), "weft {arguments:?}: {answer:?}");
    }

    /// Makes a sandbox attached to `network`, with more flags for `network connect`.
    pub(crate) fn sandbox(&self, name: &str, network: &str, flags: &[&str]) -> Sandbox<'_> {
        self.ok(&["sandbox", "create", name]);
        let mut connect = vec!["network", "connect"];
        connect.extend(flags);
        connect.extend([network, name]);
        self.ok(&connect);
        self.attached(name, network)
    }

    /// An existing sandbox attached to `network`.
    pub(crate) fn attached(&self, name: &str, network: &str) -> Sandbox<'_> {
        let list = self.json(&["sandbox", "ls"]);
        let sandbox = list.as_array().into_iter().flatten().find(|sandbox| sandbox["Name"] == name);
        let sandbox = sandbox.unwrap_or_else(|| panic!("no sandbox {name} in {list}"));
        let end = &sandbox["Networks"][network];
        Sandbox {
            host: self,
            name: name.to_owned(),
            namespace: Namespace::open(Path::new(sandbox["Namespace"].as_str().expect("a path"))),
            ip4: end["IPAddress"].as_str().and_then(|text| text.parse().ok()),
            ip6: end["GlobalIPv6Address"].as_str().and_then(|text| text.parse().ok()),
            mac: end["MacAddress"].as_str().unwrap_or_default().to_owned(),
            interface: end["Interface"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// A sandbox and its end of one network.
pub(crate) struct Sandbox<'h> {
    pub(crate) host: &'h Host,
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) ip4: Option<Ipv4Addr>,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) mac: String,
    pub(crate) interface: String,
}

impl Sandbox<'_> {
    /// Both addresses, those it has.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.ip4.map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6)).collect()
    }

    /// Its IPv4 address.
    pub(crate) fn ip4(&self) -> Ipv4Addr {
        self.ip4.unwrap_or_else(|| panic!("{} has no IPv4 address", self.name))
    }

    /// `weft sandbox exec` of a command line, to be completed.
    pub(crate) fn exec(&self, line: &str) -> Command {
        let mut command = self.host.command(&["sandbox", "exec", &self.name, "--"]);
        command.args(line.split_whitespace());
        command
    }
}

fn tail(text: &str, octets: usize) -> &str {
    let start = text.len().saturating_sub(octets);
    (start..text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}
