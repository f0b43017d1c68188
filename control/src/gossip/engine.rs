//! What the membership engine is made of beyond itself: the octets of its packets, and the rumours it spreads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut};
use foca::{BroadcastHandler, Codec, Invalidates, PostcardCodec};

use super::limits::{MAX_NODES, MAX_UNVERIFIED};
use super::membership::Peer;
use super::record::{ClusterId, Head};
use super::wire::{Reader, reachable};
use crate::model::NodeId;

pub(super) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the engine's codec and broadcast handler share with [`Membership`](super::membership::Membership).
///
/// The engine owns both and gives no way back to them; the lock is never contended, as one thread owns all of it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) cluster: ClusterId,
    /// Version of the newest head known, per origin.
    pub(super) known: BTreeMap<NodeId, u64>,
    pub(super) heads: Vec<(Head, NodeId)>,
    pub(super) backlog: usize,
    pub(super) forged: u64,
    pub(super) members: BTreeSet<NodeId>,
}

impl Shared {
    /// Whether `peer` is known or one more may be, given those that the packet at hand already brings.
    fn has_room(&mut self, peer: &Peer) -> Result<(), CodecError> {
        if self.members.len() >= MAX_NODES + MAX_UNVERIFIED && !self.members.contains(&peer.id) {
            return Err(CodecError::TooMany);
        }
        self.members.insert(peer.id);
        Ok(())
    }
}

/// The octets of the engine's packets; refuses members that can't be, and more of them than there is room for.
pub(super) struct BoundedCodec(pub(super) Arc<Mutex<Shared>>);

/// A member or header that is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Octets(#[from] postcard::Error),
    #[error("address that no member can have")]
    Address,
    #[error("more members than are kept")]
    TooMany,
}

fn plausible(peer: &Peer) -> Result<(), CodecError> {
    reachable(&peer.addr).then_some(()).ok_or(CodecError::Address)
}

impl Codec<Peer> for BoundedCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &foca::Header<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_header(header, buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<foca::Header<Peer>, CodecError> {
        let header: foca::Header<Peer> = PostcardCodec.decode_header(buf)?;
        plausible(&header.src)?;
        lock(&self.0).has_room(&header.src)?;
        Ok(header)
    }

    fn encode_member(&mut self, member: &foca::Member<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Peer>, CodecError> {
        let member: foca::Member<Peer> = PostcardCodec.decode_member(buf)?;
        plausible(member.id())?;
        lock(&self.0).has_room(member.id())?;
        Ok(member)
    }
}

/// Heads that travel with the engine's packets: small, and enough for whoever hears of one to pull the rest.
pub(super) struct HeadRumours(pub(super) Arc<Mutex<Shared>>);

/// Rumours waiting to be passed on; more are left to anti-entropy.
const MAX_RUMOURS: usize = 64;

/// What a rumour is about: a newer head of the same origin replaces an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RumourKey(NodeId, u64);

impl Invalidates for RumourKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0 && self.1 >= other.1
    }
}

impl BroadcastHandler<Peer> for HeadRumours {
    type Key = RumourKey;
    type Error = std::convert::Infallible;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Peer>) -> Result<Option<RumourKey>, Self::Error> {
        let mut reader = Reader::new(data);
        let Some(head) = Head::parse(&mut reader).filter(|_| reader.end().is_some()) else { return Ok(None) };
        let (origin, version) = (head.origin(), head.version);
        let mut shared = lock(&self.0);
        let Some(sender) = sender else { return Ok(Some(RumourKey(origin, version))) };
        if shared.known.get(&origin).is_some_and(|known| *known >= version) {
            return Ok(None);
        }
        let fits = shared.known.len() < MAX_NODES || shared.known.contains_key(&origin);
        if !fits {
            return Ok(None);
        }
        if !head.verify(&shared.cluster) {
            shared.forged += 1;
            return Ok(None);
        }
        shared.known.insert(origin, version);
        shared.heads.push((head, sender.id));
        let spread = shared.backlog < MAX_RUMOURS;
        shared.backlog += usize::from(spread);
        Ok(spread.then_some(RumourKey(origin, version)))
    }
}
