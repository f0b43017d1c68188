//! The keys that all members share: the [`Keeper`] decides when they change; here that is made durable, told to the
//! others, and fetched from them.
//!
//! | key | body | published by |
//! |---|---|---|
//! | `k` | the epochs whose keys the origin has ([`Have`]), never the keys | every node |

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use zeroize::Zeroizing;

use super::record::decode;
use super::{Cluster, ClusterError, ClusterEvent};
use crate::admission::{AdmissionError, Errand, Refusal, Welcome};
use crate::api;
use crate::gossip::{Epoch, Fetch, Have, KEYS, Keeper, KeyTiming, RecordKey, Ring};
use crate::identity::{Identity, node_id};
use crate::model::NodeId;
use crate::ratchet::Ratchet;
use crate::storage::Table;
use crate::trust::{Role, ring_row};

/// Time for the admin that revoked a node to change the keys, before another one does.
const AUTHOR_PATIENCE: Duration = Duration::from_secs(5);
/// Members asked for the ring at a time.
const ASKED_AT_ONCE: usize = 3;

/// The keeper of the ring, and what it waits for.
pub(super) struct Keys {
    pub(super) keeper: Keeper,
    /// A node was revoked when this was the newest epoch; by then there should be a newer one.
    owed: Option<(Epoch, Instant)>,
    /// What a member said to this node's request for the ring.
    refused: Option<String>,
    /// New keys come from here and from nowhere else.
    ratchet: Ratchet,
}

impl Keys {
    /// `seed` is from the operating system's generator and serves nothing else.
    pub(super) fn new(ring: Ring, timing: KeyTiming, seed: Zeroizing<[u8; 32]>, now: Instant) -> Self {
        let keeper = Keeper::new(ring, timing, now);
        Self { keeper, owed: None, refused: None, ratchet: Ratchet::new(seed) }
    }

    fn draw(&mut self) -> Zeroizing<[u8; 32]> {
        self.ratchet.draw()
    }

    /// What an operator should know.
    pub(super) fn warning(&self) -> Option<String> {
        self.refused.as_ref().map(|words| format!("a member refuses the keys of the cluster: {words}"))
    }
}

impl Cluster {
    /// The epochs of the cluster's keys, newest first.
    #[must_use]
    pub fn keys(&self, now: Instant) -> Vec<api::KeyEpoch> {
        let ring = self.keys.keeper.ring();
        let alive = self.others_alive(now);
        let show = |epoch: Epoch| api::KeyEpoch {
            epoch: epoch.to_string(),
            active: epoch == ring.active(),
            urgent: ring.is_urgent(epoch),
            age_seconds: self.keys.keeper.age(now, epoch).as_secs(),
            members: 1 + alive.iter().filter(|id| self.keys.keeper.has(**id, epoch)).count(),
            of: 1 + alive.len(),
        };
        ring.epochs().rev().map(show).collect()
    }

    /// Mixes new randomness of the operating system into what keys are drawn from; call every now and then.
    pub fn stir(&mut self, fresh: &[u8; 32]) {
        self.keys.ratchet.stir(fresh);
    }

    /// Makes another key, which takes the place of the one in use as soon as every member has it.
    ///
    /// # Errors
    /// This node is no admin; its state cannot be written.
    pub fn rotate_keys(&mut self, now: Instant) -> Result<Epoch, ClusterError> {
        self.admins_clock(now)?;
        let epoch = self.add_epoch(now, false)?;
        self.drain(now);
        Ok(epoch)
    }

    fn add_epoch(&mut self, now: Instant, urgent: bool) -> Result<Epoch, ClusterError> {
        let mut ring = self.keys.keeper.ring().clone();
        let key = self.keys.draw();
        let epoch = ring.add(*key, urgent, &self.identity).ok_or(ClusterError::Full("keys"))?;
        self.use_ring(now, ring)?;
        tracing::info!(%epoch, urgent, "a new key for the cluster is made");
        Ok(epoch)
    }

    /// Makes a ring durable, then uses it and tells what is on it.
    fn use_ring(&mut self, now: Instant, ring: Ring) -> Result<(), ClusterError> {
        self.ledger.commit_secret("ring", ring_row(&ring))?;
        self.trust.papers.ring = ring.clone();
        self.keys.keeper.set(now, ring.clone());
        self.gossip.set_ring(now, ring);
        self.tell_keys(now);
        Ok(())
    }

    /// Publishes which epochs this node has.
    pub(super) fn tell_keys(&mut self, now: Instant) {
        let have = Have::of(self.keys.keeper.ring()).to_octets();
        let told = RecordKey::new(KEYS).map(|key| self.gossip.set_record(now, key, have));
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "this node's epochs could not be published");
        }
    }

    /// Takes in which epochs these members have.
    pub(super) fn hear_keys(&mut self, now: Instant, origins: &BTreeSet<NodeId>) {
        let Some(key) = RecordKey::new(KEYS) else { return };
        for &origin in origins {
            let record = self.gossip.record(origin, &key);
            if let Some(have) = record.and_then(|record| Have::from_octets(record.body())) {
                self.keys.keeper.heard(now, origin, have);
            }
        }
        self.tend_keys(now);
    }

    /// Members that answer and whose certificate is good, without this one.
    fn others_alive(&self, now: Instant) -> BTreeSet<NodeId> {
        self.alive().filter(|id| *id != self.me && self.counts(now, *id)).collect()
    }

    /// Changes keys as far as it is time to.
    pub(super) fn tend_keys(&mut self, now: Instant) {
        let alive = self.others_alive(now);
        if let Some(ring) = self.keys.keeper.step(now, &alive) {
            tracing::info!(?ring, "the keys of the cluster change");
            if let Err(fault) = self.use_ring(now, ring) {
                tracing::warn!(%fault, "a change of keys waits");
            }
        }
        let newest = self.keys.keeper.ring().newest();
        self.keys.owed = self.keys.owed.filter(|(before, _)| *before == newest);
        let owed = self.keys.owed.is_some_and(|(_, by)| by <= now);
        let due = owed || self.keys.keeper.rotation_due(now);
        if due && self.is_first_admin(now) && self.add_epoch(now, owed).is_ok() {
            self.keys.owed = None;
        }
    }

    /// Whether this is the admin that acts where any could: the one alive with the lowest id.
    fn is_first_admin(&self, now: Instant) -> bool {
        let wall = self.trust_clock(now);
        let admin =
            |id: &NodeId| self.trust.registry.standing(wall, *id).is_ok_and(|node| node.role == Role::Admin);
        admin(&self.me) && !self.others_alive(now).iter().any(|id| *id < self.me && admin(id))
    }

    /// A node was revoked: it is heard no more, and the keys it knows are changed, by who revoked it if that is alive.
    pub(super) fn shut_out(&mut self, now: Instant, node: NodeId, by_us: bool) {
        self.gossip.ban(now, node);
        self.keys.keeper.forget(node);
        if node == self.me {
            return;
        }
        let by = if by_us { now } else { now + AUTHOR_PATIENCE };
        self.keys.owed = Some((self.keys.keeper.ring().newest(), by));
        if by_us && let Err(fault) = self.add_epoch(now, true) {
            tracing::warn!(%fault, "the keys that a revoked node knows are still in use");
        }
    }

    /// Asks for the ring to be fetched, if it is time to.
    pub(super) fn fetch_keys(&mut self, now: Instant) {
        let chance = self.rng.random();
        let Some(Fetch { heard, members }) = self.keys.keeper.poll_fetch(now, chance) else { return };
        let have = members.iter().filter_map(|id| self.gossip.member(*id)).map(|member| member.addr);
        let mut from: BTreeSet<SocketAddr> = heard.into_iter().chain(have).collect();
        if from.is_empty() {
            from = self.remembered();
        }
        from.remove(&self.config.advertise);
        let mut from: Vec<SocketAddr> = from.into_iter().collect();
        while from.len() > ASKED_AT_ONCE {
            from.swap_remove(self.rng.random_range(0..from.len()));
        }
        self.events.extend(from.into_iter().map(ClusterEvent::FetchRing));
    }

    /// Where members were when they were last seen.
    fn remembered(&self) -> BTreeSet<SocketAddr> {
        let stored = self.ledger.rows(Table::Peers, &[]).filter_map(|(_, value)| decode::<SocketAddr>(value));
        stored.chain(self.gossip.members().map(|member| member.addr)).chain(self.gossip.seeds()).collect()
    }

    /// What to ask a member for the ring with.
    #[must_use]
    pub fn ring_errand(&self) -> (Identity, Errand) {
        (Identity::from_secret(&self.identity.secret()), Errand::Ring(self.trust.papers.chain.clone()))
    }

    /// Takes in what a member answered to [`ClusterEvent::FetchRing`]; one that is revoked tells nothing.
    pub fn ring_fetched(&mut self, now: Instant, answer: Result<(NodeId, Welcome), AdmissionError>) {
        match answer {
            Ok((member, _)) if self.trust.registry.is_revoked(member) => {
                tracing::debug!(%member, "a revoked node answered for the ring");
            }
            Ok((_, welcome)) => self.take_ring(now, welcome),
            Err(AdmissionError::Refused(Refusal::Revoked(words))) => self.keys.refused = Some(words),
            Err(fault) => tracing::debug!(%fault, "the ring was not had"),
        }
        self.drain(now);
    }

    fn take_ring(&mut self, now: Instant, welcome: Welcome) {
        self.keys.refused = None;
        // First, so that nobody is given the new key who is to be shut out by it.
        for revocation in welcome.revocations {
            self.hear_revocation(now, revocation);
        }
        let wall = self.trust_clock(now);
        for chain in welcome.makers {
            self.hear_chain(wall, chain);
        }
        let registry = &self.trust.registry;
        let admin = |key: &[u8; 32]| {
            let maker = registry.standing(wall, node_id(key));
            maker.is_ok_and(|maker| maker.role == Role::Admin && maker.key == *key)
        };
        let mut ring = self.keys.keeper.ring().clone();
        if ring.merge(&welcome.ring, admin)
            && let Err(fault) = self.use_ring(now, ring)
        {
            tracing::warn!(%fault, "fetched keys wait");
        }
        self.tend_keys(now);
        // A node that was away is found again under the new keys at once.
        if self.others_alive(now).is_empty() {
            let peers: Vec<SocketAddr> = welcome.peers.into_iter().map(|(_, addr)| addr).collect();
            self.gossip.join(now, &peers);
        }
    }
}
