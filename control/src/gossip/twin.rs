//! Two running processes with one identity: a state directory was copied, and both copies were started.
//!
//! As long as a node answers, nobody takes another start of it from another address for its next one. The node is told,
//! and tells that start so itself, by a word signed with the key that both have and bound to the random number of the
//! start that is meant, so that no word of an earlier one counts. Whoever has run for less time gives way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::membership::Peer;
use super::message::Message;
use super::record::{ClusterId, Head};
use super::table::{Extent, Section};
use super::wire::{Reader, Writer as _};
use super::{Gossip, GossipEvent};
use crate::identity::{Identity, verify};
use crate::model::NodeId;

/// A node is told of a twin, and a twin is answered, at most so often.
const TWIN_EVERY: Duration = Duration::from_millis(500);
/// Difference of uptimes that tells nothing, as words take their time.
const SLACK: Duration = Duration::from_secs(1);
/// Times that giving way is said, as nobody is there afterwards to say it again.
const GOODBYES: usize = 3;

/// What one process with an identity says to another one with the same.
///
/// ```text
/// start that is meant 8 | own start 8 | own boot epoch 4 | uptime 8 (ms) | gives way 1 | signature 64
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    to: [u8; 8],
    start: [u8; 8],
    boot_epoch: u32,
    uptime: u64,
    gives_way: bool,
    signature: [u8; 64],
}

impl Word {
    fn sign(mut self, cluster: &ClusterId, identity: &Identity) -> Self {
        self.signature = identity.sign(&self.signed_octets(cluster, identity.node_id()));
        self
    }

    fn is_by(&self, cluster: &ClusterId, identity: &Identity) -> bool {
        let octets = self.signed_octets(cluster, identity.node_id());
        verify(&identity.public_key(), &octets, &self.signature)
    }

    fn signed_octets(&self, cluster: &ClusterId, node: NodeId) -> Vec<u8> {
        let mut octets = b"weft twin 1".to_vec();
        octets.octets(cluster);
        octets.node(node);
        self.emit_unsigned(&mut octets);
        octets
    }

    fn emit_unsigned(&self, out: &mut Vec<u8>) {
        out.octets(&self.to);
        out.octets(&self.start);
        out.u32(self.boot_epoch);
        out.u64(self.uptime);
        out.flag(self.gives_way);
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        self.emit_unsigned(out);
        out.octets(&self.signature);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            to: reader.array()?,
            start: reader.array()?,
            boot_epoch: reader.u32()?,
            uptime: reader.u64()?,
            gives_way: reader.flag()?,
            signature: reader.array()?,
        })
    }
}

impl Gossip {
    /// Whether a head is of another start, elsewhere, of a member that answers: nothing of it is taken, and the member
    /// is told.
    pub(super) fn refuses_twin(&mut self, head: &Head) -> bool {
        let origin = head.origin();
        let Some(known) = self.tables.get(origin).map(|origin| &origin.head) else { return false };
        let later = head.boot_epoch() >= known.boot_epoch() && head.start != known.start && !head.left;
        if !later || head.addr == known.addr || !self.membership.is_active(origin) {
            return false;
        }
        self.counters.twins += 1;
        if self.twins.may_tell(self.now, origin, TWIN_EVERY) {
            self.counters.verifications += 1;
            if head.verify(self.tables.cluster()) {
                self.clash(origin);
                let hint = Section { head: head.clone(), extent: Extent::Part, records: Vec::new() };
                self.send(origin, Message::Delta { more: false, sections: vec![hint] });
            } else {
                self.counters.bad_signature += 1;
            }
        }
        true
    }

    /// Another start of this node is at that address, or was.
    pub(super) fn tell_twin(&mut self, at: SocketAddr, start: [u8; 8]) {
        if at != self.config.advertise && self.twins.may_tell(self.now, self.us, TWIN_EVERY) {
            self.say_to_twin(at, start, false);
        }
    }

    fn say_to_twin(&mut self, at: SocketAddr, to: [u8; 8], gives_way: bool) {
        let word = Word {
            to,
            start: self.start,
            boot_epoch: self.config.boot_epoch,
            uptime: u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX),
            gives_way,
            signature: [0; 64],
        };
        let word = word.sign(self.tables.cluster(), &self.identity);
        self.send_to_addr(at, Some(self.us), &Message::Twin(Box::new(word)));
    }

    pub(super) fn handle_twin(&mut self, from: SocketAddr, word: &Word) {
        if word.to != self.start || word.start == self.start {
            self.counters.misaddressed += 1;
            return;
        }
        self.counters.verifications += 1;
        if !word.is_by(self.tables.cluster(), &self.identity) {
            self.counters.bad_signature += 1;
        } else if word.gives_way {
            self.events.push_back(GossipEvent::TwinGone { boot_epoch: word.boot_epoch });
        } else if self.is_younger_than(word) {
            (0..GOODBYES).for_each(|_| self.say_to_twin(from, word.start, true));
            self.left = true;
            self.events.push_back(GossipEvent::TwinFirst { at: from });
        } else {
            self.tell_twin(from, word.start);
        }
    }

    fn is_younger_than(&self, word: &Word) -> bool {
        let (ours, theirs) = (self.uptime(), Duration::from_millis(word.uptime));
        if ours.abs_diff(theirs) > SLACK {
            return theirs > ours;
        }
        (self.config.boot_epoch, self.start) > (word.boot_epoch, word.start)
    }

    fn uptime(&self) -> Duration {
        self.now.saturating_duration_since(self.born)
    }

    /// Goes on as a later start than one that others may have taken for this node's newest.
    pub fn rise(&mut self, now: Instant, boot_epoch: u32) {
        self.tick(now);
        if boot_epoch <= self.config.boot_epoch || self.left {
            return;
        }
        self.config.boot_epoch = boot_epoch;
        self.outgoing.rise(boot_epoch);
        self.sign_anew();
        let us = self.membership.us();
        self.renew(Peer { generation: u64::from(boot_epoch) << 32, ..us });
    }
}
