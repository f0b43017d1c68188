//! Descriptors over a unix socket (`SCM_RIGHTS`, `man 7 unix`): how a namespace travels between mount namespaces.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Sends one octet that carries `descriptor`.
///
/// # Errors
/// The other side hung up.
pub(crate) async fn send(stream: &UnixStream, descriptor: impl AsFd) -> io::Result<()> {
    let descriptors = [descriptor.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let octet = [IoSlice::new(&[0])];
    let send = || Ok(sendmsg::<()>(stream.as_raw_fd(), &octet, &rights, MsgFlags::MSG_NOSIGNAL, None)?);
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Receives one octet and the descriptor it carries.
///
/// # Errors
/// The other side hung up, or sent none or several.
pub(crate) async fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut received = stream.async_io(Interest::READABLE, || receive_now(stream.as_raw_fd())).await?;
    let last = received.pop();
    match last.filter(|_| received.is_empty()) {
        Some(descriptor) => Ok(descriptor),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "exactly one descriptor was expected")),
    }
}

fn receive_now(socket: RawFd) -> io::Result<Vec<OwnedFd>> {
    let mut octet = [0];
    let mut control = cmsg_space!([RawFd; 4]);
    let mut parts = [IoSliceMut::new(&mut octet)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            received.extend(raw.into_iter().map(own));
        }
    }
    received.into_iter().collect()
}

/// Owns a descriptor known by its number: /proc opens it a second time, which needs no promise about the first.
fn own(raw: RawFd) -> io::Result<OwnedFd> {
    let opened = File::open(format!("/proc/self/fd/{raw}"));
    nix::unistd::close(raw)?;
    opened.map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::namespace::Namespace;

    #[tokio::test]
    async fn a_namespace_arrives_as_the_same_namespace() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let sent = Namespace::current().expect("everybody has one");
        send(&here, &sent).await.expect("sent");
        let received =
            Namespace::from_descriptor(receive(&there).await.expect("received")).expect("a namespace");
        assert_eq!(received.id().expect("open"), sent.id().expect("open"));
    }

    #[tokio::test]
    async fn an_octet_without_a_descriptor_is_refused() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        here.writable().await.expect("writable");
        here.try_write(&[0]).expect("written");
        assert_eq!(receive(&there).await.expect_err("nothing came").kind(), io::ErrorKind::InvalidInput);
        drop(here);
        assert!(receive(&there).await.is_err(), "the end of the stream is no descriptor");
    }

    #[tokio::test]
    async fn a_descriptor_of_something_else_is_no_namespace() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        send(&here, File::open("/dev/null").expect("it is there")).await.expect("sent");
        assert!(Namespace::from_descriptor(receive(&there).await.expect("received")).is_err());
    }
}
