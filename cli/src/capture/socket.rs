//! A packet socket (`man 7 packet`) on every interface of a namespace.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::failure::Outcome;

/// Longest frame read whole, octets: a super-frame with its header.
pub(super) const LONGEST: usize = 128 << 10;
/// Frames that wait, octets.
const BUFFER: usize = 16 << 20;
/// Longest wait for a frame, milliseconds.
const WAIT: i64 = 100;
/// `sll_pkttype` of what leaves by an interface (linux/if_packet.h).
const PACKET_OUTGOING: u8 = 4;

/// The frames of all interfaces of one namespace. The thread that opened it is in that namespace.
pub(super) struct Frames(OwnedFd);

/// What is known of a frame.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) interface: String,
    pub(super) index: usize,
    /// It leaves the host's bridge by this interface.
    pub(super) is_outgoing: bool,
    /// Since 1970.
    pub(super) time: Duration,
    /// Octets on the wire; more than are in the buffer if it was too long.
    pub(super) length: usize,
    /// Frames lost so far.
    pub(super) missed: u32,
}

impl Frames {
    /// Moves the calling thread into the namespace and listens there.
    ///
    /// # Errors
    /// Not permitted.
    pub(super) fn open(namespace: OwnedFd) -> Outcome<Self> {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network (this needs root)")?;
        let (family, kind) = (AddressFamily::Packet, SockType::Raw);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .context("open a packet socket (this needs root)")?;
        // A smaller buffer only means that more is missed, which is told.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("ask for times")?;
        setsockopt(&socket, sockopt::RxqOvfl, &1).context("ask for losses")?;
        let wait = TimeVal::milliseconds(WAIT);
        setsockopt(&socket, sockopt::ReceiveTimeout, &wait).context("set a timeout")?;
        Ok(Self(socket))
    }

    /// The next frame, its octets in `buffer`; none if none comes for a moment.
    pub(super) fn next(&self, buffer: &mut [u8]) -> Outcome<Option<Seen>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut space = cmsg_space!(TimeSpec, u32);
        let received =
            recvmsg::<LinkAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_TRUNC);
        let message = match received {
            // An interface that goes down is told as an error, once.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            other => other.context("read a frame")?,
        };
        let Some(from) = message.address else { return Ok(None) };
        let (mut time, mut missed) = (Duration::ZERO, 0);
        for control in message.cmsgs().context("read a frame's time")? {
            match control {
                ControlMessageOwned::ScmTimestampns(stamp) => time = stamp.into(),
                ControlMessageOwned::RxqOvfl(count) => missed = count,
                _ => {}
            }
        }
        let index = from.ifindex();
        let interface = name(index).unwrap_or_else(|| format!("interface {index}"));
        let is_outgoing = from.pkttype() == PACKET_OUTGOING;
        Ok(Some(Seen { interface, index, is_outgoing, time, length: message.bytes, missed }))
    }

    /// Whether the namespace has an interface of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        if_nametoindex(name).is_ok()
    }
}

fn name(index: usize) -> Option<String> {
    let name = if_indextoname(u32::try_from(index).ok()?).ok()?;
    name.into_string().ok()
}
