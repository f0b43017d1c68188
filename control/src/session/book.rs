//! Which nodes are peers, and whose every address and tunnel end is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::Sessions;
use super::limits::{JITTER, MAX_PEERS};
use super::mac;
use super::peer::PeerState;
use super::types::Peer;
use crate::model::NodeId;

impl Sessions {
    /// Takes a peer in, or what changed about it.
    ///
    /// A higher boot epoch, another static key or another tunnel end drops its sessions. Refused (`false`, counted)
    /// beyond [`MAX_PEERS`], for this node itself, and for a static key or a tunnel end that another peer has: then
    /// this peer is forgotten, and may be given again when the other one is gone.
    pub fn set_peer(&mut self, now: Instant, peer: Peer) -> bool {
        self.tick(now);
        if self.is_refused(&peer) {
            self.counters.peers_refused += 1;
            self.remove_peer(now, peer.id);
            return false;
        }
        let old = self.peers.get(&peer.id).map(|state| state.peer);
        if old.is_some_and(|old| old.static_public != peer.static_public) {
            self.remove_peer(now, peer.id);
        }
        if let Some(state) = self.peers.get_mut(&peer.id) {
            update(state, peer, self.now + self.rng.random_range(Duration::ZERO..JITTER));
        } else {
            let key = mac::mac1_key(&self.local.cluster_id, &peer.static_public);
            self.peers.insert(peer.id, PeerState::new(self.now, peer, key, self.rekey_after));
        }
        if old != Some(peer) {
            self.claim(old, peer);
            self.changed.insert(peer.id);
        }
        self.settle(peer.id);
        true
    }

    /// Forgets a peer and all keys shared with it: it was revoked, or left.
    pub fn remove_peer(&mut self, now: Instant, id: NodeId) {
        self.tick(now);
        let Some(state) = self.peers.remove(&id) else { return };
        for index in &state.indexed {
            self.indexes.remove(index);
        }
        state.due.map(|at| self.due.remove(&(at, id)));
        self.statics.remove(&state.peer.static_public);
        self.addresses.retain(|_, peer| *peer != id);
        self.changed.remove(&id);
        self.release(state.peer.vtep, id);
    }

    fn is_refused(&self, peer: &Peer) -> bool {
        let holders = [self.statics.get(&peer.static_public), self.vteps.get(&peer.vtep)];
        let taken = holders.into_iter().flatten().any(|id| *id != peer.id);
        let full = self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer.id);
        taken || full || peer.id == self.local.us || peer.static_public == self.public
    }

    /// Books a peer's key, addresses and tunnel end.
    fn claim(&mut self, old: Option<Peer>, peer: Peer) {
        self.statics.insert(peer.static_public, peer.id);
        if let Some(old) = old.filter(|old| old.gossip != peer.gossip) {
            self.addresses.retain(|address, id| *id != peer.id || *address != old.gossip);
        }
        self.addresses.insert(peer.gossip, peer.id);
        if let Some(old) = old.filter(|old| old.vtep != peer.vtep) {
            self.release(old.vtep, peer.id);
        }
        self.vteps.insert(peer.vtep, peer.id);
    }

    /// Gives up a tunnel end, if it is this peer's.
    fn release(&mut self, vtep: SocketAddr, id: NodeId) {
        if self.vteps.get(&vtep) == Some(&id) {
            self.vteps.remove(&vtep);
            self.gone.insert(vtep);
        }
    }
}

/// Takes in what a known peer announces; `restart` is when to begin anew if it lost its sessions.
fn update(state: &mut PeerState, peer: Peer, restart: Instant) {
    let old = state.peer;
    if old.gossip != peer.gossip {
        state.moved = None;
    }
    state.peer = Peer { boot_epoch: old.boot_epoch.max(peer.boot_epoch), ..peer };
    state.seen = state.seen.max((peer.boot_epoch, 0));
    if peer.boot_epoch > old.boot_epoch || peer.vtep != old.vtep {
        let again = state.wanted || !state.slots.is_empty();
        state.clear();
        if again {
            state.start_at(restart);
        }
    }
}
