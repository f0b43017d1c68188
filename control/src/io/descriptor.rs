//! Descriptors over a unix socket (`SCM_RIGHTS`, `man 7 unix`): how a namespace travels between mount namespaces.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use weft_dataplane::io::receive_descriptors;

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
    let mut octet = [0];
    let receive = || receive_descriptors(stream.as_fd(), &mut octet);
    let (_, mut received) = stream.async_io(Interest::READABLE, receive).await?;
    let last = received.pop();
    match last.filter(|_| received.is_empty()) {
        Some(descriptor) => Ok(descriptor),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "exactly one descriptor was expected")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

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

    #[tokio::test]
    async fn a_pipe_without_a_writer_is_refused_at_once_and_nothing_is_opened() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        drop(writer);
        send(&here, reader).await.expect("sent");
        assert!(Namespace::from_descriptor(receive(&there).await.expect("received")).is_err());
    }

    #[tokio::test]
    async fn of_two_hundred_descriptors_none_is_kept() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let file = File::open("/dev/null").expect("it is there");
        let many = vec![file.as_fd().as_raw_fd(); 200];
        let (octet, rights) = ([IoSlice::new(&[0])], [ControlMessage::ScmRights(&many)]);
        sendmsg::<()>(here.as_raw_fd(), &octet, &rights, MsgFlags::empty(), None).expect("sent");
        assert_eq!(receive(&there).await.expect_err("too many").kind(), io::ErrorKind::InvalidInput);
        let open = fs::read_dir("/proc/self/fd").expect("proc").flatten();
        let kept = open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("null"))).count();
        assert!(kept < 100, "{kept} descriptors of /dev/null are open");
    }
}
