//! The engine: an immutable snapshot of every segment that turns frames and datagrams into verdicts.
//!
//! It does no IO and has no state of its own but the MACs learned behind static VTEPs, and the counters and replay
//! windows of sessions. Control makes a new
//! engine out of the old one and a [`Change`]; whoever runs the packets swaps it whole, so a packet sees the
//! tables before the change or after it, never between.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::change::{Change, Event};
use crate::fdb::{Mix, Seconds};
use crate::forward;
use crate::seal::{self, Opener, Peer, Peers};
use crate::segment::{Segment, Sender, Vtep};
use crate::stats::DropReason;
use crate::wire::{Vni, vxlan};

/// What is to be done with one frame or datagram. Never an error: what goes no further is dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'e> {
    /// The inner frame (all behind the VXLAN header) goes to the port of this segment.
    Deliver(Vni),
    /// The frame goes to one VTEP.
    Tunnel(&'e Vtep),
    /// The frame goes to each of these VTEPs (head-end replication).
    Flood(&'e [Vtep]),
    /// The frame goes to each of these VTEPs, sealed for the network of this id, and not at all where there is no
    /// session. Frames of a sealed segment leave in no other way.
    Seal(&'e [u8; 16], &'e [Vtep]),
    /// This frame goes back to the port the question came from.
    Reply(Reply),
    /// Nothing happens but a count.
    Drop(DropReason),
}

/// An answer made by the engine; its buffer is inline, so nothing is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub(crate) octets: [u8; Reply::MAX],
    pub(crate) len: u8,
}

impl Reply {
    /// Longest answer: a neighbour advertisement of 86 octets.
    pub const MAX: usize = 96;

    /// The Ethernet frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// Tables of all segments of a node; cheap to share, replaced whole.
#[derive(Debug, Clone)]
pub struct Engine {
    segments: HashMap<Vni, Arc<Segment>, Mix>,
    peers: Arc<Peers>,
    /// The node's own VTEP address: datagrams from it are loops.
    own: IpAddr,
    seed: u64,
}

/// Where a batch of datagrams with one sender and one header comes from; resolved once per batch.
#[derive(Debug, Clone, Copy)]
pub struct Source<'e> {
    pub(crate) segment: &'e Segment,
    pub(crate) sender: Sender,
    pub(crate) from: IpAddr,
}

/// Where a batch of sealed datagrams of one session and segment comes from, and what opens it.
#[derive(Debug, Clone, Copy)]
pub struct SealedSource<'e> {
    /// The source of the frames, once they are opened.
    pub source: Source<'e>,
    /// Id of the segment's network.
    pub network: &'e [u8; 16],
    /// Whose session it is.
    pub peer: &'e Peer,
    /// The session.
    pub opener: &'e Opener,
}

impl Engine {
    /// An engine without segments for the node whose VTEP address is `own` and that has `workers` workers;
    /// `seed` keys its hash tables and should be random.
    #[must_use]
    pub fn new(own: IpAddr, workers: usize, seed: u64) -> Self {
        let peers = Arc::new(Peers::new(workers, seed));
        Self { segments: HashMap::with_hasher(Mix(seed)), peers, own, seed }
    }

    /// The engine after `change`. Other segments are shared with this one.
    #[must_use]
    pub fn after(&self, change: Change) -> Self {
        let mut next = self.clone();
        match change {
            Change::SetSegment(mut spec) => {
                // A flood to ourselves would come back as a loop.
                spec.members.retain(|vtep| vtep.address.ip().to_canonical() != self.own);
                let before = self.segments.get(&spec.vni).map(Arc::as_ref);
                let segment = Segment::build(spec, self.seed, before);
                next.segments.insert(segment.vni(), Arc::new(segment));
            }
            Change::RemoveSegment(vni) => {
                next.segments.remove(&vni);
            }
            Change::SetPeer(spec) => next.peers = Arc::new(self.peers.with(spec)),
            Change::RemovePeer(vtep) => next.peers = Arc::new(self.peers.without(vtep)),
        }
        next
    }

    /// The segment of `vni`.
    #[must_use]
    pub fn segment(&self, vni: Vni) -> Option<&Segment> {
        self.segments.get(&vni).map(Arc::as_ref)
    }

    /// The peer at `vtep`, if control set one.
    #[must_use]
    pub fn peer(&self, vtep: SocketAddr) -> Option<&Peer> {
        self.peers.peer(vtep)
    }

    /// All peers.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Decides about a frame that came out of the port of segment `vni`. A super-frame is one frame; `largest`
    /// is the number of octets of the largest IP packet it becomes (of a plain frame: all behind the Ethernet
    /// header).
    #[must_use]
    pub fn handle_frame(&self, vni: Vni, frame: &[u8], largest: usize, now: Seconds) -> Verdict<'_> {
        let Some(segment) = self.segment(vni) else { return Verdict::Drop(DropReason::NoSegment) };
        match (&segment.sealing, forward::outbound(segment, frame, largest, now)) {
            (Some(network), Verdict::Tunnel(vtep)) => Verdict::Seal(network, std::slice::from_ref(vtep)),
            (Some(network), Verdict::Flood(vteps)) => Verdict::Seal(network, vteps),
            (_, verdict) => verdict,
        }
    }

    /// Decides about one datagram in clear from underlay address `from`; `notice` is told what was learned from it.
    pub fn handle_datagram(
        &self,
        from: IpAddr,
        datagram: &[u8],
        now: Seconds,
        notice: &mut dyn FnMut(Event),
    ) -> Verdict<'_> {
        let Some((header, frame)) = datagram.split_first_chunk() else {
            return Verdict::Drop(DropReason::DatagramTooShort);
        };
        match self.source(from, header) {
            Ok(source) => source.handle_frame(frame, now, notice),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Resolves sender and VXLAN header, which all datagrams of a batch share.
    ///
    /// # Errors
    /// The reason to drop every datagram of the batch.
    pub fn source(&self, from: IpAddr, header: &[u8; vxlan::HEADER_LEN]) -> Result<Source<'_>, DropReason> {
        let from = from.to_canonical();
        if from == self.own {
            return Err(DropReason::OwnAddress);
        }
        let vni = vxlan::parse(header).ok_or(DropReason::VniFlagClear)?;
        let segment = self.segment(vni).ok_or(DropReason::UnknownVni)?;
        if segment.sealing.is_some() {
            return Err(DropReason::ClearForSealed);
        }
        let sender = segment.sender(from).ok_or(DropReason::UnknownVtep)?;
        Ok(Source { segment, sender, from })
    }

    /// Resolves the header of a sealed datagram. Who sent it is told by the session alone: underlay addresses
    /// can be forged, and change.
    ///
    /// # Errors
    /// The reason to drop every datagram of the same session and VNI.
    pub fn sealed_source(&self, header: &seal::Header) -> Result<SealedSource<'_>, DropReason> {
        let segment = self.segment(header.vni).ok_or(DropReason::UnknownVni)?;
        let network = segment.sealing.as_ref().ok_or(DropReason::SealedForClear)?;
        let (peer, opener) = self.peers.session(header.session).ok_or(DropReason::UnknownSession)?;
        let vtep = peer.vtep();
        let source = Source { segment, sender: Sender::Peer(vtep), from: vtep.ip() };
        Ok(SealedSource { source, network, peer, opener })
    }
}

impl<'e> Source<'e> {
    /// Decides about one inner frame; `notice` is told what was learned from it.
    pub fn handle_frame(&self, frame: &[u8], now: Seconds, notice: &mut dyn FnMut(Event)) -> Verdict<'e> {
        forward::inbound(self, frame, now, notice)
    }

    /// As [`Source::handle_frame`], for a frame whose predecessor in the batch, where there is one, was to be
    /// delivered: a train of alike frames is decided once.
    #[inline]
    pub fn handle_next(
        &self,
        delivered: Option<&[u8]>,
        frame: &[u8],
        now: Seconds,
        notice: &mut dyn FnMut(Event),
    ) -> Verdict<'e> {
        match delivered {
            Some(previous) if forward::is_alike(previous, frame) => Verdict::Deliver(self.segment.vni),
            _ => self.handle_frame(frame, now, notice),
        }
    }

    /// Underlay address the datagrams come from.
    #[must_use]
    pub fn from(&self) -> IpAddr {
        self.from
    }

    /// The segment the datagrams belong to.
    #[must_use]
    pub fn segment(&self) -> &'e Segment {
        self.segment
    }
}

#[cfg(test)]
mod tests;
