//! Segments of one flow into super-frames (what the kernel calls GRO), over one receive batch.
//!
//! Frames stay where they were received, in one arena; a *run* remembers the first frame of a super-frame and
//! the payload ranges that continue it. [`Coalescer::flush`] emits the runs in the order their first frames
//! came, so within a flow nothing overtakes anything, but for data that may pass pure acknowledgements.
//!
//! A frame joins the newest run of its flow only if splitting the result would give the same frames back:
//! equal Ethernet and IP headers but for length, id and checksums, the next sequence number, equal TCP header
//! and options, and no payload longer than the first. Identification is compared only where DF is clear: with DF it
//! means nothing (RFC 6864 §4.1).
//!
//! A joined frame is written with a checksum the kernel completes, so every frame must be known intact
//! before: otherwise a corrupted payload would be given a valid checksum.

use std::ops::Range;

use super::datagram::{Datagram, Role};
use super::flow_table::{FlowTable, Place};
use super::run::{self, Run, Segment};
use crate::wire::ethernet::Ethernet;
use crate::wire::flow::{mix, mix_octets};
use crate::wire::transport::Transport;
use crate::wire::vnet::VnetHeader;

/// Frames held between two flushes: a full batch of 64 messages of 64 datagrams each.
const MAX_FRAMES: usize = 4096;
/// Most segments of a super-frame: `UDP_MAX_SEGMENTS` of kernels before 6.9.
const MAX_SEGMENTS: usize = 64;

/// Whether the kernel behind the TAP takes UDP super-frames (`TUN_F_USO4`, Linux 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpSegmentation {
    /// Datagrams are coalesced.
    Supported,
    /// Datagrams go one by one.
    Missing,
}

/// What is known of the L4 checksum of a frame that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: it is verified before the frame is joined, or recognised as partial.
    Verify,
    /// The field holds at most the pseudo-header sum, and the octets are authentic.
    Partial,
    /// It is right: the frame was authenticated together with it.
    KnownGood,
}

/// A frame that arrived for a TAP.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Octets of the arena that hold the frame.
    pub frame: Range<u32>,
    /// Which TAP it is for: frames of different ports are never joined. The caller's own numbering.
    pub port: u32,
    /// MTU of that port: largest IP packet, octets.
    pub mtu: u16,
    /// What is known of its L4 checksum.
    pub checksum: Checksum,
}

/// Why a frame is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CoalesceError {
    /// No room until the next flush; the frame may be pushed again after it.
    #[error("no room before the next flush")]
    Full,
    /// The range is not inside the arena, or too short for an Ethernet header.
    #[error("no Ethernet frame")]
    Runt,
    /// The packet is longer than the MTU and cannot be cut: not TCP, or of unknown segment size.
    #[error("packet longer than the MTU")]
    Oversized,
    /// The packet is longer than the MTU, and its checksum is wrong.
    #[error("packet longer than the MTU with a wrong checksum")]
    OversizedCorrupt,
}

/// One write to a TAP: `vnet`, then `head`, then the pieces.
#[derive(Debug)]
pub struct Merged<'a> {
    /// Which TAP it is for.
    pub port: u32,
    /// Offload metadata.
    pub vnet: VnetHeader,
    /// Headers that differ from those in the arena; empty for a frame that is written as it came.
    pub head: &'a [u8],
    /// Octets of the arena that follow, at most 64 ranges.
    pub pieces: &'a [Range<u32>],
}

impl Merged<'_> {
    /// Octets of the frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.head.len() + self.pieces.iter().map(ExactSizeIterator::len).sum::<usize>()
    }

    /// Frames that were received to make this one.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.pieces.len()
    }
}

/// Joins the frames of one receive batch. Allocates when made, never again.
#[derive(Debug)]
pub struct Coalescer {
    udp: UdpSegmentation,
    held: Vec<Held>,
    pieces: Vec<Piece>,
    flows: FlowTable,
    /// The run that was touched last: under bulk the next frame continues it, without a lookup.
    recent: Option<usize>,
}

/// What waits for the flush.
#[derive(Debug, Clone)]
enum Held {
    /// A frame that is neither TCP nor UDP, or a fragment.
    Opaque { port: u32, frame: Range<u32> },
    /// One segment or several.
    Run(Run),
}

/// A payload that continues a run, and the index of the one after it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u32,
    end: u32,
    next: u32,
}

impl Coalescer {
    /// An empty coalescer. It reserves about 600 KiB, of which only what batches fill is ever touched.
    #[must_use]
    pub fn new(udp: UdpSegmentation) -> Self {
        Self {
            udp,
            held: Vec::with_capacity(MAX_FRAMES),
            pieces: Vec::with_capacity(MAX_FRAMES),
            flows: FlowTable::new(),
            recent: None,
        }
    }

    /// Takes a frame. `arena` is the same for all frames up to the flush.
    ///
    /// # Errors
    /// The frame is not held: see [`CoalesceError`]. Nothing else changed.
    #[inline]
    pub fn push(&mut self, arena: &[u8], arrival: &Arrival) -> Result<(), CoalesceError> {
        if self.held.len() == MAX_FRAMES || self.pieces.len() == MAX_FRAMES {
            return Err(CoalesceError::Full);
        }
        let range = arrival.frame.start as usize..arrival.frame.end as usize;
        let frame = arena.get(range).ok_or(CoalesceError::Runt)?;
        let ethernet = Ethernet::parse(frame).ok_or(CoalesceError::Runt)?;
        let mtu = usize::from(arrival.mtu);
        let Some(datagram) = Datagram::parse(&ethernet, frame) else {
            if frame.len() - ethernet.header_len() > mtu {
                return Err(CoalesceError::Oversized);
            }
            self.held.push(Held::Opaque { port: arrival.port, frame: arrival.frame.clone() });
            return Ok(());
        };
        let segment = Segment::new(arrival, datagram, frame);
        if datagram.end - datagram.l3 > mtu {
            self.start(arena, Run::oversized(segment, arrival.mtu, frame)?);
        } else {
            self.take(arena, segment, frame);
        }
        Ok(())
    }

    /// Emits everything held, in the order the first frame of each came, and is empty again.
    pub fn flush(&mut self, arena: &[u8], mut emit: impl FnMut(Merged<'_>)) {
        let mut head = [0; run::MAX_HEAD_LEN];
        let mut pieces = [const { 0..0 }; MAX_SEGMENTS];
        for held in &self.held {
            match held {
                Held::Opaque { port, frame } => {
                    pieces[0] = frame.clone();
                    emit(Merged { port: *port, vnet: VnetHeader::PLAIN, head: &[], pieces: &pieces[..1] });
                }
                Held::Run(run) => {
                    let (vnet, head_len, first) = run.seal(arena, &mut head);
                    pieces[0] = first;
                    self.gather(run, &mut pieces[1..run.segments]);
                    let pieces = &pieces[..run.segments];
                    emit(Merged { port: run.first.port, vnet, head: &head[..head_len], pieces });
                }
            }
        }
        self.clear();
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn clear(&mut self) {
        self.held.clear();
        self.pieces.clear();
        self.flows.reset();
        self.recent = None;
    }

    #[inline]
    fn gather(&self, run: &Run, ranges: &mut [Range<u32>]) {
        let mut next = run.first_piece;
        for range in ranges {
            let piece = &self.pieces[next as usize];
            *range = piece.start..piece.end;
            next = piece.next;
        }
    }

    #[inline]
    fn take(&mut self, arena: &[u8], segment: Segment, frame: &[u8]) {
        let unsupported =
            segment.datagram.transport == Transport::Udp && self.udp == UdpSegmentation::Missing;
        match segment.datagram.role {
            Role::Joins { .. } if !unsupported => self.join(arena, segment, frame),
            Role::StaysAlone if !unsupported => self.start(arena, Run::new(segment, frame)),
            _ => self.held.push(Held::Run(Run::new(segment, frame))),
        }
    }

    /// Continues the flow's newest run, or starts another.
    #[inline]
    fn join(&mut self, arena: &[u8], mut segment: Segment, frame: &[u8]) {
        if let Some(recent) = self.recent
            && self.is_of_flow(recent, arena, &segment, frame)
            && self.append(recent, arena, &mut segment, frame)
        {
            return;
        }
        let hash = flow_hash(&segment, frame);
        let place = self.flows.find(hash, |run| self.is_of_flow(run, arena, &segment, frame));
        if let Place::Known { run: newest, .. } = place
            && self.append(newest, arena, &mut segment, frame)
        {
            self.recent = Some(newest);
            return;
        }
        self.start_at(place, hash, Run::new(segment, frame));
    }

    /// Starts a run that ends the flow's previous one.
    fn start(&mut self, arena: &[u8], run: Run) {
        let frame = run.first.frame(arena);
        let hash = flow_hash(&run.first, frame);
        let place = self.flows.find(hash, |other| self.is_of_flow(other, arena, &run.first, frame));
        self.start_at(place, hash, run);
    }

    fn start_at(&mut self, place: Place, hash: u64, run: Run) {
        let index = self.held.len();
        self.held.push(Held::Run(run));
        match place {
            Place::Known { slot, .. } | Place::Free { slot } => {
                self.flows.set(slot, hash, index);
                self.recent = Some(index);
            }
            // Not in the table, so that no later frame of the flow finds and joins it.
            Place::Full => {}
        }
    }

    #[inline]
    fn is_of_flow(&self, index: usize, arena: &[u8], segment: &Segment, frame: &[u8]) -> bool {
        matches!(&self.held[index], Held::Run(run) if run.first.is_of_flow(arena, segment, frame))
    }

    #[inline]
    fn append(&mut self, index: usize, arena: &[u8], segment: &mut Segment, frame: &[u8]) -> bool {
        let Held::Run(run) = &mut self.held[index] else { return false };
        if run.segments == MAX_SEGMENTS || !run.accepts(arena, segment, frame) {
            return false;
        }
        let piece = self.pieces.len() as u32;
        let Range { start, end } = segment.payload();
        self.pieces.push(Piece { start, end, next: 0 });
        if run.segments == 1 {
            run.first_piece = piece;
        } else {
            self.pieces[run.last_piece as usize].next = piece;
        }
        run.last_piece = piece;
        run.grow(segment);
        true
    }
}

fn flow_hash(segment: &Segment, frame: &[u8]) -> u64 {
    let (addresses, ports) = segment.datagram.flow_octets(frame);
    let transport = u64::from(segment.datagram.transport.protocol());
    mix(mix_octets(mix_octets(u64::from(segment.port), addresses), ports), transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A split plan is plain data: it could not own memory if it wanted to.
    const _: fn() = || {
        fn is_plain_data<T: Copy>() {}
        is_plain_data::<super::super::Split<'_>>();
        is_plain_data::<Piece>();
        is_plain_data::<Run>();
    };

    #[test]
    fn tables_never_grow_or_move_however_much_is_pushed() {
        let arena = datagrams(MAX_FRAMES);
        let mut coalescer = Coalescer::new(UdpSegmentation::Supported);
        let at_first = memory(&coalescer);
        for batch in [1, 64, MAX_FRAMES, MAX_FRAMES + 1] {
            for i in 0..batch {
                let start = (i % MAX_FRAMES * FRAME_LEN) as u32;
                let frame = start..start + FRAME_LEN as u32;
                let arrival = Arrival { frame, port: 0, mtu: 1450, checksum: Checksum::KnownGood };
                let _ = coalescer.push(&arena, &arrival);
            }
            assert!(!coalescer.is_empty());
            coalescer.flush(&arena, |_| ());
            assert_eq!(memory(&coalescer), at_first, "after {batch} frames");
        }
    }

    const FRAME_LEN: usize = 14 + 20 + 8 + 1;

    /// Datagrams of a hundred flows in turn, so that runs, pieces and flows are all used.
    fn datagrams(count: usize) -> Vec<u8> {
        let mut arena = Vec::new();
        for i in 0..count {
            arena.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
            arena.extend([0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0x26, 0xce, 10, 0, 0, 1, 10, 0, 0, 2]);
            arena.extend([0, (i % 100) as u8, 0, 9, 0, 9, 1, 1, 0xaa]);
        }
        arena
    }

    type Place = (usize, usize);

    /// Where the tables lie, and how large they are.
    fn memory(coalescer: &Coalescer) -> [Place; 2] {
        [
            (coalescer.held.as_ptr() as usize, coalescer.held.capacity()),
            (coalescer.pieces.as_ptr() as usize, coalescer.pieces.capacity()),
        ]
    }
}
