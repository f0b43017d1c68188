//! Calls between nodes, signed by who calls: the seal shows only that a member sent one.
//!
//! ```text
//! start of the receiver 8 | start of the sender 8 | number 8 | body | signature 64
//! ```
//! The signature is over the label "weft call 1", the cluster, both nodes and all before it. Both starts are the random
//! numbers in the heads of the nodes, and no number of one pair of starts counts twice: what is recorded of a call cannot
//! be used again, nor with anybody else.

use std::collections::BTreeMap;

use super::limits::{MAX_NODES, MAX_RPC, MAX_RPC_QUEUE};
use super::record::ClusterId;
use super::window::Window;
use super::wire::{Reader, Writer as _};
use super::{Gossip, GossipEvent, Message};
use crate::identity::{Identity, verify};
use crate::model::NodeId;

const SIGNATURE: usize = 64;
/// Octets that are added to a body.
pub(crate) const OVERHEAD: usize = 8 + 8 + 8 + SIGNATURE;

/// A call as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(super) to_start: [u8; 8],
    pub(super) from_start: [u8; 8],
    pub(super) number: u64,
    pub(super) body: Vec<u8>,
    pub(super) signature: [u8; SIGNATURE],
}

/// Calls made and taken.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Number of the last call made.
    last: u64,
    /// Which calls of a node's start were taken.
    taken: BTreeMap<NodeId, ([u8; 8], Window)>,
}

impl Call {
    pub(super) fn sign(mut self, cluster: &ClusterId, from: &Identity, to: NodeId) -> Self {
        self.signature = from.sign(&self.signed_octets(cluster, from.node_id(), to));
        self
    }

    fn signed_octets(&self, cluster: &ClusterId, from: NodeId, to: NodeId) -> Vec<u8> {
        let mut octets = b"weft call 1".to_vec();
        octets.octets(cluster);
        octets.node(from);
        octets.node(to);
        self.emit_unsigned(&mut octets);
        octets
    }

    fn emit_unsigned(&self, out: &mut Vec<u8>) {
        out.octets(&self.to_start);
        out.octets(&self.from_start);
        out.u64(self.number);
        out.octets(&self.body);
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        self.emit_unsigned(out);
        out.octets(&self.signature);
    }

    /// Reads a call that takes up all of `octets`.
    pub(crate) fn parse(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        let (to_start, from_start, number) = (reader.array()?, reader.array()?, reader.u64()?);
        let (body, signature) = reader.rest().split_last_chunk()?;
        let fits = body.len() <= MAX_RPC;
        fits.then(|| Self { to_start, from_start, number, body: body.to_vec(), signature: *signature })
    }
}

impl Calls {
    fn window(&mut self, from: NodeId, start: [u8; 8]) -> &mut Window {
        if self.taken.len() >= MAX_NODES && !self.taken.contains_key(&from) {
            // Of whom nothing was heard for long nobody can tell; any will do.
            self.taken.pop_first();
        }
        let taken = self.taken.entry(from).or_insert_with(|| (start, Window::default()));
        if taken.0 != start {
            *taken = (start, Window::default());
        }
        &mut taken.1
    }
}

impl Gossip {
    /// Sends `body`, at most [`MAX_RPC`] octets, to a member; `false` if it is too long or nothing is known of `to`.
    ///
    /// Unreliable: it may be lost, or come twice.
    pub fn send_rpc(&mut self, now: std::time::Instant, to: NodeId, body: Vec<u8>) -> bool {
        self.tick(now);
        let call = Some(body).filter(|body| body.len() <= MAX_RPC && to != self.us && !self.left);
        let call = call.and_then(|body| self.call(to, body));
        let sends = call.is_some();
        if let Some(call) = call {
            self.send(to, Message::Rpc(Box::new(call)));
        }
        sends
    }

    pub(super) fn call(&mut self, to: NodeId, body: Vec<u8>) -> Option<Call> {
        let to_start = self.tables.get(to).map(|origin| origin.head.start)?;
        self.calls.last += 1;
        let (from_start, number) = (self.start, self.calls.last);
        let call = Call { to_start, from_start, number, body, signature: [0; SIGNATURE] };
        Some(call.sign(self.tables.cluster(), &self.identity, to))
    }

    pub(super) fn handle_rpc(&mut self, from: NodeId, call: Call) {
        let Some(head) = self.tables.get(from).map(|origin| &origin.head) else { return };
        if (call.to_start, call.from_start) != (self.start, head.start) {
            self.counters.misaddressed += 1;
            return;
        }
        if !self.calls.window(from, call.from_start).is_new(call.number) {
            self.counters.replayed += 1;
            return;
        }
        if self.rpc_waiting >= MAX_RPC_QUEUE {
            self.counters.rpc_dropped += 1;
            return;
        }
        self.counters.verifications += 1;
        let signed = call.signed_octets(self.tables.cluster(), from, self.us);
        if !verify(&head.public_key, &signed, &call.signature) {
            self.counters.bad_signature += 1;
            return;
        }
        self.calls.window(from, call.from_start).note(call.number);
        self.rpc_waiting += 1;
        self.events.push_back(GossipEvent::Rpc { from, body: call.body });
    }
}
