//! The record set of every node: one signed table per origin, merged so that order, loss and repetition don't matter.
//!
//! An origin's versions only grow, each change has its own. A table is *complete* up to the version of a head whose
//! hash it matches; from then on anything at or below that version is old news, and a withdrawal needs no memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::counters::Counters;
use super::limits::{
    MAX_KEYS, MAX_NODES, MAX_TABLE, MAX_TABLES, MAX_TOMBSTONES, RECORD_OVERHEAD, TOMBSTONE_LIFE,
};
use super::record::{CERTIFICATE, ClusterId, Credentials, Head, Record, RecordKey, set_hash};
use crate::model::NodeId;

/// Buckets that origins are hashed into for comparison.
pub(crate) const BUCKETS: usize = 128;

/// Which of an origin's changes a section carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Some.
    Part,
    /// All after this version, withdrawals as far as they are remembered.
    Since(u64),
    /// Every live record.
    Full,
}

/// Changes of one origin, as they travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) head: Head,
    pub(crate) extent: Extent,
    pub(crate) records: Vec<(RecordKey, Record)>,
}

/// What a section did to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Merged {
    /// The origin's head is newer than before.
    pub(crate) advanced: bool,
    /// Records changed.
    pub(crate) changed: bool,
    /// What is still to be fetched.
    pub(crate) missing: Missing,
    /// The origin's own signature shows that two processes use its identity.
    pub(crate) clash: bool,
}

/// What an origin's table lacks against its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Missing {
    #[default]
    Nothing,
    /// Changes after the complete version.
    Changes,
    /// Something that a delta can't tell: the whole table is needed.
    Everything,
}

/// One node's records.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) head: Head,
    live: BTreeMap<RecordKey, Record>,
    withdrawn: BTreeMap<RecordKey, (Record, Instant)>,
    bytes: usize,
    complete: u64,
    mark: u64,
}

impl Origin {
    fn new(head: Head) -> Self {
        Self { head, live: BTreeMap::new(), withdrawn: BTreeMap::new(), bytes: 0, complete: 0, mark: 0 }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = (&RecordKey, &Record)> {
        self.live.iter()
    }

    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.live.get(key)
    }

    /// Version up to which nothing is missing.
    pub(crate) fn complete(&self) -> u64 {
        self.complete
    }

    /// Whether all that the head speaks of is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete == self.head.version
    }

    /// Short hash of the complete state, for comparison between nodes.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    /// Changes after `have`, or with nothing to start from all of it.
    pub(crate) fn section(&self, have: u64) -> Section {
        let tombs = self.withdrawn.iter().map(|(key, (record, _))| (key, record));
        let all = self.live.iter().chain(tombs.filter(|_| have > 0));
        let records = all.filter(|(_, r)| r.version() > have).map(|(k, r)| (k.clone(), r.clone())).collect();
        let extent = if have == 0 { Extent::Full } else { Extent::Since(have) };
        Section { head: self.head.clone(), extent, records }
    }

    /// The head alone, as news that there is something to pull.
    pub(crate) fn hint(&self) -> Section {
        Section { head: self.head.clone(), extent: Extent::Part, records: Vec::new() }
    }

    /// The named records, live or withdrawn.
    pub(crate) fn part<'k>(&self, keys: impl Iterator<Item = &'k RecordKey>) -> Vec<(RecordKey, Record)> {
        let find = |key| self.live.get(key).or_else(|| self.withdrawn.get(key).map(|(record, _)| record));
        keys.filter_map(|key| find(key).map(|record| (key.clone(), record.clone()))).collect()
    }

    fn at_version(&self, key: &RecordKey) -> Option<&Record> {
        self.live.get(key).or_else(|| self.withdrawn.get(key).map(|(record, _)| record))
    }

    /// Whether the record fits a table of `most` octets.
    fn has_room(&self, key: &RecordKey, record: &Record, most: usize) -> bool {
        let freed = self.live.get(key).map_or(0, |old| charge(key, old));
        record.withdrawn()
            || (self.bytes - freed + charge(key, record) <= most && (freed > 0 || self.live.len() < MAX_KEYS))
    }

    /// Puts a record in the place of whatever its key held, and returns that.
    fn put(&mut self, now: Instant, key: &RecordKey, record: Record) -> Option<Record> {
        let before = self.take(key);
        if record.withdrawn() {
            if self.withdrawn.len() >= MAX_TOMBSTONES {
                self.withdrawn.pop_first();
            }
            self.withdrawn.insert(key.clone(), (record, now));
        } else {
            self.bytes += charge(key, &record);
            self.live.insert(key.clone(), record);
        }
        before
    }

    fn take(&mut self, key: &RecordKey) -> Option<Record> {
        if let Some(record) = self.live.remove(key) {
            self.bytes -= charge(key, &record);
            return Some(record);
        }
        self.withdrawn.remove(key).map(|(record, _)| record)
    }

    fn restore(&mut self, now: Instant, key: &RecordKey, before: Option<Record>) {
        match before {
            Some(record) => {
                self.put(now, key, record);
            }
            None => {
                self.take(key);
            }
        }
    }

    fn matches_head(&self) -> bool {
        self.live.len() == self.head.count as usize && set_hash(self.live.values()) == self.head.root
    }

    fn complete_now(&mut self) {
        self.complete = self.head.version;
        let mut hash = Sha256::new();
        hash.update(self.head.public_key);
        hash.update(self.head.version.to_be_bytes());
        hash.update(self.head.root);
        hash.update([u8::from(self.head.left)]);
        let hash = hash.finalize();
        self.mark = hash[..8].iter().fold(0, |mark, octet| mark << 8 | u64::from(*octet));
    }
}

fn charge(key: &RecordKey, record: &Record) -> usize {
    key.as_bytes().len() + record.body().len() + RECORD_OVERHEAD
}

/// The tables of all nodes that were ever verified.
#[derive(Debug)]
pub(crate) struct Tables {
    us: NodeId,
    cluster: ClusterId,
    credentials: Option<Arc<dyn Credentials>>,
    origins: BTreeMap<NodeId, Origin>,
    /// Octets of the others' records.
    bytes: usize,
}

impl Tables {
    /// Without `credentials`, whoever signs a head may have a table.
    pub(crate) fn new(us: NodeId, cluster: ClusterId, credentials: Option<Arc<dyn Credentials>>) -> Self {
        Self { us, cluster, credentials, origins: BTreeMap::new(), bytes: 0 }
    }

    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Origin> {
        self.origins.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Origin)> {
        self.origins.iter().map(|(id, origin)| (*id, origin))
    }

    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }

    /// Version up to which nothing of `id` is missing.
    pub(crate) fn complete(&self, id: NodeId) -> u64 {
        self.get(id).map_or(0, Origin::complete)
    }

    /// Origins that comparison between nodes speaks of: those that left are dropped by each node in its own time.
    pub(crate) fn compared(&self) -> impl Iterator<Item = (NodeId, &Origin)> {
        self.iter().filter(|(_, origin)| !origin.head.left && origin.complete > 0)
    }

    /// Hash per bucket over what is complete here.
    pub(crate) fn buckets(&self) -> [u64; BUCKETS] {
        let mut buckets = [0; BUCKETS];
        for (id, origin) in self.compared() {
            buckets[bucket(id)] ^= origin.mark;
        }
        buckets
    }

    /// Writes one of our own records; no head speaks of it before [`Tables::publish`].
    pub(crate) fn put_own(&mut self, now: Instant, us: NodeId, key: &RecordKey, record: Record) -> bool {
        let Some(origin) = self.origins.get_mut(&us) else { return false };
        let room = origin.has_room(key, &record, MAX_TABLE);
        if room {
            origin.put(now, key, record);
        }
        room
    }

    /// Makes `head`, with count and hash filled in and signed by `sign`, the one that speaks for our own records.
    pub(crate) fn publish(&mut self, mut head: Head, sign: impl FnOnce(&mut Head)) {
        let id = head.origin();
        let origin = self.origins.entry(id).or_insert_with(|| Origin::new(head.clone()));
        head.count = origin.live.len() as u32;
        head.root = set_hash(origin.live.values());
        sign(&mut head);
        origin.head = head;
        origin.complete_now();
    }

    /// Merges what somebody relayed about an origin that is not this node.
    ///
    /// `proof` says whether the head's signature was checked already.
    pub(crate) fn merge(
        &mut self,
        now: Instant,
        section: &Section,
        proof: Proof,
        counters: &mut Counters,
    ) -> Merged {
        let id = section.head.origin();
        if !self.origins.contains_key(&id) && !section.head.left && !self.admits(section) {
            // A head alone takes no room; with the certificate it comes again.
            return Merged { missing: Missing::Everything, ..Merged::default() };
        }
        let (head, clash) = self.merge_head(id, &section.head, proof, counters);
        let Some(origin) = self.origins.get_mut(&id) else { return Merged::default() };
        if head == HeadNews::Refused {
            return Merged::default();
        }
        let advanced = head == HeadNews::Newer;
        if origin.is_complete() && !advanced {
            note_equivocation(&self.cluster, origin, section, counters);
            return Merged { clash, ..Merged::default() };
        }
        let current = section.head == origin.head;
        let whole = section.extent == Extent::Full && current;
        let before = origin.bytes;
        let most = MAX_TABLE.min(MAX_TABLES.saturating_sub(self.bytes) + before);
        let changed = if whole && replace(now, origin, section, most) {
            true
        } else {
            apply(now, &self.cluster, origin, section, most, counters)
        };
        self.bytes = self.bytes - before + origin.bytes;
        Merged { advanced, changed, missing: missing(origin, section, current), clash }
    }

    /// Whether a section shows why its origin is a member.
    fn admits(&self, section: &Section) -> bool {
        let Some(credentials) = &self.credentials else { return true };
        let owner = &section.head.public_key;
        section.records.iter().filter(|(key, _)| key.as_bytes() == CERTIFICATE).any(|(key, record)| {
            record.verify(&self.cluster, owner, key) && credentials.admit(owner, record.body())
        })
    }

    /// What a head is against the one that is known, and whether both together show a clash.
    fn merge_head(
        &mut self,
        id: NodeId,
        head: &Head,
        proof: Proof,
        counters: &mut Counters,
    ) -> (HeadNews, bool) {
        let (mut contradicts, mut clash, mut older) = (false, false, false);
        match self.origins.get(&id).map(|known| &known.head) {
            Some(known) if known == head => return (HeadNews::Same, false),
            Some(known) => {
                older = known.version > head.version;
                contradicts = known.version == head.version;
                clash = contradicts || known.clashes_with(head);
            }
            None if head.left => return (HeadNews::Refused, false),
            None => {}
        }
        if older && !clash {
            return (HeadNews::Older, false);
        }
        counters.verifications += u64::from(proof == Proof::Needed);
        if proof == Proof::Needed && !head.verify(&self.cluster) {
            counters.bad_signature += 1;
            return (HeadNews::Refused, false);
        }
        if older {
            return (HeadNews::Older, clash);
        }
        if !self.origins.contains_key(&id) && self.origins.len() >= MAX_NODES {
            counters.over_limit += 1;
            return (HeadNews::Refused, false);
        }
        let origin = self.origins.entry(id).or_insert_with(|| Origin::new(head.clone()));
        if contradicts {
            counters.equivocations += 1;
            if (head.root, head.signature) < (origin.head.root, origin.head.signature) {
                return (HeadNews::Older, clash);
            }
            (origin.complete, origin.mark) = (0, 0);
        }
        origin.head = head.clone();
        (HeadNews::Newer, clash)
    }

    /// Drops all that is kept of a node. `true` if there was anything.
    pub(crate) fn remove(&mut self, id: NodeId) -> bool {
        let removed = self.origins.remove(&id);
        self.bytes -= removed.as_ref().filter(|_| id != self.us).map_or(0, |origin| origin.bytes);
        removed.is_some()
    }

    /// If the table is full, drops the origin that is missed least among those that `gone` names: one that said
    /// goodbye, else the one with the fewest records.
    pub(crate) fn make_room(&mut self, gone: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if self.origins.len() < MAX_NODES {
            return None;
        }
        let spare = self.origins.iter().filter(|(id, _)| gone(**id));
        let least = spare.min_by_key(|(_, origin)| (!origin.head.left, origin.live.len())).map(|(id, _)| *id);
        self.remove(least?);
        least
    }

    /// Forgets withdrawals that are old enough to be known everywhere.
    pub(crate) fn forget_withdrawals(&mut self, now: Instant) {
        for origin in self.origins.values_mut() {
            origin.withdrawn.retain(|_, (_, since)| now.saturating_duration_since(*since) < TOMBSTONE_LIFE);
        }
    }
}

/// Bucket of an origin; ids are hashes, so any octet spreads well.
pub(crate) fn bucket(id: NodeId) -> usize {
    usize::from(id.0[0]) % BUCKETS
}

/// Whether a head's signature is still to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Needed,
    Given,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeadNews {
    Newer,
    Same,
    Older,
    Refused,
}

/// Takes a whole table at once if it hashes to the signed head, which proves every record in it.
fn replace(now: Instant, origin: &mut Origin, section: &Section, most: usize) -> bool {
    let mut fresh = Origin::new(origin.head.clone());
    for (key, record) in &section.records {
        if !record.withdrawn() && fresh.has_room(key, record, most) {
            fresh.put(now, key, record.clone());
        }
    }
    if !fresh.matches_head() {
        return false;
    }
    fresh.withdrawn = std::mem::take(&mut origin.withdrawn);
    fresh.withdrawn.retain(|key, _| !fresh.live.contains_key(key));
    fresh.complete_now();
    *origin = fresh;
    true
}

/// Applies single changes: proved by the head if they lead to what it says, else each by its own signature.
fn apply(
    now: Instant,
    cluster: &ClusterId,
    origin: &mut Origin,
    section: &Section,
    most: usize,
    counters: &mut Counters,
) -> bool {
    let mut undo = Vec::new();
    for (key, record) in &section.records {
        if !is_news(origin, section, key, record) {
            continue;
        }
        if !origin.has_room(key, record, most) {
            counters.over_limit += 1;
            continue;
        }
        let before = origin.put(now, key, record.clone());
        undo.push((key, record, before));
    }
    if origin.matches_head() {
        origin.complete_now();
        return true;
    }
    let mut changed = false;
    for (key, record, before) in undo.into_iter().rev() {
        counters.verifications += 1;
        if record.verify(cluster, &origin.head.public_key, key) {
            changed = true;
        } else {
            counters.bad_signature += 1;
            origin.restore(now, key, before);
        }
    }
    changed
}

fn is_news(origin: &Origin, section: &Section, key: &RecordKey, record: &Record) -> bool {
    // A record above its head would be beyond what completeness speaks of.
    let in_range = record.version() > origin.complete && record.version() <= section.head.version;
    in_range
        && origin
            .at_version(key)
            .is_none_or(|known| (known.version(), known.hash()) < (record.version(), record.hash()))
}

/// Counts contents that contradict a complete table; the table stays, as its head is what everybody agrees on.
fn note_equivocation(cluster: &ClusterId, origin: &Origin, section: &Section, counters: &mut Counters) {
    let contradiction = section.records.iter().find(|(key, record)| {
        origin
            .at_version(key)
            .is_some_and(|known| known.version() == record.version() && known.hash() != record.hash())
    });
    if let Some((key, record)) = contradiction {
        counters.verifications += 1;
        match record.verify(cluster, &origin.head.public_key, key) {
            true => counters.equivocations += 1,
            false => counters.bad_signature += 1,
        }
    }
}

fn missing(origin: &Origin, section: &Section, current: bool) -> Missing {
    let answered = match section.extent {
        Extent::Part => false,
        Extent::Since(base) => current && base <= origin.complete,
        Extent::Full => current,
    };
    match origin.is_complete() {
        true => Missing::Nothing,
        false if answered || origin.complete == 0 => Missing::Everything,
        false => Missing::Changes,
    }
}

#[cfg(test)]
mod tests;
