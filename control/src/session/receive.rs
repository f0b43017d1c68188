//! What comes in: nothing is believed before it proved itself, and the cheapest proof comes first.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::handshake::{self, Secrets};
use super::limits::CROSSING;
use super::mac;
use super::slots::{Role, Session, Unconfirmed};
use super::types::SessionEvent;
use super::wire::{self, Answer, Datagram, HEADER, Hello, TAG};
use super::{Counters, Sessions};
use crate::model::NodeId;

/// Sessions of one age are not all replaced at once.
const REKEY_JITTER: Duration = Duration::from_secs(2);

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    BadMac,
    RateLimited,
    Unauthentic,
    UnknownPeer,
    Replayed,
    UnknownEpoch,
    UnknownIndex,
    Crossed,
}

impl Counters {
    fn refuse(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::Malformed => &mut self.malformed,
            Refusal::BadMac => &mut self.bad_mac,
            Refusal::RateLimited => &mut self.rate_limited,
            Refusal::Unauthentic => &mut self.unauthentic,
            Refusal::UnknownPeer => &mut self.unknown_peer,
            Refusal::Replayed => &mut self.replayed,
            Refusal::UnknownEpoch => &mut self.unknown_epoch,
            Refusal::UnknownIndex => &mut self.unknown_index,
            Refusal::Crossed => &mut self.crossed,
        } += 1;
    }
}

impl Sessions {
    /// Hands over one datagram, whose first octet [`super::is_session`].
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.tick(now);
        let handled = match wire::parse(datagram) {
            Some(Datagram::Initiation { index, epoch, header, noise }) => {
                self.handle_initiation(from, datagram, (index, epoch), header, noise)
            }
            Some(Datagram::Response { index, noise, mac1 }) => {
                self.handle_response(from, datagram, index, noise, mac1)
            }
            Some(Datagram::Cookie { index, nonce, sealed }) => self.handle_cookie(index, &nonce, sealed),
            Some(Datagram::Confirmation { index, mac }) => self.handle_confirmation(datagram, index, mac),
            None => Err(Refusal::Malformed),
        };
        if let Err(refusal) = handled {
            self.counters.refuse(refusal);
        }
    }

    fn handle_initiation(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        (index, epoch): (u32, u32),
        header: &[u8],
        noise: &[u8],
    ) -> Result<(), Refusal> {
        self.admit(from, datagram, index)?;
        let (responder, public, hello) = handshake::read(&self.local, self.ratchet.draw(), header, noise)
            .map_err(|_| Refusal::Unauthentic)?;
        let id = *self.statics.get(&public).ok_or(Refusal::UnknownPeer)?;
        self.judge(id, &public, &hello, epoch)?;
        let root = self.ring.get(&epoch).ok_or(Refusal::UnknownEpoch)?;
        let psk = self.local.psk(root, id);
        let receive = self.new_index();
        let peer = self.peers.get_mut(&id).ok_or(Refusal::UnknownPeer)?;
        let answer = Answer {
            boot_epoch: self.boot_epoch,
            counter: self.counter,
            data_port: self.data_port,
            index: receive,
            sending_on: peer.slots.sending().map_or(0, |session| session.send),
        };
        let (mut response, secrets) = responder
            .answer(&psk, &wire::response_header(index), &answer)
            .map_err(|_| Refusal::Unauthentic)?;
        response.extend_from_slice(&mac::mac(&peer.mac1_key, &response));
        let role = Role::Responder(Unconfirmed::new(self.now, from, response.clone(), hello.data_port));
        let session = session(self.now, (receive, index), epoch, secrets, role);
        peer.slots.add_written(self.now, session, hello.sending_on);
        peer.start = None;
        peer.jitter = self.rng.random_range(Duration::ZERO..REKEY_JITTER);
        self.counters.responses_sent += 1;
        self.counters.handshakes += 1;
        self.changed.insert(id);
        self.settle(id);
        self.transmit(from, response);
        Ok(())
    }

    /// Whether an initiation may cost curve operations: mac1 always, an address that is proven when there is much.
    fn admit(&mut self, from: SocketAddr, datagram: &[u8], index: u32) -> Result<(), Refusal> {
        let (before2, mac2) = datagram.split_at(datagram.len() - TAG);
        let (before1, mac1) = before2.split_at(before2.len() - TAG);
        if !mac::holds(&self.mac1_key, before1, mac1) {
            return Err(Refusal::BadMac);
        }
        let proven = mac2 != [0; TAG] && {
            let cookie = self.jar.cookie(self.now, from, &mut self.ratchet);
            mac::holds(&cookie, before2, mac2)
        };
        if proven {
            let known = self.addresses.get(&from).and_then(|id| self.peers.get_mut(id));
            let bucket = known.map_or(&mut self.strangers, |peer| &mut peer.proven);
            return if bucket.take(self.now) { Ok(()) } else { Err(Refusal::RateLimited) };
        }
        if self.unproven.take(self.now) {
            return Ok(());
        }
        let (nonce, cookie) = (self.rng.random(), self.jar.cookie(self.now, from, &mut self.ratchet));
        let sealed = mac::seal_cookie(&self.public, &nonce, mac1, cookie);
        self.counters.cookies_sent += 1;
        self.transmit(from, wire::cookie_reply(index, &nonce, &sealed));
        Err(Refusal::RateLimited)
    }

    /// Whether an authentic initiation is to be answered. It can't come again, whatever becomes of it.
    fn judge(&mut self, id: NodeId, public: &[u8; 32], hello: &Hello, epoch: u32) -> Result<(), Refusal> {
        let (now, outranked) = (self.now, self.public < *public);
        let peer = self.peers.get_mut(&id).ok_or(Refusal::UnknownPeer)?;
        if (hello.boot_epoch, hello.counter) <= peer.seen {
            return Err(Refusal::Replayed);
        }
        peer.seen = (hello.boot_epoch, hello.counter);
        if hello.boot_epoch > peer.peer.boot_epoch {
            self.restarted(id, hello.boot_epoch);
        }
        let peer = self.peers.get_mut(&id).ok_or(Refusal::UnknownPeer)?;
        if !peer.authentic.take(now) {
            return Err(Refusal::RateLimited);
        }
        if !self.ring.contains_key(&epoch) {
            self.hint(SessionEvent::RingWanted { from: id, epoch });
            return Err(Refusal::UnknownEpoch);
        }
        match &peer.attempt {
            Some(attempt) if outranked && now < attempt.sent + CROSSING => return Err(Refusal::Crossed),
            // A stale one may still be answered: only the peer's own goes on if it outranks ours.
            Some(_) if !outranked => peer.attempt = None,
            _ => {}
        }
        Ok(())
    }

    /// A peer lost all its sessions.
    fn restarted(&mut self, id: NodeId, boot_epoch: u32) {
        let at = self.now + self.rng.random_range(CROSSING..CROSSING * 2);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let again = peer.wanted || !peer.slots.is_empty();
        peer.clear();
        peer.peer.boot_epoch = boot_epoch;
        if again {
            // In case that this initiation comes to nothing.
            peer.start_at(at);
        }
        self.changed.insert(id);
        self.settle(id);
    }

    fn handle_response(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        index: u32,
        noise: &[u8],
        mac1: &[u8],
    ) -> Result<(), Refusal> {
        let id = *self.indexes.get(&index).ok_or(Refusal::UnknownIndex)?;
        if !mac::holds(&self.mac1_key, &datagram[..datagram.len() - TAG], mac1) {
            return Err(Refusal::BadMac);
        }
        let now = self.now;
        let peer = self.peers.get_mut(&id).ok_or(Refusal::UnknownIndex)?;
        if !peer.responses.take(now) {
            return Err(Refusal::RateLimited);
        }
        let Some(attempt) = peer.attempt.as_mut().filter(|attempt| attempt.index == index) else {
            return self.repeat_confirmation(id, from, index, mac1);
        };
        let (answer, secrets) = attempt.exchange.finish(noise).map_err(|_| Refusal::Unauthentic)?;
        let Some(attempt) = peer.attempt.take() else { return Err(Refusal::UnknownIndex) };
        if answer.boot_epoch > peer.peer.boot_epoch {
            peer.clear();
            peer.peer.boot_epoch = answer.boot_epoch;
        }
        peer.seen = peer.seen.max((answer.boot_epoch, answer.counter));
        let confirmation = confirmation(answer.index, &*secrets.confirm);
        let mut copied = [0; TAG];
        copied.copy_from_slice(mac1);
        let role = Role::Initiator { mac1: copied };
        let session = session(now, (index, answer.index), attempt.epoch, secrets, role);
        peer.slots.add_read(now, session, answer.sending_on);
        (peer.start, peer.tries) = (None, 0);
        peer.jitter = self.rng.random_range(Duration::ZERO..REKEY_JITTER);
        self.counters.handshakes += 1;
        self.counters.confirmations_sent += 1;
        self.changed.insert(id);
        self.settle(id);
        self.transmit(from, confirmation);
        self.proven_at(id, from, answer.data_port);
        Ok(())
    }

    /// The responder sent its response again: our confirmation was lost.
    fn repeat_confirmation(
        &mut self,
        id: NodeId,
        from: SocketAddr,
        index: u32,
        mac1: &[u8],
    ) -> Result<(), Refusal> {
        let session =
            self.peers.get(&id).and_then(|peer| peer.slots.get(index)).ok_or(Refusal::UnknownIndex)?;
        match &session.role {
            Role::Initiator { mac1: read } if read == mac1 => {
                let confirmation = confirmation(session.send, &*session.confirm);
                self.counters.confirmations_repeated += 1;
                self.transmit(from, confirmation);
                Ok(())
            }
            _ => Err(Refusal::Unauthentic),
        }
    }

    fn handle_cookie(&mut self, index: u32, nonce: &[u8; TAG], sealed: &[u8]) -> Result<(), Refusal> {
        let id = self.indexes.get(&index).ok_or(Refusal::UnknownIndex)?;
        let peer = self.peers.get_mut(id).ok_or(Refusal::UnknownIndex)?;
        let attempt = peer.attempt.as_mut().filter(|attempt| attempt.index == index);
        let attempt = attempt.ok_or(Refusal::UnknownIndex)?;
        let mac1 = &attempt.datagram[attempt.datagram.len() - TAG..];
        let cookie = mac::open_cookie(&peer.peer.static_public, nonce, mac1, sealed);
        let cookie = cookie.ok_or(Refusal::Unauthentic)?;
        self.counters.cookies_used += 1;
        if std::mem::replace(&mut attempt.repeated, true) {
            peer.cookie = Some((self.now, cookie));
            return Ok(());
        }
        let (to, mut datagram) = (attempt.to, attempt.datagram.clone());
        datagram.extend_from_slice(&mac::mac(&cookie, &datagram));
        peer.cookie = Some((self.now, cookie));
        self.transmit(to, datagram);
        Ok(())
    }

    fn handle_confirmation(&mut self, datagram: &[u8], index: u32, mac: &[u8]) -> Result<(), Refusal> {
        let id = *self.indexes.get(&index).ok_or(Refusal::UnknownIndex)?;
        let session =
            self.peers.get(&id).and_then(|peer| peer.slots.get(index)).ok_or(Refusal::UnknownIndex)?;
        if !mac::holds(&*session.confirm, &datagram[..HEADER], mac) {
            return Err(Refusal::Unauthentic);
        }
        match session.role {
            Role::Responder(_) => self.confirm(id, index),
            Role::Confirmed => self.counters.confirmed_again += 1,
            Role::Initiator { .. } => return Err(Refusal::Unauthentic),
        }
        Ok(())
    }

    /// The peer was heard on a session of ours.
    pub(super) fn confirm(&mut self, id: NodeId, index: u32) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(unconfirmed) = peer.slots.confirm(self.now, index) {
            (peer.tries, peer.start) = (0, None);
            self.counters.confirmed += 1;
            self.changed.insert(id);
            self.proven_at(id, unconfirmed.to, unconfirmed.data_port);
        }
        self.settle(id);
    }

    /// A handshake went both ways between us and `address`.
    fn proven_at(&mut self, id: NodeId, address: SocketAddr, data_port: u16) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.moved.unwrap_or(peer.peer.gossip) == address {
            return;
        }
        if let Some(old) = peer.moved.take() {
            self.addresses.remove(&old);
        }
        peer.moved = Some(address).filter(|address| *address != peer.peer.gossip);
        self.addresses.entry(address).or_insert(id);
        self.hint(SessionEvent::PeerMoved { id, to: address, data_port });
    }
}

/// A session of `(ours, theirs)` indexes.
fn session(now: Instant, (receive, send): (u32, u32), epoch: u32, secrets: Secrets, role: Role) -> Session {
    let Secrets { send: send_key, receive: receive_key, confirm } = secrets;
    Session { receive, send, send_key, receive_key, confirm, epoch, since: now, role }
}

fn confirmation(index: u32, key: &[u8]) -> Vec<u8> {
    let header = wire::confirmation_header(index);
    [&header[..], &mac::mac(key, &header)].concat()
}
