//! `weft doctor` sees what keeps weft from working, and `weft cleanup` takes away what nobody will.

use std::process::Command;

use serde_json::Value;

use crate::audit::Snapshot;
use crate::rig::{Host, Rig, UNDERLAY, needs_root};
use crate::weft::{self, Answer};

impl Host {
    /// The binary with a verb about this host itself, run in its namespace; `first` are words to run it by.
    fn about_itself(&self, first: &[&str], verb: &[&str]) -> Answer {
        let program = weft::at(&self.socket());
        let mut command = Command::new(first.first().copied().unwrap_or("env"));
        command.args(first.iter().skip(1)).arg(program.get_program()).args(program.get_args()).args(verb);
        command.args([
            "--state-dir".into(),
            self.dir.join("state"),
            "--run-dir".into(),
            self.dir.join("run"),
        ]);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.namespace.output(&mut command).into()
    }

    /// What the doctor says, and whether it calls it a problem.
    fn doctor(&self, first: &[&str]) -> Diagnosis {
        // nobody's engine is looked at
        let answer = self.about_itself(first, &["doctor", "--json", "--docker", "unix:///nowhere"]);
        Diagnosis { failed: answer.code == 1, report: answer.json() }
    }
}

struct Diagnosis {
    failed: bool,
    report: Value,
}

impl Diagnosis {
    /// What the check found, with the state it was found in.
    fn of(&self, check: &str) -> Vec<String> {
        let findings = self.report["Findings"].as_array().into_iter().flatten();
        let ours = findings.filter(|finding| finding["Check"] == check);
        ours.map(|one| format!("{}: {}", one["State"], one["Found"]).replace('"', "")).collect()
    }

    fn problems(&self) -> Vec<String> {
        let findings = self.report["Findings"].as_array().into_iter().flatten();
        findings.filter(|one| one["State"] == "problem").map(|one| one["Found"].to_string()).collect()
    }

    /// Checks that exactly this is a problem.
    fn blames(&self, words: &str) {
        let problems = self.problems();
        assert!(self.failed && problems.len() == 1 && problems[0].contains(words), "{words}: {problems:?}");
    }
}

#[test]
fn the_doctor_finds_a_cluster_in_order_and_the_member_behind_a_smaller_mtu() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    let well = a.doctor(&[]);
    assert_eq!((well.failed, well.problems()), (false, Vec::new()));
    assert_eq!(well.of("peer"), ["ok: 1 of 1 members alive, whole packets pass"]);
    assert_eq!(
        well.of("underlay"),
        ["ok: 192.0.2.1 on u0, MTU 1500: 1450 inside networks, 1426 inside encrypted ones"]
    );
    assert!(well.of("port").iter().all(|port| port.ends_with("is the agent's")), "{:?}", well.of("port"));
    assert_eq!(well.report["Ports"].as_array().map(Vec::len), Some(3), "ports to open");
    let text = a.about_itself(&[], &["doctor"]).stdout;
    assert!(text.contains("Open between the hosts: 4789/udp, 7946/udp, 7946/tcp"), "{text}");

    // what the switch passes on towards b from now on is cut to less than b's own interface says
    rig.switch.run(&format!("ip link set {} mtu 1400", b.port));
    a.doctor(&[]).blames("b (192.0.2.2): packets of more than 1");
}

#[test]
fn the_doctor_names_whoever_has_a_port_and_what_the_host_lacks_before_an_agent_is_started() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    let before = Snapshot::of(a);
    let well = a.doctor(&[]);
    assert_eq!((well.failed, well.problems()), (false, Vec::new()));
    assert!(well.of("agent")[0].starts_with("warning: no agent answers"), "{:?}", well.of("agent"));
    assert!(well.of("port").iter().all(|port| port.ends_with("is free")), "{:?}", well.of("port"));

    let taken = a.namespace.enter(|| std::net::TcpListener::bind("192.0.2.1:7946").expect("bound"));
    a.doctor(&[]).blames("7946/tcp (gossip) is held by netns-");
    drop(taken);

    a.namespace.run(&format!("ip link add vx0 type vxlan id 7 dstport 4789 dev {UNDERLAY}"));
    a.namespace.run("ip link set vx0 up");
    a.doctor(&[]).blames("4789/udp (data) is held by a VXLAN device of the kernel: vx0");
    a.namespace.run("ip link del vx0");

    let hidden = "mount -t tmpfs none /usr/sbin && mount -t tmpfs none /dev/net && exec \"$@\"";
    let bare = a.doctor(&["unshare", "--mount", "env", "PATH=/bin", "sh", "-c", hidden, "sh"]);
    let problems = bare.problems();
    assert!(bare.failed && problems.len() == 2, "{problems:?}");
    assert!(problems[0].contains("no /dev/net/tun") && problems[1].contains("no nft here"), "{problems:?}");
    before.assert_unchanged(a);
}

#[test]
fn cleanup_takes_everything_an_agent_left_and_leaves_a_running_one_alone() {
    needs_root!();
    let rig = Rig::wire(&["a"]);
    let a = &rig.hosts[0];
    let before = Snapshot::of(a);
    a.start(&[]);
    a.ok(&["network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "blue"]);
    a.ok(&["network", "create", "--subnet", "10.8.0.0/24", "front"]);
    drop([a.sandbox("web", "blue", &[]), a.sandbox("db", "front", &[])]);
    let refused = a.about_itself(&[], &["cleanup"]);
    assert!(refused.code == 1 && refused.stderr.contains("another agent"), "{refused:?}");

    a.stop();
    let kept = a.doctor(&[]).of("leftovers");
    assert!(
        kept[0].starts_with("ok: kept for the agent's next start") && kept[0].contains("tables"),
        "{kept:?}"
    );
    let removed = a.about_itself(&[], &["cleanup"]);
    assert!(removed.code == 0 && removed.stdout.contains("namespaces"), "{removed:?}");
    before.assert_unchanged(a);
    assert_eq!(a.about_itself(&[], &["cleanup"]).stdout, "Nothing of weft's was left here.\n");

    a.start(&[]);
    assert!(a.attached("web", "blue").ip4.is_some(), "an agent makes everything anew");
}
