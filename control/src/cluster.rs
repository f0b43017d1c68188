//! The cluster as one node has it: networks, endpoints, address ranges, without IO.
//!
//! [`Cluster`] owns the gossip and decides what it carries. Input comes as messages of other nodes, as calls of the
//! agent and as time; output is drained: messages ([`Cluster::poll_transmit`]) and events
//! ([`Cluster::poll_event`]). Everything shown or programmed is derived from records: this node's own, which are
//! durable, and the others', which gossip keeps.
//!
//! A promise (an address, a network, a range given away) is made durable through [`Storage`](crate::storage::Storage) before anybody can
//! see it. The points are named: `boot`, `network-create`, `network-learn`, `network-remove`, `endpoint-attach`,
//! `endpoint-detach`, `range-gain`, `range-grant`, `range-leave`, `range-wake`,
//! `peers`.

mod absorb;
mod attach;
mod config;
mod error;
mod grants;
mod holders;
mod holds;
mod keys;
mod members;
mod names;
mod networks;
mod papers;
mod publish;
mod ranges;
mod record;
mod refused;
mod sealed;
mod shown;
mod start;
mod twin;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rand::rngs::StdRng;
use weft_dataplane::change::Change;
use weft_dataplane::segment::SegmentSpec;
use weft_dataplane::wire::MacAddr;

pub use crate::network::{Attach, Lease, OwnEndpoint};
pub use attach::Ticket;
pub use config::{ClusterConfig, Timing};
pub use error::ClusterError;

use self::absorb::Unheard;
use self::attach::{Attaching, Own};
use self::grants::Book;
use self::keys::Keys;
use self::networks::{Network, Removed};
use self::papers::Trust;
use self::ranges::{Answered, Fetch, FetchKey};
use self::record::Call;
use self::sealed::Sealed;
use self::view::View;
use crate::gossip::{Gossip, GossipEvent, MemberState, Transmit};
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::model::{EndpointId, NetworkId, NodeId};
use crate::session::is_session;
use crate::timestamp::UnixMillis;

/// Housekeeping: quarantine, dead nodes, reserve ranges, remembered addresses.
const TICK: Duration = Duration::from_secs(1);
/// Interval at which it is looked at whose certificate has ended meanwhile.
const JUDGE_EVERY: Duration = Duration::from_secs(10);
/// Pause between derivations per endpoint derived: several times what one costs, so that a storm of changes in a
/// large network leaves most of a core to others.
const DERIVATION: Duration = Duration::from_micros(3);

/// What the agent should know.
#[derive(Debug)]
pub enum ClusterEvent {
    /// An attachment asked for with [`Cluster::attach`] has an outcome.
    Attached {
        /// Which one.
        ticket: Ticket,
        /// The addresses, durably this endpoint's, or why there are none.
        result: Result<Lease, ClusterError>,
    },
    /// An address asked for with [`Cluster::hold`] has an outcome.
    Held {
        /// Which one.
        ticket: Ticket,
        /// The address with its subnet's prefix length, or why there is none.
        result: Result<IpNet, ClusterError>,
    },
    /// [`Cluster::segment`] answers differently than before.
    SegmentChanged(NetworkId),
    /// The sessions with a peer of sealed networks are others than before; for the dataplane.
    PeerChanged(Change),
    /// A network has come to be known.
    NetworkAdded(NetworkId),
    /// A network is gone, and with it the endpoints this node had in it; their kernel side is to be taken down.
    NetworkRemoved {
        /// Which one.
        network: NetworkId,
        /// Endpoints of this node that were in it.
        endpoints: Vec<EndpointId>,
    },
    /// The keys of the cluster are to be had from the member at this address: [`Cluster::ring_errand`] is what to ask
    /// it, [`Cluster::ring_fetched`] takes its answer.
    FetchRing(SocketAddr),
    /// This node has handed on its ranges and said goodbye.
    Left,
    /// Another agent runs with this node's identity at this address, and was there first. This one is silent and must end.
    TwinFirst(SocketAddr),
}

/// One node's side of the cluster. See the module's documentation.
pub struct Cluster {
    config: ClusterConfig,
    identity: Identity,
    me: NodeId,
    boot_epoch: u32,
    gossip: Gossip,
    ledger: Ledger,
    trust: Trust,
    keys: Keys,
    rng: StdRng,
    /// A moment on both clocks; the wall clock is read for display and for forgetting removed networks only.
    clocks: (Instant, UnixMillis),
    networks: BTreeMap<NetworkId, Network>,
    removed: BTreeMap<NetworkId, Removed>,
    removed_by_age: BTreeSet<(UnixMillis, NetworkId)>,
    endpoints: BTreeMap<EndpointId, Own>,
    /// Addresses held for endpoints to come, and until when.
    holds: BTreeMap<(NetworkId, IpAddr), holds::Held>,
    views: BTreeMap<NodeId, View>,
    unheard: Unheard,
    book: Book,
    /// Since when a node does not answer.
    down: BTreeMap<NodeId, Instant>,
    attaching: BTreeMap<Ticket, Attaching>,
    last_ticket: u64,
    fetches: BTreeMap<FetchKey, Fetch>,
    answered: VecDeque<Answered>,
    published: BTreeMap<(NetworkId, Vec<u8>), Vec<u8>>,
    segments: BTreeMap<NetworkId, SegmentSpec>,
    /// Who has the MAC addresses that several nodes claim, by network.
    contested: BTreeMap<NetworkId, BTreeMap<MacAddr, NodeId>>,
    /// Endpoints of others whose addresses do not count, by network.
    ignored: BTreeMap<NetworkId, usize>,
    sealed: Sealed,
    dirty: Dirty,
    /// Networks whose names may be others than the agent has them.
    renamed: BTreeSet<NetworkId>,
    tick_at: Instant,
    judge_at: Instant,
    orphans_at: Instant,
    leaving: Option<Instant>,
    left: bool,
    /// Nodes that run twice, and when that was last seen.
    clashes: BTreeMap<NodeId, Instant>,
    events: VecDeque<ClusterEvent>,
}

/// What is to be derived again.
#[derive(Debug, Default)]
struct Dirty {
    /// Own records of these networks.
    records: BTreeSet<NetworkId>,
    /// Segments of these networks.
    segments: BTreeSet<NetworkId>,
    /// Segments are derived at the earliest then.
    settled: Option<Instant>,
    /// Attachments that wait may have become possible.
    attaching: bool,
    /// Records could not be taken in, for want of storage.
    views: bool,
    /// Addresses of members to be remembered.
    peers: bool,
    /// Who stands in for absent authors of definitions.
    sponsors: bool,
}

impl Cluster {
    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.me
    }

    /// Times this node has started, this start included.
    #[must_use]
    pub fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }

    /// The gossip, for its counters and members.
    #[must_use]
    pub fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    /// Contacts nodes of the cluster at these addresses until one answers.
    pub fn join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        self.gossip.join(now, seeds);
        self.drain(now);
    }

    /// Tells the others that this node is reached elsewhere.
    pub fn set_advertise(&mut self, now: Instant, advertise: SocketAddr) {
        self.config.advertise = advertise;
        self.gossip.set_advertise(now, advertise);
        self.dirty.segments.extend(self.networks.keys());
        self.sealed.dirty = true;
        self.drain(now);
    }

    /// Fits the networks' packets into an underlay that carries others now, octets.
    pub fn set_underlay_mtu(&mut self, now: Instant, mtu: u16) {
        self.config.underlay_mtu = mtu;
        self.dirty.segments.extend(self.networks.keys());
        self.drain(now);
    }

    /// Hands over a datagram received on the gossip port; it is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        if datagram.first().is_some_and(|&first| is_session(first)) {
            self.sealed.sessions.handle_datagram(now, from, datagram);
        } else {
            self.gossip.handle_datagram(now, from, datagram);
        }
        self.drain(now);
    }

    /// Hands over one message received over a stream; it is opened in place. `false` if it did not open: who sent it
    /// is no member.
    pub fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) -> bool {
        let opened = self.gossip.handle_stream(now, from, message);
        self.drain(now);
        opened
    }

    /// Runs whatever is due; call at [`Cluster::poll_timeout`], early or late does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.gossip.handle_timeout(now);
        self.sealed.sessions.handle_timeout(now);
        if now >= self.tick_at && !self.left {
            self.tick_at = now + TICK;
            self.tick(now);
        }
        self.absorb_rest(now);
        self.run_fetches(now);
        self.fetch_keys(now);
        self.expire_attaching(now);
        self.drain(now);
    }

    /// When [`Cluster::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let fetches = self.fetches.values().map(Fetch::due);
        let attaching = self.attaching.values().map(Attaching::deadline);
        let settle = self.dirty.settled.filter(|_| !self.dirty.segments.is_empty());
        let due = [
            Some(self.tick_at),
            self.gossip.poll_timeout(),
            settle,
            self.unheard.due,
            self.sealed.sessions.poll_timeout(),
            self.keys.keeper.next_fetch(),
        ];
        due.into_iter().flatten().chain(fetches).chain(attaching).min()
    }

    /// Next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.gossip.poll_transmit().or_else(|| self.poll_session_transmit())
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<ClusterEvent> {
        self.events.pop_front()
    }

    /// The segment of a network this node has endpoints in, derived from the records.
    #[must_use]
    pub fn segment(&self, network: NetworkId) -> Option<&SegmentSpec> {
        self.segments.get(&network)
    }

    fn now_wall(&self, now: Instant) -> UnixMillis {
        let elapsed = now.saturating_duration_since(self.clocks.0).as_millis();
        UnixMillis(self.clocks.1.0.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX)))
    }

    /// Takes in what gossip has to say, then derives what follows from it.
    fn drain(&mut self, now: Instant) {
        let mut changed = BTreeSet::new();
        while let Some(event) = self.gossip.poll_event() {
            match event {
                GossipEvent::MemberUp(id) | GossipEvent::MemberMoved(id) => self.member_up(id),
                GossipEvent::MemberDown(id) => self.member_down(now, id),
                GossipEvent::MemberLeft(id) => self.member_left(id),
                GossipEvent::RecordsChanged { origin } => drop(changed.insert(origin)),
                GossipEvent::Rpc { from, body } => self.handle_call(now, from, &body),
                GossipEvent::IdentityClash(id) => self.note_clash(now, id),
                GossipEvent::TwinFirst { at } => self.twin_first(at),
                GossipEvent::TwinGone { boot_epoch } => self.twin_gone(now, boot_epoch),
                GossipEvent::RingNeeded { from } => self.keys.keeper.missed(now, from),
            }
        }
        if !changed.is_empty() {
            self.absorb(now, changed);
        }
        self.settle(now);
    }

    fn member_up(&mut self, id: NodeId) {
        self.down.remove(&id);
        self.dirty.peers = true;
        self.member_changed(id);
    }

    fn member_down(&mut self, now: Instant, id: NodeId) {
        self.down.entry(id).or_insert(now);
        self.member_changed(id);
    }

    fn member_left(&mut self, id: NodeId) {
        self.keys.keeper.forget(id);
        self.member_changed(id);
        self.down.remove(&id);
        self.views.remove(&id);
        self.dirty.peers = true;
        self.sealed.dirty = true;
    }

    /// Sets the wall clock, which may have been put right since the start.
    pub fn set_wall(&mut self, now: Instant, wall: UnixMillis) {
        self.clocks = (now, wall);
    }

    /// Segments it is in change; who stands in for absent authors may, which can wait for the next tick.
    fn member_changed(&mut self, id: NodeId) {
        if let Some(view) = self.views.get(&id) {
            self.dirty.segments.extend(view.networks());
        }
        self.dirty.sponsors = true;
        self.dirty.attaching = true;
        self.sealed.dirty = true;
    }

    fn handle_call(&mut self, now: Instant, from: NodeId, body: &[u8]) {
        if !self.counts(now, from) {
            return;
        }
        match record::decode(body) {
            Some(Call::Request { number, network, pool, want }) => {
                self.serve(now, from, number, network, pool, want);
            }
            Some(Call::Answer { number, answer }) => self.handle_answer(now, from, number, answer),
            None => {}
        }
    }

    fn tick(&mut self, now: Instant) {
        self.wake_addresses(now);
        self.end_holds(now);
        self.forget_dead(now);
        self.forget_removed(now);
        self.forget_clashes(now);
        self.remember_peers();
        self.keep_papers();
        self.tell_revocations(now);
        self.tend_keys(now);
        self.judge_by_time(now);
        if std::mem::take(&mut self.dirty.sponsors) {
            let removed: Vec<NetworkId> = self.recently_removed().copied().collect();
            self.dirty.records.extend(self.networks.keys().copied().chain(removed));
            self.dirty.records.extend(self.published.keys().map(|(network, _)| *network));
        }
        if std::mem::take(&mut self.dirty.views) {
            let origins: BTreeSet<NodeId> = self.gossip.origins().collect();
            self.views.clear();
            self.absorb(now, origins);
        }
        self.adopt_orphans(now);
        self.fetch_reserves(now);
        self.sealed.dirty |= self.sealed.refused_some;
        self.finish_leaving(now);
    }

    /// Takes in nodes that count by now, and drops those that do so no more: certificates end, and clocks are put right.
    fn judge_by_time(&mut self, now: Instant) {
        if now < self.judge_at {
            return;
        }
        self.judge_at = now + JUDGE_EVERY;
        let members = self.gossip.members().filter(|m| m.id != self.me && m.state != MemberState::Left);
        let settled = |id: &NodeId| self.counts(now, *id) && self.views.contains_key(id);
        let others: BTreeSet<NodeId> = members.map(|m| m.id).filter(|id| !settled(id)).collect();
        if !others.is_empty() {
            self.absorb(now, others);
        }
    }

    /// Segments with entries of a node that has been dead too long are derived again, without it.
    fn forget_dead(&mut self, now: Instant) {
        let long = self.config.timing.forget_dead;
        let tick = TICK * 2;
        for (id, &since) in &self.down {
            let dead = now.saturating_duration_since(since);
            if dead >= long && dead < long + tick {
                self.dirty.segments.extend(self.views.get(id).into_iter().flat_map(View::networks));
            }
        }
    }

    /// Whether a node's endpoints still count.
    fn is_remembered(&self, now: Instant, id: NodeId) -> bool {
        let long = self.config.timing.forget_dead;
        self.down.get(&id).is_none_or(|&since| now.saturating_duration_since(since) < long)
    }

    fn is_alive(&self, id: NodeId) -> bool {
        id == self.me || self.gossip.member(id).is_some_and(|member| member.state == MemberState::Alive)
    }

    /// Nodes that answer, this one included.
    fn alive(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.gossip
            .members()
            .filter(|member| member.id != self.me && member.state == MemberState::Alive)
            .map(|member| member.id)
            .chain([self.me])
    }

    /// Derives what is dirty: attachments that wait, own records, segments.
    fn settle(&mut self, now: Instant) {
        if self.left {
            return;
        }
        if std::mem::take(&mut self.dirty.attaching) {
            self.progress_attaching(now);
        }
        self.publish(now);
        self.derive_sessions(now);
        if !self.dirty.segments.is_empty() && self.dirty.settled.is_none_or(|at| at <= now) {
            let endpoints = self.derive_segments(now);
            let pause = self.config.timing.settle + DERIVATION * u32::try_from(endpoints).unwrap_or(u32::MAX);
            self.dirty.settled = Some(now + pause);
        }
        if self.dirty.segments.is_empty() {
            self.sealed.dirty |= self.sealed.holders.vacated();
        }
    }
}
