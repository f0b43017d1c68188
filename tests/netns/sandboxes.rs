//! Sandboxes as containers: commands in the background, their output, their ends.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command_line::processes_in;
use crate::namespace::Namespace;
use crate::rig::{Host, Rig, needs_root};
use crate::wait::until;
use crate::weft;

/// One host with an agent and a network `blue`; whatever runs in the background ends with this.
struct Bench(Rig);

impl Bench {
    fn new() -> Self {
        let rig = Rig::cluster(1);
        rig.hosts[0].ok(&["network", "create", "--driver", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
        Self(rig)
    }

    fn host(&self) -> &Host {
        &self.0.hosts[0]
    }

    /// What an inspected sandbox says at a place in its JSON.
    fn shown(&self, name: &str, pointer: &str) -> Value {
        let shown = self.host().json(&["inspect", name]);
        shown[0].pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {shown}")).clone()
    }

    /// Line of `ps -a` for a sandbox.
    fn status(&self, name: &str) -> String {
        self.host().ok(&["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"])
    }

    fn endpoints(&self) -> usize {
        self.host().json(&["network", "inspect", "blue"])[0]["Containers"]
            .as_object()
            .map_or(0, |all| all.len())
    }

    /// Processes of a command and of what watches over it.
    fn life(&self, name: &str) -> Value {
        let list = self.host().json(&["ps", "-a", "--filter", &format!("name=^{name}$")]);
        let directory = list[0]["Directory"].as_str().expect("a directory").to_owned();
        let text = std::fs::read(Path::new(&directory).join("life.json")).expect("its life is written down");
        serde_json::from_slice(&text).expect("JSON")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for id in self.host().weft(&["ps", "-aq"]).stdout.split_whitespace() {
            self.host().weft(&["rm", "-f", id]);
        }
    }
}

fn is_running(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_command_in_the_background_is_seen_read_stopped_started_and_removed() {
    needs_root!();
    let bench = Bench::new();
    let a = bench.host();
    let script = "echo hello $GREETING in $PWD; echo oops >&2; exec sleep 300";
    let run =
        ["run", "-d", "--name", "web", "--network", "blue", "--network-alias", "www", "-e", "GREETING=there"];
    let id = a.ok(&[&run[..], &["-w", "/tmp", "-l", "team=blue", "--", "sh", "-c", script]].concat());
    assert!(id.len() == 64 && id.bytes().all(|octet| octet.is_ascii_hexdigit()), "{id}");

    let table = a.ok(&["ps"]);
    let titles = ["SANDBOX ID", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    assert!(
        titles.iter().all(|title| table.lines().next().is_some_and(|line| line.contains(title))),
        "{table}"
    );
    assert!(table.contains(&id[..12]) && table.contains("Up ") && table.contains("web"), "{table}");
    assert_eq!(a.ok(&["ps", "-q", "--no-trunc", "--filter", "label=team=blue"]), id);
    assert_eq!(a.ok(&["ps", "-q", "--filter", "label=team=red"]), "");
    until("the log is written", || a.weft(&["logs", "web"]).stderr == "oops\n");
    assert_eq!(a.weft(&["logs", "web"]).stdout, "hello there in /tmp\n");
    assert!(a.weft(&["logs", "-t", "web"]).stdout.starts_with("20"), "with times");

    assert_eq!(bench.shown("web", "/HostConfig/NetworkMode"), "blue");
    assert_eq!(bench.shown("web", "/State/Status"), "running");
    assert_eq!(bench.shown("web", "/NetworkSettings/Networks/blue/Aliases/0"), "www");
    let address = bench.shown("web", "/NetworkSettings/Networks/blue/IPAddress");
    assert!(a.ok(&["exec", "web", "ip", "-o", "-4", "addr"]).contains(address.as_str().expect("an address")));
    assert_eq!(
        a.ok(&["exec", "web", "sh", "-c", "echo $GREETING"]),
        "there",
        "exec gets the command's variables"
    );
    assert!(a.refused(1, &["rm", "web"]).contains("cannot remove container \"web\": container is running"));
    assert!(a.refused(1, &["network", "rm", "blue"]).contains("network blue has active endpoints"));

    assert_eq!(a.ok(&["stop", "web"]), "web");
    assert!(bench.status("web").starts_with("Exited (143)"), "{}", bench.status("web"));
    assert_eq!((a.ok(&["ps", "-q"]).as_str(), bench.endpoints()), ("", 0));
    assert_eq!(bench.shown("web", "/NetworkSettings/Networks/blue/IPAddress"), "");
    assert!(a.refused(1, &["exec", "web", "true"]).contains("container web is not running"));
    assert_eq!(a.ok(&["stop", "web"]), "web", "to stop what has stopped is no fault");
    assert!(a.refused(1, &["kill", "web"]).contains("container web is not running"));

    assert_eq!(a.ok(&["start", "web"]), "web");
    assert_eq!((bench.shown("web", "/State/Running"), bench.endpoints()), (true.into(), 1));
    assert_eq!(bench.shown("web", "/NetworkSettings/Networks/blue/Aliases/0"), "www", "as it was run");
    a.ok(&["stop", "web"]);
    let starting: Vec<_> = (0..4).map(|_| a.command(&["start", "web"]).spawn().expect("started")).collect();
    let started =
        starting.into_iter().filter_map(|mut child| child.wait().ok()).filter(|status| status.success());
    assert!(started.count() > 0 && bench.endpoints() == 1);
    let namespace = Namespace::open(Path::new(bench.shown("web", "/Namespace").as_str().expect("a path")));
    assert_eq!(processes_in(&namespace), 1, "however many start it, it runs once");
    let before = bench.shown("web", "/State/Pid");
    assert_eq!(a.ok(&["restart", "-t", "5", "web"]), "web");
    assert_ne!(bench.shown("web", "/State/Pid"), before);
    assert_eq!(a.ok(&["kill", "-s", "USR1", "web"]), "web");
    until("the signal ends it", || bench.status("web").starts_with("Exited (138)"));
    let directory = bench.shown("web", "/LogPath");
    assert_eq!(a.ok(&["rm", "web"]), "web");
    assert!(a.refused(1, &["inspect", "web"]).contains("No such object: web"));
    assert!(!Path::new(directory.as_str().expect("a path")).exists(), "its files are gone");
}

#[test]
fn a_command_takes_with_it_what_it_has_started() {
    needs_root!();
    let bench = Bench::new();
    let a = bench.host();
    let script = "sleep 300 & echo $!; (setsid sleep 301 & echo $!); exec sleep 302";
    a.ok(&["run", "-d", "--name", "web", "--", "sh", "-c", script]);
    until("both pids are logged", || a.weft(&["logs", "web"]).stdout.lines().count() == 2);
    let pids = a.ok(&["logs", "web"]);
    let mut running: Vec<Value> = pids.lines().map(|pid| pid.parse::<u32>().expect("a pid").into()).collect();
    running.push(bench.life("web")["Supervisor"]["pid"].clone());
    assert!(running.iter().all(is_running), "{running:?}");
    a.ok(&["rm", "-f", "web"]);
    assert!(!running.iter().any(is_running), "{running:?}");
    assert_eq!(a.ok(&["ps", "-aq"]), "");

    a.ok(&["run", "-d", "--rm", "--name", "brief", "--network", "blue", "--", "sh", "-c", "exit 3"]);
    until("a sandbox of --rm goes with its command", || a.ok(&["ps", "-aq"]).is_empty());
    assert_eq!(bench.endpoints(), 0);
}

#[test]
fn a_command_in_the_foreground_stays_as_exited_unless_it_is_to_go() {
    needs_root!();
    let bench = Bench::new();
    let a = bench.host();
    a.refused_silently(7, &["run", "--name", "once", "--network", "blue", "--", "sh", "-c", "exit 7"]);
    assert!(bench.status("once").starts_with("Exited (7)"), "{}", bench.status("once"));
    assert_eq!(bench.endpoints(), 0);
    assert!(a.refused(1, &["logs", "once"]).contains("once has no log"));
    assert!(
        a.refused(1, &["run", "--name", "once", "--", "true"])
            .contains("sandbox with name once already exists")
    );
    a.refused_silently(7, &["run", "--rm", "--", "sh", "-c", "exit 7"]);
    a.refused(127, &["run", "-d", "--", "/nonexistent/program"]);
    a.refused(126, &["run", "-w", "/nonexistent", "--", "true"]);
    a.refused(1, &["run", "-d", "--network", "nowhere", "--", "true"]);
    assert_eq!(a.ok(&["ps", "-a", "--format", "{{.Names}}"]), "once", "what did not start leaves nothing");
    a.ok(&["network", "rm", "blue"]);
    assert!(a.refused(1, &["start", "once"]).contains("network blue not found"));
    assert!(
        bench
            .shown("once", "/State/Error")
            .as_str()
            .is_some_and(|why| why.contains("network blue not found"))
    );
}

#[test]
fn a_command_outlives_the_agent_and_its_end_is_known_whoever_is_killed() {
    needs_root!();
    let bench = Bench::new();
    let a = bench.host();
    for name in ["web", "db", "lost"] {
        a.ok(&["run", "-d", "--name", name, "--network", "blue", "--", "sleep", "300"]);
    }
    let process = |name: &str| bench.life(name)["Process"]["pid"].as_i64().expect("a pid") as i32;
    let (web, lost) = (process("web"), process("lost"));
    let supervisor = bench.life("lost")["Supervisor"]["pid"].as_i64().expect("a pid") as i32;
    a.kill();
    kill(Pid::from_raw(web), Signal::SIGKILL).expect("killed");
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("killed");
    until("the command goes with its supervisor", || !is_running(&lost.into()));
    a.start(&[]);
    until("ends while the agent was down are known", || bench.endpoints() == 1);
    assert!(bench.status("web").starts_with("Exited (137)"), "{}", bench.status("web"));
    assert!(bench.status("lost").starts_with("Exited (137)"), "{}", bench.status("lost"));
    assert!(bench.status("db").starts_with("Up "), "{}", bench.status("db"));
    a.ok(&["start", "lost"]);
    assert!(bench.status("lost").starts_with("Up "), "{}", bench.status("lost"));
}

#[test]
fn a_command_can_live_in_the_network_of_the_host_or_of_another_sandbox() {
    needs_root!();
    let bench = Bench::new();
    let a = bench.host();
    a.ok(&["run", "-d", "--name", "web", "--network", "blue", "--ip", "10.7.0.9", "--", "sleep", "300"]);
    assert!(
        a.ok(&["run", "--rm", "--network", "container:web", "--", "ip", "-o", "addr"]).contains("10.7.0.9")
    );
    assert!(
        a.ok(&["run", "--rm", "-it", "--net=host", "--", "ip", "-o", "addr"]).contains(&a.ip4.to_string())
    );
    let alone = a.ok(&["run", "--rm", "--network", "none", "--", "ip", "-o", "link"]);
    assert_eq!(alone.lines().count(), 1, "{alone}");
    let unreachable = a.weft(&["run", "--rm", "--network", "none", "--", "ping", "-c", "1", "192.0.2.9"]);
    assert!(unreachable.stderr.contains("Network is unreachable"), "{unreachable:?}");

    a.ok(&["run", "-d", "--name", "own", "--network", "host", "--", "sleep", "300"]);
    assert_eq!(bench.shown("own", "/HostConfig/NetworkMode"), "host");
    assert!(a.ok(&["exec", "own", "ip", "-o", "addr"]).contains(&a.ip4.to_string()));
    a.ok(&["run", "-d", "--name", "alone", "--network", "none", "--", "sleep", "300"]);
    a.ok(&["run", "-d", "--name", "guest", "--network", "container:web", "--", "sleep", "300"]);
    a.refused(1, &["network", "connect", "blue", "guest"]);
    a.ok(&["rm", "-f", "guest"]);
    a.ok(&["stop", "-t", "5", "web"]);
    for (arguments, text) in [
        (
            &["network", "connect", "blue", "alone"][..],
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            &["network", "connect", "blue", "own"],
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            &["run", "--network", "host", "--network", "blue", "--", "true"],
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            &["run", "--network", "none", "--network", "blue", "--", "true"],
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            &["run", "--network", "container:", "--", "true"],
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (
            &["run", "--network", "container:web", "-h", "x", "--", "true"],
            "conflicting options: hostname and the network mode",
        ),
        (
            &["run", "--name", "x", "--network", "container:x", "--", "true"],
            "cannot join own network namespace",
        ),
        (
            &["run", "--network", "container:web", "--", "true"],
            "cannot join network namespace of a non running container: container web is exited",
        ),
        (
            &["run", "--network", "host", "--ip", "10.7.0.5", "--", "true"],
            "user-specified IP address is supported on user-defined networks only",
        ),
        (
            &["run", "--network", "none", "--network-alias", "x", "--", "true"],
            "network-scoped aliases are only supported for user-defined networks",
        ),
    ] {
        let refusal = a.refused(1, arguments);
        assert!(refusal.contains(text), "{arguments:?}: {refusal}");
    }
    a.ok(&["rm", "-f", "alone"]);
    assert_eq!(a.ok(&["ps", "-a", "--format", "{{.Names}}"]), "own\nweb", "what was refused leaves nothing");
}

#[test]
fn a_log_is_followed_until_its_command_ends() {
    needs_root!();
    let bench = Bench::new();
    let a = bench.host();
    let script = "for n in 1 2 3; do echo line $n; sleep 0.2; done; printf end";
    a.ok(&["run", "-d", "-i", "--name", "web", "--", "sh", "-c", script]);
    let mut follow: Command = a.command(&["logs", "--follow", "web"]);
    let output = weft::answer(follow.stdin(Stdio::null()));
    assert_eq!((output.code, output.stdout.as_str()), (0, "line 1\nline 2\nline 3\nend"));
    assert_eq!(a.weft(&["logs", "-n", "2", "web"]).stdout, "line 3\nend");
    a.refused(2, &["logs", "-n", "many", "web"]);
}
