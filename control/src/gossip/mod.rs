//! Gossip: who is alive, and what each node says of itself.
//!
//! Membership is SWIM ([`foca`]); state is a table of signed records per node that only its owner writes. A change
//! goes straight to the members at once, its head rides along with membership packets, and a comparison with one
//! random member a second repairs whatever was lost. All of it travels sealed, in datagrams of at most 1,200 octets
//! or in bounded stream messages.
//!
//! [`Gossip`] does no IO: the driver hands it messages, the time and a seed, and takes messages and events out.

mod boots;
mod contact;
mod counters;
mod key;
mod limits;
mod membership;
mod message;
mod push;
mod record;
mod seal;
mod sync;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod window;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use self::boots::Boots;
use self::contact::Contacts;
use self::membership::{Effects, Membership, Peer};
use self::message::{Envelope, Message};
use self::push::Outgoing;
use self::record::Head;
use self::seal::{Refusal, Seal};
use self::sync::Sync;
use self::table::Tables;
use crate::identity::Identity;
use crate::model::{Name, NodeId};

pub use self::counters::Counters;
pub use self::key::{ClusterKey, InvalidClusterKey};
pub use self::limits::{
    MAX_BODY, MAX_DATAGRAM, MAX_KEY, MAX_KEYS, MAX_NODES, MAX_RPC, MAX_STREAM, MAX_TABLE,
};
pub use self::record::{Record, RecordKey};
pub use self::seal::Via;

/// What gossip needs to know of its node.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// The node's name, as others show it.
    pub name: Name,
    /// Where others reach this node's gossip; one address, not a wildcard.
    pub advertise: SocketAddr,
    /// UDP port of the tunnel end on the same address.
    pub data_port: u16,
    /// The cluster's key.
    pub key: ClusterKey,
    /// Start of this node, raised durably before each; versions and generations grow from it.
    pub boot_epoch: u32,
}

/// A message for the driver to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where.
    pub to: SocketAddr,
    /// As a datagram, or as one message of a stream.
    pub via: Via,
    /// The sealed message.
    pub bytes: Vec<u8>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipEvent {
    /// A member is there: first seen, or back.
    MemberUp(NodeId),
    /// A member does not answer anybody. Its records stay.
    MemberDown(NodeId),
    /// A member said goodbye. Its records are gone.
    MemberLeft(NodeId),
    /// A member has another address or data port than before.
    MemberMoved(NodeId),
    /// Something in this origin's records changed; look at them.
    RecordsChanged {
        /// Whose.
        origin: NodeId,
    },
    /// A call of another member's upper layer. Unordered, may be lost or come twice.
    Rpc {
        /// Who calls.
        from: NodeId,
        /// What it says.
        body: Vec<u8>,
    },
    /// Two running nodes use one identity (a cloned disk), or one runs on state older than the cluster remembers.
    /// Names this node itself if it is one of them.
    IdentityClash(NodeId),
}

/// How a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It does not.
    Down,
    /// It said goodbye.
    Left,
}

/// A node of the cluster, as it signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Its name; nothing keeps two nodes from having the same.
    pub name: Name,
    /// Where its gossip is reached.
    pub addr: SocketAddr,
    /// UDP port of its tunnel end, on the same address.
    pub data_port: u16,
    /// How it is doing, seen from here.
    pub state: MemberState,
    /// Its start.
    pub boot_epoch: u32,
}

impl Member {
    /// Its tunnel end.
    #[must_use]
    pub fn vtep(&self) -> SocketAddr {
        SocketAddr::new(self.addr.ip(), self.data_port)
    }
}

/// A record that this node can't publish. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefused {
    /// The body is too large.
    #[error("record of {0} octets, at most {MAX_BODY} are possible")]
    TooLarge(usize),
    /// This node's table is full.
    #[error("this node's records are full ({MAX_KEYS} records, {MAX_TABLE} octets)")]
    Full,
    /// The node said goodbye.
    #[error("this node has left the cluster")]
    Left,
}

/// One node's side of the gossip. See the module's documentation.
pub struct Gossip {
    config: GossipConfig,
    identity: Identity,
    us: NodeId,
    rng: StdRng,
    seal: Seal,
    boots: Boots,
    membership: Membership,
    tables: Tables,
    contacts: Contacts,
    sync: Sync,
    outgoing: Outgoing,
    outbox: VecDeque<Transmit>,
    outbox_bytes: usize,
    events: VecDeque<GossipEvent>,
    changed: BTreeSet<NodeId>,
    rpc_waiting: usize,
    /// What was last told of each member.
    told: BTreeMap<NodeId, (MemberState, SocketAddr)>,
    left: bool,
    now: Instant,
    counters: Counters,
}

impl Gossip {
    /// A node on its own; `seed` is from the operating system's generator, or fixed in tests.
    #[must_use]
    pub fn new(config: GossipConfig, identity: Identity, seed: u64, now: Instant) -> Self {
        let us = identity.node_id();
        let seal = Seal::new(&config.key, us, seal_seed(seed, config.boot_epoch), now);
        let generation = u64::from(config.boot_epoch) << 32;
        let peer = Peer { id: us, addr: config.advertise, generation };
        let mut rng = StdRng::seed_from_u64(seed);
        let membership = Membership::new(peer, seal.cluster_id(), rng.random());
        let mut gossip = Self {
            us,
            boots: Boots::default(),
            membership,
            tables: Tables::new(seal.cluster_id()),
            contacts: Contacts::new(now),
            sync: Sync::new(now, rng.random_range(0..1000)),
            outgoing: Outgoing::new(config.boot_epoch),
            rng,
            seal,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            events: VecDeque::new(),
            changed: BTreeSet::new(),
            rpc_waiting: 0,
            told: BTreeMap::new(),
            left: false,
            now,
            counters: Counters::default(),
            config,
            identity,
        };
        gossip.publish(false);
        gossip
    }

    /// This node's identity.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.us
    }

    /// Hands over one datagram; it is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.handle(now, Via::Datagram, from, datagram);
    }

    /// Hands over one message of a stream; it is opened in place.
    pub fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) {
        self.handle(now, Via::Stream, from, message);
    }

    /// Runs whatever is due; call at [`Gossip::poll_timeout`], early or late does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        if self.left {
            return;
        }
        let mut effects = Effects::default();
        let slept = self.membership.handle_timeout(now, &mut effects);
        self.counters.pauses += u64::from(slept);
        self.absorb(effects);
        self.contact_due();
        self.sync_due();
    }

    /// When [`Gossip::handle_timeout`] is wanted; `None` only after a goodbye.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let due = [self.contacts.next(), self.sync.next()];
        self.membership.poll_timeout().into_iter().chain(due).min()
    }

    /// Next message to send. Changes of records since the last call are signed and pushed here, all in one.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.push_changes();
        let transmit = self.outbox.pop_front()?;
        self.outbox_bytes -= transmit.bytes.len();
        Some(transmit)
    }

    /// Next event. Level-triggered where it can be: several changes of one origin may come as one.
    pub fn poll_event(&mut self) -> Option<GossipEvent> {
        if let Some(event) = self.events.pop_front() {
            self.rpc_waiting -= usize::from(matches!(event, GossipEvent::Rpc { .. }));
            return Some(event);
        }
        self.changed.pop_first().map(|origin| GossipEvent::RecordsChanged { origin })
    }

    /// Sends `body`, at most [`MAX_RPC`] octets, to a member; `false` if it is too long or nothing is known of `to`.
    ///
    /// Unreliable: it may be lost, or come twice.
    pub fn send_rpc(&mut self, now: Instant, to: NodeId, body: Vec<u8>) -> bool {
        self.tick(now);
        let addr = self.addr_of(to);
        let sends = body.len() <= MAX_RPC && addr.is_some() && to != self.us;
        if sends {
            self.send(to, Message::Rpc(body));
        }
        sends
    }

    /// Nodes that ever proved themselves, this one included, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.tables.iter().map(|(id, origin)| self.member_of(id, &origin.head))
    }

    /// One node.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<Member> {
        self.tables.get(id).map(|origin| self.member_of(id, &origin.head))
    }

    /// Nodes with records here, this one included.
    pub fn origins(&self) -> impl Iterator<Item = NodeId> {
        self.tables.iter().map(|(id, _)| id)
    }

    /// A node's records in key order; whatever of them is known, see [`Gossip::is_complete`].
    pub fn records(&self, origin: NodeId) -> impl Iterator<Item = (&RecordKey, &Record)> {
        self.tables.get(origin).into_iter().flat_map(|origin| origin.records())
    }

    /// One record.
    #[must_use]
    pub fn record(&self, origin: NodeId, key: &RecordKey) -> Option<&Record> {
        self.tables.get(origin).and_then(|origin| origin.get(key))
    }

    /// Whether everything that `origin` is known to have published is here.
    #[must_use]
    pub fn is_complete(&self, origin: NodeId) -> bool {
        self.tables.get(origin).is_some_and(|origin| origin.is_complete())
    }

    /// Members that answer and proved themselves, this node not included.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.members().filter(|member| member.state == MemberState::Alive && member.id != self.us).count()
    }

    /// Counts since start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn handle(&mut self, now: Instant, via: Via, from: SocketAddr, octets: &mut [u8]) {
        self.tick(now);
        if self.left {
            return;
        }
        let len = octets.len() as u64;
        let opened = match self.seal.open(self.now, via, from, octets) {
            Ok(opened) => opened,
            Err(refusal) => return self.count_refusal(refusal),
        };
        let (sender, boot) = (opened.sender, opened.boot);
        let Some((envelope, content)) = Envelope::parse(opened.body) else {
            self.counters.malformed += 1;
            return;
        };
        if !self.admits(sender, boot, &envelope) {
            return;
        }
        let Some(message) = Message::parse(content) else {
            self.counters.malformed += 1;
            return;
        };
        self.counters.received += 1;
        self.counters.bytes_received += len;
        self.dispatch(sender, via, from, &envelope, message);
    }

    fn count_refusal(&mut self, refusal: Refusal) {
        let counters = &mut self.counters;
        *match refusal {
            Refusal::Malformed => &mut counters.malformed_seal,
            Refusal::RateLimited => &mut counters.rate_limited,
            Refusal::Unauthentic => &mut counters.unauthentic,
            Refusal::Replayed => &mut counters.replayed,
            Refusal::Reflected => &mut counters.reflected,
        } += 1;
    }

    /// Whether a message that opened is meant for this start of this node, and of its sender's newest start.
    fn admits(&mut self, sender: NodeId, boot: seal::BootNonce, envelope: &Envelope) -> bool {
        let epoch = self.config.boot_epoch;
        if sender == self.us {
            self.counters.reflected += 1;
            if envelope.from_epoch >= epoch {
                self.clash(sender);
            }
            return false;
        }
        if envelope.to.is_some_and(|to| to != self.us)
            || (envelope.to_epoch != 0 && envelope.to_epoch < epoch)
        {
            self.counters.misaddressed += 1;
            return false;
        }
        if envelope.to_epoch > epoch {
            // They remember a later start of this node: its state is a copy from before.
            self.clash(self.us);
        }
        let known = self.tables.get(sender).map_or(0, |origin| origin.head.boot_epoch());
        if envelope.from_epoch < known {
            self.counters.stale_boot += 1;
            self.seal.forget(sender, boot);
            return false;
        }
        if self.boots.note(self.now, sender, boot, envelope.from_epoch) {
            self.clash(sender);
        }
        true
    }

    fn dispatch(
        &mut self,
        sender: NodeId,
        via: Via,
        from: SocketAddr,
        envelope: &Envelope,
        message: Message,
    ) {
        // Only first contact may come without naming whom it is for.
        let first_contact = matches!(message, Message::Hello { .. });
        if envelope.to.is_none() && !first_contact {
            self.counters.misaddressed += 1;
            return;
        }
        match message {
            Message::Member(packet) => self.handle_packet(&packet),
            Message::Hello { peer, buried, reply } => {
                self.handle_hello(sender, via, from, peer, buried, reply);
            }
            Message::Suspicion(incarnation) => self.handle_suspicion(sender, incarnation),
            Message::Delta { more, sections } => self.handle_delta(sender, more, sections),
            Message::Digest { tables, roster } => self.handle_digest(sender, tables, roster),
            Message::Buckets(hashes) => self.handle_buckets(sender, &hashes),
            Message::Summaries { buckets, entries } => self.handle_summaries(sender, buckets, &entries),
            Message::Pull(wanted) => self.handle_pull(sender, &wanted),
            Message::Roster { reply, entries } => self.handle_roster(sender, reply, &entries),
            Message::Rpc(body) => self.handle_rpc(sender, body),
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) {
        let mut effects = Effects::default();
        if !self.membership.handle_packet(self.now, packet, &mut effects) {
            self.counters.membership_refused += 1;
        }
        self.absorb(effects);
    }

    fn handle_suspicion(&mut self, accuser: NodeId, incarnation: u16) {
        let Some((accuser, true)) = self.membership.find(accuser) else { return };
        let mut effects = Effects::default();
        self.membership.refute(self.now, incarnation, accuser, &mut effects);
        self.absorb(effects);
    }

    fn handle_rpc(&mut self, from: NodeId, body: Vec<u8>) {
        if self.rpc_waiting >= limits::MAX_RPC_QUEUE {
            self.counters.rpc_dropped += 1;
            return;
        }
        self.rpc_waiting += 1;
        self.events.push_back(GossipEvent::Rpc { from, body });
    }

    /// Carries out what the membership engine wants, and tells what it changed.
    fn absorb(&mut self, effects: Effects) {
        let Effects { packets, touched, heads, forged, rejoined, accused, .. } = effects;
        self.counters.bad_signature += forged;
        self.counters.rejoins += u64::from(rejoined);
        for (peer, packet) in packets {
            self.send_to_peer(peer, Message::Member(packet));
        }
        for (peer, incarnation) in accused {
            self.send_to_peer(peer, Message::Suspicion(incarnation));
        }
        for id in touched {
            self.refresh(id);
        }
        for (head, teller) in heads {
            self.hear_of(head, teller);
        }
    }

    /// Compares a member with what was last told of it, and tells the difference.
    fn refresh(&mut self, id: NodeId) {
        if id == self.us {
            return;
        }
        let Some(member) = self.member(id) else {
            // Alive, but it has not proved itself: its head is fetched.
            self.want_introduction(id);
            return;
        };
        let before = self.told.insert(id, (member.state, member.vtep()));
        let state = before.map(|(state, _)| state);
        if state != Some(member.state) {
            let event = match member.state {
                MemberState::Alive => Some(GossipEvent::MemberUp(id)),
                MemberState::Down => state.map(|_| GossipEvent::MemberDown(id)),
                MemberState::Left => Some(GossipEvent::MemberLeft(id)),
            };
            self.events.extend(event);
            if member.state == MemberState::Alive {
                self.greet(id);
            }
        }
        if before.is_some_and(|(_, vtep)| vtep != member.vtep()) {
            self.events.push_back(GossipEvent::MemberMoved(id));
        }
    }

    fn clash(&mut self, id: NodeId) {
        if self.boots.may_tell(self.now, id) {
            self.events.push_back(GossipEvent::IdentityClash(id));
        }
    }

    fn member_of(&self, id: NodeId, head: &Head) -> Member {
        let state = match () {
            () if head.left => MemberState::Left,
            () if id == self.us || self.membership.is_active(id) => MemberState::Alive,
            () => MemberState::Down,
        };
        Member {
            id,
            name: head.name.clone(),
            addr: head.addr,
            data_port: head.data_port,
            state,
            boot_epoch: head.boot_epoch(),
        }
    }

    fn addr_of(&self, id: NodeId) -> Option<SocketAddr> {
        let peer = self.membership.find(id).map(|(peer, _)| peer.addr);
        peer.or_else(|| self.tables.get(id).map(|origin| origin.head.addr))
    }

    /// The member's start that messages are meant for; zero if unknown.
    fn epoch_of(&self, id: NodeId) -> u32 {
        let peer = self.membership.find(id).map_or(0, |(peer, _)| peer.boot_epoch());
        peer.max(self.tables.get(id).map_or(0, |origin| origin.head.boot_epoch()))
    }

    fn random_member(&mut self) -> Option<NodeId> {
        self.membership.active().map(|peer| peer.id).choose(&mut self.rng)
    }

    fn send(&mut self, to: NodeId, message: Message) {
        let Some(addr) = self.addr_of(to) else { return };
        let envelope =
            Envelope { to: Some(to), to_epoch: self.epoch_of(to), from_epoch: self.config.boot_epoch };
        self.enqueue(addr, &envelope.emit(&message));
    }

    fn send_to_peer(&mut self, peer: Peer, message: Message) {
        let from_epoch = self.config.boot_epoch;
        let envelope = Envelope { to: Some(peer.id), to_epoch: peer.boot_epoch(), from_epoch };
        self.enqueue(peer.addr, &envelope.emit(&message));
    }

    fn send_to_addr(&mut self, addr: SocketAddr, to: Option<NodeId>, message: &Message) {
        let envelope = Envelope { to, to_epoch: 0, from_epoch: self.config.boot_epoch };
        self.enqueue(addr, &envelope.emit(message));
    }

    fn enqueue(&mut self, to: SocketAddr, body: &[u8]) {
        let via = if body.len() + seal::OVERHEAD <= MAX_DATAGRAM { Via::Datagram } else { Via::Stream };
        let bytes = self.seal.seal(self.now, via, body);
        let (messages, octets) = match via {
            Via::Datagram => (&mut self.counters.datagrams_sent, &mut self.counters.datagram_bytes_sent),
            Via::Stream => (&mut self.counters.streams_sent, &mut self.counters.stream_bytes_sent),
        };
        *messages += 1;
        *octets += bytes.len() as u64;
        self.outbox_bytes += bytes.len();
        self.outbox.push_back(Transmit { to, via, bytes });
        while self.outbox.len() > limits::MAX_OUTBOX || self.outbox_bytes > limits::MAX_OUTBOX_BYTES {
            let Some(dropped) = self.outbox.pop_front() else { break };
            self.outbox_bytes -= dropped.bytes.len();
            self.counters.outbox_dropped += 1;
        }
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip").field("us", &self.us).field("alive", &self.alive()).finish_non_exhaustive()
    }
}

/// At most `count` of `items`, chosen evenly.
fn sample<T>(rng: &mut StdRng, items: impl Iterator<Item = T>, count: usize) -> Vec<T> {
    let mut chosen = Vec::new();
    for (seen, item) in items.enumerate() {
        if chosen.len() < count {
            chosen.push(item);
        } else if let Some(place) = chosen.get_mut(rng.random_range(0..=seen)) {
            *place = item;
        }
    }
    chosen
}

fn seal_seed(seed: u64, boot_epoch: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"weft seal seed 1");
    hash.update(seed.to_be_bytes());
    hash.update(boot_epoch.to_be_bytes());
    hash.finalize().into()
}
