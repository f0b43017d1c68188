//! Anti-entropy: once a second two random members compare what they have, and each gets what it lacks.
//!
//! ```text
//!  A ─ digest ─► B                one hash over everything; mostly equal, and that is all
//!  A ◄─ bucket hashes ─ B         where they differ (skipped in small clusters)
//!  A ─ summaries ─► B             what A has in buckets that differ
//!  A ◄─ pull, delta ─ B           B asks for what A has newer, gives what it has newer itself
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::Gossip;
use super::limits::{DIGEST_PERIOD, MAX_NODES, MAX_PULL, MAX_STREAM, SERVE_RATE};
use super::message::{BucketSet, Message, Summary, section_len};
use super::table::{BUCKETS, Missing, Origin, Proof, Section, bucket};
use crate::model::NodeId;

/// Octets of sections that one delta carries at most.
const DELTA_ROOM: usize = MAX_STREAM - (2 << 10);
/// Wait for an answer to a pull before another member is asked.
const ANSWER: Duration = Duration::from_millis(500);
/// Members asked in turn; after that, comparison brings it up again.
const TRIES: u8 = 4;
/// Origins up to which a comparison goes straight to summaries.
const FEW: usize = 32;
/// Old withdrawals are looked for so often.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Want {
    from: NodeId,
    at: Instant,
    missing: Missing,
    tries: u8,
}

/// What is due, asked for, and given.
#[derive(Debug)]
pub(crate) struct Sync {
    digest_at: Instant,
    sweep_at: Instant,
    wanted: BTreeMap<NodeId, Want>,
    /// Not later than the first of `wanted`.
    pull_at: Option<Instant>,
    allowance: u64,
    allowed_at: Instant,
}

impl Sync {
    /// `phase` in milliseconds keeps nodes that start together apart.
    pub(crate) fn new(now: Instant, phase: u64) -> Self {
        Self {
            digest_at: now + Duration::from_millis(phase),
            sweep_at: now + SWEEP_PERIOD,
            wanted: BTreeMap::new(),
            pull_at: None,
            allowance: SERVE_RATE,
            allowed_at: now,
        }
    }

    pub(crate) fn next(&self) -> Instant {
        self.pull_at.map_or(self.digest_at, |at| at.min(self.digest_at))
    }

    /// Takes `octets` from what may be served by `now`; `false` if there is not enough.
    fn allow(&mut self, now: Instant, octets: usize) -> bool {
        let rested = now.saturating_duration_since(self.allowed_at).as_micros().min(1_000_000) as u64;
        self.allowance = (self.allowance + SERVE_RATE * rested / 1_000_000).min(SERVE_RATE);
        self.allowed_at = now;
        let enough = self.allowance >= octets as u64;
        if enough {
            self.allowance -= octets as u64;
        }
        enough
    }
}

impl Gossip {
    pub(super) fn sync_due(&mut self) {
        if self.sync.digest_at <= self.now {
            let period = DIGEST_PERIOD.as_millis() as u64;
            let wait = self.rng.random_range(period * 9 / 10..=period * 11 / 10);
            self.sync.digest_at = self.now + Duration::from_millis(wait);
            if let Some(member) = self.random_member() {
                self.compare_with(member);
            }
        }
        if self.sync.sweep_at <= self.now {
            self.sync.sweep_at = self.now + SWEEP_PERIOD;
            self.tables.forget_withdrawals(self.now);
        }
        if self.sync.pull_at.is_some_and(|at| at <= self.now) {
            self.pull_due();
        }
    }

    pub(super) fn compare_with(&mut self, member: NodeId) {
        self.push_changes();
        let digest = Message::Digest { tables: fold(&self.tables.buckets()), roster: self.roster_hash() };
        self.send(member, digest);
    }

    pub(super) fn handle_digest(&mut self, sender: NodeId, tables: u64, roster: u64) {
        if roster != self.roster_hash() {
            self.roster_differs(sender);
        }
        self.push_changes();
        let ours = self.tables.buckets();
        if fold(&ours) == tables {
            return;
        }
        if self.tables.len() <= FEW {
            self.summarise(sender, BucketSet::MAX);
        } else {
            self.serve(sender, Message::Buckets(Box::new(ours)));
        }
    }

    pub(super) fn handle_buckets(&mut self, sender: NodeId, theirs: &[u64; BUCKETS]) {
        let ours = self.tables.buckets();
        let differ = (0..BUCKETS).filter(|at| ours[*at] != theirs[*at]).fold(0, |set, at| set | 1 << at);
        if differ != 0 {
            self.summarise(sender, differ);
        }
    }

    fn summarise(&mut self, with: NodeId, buckets: BucketSet) {
        let chosen = self.tables.compared().filter(|(id, _)| buckets >> bucket(*id) & 1 == 1);
        let entries =
            chosen.map(|(origin, o)| Summary { origin, version: o.complete(), mark: o.mark() }).collect();
        self.serve(with, Message::Summaries { buckets, entries });
    }

    pub(super) fn handle_summaries(&mut self, sender: NodeId, buckets: BucketSet, entries: &[Summary]) {
        self.push_changes();
        let theirs: BTreeMap<NodeId, Summary> = entries.iter().map(|entry| (entry.origin, *entry)).collect();
        let mut give = Vec::new();
        for (id, ours) in self.tables.compared().filter(|(id, _)| buckets >> bucket(*id) & 1 == 1) {
            let have = theirs.get(&id).map_or(0, |entry| entry.version);
            let contradicts = theirs
                .get(&id)
                .is_some_and(|entry| entry.version == ours.complete() && entry.mark != ours.mark());
            if have < ours.complete() {
                give.push((id, have));
            } else if contradicts {
                // Two tables under one version: both ends look at both heads and settle on the same one.
                give.push((id, ours.complete()));
            }
        }
        for entry in theirs.values() {
            match self.tables.get(entry.origin) {
                _ if entry.origin == self.us => {
                    self.counters.foreign_claims += u64::from(entry.version > self.tables.complete(self.us));
                }
                Some(ours) if ours.head.left => give.push((entry.origin, entry.version)),
                ours if ours.map_or(0, Origin::complete) < entry.version => {
                    self.want(entry.origin, sender, Duration::ZERO, Missing::Changes);
                }
                _ => {}
            }
        }
        self.give(sender, give.into_iter());
        self.pull_due();
    }

    pub(super) fn handle_pull(&mut self, sender: NodeId, wanted: &[(NodeId, u64)]) {
        self.push_changes();
        let wanted: Vec<_> =
            wanted.iter().copied().filter(|(id, have)| self.tables.complete(*id) > *have).collect();
        self.give(sender, wanted.into_iter());
    }

    /// Sends the changes after `have` of each origin, as many as fit one message.
    fn give(&mut self, to: NodeId, origins: impl Iterator<Item = (NodeId, u64)>) {
        let (mut sections, mut room, mut more) = (Vec::new(), DELTA_ROOM, false);
        for (id, have) in origins {
            let Some(section) =
                self.tables.get(id).filter(|o| o.is_complete()).and_then(|o| changes(o, have))
            else {
                continue;
            };
            let len = section_len(&section);
            if len > room || sections.len() >= MAX_PULL {
                more = true;
                break;
            }
            room -= len;
            sections.push(section);
        }
        if sections.is_empty() {
            return;
        }
        self.serve(to, Message::Delta { more, sections });
    }

    /// Shows a sender that speaks as an earlier start of `id` what `id` has signed since.
    pub(super) fn show_head(&mut self, to: SocketAddr, id: NodeId) {
        let Some(hint) = self.tables.get(id).map(Origin::hint) else { return };
        if self.sync.allow(self.now, section_len(&hint)) {
            self.send_to_addr(to, Some(id), &Message::Delta { more: false, sections: vec![hint] });
        }
    }

    /// Sends what may be much larger than what asked for it, within the serving rate.
    pub(super) fn serve(&mut self, to: NodeId, answer: Message) {
        let Some(addr) = self.addr_of(to) else { return };
        let body = self.envelope(to).emit(&answer);
        if self.sync.allow(self.now, body.len()) {
            self.enqueue(addr, &body);
        } else {
            self.counters.serve_deferred += 1;
        }
    }

    pub(super) fn handle_delta(&mut self, sender: NodeId, more: bool, sections: Vec<Section>) {
        for section in &sections {
            let merged = self.merge(sender, section, Proof::Needed);
            if merged.advanced {
                self.relay(sender, section);
            }
            self.correct(sender, section);
        }
        if more {
            self.ask_now(sender);
            self.compare_with(sender);
        }
    }

    /// Tells a sender that speaks of a node as present that it said goodbye: comparison leaves those out.
    fn correct(&mut self, sender: NodeId, section: &Section) {
        let origin = section.head.origin();
        let left =
            self.tables.get(origin).filter(|ours| ours.head.left && ours.head.version > section.head.version);
        if left.is_some() {
            self.give(sender, std::iter::once((origin, section.head.version)));
        }
    }

    /// Asks for what `origin` is missing after `delay`, unless that is already under way.
    pub(super) fn want(&mut self, origin: NodeId, from: NodeId, delay: Duration, missing: Missing) {
        if origin == self.us {
            return;
        }
        let at = self.now + delay;
        if let Some(want) = self.sync.wanted.get_mut(&origin) {
            if missing == Missing::Everything {
                want.missing = missing;
            }
            return;
        }
        if self.sync.wanted.len() >= MAX_NODES {
            self.counters.over_limit += 1;
            return;
        }
        self.sync.wanted.insert(origin, Want { from, at, missing, tries: 0 });
        self.sync.pull_at = Some(self.sync.pull_at.map_or(at, |due| due.min(at)));
    }

    pub(super) fn have(&mut self, origin: NodeId) {
        self.sync.wanted.remove(&origin);
    }

    /// Asks `from` again for what it had no room for.
    fn ask_now(&mut self, from: NodeId) {
        for want in self.sync.wanted.values_mut().filter(|want| want.from == from && want.tries > 0) {
            (want.at, want.tries) = (self.now, want.tries - 1);
        }
        self.pull_due();
    }

    fn pull_due(&mut self) {
        let mut asks: BTreeMap<NodeId, Vec<(NodeId, u64)>> = BTreeMap::new();
        let due: Vec<_> =
            self.sync.wanted.iter().filter(|(_, w)| w.at <= self.now).map(|(id, _)| *id).collect();
        for origin in due {
            let other = self.random_member();
            let Some(want) = self.sync.wanted.get_mut(&origin) else { continue };
            if want.tries >= TRIES {
                self.sync.wanted.remove(&origin);
                continue;
            }
            if want.tries > 0 {
                want.from = other.unwrap_or(want.from);
            }
            want.tries += 1;
            want.at = self.now + ANSWER;
            let have = match want.missing {
                Missing::Everything => 0,
                Missing::Changes | Missing::Nothing => self.tables.complete(origin),
            };
            asks.entry(want.from).or_default().push((origin, have));
        }
        for (member, wanted) in asks {
            for some in wanted.chunks(MAX_PULL) {
                self.counters.pulls += some.len() as u64;
                self.send(member, Message::Pull(some.to_vec()));
            }
        }
        self.sync.pull_at = self.sync.wanted.values().map(|want| want.at).min();
    }
}

/// The changes after `have`, or the whole table if those would not fit a message.
fn changes(origin: &Origin, have: u64) -> Option<Section> {
    let section = origin.section(have);
    if section_len(&section) <= DELTA_ROOM {
        return Some(section);
    }
    Some(origin.section(0)).filter(|whole| section_len(whole) <= DELTA_ROOM)
}

fn fold(buckets: &[u64; BUCKETS]) -> u64 {
    buckets
        .iter()
        .fold(0, |hash: u64, bucket| (hash.rotate_left(7) ^ bucket).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
