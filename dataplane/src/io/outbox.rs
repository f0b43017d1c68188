//! Datagrams on their way out, gathered into runs.
//!
//! A run is what one UDP_SEGMENT send carries: datagrams of one length, only the last may be shorter, to one
//! VTEP from one source port. Runs stay open across super-frames until [`Outbox::flush`], because the cost of
//! a send is mostly per run. Nothing is copied but headers: payloads go out from where the TAP read put them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::Socket;

use super::sys::{self, Memory, Message, Name, Piece};
use crate::segment::Vtep;
use crate::stats::{Counter, Counters, DropReason};
use crate::wire::vxlan;

/// Most runs between two flushes.
const RUNS: usize = 128;
/// Most pieces between two flushes: header and payload of every datagram.
const PIECES: usize = 2048;
/// Room for headers made here, octets.
const HEADERS: usize = 128 << 10;
/// Most octets of one UDP_SEGMENT send: a UDP datagram's over IPv4.
const RUN_OCTETS: u32 = 65_507;
/// Places to look for an open run; a collision only closes a run early.
const OPEN: usize = 64;
const NONE: u16 = u16::MAX;

/// Part of the frame memory that holds one datagram's payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    to: SocketAddr,
    socket: u16,
    /// Length of every datagram but the last.
    size: u32,
    total: u32,
    count: u32,
    first: u32,
    last: u32,
    closed: bool,
}

/// No room for another datagram before a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxFull;

/// Datagrams not yet handed to the kernel; all memory is allocated at start.
pub(crate) struct Outbox {
    headers: Vec<u8>,
    headers_used: usize,
    pieces: Vec<Piece>,
    runs: Vec<Run>,
    open: [u16; OPEN],
    messages: Vec<Message>,
    /// Runs behind `messages`, same order.
    queued: Vec<u16>,
    sender: sys::Sender,
    /// Most datagrams the kernel cuts one send into.
    segments_max: u32,
    /// Sockets whose route refuses UDP_SEGMENT for good (an IPsec policy, for one).
    refused: Vec<bool>,
}

impl Outbox {
    pub(crate) fn new(sockets: usize) -> Self {
        Self {
            headers: vec![0; HEADERS],
            headers_used: 0,
            pieces: Vec::with_capacity(PIECES),
            runs: Vec::with_capacity(RUNS),
            open: [NONE; OPEN],
            messages: Vec::with_capacity(RUNS),
            queued: Vec::with_capacity(RUNS),
            sender: sys::Sender::new(RUNS, PIECES),
            // `UDP_MAX_SEGMENTS` less one, because some kernels count the UDP header against the budget.
            segments_max: if sys::kernel_version() >= (6, 9) { 127 } else { 63 },
            refused: vec![false; sockets],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Appends a datagram whose header stands in front of its payload already.
    ///
    /// # Errors
    /// Nothing is appended when full.
    pub(crate) fn push(&mut self, to: SocketAddr, socket: usize, datagram: Part) -> Result<(), OutboxFull> {
        self.reserve(1, 0)?;
        let piece = self.piece(Memory::Frames, datagram.start, datagram.len);
        self.append(to, socket, datagram.len, piece, piece);
        Ok(())
    }

    /// Appends a datagram of a new VXLAN header, `header_len` octets that `write_header` makes, and a payload.
    ///
    /// # Errors
    /// Nothing is appended when full.
    pub(crate) fn push_with_header(
        &mut self,
        vtep: &Vtep,
        socket: usize,
        header_len: usize,
        payload: Part,
        write_header: impl FnOnce(&mut [u8]),
    ) -> Result<(), OutboxFull> {
        let len = vxlan::HEADER_LEN + header_len;
        self.reserve(2, len)?;
        let start = self.headers_used;
        let header = &mut self.headers[start..start + len];
        header[..vxlan::HEADER_LEN].copy_from_slice(&vxlan::header(vtep.vni));
        write_header(&mut header[vxlan::HEADER_LEN..]);
        self.headers_used += len.next_multiple_of(16);
        let first = self.piece(Memory::Headers, start as u32, len as u32);
        let mut last = first;
        if payload.len > 0 {
            last = self.piece(Memory::Frames, payload.start, payload.len);
            self.pieces[first as usize].next = last;
        }
        self.append(vtep.address, socket, len as u32 + payload.len, first, last);
        Ok(())
    }

    fn reserve(&self, pieces: usize, header: usize) -> Result<(), OutboxFull> {
        let fits = self.pieces.len() + pieces <= PIECES
            && self.runs.len() < RUNS
            && self.headers_used + header <= HEADERS;
        if fits { Ok(()) } else { Err(OutboxFull) }
    }

    fn piece(&mut self, memory: Memory, start: u32, len: u32) -> u32 {
        self.pieces.push(Piece { memory, start, len, next: Piece::LAST });
        (self.pieces.len() - 1) as u32
    }

    fn append(&mut self, to: SocketAddr, socket: usize, len: u32, first: u32, last: u32) {
        let place = open_place(to, socket);
        let open = self.open[place];
        if let Some(run) = self.runs.get_mut(usize::from(open)) {
            let joins = !run.closed
                && run.to == to
                && usize::from(run.socket) == socket
                && len <= run.size
                && run.count < self.segments_max
                && run.total + len <= RUN_OCTETS
                && !self.refused[socket];
            if joins {
                self.pieces[run.last as usize].next = first;
                run.last = last;
                run.count += 1;
                run.total += len;
                run.closed = len < run.size;
                return;
            }
        }
        self.open[place] = self.runs.len() as u16;
        let socket = socket as u16;
        self.runs.push(Run { to, socket, size: len, total: len, count: 1, first, last, closed: false });
    }

    /// Hands everything to the kernel, or drops and counts it; empty afterwards. Never waits.
    pub(crate) fn flush(&mut self, frames: &[u8], sockets: &[Socket], counters: &Counters) {
        for (index, socket) in sockets.iter().enumerate() {
            self.queue_for(index as u16);
            self.send_queued(index, socket, frames, counters);
        }
        self.pieces.clear();
        self.runs.clear();
        self.headers_used = 0;
        self.open = [NONE; OPEN];
    }

    fn queue_for(&mut self, socket: u16) {
        self.messages.clear();
        self.queued.clear();
        for (index, run) in self.runs.iter().enumerate().filter(|(_, run)| run.socket == socket) {
            let segment = (run.count > 1).then_some(run.size as u16);
            self.messages.push(Message { to: Name::from(run.to), first: run.first, segment });
            self.queued.push(index as u16);
        }
    }

    fn send_queued(&mut self, index: usize, socket: &Socket, frames: &[u8], counters: &Counters) {
        let mut at = 0;
        let mut retries = 0;
        while at < self.messages.len() {
            let memory = [self.headers.as_slice(), frames];
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
        let Run { to, size, count, first, .. } = self.runs[usize::from(run)];
        let mut next = first;
        for _ in 0..count {
            let start = next;
            let (mut len, mut last) = (0, next);
            while next != Piece::LAST && len < size {
                let piece = self.pieces[next as usize];
                len += piece.len;
                last = next;
                next = piece.next;
            }
            self.pieces[last as usize].next = Piece::LAST;
            let message = Message { to: Name::from(to), first: start, segment: None };
            let memory = [self.headers.as_slice(), frames];
            match self.sender.send(socket.as_fd(), memory, &self.pieces, &[message]) {
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
}

/// How often a send is repeated that the kernel had no buffer for.
const RETRIES: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// No buffer at the moment.
    Again,
    /// The kernel does not cut this run; on this socket never, where `for_good`.
    NotSegmented { for_good: bool },
    /// This message cannot go out.
    Lost(DropReason),
}

fn failure(error: &io::Error, segmented: bool) -> Failure {
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

fn open_place(to: SocketAddr, socket: usize) -> usize {
    let low = match to {
        SocketAddr::V4(v4) => v4.ip().octets()[3],
        SocketAddr::V6(v6) => v6.ip().octets()[15],
    };
    (usize::from(low) * 7 + socket) % OPEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_datagrams_join_a_run_and_a_shorter_one_ends_it() {
        let mut outbox = Outbox::new(1);
        for len in [100, 100, 60, 100] {
            outbox.push(peer(), 0, Part { start: 0, len }).expect("room");
        }
        let runs: Vec<(u32, u32)> = outbox.runs.iter().map(|run| (run.count, run.total)).collect();
        assert_eq!(runs, [(3, 260), (1, 100)]);
    }

    #[test]
    fn runs_of_two_source_ports_interleave_without_ending_each_other() {
        let mut outbox = Outbox::new(2);
        for socket in [0, 1, 0, 1] {
            outbox.push(peer(), socket, Part { start: 0, len: 100 }).expect("room");
        }
        assert_eq!(outbox.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_run_never_exceeds_what_one_send_may_carry() {
        let mut outbox = Outbox::new(1);
        for _ in 0..100 {
            outbox.push(peer(), 0, Part { start: 0, len: 1472 }).expect("room");
        }
        assert_eq!(outbox.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [44, 44, 12]);
    }

    #[test]
    fn a_full_outbox_says_so_and_takes_nothing() {
        let mut outbox = Outbox::new(1);
        let taken =
            (0..PIECES * 2).filter(|_| outbox.push(peer(), 0, Part { start: 0, len: 50 }).is_ok()).count();
        assert_eq!(taken, PIECES);
    }

    #[test]
    fn errors_are_told_apart_by_what_can_be_done() {
        let of = |code, segmented| failure(&io::Error::from_raw_os_error(code), segmented);
        assert_eq!(of(libc::EIO, true), Failure::NotSegmented { for_good: true });
        assert_eq!(of(libc::EINVAL, true), Failure::NotSegmented { for_good: false });
        assert_eq!(of(libc::EIO, false), Failure::Lost(DropReason::SendFailed));
        assert_eq!(of(libc::EMSGSIZE, true), Failure::Lost(DropReason::UnderlayMtu));
        assert_eq!(of(libc::ENOBUFS, true), Failure::Again);
        assert_eq!(of(libc::ENETUNREACH, false), Failure::Lost(DropReason::SendFailed));
    }

    fn peer() -> SocketAddr {
        "192.0.2.2:4789".parse().expect("address")
    }
}
