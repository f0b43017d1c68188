//! System calls that no safe crate offers in the shape the packet path needs: TAP ioctls, integer socket
//! options and batched UDP with gathered buffers. The only `unsafe` of the crate; each block is wrapped at once.

#![expect(unsafe_code, reason = "the kernel's interface; every block says what it relies on")]

use std::ffi::{c_int, c_ulong};
use std::io::{self, IoSliceMut};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Longest interface name, octets without the final zero (`IFNAMSIZ` − 1).
pub(crate) const NAME_MAX: usize = libc::IFNAMSIZ - 1;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain C data for which all-zero octets are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, &from) in request.ifr_name.iter_mut().zip(name.as_bytes().iter().take(NAME_MAX)) {
        *to = from as libc::c_char;
    }
    request
}

/// Features this kernel's tun driver has (`IFF_*` bits).
pub(crate) fn tun_features(tun: BorrowedFd<'_>) -> io::Result<u32> {
    let mut features: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES writes one unsigned int to the pointer, which is valid for that.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETFEATURES, &raw mut features) })?;
    Ok(features)
}

/// Binds the descriptor to interface `name`, creating it where it does not exist.
pub(crate) fn tun_set_interface(tun: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq at the pointer, which is valid for both.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).map(drop)
}

/// Sets the length of the virtio_net_hdr in front of each frame, octets.
pub(crate) fn tun_set_vnet_header_len(tun: BorrowedFd<'_>, octets: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int at the pointer, which is valid for that.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const octets) }).map(drop)
}

/// Says which offloads we do for the kernel (`TUN_F_*` bits).
pub(crate) fn tun_set_offload(tun: BorrowedFd<'_>, bits: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value; no memory is touched.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(bits)) }).map(drop)
}

/// Lets processes of user `owner` open the interface by its name.
pub(crate) fn tun_set_owner(tun: BorrowedFd<'_>, owner: u32) -> io::Result<()> {
    // SAFETY: TUNSETOWNER takes its argument by value; no memory is touched.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOWNER, c_ulong::from(owner)) }).map(drop)
}

/// Has the interface stay when its last descriptor is closed.
pub(crate) fn tun_set_persistent(tun: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value; no memory is touched.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, c_ulong::from(1_u32)) }).map(drop)
}

/// Sets the queue length of interface `name`, packets, in the network namespace of `socket`.
pub(crate) fn set_queue_len(socket: BorrowedFd<'_>, name: &str, packets: c_int) -> io::Result<()> {
    let mut request = interface_request(name);
    // `ifr_qlen` is the int of the union; libc names that int after its other use.
    request.ifr_ifru.ifru_metric = packets;
    // SAFETY: SIOCSIFTXQLEN reads one ifreq at the pointer, which is valid for that.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN, &raw const request) }).map(drop)
}

/// Has a packet socket take frames of every protocol from the interface of this index, and send by it.
pub(crate) fn bind_packet_socket(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain C data for which all-zero octets are a valid value.
    let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    name.sll_family = libc::AF_PACKET as libc::sa_family_t;
    name.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    name.sll_ifindex = index as c_int;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_ll and `length` is its size.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) }).map(drop)
}

/// Sets an integer socket option.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live int and `len` is its size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    check(result).map(drop)
}

/// Packets that a socket had no room for, modulo 2³² (`SO_MEMINFO`, linux/sock_diag.h).
pub(crate) fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    let (fd, to) = (socket.as_raw_fd(), values.as_mut_ptr());
    // SAFETY: the pointer is to live memory of `len` octets, and the kernel writes no more than that.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, to.cast(), &raw mut len) })?;
    Ok(values[DROPS])
}

/// The kernel's version, such as (6, 18); (0, 0) where it cannot be told.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let names = nix::sys::utsname::uname();
    names.map_or((0, 0), |names| version_of(&names.release().to_string_lossy()))
}

fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A socket address in the kernel's form; large enough for IPv4 and IPv6.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    family: libc::sa_family_t,
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(v6) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                },
            },
        }
    }
}

impl Name {
    /// All-zero, of no family.
    fn empty() -> Self {
        // SAFETY: the variants are plain C data for which all-zero octets are valid.
        unsafe { std::mem::zeroed() }
    }

    fn len(&self) -> libc::socklen_t {
        // SAFETY: every variant begins with the family.
        let family = c_int::from(unsafe { self.family });
        let size = if family == libc::AF_INET { size_of::<libc::sockaddr_in>() } else { size_of::<Self>() };
        size as libc::socklen_t
    }

    /// The IP address and port, `None` for any other family.
    fn address(&self) -> Option<SocketAddr> {
        // SAFETY: every variant begins with the family, and the family says which one the kernel wrote; where
        // the name was never written, it is the zeroed one of `empty`.
        unsafe {
            match c_int::from(self.family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(self.v4.sin_port)))
                }
                libc::AF_INET6 => {
                    let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                    Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(self.v6.sin6_port)))
                }
                _ => None,
            }
        }
    }
}

/// A control message with one integer: UDP_SEGMENT carries 16 bits on the way out, UDP_GRO 32 on the way in.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    value: [u8; 8],
}

impl Control {
    fn segment(size: u16) -> Self {
        // SAFETY: `cmsghdr` is plain C data for which all-zero octets are valid.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        let [a, b] = size.to_ne_bytes();
        Self { header, value: [a, b, 0, 0, 0, 0, 0, 0] }
    }

    /// The UDP_GRO segment size, where `len` octets of control data hold one.
    fn gro(&self, len: usize) -> Option<u32> {
        let is_gro = len >= size_of::<libc::cmsghdr>() + size_of::<c_int>()
            && self.header.cmsg_level == libc::SOL_UDP
            && self.header.cmsg_type == libc::UDP_GRO;
        let [a, b, c, d, ..] = self.value;
        is_gro.then(|| u32::from_ne_bytes([a, b, c, d])).filter(|&size| size > 0)
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is plain C data; null pointers with zero lengths are valid in it.
    unsafe { std::mem::zeroed() }
}

/// One message received: one datagram, or several that UDP_GRO joined.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) from: SocketAddr,
    /// Its octets in the inbox's memory.
    pub(crate) range: Range<u32>,
    /// Length of each datagram but the last, which may be shorter.
    pub(crate) stride: u32,
    /// The message did not fit; its tail is lost.
    pub(crate) truncated: bool,
}

/// Memory for one batch of received messages. Pages are touched only as messages need them.
pub(crate) struct Inbox {
    memory: Vec<u8>,
    slot: usize,
    names: Vec<Name>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Inbox {
    /// Room for `slots` messages of `slot` octets.
    pub(crate) fn new(slots: usize, slot: usize) -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            memory: vec![0; slots * slot],
            slot,
            names: vec![Name::empty(); slots],
            controls: vec![Control::segment(0); slots],
            vectors: vec![vector; slots],
            headers: vec![empty_header(); slots],
        }
    }

    /// Receives up to `most` messages without waiting and returns their number.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let most = most.min(self.headers.len());
        let base = self.memory.as_mut_ptr();
        for index in 0..most {
            // SAFETY: `index` < slots, so the offset stays inside `memory`.
            let start = unsafe { base.add(index * self.slot) };
            self.vectors[index] = libc::iovec { iov_base: start.cast(), iov_len: self.slot };
            self.names[index] = Name::empty();
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: the first `most` headers point to disjoint parts of vectors this struct owns, which do not
        // move or go away during the call, and every length is that of the part pointed to.
        check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        })
        .map(|received| received as usize)
    }

    /// Message `index` of the batch received last; `None` where its sender has no IP address.
    pub(crate) fn message(&self, index: usize) -> Option<Received> {
        let header = &self.headers[index];
        let len = (header.msg_len as usize).min(self.slot) as u32;
        let start = (index * self.slot) as u32;
        Some(Received {
            from: self.names[index].address()?,
            range: start..start + len,
            stride: self.controls[index].gro(header.msg_hdr.msg_controllen as _).unwrap_or(len.max(1)),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// All memory; the ranges of messages are offsets into it.
    pub(crate) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// Which memory a piece lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Headers and sealed datagrams made for this batch.
    Made,
    /// Frames as they were read.
    Frames,
}

/// A part of a message to send: octets of the sender's memory, linked to the next part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) memory: Memory,
    pub(crate) start: u32,
    pub(crate) len: u32,
    /// Index of the next piece of the same message, or [`Piece::LAST`].
    pub(crate) next: u32,
}

impl Piece {
    /// Marks the end of a chain.
    pub(crate) const LAST: u32 = u32::MAX;

    /// Where its octets end.
    pub(crate) fn end(&self) -> u32 {
        self.start + self.len
    }
}

/// Most descriptors the kernel passes with one message (`SCM_MAX_FD`, include/net/scm.h).
const DESCRIPTORS_MAX: usize = 253;

/// One `recvmsg` on a unix socket: the octets read, and every descriptor that came with them (`man 7 unix`).
///
/// There is room for as many as a message can carry, so none arrives without an owner that closes it.
///
/// # Errors
/// The socket's; nothing is to be read yet on a non-blocking one.
pub fn receive_descriptors(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = item {
            // SAFETY: the kernel installed these descriptors in our table during this very call and nobody
            // else knows their numbers; each is owned once.
            descriptors.extend(numbers.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Ok((message.bytes, descriptors))
}

/// A message to send: a chain of pieces, cut by the kernel into datagrams of `segment` octets where given.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub(crate) to: Name,
    pub(crate) first: u32,
    pub(crate) segment: Option<u16>,
}

/// Scratch space for sending; sized at start so that nothing is allocated per packet.
pub(crate) struct Sender {
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
    names: Vec<Name>,
    headers: Vec<libc::mmsghdr>,
}

impl Sender {
    /// Room for `messages` messages of `pieces` pieces in all per call.
    pub(crate) fn new(messages: usize, pieces: usize) -> Self {
        Self {
            vectors: Vec::with_capacity(pieces),
            controls: Vec::with_capacity(messages),
            names: Vec::with_capacity(messages),
            headers: Vec::with_capacity(messages),
        }
    }

    /// Sends `messages` in order without waiting and returns how many went out; an error is about the first.
    /// Pieces that do not lie in `memory` (made, frames) are left out.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: [&[u8]; 2],
        pieces: &[Piece],
        messages: &[Message],
    ) -> io::Result<usize> {
        self.vectors.clear();
        self.controls.clear();
        self.names.clear();
        self.headers.clear();
        for message in messages {
            let mut header = empty_header();
            let before = self.vectors.len();
            self.gather(memory, pieces, message.first);
            header.msg_hdr.msg_iovlen = self.vectors.len() - before;
            self.names.push(message.to);
            self.controls.push(Control::segment(message.segment.unwrap_or(0)));
            header.msg_hdr.msg_namelen = message.to.len();
            header.msg_hdr.msg_controllen =
                if message.segment.is_some() { size_of::<Control>() as _ } else { 0 };
            self.headers.push(header);
        }
        // Pointers are taken only after the last push, for a push may move a vector.
        let mut vector = 0;
        for (index, header) in self.headers.iter_mut().enumerate() {
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_iov = self.vectors[vector..].as_mut_ptr();
            vector += header.msg_iovlen;
            if header.msg_controllen > 0 {
                header.msg_control = (&raw mut self.controls[index]).cast();
            }
        }
        // SAFETY: the headers point into vectors this struct owns, which do not move during the call; the
        // iovecs point into `memory`, borrowed for the call, and the kernel only reads through them.
        check(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        })
        .map(|sent| sent as usize)
    }

    /// Appends the chain that begins at `first`; no chain is longer than the number of pieces.
    fn gather(&mut self, memory: [&[u8]; 2], pieces: &[Piece], first: u32) {
        let mut at = first;
        for _ in 0..pieces.len() {
            let Some(piece) = pieces.get(at as usize) else { return };
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            if let Some(part) = memory[piece.memory as usize].get(range) {
                let base = part.as_ptr().cast_mut().cast();
                self.vectors.push(libc::iovec { iov_base: base, iov_len: part.len() });
            }
            at = piece.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_release_is_read_up_to_its_minor_number() {
        for (release, version) in [
            ("6.8.12", (6, 8)),
            ("6.9.0-rc1", (6, 9)),
            ("6.18-x", (6, 18)),
            ("5.15.0-91-generic", (5, 15)),
            ("7", (7, 0)),
            ("?", (0, 0)),
        ] {
            assert_eq!(version_of(release), version, "{release}");
        }
    }

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["192.0.2.1:4789", "[2001:db8::1]:49152"] {
            let address: SocketAddr = text.parse().expect("address");
            assert_eq!(Name::from(address).address(), Some(address));
        }
        assert_eq!(Name::empty().address(), None);
    }
}
