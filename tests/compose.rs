//! Three containers as hosts: `docker-compose.test.yml` brought up, used, cut apart, killed, restarted one by one under
//! a client, and taken down again.
//! Uses the engine that answers, else starts one of its own beside everything. Needs root and Docker; without
//! them it fails, or with `WEFT_ALLOW_SKIP=1` says that it was skipped.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

#[path = "netns/namespace.rs"]
#[allow(dead_code, reason = "shared with the tests in namespaces, which use all of it")]
mod namespace;
#[path = "netns/wait.rs"]
mod wait;

use namespace::Namespace;
use wait::{eventually, until};

const HOSTS: [&str; 3] = ["a", "b", "c"];

#[test]
fn three_containers_carry_an_overlay_through_a_partition_a_lost_host_and_a_rolling_restart() {
    let Some(engine) = Engine::find() else { return };
    let stack = Stack::up(&engine);
    HOSTS.iter().for_each(|host| stack.meets(host, 3));
    stack.an_overlay_joins_all_hosts();
    stack.a_partition_is_survived_and_healed();
    stack.a_killed_host_is_missed_and_taken_back();
    stack.a_client_is_served_during_a_rolling_restart();
}

impl Stack<'_> {
    fn an_overlay_joins_all_hosts(&self) {
        let subnets = ["--subnet", "10.7.0.0/24", "--ipv6", "--subnet", "2001:db8:7::/64"];
        self.weft("a", &[&["network", "create", "-d", "overlay"], &subnets[..], &["blue"]].concat());
        for host in HOSTS {
            until("the network is known", || {
                self.call(host, &["network", "inspect", "blue"]).status.success()
            });
            self.attach(host, "box");
        }
        self.all_see(&["box-a", "box-b", "box-c"]);
        for from in HOSTS {
            HOSTS.iter().for_each(|to| self.reaches(from, "box", to));
        }
        self.carries_tcp("a", "b");
        self.carries_tcp("b", "a");
    }

    /// Both sides of a cut go on, each hands out addresses, and nothing was handed out twice.
    fn a_partition_is_survived_and_healed(&self) {
        let (underlay, c) = (format!("{}_underlay", self.project), &self.containers["c"]);
        self.docker(&["network", "disconnect", &underlay, c]);
        self.meets("a", 2);
        // it keeps the address it had: that of its own bridges would lead to nobody
        self.meets("c", 1);
        self.reaches("a", "box", "b");
        self.silent("a", "c");
        ["a", "c"].into_iter().for_each(|side| self.attach(side, "cut"));
        assert_ne!(self.address("a", "cut", "IPAddress"), self.address("c", "cut", "IPAddress"));

        self.docker(&["network", "connect", "--alias", "c", &underlay, c]);
        HOSTS.iter().for_each(|host| self.meets(host, 3));
        self.all_see(&["box-a", "box-b", "box-c", "cut-a", "cut-c"]);
        self.reaches("c", "cut", "a");
        self.reaches("b", "cut", "c");
        ["a", "c"].into_iter().for_each(|side| drop(self.weft(side, &["rm", &format!("cut-{side}")])));
    }

    fn a_killed_host_is_missed_and_taken_back(&self) {
        self.docker(&["kill", &self.containers["c"]]);
        self.meets("a", 2);
        self.reaches("a", "box", "b");
        self.docker(&["start", &self.containers["c"]]);
        HOSTS.iter().for_each(|host| self.meets(host, 3));
        // a stopped container takes its namespaces with it as a reboot does; its agent makes them again
        self.all_see(&["box-a", "box-b", "box-c"]);
        self.reaches("c", "box", "a");
        self.reaches("b", "box", "c");
    }

    /// A server on every host is published there; whoever asks the hosts in turn always gets an answer.
    fn a_client_is_served_during_a_rolling_restart(&self) {
        for host in HOSTS {
            let publish =
                ["run", "-d", "--name", &format!("web-{host}"), "--network", "blue", "-p", "8080:8080"];
            self.weft(host, &[&publish[..], &["--", "httpd", "-f", "-p", "8080", "-h", "/etc"]].concat());
        }
        HOSTS.iter().for_each(|host| until("the client is served", || self.serves(host)));
        for host in HOSTS {
            let others = || HOSTS.iter().filter(|other| **other != host);
            self.docker(&["stop", "-t", "20", &self.containers[host]]);
            others().for_each(|other| assert!(self.serves(other), "{other} serves while {host} is stopped"));
            self.docker(&["start", &self.containers[host]]);
            HOSTS.iter().for_each(|host| self.meets(host, 3));
            others().for_each(|other| assert!(self.serves(other), "{other} serves after {host} is back"));
            until("its command starts again", || {
                self.call(host, &["start", &format!("web-{host}")]).status.success()
            });
            until("the client is served", || self.serves(host));
        }
        self.reaches("a", "box", "c");
    }
}

#[test]
fn the_compose_file_asks_for_capabilities_and_never_for_privilege() {
    let text = std::fs::read_to_string(file()).expect("the compose file");
    let settings: String = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
    assert!(settings.contains("cap_add") && !settings.contains("privileged"), "capabilities only");
}

/// The stack of one run, under a project name and an image name of its own.
struct Stack<'e> {
    engine: &'e Engine,
    project: String,
    image: String,
    /// Ids of the containers by host.
    containers: BTreeMap<String, String>,
}

impl<'e> Stack<'e> {
    fn up(engine: &'e Engine) -> Self {
        let project = format!("weft-test-{}", std::process::id());
        let image = format!("{project}:latest");
        let mut stack = Self { engine, image, project, containers: BTreeMap::new() };
        let recipe = file().with_file_name("tests/compose/image.sh");
        succeeds(engine.command(&recipe.to_string_lossy()).arg(env!("CARGO_BIN_EXE_weft")).arg(&stack.image));
        stack.compose(&["up", "-d"]);
        for host in HOSTS.into_iter().chain(["client"]) {
            let id = stack.compose(&["ps", "-q", host]).trim().to_owned();
            stack.containers.insert(host.to_owned(), id);
        }
        stack
    }

    /// Runs a verb of Compose, which must succeed.
    fn compose(&self, arguments: &[&str]) -> String {
        succeeds(self.compose_command().args(arguments))
    }

    fn compose_command(&self) -> Command {
        let (program, first) = self.engine.compose;
        let mut command = self.engine.command(program);
        command.args(first).arg("-p").arg(&self.project).arg("-f").arg(file()).env("WEFT_IMAGE", &self.image);
        command
    }

    /// Asks the engine for something, which it must do.
    fn docker(&self, arguments: &[&str]) -> String {
        succeeds(self.engine.command("docker").args(arguments))
    }

    /// Whether the client gets the page that `host` publishes at its present address.
    fn serves(&self, host: &str) -> bool {
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.docker(&["inspect", "--format", template, &self.containers[host]]);
        // a busybox without libc's plug-ins cannot look names up, and its wget dies of it
        let ask =
            format!("printf 'GET /nsswitch.conf HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} 8080", address.trim());
        let mut command = self.engine.command("docker");
        command.args(["exec", &self.containers["client"], "/bin/sh", "-c", &ask]);
        let page = command.stdin(Stdio::null()).output();
        page.is_ok_and(|page| String::from_utf8_lossy(&page.stdout).contains("hosts: files"))
    }

    /// Makes the sandbox `NAME-HOST` on a host, in the network.
    fn attach(&self, host: &str, name: &str) {
        let name = format!("{name}-{host}");
        self.weft(host, &["sandbox", "create", &name]);
        self.weft(host, &["network", "connect", "blue", &name]);
    }

    /// Calls the binary in a host, past Compose, whose own `exec` takes a second or two.
    fn call(&self, host: &str, arguments: &[&str]) -> Output {
        let mut command = self.engine.command("docker");
        command.args(["exec", &self.containers[host], "/bin/weft"]).args(arguments);
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Calls the binary in a host; it must succeed.
    fn weft(&self, host: &str, arguments: &[&str]) -> String {
        let output = self.call(host, arguments);
        assert!(output.status.success(), "weft {arguments:?} on {host}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, host: &str, arguments: &[&str]) -> Result<Value, String> {
        let output = self.call(host, arguments);
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))
    }

    /// Waits until `host` counts `alive` members.
    fn meets(&self, host: &str, alive: u64) {
        eventually(&format!("{host} meets {alive}"), || {
            match self.json(host, &["status", "--json"])?["MembersAlive"].as_u64() {
                Some(seen) if seen == alive => Ok(()),
                seen => Err(format!("{seen:?} alive")),
            }
        });
    }

    /// Waits until every host sees exactly these endpoints.
    fn all_see(&self, endpoints: &[&str]) {
        HOSTS.iter().for_each(|host| self.sees(host, endpoints));
    }

    /// Waits until `host` sees exactly these endpoints, all of them where they answer.
    fn sees(&self, host: &str, endpoints: &[&str]) {
        eventually(&format!("{host} sees {endpoints:?}"), || {
            let fdb = self.json(host, &["fdb", "blue", "--json"])?;
            let rows = fdb
                .as_array()
                .into_iter()
                .flatten()
                .filter(|row| row["State"] == "local" || row["State"] == "remote");
            let mut seen: Vec<&str> = rows.filter_map(|row| row["Endpoint"].as_str()).collect();
            seen.sort_unstable();
            if seen == endpoints { Ok(()) } else { Err(format!("{fdb}")) }
        });
    }

    fn address(&self, host: &str, name: &str, field: &str) -> String {
        let sandbox = self.json(host, &["sandbox", "inspect", &format!("{name}-{host}")]).expect("a sandbox");
        sandbox[0]["NetworkSettings"]["Networks"]["blue"][field].as_str().expect("an address").to_owned()
    }

    /// Waits until the box of `from` gets answers from the sandbox of this name on `to`, over IPv4 and IPv6.
    fn reaches(&self, from: &str, name: &str, to: &str) {
        for field in ["IPAddress", "GlobalIPv6Address"] {
            let address = self.address(to, name, field);
            eventually(&format!("{from} reaches {address} on {to}"), || {
                let answer = self.ping(from, &address);
                if answer.status.success() { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
    }

    /// Makes sure that the box of `from` gets no answer from that of `to`.
    fn silent(&self, from: &str, to: &str) {
        let answer = self.ping(from, &self.address(to, "box", "IPAddress"));
        assert!(!answer.status.success(), "{to} answers {from}: {answer:?}");
    }

    fn ping(&self, from: &str, address: &str) -> Output {
        self.call(
            from,
            &["sandbox", "exec", &format!("box-{from}"), "--", "ping", "-c", "1", "-W", "2", address],
        )
    }

    /// Moves octets by iperf3 from one host's sandbox to another's.
    fn carries_tcp(&self, from: &str, to: &str) {
        let address = self.address(to, "box", "IPAddress");
        let boxed = |host: &str| format!("box-{host}");
        self.weft(to, &["sandbox", "exec", &boxed(to), "--", "iperf3", "--server", "--one-off", "--daemon"]);
        let client =
            ["sandbox", "exec", &boxed(from), "--", "iperf3", "--client", &address, "--time", "1", "--json"];
        let octets = eventually("iperf3 runs", || {
            let report = self.json(from, &client)?;
            report["end"]["sum_received"]["bytes"].as_u64().ok_or_else(|| report["error"].to_string())
        });
        assert!(octets > 5_000_000, "{from} to {to}: only {octets} octets");
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose_command().args(["logs", "--no-color", "--tail", "60"]).output();
            let _ = std::io::stderr().write_all(&logs.map(|output| output.stdout).unwrap_or_default());
        }
        let _ =
            self.compose_command().args(["down", "--volumes", "--remove-orphans", "--timeout", "5"]).output();
        let _ = self.engine.command("docker").args(["rmi", "--force", &self.image]).output();
    }
}

/// The engine in use.
struct Engine {
    own: Option<OwnEngine>,
    compose: (&'static str, &'static [&'static str]),
}

impl Engine {
    /// The engine that answers, else one started here; `None` when there can be none and skipping is allowed.
    fn find() -> Option<Self> {
        let compose = [("docker", &["compose"][..]), ("docker-compose", &[])];
        let works = |(program, first): &(&'static str, &'static [&'static str])| {
            succeeded(Command::new(program).args(*first).arg("version"))
        };
        let Some(compose) = compose.into_iter().find(works) else { return skipped("no Compose") };
        if succeeded(Command::new("docker").arg("info")) {
            return Some(Self { own: None, compose });
        }
        if !nix::unistd::Uid::effective().is_root() || !succeeded(Command::new("dockerd").arg("--version")) {
            return skipped("no engine answers and none can be started");
        }
        Some(Self { own: Some(OwnEngine::start()), compose })
    }

    /// A command that speaks to this engine.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(own) = &self.own {
            command.env("DOCKER_HOST", own.address()).env_remove("DOCKER_CONTEXT");
        }
        command
    }
}

fn skipped(why: &str) -> Option<Engine> {
    assert!(std::env::var_os("WEFT_ALLOW_SKIP").is_some_and(|v| v == "1"), "{why}; WEFT_ALLOW_SKIP=1 skips");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    None
}

/// An engine of the test's own: its network and mount namespaces, socket and data are nobody else's.
struct OwnEngine {
    daemon: Child,
    dir: TempDir,
    // goes last: the daemon's bridges and rules are in it
    _namespace: Namespace,
}

impl OwnEngine {
    fn start() -> Self {
        let namespace = Namespace::create();
        let dir = tempfile::Builder::new().prefix("weft-engine-").tempdir().expect("a directory");
        let script = "mkdir -p /run/docker /run/containerd && mount -t tmpfs t /run/docker && mount -t tmpfs t /run/containerd \
                      && echo '{}' >$0/config \
                      && exec dockerd --config-file $0/config --data-root $0/data --exec-root /run/docker/x --pidfile $0/pid -H unix://$0/socket >$0/log 2>&1";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(dir.path())
            .stdin(Stdio::null());
        let engine = Self { daemon: namespace.spawn(&mut command), dir, _namespace: namespace };
        eventually("the engine answers", || {
            match Command::new("docker").args(["-H", &engine.address(), "info"]).output() {
                Ok(output) if output.status.success() => Ok(()),
                _ => Err(std::fs::read_to_string(engine.dir.path().join("log")).unwrap_or_default()),
            }
        });
        engine
    }

    fn address(&self) -> String {
        format!("unix://{}", self.dir.path().join("socket").display())
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let pid = i32::try_from(self.daemon.id()).expect("a process id");
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// The compose file of the tree.
fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docker-compose.test.yml")
}

fn succeeded(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
