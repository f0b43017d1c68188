//! Where commands of sandboxes are written down: one directory per sandbox, which goes with it.
//!
//! `command.json` says what to run, `life.json` what became of it, `log` and `log.1` hold its output. Files are
//! replaced whole, so that a reader sees the old or the new one.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process;
use crate::command::{Command, Life};
use crate::sandbox::Owner;

/// Longest file read, octets.
const MAX_FILE: u64 = 1 << 20;

/// The directory of one sandbox's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory at this path, which need not exist.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The file that output goes to; what it held before is in the file with `.1` behind its name.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What to run, if that was written down.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        self.read("command.json")
    }

    /// What became of it, if that was written down.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        self.read("life.json")
    }

    /// Claims the command for this process, so that no two watch over it; good for as long as the claim lives.
    ///
    /// # Errors
    /// `WouldBlock` where another has it; the file system's fault.
    pub fn claim(&self) -> io::Result<Claim> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let file = File::create(self.0.join("claim"))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map(Claim).map_err(|(_, fault)| fault.into())
    }

    /// Writes down what to run, making the directory (mode 0700).
    ///
    /// # Errors
    /// The file system's fault; what was there before is there still.
    pub fn put_command(&self, command: &Command) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        self.write("command.json", command)
    }

    /// Writes down what became of it.
    ///
    /// # Errors
    /// The file system's fault; what was there before is there still.
    pub fn put_life(&self, life: &Life) -> io::Result<()> {
        self.write("life.json", life)
    }

    /// Removes the directory with all that is in it; one that is not there is no error.
    ///
    /// # Errors
    /// The file system's fault; some files may be gone.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
            _ => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let mut text = Vec::new();
        File::open(self.0.join(name)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let unfinished = self.0.join(format!("{name}.new"));
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(unfinished, self.0.join(name))
    }
}

/// A command that is this process's to watch over.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "it is held, never read")] Flock<File>);

/// Removes every directory in `root` that is not one of `keep`.
///
/// # Errors
/// The file system's fault; some directories may be gone.
pub(crate) fn keep_only(root: &Path, keep: &BTreeSet<PathBuf>) -> io::Result<()> {
    let found = match fs::read_dir(root) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for entry in found {
        let path = entry?.path();
        if !keep.contains(&path) {
            Directory(path).remove()?;
        }
    }
    Ok(())
}

/// Whether the process that watches over a command runs.
#[must_use]
pub fn is_supervised(life: &Life) -> bool {
    runs(life.supervisor)
}

/// Whether the process runs that had this number and began at this time.
#[must_use]
pub fn runs(owner: Owner) -> bool {
    process::runs(owner)
}

/// A running process, so that it can be told from a later one of the same number.
#[must_use]
pub fn identify(pid: u32) -> Option<Owner> {
    process::identify(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_remembered_is_kept() {
        let root = tempfile::tempdir().expect("a directory");
        keep_only(&root.path().join("none"), &BTreeSet::new()).expect("nothing there");
        let at = |name: &str| root.path().join(name);
        for name in ["one", "two"] {
            Directory::at(&at(name)).put_command(&Command::default()).expect("written");
        }
        keep_only(root.path(), &BTreeSet::from([at("two")])).expect("swept");
        assert!(!at("one").exists() && at("two").exists());
    }

    #[test]
    fn what_was_written_down_is_read_until_it_is_removed() {
        let scratch = tempfile::tempdir().expect("a directory");
        let directory = Directory::at(&scratch.path().join("one"));
        assert_eq!((directory.command(), directory.life()), (None, None));
        let command = Command { cmd: vec!["true".into()], ..Command::default() };
        directory.put_command(&command).expect("written");
        let claim = directory.claim().expect("claimed");
        assert_eq!(directory.claim().expect_err("claimed before").kind(), io::ErrorKind::WouldBlock);
        drop(claim);
        directory.claim().expect("claimed again");
        let me = identify(std::process::id()).expect("it runs");
        let life = Life::under(me);
        directory.put_life(&life).expect("written");
        assert_eq!((directory.command(), directory.life()), (Some(command), Some(life.clone())));
        assert!(is_supervised(&life) && !is_supervised(&Life::under(Owner { started: 0, ..me })));
        fs::write(scratch.path().join("one/life.json"), "{").expect("written");
        assert_eq!(directory.life(), None, "half a file says nothing");
        directory.remove().expect("removed");
        directory.remove().expect("nothing to remove");
        assert!(!scratch.path().join("one").exists());
    }
}
