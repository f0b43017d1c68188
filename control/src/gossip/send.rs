//! A message on its way out: addressed, sealed, queued within bounds.

use std::net::SocketAddr;

use super::membership::Peer;
use super::message::{Envelope, Message};
use super::{Gossip, MAX_DATAGRAM, Transmit, Via, limits, seal};
use crate::model::NodeId;

impl Gossip {
    pub(super) fn addr_of(&self, id: NodeId) -> Option<SocketAddr> {
        let member = self.membership.find(id).map(|(peer, _)| peer.addr);
        let signed = || self.tables.get(id).map(|origin| origin.head.addr);
        member.or_else(signed).or_else(|| self.claimed.get(&id).map(|(peer, _)| peer.addr))
    }

    /// The member's start that messages are meant for; zero if unknown.
    pub(super) fn epoch_of(&self, id: NodeId) -> u32 {
        let peer = self.membership.find(id).map_or(0, |(peer, _)| peer.boot_epoch());
        peer.max(self.tables.get(id).map_or(0, |origin| origin.head.boot_epoch()))
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let Some(addr) = self.addr_of(to) else { return };
        let body = self.envelope(to).emit(&message);
        self.enqueue(addr, &body);
    }

    pub(super) fn envelope(&self, to: NodeId) -> Envelope {
        Envelope { to: Some(to), to_epoch: self.epoch_of(to), from_epoch: self.config.boot_epoch }
    }

    /// Sends to a member where it says it is, whatever the engine was told.
    pub(super) fn send_to_peer(&mut self, peer: Peer, message: Message) {
        let Some(signed) = self.membership.proven(peer.id) else { return };
        let from_epoch = self.config.boot_epoch;
        let envelope = Envelope { to: Some(peer.id), to_epoch: peer.boot_epoch(), from_epoch };
        self.enqueue(signed.addr, &envelope.emit(&message));
    }

    pub(super) fn send_to_addr(&mut self, addr: SocketAddr, to: Option<NodeId>, message: &Message) {
        let envelope = Envelope { to, to_epoch: 0, from_epoch: self.config.boot_epoch };
        self.enqueue(addr, &envelope.emit(message));
    }

    pub(super) fn enqueue(&mut self, to: SocketAddr, body: &[u8]) {
        let via = if body.len() + seal::OVERHEAD <= MAX_DATAGRAM { Via::Datagram } else { Via::Stream };
        let bytes = self.seal.seal(self.now, via, body);
        let (messages, octets) = match via {
            Via::Datagram => (&mut self.counters.datagrams_sent, &mut self.counters.datagram_bytes_sent),
            Via::Stream => (&mut self.counters.streams_sent, &mut self.counters.stream_bytes_sent),
        };
        *messages += 1;
        *octets += bytes.len() as u64;
        self.outbox_bytes += bytes.len();
        self.outbox.push_back(Transmit { to, via, bytes });
        while self.outbox.len() > limits::MAX_OUTBOX || self.outbox_bytes > limits::MAX_OUTBOX_BYTES {
            let Some(dropped) = self.outbox.pop_front() else { break };
            self.outbox_bytes -= dropped.bytes.len();
            self.counters.outbox_dropped += 1;
        }
    }
}
