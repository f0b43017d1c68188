//! From the underlay to the ports: a batch of datagrams is received, decided, coalesced and written.

use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::AsFd;

use socket2::Socket;

use super::sys::{Inbox, Received, kernel_version};
use super::tap::TapQueue;
use super::worker::{Ports, Shared};
use crate::engine::{Engine, Source, Verdict};
use crate::fdb::Seconds;
use crate::offload::{Arrival, Checksum, CoalesceError, Coalescer, Merged, UdpSegmentation};
use crate::stats::{Counter, Counters, DropReason};
use crate::wire::{Vni, vnet, vxlan};

/// Largest message received, octets: UDP_GRO joins up to 64 KiB, and a kernel VTEP on the same machine sends as
/// much in one datagram.
const MESSAGE_MAX: usize = 65_536;
/// Most messages per batch. Small ones come by the dozen; of large ones few fill the processor's cache. Between
/// bursts a batch is short, because each slot costs a little to prepare even if nothing comes.
const MESSAGES: usize = 64;
const MESSAGES_LARGE: usize = 4;
const MESSAGES_IDLE: usize = 8;
/// Mean octets per message from which a batch counts as large.
const LARGE: usize = 16 << 10;
/// Parts of one write: header, rewritten head, and the most pieces a coalescer joins.
const PARTS: usize = 2 + 64;

/// The receiving half of a worker.
pub(crate) struct Inbound {
    socket: Socket,
    inbox: Inbox,
    coalescer: Coalescer,
    /// Messages to ask for next.
    batch: usize,
    /// There may be something to receive.
    pub(crate) ready: bool,
}

impl Inbound {
    pub(crate) fn new(socket: Socket) -> Self {
        Self::with_inbox(socket, Inbox::new(MESSAGES, MESSAGE_MAX))
    }

    /// As [`Inbound::new`], with memory of another size.
    pub(crate) fn with_inbox(socket: Socket, inbox: Inbox) -> Self {
        // Linux 6.2 brought TUN_F_USO4; before, a UDP super-frame written to a TAP is an error.
        let udp =
            if kernel_version() >= (6, 2) { UdpSegmentation::Supported } else { UdpSegmentation::Missing };
        Self { socket, inbox, coalescer: Coalescer::new(udp), batch: MESSAGES_IDLE, ready: true }
    }

    /// Receives one batch and writes it to the ports.
    pub(crate) fn turn(&mut self, engine: &Engine, now: Seconds, ports: &Ports, shared: &Shared) {
        // An error on an unconnected socket is about nobody in particular; the next packet raises an edge.
        let count = self.inbox.receive(self.socket.as_fd(), self.batch).unwrap_or(0);
        self.ready = count == self.batch;
        let mut octets = 0;
        let mut batch = Batch { engine, now, ports, shared, memory: self.inbox.memory() };
        for message in (0..count).filter_map(|index| self.inbox.message(index)) {
            octets += message.range.len();
            batch.take(&message, &mut self.coalescer);
        }
        batch.flush(&mut self.coalescer);
        self.batch = match count {
            _ if octets >= count.max(1) * LARGE => MESSAGES_LARGE,
            _ if self.ready => MESSAGES,
            _ => MESSAGES_IDLE,
        };
    }
}

/// One batch in the inbox's memory.
struct Batch<'b> {
    engine: &'b Engine,
    now: Seconds,
    ports: &'b Ports,
    shared: &'b Shared,
    memory: &'b [u8],
}

impl Batch<'_> {
    fn take(&mut self, message: &Received, coalescer: &mut Coalescer) {
        let octets = &self.memory[message.range.start as usize..message.range.end as usize];
        let counters = &self.shared.counters;
        let datagrams = octets.len().div_ceil(message.stride as usize).max(1) as u64;
        counters.add(Counter::DatagramsIn, datagrams);
        counters.add(Counter::DatagramBytesIn, octets.len() as u64);
        counters.add(Counter::BatchesIn, u64::from(datagrams > 1));
        let stride = message.stride as usize;
        // A truncated message has lost the end of its last datagram; nothing of it can be trusted.
        let result = if message.truncated {
            Err(DropReason::DatagramTruncated)
        } else {
            self.source(message.from.ip(), octets)
        };
        match result {
            Ok((source, slot)) => {
                let train = Train { source, slot, header: first_header(octets), start: message.range.start };
                self.take_train(&train, octets, stride, coalescer);
            }
            Err(reason) => counters.dropped(reason, datagrams),
        }
    }

    /// All datagrams of a message have one sender, and usually one VXLAN header: both are resolved once.
    fn source(&self, from: IpAddr, octets: &[u8]) -> Result<(Source<'_>, u32), DropReason> {
        let header = octets.first_chunk().ok_or(DropReason::DatagramTooShort)?;
        let source = self.engine.source(from, header)?;
        let slot = slot_of(self.ports, source.segment().vni()).ok_or(DropReason::NoPort)?;
        Ok((source, slot))
    }

    fn take_train(&self, train: &Train<'_>, octets: &[u8], stride: usize, coalescer: &mut Coalescer) {
        let counters = &self.shared.counters;
        let mut delivered = None;
        let mut at = train.start;
        for datagram in octets.chunks(stride) {
            let start = at + vxlan::HEADER_LEN as u32;
            at += datagram.len() as u32;
            let Some((header, frame)) = datagram.split_first_chunk() else {
                counters.dropped(DropReason::DatagramTooShort, 1);
                continue;
            };
            if *header != train.header {
                self.take_odd(train, datagram, start, coalescer);
                continue;
            }
            let mut notice = |event| self.shared.tell(event);
            match train.source.handle_next(delivered, frame, self.now, &mut notice) {
                Verdict::Deliver(_) => {
                    delivered = Some(frame);
                    let mtu = train.source.segment().mtu();
                    self.coalesce(train.slot, mtu, start..start + frame.len() as u32, coalescer);
                }
                Verdict::Drop(reason) => counters.dropped(reason, 1),
                // Datagrams are never answered nor sent on.
                Verdict::Tunnel(_) | Verdict::Flood(_) | Verdict::Reply(_) => {}
            }
        }
    }

    /// A datagram within a train whose VXLAN header differs, as hardware may batch them: decided on its own.
    fn take_odd(&self, train: &Train<'_>, datagram: &[u8], start: u32, coalescer: &mut Coalescer) {
        let result = self.source(train.source.from(), datagram);
        let (source, slot) = match result {
            Ok(found) => found,
            Err(reason) => return self.shared.counters.dropped(reason, 1),
        };
        let frame = &datagram[vxlan::HEADER_LEN..];
        match source.handle_frame(frame, self.now, &mut |event| self.shared.tell(event)) {
            Verdict::Deliver(_) => {
                self.coalesce(slot, source.segment().mtu(), start..start + frame.len() as u32, coalescer);
            }
            Verdict::Drop(reason) => self.shared.counters.dropped(reason, 1),
            Verdict::Tunnel(_) | Verdict::Flood(_) | Verdict::Reply(_) => {}
        }
    }

    fn coalesce(&self, port: u32, mtu: u16, frame: std::ops::Range<u32>, coalescer: &mut Coalescer) {
        let arrival = Arrival { frame, port, mtu, checksum: Checksum::Verify };
        let mut result = coalescer.push(self.memory, &arrival);
        if result == Err(CoalesceError::Full) {
            self.flush(coalescer);
            result = coalescer.push(self.memory, &arrival);
        }
        if let Err(error) = result {
            self.shared.counters.dropped(reason_of(error), 1);
        }
    }

    fn flush(&self, coalescer: &mut Coalescer) {
        coalescer.flush(self.memory, |merged| {
            if let Some(Some(port)) = self.ports.get(merged.port as usize) {
                write(&port.queue, &merged, self.memory, &self.shared.counters);
            }
        });
    }
}

/// Datagrams of one message.
struct Train<'e> {
    source: Source<'e>,
    slot: u32,
    header: [u8; vxlan::HEADER_LEN],
    /// Where the first one begins in the inbox's memory.
    start: u32,
}

fn first_header(octets: &[u8]) -> [u8; vxlan::HEADER_LEN] {
    octets.first_chunk().copied().unwrap_or_default()
}

fn slot_of(ports: &Ports, vni: Vni) -> Option<u32> {
    let slot = ports.iter().position(|port| port.as_ref().is_some_and(|port| port.vni == vni))?;
    u32::try_from(slot).ok()
}

fn reason_of(error: CoalesceError) -> DropReason {
    match error {
        CoalesceError::Runt => DropReason::FrameTooShort,
        CoalesceError::Full | CoalesceError::Oversized => DropReason::Oversize,
        CoalesceError::OversizedCorrupt => DropReason::OversizeCorrupt,
    }
}

fn write(queue: &TapQueue, merged: &Merged<'_>, memory: &[u8], counters: &Counters) {
    let vnet: [u8; vnet::HEADER_LEN] = merged.vnet.emit();
    let mut parts = [IoSlice::new(&[]); PARTS];
    parts[0] = IoSlice::new(&vnet);
    parts[1] = IoSlice::new(merged.head);
    for (part, piece) in parts[2..].iter_mut().zip(merged.pieces) {
        *part = IoSlice::new(&memory[piece.start as usize..piece.end as usize]);
    }
    let frames = merged.segments() as u64;
    match queue.write(&parts[..2 + merged.pieces.len()]) {
        Ok(written) => {
            counters.add(Counter::WritesIn, 1);
            counters.add(Counter::FramesIn, frames);
            counters.add(Counter::FrameBytesIn, written.saturating_sub(vnet::HEADER_LEN) as u64);
            counters.add(Counter::MergedWritesIn, u64::from(frames > 1));
        }
        Err(_) => counters.dropped(DropReason::TapWriteFailed, frames),
    }
}
