//! Pairwise sessions: the keys that frames between two nodes are sealed with.
//!
//! One handshake of one round trip (`Noise_IKpsk2`) gives a session: a key for each direction, known to two nodes
//! and to nobody who steals one of them later. It is replaced every [`REKEY_AFTER`] of use, and the old one is kept
//! until the new one is proven on both ends, so that no frame is lost in between.
//!
//! * **Who may**: nodes given by [`Sessions::set_peer`], under a ring key both have. Everything else is a counted
//!   drop, and costs a MAC until it proves to know us, a cookie until it proves its address when there is much of
//!   it, and a place in one of few buckets before any curve operation. Strangers cost no memory.
//! * **Make before break**: the initiator sends on a new session at once, as the response proves that the peer has
//!   it, and confirms it; the responder does when that confirmation or the first datagram on it is there, and
//!   repeats its response until then. See `slots`.
//! * **Crossing**: of two initiations that cross, the one of the lower static key goes on.
//! * **Restart**: a higher boot epoch, announced or in an authentic initiation, ends all earlier sessions.
//! * **Silence**: sending for [`SILENCE`] without hearing anything asks for a new handshake, which ends nothing
//!   before it succeeds.
//! * **Idle**: wanted sessions are replaced every [`REKEY_IDLE_AFTER`]; others are wiped after [`WIPE_AFTER`].
//!
//! [`Sessions`] does no IO: the driver hands it datagrams, the time and a seed, and takes datagrams and events out.

mod book;
mod counters;
mod drive;
pub(crate) mod fuzzing;
mod handshake;
mod limits;
mod mac;
mod peer;
mod receive;
mod slots;
#[cfg(test)]
mod tests;
mod traffic;
mod types;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_dataplane::change::Event;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use self::handshake::Local;
use self::limits::{Bucket, CROSSING, JITTER, MAX_HINTS, RETRY_ON_TRAFFIC, STARTS, STRANGERS, UNPROVEN};
use self::mac::Jar;
use self::peer::PeerState;
use crate::model::NodeId;
use crate::ratchet::Ratchet;

pub use self::counters::Counters;
pub use self::limits::{
    MAX_OUTBOX, MAX_PEERS, REKEY_AFTER, REKEY_IDLE_AFTER, RETIRE_AFTER, SILENCE, WIPE_AFTER,
};
pub use self::types::{Peer, SessionConfig, SessionEvent, SessionState, SessionView};
pub use self::wire::is_session;

/// Roots of preshared keys by ring epoch.
pub type RingRoots = BTreeMap<u32, Zeroizing<[u8; 32]>>;

/// One node's side of all its sessions. See the module's documentation.
pub struct Sessions {
    local: Local,
    public: [u8; 32],
    mac1_key: [u8; 32],
    boot_epoch: u32,
    data_port: u16,
    rekey_after: Duration,
    /// Counter of the last initiation of this boot.
    counter: u64,
    ratchet: Ratchet,
    rng: StdRng,
    jar: Jar,
    ring: RingRoots,
    active: Option<u32>,
    peers: BTreeMap<NodeId, PeerState>,
    /// Receive indexes and indexes of handshakes under way, to their peer.
    indexes: BTreeMap<u32, NodeId>,
    statics: BTreeMap<[u8; 32], NodeId>,
    vteps: BTreeMap<SocketAddr, NodeId>,
    addresses: BTreeMap<SocketAddr, NodeId>,
    due: BTreeSet<(Instant, NodeId)>,
    starts: Bucket,
    unproven: Bucket,
    strangers: Bucket,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    gone: BTreeSet<SocketAddr>,
    hints: VecDeque<SessionEvent>,
    changed: BTreeSet<NodeId>,
    now: Instant,
    counters: Counters,
}

impl Sessions {
    /// A node without peers. `seed` is from the operating system's generator and never used twice, or fixed in tests.
    #[must_use]
    pub fn new(config: SessionConfig, seed: Zeroizing<[u8; 32]>, now: Instant) -> Self {
        let SessionConfig { cluster_id, us, static_secret, boot_epoch, data_port, rekey_after } = config;
        let public = PublicKey::from(&StaticSecret::from(*static_secret)).to_bytes();
        let mut ratchet = Ratchet::new(seed);
        Self {
            local: Local { cluster_id, us, secret: static_secret },
            public,
            mac1_key: mac::mac1_key(&cluster_id, &public),
            boot_epoch,
            data_port,
            rekey_after,
            counter: 0,
            rng: StdRng::from_seed(*ratchet.draw()),
            jar: Jar::new(now, &mut ratchet),
            ratchet,
            ring: BTreeMap::new(),
            active: None,
            peers: BTreeMap::new(),
            indexes: BTreeMap::new(),
            statics: BTreeMap::new(),
            vteps: BTreeMap::new(),
            addresses: BTreeMap::new(),
            due: BTreeSet::new(),
            starts: Bucket::new(STARTS, now),
            unproven: Bucket::new(UNPROVEN, now),
            strangers: Bucket::new(STRANGERS, now),
            outbox: VecDeque::new(),
            gone: BTreeSet::new(),
            hints: VecDeque::new(),
            changed: BTreeSet::new(),
            now,
            counters: Counters::default(),
        }
    }

    /// Goes on as a later start of this node.
    pub fn rise(&mut self, boot_epoch: u32) {
        self.boot_epoch = self.boot_epoch.max(boot_epoch);
    }

    /// Gives the roots of preshared keys by ring epoch, and the epoch that new handshakes use.
    ///
    /// Sessions made under an epoch that is gone stay until they are replaced; removed peers have none.
    pub fn set_ring(&mut self, now: Instant, active: u32, roots: RingRoots) {
        self.tick(now);
        self.active = roots.contains_key(&active).then_some(active);
        self.ring = roots;
        let at = self.now;
        let stale: Vec<NodeId> =
            self.peers.iter().filter(|(_, p)| self.is_stale(p)).map(|(id, _)| *id).collect();
        for id in stale {
            if let Some(attempt) = self.peers.get_mut(&id).and_then(|peer| peer.attempt.as_mut()) {
                attempt.retry = at;
            }
            self.settle(id);
        }
    }

    /// A sealed network is shared with this peer: keeps a session ahead of traffic.
    pub fn want(&mut self, now: Instant, id: NodeId) {
        self.tick(now);
        // The lower static key begins, so that few initiations cross.
        let first = self.peers.get(&id).is_some_and(|peer| self.public < peer.peer.static_public);
        let wait = if first { Duration::ZERO } else { self.rng.random_range(CROSSING / 5..CROSSING) };
        let at = self.now + wait;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !std::mem::replace(&mut peer.wanted, true)
            && peer.slots.sending().is_none()
            && peer.attempt.is_none()
        {
            peer.start_at(at);
        }
        self.settle(id);
    }

    /// No sealed network is shared with this peer any more: its session goes once it is idle.
    pub fn unwant(&mut self, now: Instant, id: NodeId) {
        self.tick(now);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.wanted = false;
            self.settle(id);
        }
    }

    /// Takes what the dataplane says of sessions; other events are none of ours.
    pub fn note(&mut self, now: Instant, event: Event) {
        self.tick(now);
        match event {
            Event::SessionWanted { vtep } => self.note_wanted(vtep),
            Event::SessionConfirmed { vtep, index } => {
                if let Some(id) = self.vteps.get(&vtep).copied() {
                    self.confirm(id, index);
                }
            }
            Event::SessionWorn { vtep } => self.note_worn(vtep),
            Event::Learned { .. } | Event::LearnRefused { .. } | Event::PortLost { .. } => {}
        }
    }

    /// Takes the dataplane's totals of datagrams sealed for and opened from a peer, every few seconds.
    pub fn note_traffic(&mut self, now: Instant, id: NodeId, sent: u64, received: u64) {
        self.tick(now);
        let at = self.now;
        if let Some(peer) = self.peers.get_mut(&id) {
            if peer.traffic.note(at, sent, received) && peer.attempt.is_none() {
                peer.start_at(at);
            }
            self.settle(id);
        }
    }

    /// Drops every session and makes new ones: the dataplane was replaced, and with it its counters and windows.
    pub fn reset(&mut self, now: Instant) {
        self.tick(now);
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let at = self.now + self.rng.random_range(Duration::ZERO..JITTER);
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if peer.wanted || !peer.slots.is_empty() {
                peer.clear();
                peer.start_at(at);
            }
            self.changed.insert(id);
            self.settle(id);
        }
    }

    /// When [`Sessions::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Next datagram to send: where, and its octets, far below 1,200 of them.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// Next event. What became of a peer's sessions comes as one, however often they changed.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if let Some(vtep) = self.gone.pop_first() {
            return Some(SessionEvent::Gone { vtep });
        }
        if let Some(hint) = self.hints.pop_front() {
            return Some(hint);
        }
        let id = self.changed.pop_first()?;
        let peer = self.peers.get(&id)?;
        Some(SessionEvent::Changed(peer.slots.spec(peer.peer.vtep)))
    }

    /// How it stands with each peer, in the order of their ids.
    pub fn views(&self, now: Instant) -> impl Iterator<Item = SessionView> {
        self.peers.values().map(move |peer| peer.view(now))
    }

    /// Counts since start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Whether a handshake is under way whose ring key is gone.
    fn is_stale(&self, peer: &PeerState) -> bool {
        peer.attempt.as_ref().is_some_and(|attempt| !self.ring.contains_key(&attempt.epoch))
    }

    fn note_wanted(&mut self, vtep: SocketAddr) {
        let Some(id) = self.vteps.get(&vtep).copied() else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.traffic.touch(self.now);
        match &mut peer.attempt {
            Some(attempt) => attempt.retry = attempt.retry.min(self.now.max(attempt.sent + RETRY_ON_TRAFFIC)),
            None if peer.slots.sending().is_none() => peer.start_at(self.now),
            None => {}
        }
        self.settle(id);
    }

    fn note_worn(&mut self, vtep: SocketAddr) {
        let Some(id) = self.vteps.get(&vtep).copied() else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // The event may have waited while the session was replaced.
        let old = peer.slots.sending().is_some_and(|session| session.since + RETRY_ON_TRAFFIC <= self.now);
        if old && peer.attempt.is_none() {
            peer.start_at(self.now);
            self.settle(id);
        }
    }

    fn hint(&mut self, event: SessionEvent) {
        if self.hints.len() >= MAX_HINTS {
            self.hints.pop_front();
        }
        self.hints.push_back(event);
    }

    fn transmit(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.counters.outbox_dropped += 1;
            return;
        }
        self.outbox.push_back((to, datagram));
    }

    /// Brings indexes and timers in line with what became of a peer.
    fn settle(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let attempt = peer.attempt.as_ref().map(|attempt| attempt.index);
        let indexed: Vec<u32> = peer.slots.indexes().chain(attempt).collect();
        for index in std::mem::take(&mut peer.indexed) {
            self.indexes.remove(&index);
        }
        self.indexes.extend(indexed.iter().map(|index| (*index, id)));
        peer.indexed = indexed;
        let (before, next) = (peer.due, peer.next());
        peer.due = next;
        if before != next {
            before.map(|at| self.due.remove(&(at, id)));
            next.map(|at| self.due.insert((at, id)));
        }
    }

    /// A number for a handshake or session that no other one has.
    fn new_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            if index != 0 && !self.indexes.contains_key(&index) {
                return index;
            }
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("us", &self.local.us)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}
