//! Processes that sandboxes belong to, by way of `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::namespace::{Namespace, NamespaceId};
use crate::sandbox::Owner;

/// The running process `pid`, so that it can be told from a later one with the same number.
pub(crate) fn identify(pid: u32) -> Option<Owner> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    started(&stat).map(|started| Owner { pid, started })
}

/// Whether the process still runs.
pub(crate) fn runs(owner: Owner) -> bool {
    identify(owner.pid) == Some(owner)
}

/// Field 22 of `/proc/{pid}/stat` (`man 5 proc_pid_stat`); nothing for a process that has ended but is not reaped.
fn started(stat: &str) -> Option<u64> {
    // The second field is the command's name in parentheses, which may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Processes whose network namespace this is, at most `most`, but for those that this one has started there.
pub(crate) fn inside(namespace: &Namespace, most: usize) -> Vec<u32> {
    let Ok(wanted) = namespace.id() else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let theirs = numbers.filter(|pid| namespace_of(*pid) == Some(wanted) && !is_child(*pid));
    theirs.take(most).collect()
}

fn is_child(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.ok().and_then(|stat| parent(&stat)) == Some(std::process::id())
}

/// Field 4 of `/proc/{pid}/stat`.
fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

fn namespace_of(pid: u32) -> Option<NamespaceId> {
    let meta = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
    Some(NamespaceId::new(meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let rest = "S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(started(&format!("7 (a) b (c) {rest}")), Some(4711));
        assert_eq!(parent(&format!("7 (a) b (c) {rest}")), Some(1));
        assert_eq!(started(&format!("7 (a) {}", rest.replacen('S', "Z", 1))), None, "ended, not reaped");
        for bad in ["", "7", "7 (a", "7 (a) S 1"] {
            assert_eq!(started(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_number() {
        let me = identify(std::process::id()).expect("it runs");
        assert!(runs(me));
        assert!(!runs(Owner { started: me.started + 1, ..me }));
        assert!(!runs(Owner { pid: u32::MAX, started: 0 }));
    }

    #[test]
    fn this_process_is_inside_its_namespace() {
        let here = Namespace::current().expect("everybody has one");
        assert!(inside(&here, usize::MAX).contains(&std::process::id()));
        assert_eq!(inside(&here, 1).len(), 1);
    }
}
