//! What a command gets as a virtual machine's monitor, shown with a shell in the place of one.

use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{Host, Rig, needs_root};
use crate::wait::{eventually, until};

/// One host with an overlay network.
fn rig() -> Rig {
    let rig = Rig::cluster(1);
    let create =
        ["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "--subnet", "fd07::/64", "blue"];
    rig.hosts[0].ok(&create);
    rig
}

fn sandboxes(host: &Host) -> usize {
    host.json(&["sandbox", "ls"]).as_array().map_or(0, Vec::len)
}

fn pins(host: &Host) -> usize {
    std::fs::read_dir(host.dir.join("run/netns")).expect("pins").count()
}

/// Starts a command that holds its TAP until it is ended, and waits until it runs.
fn held(host: &Host, name: &str) -> Child {
    let mut command =
        host.command(&["run", "--rm", "--name", name, "--network", "blue", "--tap", "--", "sleep", "300"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("weft runs");
    until("it runs", || {
        let shown = host.weft(&["inspect", "--format", "{{.State.Pid}}", name]).stdout;
        shown.trim().parse::<u32>().is_ok_and(|pid| pid > 0)
    });
    child
}

#[test]
fn a_command_finds_each_networks_tap_as_a_descriptor_and_what_belongs_to_it_in_its_environment() {
    needs_root!();
    let rig = rig();
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "--subnet", "10.8.0.0/24", "front"]);
    let script = "env | grep ^WEFT_ | sort; for fd in 3 4 5; do readlink /proc/self/fd/$fd; done; \
                  grep -h iff: /proc/self/fdinfo/3 /proc/self/fdinfo/4; readlink /proc/self/ns/net";
    let run = [
        "run",
        "--rm",
        "--name",
        "vm",
        "--network",
        "blue",
        "--network",
        "front",
        "--ip",
        "10.7.0.77",
        "--tap",
    ];
    let said = a.weft(&[&run[..], &["--", "sh", "-c", script]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    for line in [
        "WEFT_FD=3",
        "WEFT_NETWORK=blue",
        "WEFT_ADDRESS=10.7.0.77/24",
        "WEFT_MTU=1450",
        "WEFT_FD_2=4",
        "WEFT_NETWORK_2=front",
        "WEFT_GATEWAY_2=10.8.0.1",
        "WEFT_MTU_2=1500",
    ] {
        assert!(said.stdout.lines().any(|found| found == line), "{line} in {said:?}");
    }
    assert!(
        said.stdout.contains("WEFT_ADDRESS6=fd07::") && !said.stdout.contains("WEFT_GATEWAY="),
        "{said:?}"
    );
    assert_eq!(said.stdout.matches("/dev/net/tun").count(), 2, "two and no more: {said:?}");
    assert_eq!(said.stdout.matches("iff:\tv").count(), 2, "{said:?}");
    let here = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    assert!(said.stdout.contains(&*here.to_string_lossy()), "it is where it was called from: {said:?}");
    assert!(
        said.stderr.contains("weft: blue is descriptor 3: mac ")
            && said.stderr.contains("address 10.7.0.77/24")
    );
    assert_eq!((sandboxes(a), pins(a)), (0, 0), "nothing is left");
    assert!(!a.log().contains("left over"), "nor is that feared: {}", a.log());
}

#[test]
fn nothing_is_left_of_a_command_that_is_killed_nor_of_one_that_cannot_start() {
    needs_root!();
    let rig = rig();
    let a = &rig.hosts[0];
    let missing = a.weft(&["run", "--rm", "--network", "blue", "--tap", "--", "/nonexistent/monitor"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(missing.stderr.contains("cannot run /nonexistent/monitor"), "{missing:?}");
    assert_eq!((sandboxes(a), pins(a)), (0, 0));

    let mut child = held(a, "vm");
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGKILL).expect("killed");
    child.wait().expect("ended");
    eventually("its endpoint goes", || match (sandboxes(a), pins(a)) {
        (0, 0) => Ok(()),
        left => Err(format!("{left:?}")),
    });

    let mut child = held(a, "vm");
    a.kill();
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGKILL).expect("killed");
    child.wait().expect("ended");
    a.start(&[]);
    eventually("an agent that was away takes it away", || match (sandboxes(a), pins(a)) {
        (0, 0) => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_tap_is_given_once_and_is_nothing_to_enter() {
    needs_root!();
    let rig = rig();
    let a = &rig.hosts[0];
    let mut child = held(a, "vm");
    assert!(
        a.refused(1, &["exec", "vm", "true"]).contains("vm is a virtual machine"),
        "there is no namespace"
    );
    assert!(
        a.refused(2, &["run", "--tap", "--network", "none", "--", "true"])
            .contains("--tap: a TAP belongs to a network")
    );
    assert_eq!(a.json(&["sandbox", "ls"])[0]["Namespace"], "");
    child.kill().expect("killed");
    child.wait().expect("ended");
    until("it goes", || sandboxes(a) == 0);
}

#[test]
fn an_agent_killed_before_or_after_it_makes_a_tap_leaves_nothing_of_it() {
    needs_root!();
    let rig = rig();
    let a = &rig.hosts[0];
    for point in ["add-tap:before", "add-tap:after"] {
        a.stop();
        a.start_command(a.agent_command(a.ip4.into()).env("WEFT_KILL_AT", point));
        assert_ne!(a.weft(&["run", "--rm", "--network", "blue", "--tap", "--", "true"]).code, 0);
        until("the agent dies", || a.ended().is_some());
        a.start(&[]);
        eventually(point, || match (sandboxes(a), pins(a)) {
            (0, 0) => Ok(()),
            left => Err(format!("{left:?}")),
        });
    }
}
