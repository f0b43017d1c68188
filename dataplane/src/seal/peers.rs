//! All peers of a node as packets see them: who to seal for, whose session an index is.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::sealer::Fingerprint;
use super::{Opened, Opener, PeerSpec, PeerTotals, ReceiveSession, Reserved, Sealer, SendSession};
use crate::fdb::{Mix, Seconds};
use crate::segment::canonical;

/// Receive sessions per peer: previous, current, next.
const OPENERS_MAX: usize = 3;
/// Sessions of each direction remembered after they are gone: with a hundred peers, those of the last 20 minutes.
const RETIRED_MAX: usize = 1024;

/// Why nothing can be sealed for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no send session.
    #[error("no session")]
    NoSession,
    /// The send session has sealed all it may.
    #[error("the session is spent")]
    Spent,
}

/// A peer with its sessions; immutable but for their counters and windows.
#[derive(Debug)]
pub struct Peer {
    vtep: SocketAddr,
    sealer: Option<Arc<Sealer>>,
    openers: Vec<Arc<Opener>>,
    tallies: Arc<[Tally]>,
}

/// What one worker counted for a peer; only it writes, so no read-modify-write is needed.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Tally {
    sent: AtomicU64,
    received: AtomicU64,
    replayed: AtomicU64,
    forged: AtomicU64,
    clear: AtomicU64,
    last_sent: Stamp,
    last_received: Stamp,
}

/// A moment, as seconds + 1; 0 is never.
#[derive(Debug, Default)]
struct Stamp(AtomicU32);

impl Peer {
    /// The peer's tunnel end.
    #[must_use]
    pub fn vtep(&self) -> SocketAddr {
        self.vtep
    }

    /// Draws counters for `count` datagrams to it, as worker `queue`.
    ///
    /// # Errors
    /// Nothing can be sealed for it.
    #[inline]
    pub fn reserve(&self, queue: u8, count: u32, now: Seconds) -> Result<Reserved<'_>, Refusal> {
        let sealer = self.sealer.as_ref().ok_or(Refusal::NoSession)?;
        let reserved = sealer.reserve(queue, count).map_err(|_| Refusal::Spent)?;
        if let Some(tally) = self.tallies.get(usize::from(queue)) {
            bump(&tally.sent, count.into());
            tally.last_sent.set(now);
        }
        Ok(reserved)
    }

    /// Counts what worker `queue` opened.
    pub fn note(&self, queue: u8, opened: &Opened, now: Seconds) {
        let Some(tally) = self.tallies.get(usize::from(queue)) else { return };
        bump(&tally.forged, opened.forged.into());
        bump(&tally.replayed, opened.replayed.into());
        if opened.accepted != 0 {
            bump(&tally.received, opened.accepted.count_ones().into());
            tally.last_received.set(now);
        }
    }

    #[cfg(test)]
    pub(crate) fn wear(&self, queue: u8, packets: u64) {
        self.sealer.as_ref().expect("a session").wear(queue, packets);
    }

    fn totals(&self, now: Seconds) -> PeerTotals {
        let sum = |cell: fn(&Tally) -> &AtomicU64| {
            self.tallies.iter().map(|tally| cell(tally).load(Ordering::Relaxed)).sum()
        };
        let last = |stamp: fn(&Tally) -> &Stamp| {
            self.tallies.iter().filter_map(|tally| stamp(tally).age(now)).min().map(Duration::from_secs)
        };
        PeerTotals {
            vtep: self.vtep,
            send_index: self.sealer.as_ref().map(|sealer| sealer.index()),
            sent: sum(|tally| &tally.sent),
            received: sum(|tally| &tally.received),
            last_sent: last(|tally| &tally.last_sent),
            last_received: last(|tally| &tally.last_received),
            replayed: sum(|tally| &tally.replayed),
            forged: sum(|tally| &tally.forged),
            clear: sum(|tally| &tally.clear),
        }
    }
}

impl Stamp {
    fn set(&self, now: Seconds) {
        let value = now.0.saturating_add(1);
        if self.0.load(Ordering::Relaxed) != value {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    fn age(&self, now: Seconds) -> Option<u64> {
        let at = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.0.saturating_sub(at).into())
    }
}

fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Every peer, by tunnel end and by receive session; immutable, replaced whole.
#[derive(Debug, Clone)]
pub struct Peers {
    by_vtep: HashMap<SocketAddr, Arc<Peer>, Mix>,
    by_index: HashMap<u32, (Arc<Peer>, Arc<Opener>), Mix>,
    by_address: HashMap<IpAddr, Arc<Peer>, Mix>,
    queues: usize,
    /// Send sessions that are gone, newest first.
    retired: VecDeque<Fingerprint>,
    /// Receive sessions that are gone, newest first.
    closed: VecDeque<Fingerprint>,
}

impl Peers {
    /// No peers yet, for a node of `queues` workers; `seed` keys the hash tables.
    #[must_use]
    pub fn new(queues: usize, seed: u64) -> Self {
        Self {
            by_vtep: HashMap::with_hasher(Mix(seed)),
            by_index: HashMap::with_hasher(Mix(seed)),
            by_address: HashMap::with_hasher(Mix(seed)),
            queues,
            retired: VecDeque::new(),
            closed: VecDeque::new(),
        }
    }

    /// The peers after one of them was set. Sessions known by index and key, whoever's they were, keep their
    /// counters and windows; a peer keeps what was counted for it. A session that was gone and comes back is
    /// ignored: the counters of a send session are lost and would give nonces a second time, the windows of a
    /// receive session are and would let in again what was let in before.
    #[must_use]
    pub fn with(&self, spec: PeerSpec) -> Self {
        let PeerSpec { vtep, send, receive } = spec;
        let vtep = canonical(vtep);
        let peer = Arc::new(Peer {
            vtep,
            sealer: send.and_then(|session| self.sealer_of(session)),
            openers: receive.into_iter().take(OPENERS_MAX).filter_map(|s| self.opener_of(s)).collect(),
            tallies: match self.by_vtep.get(&vtep) {
                Some(before) => Arc::clone(&before.tallies),
                None => (0..self.queues).map(|_| Tally::default()).collect(),
            },
        });
        let mut next = self.clone();
        next.remove(vtep);
        for opener in &peer.openers {
            next.by_index.insert(opener.index(), (Arc::clone(&peer), Arc::clone(opener)));
        }
        next.by_address.insert(vtep.ip(), Arc::clone(&peer));
        next.by_vtep.insert(vtep, peer);
        next.retire(self.peer(vtep));
        next
    }

    /// The peers without the one at `vtep`.
    #[must_use]
    pub fn without(&self, vtep: SocketAddr) -> Self {
        let vtep = canonical(vtep);
        let mut next = self.clone();
        next.remove(vtep);
        next.retire(self.peer(vtep));
        next
    }

    fn remove(&mut self, vtep: SocketAddr) {
        self.by_vtep.remove(&vtep);
        self.by_index.retain(|_, (peer, _)| peer.vtep != vtep);
        self.by_address.retain(|_, peer| peer.vtep != vtep);
    }

    /// Remembers the sessions of a peer as it was before, unless somebody still has them.
    fn retire(&mut self, before: Option<&Peer>) {
        for opener in before.into_iter().flat_map(|peer| &peer.openers) {
            if !self.openers().any(|other| Arc::ptr_eq(other, opener)) {
                self.closed.truncate(RETIRED_MAX - 1);
                self.closed.push_front(opener.fingerprint());
            }
        }
        let Some(sealer) = before.and_then(|peer| peer.sealer.as_ref()) else { return };
        let mut kept = self.by_vtep.values().filter_map(|peer| peer.sealer.as_ref());
        if !kept.any(|other| Arc::ptr_eq(other, sealer)) {
            self.retired.truncate(RETIRED_MAX - 1);
            self.retired.push_front(sealer.fingerprint());
        }
    }

    /// The peer at `vtep`.
    #[must_use]
    pub fn peer(&self, vtep: SocketAddr) -> Option<&Peer> {
        self.by_vtep.get(&vtep).map(Arc::as_ref)
    }

    /// The receive session of this index, and whose it is.
    #[must_use]
    pub fn session(&self, index: u32) -> Option<(&Peer, &Opener)> {
        self.by_index.get(&index).map(|(peer, opener)| (peer.as_ref(), opener.as_ref()))
    }

    /// Counts what came in clear for a sealed network from a peer's address, as worker `queue`. Anybody can write that
    /// address into a datagram.
    pub fn note_clear(&self, from: IpAddr, queue: u8, datagrams: u32) {
        let peer = self.by_address.get(&from.to_canonical());
        if let Some(tally) = peer.and_then(|peer| peer.tallies.get(usize::from(queue))) {
            bump(&tally.clear, datagrams.into());
        }
    }

    /// What was counted for each peer, in the order of their tunnel ends.
    #[must_use]
    pub fn totals(&self, now: Seconds) -> Vec<PeerTotals> {
        let mut totals: Vec<PeerTotals> = self.by_vtep.values().map(|peer| peer.totals(now)).collect();
        totals.sort_by_key(|totals| totals.vtep);
        totals
    }

    fn sealer_of(&self, session: SendSession) -> Option<Arc<Sealer>> {
        let mut known = self.by_vtep.values().filter_map(|peer| peer.sealer.as_ref());
        match known.find(|sealer| sealer.is(&session)) {
            Some(sealer) => Some(Arc::clone(sealer)),
            None => Sealer::new(session, self.queues)
                .filter(|sealer| !self.retired.contains(&sealer.fingerprint()))
                .map(Arc::new),
        }
    }

    fn opener_of(&self, session: ReceiveSession) -> Option<Arc<Opener>> {
        match self.openers().find(|opener| opener.is(&session)) {
            Some(opener) => Some(Arc::clone(opener)),
            None => Opener::new(session)
                .filter(|opener| !self.closed.contains(&opener.fingerprint()))
                .map(Arc::new),
        }
    }

    /// The receive sessions of all peers.
    fn openers(&self) -> impl Iterator<Item = &Arc<Opener>> {
        self.by_vtep.values().flat_map(|peer| &peer.openers)
    }
}
