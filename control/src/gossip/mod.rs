//! Gossip: who is alive, and what each node says of itself.
//!
//! Membership is SWIM ([`foca`]); state is a table of signed records per node that only its owner writes. A change
//! goes straight to the members at once, its head rides along with membership packets, and a comparison with one
//! random member a second repairs whatever was lost. All of it travels sealed, in datagrams of at most 1,200 octets
//! or in bounded stream messages.
//!
//! [`Gossip`] does no IO: the driver hands it messages, the time and a seed, and takes messages and events out.

mod attempts;
mod call;
mod contact;
mod counters;
mod engine;
pub(crate) mod fuzzing;
mod keeper;
mod limits;
mod membership;
mod message;
mod push;
mod receive;
mod record;
mod ring;
mod seal;
mod send;
mod sync;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod told;
mod twin;
mod types;
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

use self::call::Calls;
use self::contact::Contacts;
use self::membership::{Effects, Membership, Peer};
use self::message::Message;
use self::push::Outgoing;
use self::record::Head;
use self::seal::{Refusal, Seal};
use self::sync::Sync;
use self::table::Tables;
use self::told::Told;
use crate::identity::Identity;
use crate::model::NodeId;

pub use self::counters::Counters;
pub use self::keeper::{Fetch, Have, KEYS, Keeper, KeyTiming};
pub use self::limits::{
    MAX_BODY, MAX_DATAGRAM, MAX_KEY, MAX_KEYS, MAX_NODES, MAX_RPC, MAX_STREAM, MAX_TABLE,
};
pub(crate) use self::record::RecordHash;
pub use self::record::{CERTIFICATE, Credentials, Record, RecordKey};
pub use self::ring::{Epoch, MAX_EPOCHS, Ring};
pub use self::seal::Via;
pub use self::types::{GossipConfig, GossipEvent, Member, MemberState, RecordRefused, Transmit};
pub(crate) use self::wire::frame_length;

/// One node's side of the gossip. See the module's documentation.
pub struct Gossip {
    config: GossipConfig,
    identity: Identity,
    us: NodeId,
    rng: StdRng,
    seal: Seal,
    /// Tells this start from any other with the same boot epoch.
    start: [u8; 8],
    clashes: Told,
    twins: Told,
    /// When this start began.
    born: Instant,
    ring_needed: Option<Instant>,
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
    calls: Calls,
    /// Members as others name them, newer than what is known to be signed by themselves.
    claimed: BTreeMap<NodeId, (Peer, u16)>,
    banned: BTreeSet<NodeId>,
    /// What was last told of each member.
    told: BTreeMap<NodeId, (MemberState, SocketAddr, u16)>,
    left: bool,
    now: Instant,
    counters: Counters,
}

impl Gossip {
    /// A node on its own; `seed` is from the operating system's generator, or fixed in tests.
    #[must_use]
    pub fn new(config: GossipConfig, identity: Identity, seed: u64, now: Instant) -> Self {
        let us = identity.node_id();
        let seal_seed = seal_seed(seed, config.boot_epoch);
        let seal = Seal::new(config.cluster, config.ring.clone(), us, seal_seed, now);
        let generation = u64::from(config.boot_epoch) << 32;
        let peer = Peer { id: us, addr: config.advertise, generation };
        let mut rng = StdRng::seed_from_u64(seed);
        let membership = Membership::new(peer, config.cluster, rng.random());
        let mut gossip = Self {
            us,
            start: rng.random(),
            clashes: Told::default(),
            twins: Told::default(),
            born: now,
            ring_needed: None,
            membership,
            tables: Tables::new(us, config.cluster, config.credentials.clone()),
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
            calls: Calls::default(),
            claimed: BTreeMap::new(),
            banned: BTreeSet::new(),
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

    /// Hands over one message of a stream; it is opened in place. `false` if it did not open: nothing proves that who
    /// sent it is a member.
    pub fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) -> bool {
        self.handle(now, Via::Stream, from, message)
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

    /// Addresses this node joins by.
    pub fn seeds(&self) -> impl Iterator<Item = SocketAddr> {
        self.contacts.seeds().copied()
    }

    /// The keys in use.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.seal.ring()
    }

    /// Seals and opens with this ring from now on.
    pub fn set_ring(&mut self, now: Instant, ring: Ring) {
        self.tick(now);
        self.seal.set_ring(self.now, ring);
    }

    /// Has nothing to do with `id` any more: what is kept of it goes, and what it says, or others say of it, is dropped.
    ///
    /// It still knows the keys on the ring and can use them under another name: change those too.
    pub fn ban(&mut self, now: Instant, id: NodeId) {
        self.tick(now);
        if id == self.us || !self.banned.insert(id) {
            return;
        }
        self.seal.ban(id);
        self.membership.remove(self.now, id);
        self.claimed.remove(&id);
        self.have(id);
        let known = self.tables.remove(id);
        if known {
            self.changed.insert(id);
        }
        if self.told.remove(&id).is_some_and(|(state, ..)| state != MemberState::Left) {
            self.events.push_back(GossipEvent::MemberLeft(id));
        }
    }

    /// Whether [`Gossip::ban`] was called for this node.
    #[must_use]
    pub fn is_banned(&self, id: NodeId) -> bool {
        self.banned.contains(&id)
    }

    /// Counts since start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Carries out what the membership engine wants, and tells what it changed.
    fn absorb(&mut self, effects: Effects) {
        let Effects { packets, touched, heads, claims, forged, unproven, rejoined, accused, .. } = effects;
        self.counters.bad_signature += forged;
        self.counters.unproven += unproven;
        self.counters.rejoins += u64::from(rejoined);
        if rejoined {
            // Nobody believes in a new generation before it is signed.
            self.outgoing.touch();
            self.push_changes();
        }
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
        for claim in claims {
            self.hear_claim(claim);
        }
    }

    /// Compares a member with what was last told of it, and tells the difference.
    fn refresh(&mut self, id: NodeId) {
        if id == self.us {
            return;
        }
        let Some(member) = self.member(id) else { return };
        let before = self.told.insert(id, (member.state, member.addr, member.data_port));
        let state = before.map(|(state, ..)| state);
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
        if before.is_some_and(|(_, addr, port)| (addr, port) != (member.addr, member.data_port)) {
            self.events.push_back(GossipEvent::MemberMoved(id));
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

    /// Lets the seal know whose addresses are members', once a second at most and only while it matters.
    fn know_addresses(&mut self) {
        if self.seal.attempts.is_over(self.now) {
            let known: Vec<_> = self.known_addresses().map(|known| known.ip()).collect();
            self.seal.attempts.begin(self.now, known.into_iter());
        }
    }

    /// Where members are, and whoever this node has been told to ask.
    fn known_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let members = self.tables.iter().map(|(_, origin)| origin.head.addr);
        let claimed = self.claimed.values().map(|(peer, _)| peer.addr);
        members.chain(claimed).chain(self.seeds())
    }

    /// A member's address speaks with a key that is not here: time to get it, from the port where the member is known
    /// to be, for anybody can write another's address on a datagram.
    fn miss_epoch(&mut self, from: SocketAddr, refusal: Refusal) {
        let Refusal::UnknownEpoch(epoch) = refusal else { return };
        let recent = |at| self.now.saturating_duration_since(at) < limits::RING_NEEDED_EVERY;
        let retired = self.ring().epochs().next().is_some_and(|oldest| epoch < oldest);
        if retired || self.ring_needed.is_some_and(recent) || !self.seal.attempts.is_member(from.ip()) {
            return;
        }
        let ip = from.ip().to_canonical();
        let known = self.known_addresses().filter(|known| known.ip().to_canonical() == ip);
        let Some(from) = known.min_by_key(|known| *known != from) else { return };
        self.ring_needed = Some(self.now);
        self.events.push_back(GossipEvent::RingNeeded { from });
    }

    fn random_member(&mut self) -> Option<NodeId> {
        self.membership.active().map(|peer| peer.id).choose(&mut self.rng)
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
