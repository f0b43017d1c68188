//! Sessions with the nodes that sealed networks are shared with: wanted ahead of traffic, as long as both are in one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_dataplane::change::{Change, Event};
use weft_dataplane::seal::{PeerSpec, PeerTotals};
use zeroize::Zeroizing;

use super::holders::{Claim, Holders};
use super::view::View;
use super::{Cluster, ClusterConfig, ClusterEvent};
use crate::api;
use crate::gossip::{Epoch, Member, MemberState, Ring, Transmit, Via};
use crate::identity::Identity;
use crate::model::{NetworkId, NodeId};
use crate::session::{Peer, RingRoots, SessionConfig, SessionEvent, SessionState, SessionView, Sessions};
use crate::trust::ClusterId;

/// What seals packets.
const CIPHER: &str = "AES-256-GCM";

/// The sessions, and what they were last told.
pub(super) struct Sealed {
    pub(super) sessions: Sessions,
    /// Whose each tunnel end is.
    pub(super) holders: Holders,
    /// The sessions did not take everybody, and are asked again.
    pub(super) refused_some: bool,
    peers: BTreeMap<NodeId, Peer>,
    wanted: BTreeSet<NodeId>,
    /// The active epoch, and all.
    epochs: (Option<Epoch>, Vec<Epoch>),
    /// Tunnel ends the dataplane was given sessions for.
    programmed: BTreeSet<SocketAddr>,
    /// What the dataplane last counted, by tunnel end.
    totals: BTreeMap<SocketAddr, PeerTotals>,
    /// Members may have come, gone or moved; networks may be shared with others.
    pub(super) dirty: bool,
}

impl Sealed {
    pub(super) fn new(
        cluster_id: ClusterId,
        config: &ClusterConfig,
        identity: &Identity,
        boot_epoch: u32,
        seed: Zeroizing<[u8; 32]>,
        now: Instant,
    ) -> Self {
        let own = SessionConfig {
            cluster_id,
            us: identity.node_id(),
            static_secret: identity.static_secret(),
            boot_epoch,
            data_port: config.data_port,
            rekey_after: config.timing.rekey,
        };
        Self {
            sessions: Sessions::new(own, seed, now),
            holders: Holders::default(),
            refused_some: false,
            epochs: (None, Vec::new()),
            peers: BTreeMap::new(),
            wanted: BTreeSet::new(),
            programmed: BTreeSet::new(),
            totals: BTreeMap::new(),
            dirty: true,
        }
    }

    /// Tells the sessions of the keys on the ring, if they are others than before.
    fn tell_ring(&mut self, now: Instant, ring: &Ring) {
        let epochs = (Some(ring.active()), ring.epochs().collect());
        if self.epochs != epochs {
            let roots = ring.epochs().filter_map(|epoch| Some((epoch.0, ring.psk_root(epoch)?)));
            self.sessions.set_ring(now, ring.active().0, roots.collect::<RingRoots>());
            self.epochs = epochs;
        }
    }

    /// Tells the sessions what differs from what they were told last.
    fn tell(&mut self, now: Instant, mut peers: BTreeMap<NodeId, Peer>, mut wanted: BTreeSet<NodeId>) {
        for &id in self.peers.keys().filter(|id| !peers.contains_key(id)) {
            self.sessions.remove_peer(now, id);
        }
        let all = peers.len();
        peers.retain(|id, peer| {
            let same = self.peers.get(id) == Some(peer);
            if !same {
                // A peer whose key changed has begun anew.
                self.wanted.remove(id);
            }
            same || self.sessions.set_peer(now, *peer)
        });
        self.refused_some = peers.len() < all;
        wanted.retain(|id| peers.contains_key(id));
        for &id in self.wanted.difference(&wanted) {
            self.sessions.unwant(now, id);
        }
        for &id in wanted.difference(&self.wanted) {
            self.sessions.want(now, id);
        }
        self.peers = peers;
        self.wanted = wanted;
    }

    /// What the dataplane is told of a peer; nothing of one that there was never a session with.
    fn change(&mut self, spec: PeerSpec) -> Option<Change> {
        let bare = spec.send.is_none() && spec.receive.is_empty();
        if bare {
            return self.programmed.remove(&spec.vtep).then_some(Change::RemovePeer(spec.vtep));
        }
        self.programmed.insert(spec.vtep);
        Some(Change::SetPeer(spec))
    }

    /// The sessions with each peer there is or may be one with.
    pub(super) fn shown(&self, now: Instant) -> BTreeMap<NodeId, api::Session> {
        let used = |view: &SessionView| view.wanted || view.state != SessionState::Idle;
        let views = self.sessions.views(now).filter(used);
        views.map(|view| (view.peer, show(&view, self.totals.get(&view.vtep)))).collect()
    }
}

impl Cluster {
    /// Takes in what the dataplane says of sessions.
    pub fn note(&mut self, now: Instant, event: Event) {
        self.sealed.sessions.note(now, event);
        self.drain(now);
    }

    /// Takes in what the dataplane has counted for each peer; call every second or so.
    pub fn note_traffic(&mut self, now: Instant, totals: Vec<PeerTotals>) {
        let totals: BTreeMap<SocketAddr, PeerTotals> = totals.into_iter().map(|t| (t.vtep, t)).collect();
        for (&id, peer) in &self.sealed.peers {
            if let Some(totals) = totals.get(&peer.vtep) {
                self.sealed.sessions.note_traffic(now, id, totals.sent, totals.received);
            }
        }
        self.sealed.totals = totals;
        self.drain(now);
    }

    /// The dataplane was replaced and knows no peer: every session is made anew.
    pub fn reset_sessions(&mut self, now: Instant) {
        // What waits to be told is of the old dataplane: its keys must not begin to count anew in the next one.
        self.events.retain(|event| !matches!(event, ClusterEvent::PeerChanged(_)));
        self.sealed.programmed.clear();
        self.sealed.totals.clear();
        self.sealed.sessions.reset(now);
        self.drain(now);
    }

    /// Whether a network's packets are sealed; one that is not known has none.
    #[must_use]
    pub fn is_encrypted(&self, network: NetworkId) -> bool {
        self.networks.get(&network).is_some_and(|network| network.options.encrypted)
    }

    /// Counts of handshakes since start, by name.
    #[must_use]
    pub fn session_counters(&self) -> Vec<(&'static str, u64)> {
        self.sealed.sessions.counters().named()
    }

    /// Brings the sessions in line with who is there and with whom sealed networks are shared.
    pub(super) fn derive_sessions(&mut self, now: Instant) {
        self.sealed.tell_ring(now, self.gossip.ring());
        if std::mem::take(&mut self.sealed.dirty) {
            let peers: BTreeMap<NodeId, Peer> = self
                .gossip
                .members()
                .filter_map(|member| Some((member.id, self.peer(now, &member)?)))
                .collect();
            let peers = self.holding(peers);
            let wanted = self.sealed_with(now);
            self.sealed.tell(now, peers, wanted);
        }
        while let Some(event) = self.sealed.sessions.poll_event() {
            let change = match event {
                SessionEvent::Changed(spec) => self.sealed.change(spec),
                SessionEvent::Gone { vtep } => {
                    self.sealed.programmed.remove(&vtep).then_some(Change::RemovePeer(vtep))
                }
                SessionEvent::RingWanted { from, .. } => {
                    if let Some(member) = self.gossip.member(from) {
                        self.keys.keeper.missed(now, member.addr);
                    }
                    None
                }
                // Gossip follows a member that moved.
                SessionEvent::PeerMoved { .. } => None,
            };
            self.events.extend(change.map(ClusterEvent::PeerChanged));
        }
    }

    /// Of these peers those that have the tunnel end they claim; segments follow what has changed of that.
    fn holding(&mut self, mut peers: BTreeMap<NodeId, Peer>) -> BTreeMap<NodeId, Peer> {
        let own = SocketAddr::new(self.config.advertise.ip().to_canonical(), self.config.data_port);
        let claim = |(&id, peer): (&NodeId, &Peer)| (id, Claim { vtep: peer.vtep, alive: self.is_alive(id) });
        let claims = peers.iter().map(claim).collect();
        for id in self.sealed.holders.settle(own, &claims) {
            self.dirty.segments.extend(self.views.get(&id).into_iter().flat_map(View::networks));
        }
        peers.retain(|&id, _| self.sealed.holders.end_of(id).is_some());
        peers
    }

    /// A member as sessions are made with it, while its certificate is good.
    fn peer(&self, now: Instant, member: &Member) -> Option<Peer> {
        let there = member.state != MemberState::Left && self.views.contains_key(&member.id);
        if member.id == self.me || !there {
            return None;
        }
        let paper = self.trust.registry.standing(self.trust_clock(now), member.id).ok()?;
        Some(Peer {
            id: member.id,
            static_public: paper.static_key,
            gossip: member.addr,
            vtep: member.vtep(),
            boot_epoch: member.boot_epoch,
        })
    }

    /// Nodes that are in a sealed network this node is in.
    fn sealed_with(&self, now: Instant) -> BTreeSet<NodeId> {
        let ours: BTreeSet<_> = self.endpoints.values().map(|own| own.network).collect();
        let ours: BTreeSet<_> = ours.into_iter().filter(|id| self.is_encrypted(*id)).collect();
        let shares = |view: &View| view.memberships.keys().any(|id| ours.contains(id));
        let views = self.views.iter().filter(|(node, view)| shares(view) && self.is_remembered(now, **node));
        views.map(|(&node, _)| node).collect()
    }

    pub(super) fn poll_session_transmit(&mut self) -> Option<Transmit> {
        let (to, bytes) = self.sealed.sessions.poll_transmit()?;
        Some(Transmit { to, via: Via::Datagram, bytes })
    }
}

fn show(view: &SessionView, totals: Option<&PeerTotals>) -> api::Session {
    let ago = |moment: Option<Duration>| moment.map(|ago| ago.as_secs());
    let count = |of: fn(&PeerTotals) -> u64| totals.map_or(0, of);
    api::Session {
        state: state_text(view.state).to_owned(),
        cipher: CIPHER.to_owned(),
        key_epoch: view.epoch.map(|epoch| Epoch(epoch).to_string()),
        age_seconds: ago(view.age),
        last_sealed_seconds: ago(totals.and_then(|totals| totals.last_sent)),
        last_opened_seconds: ago(totals.and_then(|totals| totals.last_received)),
        sealed: count(|totals| totals.sent),
        opened: count(|totals| totals.received),
        replayed: count(|totals| totals.replayed),
        forged: count(|totals| totals.forged),
        clear: count(|totals| totals.clear),
    }
}

fn state_text(state: SessionState) -> &'static str {
    match state {
        SessionState::Idle => "idle",
        SessionState::Connecting => "connecting",
        SessionState::Established => "established",
        SessionState::Rekeying => "rekeying",
    }
}
