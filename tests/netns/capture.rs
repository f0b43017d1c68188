//! `weft capture` on real networks, read by tshark.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::rig::{Host, Rig, needs_root};
use crate::wait::until;
use crate::weft::success;

/// Captures `network` into a file, and is listening when this returns.
fn start(host: &Host, network: &str, file: &Path, flags: &[&str]) -> Child {
    let mut command = host.command(&["capture", network, "-w"]);
    let child = command.arg(file).args(flags).stderr(Stdio::piped()).spawn().expect("started");
    // The head of the file is written once the socket is open.
    until("the capture listens", || std::fs::metadata(file).is_ok_and(|meta| meta.len() > 0));
    child
}

fn read(file: &Path, filter: &str) -> Vec<String> {
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "ip.src", "-e", "icmp.type"];
    let text = success(Command::new("tshark").arg("-r").arg(file).arg("-Y").arg(filter).args(fields));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn frames_of_a_network_are_captured_once_where_they_enter() {
    needs_root!();
    let rig = Rig::cluster(2);
    let (a, b) = (&rig.hosts[0], &rig.hosts[1]);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    until("b knows blue", || b.weft(&["network", "inspect", "blue"]).code == 0);
    let (one, two, three) =
        (a.sandbox("one", "blue", &[]), a.sandbox("two", "blue", &[]), b.sandbox("three", "blue", &[]));
    let file = rig.dir.path().join("blue.pcapng");
    let mut capture = start(a, "blue", &file, &[]);
    for to in [two.ip4(), three.ip4()] {
        until("ping", || one.namespace.succeeds(&format!("ping -n -q -c 1 -W 5 {to}")));
    }
    let echoes = || read(&file, "icmp");
    until("requests and answers of both pings", || echoes().len() >= 4);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(capture.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("interrupted");
    assert!(capture.wait().expect("ended").success(), "Ctrl-C is how a capture ends well");
    let lines = echoes();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let from = |address: &str| lines.iter().filter(|line| line.contains(address)).collect::<Vec<_>>();
    let remote = from(&three.ip4().to_string());
    assert!(remote.len() == 1 && remote[0].starts_with("weft0\t"), "{lines:?}");
    assert_eq!((from(&one.ip4().to_string()).len(), from(&two.ip4().to_string()).len()), (2, 1), "{lines:?}");
    assert!(!from(&two.ip4().to_string())[0].starts_with("weft0\t"), "{lines:?}");
}

#[test]
fn capture_ends_by_count_refuses_what_is_not_there_and_pipes() {
    needs_root!();
    let rig = Rig::cluster(1);
    let a = &rig.hosts[0];
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    assert!(a.refused(1, &["capture", "nowhere", "-w", "/dev/null"]).contains("network nowhere not found"));
    assert!(a.refused(1, &["capture", "blue", "-w", "/dev/null"]).contains("no endpoint on this host"));
    let (one, two) = (a.sandbox("one", "blue", &[]), a.sandbox("two", "blue", &[]));
    let file = rig.dir.path().join("blue.pcapng");
    let mut capture = start(a, "blue", &file, &["--count", "3"]);
    until("three frames", || {
        one.namespace.succeeds(&format!("ping -n -q -c 1 -W 5 {}", two.ip4()));
        capture.try_wait().expect("asked").is_some_and(|status| status.success())
    });
    assert_eq!(read(&file, "frame").len(), 3);
}
