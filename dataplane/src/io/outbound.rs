//! From the ports to the underlay: frames are read, decided, split and gathered into runs.

use std::io::{self, IoSlice};
use std::sync::Arc;

use socket2::Socket;

use super::outbox::{Outbox, OutboxFull, Part};
use super::worker::{Port, Shared};
use crate::change::Event;
use crate::engine::{Engine, Reply, Verdict};
use crate::fdb::Seconds;
use crate::offload::{Split, SplitError, finish_checksum};
use crate::segment::Vtep;
use crate::stats::{Counter, Counters, DropReason};
use crate::wire::vnet::{self, VnetHeader};
use crate::wire::{ethernet, flow, vxlan};

/// Longest read from a TAP: header, Ethernet header with tag, 64 KiB of IP.
const READ_MAX: usize = vnet::HEADER_LEN + ethernet::HEADER_LEN + ethernet::TAG_LEN + 65_535;
/// Memory for frames read and not yet sent, octets.
const FRAMES: usize = 320 << 10;

// The VXLAN header of a frame that goes out whole takes the place of the virtio_net_hdr in front of it.
const _: () = assert!(vxlan::HEADER_LEN <= vnet::HEADER_LEN);

/// The sending half of a worker.
pub(crate) struct Outbound {
    sockets: Arc<[Socket]>,
    outbox: Outbox,
    /// Frames as they were read, one behind the other; the outbox refers to them.
    frames: Vec<u8>,
    used: usize,
}

impl Outbound {
    pub(crate) fn new(sockets: Arc<[Socket]>) -> Self {
        Self { outbox: Outbox::new(sockets.len()), sockets, frames: vec![0; FRAMES], used: 0 }
    }

    /// Reads from `port` until it is empty or the memory is full, and sends what is to be sent, some of it
    /// only at [`Outbound::flush`].
    pub(crate) fn turn(&mut self, engine: &Engine, now: Seconds, port: &mut Port, shared: &Shared) {
        if self.used + READ_MAX > FRAMES {
            self.flush(&shared.counters);
        }
        while self.used + READ_MAX <= FRAMES {
            let start = self.used;
            match port.queue.read(&mut self.frames[start..start + READ_MAX]) {
                Ok(len) => {
                    let (start, end) = (start + vnet::HEADER_LEN, start + len);
                    self.used = end.next_multiple_of(64);
                    self.take(engine, now, port, start..end.max(start), &shared.counters);
                }
                Err(error) => {
                    port.ready = false;
                    if is_gone(&error) {
                        shared.tell(Event::PortLost { vni: port.vni });
                    }
                    return;
                }
            }
        }
    }

    /// Hands everything to the kernel.
    pub(crate) fn flush(&mut self, counters: &Counters) {
        if !self.outbox.is_empty() {
            self.outbox.flush(&self.frames, &self.sockets, counters);
        }
        self.used = 0;
    }

    fn take(
        &mut self,
        engine: &Engine,
        now: Seconds,
        port: &Port,
        at: std::ops::Range<usize>,
        counters: &Counters,
    ) {
        let vnet = first_vnet(&self.frames[at.start - vnet::HEADER_LEN..]);
        counters.add(Counter::FramesOut, 1);
        counters.add(Counter::FrameBytesOut, at.len() as u64);
        let largest = match self.finish(&vnet, at.clone()) {
            Ok(largest) => largest,
            Err(error) => return counters.dropped(error.into(), 1),
        };
        match engine.handle_frame(port.vni, &self.frames[at.clone()], largest, now) {
            Verdict::Tunnel(vtep) => self.send(&vnet, at, vtep, counters),
            Verdict::Flood(vteps) => {
                for vtep in vteps {
                    self.send_copy(&vnet, at.clone(), vtep, counters);
                }
            }
            Verdict::Reply(reply) => answer(port, &reply, counters),
            Verdict::Drop(reason) => counters.dropped(reason, 1),
            // What came out of a port does not go back into it.
            Verdict::Deliver(_) => {}
        }
    }

    /// Does what the header asks for, but for splitting; returns the octets of the largest IP packet.
    fn finish(&mut self, vnet: &VnetHeader, at: std::ops::Range<usize>) -> Result<usize, SplitError> {
        let frame = &mut self.frames[at];
        if vnet.is_super_frame() {
            return Ok(Split::plan(vnet, frame)?.packet_len());
        }
        finish_checksum(vnet, frame)?;
        Ok(frame.len().saturating_sub(ethernet::HEADER_LEN))
    }

    /// Sends a frame that nobody else gets: whole ones with their VXLAN header in place.
    fn send(&mut self, vnet: &VnetHeader, at: std::ops::Range<usize>, vtep: &Vtep, counters: &Counters) {
        if vnet.is_super_frame() {
            return self.send_copy(vnet, at, vtep, counters);
        }
        let socket = self.socket_for(&at);
        let start = at.start - vxlan::HEADER_LEN;
        self.frames[start..at.start].copy_from_slice(&vxlan::header(vtep.vni));
        let part = Part { start: start as u32, len: (at.end - start) as u32 };
        if self.outbox.push(vtep.address, socket, part) == Err(OutboxFull) {
            self.outbox.flush(&self.frames, &self.sockets, counters);
            let _ = self.outbox.push(vtep.address, socket, part);
        }
    }

    /// Sends a frame, or the segments of a super-frame, with headers of its own.
    fn send_copy(&mut self, vnet: &VnetHeader, at: std::ops::Range<usize>, vtep: &Vtep, counters: &Counters) {
        let socket = self.socket_for(&at);
        let Self { sockets, outbox, frames, .. } = self;
        let mut push = |header_len: usize, part: Part, write: &dyn Fn(&mut [u8])| {
            if outbox.push_with_header(vtep, socket, header_len, part, write) == Err(OutboxFull) {
                outbox.flush(frames, sockets, counters);
                let _ = outbox.push_with_header(vtep, socket, header_len, part, write);
            }
        };
        if !vnet.is_super_frame() {
            return push(0, Part { start: at.start as u32, len: at.len() as u32 }, &|_| {});
        }
        counters.add(Counter::SuperFramesOut, 1);
        let Ok(split) = Split::plan(vnet, &frames[at.clone()]) else { return };
        let mut start = at.start + split.header_len();
        for index in 0..split.count() {
            let len = split.payload(index).len();
            let part = Part { start: start as u32, len: len as u32 };
            push(split.header_len(), part, &|header| {
                split.write_header(index, header);
            });
            start += len;
        }
    }

    /// The source port of a frame's flow.
    fn socket_for(&self, at: &std::ops::Range<usize>) -> usize {
        flow::hash(&self.frames[at.clone()]) as usize % self.sockets.len()
    }
}

fn first_vnet(octets: &[u8]) -> VnetHeader {
    octets.first_chunk().map_or(VnetHeader::PLAIN, VnetHeader::parse)
}

/// The device was deleted under us: reads fail from then on.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV | libc::ENXIO))
}

fn answer(port: &Port, reply: &Reply, counters: &Counters) {
    let vnet = VnetHeader::PLAIN.emit();
    match port.queue.write(&[IoSlice::new(&vnet), IoSlice::new(reply.frame())]) {
        Ok(_) => counters.add(Counter::NeighbourReplies, 1),
        Err(_) => counters.dropped(DropReason::TapWriteFailed, 1),
    }
}
