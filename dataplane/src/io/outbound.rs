//! From the ports to the underlay: frames are read, decided, split and gathered into runs.

use std::io::{self, IoSlice};
use std::slice::from_ref;
use std::sync::Arc;

use socket2::Socket;

use super::lane::{Lane, Sealing};
use super::plan::{Plan, complete, settle};
use super::worker::{Port, Shared};
use crate::change::Event;
use crate::engine::{Engine, Reply, Verdict};
use crate::fdb::Seconds;
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
    lane: Lane,
    /// Frames as they were read, one behind the other; the lane refers to them.
    frames: Vec<u8>,
    used: usize,
}

impl Outbound {
    pub(crate) fn new(sockets: Arc<[Socket]>) -> Self {
        Self { lane: Lane::new(sockets), frames: vec![0; FRAMES], used: 0 }
    }

    /// Reads from `port` until it is empty or as much was read as the memory holds, and sends what is to be sent,
    /// some of it only at [`Outbound::flush`].
    pub(crate) fn turn(&mut self, engine: &Engine, now: Seconds, port: &mut Port, shared: &Shared) {
        if self.used + READ_MAX > FRAMES {
            self.flush(&shared.counters);
        }
        let shut = engine.segment(port.vni).is_some_and(|segment| !port.is_of(segment));
        let mut read = self.used;
        while read + READ_MAX <= FRAMES {
            let start = self.used;
            match port.queues.read(&mut self.frames[start..start + READ_MAX]) {
                Ok(len) => {
                    let (start, end) = (start + vnet::HEADER_LEN, start + len);
                    read += len.next_multiple_of(64);
                    if shut {
                        dropped(DropReason::NoSegment, &shared.counters);
                        continue;
                    }
                    // Nothing refers to a frame that was sealed or dropped: the next one takes its place, which
                    // is still in the processor's cache.
                    if self.take(engine, now, port, start..end.max(start), shared) == Frame::Referred {
                        self.used = end.next_multiple_of(64);
                    }
                }
                Err(error) => {
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
        self.lane.flush(&self.frames, counters);
        self.used = 0;
    }

    fn take(
        &mut self,
        engine: &Engine,
        now: Seconds,
        port: &Port,
        at: std::ops::Range<usize>,
        shared: &Shared,
    ) -> Frame {
        let Self { lane, frames, .. } = self;
        let counters = &shared.counters;
        counters.add(Counter::FramesOut, 1);
        counters.add(Counter::FrameBytesOut, at.len() as u64);
        let vnet = first_vnet(&frames[at.start - vnet::HEADER_LEN..]);
        let settled = settle(&vnet, &mut frames[at.clone()]);
        let frame = &frames[at.clone()];
        let plan = match settled.and_then(|checksum| Plan::of(&vnet, frame, checksum)) {
            Ok(plan) => plan,
            Err(error) => return dropped(error.into(), counters),
        };
        let vteps = match engine.handle_frame(port.vni, frame, plan.largest(), now) {
            Verdict::Seal(network, vteps) => {
                let sealing = Sealing { engine, network, vteps, now };
                counters.add(Counter::SuperFramesOut, u64::from(vnet.is_super_frame()));
                lane.seal(frames, frame, &plan, &sealing, shared);
                return Frame::Free;
            }
            Verdict::Tunnel(vtep) => from_ref(vtep),
            Verdict::Flood(vteps) => vteps,
            Verdict::Reply(reply) => return answer(port, &reply, counters),
            Verdict::Drop(reason) => return dropped(reason, counters),
            // What came out of a port does not go back into it.
            Verdict::Deliver(_) => return Frame::Free,
        };
        match plan {
            Plan::Segments(split) => {
                counters.add(Counter::SuperFramesOut, 1);
                lane.send_segments(frames, at.start, &split, vteps, counters);
            }
            Plan::Whole { checksum, .. } => {
                complete(&vnet, checksum, &mut frames[at.clone()]);
                lane.send_whole(frames, at, vteps, counters);
            }
        }
        Frame::Referred
    }
}

/// Whether a frame's memory is needed up to the flush.
#[derive(PartialEq, Eq)]
enum Frame {
    /// Its payload goes out from where it was read.
    Referred,
    /// Nothing refers to it.
    Free,
}

fn dropped(reason: DropReason, counters: &Counters) -> Frame {
    counters.dropped(reason, 1);
    Frame::Free
}

fn first_vnet(octets: &[u8]) -> VnetHeader {
    octets.first_chunk().map_or(VnetHeader::PLAIN, VnetHeader::parse)
}

/// The device was deleted under us: reads fail from then on.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV | libc::ENXIO))
}

fn answer(port: &Port, reply: &Reply, counters: &Counters) -> Frame {
    say(port, reply, counters);
    Frame::Free
}

/// Writes a frame of our own to a port.
pub(crate) fn say(port: &Port, reply: &Reply, counters: &Counters) {
    let vnet = VnetHeader::PLAIN.emit();
    let queue = port.queues.of_flow(flow::hash(reply.frame()));
    match queue.write(&[IoSlice::new(&vnet), IoSlice::new(reply.frame())]) {
        Ok(_) => counters.add(Counter::NeighbourReplies, 1),
        Err(_) => counters.dropped(DropReason::TapWriteFailed, 1),
    }
}
