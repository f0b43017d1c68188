//! The host's own `resolv.conf`, looked at again and again, and the files that sandboxes read instead of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::model::SandboxId;
use crate::names::{Files, HostResolver};

/// Where systemd-resolved keeps the servers that its stub asks.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// Longest `resolv.conf` that is read, octets.
const MAX_LEN: u64 = 64 << 10;
/// The port servers are asked at.
const PORT: u16 = 53;

/// Which version of a file it is.
type Stamp = (u64, u64, i64, i64);

/// The host's `resolv.conf` as it was read last.
#[derive(Debug)]
pub(crate) struct Host {
    path: PathBuf,
    stamps: [Option<Stamp>; 2],
    /// What it says.
    asked: HostResolver,
    /// The same, or what is behind a stub that sandboxes cannot reach.
    shown: HostResolver,
}

impl Host {
    pub(crate) fn new(path: PathBuf) -> Self {
        let mut host =
            Self { path, stamps: [None; 2], asked: HostResolver::default(), shown: HostResolver::default() };
        host.refresh();
        host
    }

    /// Reads it again if it has changed; answers whether it says something else now.
    pub(crate) fn refresh(&mut self) -> bool {
        let stamps = [stamp(&self.path), stamp(Path::new(BEHIND_STUB))];
        if stamps == self.stamps && stamps[0].is_some() {
            return false;
        }
        self.stamps = stamps;
        let asked = read(&self.path);
        let shown = if asked.is_stub() { read(Path::new(BEHIND_STUB)) } else { asked.clone() };
        let changed = (&asked, &shown) != (&self.asked, &self.shown);
        (self.asked, self.shown) = (asked, shown);
        changed
    }

    /// Servers, as they are asked from the host's namespace.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.asked.servers.iter().map(|server| SocketAddr::new(*server, PORT)).collect()
    }

    /// What the files of sandboxes are made from.
    pub(crate) fn resolver(&self, embedded: bool) -> &HostResolver {
        if embedded { &self.asked } else { &self.shown }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// A file that is not there, or no text, names nothing.
fn read(path: &Path) -> HostResolver {
    let text = File::open(path).and_then(|file| io::read_to_string(io::Read::take(file, MAX_LEN)));
    text.map(|text| HostResolver::read(&text)).unwrap_or_default()
}

/// The files of sandboxes, each in a directory of its own.
#[derive(Debug)]
pub(crate) struct SandboxFiles {
    directory: PathBuf,
    written: BTreeMap<SandboxId, Files>,
}

/// Where a sandbox's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) resolv_conf: PathBuf,
    pub(crate) hosts: PathBuf,
    pub(crate) hostname: PathBuf,
}

impl SandboxFiles {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, written: BTreeMap::new() }
    }

    pub(crate) fn paths(&self, sandbox: SandboxId) -> Paths {
        let at = self.directory.join(sandbox.to_string());
        Paths { resolv_conf: at.join("resolv.conf"), hosts: at.join("hosts"), hostname: at.join("hostname") }
    }

    /// What was written last.
    pub(crate) fn get(&self, sandbox: SandboxId) -> Option<&Files> {
        self.written.get(&sandbox)
    }

    /// Writes what differs from what was written last, and removes the files of everybody else.
    pub(crate) fn settle(&mut self, wanted: BTreeMap<SandboxId, Files>) {
        for (sandbox, files) in &wanted {
            if self.written.get(sandbox) != Some(files)
                && let Err(fault) = self.write(*sandbox, files)
            {
                tracing::warn!(%sandbox, %fault, "the files of a sandbox's resolver cannot be written");
            }
        }
        let keep: BTreeSet<String> = wanted.keys().map(ToString::to_string).collect();
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !keep.contains(&*entry.file_name().to_string_lossy())) {
            if let Err(fault) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %fault, "left over");
            }
        }
        if wanted.is_empty() {
            let _ = fs::remove_dir(&self.directory);
        }
        self.written = wanted;
    }

    fn write(&self, sandbox: SandboxId, files: &Files) -> io::Result<()> {
        let paths = self.paths(sandbox);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(self.directory.join(sandbox.to_string()))?;
        put(&paths.resolv_conf, &files.resolv_conf)?;
        put(&paths.hosts, &files.hosts)?;
        put(&paths.hostname, &files.hostname)
    }
}

/// Writes in place: the file is mounted where commands look for it, and must stay the same one.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_hosts_file_is_seen_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("resolv.conf");
        let mut host = Host::new(path.clone());
        assert!(host.servers().is_empty(), "there is none yet");
        fs::write(&path, "nameserver 192.0.2.53\nsearch example.org\n").expect("written");
        assert!(host.refresh() && !host.refresh());
        assert_eq!(host.servers(), ["192.0.2.53:53".parse::<SocketAddr>().expect("address")]);
        fs::write(&path, "# the same\nnameserver 192.0.2.53\nsearch example.org\n").expect("written");
        assert!(!host.refresh(), "a comment says nothing");
        fs::remove_file(&path).expect("removed");
        assert!(host.refresh() && host.servers().is_empty());
    }

    #[test]
    fn a_file_changes_in_place_and_goes_with_its_sandbox() {
        let directory = tempfile::tempdir().expect("directory");
        let mut files = SandboxFiles::new(directory.path().join("sandboxes"));
        let (one, other) = (SandboxId([1; 16]), SandboxId([2; 16]));
        let text = |hosts: &str| Files { hosts: hosts.to_owned(), ..Files::default() };
        files.settle([(one, text("long\n")), (other, text("x\n"))].into());
        let path = files.paths(one).hosts;
        let inode = fs::metadata(&path).expect("there").ino();
        files.settle([(one, text("a\n"))].into());
        assert_eq!(fs::read_to_string(&path).expect("there"), "a\n");
        assert_eq!(fs::metadata(&path).expect("there").ino(), inode);
        assert!(!files.paths(other).hosts.exists());
        files.settle(BTreeMap::new());
        assert!(!directory.path().join("sandboxes").exists());
    }
}
