//! What the agent's process has given up.

use crate::rig::{Rig, needs_root};

/// Capabilities an agent keeps (`linux/capability.h`): DAC_OVERRIDE, NET_BIND_SERVICE, NET_ADMIN, NET_RAW,
/// SYS_CHROOT, SYS_PTRACE, SYS_ADMIN.
const KEPT: [u32; 7] = [1, 10, 12, 13, 18, 19, 21];

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
