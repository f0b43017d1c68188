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
mod engine;
mod key;
mod limits;
mod membership;
mod message;
mod push;
mod receive;
mod record;
mod seal;
mod send;
mod sync;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
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

use self::boots::Boots;
use self::contact::Contacts;
use self::membership::{Effects, Membership, Peer};
use self::message::Message;
use self::push::Outgoing;
use self::record::Head;
use self::seal::Seal;
use self::sync::Sync;
use self::table::Tables;
use crate::identity::Identity;
use crate::model::NodeId;

pub use self::counters::Counters;
pub use self::key::{ClusterKey, InvalidClusterKey};
pub use self::limits::{
    MAX_BODY, MAX_DATAGRAM, MAX_KEY, MAX_KEYS, MAX_NODES, MAX_RPC, MAX_STREAM, MAX_TABLE,
};
pub use self::record::{Record, RecordKey};
pub use self::seal::Via;
pub use self::types::{GossipConfig, GossipEvent, Member, MemberState, RecordRefused, Transmit};

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
