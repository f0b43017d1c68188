//! The little of nfnetlink that is needed besides `nft`: notifications, and dumps of what `nft` does not show.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// Octets of `struct nlmsghdr`; of `struct nfgenmsg`, with which every body begins.
const HEADER: usize = 16;
pub(super) const BODY: usize = 4;
/// `NLM_F_REQUEST`, `NLM_F_DUMP`; `NLMSG_ERROR`, `NLMSG_DONE` (netlink(7)).
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A message from the kernel.
pub(super) struct Message<'m> {
    pub(super) kind: u16,
    /// Netlink port of whoever caused it.
    pub(super) port: u32,
    pub(super) body: &'m [u8],
}

/// Netlink messages of a datagram; what is cut off is left out.
pub(super) fn messages(mut octets: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(octets.get(..4)?.try_into().ok()?) as usize;
        let message = octets.get(..length).filter(|message| message.len() >= HEADER)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes(message[4..6].try_into().ok()?),
            port: u32::from_ne_bytes(message[12..16].try_into().ok()?),
            body: &message[HEADER..],
        })
    })
}

/// Attributes behind a header of `skip` octets, without their flags.
pub(super) fn attributes(body: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(skip..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

/// The attribute of this kind.
pub(super) fn attribute(body: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    attributes(body, skip).find(|(other, _)| *other == kind).map(|(_, value)| value)
}

/// A conversation with the kernel's netfilter, in the namespace of the thread that opened it.
pub(super) struct Netfilter(OwnedFd);

impl Netfilter {
    pub(super) fn open() -> io::Result<Self> {
        let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(netlink))
    }

    /// Asks for something to be done; whether it was is not told.
    pub(super) fn tell(&self, kind: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        self.send(kind, REQUEST, family, attributes)
    }

    /// Bodies of everything of a kind.
    pub(super) fn dump(&self, kind: u16, family: u8) -> io::Result<Vec<Vec<u8>>> {
        self.send(kind, REQUEST | DUMP, family, &[])?;
        let (mut bodies, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for message in messages(&buffer[..length]) {
                match message.kind {
                    DONE => return Ok(bodies),
                    ERROR => return Err(io::Error::other("the kernel lists nothing of the kind")),
                    _ => bodies.push(message.body.to_vec()),
                }
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + BODY + attributes.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend([family, 0, 0, 0]);
        message.extend(attributes);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }
}
