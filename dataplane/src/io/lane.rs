//! The ways out of a worker: in clear, from where the frame was read, or sealed.

use std::ops::Range;
use std::sync::Arc;

use socket2::Socket;

use super::outbox::{Outbox, OutboxFull, Part};
use super::plan::Plan;
use super::worker::Shared;
use crate::change::Event;
use crate::engine::Engine;
use crate::fdb::Seconds;
use crate::offload::Split;
use crate::seal::{self, Refusal, Reserved};
use crate::segment::Vtep;
use crate::stats::{Counter, Counters};
use crate::wire::{flow, vxlan};

/// Sockets to send from, and what waits for them. `frames` is the memory frames were read into, the same for all
/// calls up to the flush.
pub(crate) struct Lane {
    sockets: Arc<[Socket]>,
    outbox: Outbox,
}

/// Where sealed frames go.
pub(crate) struct Sealing<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) network: &'e [u8; 16],
    pub(crate) vteps: &'e [Vtep],
    pub(crate) now: Seconds,
}

impl Lane {
    pub(crate) fn new(sockets: Arc<[Socket]>) -> Self {
        Self { outbox: Outbox::new(sockets.len()), sockets }
    }

    /// Hands everything to the kernel.
    pub(crate) fn flush(&mut self, frames: &[u8], counters: &Counters) {
        if !self.outbox.is_empty() {
            self.outbox.flush(frames, &self.sockets, counters);
        }
    }

    /// The source port of a frame's flow.
    fn socket_for(&self, frame: &[u8]) -> usize {
        flow::hash(frame) as usize % self.sockets.len()
    }

    /// Sends a frame to each of `vteps`. Where it is one, the VXLAN header takes the place of what stands in front.
    pub(crate) fn send_whole(
        &mut self,
        frames: &mut [u8],
        at: Range<usize>,
        vteps: &[Vtep],
        counters: &Counters,
    ) {
        let socket = self.socket_for(&frames[at.clone()]);
        if let [vtep] = vteps {
            return self.send_in_place(frames, at, vtep, socket, counters);
        }
        let part = Part { start: at.start as u32, len: at.len() as u32 };
        for vtep in vteps {
            self.push(frames, vtep, socket, 0, part, &|_| {}, counters);
        }
    }

    fn send_in_place(
        &mut self,
        frames: &mut [u8],
        at: Range<usize>,
        vtep: &Vtep,
        socket: usize,
        counters: &Counters,
    ) {
        let start = at.start - vxlan::HEADER_LEN;
        frames[start..at.start].copy_from_slice(&vxlan::header(vtep.vni));
        let part = Part { start: start as u32, len: (at.end - start) as u32 };
        if self.outbox.push(vtep.address, socket, part) == Err(OutboxFull) {
            self.outbox.flush(frames, &self.sockets, counters);
            let _ = self.outbox.push(vtep.address, socket, part);
        }
    }

    /// Sends the segments of the super-frame at `start` to each of `vteps`.
    pub(crate) fn send_segments(
        &mut self,
        frames: &[u8],
        start: usize,
        split: &Split<'_>,
        vteps: &[Vtep],
        counters: &Counters,
    ) {
        let socket = self.socket_for(&frames[start..]);
        for vtep in vteps {
            let mut start = start + split.header_len();
            for index in 0..split.count() {
                let len = split.payload(index).len();
                let part = Part { start: start as u32, len: len as u32 };
                let write = |header: &mut [u8]| {
                    split.write_header(index, header);
                };
                self.push(frames, vtep, socket, split.header_len(), part, &write, counters);
                start += len;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one datagram, taken apart")]
    fn push(
        &mut self,
        frames: &[u8],
        vtep: &Vtep,
        socket: usize,
        header_len: usize,
        part: Part,
        write: &dyn Fn(&mut [u8]),
        counters: &Counters,
    ) {
        if self.outbox.push_with_header(vtep, socket, header_len, part, write) == Err(OutboxFull) {
            self.outbox.flush(frames, &self.sockets, counters);
            let _ = self.outbox.push_with_header(vtep, socket, header_len, part, write);
        }
    }

    /// Seals what `plan` says of `frame` for each VTEP, and sends it. Where there is no session nothing is sent.
    pub(crate) fn seal(
        &mut self,
        frames: &[u8],
        frame: &[u8],
        plan: &Plan<'_>,
        sealing: &Sealing<'_>,
        shared: &Shared,
    ) {
        let socket = self.socket_for(frame);
        for vtep in sealing.vteps {
            let reserved = match sealing.engine.peer(vtep.address) {
                Some(peer) => peer.reserve(shared.queue, plan.count() as u32, sealing.now),
                None => Err(Refusal::NoSession),
            };
            match reserved {
                Ok(reserved) => self.seal_for(frames, plan, sealing.network, vtep, socket, reserved, shared),
                Err(refusal) => shared.refuse(refusal, vtep.address, sealing.now),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one VTEP's share of `seal`")]
    fn seal_for(
        &mut self,
        frames: &[u8],
        plan: &Plan<'_>,
        network: &[u8; 16],
        vtep: &Vtep,
        socket: usize,
        mut reserved: Reserved<'_>,
        shared: &Shared,
    ) {
        let counters = &shared.counters;
        if reserved.is_worn() {
            shared.tell(Event::SessionWorn { vtep: vtep.address });
        }
        for index in 0..plan.count() {
            let len = plan.len(index) + seal::OVERHEAD;
            if !self.outbox.has_room(len) {
                self.outbox.flush(frames, &self.sockets, counters);
            }
            let sealed = self.outbox.push_sealed(vtep.address, socket, len, |datagram| {
                let rest = plan.write_front(index, &mut datagram[seal::HEADER_LEN..len - seal::TAG_LEN]);
                reserved.seal(vtep.vni, plan.checksum(), network, datagram, rest)
            });
            match sealed {
                Ok(()) => counters.add(Counter::SealedOut, 1),
                Err(_) => counters.dropped(Refusal::Spent.into(), 1),
            }
        }
    }
}
