//! What the agent's process has given up.

use crate::rig::{Rig, needs_root};

/// Capabilities an agent keeps (`linux/capability.h`): DAC_OVERRIDE, NET_BIND_SERVICE, NET_ADMIN, NET_RAW,
/// SYS_CHROOT, SYS_PTRACE, SYS_ADMIN, SYS_NICE.
const KEPT: [u32; 8] = [1, 10, 12, 13, 18, 19, 21, 23];

#[test]
fn an_agent_keeps_only_the_capabilities_it_uses_and_can_neither_gain_more_nor_be_dumped() {
    needs_root!();
    let rig = Rig::cluster(1);
    let pid = rig.hosts[0].pid();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("readable");
    let status = read("status");
    let value = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field is there");
        line.trim_start_matches(':').trim().to_owned()
    };
    let kept = KEPT.iter().fold(0u64, |mask, bit| mask | 1 << bit);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let held = u64::from_str_radix(&value(set), 16).expect("a mask");
        assert_eq!(held & !kept, 0, "{set} holds more than is used: {held:x}");
        assert_ne!(held, 0, "{set} holds what is used");
    }
    assert_eq!(value("CapInh"), "0000000000000000");
    assert_eq!(value("NoNewPrivs"), "1");
    let limits = read("limits");
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit is there");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    for thread in threads {
        let status = std::fs::read_to_string(thread.path().join("status")).expect("readable");
        assert!(status.contains("NoNewPrivs:\t1"), "every thread has given up alike");
    }
}

#[test]
fn packet_workers_alone_go_before_programs() {
    needs_root!();
    let rig = Rig::cluster(1);
    let threads = std::fs::read_dir(format!("/proc/{}/task", rig.hosts[0].pid())).expect("threads").flatten();
    let mut workers = 0;
    for thread in threads {
        let stat = std::fs::read_to_string(thread.path().join("stat")).expect("readable");
        let (name, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let nice = fields.split_whitespace().nth(16).expect("proc_pid_stat(5), field 19");
        let is_worker = name.contains("weft-worker-");
        workers += usize::from(is_worker);
        assert_eq!(nice, if is_worker { "-10" } else { "0" }, "{name}");
    }
    assert!(workers > 0);
}
