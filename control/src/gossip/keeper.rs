//! When keys change: without a leader, and without a message lost to the change.
//!
//! 1. *Install*: an admin adds an epoch to its ring. Every node tells in record [`KEYS`] which epochs it has, never
//!    the keys themselves; who lacks one fetches the ring from a member that has it, over a channel of two.
//! 2. *Activate*: each node by itself sends with the newest epoch that all living members have, or that has been here
//!    long enough: who still lacks it by then fetches it once it hears it.
//! 3. *Retire*: old epochs are forgotten a day after they were last sent with, or a minute after if the newer one was
//!    made because a node must no longer know the keys.
//!
//! [`Keeper`] decides; making a changed ring durable and using it is its owner's part.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ring::{Epoch, MAX_EPOCHS, Ring};
use super::wire::{Reader, Writer as _};
use crate::model::NodeId;

/// Key of the record that tells which epochs a node has.
pub const KEYS: &[u8] = b"k";

/// Waits; the defaults are for production, tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTiming {
    /// Age of the newest epoch at which another is made.
    pub rotate: Duration,
    /// Longest that an epoch waits for members that lack it.
    pub activate: Duration,
    /// The same, if a node must no longer know the older ones.
    pub activate_urgent: Duration,
    /// Time for which epochs are kept that are sent with no more.
    pub retire: Duration,
    /// The same, if a node must no longer know them.
    pub retire_urgent: Duration,
    /// Wait before the ring is fetched, at most: members that lack an epoch do not all ask one that has it at once.
    pub spread: Duration,
    /// Wait before the ring is fetched again where that came to nothing, at first and at most.
    pub retry: (Duration, Duration),
    /// Time without any living member after which the ring may be why.
    pub alone: Duration,
}

impl Default for KeyTiming {
    fn default() -> Self {
        Self {
            rotate: Duration::from_secs(12 * 3600),
            activate: Duration::from_secs(10 * 60),
            activate_urgent: Duration::from_secs(20),
            retire: Duration::from_secs(24 * 3600),
            retire_urgent: Duration::from_secs(60),
            spread: Duration::from_millis(200),
            retry: (Duration::from_secs(1), Duration::from_secs(30)),
            alone: Duration::from_secs(10),
        }
    }
}

/// What a node says of its ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// The epoch it sends with.
    pub active: Epoch,
    /// The epochs it can open.
    pub epochs: BTreeSet<Epoch>,
}

impl Have {
    /// What there is to say of `ring`.
    #[must_use]
    pub fn of(ring: &Ring) -> Self {
        Self { active: ring.active(), epochs: ring.epochs().collect() }
    }

    /// The record's body: active 4 | count 1 | count × epoch 4.
    #[must_use]
    pub fn to_octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.u32(self.active.0);
        out.u8(self.epochs.len() as u8);
        self.epochs.iter().for_each(|epoch| out.u32(epoch.0));
        out
    }

    /// Reads a record's body.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        let (active, count) = (Epoch(reader.u32()?), usize::from(reader.u8()?));
        let epochs: Option<BTreeSet<Epoch>> =
            (0..count.min(MAX_EPOCHS)).map(|_| reader.u32().map(Epoch)).collect();
        reader.end()?;
        Some(Self { active, epochs: epochs? })
    }
}

/// A ring to be fetched.
#[derive(Debug)]
struct Need {
    at: Instant,
    tries: u32,
    /// Whoever was heard using what is not here.
    heard: BTreeSet<SocketAddr>,
}

/// Addresses kept of those that use what is not here.
const MAX_HEARD: usize = 16;
/// Fetches after which what a stranger may have made up is given up, until it is heard again.
const TRIES: u32 = 6;

/// Keeps one node's ring. See the module's documentation.
#[derive(Debug)]
pub struct Keeper {
    ring: Ring,
    timing: KeyTiming,
    /// Since when an epoch is here.
    since: BTreeMap<Epoch, Instant>,
    active_since: Instant,
    haves: BTreeMap<NodeId, Have>,
    need: Option<Need>,
    /// Since when no member is alive.
    alone: Option<Instant>,
}

impl Keeper {
    /// Keeps `ring`, whose epochs count as come just now.
    #[must_use]
    pub fn new(ring: Ring, timing: KeyTiming, now: Instant) -> Self {
        let since = ring.epochs().map(|epoch| (epoch, now)).collect();
        let (haves, need, alone) = (BTreeMap::new(), None, Some(now));
        Self { ring, timing, since, active_since: now, haves, need, alone }
    }

    /// The ring in use.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Uses `ring` from now on; it is durable.
    pub fn set(&mut self, now: Instant, ring: Ring) {
        if ring.active() != self.ring.active() {
            self.active_since = now;
        }
        let before = std::mem::take(&mut self.since);
        self.since = ring.epochs().map(|epoch| (epoch, *before.get(&epoch).unwrap_or(&now))).collect();
        self.ring = ring;
        if self.lacks().is_empty() {
            self.need = None;
        }
    }

    /// A member says what it has.
    pub fn heard(&mut self, now: Instant, member: NodeId, have: Have) {
        self.haves.insert(member, have);
        if self.lacks().contains(&member) {
            self.begin(now, None);
        }
    }

    /// Whether a member says that it has this epoch.
    #[must_use]
    pub fn has(&self, member: NodeId, epoch: Epoch) -> bool {
        self.haves.get(&member).is_some_and(|have| have.epochs.contains(&epoch))
    }

    /// How long an epoch has been here, since the last start at most.
    #[must_use]
    pub fn age(&self, now: Instant, epoch: Epoch) -> Duration {
        self.since.get(&epoch).map_or(Duration::ZERO, |at| now.saturating_duration_since(*at))
    }

    /// A member is none any more.
    pub fn forget(&mut self, member: NodeId) {
        self.haves.remove(&member);
    }

    /// Somebody at a member's address uses an epoch that is not here.
    pub fn missed(&mut self, now: Instant, from: SocketAddr) {
        self.begin(now, Some(from));
    }

    fn begin(&mut self, now: Instant, from: Option<SocketAddr>) {
        let need = self.need.get_or_insert(Need { at: now, tries: 0, heard: BTreeSet::new() });
        if need.heard.len() < MAX_HEARD {
            need.heard.extend(from);
        }
    }

    /// Members that have an epoch which is missing here and not an old one.
    fn lacks(&self) -> BTreeSet<NodeId> {
        let oldest = self.ring.epochs().next();
        let missing = |epoch: &Epoch| oldest.is_none_or(|oldest| *epoch > oldest) && !self.ring.has(*epoch);
        self.haves.iter().filter(|(_, have)| have.epochs.iter().any(missing)).map(|(id, _)| *id).collect()
    }

    /// The ring as it should be by now, if that is not how it is. `alive` are the members that answer, without this
    /// node and without nodes that must not know the keys.
    #[must_use]
    pub fn step(&mut self, now: Instant, alive: &BTreeSet<NodeId>) -> Option<Ring> {
        let alone = *self.alone.get_or_insert(now);
        if !alive.is_empty() {
            self.alone = None;
        } else if now.saturating_duration_since(alone) >= self.timing.alone {
            self.begin(now, None);
        }
        let mut ring = self.ring.clone();
        let mut newer = self.ring.epochs().rev().take_while(|epoch| *epoch > self.ring.active());
        if let Some(epoch) = newer.find(|epoch| self.may_activate(now, *epoch, alive)) {
            ring.activate(epoch);
        } else {
            self.retire(now, &mut ring);
        }
        (ring != self.ring).then_some(ring)
    }

    fn may_activate(&self, now: Instant, epoch: Epoch, alive: &BTreeSet<NodeId>) -> bool {
        let mut newer = self.ring.epochs().filter(|e| *e > self.ring.active() && *e <= epoch);
        let urgent = newer.any(|e| self.ring.is_urgent(e));
        let longest = if urgent { self.timing.activate_urgent } else { self.timing.activate };
        self.age(now, epoch) >= longest || alive.iter().all(|id| self.has(*id, epoch))
    }

    fn retire(&self, now: Instant, ring: &mut Ring) {
        let (active, sent) = (ring.active(), now.saturating_duration_since(self.active_since));
        let urgent = ring.epochs().rev().find(|epoch| *epoch <= active && ring.is_urgent(*epoch));
        if sent >= self.timing.retire {
            ring.retire_before(active);
        } else if let Some(epoch) = urgent.filter(|_| sent >= self.timing.retire_urgent) {
            ring.retire_before(epoch);
        }
    }

    /// Whether the newest epoch is old enough for another.
    #[must_use]
    pub fn rotation_due(&self, now: Instant) -> bool {
        self.age(now, self.ring.newest()) >= self.timing.rotate
    }

    /// Whether the ring should be fetched now, and of whom: addresses that were heard, members that have what is
    /// missing; if there are none of both, anybody. `chance` is random.
    pub fn poll_fetch(&mut self, now: Instant, chance: u64) -> Option<Fetch> {
        let lacks = self.lacks();
        let (spread, retry) = (self.timing.spread, self.timing.retry);
        let need = self.need.as_mut()?;
        if need.tries == 0 && need.at <= now {
            // Not at once, and not with all others.
            need.at = now + spread.mul_f64(chance as f64 / u64::MAX as f64);
            need.tries = 1;
            return None;
        }
        if need.at > now {
            return None;
        }
        let wait = (retry.0 * 2u32.saturating_pow(need.tries - 1)).min(retry.1);
        (need.at, need.tries) = (now + wait, need.tries + 1);
        let fetch = Fetch { heard: need.heard.clone(), members: lacks };
        if need.tries > TRIES && fetch.members.is_empty() && self.alone.is_none() {
            self.need = None;
        }
        Some(fetch)
    }

    /// When [`Keeper::poll_fetch`] is wanted.
    #[must_use]
    pub fn next_fetch(&self) -> Option<Instant> {
        self.need.as_ref().map(|need| need.at)
    }
}

/// Of whom the ring may be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Addresses that were heard to use what is missing.
    pub heard: BTreeSet<SocketAddr>,
    /// Members that say they have it.
    pub members: BTreeSet<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::testing::start;
    use crate::identity::Identity;

    fn id(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn key(octet: u8) -> [u8; 32] {
        std::array::from_fn(|i| octet ^ i as u8)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A keeper with two epochs, the older one active, and the newer.
    fn installed(now: Instant, urgent: bool) -> (Keeper, Epoch) {
        let mut keeper = Keeper::new(Ring::found(key(1)), KeyTiming::default(), now);
        let mut ring = keeper.ring().clone();
        let next = ring.add(key(2), urgent, &Identity::from_secret(&[1; 32])).expect("room");
        keeper.set(now, ring);
        (keeper, next)
    }

    #[test]
    fn an_epoch_is_sent_with_once_all_alive_have_it() {
        let now = start();
        let (mut keeper, next) = installed(now, false);
        let alive = BTreeSet::from([id(1), id(2)]);
        let old = Have::of(&Ring::found(key(1)));
        keeper.heard(now, id(1), Have::of(keeper.ring()));
        keeper.heard(now, id(2), old);
        assert_eq!(keeper.step(now, &alive), None, "the second lacks it");
        let without = BTreeSet::from([id(1)]);
        assert_eq!(keeper.step(now, &without).map(|ring| ring.active()), Some(next), "it died");
        keeper.heard(now, id(2), Have::of(keeper.ring()));
        assert_eq!(keeper.step(now, &alive).map(|ring| ring.active()), Some(next));
    }

    #[test]
    fn nobody_is_waited_for_forever_and_not_long_where_a_node_must_be_kept_out() {
        let (now, timing) = (start(), KeyTiming::default());
        for (urgent, limit) in [(false, timing.activate), (true, timing.activate_urgent)] {
            let (mut keeper, next) = installed(now, urgent);
            let alive = BTreeSet::from([id(1)]);
            assert_eq!(keeper.step(now + limit - seconds(1), &alive), None);
            assert_eq!(keeper.step(now + limit, &alive).map(|ring| ring.active()), Some(next));
        }
    }

    #[test]
    fn old_epochs_are_forgotten_in_their_time() {
        let (now, timing) = (start(), KeyTiming::default());
        for (urgent, limit) in [(false, timing.retire), (true, timing.retire_urgent)] {
            let (mut keeper, next) = installed(now, urgent);
            let ring = keeper.step(now, &BTreeSet::new()).expect("nobody else is there");
            keeper.set(now, ring);
            assert_eq!(keeper.step(now + limit - seconds(1), &BTreeSet::new()), None);
            let ring = keeper.step(now + limit, &BTreeSet::new()).expect("it is time");
            assert_eq!(ring.epochs().collect::<Vec<_>>(), [next]);
        }
    }

    #[test]
    fn what_others_have_is_fetched_again_and_again_until_it_is_here() {
        let now = start();
        let (ahead, next) = installed(now, false);
        let mut behind = Keeper::new(Ring::found(key(1)), KeyTiming::default(), now);
        assert_eq!(behind.poll_fetch(now, 0), None);
        behind.heard(now, id(1), Have::of(ahead.ring()));
        assert_eq!(behind.poll_fetch(now, u64::MAX), None, "not with all others at once");
        let asked = |keeper: &mut Keeper| {
            let times = (1..120).filter_map(|s| keeper.poll_fetch(now + seconds(s), 7));
            times.inspect(|fetch| assert!(fetch.members.contains(&id(1)))).count()
        };
        assert!((6..12).contains(&asked(&mut behind)));
        let mut ring = behind.ring().clone();
        assert!(ring.merge(ahead.ring(), |_| true));
        behind.set(now, ring);
        assert!(behind.ring().has(next));
        assert_eq!(asked(&mut behind), 0);
    }

    #[test]
    fn a_node_that_nobody_answers_looks_for_the_ring_and_what_is_made_up_is_given_up() {
        let (now, timing) = (start(), KeyTiming::default());
        let mut keeper = Keeper::new(Ring::found(key(1)), timing, now);
        let mut fetches = 0;
        for second in 0..600 {
            let now = now + seconds(second);
            assert_eq!(keeper.step(now, &BTreeSet::new()), None);
            fetches += usize::from(keeper.poll_fetch(now, 9).is_some());
        }
        assert!((10..40).contains(&fetches), "{fetches}");
        let later = now + seconds(1000);
        assert_eq!(keeper.step(later, &BTreeSet::from([id(1)])), None);
        keeper.missed(later, "192.0.2.9:7946".parse().expect("an address"));
        let fetches = (0..600).filter_map(|s| keeper.poll_fetch(later + seconds(s), 9)).count();
        assert!(fetches <= TRIES as usize, "{fetches}");
    }

    #[test]
    fn what_a_node_has_survives_its_octets_and_other_octets_are_refused() {
        let have = Have::of(installed(start(), false).0.ring());
        let octets = have.to_octets();
        assert_eq!(Have::from_octets(&octets), Some(have));
        assert!((0..octets.len()).all(|len| Have::from_octets(&octets[..len]).is_none()));
        assert_eq!(Have::from_octets(&[0; 200]), None);
    }
}
