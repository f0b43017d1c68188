//! TAP devices: the kernel end of a segment's port.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::link::LinkStatistics;
use super::sys;
use crate::wire::vnet;

/// Most queues of one TAP (`MAX_TAP_QUEUES`, drivers/net/tun.c).
pub const QUEUES_MAX: usize = 256;

/// Packets the kernel queues towards us before it drops; each may be 64 octets or 64 KiB.
const QUEUE_LEN: i32 = 1000;

/// A TAP could not be made. Nothing is left behind: a TAP goes away with its last descriptor.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is empty, longer than 15 octets, or has octets the kernel refuses.
    #[error("`{0}` is not an interface name: 1 to 15 characters, no `/`, `:`, `%` or white space")]
    Name(String),
    /// No queue or too many.
    #[error("a TAP has 1 to {QUEUES_MAX} queues, not {0}")]
    Queues(usize),
    /// This process may not open the tun driver, or the kernel has none.
    #[error("cannot open /dev/net/tun")]
    Open(#[source] io::Error),
    /// The kernel's tun driver is too old.
    #[error("the kernel's tun driver lacks {0}")]
    Missing(&'static str),
    /// The kernel refused one step.
    #[error("cannot {step} TAP `{name}`")]
    Refused {
        /// What was attempted.
        step: &'static str,
        /// Name of the device.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A TAP device. Dropping it removes it.
#[derive(Debug)]
pub struct Tap {
    queues: Vec<TapQueue>,
    link: LinkStatistics,
}

impl Tap {
    /// Creates TAP `name` with `queues` queues in the calling thread's network namespace.
    ///
    /// It is not persistent: dropping every queue removes it. Checksum, TCP and, where the kernel has it, UDP
    /// segmentation are left to us, so reads are up to 64 KiB with a virtio_net_hdr in front.
    ///
    /// # Errors
    /// A name in use, a bad name or number of queues, a missing privilege (CAP_NET_ADMIN) or kernel feature.
    pub fn create(name: &str, queues: usize) -> Result<Self, TapError> {
        if !is_interface_name(name) {
            return Err(TapError::Name(name.to_owned()));
        }
        if queues == 0 || queues > QUEUES_MAX {
            return Err(TapError::Queues(queues));
        }
        let queues =
            (0..queues).map(|number| open_queue(name, number == 0)).collect::<Result<Vec<_>, _>>()?;
        configure(name, &queues[0])?;
        let link = LinkStatistics::open(name).map_err(refused("watch", name))?;
        Ok(Self { queues, link })
    }

    /// Frames its queues had no room for so far; a super-frame counts once.
    pub fn drops(&mut self) -> u64 {
        self.link.unsent()
    }

    /// Its queues, which keep it from now on.
    #[must_use]
    pub fn into_queues(self) -> Vec<TapQueue> {
        self.queues
    }

    /// Its queues, and what the kernel counts of it.
    pub(crate) fn into_parts(self) -> (Vec<TapQueue>, LinkStatistics) {
        (self.queues, self.link)
    }

    /// Whether this process may open the tun driver and it has what [`Tap::create`] needs; nothing is made.
    ///
    /// # Errors
    /// It may not, or the driver lacks something.
    pub fn is_possible() -> Result<(), TapError> {
        open_driver().and_then(|file| multi_queue(&file))
    }

    /// Creates TAP `name` with one queue in the calling thread's network namespace, for somebody else to use: a virtual
    /// machine's monitor, which needs no privilege with the descriptor in its hands.
    ///
    /// Frames have a virtio_net_hdr of 10 octets in front. Longer ones and segmentation are the user's to ask for
    /// (`TUNSETVNETHDRSZ`, `TUNSETOFFLOAD`), as its guest can. The TAP goes away with the last descriptor.
    ///
    /// # Errors
    /// A name in use, a bad name, a missing privilege (CAP_NET_ADMIN) or kernel feature.
    pub fn lend(name: &str) -> Result<OwnedFd, TapError> {
        if !is_interface_name(name) {
            return Err(TapError::Name(name.to_owned()));
        }
        let file = open_driver()?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
        sys::tun_set_interface(file.as_fd(), name, flags).map_err(refused("create", name))?;
        Ok(file.into())
    }

    /// Creates TAP `name`, as [`Tap::lend`] does, that stays when nobody has it open, for processes of user `owner` to
    /// open by its name.
    ///
    /// # Errors
    /// As [`Tap::lend`]; nothing is left then.
    pub fn keep(name: &str, owner: u32) -> Result<(), TapError> {
        let tap = Self::lend(name)?;
        sys::tun_set_owner(tap.as_fd(), owner).map_err(refused("set the owner of", name))?;
        sys::tun_set_persistent(tap.as_fd()).map_err(refused("keep", name))
    }
}

/// One queue of a TAP: reads and writes are one frame each, behind a virtio_net_hdr.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
}

#[cfg(test)]
impl From<File> for TapQueue {
    fn from(file: File) -> Self {
        Self { file }
    }
}

impl TapQueue {
    /// Reads one virtio_net_hdr and frame, without waiting.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one virtio_net_hdr and frame given in parts, without waiting.
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(parts)
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The rule of `dev_valid_name` (net/core/dev.c), and no `%`, which would make the kernel choose a number.
fn is_interface_name(name: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_graphic() && !b"/:%".contains(&octet);
    (1..=sys::NAME_MAX).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed)
}

fn open_queue(name: &str, first: bool) -> Result<TapQueue, TapError> {
    const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    // The first one must not take over a device that somebody else made and kept.
    let flags = if first { FLAGS | libc::IFF_TUN_EXCL } else { FLAGS };
    let file = open_driver()?;
    multi_queue(&file)?;
    sys::tun_set_interface(file.as_fd(), name, flags).map_err(refused("create", name))?;
    Ok(TapQueue { file })
}

fn multi_queue(file: &File) -> Result<(), TapError> {
    let features = sys::tun_features(file.as_fd()).map_err(TapError::Open)?;
    if features & libc::IFF_MULTI_QUEUE as u32 == 0 { Err(TapError::Missing("multi-queue")) } else { Ok(()) }
}

/// A descriptor of the tun driver without an interface.
fn open_driver() -> Result<File, TapError> {
    // Non-blocking is not only for epoll: the driver's fast path for small writes asks for it (tun_can_build_skb).
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(TapError::Open)?;
    let features = sys::tun_features(file.as_fd()).map_err(TapError::Open)?;
    if features & libc::IFF_VNET_HDR as u32 == 0 {
        return Err(TapError::Missing("virtio_net_hdr"));
    }
    Ok(file)
}

fn configure(name: &str, queue: &TapQueue) -> Result<(), TapError> {
    let fd = queue.as_fd();
    sys::tun_set_vnet_header_len(fd, vnet::HEADER_LEN as i32)
        .map_err(refused("set the header length of", name))?;
    set_offloads(fd).map_err(refused("set the offloads of", name))?;
    set_queue_len(name).map_err(refused("set the queue length of", name))
}

fn set_offloads(fd: BorrowedFd<'_>) -> io::Result<()> {
    const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const UDP: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    match sys::tun_set_offload(fd, TCP | UDP) {
        // Linux before 6.2 has no UDP segmentation over TAP.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => sys::tun_set_offload(fd, TCP),
        other => other,
    }
}

fn set_queue_len(name: &str) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    sys::set_queue_len(socket.as_fd(), name, QUEUE_LEN)
}

fn refused(step: &'static str, name: &str) -> impl FnOnce(io::Error) -> TapError {
    let name = name.to_owned();
    move |source| TapError::Refused { step, name, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_or_complete_are_refused() {
        for bad in ["", ".", "..", "a/b", "a:b", "tap%d", "a b", "tab\t", "sixteen-octets-x", "é"] {
            assert!(matches!(Tap::create(bad, 1), Err(TapError::Name(_))), "{bad:?}");
        }
        assert!(is_interface_name("fifteen-octets."));
    }

    #[test]
    fn no_queue_and_too_many_are_refused() {
        for queues in [0, QUEUES_MAX + 1] {
            assert!(matches!(Tap::create("weft0", queues), Err(TapError::Queues(_))), "{queues}");
        }
    }
}
