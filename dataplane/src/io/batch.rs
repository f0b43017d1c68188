//! One batch of datagrams: opened where they are sealed, decided, coalesced and written to the ports.

use std::io::IoSlice;
use std::net::IpAddr;
use std::ops::Range;

use super::queues::Queues;
use super::sys::Received;
use super::worker::{Ports, Shared};
use crate::change::Event;
use crate::engine::{Engine, SealedSource, Source, Verdict};
use crate::fdb::Seconds;
use crate::offload::{Arrival, Checksum, CoalesceError, Coalescer, Merged};
use crate::seal::{self, Header, InnerChecksum, Opened, TRAIN_MAX};
use crate::segment::Segment;
use crate::stats::{Counter, Counters, DropReason};
use crate::wire::{flow, vnet, vxlan};

/// Parts of one write: header, rewritten head, and the most pieces a coalescer joins.
const PARTS: usize = 2 + 64;
/// Octets of a sealed header that name kind, segment, session and queue: what a train has in common.
const SEALED_ALIKE: usize = 9;

/// A batch in the inbox's memory, and what its frames become.
pub(super) struct Batch<'b> {
    pub(super) engine: &'b Engine,
    pub(super) now: Seconds,
    pub(super) ports: &'b Ports,
    pub(super) shared: &'b Shared,
    pub(super) memory: &'b mut [u8],
    pub(super) coalescer: &'b mut Coalescer,
}

/// Datagrams of one message with one sender and one header.
struct Train<'e> {
    source: Source<'e>,
    /// Slot of the port.
    slot: u32,
    checksum: Checksum,
    /// Newest frame that was delivered.
    delivered: Option<Range<u32>>,
}

impl<'b> Batch<'b> {
    /// Takes a message: one datagram, or several that UDP_GRO joined.
    pub(super) fn take(&mut self, message: &Received) {
        let counters = &self.shared.counters;
        let stride = message.stride.max(1);
        let datagrams = (message.range.len() as u64).div_ceil(stride.into()).max(1);
        counters.add(Counter::DatagramsIn, datagrams);
        counters.add(Counter::DatagramBytesIn, message.range.len() as u64);
        counters.add(Counter::BatchesIn, u64::from(datagrams > 1));
        if message.truncated {
            // It has lost the end of its last datagram; nothing of it can be trusted.
            return counters.dropped(DropReason::DatagramTruncated, datagrams);
        }
        if message.range.is_empty() {
            return counters.dropped(DropReason::DatagramTooShort, 1);
        }
        let mut rest = message.range.clone();
        while !rest.is_empty() {
            rest.start = self.take_train(rest.clone(), stride, message.from.ip());
        }
    }

    /// Takes the datagrams at the start of `rest` that have one header; returns where the next one begins.
    /// Mostly they are all: but one source port carries several segments, and some may be sealed.
    fn take_train(&mut self, rest: Range<u32>, stride: u32, from: IpAddr) -> u32 {
        let octets = &self.memory[places(&rest)];
        if Header::is_ahead(octets) {
            return self.take_sealed(rest, stride);
        }
        let count = alike(octets, stride, vxlan::HEADER_LEN, vxlan::HEADER_LEN, usize::MAX);
        let train = rest.start..rest.end.min(rest.start + count * stride);
        match self.source(from, octets) {
            Ok(mut frames) => self.take_clear(&mut frames, &train, stride),
            Err(reason) => {
                if reason == DropReason::ClearForSealed {
                    self.engine.peers().note_clear(from, self.shared.queue, count);
                }
                self.shared.counters.dropped(reason, count.into());
            }
        }
        train.end
    }

    /// All datagrams of a train have one sender and one VXLAN header: both are resolved once.
    fn source(&self, from: IpAddr, octets: &[u8]) -> Result<Train<'b>, DropReason> {
        let header = octets.first_chunk().ok_or(DropReason::DatagramTooShort)?;
        let source = self.engine.source(from, header)?;
        self.train(source, Checksum::Verify)
    }

    fn train(&self, source: Source<'b>, checksum: Checksum) -> Result<Train<'b>, DropReason> {
        let slot = slot_of(self.ports, source.segment()).ok_or(DropReason::NoPort)?;
        Ok(Train { source, slot, checksum, delivered: None })
    }

    /// As [`Batch::take_train`], for datagrams that are sealed.
    fn take_sealed(&mut self, rest: Range<u32>, stride: u32) -> u32 {
        let octets = &self.memory[places(&rest)];
        let count = alike(octets, stride, SEALED_ALIKE, seal::OVERHEAD, TRAIN_MAX);
        let train = rest.start..rest.end.min(rest.start + count * stride);
        let resolved = match octets.first_chunk() {
            Some(octets) if train.len() >= seal::OVERHEAD => {
                Header::parse(octets).ok_or(DropReason::SealedKind)
            }
            _ => Err(DropReason::SealedTooShort),
        };
        let resolved = resolved.and_then(|header| Ok((header, self.engine.sealed_source(&header)?)));
        match resolved {
            Ok((header, sealed)) => self.open(&header, &sealed, &train, stride),
            Err(reason) => self.shared.counters.dropped(reason, count.into()),
        }
        train.end
    }

    /// Opens a train in place, and takes the frames that come out of it.
    fn open(&mut self, header: &Header, sealed: &SealedSource<'b>, train: &Range<u32>, stride: u32) {
        let octets = &mut self.memory[places(train)];
        let opened = sealed.opener.open_train(sealed.network, octets, stride as usize);
        self.note(sealed, &opened);
        let checksum = match header.checksum {
            InnerChecksum::Whole => Checksum::Verify,
            InnerChecksum::Partial => Checksum::Partial,
        };
        let mut frames = match self.train(sealed.source, checksum) {
            Ok(frames) => frames,
            Err(reason) => {
                return self.shared.counters.dropped(reason, opened.accepted.count_ones().into());
            }
        };
        let mut left = opened.accepted;
        while left != 0 {
            let start = train.start + left.trailing_zeros() * stride;
            left &= left - 1;
            let end = train.end.min(start + stride);
            self.take_frame(&mut frames, start + seal::HEADER_LEN as u32..end - seal::TAG_LEN as u32);
        }
    }

    fn note(&self, sealed: &SealedSource<'_>, opened: &Opened) {
        let counters = &self.shared.counters;
        counters.add(Counter::OpenedIn, opened.accepted.count_ones().into());
        counters.dropped(DropReason::Forged, opened.forged.into());
        counters.dropped(DropReason::Replayed, opened.replayed.into());
        sealed.peer.note(self.shared.queue, opened, self.now);
        let (vtep, index) = (sealed.peer.vtep(), sealed.opener.index());
        if opened.accepted != 0
            && sealed.opener.confirm()
            && !self.shared.tell(Event::SessionConfirmed { vtep, index })
        {
            sealed.opener.unconfirm();
        }
    }

    /// Takes the frames of a train of datagrams in clear.
    fn take_clear(&mut self, frames: &mut Train<'_>, train: &Range<u32>, stride: u32) {
        let mut start = train.start;
        while start < train.end {
            let end = train.end.min(start + stride);
            self.take_frame(frames, start + vxlan::HEADER_LEN as u32..end);
            start = end;
        }
    }

    #[inline]
    fn take_frame(&mut self, train: &mut Train<'_>, frame: Range<u32>) {
        let previous = train.delivered.as_ref().map(|range| &self.memory[places(range)]);
        let mut notice = |event| {
            self.shared.tell(event);
        };
        let octets = &self.memory[places(&frame)];
        match train.source.handle_next(previous, octets, self.now, &mut notice) {
            Verdict::Deliver(_) => {
                train.delivered = Some(frame.clone());
                let mtu = train.source.segment().mtu();
                self.coalesce(&Arrival { frame, port: train.slot, mtu, checksum: train.checksum });
            }
            Verdict::Drop(reason) => self.shared.counters.dropped(reason, 1),
            // Datagrams are never answered nor sent on.
            Verdict::Tunnel(_) | Verdict::Flood(_) | Verdict::Seal(..) | Verdict::Reply(_) => {}
        }
    }

    fn coalesce(&mut self, arrival: &Arrival) {
        let mut result = self.coalescer.push(self.memory, arrival);
        if result == Err(CoalesceError::Full) {
            self.flush();
            result = self.coalescer.push(self.memory, arrival);
        }
        if let Err(error) = result {
            self.shared.counters.dropped(reason_of(error), 1);
        }
    }

    /// Writes what waits to be joined.
    pub(super) fn flush(&mut self) {
        let (memory, ports, counters) = (&*self.memory, self.ports, &self.shared.counters);
        self.coalescer.flush(memory, |merged| {
            if let Some(Some(port)) = ports.get(merged.port as usize) {
                write(&port.queues, &merged, memory, counters);
            }
        });
    }
}

/// Number of datagrams from the first one on, at most `most` and at least 1, that begin with the same `prefix`
/// octets and have `least` or more.
fn alike(octets: &[u8], stride: u32, prefix: usize, least: usize, most: usize) -> u32 {
    let mut datagrams = octets.chunks(stride as usize).take(most);
    let Some(first) = datagrams.next().filter(|first| first.len() >= least.max(prefix)) else { return 1 };
    let same = |other: &&[u8]| other.len() >= least && other[..prefix] == first[..prefix];
    1 + datagrams.take_while(same).count() as u32
}

fn places(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn slot_of(ports: &Ports, segment: &Segment) -> Option<u32> {
    let slot = ports.iter().position(|port| port.as_ref().is_some_and(|port| port.is_of(segment)))?;
    u32::try_from(slot).ok()
}

fn reason_of(error: CoalesceError) -> DropReason {
    match error {
        CoalesceError::Runt => DropReason::FrameTooShort,
        CoalesceError::Full | CoalesceError::Oversized => DropReason::Oversize,
        CoalesceError::OversizedCorrupt => DropReason::OversizeCorrupt,
    }
}

fn write(queues: &Queues, merged: &Merged<'_>, memory: &[u8], counters: &Counters) {
    let vnet: [u8; vnet::HEADER_LEN] = merged.vnet.emit();
    let mut parts = [IoSlice::new(&[]); PARTS];
    parts[0] = IoSlice::new(&vnet);
    parts[1] = IoSlice::new(merged.head);
    for (part, piece) in parts[2..].iter_mut().zip(merged.pieces) {
        *part = IoSlice::new(&memory[piece.start as usize..piece.end as usize]);
    }
    let frames = merged.segments() as u64;
    // All of one flow by the same queue: the kernel takes what comes back by it.
    let front = if merged.head.is_empty() { &parts[2] } else { &parts[1] };
    let queue = queues.of_flow(flow::hash(front));
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
