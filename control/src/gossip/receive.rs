//! A message on its way in: opened, checked for whom and from when it is, then read.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::membership::Effects;
use super::message::{Envelope, Message};
use super::seal::{ContextId, Refusal};
use super::{Gossip, GossipEvent, Via};
use crate::model::NodeId;

/// A clash is told at most so often per node.
const CLASH_EVERY: Duration = Duration::from_secs(60);

impl Gossip {
    /// `true` if the message opened, whatever became of it then.
    pub(super) fn handle(&mut self, now: Instant, via: Via, from: SocketAddr, octets: &mut [u8]) -> bool {
        self.tick(now);
        if self.left {
            return false;
        }
        let len = octets.len() as u64;
        self.know_addresses();
        let opened = match self.seal.open(via, from, octets) {
            Ok(opened) => opened,
            Err(refusal) => {
                self.count_refusal(refusal);
                self.miss_epoch(from, refusal);
                return false;
            }
        };
        let (sender, context) = (opened.sender, opened.context);
        let Some((envelope, content)) = Envelope::parse(opened.body) else {
            self.counters.malformed += 1;
            return true;
        };
        let message = Message::parse(content);
        if !self.admits(sender, context, from, &envelope, message.as_ref()) {
            return true;
        }
        let Some(message) = message else {
            self.counters.malformed += 1;
            return true;
        };
        self.counters.received += 1;
        self.counters.bytes_received += len;
        self.dispatch(sender, via, from, &envelope, message);
        true
    }

    pub(super) fn count_refusal(&mut self, refusal: Refusal) {
        let counters = &mut self.counters;
        *match refusal {
            Refusal::Malformed => &mut counters.malformed_seal,
            Refusal::RateLimited => &mut counters.rate_limited,
            Refusal::Unauthentic => &mut counters.unauthentic,
            Refusal::Replayed => &mut counters.replayed,
            Refusal::Reflected => &mut counters.reflected,
            Refusal::UnknownEpoch(_) => &mut counters.unknown_epoch,
            Refusal::Banned => &mut counters.banned,
        } += 1;
    }

    /// Whether a message that opened is meant for this start of this node, and of its sender's newest start.
    pub(super) fn admits(
        &mut self,
        sender: NodeId,
        context: ContextId,
        from: SocketAddr,
        envelope: &Envelope,
        message: Option<&Message>,
    ) -> bool {
        let epoch = self.config.boot_epoch;
        if sender == self.us {
            self.counters.reflected += 1;
            match message.filter(|_| !self.seal.is_ours(context)) {
                Some(Message::Hello { section, .. }) => self.hear_of_ourselves(section),
                Some(Message::Twin(word)) => self.handle_twin(from, word),
                _ => {}
            }
            return false;
        }
        if envelope.to.is_some_and(|to| to != self.us)
            || (envelope.to_epoch != 0 && envelope.to_epoch < epoch)
        {
            self.counters.misaddressed += 1;
            return false;
        }
        let known = self.tables.get(sender).map_or(0, |origin| origin.head.boot_epoch());
        if envelope.from_epoch < known {
            self.counters.stale_boot += 1;
            self.seal.forget(context);
            self.show_head(from, sender);
            return false;
        }
        true
    }

    pub(super) fn dispatch(
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
        // Who has not proved itself can do so, and nothing else.
        let proves = matches!(message, Message::Delta { .. } | Message::Pull(_) | Message::Member(_));
        if !first_contact && !proves && self.membership.proven(sender).is_none() {
            self.counters.unproven += 1;
            return;
        }
        match message {
            Message::Member(packet) => self.handle_packet(&packet),
            Message::Hello { buried, reply, section } => {
                self.handle_hello(sender, via, from, buried, reply, &section);
            }
            Message::Suspicion(incarnation) => self.handle_suspicion(sender, incarnation),
            Message::Delta { more, sections } => self.handle_delta(sender, more, sections),
            Message::Digest { tables, roster } => self.handle_digest(sender, tables, roster),
            Message::Buckets(hashes) => self.handle_buckets(sender, &hashes),
            Message::Summaries { buckets, entries } => self.handle_summaries(sender, buckets, &entries),
            Message::Pull(wanted) => self.handle_pull(sender, &wanted),
            Message::Roster { reply, entries } => self.handle_roster(sender, reply, &entries),
            Message::Rpc(call) => self.handle_rpc(sender, *call),
            // A twin is no other sender.
            Message::Twin(_) => self.counters.malformed += 1,
        }
    }

    pub(super) fn handle_packet(&mut self, packet: &[u8]) {
        let mut effects = Effects::default();
        if !self.membership.handle_packet(self.now, packet, &mut effects) {
            self.counters.membership_refused += 1;
        }
        self.absorb(effects);
    }

    pub(super) fn handle_suspicion(&mut self, accuser: NodeId, incarnation: u16) {
        let Some((accuser, true)) = self.membership.find(accuser) else { return };
        let mut effects = Effects::default();
        self.membership.refute(self.now, incarnation, accuser, &mut effects);
        self.absorb(effects);
    }

    pub(super) fn clash(&mut self, id: NodeId) {
        if self.clashes.may_tell(self.now, id, CLASH_EVERY) {
            self.events.push_back(GossipEvent::IdentityClash(id));
        }
    }
}
