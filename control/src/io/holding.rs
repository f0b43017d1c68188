//! What an agent has to itself: its directories, its ports, its socket. Whoever comes second is told who was first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::agent::AgentError;

/// Name of the file that is locked for as long as an agent has the directory.
const LOCK: &str = "agent.lock";

pub(crate) fn failed(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::Io { attempt: attempt.into(), source }
}

/// A directory this agent alone uses; dropped, it is given up and removed as far as it was made for us and is empty.
#[derive(Debug)]
pub(crate) struct Held {
    directory: PathBuf,
    /// Whether the directory was made for us.
    made: bool,
    _lock: Flock<File>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Removed while still locked: whoever comes next makes a new file, and checks that it is the one he locked.
        let _ = fs::remove_file(self.directory.join(LOCK));
        if self.made {
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// Makes the directory with `mode` if needed, and takes it.
///
/// # Errors
/// Another agent has it, or it is somebody else's and open to others.
pub(crate) fn hold(directory: &Path, mode: u32) -> Result<Held, AgentError> {
    let attempt = || format!("use the directory {}", directory.display());
    let made = !directory.exists();
    DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(failed(attempt()))?;
    keep_to_ourselves(directory, mode)?;
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut lock = Flock::lock(file.map_err(failed(attempt()))?, FlockArg::LockExclusiveNonblock).map_err(
        |(mut file, _)| {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse().ok());
            AgentError::DirectoryHeld { path: directory.to_owned(), pid }
        },
    )?;
    let same = |there: fs::Metadata, locked: fs::Metadata| {
        (there.dev(), there.ino()) == (locked.dev(), locked.ino())
    };
    if !fs::metadata(&path).and_then(|there| Ok(same(there, lock.metadata()?))).unwrap_or(false) {
        // Whoever had it gave it up between our opening and our locking.
        drop(lock);
        return hold(directory, mode);
    }
    lock.set_len(0).map_err(failed(attempt()))?;
    writeln!(lock, "{}", std::process::id()).map_err(failed(attempt()))?;
    Ok(Held { directory: directory.to_owned(), made, _lock: lock })
}

/// Takes rights from others that the directory should not give; only if it is empty or ours.
fn keep_to_ourselves(directory: &Path, mode: u32) -> Result<(), AgentError> {
    let attempt = || format!("use the directory {}", directory.display());
    let meta = fs::metadata(directory).map_err(failed(attempt()))?;
    if meta.mode() & 0o777 & !mode == 0 {
        return Ok(());
    }
    let mut entries = fs::read_dir(directory).map_err(failed(attempt()))?;
    if !directory.join(LOCK).exists() && entries.next().is_some() {
        return Err(AgentError::Start(format!(
            "{} is open to others (mode {:04o}) and not weft's own; use an empty directory, or chmod it to {mode:04o}",
            directory.display(),
            meta.mode() & 0o7777
        )));
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).map_err(failed(attempt()))
}

/// Removes what a dead agent left at the socket's path; a live one keeps it.
///
/// # Errors
/// Somebody answers there, or it is no socket.
pub(crate) fn clear_socket(path: &Path) -> Result<(), AgentError> {
    let attempt = || format!("serve on {}", path.display());
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(failed(attempt())(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else is there",
        )));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(AgentError::Start(format!("another agent serves on {}", path.display())));
    }
    fs::remove_file(path).map_err(failed(attempt()))
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The error of a port that could not be bound, naming its holder where that is why.
pub(crate) fn port_error(transport: Transport, address: SocketAddr, fault: io::Error) -> AgentError {
    match fault.kind() {
        io::ErrorKind::AddrInUse => {
            AgentError::PortHeld { port: address.port(), pid: port_holder(transport, address.port()) }
        }
        io::ErrorKind::AddrNotAvailable => AgentError::Advertise(not_ours(address)),
        _ => failed(format!("listen on {address}"))(fault),
    }
}

fn not_ours(address: SocketAddr) -> String {
    format!("{} is not an address of this host; --advertise takes one of its own", address.ip())
}

/// The process that has the port open in this network namespace, if it can be told.
pub(crate) fn port_holder(transport: Transport, port: u16) -> Option<u32> {
    let tables = match transport {
        Transport::Udp => ["udp", "udp6"],
        Transport::Tcp => ["tcp", "tcp6"],
    };
    let inodes: Vec<_> = tables.into_iter().flat_map(|table| socket_inodes(table, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.into_iter().any(|target| inodes.iter().any(|inode| target == Path::new(inode)))
    })
}

/// `socket:[inode]` of every socket bound to `port`, from `/proc/net/{table}` (`man 5 proc`).
fn socket_inodes(table: &str, port: u16) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let listening = table.starts_with("udp") || fields.get(3) == Some(&"0A");
        (listening && u16::from_str_radix(local, 16) == Ok(port))
            .then_some(format!("socket:[{}]", fields.get(9)?))
    };
    text.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_second_agent_is_told_who_has_the_directory() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("state");
        let first = hold(&directory, 0o700).expect("nobody has it");
        assert_eq!(fs::metadata(&directory).expect("it is there").mode() & 0o777, 0o700);
        let refused = hold(&directory, 0o700).expect_err("it is taken").to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(first);
        hold(&directory, 0o700).expect("it is free again");
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_closed_to_others() {
        let parent = tempfile::tempdir().expect("a directory");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(parent.path(), open.clone()).expect("it is ours");
        let empty = hold(parent.path(), 0o700).expect("an empty directory is taken over");
        assert_eq!(fs::metadata(parent.path()).expect("it is there").mode() & 0o777, 0o700);
        drop(empty);
        let other = tempfile::tempdir().expect("a directory");
        File::create(other.path().join("theirs")).expect("made");
        fs::set_permissions(other.path(), open).expect("it is ours");
        let refused = hold(other.path(), 0o700).expect_err("it is not ours").to_string();
        assert!(refused.contains("chmod"), "{refused}");
        assert_eq!(fs::metadata(other.path()).expect("it is there").mode() & 0o777, 0o755);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path: PathBuf = directory.path().join("weft.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        assert!(clear_socket(&path).expect_err("somebody answers").to_string().contains("another agent"));
        drop(listener);
        clear_socket(&path).expect("nobody answers");
        assert!(!path.exists());
        File::create(&path).expect("made");
        clear_socket(&path).expect_err("a file is not ours to remove");
        assert!(path.exists());
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let (udp, tcp) = (udp.local_addr().expect("bound"), tcp.local_addr().expect("bound"));
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        for (transport, address) in [(Transport::Udp, udp), (Transport::Tcp, tcp)] {
            let message = port_error(transport, address, in_use()).to_string();
            let expected = format!("port {} is in use (pid {})", address.port(), std::process::id());
            assert_eq!(message, expected);
        }
    }
}
