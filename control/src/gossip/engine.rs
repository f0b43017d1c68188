//! What the membership engine is made of beyond itself: the octets of its packets, and the rumours it spreads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut};
use foca::{BroadcastHandler, Codec, Invalidates, PostcardCodec, State};

use super::limits::MAX_NODES;
use super::membership::Peer;
use super::record::{ClusterId, Head};
use super::wire::{Reader, reachable};
use crate::model::NodeId;

pub(super) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a packet says of a member beyond what that member's own head shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) peer: Peer,
    pub(super) incarnation: u16,
    /// Who says so.
    pub(super) teller: NodeId,
}

/// What the engine's codec and broadcast handler share with [`Membership`](super::membership::Membership).
///
/// The engine owns both and gives no way back to them; the lock is never contended, as one thread owns all of it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cluster: ClusterId,
    pub(super) us: Peer,
    /// Version of the newest head known, per origin.
    pub(super) known: BTreeMap<NodeId, u64>,
    /// Each member as its own newest head has it.
    pub(super) proven: BTreeMap<NodeId, Peer>,
    pub(super) heads: Vec<(Head, NodeId)>,
    pub(super) claims: Vec<Claim>,
    pub(super) backlog: usize,
    pub(super) forged: u64,
    /// Claims that contradict what their subject signed.
    pub(super) unproven: u64,
    /// Sender of the packet at hand.
    sender: Option<(Peer, u16)>,
}

/// What is to be thought of a member as somebody names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// As it signed it.
    Proven,
    /// Newer than what it signed as far as is known here.
    Ahead,
    /// Older, or never true.
    Nothing,
}

impl Shared {
    pub(super) fn new(cluster: ClusterId, us: Peer) -> Self {
        Self {
            cluster,
            us,
            known: BTreeMap::new(),
            proven: BTreeMap::new(),
            heads: Vec::new(),
            claims: Vec::new(),
            backlog: 0,
            forged: 0,
            unproven: 0,
            sender: None,
        }
    }

    /// Only its own signature makes, renews or moves a member; what is ahead of that is noted as a claim.
    pub(super) fn judge(&mut self, peer: &Peer, incarnation: u16, teller: NodeId) -> Judgement {
        let signed = if peer.id == self.us.id { Some(&self.us) } else { self.proven.get(&peer.id) };
        match signed {
            Some(signed) if signed == peer => return Judgement::Proven,
            Some(signed) if signed.generation > peer.generation => return Judgement::Nothing,
            Some(signed) if signed.generation == peer.generation || peer.id == self.us.id => {
                self.unproven += 1;
                return Judgement::Nothing;
            }
            _ => {}
        }
        self.claims.push(Claim { peer: *peer, incarnation, teller });
        Judgement::Ahead
    }
}

/// The octets of the engine's packets; lets only such members through as they signed themselves.
pub(super) struct BoundedCodec(pub(super) Arc<Mutex<Shared>>);

/// A packet that is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Octets(#[from] postcard::Error),
    #[error("address that no member can have")]
    Address,
    #[error("sender that did not prove itself")]
    Unproven,
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
        let mut shared = lock(&self.0);
        match shared.judge(&header.src, header.src_incarnation, header.src.id) {
            Judgement::Proven => shared.sender = Some((header.src, header.src_incarnation)),
            Judgement::Ahead | Judgement::Nothing => return Err(CodecError::Unproven),
        }
        Ok(header)
    }

    fn encode_member(&mut self, member: &foca::Member<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Peer>, CodecError> {
        let member: foca::Member<Peer> = PostcardCodec.decode_member(buf)?;
        plausible(member.id())?;
        let mut shared = lock(&self.0);
        let (sender, incarnation) = shared.sender.ok_or(CodecError::Unproven)?;
        let noted = shared.claims.len();
        match shared.judge(member.id(), member.incarnation(), sender.id) {
            Judgement::Proven => return Ok(member),
            // Nobody needs to hear of the death of a member that was never known.
            Judgement::Ahead if member.state() == State::Down => shared.claims.truncate(noted),
            Judgement::Ahead | Judgement::Nothing => {}
        }
        // The rest of the packet counts; in this place it says what its header says already.
        Ok(foca::Member::new(sender, incarnation, State::Alive))
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
        // News of somebody new spread once it has shown that it belongs here.
        let spread = shared.backlog < MAX_RUMOURS && shared.proven.contains_key(&origin);
        shared.backlog += usize::from(spread);
        Ok(spread.then_some(RumourKey(origin, version)))
    }
}
