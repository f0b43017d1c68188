//! Runs handed to the kernel: one message each, or one per datagram where it refuses to cut.

use std::io;
use std::os::fd::AsFd;

use socket2::Socket;

use super::{Outbox, Run};
use crate::io::sys::{Message, Name, Piece};
use crate::stats::{Counter, Counters, DropReason};

impl Outbox {
    pub(super) fn queue_for(&mut self, socket: u16) {
        self.messages.clear();
        self.queued.clear();
        for (index, run) in self.runs.iter().enumerate().filter(|(_, run)| run.socket == socket) {
            let segment = (run.count > 1).then_some(run.size as u16);
            self.messages.push(Message { to: Name::from(run.to), first: run.first, segment });
            self.queued.push(index as u16);
        }
    }

    pub(super) fn send_queued(&mut self, index: usize, socket: &Socket, frames: &[u8], counters: &Counters) {
        let mut at = 0;
        let mut retries = 0;
        while at < self.messages.len() {
            let memory = [self.made.as_slice(), frames];
            match self.sender.send(socket.as_fd(), memory, &self.pieces, &self.messages[at..]) {
                Ok(sent) => {
                    for &run in &self.queued[at..at + sent] {
                        count_sent(&self.runs[usize::from(run)], counters);
                    }
                    at += sent.max(1);
                    retries = 0;
                }
                Err(error) => match failure(&error, self.messages[at].segment.is_some()) {
                    Failure::Again if retries < RETRIES => retries += 1,
                    Failure::Again => {
                        // A full buffer must not hold up other peers: what is left here is lost.
                        for &run in &self.queued[at..] {
                            counters.dropped(
                                DropReason::SendBufferFull,
                                self.runs[usize::from(run)].count.into(),
                            );
                        }
                        return;
                    }
                    Failure::NotSegmented { for_good } => {
                        self.refused[index] |= for_good;
                        counters.add(Counter::SegmentationFallbacks, 1);
                        self.send_singly(self.queued[at], socket, frames, counters);
                        at += 1;
                    }
                    Failure::Lost(reason) => {
                        counters.dropped(reason, self.runs[usize::from(self.queued[at])].count.into());
                        at += 1;
                    }
                },
            }
        }
    }

    /// Sends the datagrams of a run one by one, where the kernel would not cut it. Slow, and rare.
    fn send_singly(&mut self, run: u16, socket: &Socket, frames: &[u8], counters: &Counters) {
        let Run { to, size, total, count, first, .. } = self.runs[usize::from(run)];
        let mut from = Cut { piece: first, offset: 0 };
        for number in 0..count {
            let len = size.min(total - number * size);
            from = self.cut(from, len);
            let message = Message { to: Name::from(to), first: 0, segment: None };
            let memory = [self.made.as_slice(), frames];
            match self.sender.send(socket.as_fd(), memory, &self.single, &[message]) {
                Ok(_) => {
                    counters.add(Counter::RunsOut, 1);
                    counters.add(Counter::DatagramsOut, 1);
                    counters.add(Counter::DatagramBytesOut, len.into());
                }
                Err(error) => counters.dropped(
                    match failure(&error, false) {
                        Failure::Lost(reason) => reason,
                        Failure::Again | Failure::NotSegmented { .. } => DropReason::SendBufferFull,
                    },
                    1,
                ),
            }
        }
    }

    /// Makes `single` the chain of the `len` octets behind `from`; returns what follows them.
    fn cut(&mut self, mut from: Cut, len: u32) -> Cut {
        self.single.clear();
        let mut left = len;
        while let Some(piece) = self.pieces.get(from.piece as usize).filter(|_| left > 0) {
            let start = piece.start + from.offset;
            let taken = (piece.len - from.offset).min(left);
            left -= taken;
            let next = if left == 0 { Piece::LAST } else { self.single.len() as u32 + 1 };
            self.single.push(Piece { memory: piece.memory, start, len: taken, next });
            from.offset += taken;
            if from.offset == piece.len {
                from = Cut { piece: piece.next, offset: 0 };
            }
        }
        from
    }
}

/// A place in a chain of pieces.
#[derive(Clone, Copy)]
struct Cut {
    piece: u32,
    /// Octets of the piece that were taken.
    offset: u32,
}

/// How often a send is repeated that the kernel had no buffer for.
const RETRIES: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No buffer at the moment.
    Again,
    /// The kernel does not cut this run; on this socket never, where `for_good`.
    NotSegmented { for_good: bool },
    /// This message cannot go out.
    Lost(DropReason),
}

pub(super) fn failure(error: &io::Error, segmented: bool) -> Failure {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR | libc::ENOMEM) => Failure::Again,
        Some(libc::EIO) if segmented => Failure::NotSegmented { for_good: true },
        Some(libc::EINVAL) if segmented => Failure::NotSegmented { for_good: false },
        Some(libc::EMSGSIZE) => Failure::Lost(DropReason::UnderlayMtu),
        _ => Failure::Lost(DropReason::SendFailed),
    }
}

fn count_sent(run: &Run, counters: &Counters) {
    counters.add(Counter::RunsOut, 1);
    counters.add(Counter::DatagramsOut, run.count.into());
    counters.add(Counter::DatagramBytesOut, run.total.into());
}
