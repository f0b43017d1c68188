//! Datagrams on their way out, gathered into runs.
//!
//! A run is what one UDP_SEGMENT send carries: datagrams of one length, only the last may be shorter, to one
//! VTEP from one source port. Runs stay open across super-frames until [`Outbox::flush`], because the cost of
//! a send is mostly per run. In clear nothing is copied but headers: payloads go out from where the TAP read put
//! them. Sealed datagrams are made here whole, one behind the other, so that a run is one piece of memory.

use std::net::SocketAddr;

use socket2::Socket;

use super::sys::{self, Memory, Message, Piece};
use crate::seal::Spent;
use crate::segment::Vtep;
use crate::stats::Counters;
use crate::wire::vxlan;

mod sending;

/// Most runs between two flushes.
const RUNS: usize = 128;
/// Most pieces between two flushes: header and payload of every datagram.
const PIECES: usize = 2048;
/// Room for headers and sealed datagrams made here, octets.
const MADE: usize = 384 << 10;
/// Sealed datagrams begin at a multiple of this where they continue no run: a cache line.
const ALIGNMENT: usize = 64;
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
    made: Vec<u8>,
    made_used: usize,
    pieces: Vec<Piece>,
    /// The chain of one datagram, where a run is sent one by one.
    single: Vec<Piece>,
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
            made: vec![0; MADE],
            made_used: 0,
            pieces: Vec::with_capacity(PIECES),
            single: Vec::with_capacity(PIECES),
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
        let start = self.made_used;
        let header = &mut self.made[start..start + len];
        header[..vxlan::HEADER_LEN].copy_from_slice(&vxlan::header(vtep.vni));
        write_header(&mut header[vxlan::HEADER_LEN..]);
        self.made_used += len.next_multiple_of(16);
        let first = self.piece(Memory::Made, start as u32, len as u32);
        let mut last = first;
        if payload.len > 0 {
            last = self.piece(Memory::Frames, payload.start, payload.len);
            self.pieces[first as usize].next = last;
        }
        self.append(vtep.address, socket, len as u32 + payload.len, first, last);
        Ok(())
    }

    /// Whether a sealed datagram of `len` octets has room before a flush.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.reserve(1, ALIGNMENT + len).is_ok()
    }

    /// Appends a datagram of `len` octets that `seal` makes; nothing where it fails or [has no room].
    ///
    /// [has no room]: Outbox::has_room
    pub(crate) fn push_sealed(
        &mut self,
        to: SocketAddr,
        socket: usize,
        len: usize,
        seal: impl FnOnce(&mut [u8]) -> Result<(), Spent>,
    ) -> Result<(), Spent> {
        let continues = self
            .joinable(to, socket, len as u32)
            .map(|run| &self.pieces[self.runs[run].last as usize])
            .is_some_and(|last| last.memory == Memory::Made && last.end() as usize == self.made_used);
        let alignment = if continues { 1 } else { ALIGNMENT };
        let start = self.made_used.next_multiple_of(alignment);
        seal(self.made.get_mut(start..start + len).ok_or(Spent)?)?;
        self.made_used = start + len;
        let piece = self.piece(Memory::Made, start as u32, len as u32);
        self.append(to, socket, len as u32, piece, piece);
        Ok(())
    }

    fn reserve(&self, pieces: usize, made: usize) -> Result<(), OutboxFull> {
        let fits =
            self.pieces.len() + pieces <= PIECES && self.runs.len() < RUNS && self.made_used + made <= MADE;
        if fits { Ok(()) } else { Err(OutboxFull) }
    }

    fn piece(&mut self, memory: Memory, start: u32, len: u32) -> u32 {
        self.pieces.push(Piece { memory, start, len, next: Piece::LAST });
        (self.pieces.len() - 1) as u32
    }

    /// The open run a datagram of `len` octets may join.
    fn joinable(&self, to: SocketAddr, socket: usize, len: u32) -> Option<usize> {
        let index = usize::from(self.open[open_place(to, socket)]);
        let run = self.runs.get(index)?;
        let joins = !run.closed
            && run.to == to
            && usize::from(run.socket) == socket
            && len <= run.size
            && run.count < self.segments_max
            && run.total + len <= RUN_OCTETS
            && !self.refused[socket];
        joins.then_some(index)
    }

    fn append(&mut self, to: SocketAddr, socket: usize, len: u32, first: u32, last: u32) {
        let Some(index) = self.joinable(to, socket, len) else {
            self.open[open_place(to, socket)] = self.runs.len() as u16;
            let socket = socket as u16;
            self.runs.push(Run { to, socket, size: len, total: len, count: 1, first, last, closed: false });
            return;
        };
        let end = self.runs[index].last;
        let last = if self.link(end, first, first == last) { end } else { last };
        let run = &mut self.runs[index];
        run.last = last;
        run.count += 1;
        run.total += len;
        run.closed = len < run.size;
    }

    /// Appends the chain from `next` to piece `end`; true where it became part of it, because it is one piece,
    /// the newest, and follows at once.
    fn link(&mut self, end: u32, next: u32, is_single: bool) -> bool {
        let Piece { memory, start, len, .. } = self.pieces[next as usize];
        let piece = &mut self.pieces[end as usize];
        let merges = is_single && piece.memory == memory && piece.end() == start;
        if merges {
            piece.len += len;
            self.pieces.pop();
        } else {
            piece.next = next;
        }
        merges
    }

    /// Hands everything to the kernel, or drops and counts it; empty afterwards. Never waits.
    pub(crate) fn flush(&mut self, frames: &[u8], sockets: &[Socket], counters: &Counters) {
        for (index, socket) in sockets.iter().enumerate() {
            self.queue_for(index as u16);
            self.send_queued(index, socket, frames, counters);
        }
        self.pieces.clear();
        self.runs.clear();
        self.made_used = 0;
        self.open = [NONE; OPEN];
    }
}

fn open_place(to: SocketAddr, socket: usize) -> usize {
    let low = match to {
        SocketAddr::V4(v4) => v4.ip().octets()[3],
        SocketAddr::V6(v6) => v6.ip().octets()[15],
    };
    (usize::from(low) * 7 + socket) % OPEN
}

#[cfg(test)]
mod tests;
