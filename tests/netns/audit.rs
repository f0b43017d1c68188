//! What a host holds, so that "as before" can be compared, and what a failed test must not leave.

use std::collections::BTreeSet;
use std::path::Path;

use nix::mount::{MntFlags, umount2};
use serde_json::Value;

use crate::rig::Host;

/// Everything weft could change on a host.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Snapshot {
    links: BTreeSet<String>,
    addresses: BTreeSet<String>,
    routes: BTreeSet<String>,
    rules: String,
    sockets: BTreeSet<String>,
    mounts: Vec<String>,
    files: BTreeSet<String>,
    processes: BTreeSet<String>,
}

impl Snapshot {
    /// Takes stock of `host`.
    pub(crate) fn of(host: &Host) -> Self {
        let namespace = &host.namespace;
        let routes = |command: &str| -> Vec<String> {
            namespace.run(command).lines().map(|line| line.trim().to_owned()).collect()
        };
        Self {
            links: names(&namespace.run("ip -j link")),
            addresses: addresses(&namespace.run("ip -j addr")),
            routes: [routes("ip route show table all"), routes("ip -6 route show table all")]
                .concat()
                .into_iter()
                .collect(),
            rules: namespace.run("nft list ruleset"),
            sockets: listening(&namespace.run("ss -Hlntu")),
            mounts: mounts_under(&host.dir),
            files: files_under(&host.dir.join("run")),
            processes: processes_with(&host.dir),
        }
    }

    /// Fails, naming what differs, unless `host` holds exactly what it held.
    pub(crate) fn assert_unchanged(&self, host: &Host) {
        let after = Self::of(host);
        assert_eq!(*self, after, "host {} is not as before", host.name);
    }

    /// Waits until `host` holds exactly what it held.
    pub(crate) fn assert_returns(&self, host: &Host) {
        crate::wait::eventually(&format!("host {} is as before", host.name), || {
            let after = Self::of(host);
            if *self == after { Ok(()) } else { Err(format!("before {self:#?}\nafter {after:#?}")) }
        });
    }
}

/// Protocol, state and address of each socket, without what lies in its queues at the moment.
fn listening(table: &str) -> BTreeSet<String> {
    let columns = |line: &str| {
        line.split_whitespace()
            .enumerate()
            .filter(|(at, _)| [0, 1, 4].contains(at))
            .map(|(_, text)| text.to_owned())
            .collect::<Vec<_>>()
    };
    table.lines().map(|line| columns(line).join(" ")).collect()
}

fn names(json: &str) -> BTreeSet<String> {
    let links: Value = serde_json::from_str(json).expect("JSON of ip");
    links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| Some(link["ifname"].as_str()?.to_owned()))
        .collect()
}

fn addresses(json: &str) -> BTreeSet<String> {
    let links: Value = serde_json::from_str(json).expect("JSON of ip");
    let mut all = BTreeSet::new();
    for link in links.as_array().into_iter().flatten() {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            all.insert(format!("{} {}/{}", link["ifname"], address["local"], address["prefixlen"]));
        }
    }
    all
}

/// Mount points below `dir` as PID 1 and this process see them.
pub(crate) fn mounts_under(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let mut found = BTreeSet::new();
    for process in ["self", "1"] {
        let table = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        found.extend(
            table
                .lines()
                .filter_map(|line| line.split(' ').nth(4))
                .filter(|at| at.starts_with(&*dir))
                .map(str::to_owned),
        );
    }
    found.into_iter().collect()
}

/// Paths below `dir`, relative to it.
pub(crate) fn files_under(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            found.insert(path.strip_prefix(dir).unwrap_or(&path).display().to_string());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

/// Command lines of the processes that name `dir`.
pub(crate) fn processes_with(dir: &Path) -> BTreeSet<String> {
    let dir = dir.to_string_lossy();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*dir) {
            found.insert(line);
        }
    }
    found
}

/// Removes what a failed test left below `dir`: processes that name it or live in its namespaces, and mounts.
pub(crate) fn sweep(dir: &Path) {
    let mounts = mounts_under(dir);
    let namespaces: BTreeSet<u64> = mounts
        .iter()
        .filter_map(|at| Some(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(at).ok()?)))
        .collect();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside = std::fs::metadata(entry.path().join("ns/net"))
            .is_ok_and(|namespace| namespaces.contains(&std::os::unix::fs::MetadataExt::ino(&namespace)));
        if inside && pid != i32::try_from(std::process::id()).unwrap_or(0) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    mounts.iter().rev().for_each(|mount| unmount(mount));
}

/// Takes a mount away, ours or PID 1's.
pub(crate) fn unmount(at: &str) {
    if umount2(at, MntFlags::MNT_DETACH).is_err() {
        let _ = std::process::Command::new("nsenter").args(["-t", "1", "-m", "umount", "-l", at]).output();
    }
}
