//! Packet sockets: whole frames of one interface (`man 7 packet`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use socket2::{SockFilter, SockRef};

use super::sys;

/// Opens a socket, without waiting, for the frames of `interface` that `filter` takes (a classic BPF program), which
/// sends whole frames by it. In the calling thread's network namespace; it hears of an interface's end as an error, once.
///
/// # Errors
/// No such interface, or a missing privilege (CAP_NET_RAW).
pub fn open_packet_socket(interface: &str, filter: &[SockFilter]) -> io::Result<OwnedFd> {
    let index = if_nametoindex(interface)?;
    // Of no protocol, it takes nothing before it has its filter.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    SockRef::from(&socket).attach_filter(filter)?;
    sys::bind_packet_socket(socket.as_fd(), index)?;
    Ok(socket)
}
