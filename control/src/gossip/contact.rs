//! First contact: joining by address, healing after partitions, saying goodbye.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::limits::{DIRECT_MEMBERS, HEAL_PERIOD, MAX_SEEDS};
use super::membership::{Effects, Peer};
use super::message::{Message, RosterEntry};
use super::seal::Via;
use super::table::{Proof, Section};
use super::wire::reachable;
use super::{Gossip, sample};
use crate::model::NodeId;

/// First and longest wait between attempts to join.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Dead or remembered members contacted at a time.
const HEAL_AT_ONCE: usize = 3;
/// Rosters sent on difference, at most this often.
const ROSTER_EVERY: Duration = Duration::from_secs(5);
/// Members told at a time that others hold them dead.
const TELL_AT_ONCE: usize = 16;

/// Whom to contact and when.
#[derive(Debug)]
pub(crate) struct Contacts {
    seeds: Vec<SocketAddr>,
    retry: Duration,
    at: Instant,
    roster_sent: Option<Instant>,
}

impl Contacts {
    pub(crate) fn new(now: Instant) -> Self {
        Self { seeds: Vec::new(), retry: RETRY.0, at: now + HEAL_PERIOD, roster_sent: None }
    }

    pub(crate) fn seeds(&self) -> impl Iterator<Item = &SocketAddr> {
        self.seeds.iter()
    }

    pub(crate) fn next(&self) -> Instant {
        self.at
    }
}

impl Gossip {
    /// Joins whatever cluster is at these addresses, besides those given before; tried until there is an answer,
    /// and again whenever a known one has no member. Our own address among them does no harm.
    pub fn join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        self.tick(now);
        for seed in seeds {
            let known = self.contacts.seeds.contains(seed) || *seed == self.config.advertise;
            if !known && reachable(seed) && self.contacts.seeds.len() < MAX_SEEDS {
                self.contacts.seeds.push(*seed);
            }
        }
        self.contacts.retry = RETRY.0;
        self.contacts.at = self.now;
    }

    /// Says goodbye: withdraws all records, tells the members, and is silent from then on.
    pub fn leave(&mut self, now: Instant) {
        self.tick(now);
        if self.left {
            return;
        }
        self.withdraw_all();
        self.publish(true);
        // The engine's own goodbye would be taken for a death wherever it overtakes the signed one.
        self.push_goodbye();
        self.left = true;
    }

    /// Tells the members that this node is reached elsewhere from now on; an address that no host has is ignored.
    pub fn set_advertise(&mut self, now: Instant, advertise: SocketAddr) {
        self.tick(now);
        if self.config.advertise == advertise || self.left || !reachable(&advertise) {
            return;
        }
        self.config.advertise = advertise;
        let us = self.membership.us();
        self.renew(Peer { addr: advertise, generation: us.generation + 1, ..us });
        let members = self.membership.active().map(|peer| peer.id);
        for id in sample(&mut self.rng, members, DIRECT_MEMBERS) {
            self.say_hello(id, false);
        }
    }

    pub(super) fn contact_due(&mut self) {
        if self.contacts.at > self.now {
            return;
        }
        if self.membership.active_count() == 0 && !self.contacts.seeds.is_empty() {
            self.contact_seeds();
        } else {
            self.contacts.retry = RETRY.0;
            self.contacts.at = self.now + HEAL_PERIOD + Duration::from_millis(self.rng.random_range(0..1000));
            self.heal();
        }
    }

    fn contact_seeds(&mut self) {
        for seed in self.contacts.seeds.clone() {
            self.say_hello_to(seed, None, true);
        }
        self.heal();
        let jitter = Duration::from_millis(self.rng.random_range(0..250));
        self.contacts.at = self.now + self.contacts.retry + jitter;
        self.contacts.retry = (self.contacts.retry * 2).min(RETRY.1);
    }

    /// Contacts some of those that should be members and are not: dead ones, remembered ones, silent seeds.
    fn heal(&mut self) {
        let seen: std::collections::BTreeSet<_> = self.membership.active().map(|peer| peer.addr).collect();
        let dead = self.membership.dead().map(|peer| (peer.addr, Some(peer.id)));
        let remembered = self
            .tables
            .iter()
            .filter(|(id, origin)| *id != self.us && !origin.head.left && self.membership.find(*id).is_none())
            .map(|(id, origin)| (origin.head.addr, Some(id)));
        // Alone, all seeds are contacted anyway.
        let seeds = self.contacts.seeds.iter().filter(|_| !seen.is_empty()).map(|seed| (*seed, None));
        let silent = dead.chain(remembered).chain(seeds).filter(|(addr, _)| !seen.contains(addr));
        let gone =
            |id: Option<NodeId>| id.and_then(|id| self.tables.get(id)).is_some_and(|origin| origin.head.left);
        for (addr, id) in sample(&mut self.rng, silent.filter(|(_, id)| !gone(*id)), HEAL_AT_ONCE) {
            self.say_hello_to(addr, id, true);
        }
    }

    fn say_hello(&mut self, id: NodeId, reply: bool) {
        if let Some(addr) = self.addr_of(id) {
            self.say_hello_to(addr, Some(id), reply);
        }
    }

    fn say_hello_to(&mut self, addr: SocketAddr, id: Option<NodeId>, reply: bool) {
        let buried = id.map_or(0, |id| self.membership.buried(id));
        self.greet_at(addr, id, buried, reply);
    }

    fn greet_at(&mut self, addr: SocketAddr, id: Option<NodeId>, buried: u64, reply: bool) {
        let hello = Message::Hello { buried, reply, section: Box::new(self.introduction()) };
        self.send_to_addr(addr, id, &hello);
    }

    pub(super) fn handle_hello(
        &mut self,
        sender: NodeId,
        via: Via,
        from: SocketAddr,
        buried: u64,
        reply: bool,
        section: &Section,
    ) {
        if section.head.origin() != sender || via != Via::Datagram {
            self.counters.malformed += 1;
            return;
        }
        if self.refuses_twin(&section.head) {
            return;
        }
        let rose = self.rise_above(buried);
        let news = !self.membership.is_active(sender);
        let peer = section.head.peer();
        self.merge(sender, section, Proof::Needed);
        self.welcome(sender, std::iter::once((peer, 0)));
        let dead = !self.membership.is_active(sender);
        if reply || (rose && !dead) {
            // A sender that we hold dead comes back under a new generation and says hello by itself.
            let buried = self.membership.buried(sender);
            self.greet_at(from, Some(sender), buried, false);
        }
        if news && !dead {
            let mut effects = Effects::default();
            self.membership.announce(self.now, peer, &mut effects);
            self.absorb(effects);
            self.compare_with(sender);
            if self.membership.active_count() == 1 {
                // New here: everybody's names at once are better than a few with each packet.
                let entries = self.membership.roster();
                self.send(sender, Message::Roster { reply: true, entries });
            }
        }
    }

    /// Returns from the dead if others hold this node dead in its present generation. `true` if it did.
    fn rise_above(&mut self, buried: u64) -> bool {
        let us = self.membership.us();
        // A burial above is forged: this node never was of that generation. One below is over.
        let next = us.generation.checked_add(1).filter(|next| next >> 32 == us.generation >> 32);
        let Some(generation) = next.filter(|_| buried == us.generation) else { return false };
        self.counters.rejoins += 1;
        self.renew(Peer { generation, ..us });
        true
    }

    pub(super) fn renew(&mut self, us: Peer) {
        let mut effects = Effects::default();
        self.membership.become_peer(self.now, us, &mut effects);
        self.outgoing.touch();
        self.push_changes();
        self.absorb(effects);
    }

    /// Takes `peers` for alive if they are as they signed themselves; else their heads are fetched first.
    pub(super) fn welcome(&mut self, teller: NodeId, peers: impl Iterator<Item = (Peer, u16)>) {
        let mut effects = Effects::default();
        self.membership.welcome(self.now, teller, peers, &mut effects);
        self.absorb(effects);
    }

    /// Hash over the active members, this node included, equal on all nodes that agree.
    pub(super) fn roster_hash(&self) -> u64 {
        let members = self.membership.active().chain([self.membership.us()]);
        members.fold(0, |hash, peer| {
            let id = u64::from_be_bytes(*peer.id.0.first_chunk().expect("16 octets have a first 8"));
            hash ^ (id ^ peer.generation.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }

    pub(super) fn roster_differs(&mut self, with: NodeId) {
        let recent =
            self.contacts.roster_sent.is_some_and(|at| self.now.saturating_duration_since(at) < ROSTER_EVERY);
        if !recent {
            self.contacts.roster_sent = Some(self.now);
            let entries = self.membership.roster();
            self.serve(with, Message::Roster { reply: true, entries });
        }
    }

    /// Takes over who is alive; who is dead there and alive here is told so, and comes back under a new generation.
    pub(super) fn handle_roster(&mut self, sender: NodeId, reply: bool, entries: &[RosterEntry]) {
        let alive = entries.iter().filter(|entry| entry.alive).map(|entry| (entry.peer, entry.incarnation));
        self.welcome(sender, alive);
        let mut dead_there = Vec::new();
        for entry in entries {
            let here = self.membership.find(entry.peer.id);
            match here {
                Some((peer, alive)) if alive != entry.alive && entry.peer.generation == peer.generation => {
                    dead_there.push(peer);
                }
                _ if entry.peer.id == self.us && !entry.alive => {
                    self.rise_above(entry.peer.generation);
                }
                _ => {}
            }
        }
        for peer in sample(&mut self.rng, dead_there.into_iter(), TELL_AT_ONCE) {
            self.greet_at(peer.addr, Some(peer.id), peer.generation, true);
        }
        if reply {
            let entries = self.membership.roster();
            self.serve(sender, Message::Roster { reply: false, entries });
        }
    }
}
