//! This node's own records, and how news travels at once: own changes to the members, others' on to some more.

use std::collections::BTreeSet;
use std::time::Duration;

use super::engine::Claim;
use super::limits::{DIRECT_MEMBERS, FANOUT, MAX_BODY, MAX_NODES, MAX_PUSH_DATAGRAMS};
use super::message::{HEAD_MOST, MAX_CONTENT, MAX_INTRODUCTION, Message, section_len};
use super::record::{CERTIFICATE, Head, Record, RecordKey};
use super::table::{Extent, Merged, Missing, Proof, Section};
use super::{Gossip, RecordRefused, sample};
use crate::model::NodeId;

/// Octets of a delta's content before its sections.
const DELTA_HEADER: usize = 4;
/// Octets for sections in a datagram.
const ROOM: usize = MAX_CONTENT - DELTA_HEADER;
/// Time for the other datagrams of a change, and for repetitions, before what is missing is asked for.
const SETTLE: Duration = Duration::from_millis(30);

/// Own changes that no head speaks of yet.
#[derive(Debug)]
pub(crate) struct Outgoing {
    version: u64,
    changed: BTreeSet<RecordKey>,
    head_changed: bool,
}

impl Outgoing {
    pub(crate) fn new(boot_epoch: u32) -> Self {
        Self { version: u64::from(boot_epoch) << 32, changed: BTreeSet::new(), head_changed: false }
    }

    /// What the head itself says has changed.
    pub(crate) fn touch(&mut self) {
        self.head_changed = true;
    }

    /// Goes on as another start.
    pub(crate) fn rise(&mut self, boot_epoch: u32) {
        self.version = u64::from(boot_epoch) << 32;
    }

    /// A version above all before. The lower half would take 2^32 changes within one start to overflow.
    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }
}

impl Gossip {
    /// Publishes a record, or replaces it; nothing happens if it already says the same.
    ///
    /// Records that are set before the first [`Gossip::poll_transmit`] are published as one: after a restart the
    /// others replace what they remember by all of it, not piece by piece.
    ///
    /// # Errors
    /// [`RecordRefused`]: the caller's fault; nothing has changed.
    pub fn set_record(
        &mut self,
        now: std::time::Instant,
        key: RecordKey,
        body: Vec<u8>,
    ) -> Result<(), RecordRefused> {
        self.tick(now);
        if self.left {
            return Err(RecordRefused::Left);
        }
        if body.len() > MAX_BODY {
            return Err(RecordRefused::TooLarge(body.len()));
        }
        if self.record(self.us, &key).is_some_and(|record| record.body() == body) {
            return Ok(());
        }
        self.write(key, Some(body.into())).then_some(()).ok_or(RecordRefused::Full)
    }

    /// Withdraws a record; nothing happens if there is none.
    pub fn withdraw(&mut self, now: std::time::Instant, key: &RecordKey) {
        self.tick(now);
        if self.record(self.us, key).is_some() && !self.left {
            self.write(key.clone(), None);
        }
    }

    pub(super) fn withdraw_all(&mut self) {
        let keys: Vec<_> = self.records(self.us).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.write(key, None);
        }
    }

    /// Gives every record a version of the start that this node goes on as.
    pub(super) fn sign_anew(&mut self) {
        let records = self.records(self.us).map(|(key, record)| (key.clone(), record.body().into()));
        for (key, body) in records.collect::<Vec<_>>() {
            self.write(key, Some(body));
        }
    }

    fn write(&mut self, key: RecordKey, body: Option<Box<[u8]>>) -> bool {
        let record = Record::sign(self.tables.cluster(), &self.identity, &key, self.outgoing.next(), body);
        let written = self.tables.put_own(self.now, self.us, &key, record);
        if written {
            self.outgoing.changed.insert(key);
        }
        written
    }

    /// Signs a head over the records as they are.
    pub(super) fn publish(&mut self, left: bool) {
        let head = Head {
            public_key: self.identity.public_key(),
            name: self.config.name.clone(),
            addr: self.config.advertise,
            data_port: self.config.data_port,
            version: self.outgoing.next(),
            start: self.start,
            returns: self.membership.us().generation as u32,
            count: 0,
            root: [0; 16],
            left,
            signature: [0; 64],
        };
        let cluster = *self.tables.cluster();
        let identity = &self.identity;
        self.tables.publish(head, |head| head.sign(&cluster, identity));
    }

    /// Publishes and pushes what changed since the last time.
    pub(super) fn push_changes(&mut self) {
        if self.left || (self.outgoing.changed.is_empty() && !self.outgoing.head_changed) {
            return;
        }
        let before = self.tables.complete(self.us);
        self.publish(false);
        let changed = std::mem::take(&mut self.outgoing.changed);
        self.outgoing.head_changed = false;
        self.changed.insert(self.us);
        let Some(own) = self.tables.get(self.us) else { return };
        let (head, records) = (own.head.clone(), own.part(changed.iter()));
        self.membership.spread(&head);
        let targets = self.targets(&[]);
        for section in pack(&head, before, records) {
            self.push(&targets, &section);
        }
    }

    pub(super) fn push_goodbye(&mut self) {
        let Some(own) = self.tables.get(self.us) else { return };
        let goodbye = Section { extent: Extent::Full, ..own.hint() };
        let targets = self.targets(&[]);
        // Twice, as there will be nobody to ask.
        self.push(&targets, &goodbye);
        self.push(&targets, &goodbye);
    }

    /// Everybody in a small cluster, some in a large one.
    fn targets(&mut self, except: &[NodeId]) -> Vec<NodeId> {
        let members = self.membership.active().map(|peer| peer.id).filter(|id| !except.contains(id));
        match self.membership.active_count() {
            0..=DIRECT_MEMBERS => members.collect(),
            _ => sample(&mut self.rng, members, FANOUT),
        }
    }

    fn push(&mut self, targets: &[NodeId], section: &Section) {
        for target in targets {
            self.send(*target, Message::Delta { more: false, sections: vec![section.clone()] });
        }
    }

    /// Tells a member that is new, or back, what this node's records are.
    pub(super) fn greet(&mut self, id: NodeId) {
        self.push_changes();
        if self.membership.active_count() > DIRECT_MEMBERS {
            return;
        }
        let Some(own) = self.tables.get(self.us) else { return };
        let whole = own.section(0);
        let section = if section_len(&whole) <= ROOM { whole } else { own.hint() };
        self.push(&[id], &section);
    }

    /// This node's head and, as far as it fits, its certificate.
    pub(super) fn introduction(&mut self) -> Section {
        self.push_changes();
        let own = self.tables.get(self.us).expect("this node's table is made with it");
        let certificate = RecordKey::new(CERTIFICATE);
        let section = Section { records: own.part(certificate.iter()), ..own.hint() };
        if section_len(&section) <= MAX_INTRODUCTION { section } else { own.hint() }
    }

    /// Somebody says of a member what that member's head, as far as it is here, does not: the head is fetched.
    pub(super) fn hear_claim(&mut self, claim: Claim) {
        let Claim { peer, incarnation, teller } = claim;
        if self.banned.contains(&peer.id) {
            return;
        }
        if self.claimed.len() < MAX_NODES || self.claimed.contains_key(&peer.id) {
            self.claimed.insert(peer.id, (peer, incarnation));
            self.want(peer.id, teller, SETTLE, Missing::Changes);
        }
    }

    /// Takes an origin for the member that its head shows, and for alive if somebody said so.
    fn prove(&mut self, origin: NodeId) {
        let Some(head) = self.tables.get(origin).map(|origin| &origin.head) else { return };
        let (signed, left) = (head.peer(), head.left);
        self.membership.prove(signed);
        let claimed = self.claimed.get(&origin).copied();
        if claimed.is_some_and(|(peer, _)| peer.generation <= signed.generation) {
            self.claimed.remove(&origin);
        }
        let incarnation = claimed.filter(|(peer, _)| *peer == signed).map(|(_, incarnation)| incarnation);
        let renewed = self
            .membership
            .find(origin)
            .is_some_and(|(peer, alive)| alive && peer.generation < signed.generation);
        if (renewed || incarnation.is_some()) && !left {
            self.welcome(origin, std::iter::once((signed, incarnation.unwrap_or(0))));
        }
    }

    /// A head that came with a membership packet, already verified.
    pub(super) fn hear_of(&mut self, head: Head, teller: NodeId) {
        let section = Section { head, extent: Extent::Part, records: Vec::new() };
        self.counters.verifications += 1;
        self.merge(teller, &section, Proof::Given);
    }

    pub(super) fn merge(&mut self, sender: NodeId, section: &Section, proof: Proof) -> Merged {
        let origin = section.head.origin();
        if origin == self.us {
            self.hear_of_ourselves(section);
            return Merged::default();
        }
        if self.banned.contains(&origin) {
            self.counters.banned += 1;
            return Merged::default();
        }
        if self.refuses_twin(&section.head) {
            let known = self.tables.get(origin).map_or(0, |origin| origin.head.version);
            self.membership.unlearn(origin, known);
            return Merged::default();
        }
        if self.tables.get(origin).is_none() && self.claimed.contains_key(&origin) {
            // Nodes that lose their disk at every start must not shut out new ones for good.
            let (us, membership) = (self.us, &self.membership);
            if let Some(dropped) = self.tables.make_room(|id| id != us && !membership.is_active(id)) {
                self.told.remove(&dropped);
                self.membership.remove(self.now, dropped);
            }
        }
        let merged = self.tables.merge(self.now, section, proof, &mut self.counters);
        if merged.clash {
            self.clash(origin);
        }
        if merged.changed {
            self.changed.insert(origin);
        }
        match merged.missing {
            Missing::Nothing => self.have(origin),
            missing => self.want(origin, sender, SETTLE, missing),
        }
        if merged.advanced {
            self.membership.known(origin, section.head.version);
            self.prove(origin);
            self.refresh(origin);
        }
        merged
    }

    /// Whatever others say of this node's records changes nothing; if it is signed by this node's key and unknown
    /// to it, somebody else holds that key.
    pub(super) fn hear_of_ourselves(&mut self, section: &Section) {
        let Some(own) = self.tables.get(self.us) else { return };
        let (ours, theirs) = (&own.head, &section.head);
        let older = ours.version > theirs.version && !ours.clashes_with(theirs);
        if older || ours == theirs {
            return;
        }
        self.counters.foreign_claims += 1;
        self.counters.verifications += 1;
        if section.head.verify(self.tables.cluster()) {
            self.clash(self.us);
            self.tell_twin(section.head.addr, section.head.start);
        } else {
            self.counters.bad_signature += 1;
        }
    }

    /// Passes news on, in clusters where its origin can't tell everybody.
    pub(super) fn relay(&mut self, sender: NodeId, section: &Section) {
        if self.membership.active_count() <= DIRECT_MEMBERS {
            return;
        }
        let origin = section.head.origin();
        let targets = self.targets(&[sender, origin]);
        if section_len(section) <= ROOM {
            self.push(&targets, section);
        } else {
            let hint = Section { extent: Extent::Part, records: Vec::new(), ..section.clone() };
            self.push(&targets, &hint);
        }
    }
}

/// Sections that carry `records` in datagrams; a single large record makes a section of its own; too many records
/// make one without any, which lets the members pull.
fn pack(head: &Head, before: u64, records: Vec<(RecordKey, Record)>) -> Vec<Section> {
    let mut parts: Vec<Vec<_>> = vec![Vec::new()];
    let mut len = 0;
    for (key, record) in records {
        let more = record.wire_len(&key);
        if len + more > ROOM - HEAD_MOST - 11 && len > 0 {
            parts.push(Vec::new());
            len = 0;
        }
        len += more;
        parts.last_mut().expect("there is always one").push((key, record));
    }
    let section = |extent, records| Section { head: head.clone(), extent, records };
    match parts.len() {
        1 => parts.into_iter().map(|records| section(Extent::Since(before), records)).collect(),
        2..=MAX_PUSH_DATAGRAMS => parts.into_iter().map(|records| section(Extent::Part, records)).collect(),
        _ => vec![section(Extent::Part, Vec::new())],
    }
}
