//! The sessions with one peer: previous, current and next, so that no packet meets a key that is not there.
//!
//! Two rules carry the promise. A session is sent on only when the peer is known to hold it: at once by the end
//! that read the response, by the other end when something of the peer came on it. And both handshake messages
//! tell which session their writer sends on, so that the one the peer still uses is never the one to go.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_dataplane::seal::{Key, PeerSpec, ReceiveSession, SendSession};
use zeroize::Zeroizing;

use super::limits::{RESEND, RETIRE_AFTER};
use super::wire::TAG;

const MAX_SESSIONS: usize = 3;

/// One session. Indexes are never 0.
pub(crate) struct Session {
    /// Our choice, in datagrams to us.
    pub(crate) receive: u32,
    /// The peer's choice, in datagrams to it.
    pub(crate) send: u32,
    pub(crate) send_key: Key,
    pub(crate) receive_key: Key,
    pub(crate) confirm: Zeroizing<[u8; 32]>,
    pub(crate) epoch: u32,
    pub(crate) since: Instant,
    pub(crate) role: Role,
}

/// Which end made a session, and what it may have to say again.
pub(crate) enum Role {
    /// We read this response; its copies are answered by another confirmation.
    Initiator { mac1: [u8; TAG] },
    /// We wrote the response.
    Responder(Box<Unconfirmed>),
    /// We wrote the response, and the initiator showed that it has read it.
    Confirmed,
}

/// A response that nothing confirmed yet.
pub(crate) struct Unconfirmed {
    pub(crate) to: SocketAddr,
    pub(crate) response: Vec<u8>,
    pub(crate) data_port: u16,
    pub(crate) sent: usize,
    /// When to send it again; `None` once it was sent often enough.
    pub(crate) again: Option<Instant>,
}

impl Unconfirmed {
    pub(crate) fn new(now: Instant, to: SocketAddr, response: Vec<u8>, data_port: u16) -> Box<Self> {
        Box::new(Self { to, response, data_port, sent: 0, again: Some(now + Duration::from_secs(RESEND[0])) })
    }
}

/// All sessions with a peer, oldest first.
#[derive(Default)]
pub(crate) struct Slots {
    sessions: Vec<Session>,
    /// Receive index of the one we send on.
    sending: Option<u32>,
    /// Receive index of the one the peer was last known to send on.
    heard: Option<u32>,
    /// When the ones older than `heard` go.
    retire: Option<Instant>,
}

impl Slots {
    /// Takes in a session whose response we read: we send on it from now on.
    pub(crate) fn add_read(&mut self, now: Instant, session: Session, peer_sends_on: u32) {
        self.confirm(now, peer_sends_on);
        self.note_sends_on(peer_sends_on);
        self.sending = Some(session.receive);
        self.push(session);
    }

    /// Takes in a session whose response we wrote. The initiation shows what became of earlier ones.
    pub(crate) fn add_written(&mut self, now: Instant, session: Session, peer_sends_on: u32) {
        self.confirm(now, peer_sends_on);
        self.note_sends_on(peer_sends_on);
        self.sessions.retain(|session| !matches!(session.role, Role::Responder(_)));
        self.push(session);
    }

    /// Something of the peer came on `index`; gives what waited for that.
    pub(crate) fn confirm(&mut self, now: Instant, index: u32) -> Option<Box<Unconfirmed>> {
        let at = self.place(index)?;
        if self.heard.and_then(|heard| self.place(heard)).is_none_or(|heard| heard < at) {
            self.heard = Some(index);
            self.retire = (at > 0).then_some(now + RETIRE_AFTER);
        }
        let session = self.sessions.get_mut(at)?;
        if !matches!(session.role, Role::Responder(_)) {
            return None;
        }
        let Role::Responder(unconfirmed) = std::mem::replace(&mut session.role, Role::Confirmed) else {
            return None;
        };
        if self.sending.and_then(|sending| self.place(sending)).is_none_or(|sending| sending < at) {
            self.sending = Some(index);
        }
        Some(unconfirmed)
    }

    /// Drops what is older than what the peer uses, once it is time; whether anything went.
    pub(crate) fn retire(&mut self, now: Instant) -> bool {
        if self.retire.is_none_or(|at| now < at) {
            return false;
        }
        self.retire = None;
        let before = self.sessions.len();
        let heard = self.heard.and_then(|heard| self.place(heard)).unwrap_or(0);
        let mut at = 0;
        let sending = self.sending;
        self.sessions.retain(|session| {
            at += 1;
            at > heard || sending == Some(session.receive)
        });
        before != self.sessions.len()
    }

    /// Sends on none of them any more.
    pub(crate) fn quiet(&mut self) {
        self.sending = None;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Session> {
        self.sessions.iter().find(|session| session.receive == index)
    }

    /// The one we send on.
    pub(crate) fn sending(&self) -> Option<&Session> {
        self.sending.and_then(|index| self.get(index))
    }

    /// Receive indexes.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> {
        self.sessions.iter().map(|session| session.receive)
    }

    /// When the newest was made.
    pub(crate) fn newest(&self) -> Option<Instant> {
        self.sessions.last().map(|session| session.since)
    }

    /// The response that still waits for its confirmation.
    pub(crate) fn unconfirmed(&self) -> Option<&Unconfirmed> {
        self.sessions.iter().find_map(|session| match &session.role {
            Role::Responder(unconfirmed) => Some(&**unconfirmed),
            _ => None,
        })
    }

    /// The response to send again, if it is time.
    pub(crate) fn resend(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let unconfirmed = self.sessions.iter_mut().find_map(|session| match &mut session.role {
            Role::Responder(unconfirmed) => Some(unconfirmed),
            _ => None,
        })?;
        if unconfirmed.again.is_none_or(|at| now < at) {
            return None;
        }
        unconfirmed.sent += 1;
        unconfirmed.again = RESEND.get(unconfirmed.sent).map(|wait| now + Duration::from_secs(*wait));
        Some((unconfirmed.to, unconfirmed.response.clone()))
    }

    pub(crate) fn retire_at(&self) -> Option<Instant> {
        self.retire
    }

    /// What the dataplane is told.
    pub(crate) fn spec(&self, vtep: SocketAddr) -> PeerSpec {
        let send = self.sending().map(|s| SendSession { index: s.send, key: s.send_key.clone() });
        let receive = |s: &Session| ReceiveSession { index: s.receive, key: s.receive_key.clone() };
        PeerSpec { vtep, send, receive: self.sessions.iter().map(receive).collect() }
    }

    fn note_sends_on(&mut self, index: u32) {
        if self.place(index).is_some() {
            self.heard = Some(index);
        }
    }

    fn push(&mut self, session: Session) {
        self.sessions.push(session);
        while self.sessions.len() > MAX_SESSIONS {
            let newest = self.sessions.len() - 1;
            let kept = [self.sending, self.heard];
            let spare = self.sessions[..newest].iter().position(|s| !kept.contains(&Some(s.receive)));
            self.sessions.remove(spare.unwrap_or(0));
        }
    }

    fn place(&self, index: u32) -> Option<usize> {
        self.sessions.iter().position(|session| session.receive == index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(now: Instant, index: u32) -> Session {
        let key = || Key::new([index as u8; 32]);
        Session {
            receive: index,
            send: index + 100,
            send_key: key(),
            receive_key: key(),
            confirm: Zeroizing::new([0; 32]),
            epoch: 1,
            since: now,
            role: Role::Initiator { mac1: [0; TAG] },
        }
    }

    fn written(now: Instant, index: u32) -> Session {
        let nowhere = SocketAddr::from(([0; 4], 0));
        Session { role: Role::Responder(Unconfirmed::new(now, nowhere, Vec::new(), 0)), ..read(now, index) }
    }

    fn indexes(slots: &Slots) -> Vec<u32> {
        slots.indexes().collect()
    }

    #[test]
    fn session_the_peer_still_sends_on_stays_however_many_follow() {
        let now = crate::gossip::testing::start();
        let mut slots = Slots::default();
        slots.add_read(now, read(now, 1), 0);
        slots.confirm(now, 1);
        for index in 2..10 {
            slots.add_read(now, read(now, index), 1);
        }
        assert_eq!(indexes(&slots), [1, 8, 9]);
        assert_eq!(slots.sending().map(|session| session.receive), Some(9));
    }

    #[test]
    fn unconfirmed_session_gives_way_to_the_next_initiation_unless_that_is_sent_on_it() {
        let now = crate::gossip::testing::start();
        let mut slots = Slots::default();
        slots.add_read(now, read(now, 1), 0);
        slots.add_written(now, written(now, 2), 1);
        slots.add_written(now, written(now, 3), 1);
        assert_eq!(indexes(&slots), [1, 3], "the peer never read the response of 2");
        slots.add_written(now, written(now, 4), 3);
        assert_eq!(indexes(&slots), [1, 3, 4], "it did read that of 3");
        assert_eq!(slots.sending().map(|session| session.receive), Some(3));
    }

    #[test]
    fn nothing_is_sent_on_a_session_before_its_initiator_was_heard_on_it() {
        let now = crate::gossip::testing::start();
        let mut slots = Slots::default();
        slots.add_written(now, written(now, 1), 0);
        assert!(slots.sending().is_none());
        assert!(slots.confirm(now, 1).is_some());
        assert!(slots.confirm(now, 1).is_none(), "once");
        assert_eq!(slots.sending().map(|session| session.receive), Some(1));
    }
}
