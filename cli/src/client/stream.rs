//! A unix stream that keeps the descriptors it is handed (`SCM_RIGHTS`).
//!
//! The kernel drops descriptors that arrive during a plain `read`, and the agent's octet with a descriptor may
//! well be read together with the `101 Switching Protocols` before it. So every read is a `recvmsg`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::UnixStream;
use weft_dataplane::io::receive_descriptors;

/// Most octets taken by one read.
const CHUNK: usize = 16 << 10;
/// Longest line the agent answers an adoption with, octets.
const MAX_LINE: usize = 1 << 20;

/// A connection to the agent.
#[derive(Debug)]
pub(super) struct DescriptorStream {
    stream: UnixStream,
    /// Read already, before what the socket holds.
    pending: VecDeque<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl DescriptorStream {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, pending: VecDeque::new(), descriptors: VecDeque::new() }
    }

    /// Gives back octets somebody else read from this stream.
    pub(super) fn put_back(&mut self, octets: &[u8]) {
        for octet in octets.iter().rev() {
            self.pending.push_front(*octet);
        }
    }

    /// The next descriptor the agent sends.
    pub(super) async fn receive_descriptor(&mut self) -> io::Result<OwnedFd> {
        loop {
            if let Some(descriptor) = self.descriptors.pop_front() {
                return Ok(descriptor);
            }
            if self.fill_pending().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// One line, without its newline; the end of the stream ends it too.
    pub(super) async fn receive_line(&mut self) -> io::Result<Vec<u8>> {
        while !self.pending.contains(&b'\n')
            && self.pending.len() < MAX_LINE
            && self.fill_pending().await? > 0
        {}
        Ok(self.pending.drain(..).take_while(|octet| *octet != b'\n').collect())
    }

    /// Sends one octet that carries a descriptor.
    pub(super) async fn send_descriptor(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let send = || {
            let octet = [IoSlice::new(&[0])];
            Ok(sendmsg::<()>(self.stream.as_raw_fd(), &octet, &rights, MsgFlags::MSG_NOSIGNAL, None)?)
        };
        self.stream.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    async fn fill_pending(&mut self) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let count = std::future::poll_fn(|context| self.poll_receive(context, &mut chunk)).await?;
        self.pending.extend(&chunk[..count]);
        Ok(count)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.stream.poll_read_ready(context))?;
            let receive = || receive_descriptors(self.stream.as_fd(), buffer);
            match self.stream.try_io(Interest::READABLE, receive) {
                Ok((count, descriptors)) => {
                    self.descriptors.extend(descriptors);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Read for DescriptorStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0; CHUNK];
        let room = cursor.remaining().min(CHUNK);
        let count = if self.pending.is_empty() {
            std::task::ready!(self.poll_receive(context, &mut chunk[..room]))?
        } else {
            let count = room.min(self.pending.len());
            for (slot, octet) in chunk.iter_mut().zip(self.pending.drain(..count)) {
                *slot = octet;
            }
            count
        };
        cursor.put_slice(&chunk[..count]);
        Poll::Ready(Ok(()))
    }
}

impl Write for DescriptorStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
