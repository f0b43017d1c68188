//! Network namespaces: made, entered and pinned without a child process.
//!
//! A namespace lives as long as a process, a descriptor or a bind mount refers to it. weft *pins* those it must
//! keep with a bind mount under `<run-dir>/netns/`, so that they outlive the agent and `nsenter --net=` finds
//! them. The mount is made in the outermost mount namespace the agent may enter (PID 1's, or else that of its
//! oldest ancestor): one made inside a private mount namespace (a hardened unit, `ip netns exec`) would be seen
//! by nobody else and would die with the agent.
//!
//! Every change of namespace happens on a thread that ends with it, so no other code ever runs in the wrong one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs, statfs};

/// What was attempted with a namespace, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct NamespaceError {
    attempt: String,
    #[source]
    source: io::Error,
}

impl NamespaceError {
    /// Whether the thing simply is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

type Result<T> = std::result::Result<T, NamespaceError>;

/// Turns a system error into "cannot {attempt}".
fn failed<E: Into<io::Error>>(attempt: impl Into<String>) -> impl FnOnce(E) -> NamespaceError {
    move |source| NamespaceError { attempt: attempt.into(), source: source.into() }
}

/// Which namespace it is: equal ids are one namespace, however they were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    pub(crate) fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

/// An open network namespace; keeps it alive.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Makes a new, empty network namespace (its loopback is down).
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or past the kernel's limit (`user.max_net_namespaces`).
    pub fn create() -> Result<Self> {
        on_thread("make a network namespace", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make a network namespace"))?;
            Self::current()
        })
    }

    /// Opens the namespace at `path`, for example `/run/netns/x` or `/proc/1/ns/net`.
    ///
    /// # Errors
    /// Nothing there, not permitted, or not a network namespace.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(failed(format!("open namespace {}", path.display())))?;
        Self::from_descriptor(file.into())
    }

    /// The network namespace of process `pid`.
    ///
    /// # Errors
    /// No such process, or not permitted.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Takes a descriptor that somebody else opened.
    ///
    /// # Errors
    /// It is not a network namespace.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self> {
        let name = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
            .map_err(failed("read the kind of a namespace descriptor"))?;
        let kind = fstatfs(&descriptor).map_err(failed("read the kind of a namespace descriptor"))?;
        // A pin's link reads as its path, a /proc one as `net:[4026531833]`: reopening through /proc gives the latter
        // only for unpinned ones, so a pin proves its kind by being enterable as a network namespace.
        let is_net = kind.filesystem_type() == NSFS_MAGIC
            && (name.to_string_lossy().starts_with("net:") || enterable(descriptor.as_fd()));
        if !is_net {
            let fault = io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not one", name.display()));
            return Err(failed("use a descriptor as a network namespace")(fault));
        }
        Ok(Self(descriptor))
    }

    /// Which namespace this is.
    ///
    /// # Errors
    /// None in practice: the descriptor is open.
    pub fn id(&self) -> Result<NamespaceId> {
        let file = self.try_clone()?;
        let meta = File::from(file.0).metadata().map_err(failed("identify a namespace"))?;
        Ok(NamespaceId { device: meta.dev(), inode: meta.ino() })
    }

    /// Another descriptor of the same namespace.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        self.0.try_clone().map(Self).map_err(failed("duplicate a namespace descriptor"))
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// Sockets and TAPs that `work` opens stay in the namespace wherever they are used afterwards.
    ///
    /// # Errors
    /// The namespace cannot be entered; `work` has then not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread("work inside a network namespace", || {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread into the namespace for good.
    ///
    /// # Errors
    /// Not permitted.
    pub fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(failed("enter a network namespace"))
    }
}

impl From<Namespace> for OwnedFd {
    fn from(namespace: Namespace) -> Self {
        namespace.0
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the kernel takes the descriptor for a network namespace.
fn enterable(descriptor: BorrowedFd<'_>) -> bool {
    let tried = on_thread("try a network namespace", || {
        setns(descriptor, CloneFlags::CLONE_NEWNET).map_err(failed("enter it"))
    });
    tried.is_ok()
}

/// Runs `work` on a thread that ends with it.
fn on_thread<T: Send>(attempt: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("weft-ns".into()).spawn_scoped(scope, work);
        let ended = thread.map_err(failed(attempt))?.join();
        ended.unwrap_or_else(|_| Err(failed(attempt)(io::Error::other("the thread panicked"))))
    })
}

/// The directory of pinned namespaces, as it is seen from the outermost mount namespace.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    mounts: Option<OwnedFd>,
}

impl Pins {
    /// Opens (and makes, mode 0750) the directory of pins.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self> {
        let pins = Self { directory: directory.to_owned(), mounts: outermost_mounts() };
        pins.seen_by_all(|| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(directory);
            made.map_err(failed(format!("make {}", directory.display())))
        })?;
        Ok(pins)
    }

    /// Where the pin `name` is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Pins `namespace` as `name`.
    ///
    /// # Errors
    /// `name` is taken, or mounting is not permitted; nothing is left behind.
    pub fn pin(&self, name: &str, namespace: &Namespace) -> Result<()> {
        let (path, attempt) = (self.path(name), format!("pin a namespace as {}", self.path(name).display()));
        let source = format!("/proc/self/fd/{}", namespace.0.as_raw_fd());
        self.seen_by_all(|| {
            if is_namespace(&path) {
                return Err(failed(attempt)(io::Error::from(io::ErrorKind::AlreadyExists)));
            }
            File::create(&path).map_err(failed(attempt.clone()))?;
            let none = None::<&str>;
            nix::mount::mount(Some(source.as_str()), &path, none, MsFlags::MS_BIND, none).map_err(|fault| {
                let _ = fs::remove_file(&path);
                failed(attempt)(fault)
            })
        })
    }

    /// Opens the pinned namespace `name`.
    ///
    /// # Errors
    /// There is no such pin ([`NamespaceError::is_missing`]), or what is there is a plain file left by a crash
    /// (missing as well).
    pub fn find(&self, name: &str) -> Result<Namespace> {
        let path = self.path(name);
        self.seen_by_all(|| {
            if !is_namespace(&path) {
                let missing = io::Error::from(io::ErrorKind::NotFound);
                return Err(failed(format!("open namespace {}", path.display()))(missing));
            }
            let file = File::open(&path).map_err(failed(format!("open namespace {}", path.display())))?;
            Ok(Namespace(file.into()))
        })
    }

    /// Names of everything in the directory, stale files included, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let attempt = format!("list {}", self.directory.display());
        self.seen_by_all(|| {
            let entries = fs::read_dir(&self.directory).map_err(failed(attempt))?;
            let mut names: Vec<_> =
                entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
            names.sort();
            Ok(names)
        })
    }

    /// Removes the pin `name`; the namespace ends once nothing else refers to it. No pin is no error.
    ///
    /// # Errors
    /// The mount or the file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        self.seen_by_all(|| {
            while is_namespace(&path) {
                nix::mount::umount2(&path, MntFlags::MNT_DETACH)
                    .map_err(failed(format!("unmount {}", path.display())))?;
            }
            match fs::remove_file(&path) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                    Err(failed(format!("remove {}", path.display()))(fault))
                }
                _ => Ok(()),
            }
        })
    }

    /// Removes the directory of pins if it is empty.
    pub fn close(self) {
        let _ = self
            .seen_by_all(|| fs::remove_dir(&self.directory).map_err(failed("remove the directory of pins")));
    }

    /// Runs `work` where mounts are seen by everyone.
    fn seen_by_all<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.mounts {
            None => work(),
            Some(mounts) => on_thread("work in the outer mount namespace", || {
                enter_mounts(mounts)?;
                work()
            }),
        }
    }
}

/// Whether a namespace is mounted at `path`.
fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Moves the calling thread, which must end soon after, into a mount namespace.
fn enter_mounts(mounts: &OwnedFd) -> Result<()> {
    // Threads share their root and working directory; the kernel refuses to move one that does.
    unshare(CloneFlags::CLONE_FS).map_err(failed("leave the shared working directory"))?;
    setns(mounts, CloneFlags::CLONE_NEWNS).map_err(failed("enter the outer mount namespace"))
}

/// The mount namespace of PID 1 or else of the oldest ancestor that may be entered; `None` when it is ours.
fn outermost_mounts() -> Option<OwnedFd> {
    let ours = fs::metadata("/proc/self/ns/mnt").ok()?;
    for pid in ancestors() {
        let Ok(file) = File::open(format!("/proc/{pid}/ns/mnt")) else { continue };
        let Ok(theirs) = file.metadata() else { continue };
        if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
            return None;
        }
        let mounts = OwnedFd::from(file);
        if on_thread("try the outer mount namespace", || enter_mounts(&mounts)).is_ok() {
            return Some(mounts);
        }
    }
    None
}

/// PID 1, then this process's ancestors from the oldest to the parent.
fn ancestors() -> Vec<u32> {
    let mut chain = Vec::new();
    let mut pid = parent("self");
    while let Some(next) = pid.filter(|pid| *pid > 1 && chain.len() < 64) {
        chain.push(next);
        pid = parent(&next.to_string());
    }
    chain.push(1);
    chain.reverse();
    chain
}

fn parent(pid: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Sets `/proc/sys/{key}` as seen inside `namespace`, for example `net/ipv4/ip_forward`.
///
/// Where `/proc/sys` is mounted read-only (containers), a private mount namespace without that mount is used.
///
/// # Errors
/// No such setting ([`NamespaceError::is_missing`]), or not permitted.
pub fn set_sysctl(namespace: &Namespace, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    let attempt = || failed(format!("set {key} to {value}"));
    namespace.run(|| match fs::write(&path, value) {
        Err(fault) if fault.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            uncover_proc_sys()?;
            fs::write(&path, value).map_err(attempt())
        }
        other => other.map_err(attempt()),
    })?
}

/// Reads `/proc/sys/{key}` as seen inside `namespace`.
///
/// # Errors
/// No such setting ([`NamespaceError::is_missing`]).
pub fn read_sysctl(namespace: &Namespace, key: &str) -> Result<String> {
    let path = format!("/proc/sys/{key}");
    namespace.run(|| fs::read_to_string(&path).map_err(failed(format!("read {key}"))))?
}

/// Gives the calling thread a mount namespace whose `/proc/sys` is the kernel's own.
fn uncover_proc_sys() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("leave the mount namespace"))?;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("make mounts private"))?;
    nix::mount::umount2("/proc/sys", MntFlags::MNT_DETACH).map_err(failed("uncover /proc/sys"))
}
