//! What sessions do by themselves: start handshakes, repeat them, end what is old.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::handshake;
use super::limits::JITTER;
use super::mac;
use super::peer::{Attempt, Need};
use super::wire::{Hello, TAG, initiation_header};
use super::{PeerState, Sessions};
use crate::model::NodeId;

/// Waits for a ring key before a handshake is tried again.
const NO_RING: Duration = Duration::from_secs(1);

impl Sessions {
    /// Runs whatever is due; call at [`Sessions::poll_timeout`], early or late does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        let due: Vec<NodeId> =
            self.due.iter().take_while(|(at, _)| *at <= self.now).map(|(_, id)| *id).collect();
        for id in due {
            self.step(id);
            self.settle(id);
        }
    }

    fn step(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.slots.retire(self.now) {
            self.changed.insert(id);
        }
        if let Some((to, response)) = peer.slots.resend(self.now) {
            self.counters.responses_repeated += 1;
            self.transmit(to, response);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match peer.need(self.now) {
            Need::Start => self.start(id),
            Need::GiveUp => {
                self.counters.given_up += 1;
                peer.attempt = None;
                peer.start = None;
                peer.tries = 0;
            }
            Need::Wipe => {
                peer.clear();
                self.changed.insert(id);
            }
            Need::Quiet => {
                peer.slots.quiet();
                self.changed.insert(id);
            }
            Need::Nothing => {}
        }
    }

    /// Sends an initiation, unless too many were sent or there is no ring key.
    fn start(&mut self, id: NodeId) {
        let now = self.now;
        let root = self.active.and_then(|epoch| Some((epoch, self.ring.get(&epoch)?.clone())));
        let Some((epoch, root)) = root else { return self.postpone(id, now + NO_RING) };
        if !self.starts.take(now) {
            return self.postpone(id, self.starts.next());
        }
        let index = self.new_index();
        let jitter = self.rng.random_range(Duration::ZERO..JITTER);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.counter += 1;
        let hello = Hello {
            boot_epoch: self.boot_epoch,
            counter: self.counter,
            data_port: self.data_port,
            sending_on: peer.slots.sending().map_or(0, |session| session.send),
        };
        let psk = self.local.psk(&root, id);
        let (public, header) = (peer.peer.static_public, initiation_header(index, epoch));
        let Ok((exchange, mut datagram)) =
            handshake::initiate(&self.local, &public, &psk, self.ratchet.draw(), &header, &hello)
        else {
            return abandon(peer, &mut self.counters.unauthentic);
        };
        mac::append_macs(&mut datagram, &peer.mac1_key, peer.cookie(now));
        let to = peer.address();
        peer.tries = peer.tries.saturating_add(1);
        peer.start = None;
        peer.attempt = Some(Attempt {
            index,
            epoch,
            to,
            exchange,
            datagram: datagram[..datagram.len() - TAG].to_vec(),
            sent: now,
            retry: now + peer.backoff() + jitter,
            repeated: peer.cookie(now).is_some(),
        });
        self.counters.initiations_sent += 1;
        self.transmit(to, datagram);
    }

    /// Tries again at `until` or a bit later: not all that wait at once.
    fn postpone(&mut self, id: NodeId, until: Instant) {
        let until = until + self.rng.random_range(Duration::ZERO..JITTER);
        if let Some(peer) = self.peers.get_mut(&id) {
            match &mut peer.attempt {
                Some(attempt) => attempt.retry = until,
                None => peer.postpone(until),
            }
        }
    }
}

/// The peer's static key is of small order: no handshake with it can ever succeed.
fn abandon(peer: &mut PeerState, counter: &mut u64) {
    *counter += 1;
    peer.attempt = None;
    peer.start = None;
    peer.wanted = false;
}
