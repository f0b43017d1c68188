//! One peer: its sessions, the handshake under way, and when something is due.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::handshake::Initiator;
use super::limits::{
    Bucket, PER_PEER, QUIET_BEFORE, REKEY_IDLE_AFTER, RESPONDER_WAITS, RESPONSES, RETRY, WIPE_AFTER,
};
use super::mac::COOKIE_AGE;
use super::slots::{Role, Slots};
use super::traffic::Traffic;
use super::types::{Peer, SessionState, SessionView};
use super::wire::TAG;

/// An initiation that was sent and not answered yet; one per peer at most.
pub(crate) struct Attempt {
    pub(crate) index: u32,
    pub(crate) epoch: u32,
    pub(crate) to: SocketAddr,
    pub(crate) exchange: Initiator,
    /// The datagram without mac2.
    pub(crate) datagram: Vec<u8>,
    pub(crate) sent: Instant,
    pub(crate) retry: Instant,
    /// A cookie reply made us send it again already.
    pub(crate) repeated: bool,
}

/// All that is kept of a peer.
pub(crate) struct PeerState {
    pub(crate) peer: Peer,
    /// Where it was last proven to be, if that is not what it announces.
    pub(crate) moved: Option<SocketAddr>,
    pub(crate) mac1_key: [u8; 32],
    rekey_after: Duration,
    pub(crate) wanted: bool,
    /// Boot epoch and counter of its newest authentic initiation.
    pub(crate) seen: (u32, u64),
    pub(crate) slots: Slots,
    pub(crate) attempt: Option<Attempt>,
    /// When a handshake is to be started.
    pub(crate) start: Option<Instant>,
    /// A start that was due had to wait.
    not_before: Option<Instant>,
    /// Initiations since the last one that was answered.
    pub(crate) tries: u32,
    pub(crate) cookie: Option<(Instant, [u8; TAG])>,
    pub(crate) traffic: Traffic,
    pub(crate) proven: Bucket,
    pub(crate) authentic: Bucket,
    pub(crate) responses: Bucket,
    /// Keeps rekeying apart that would fall together.
    pub(crate) jitter: Duration,
    /// What the index map and the timers hold of this peer.
    pub(crate) indexed: Vec<u32>,
    pub(crate) due: Option<Instant>,
}

/// What a peer needs now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Start,
    GiveUp,
    Wipe,
    Quiet,
    Nothing,
}

impl PeerState {
    pub(crate) fn new(now: Instant, peer: Peer, mac1_key: [u8; 32], rekey_after: Duration) -> Self {
        Self {
            peer,
            moved: None,
            mac1_key,
            rekey_after,
            wanted: false,
            seen: (peer.boot_epoch, 0),
            slots: Slots::default(),
            attempt: None,
            start: None,
            not_before: None,
            tries: 0,
            cookie: None,
            traffic: Traffic::default(),
            proven: Bucket::new(PER_PEER, now),
            authentic: Bucket::new(PER_PEER, now),
            responses: Bucket::new(RESPONSES, now),
            jitter: Duration::ZERO,
            indexed: Vec::new(),
            due: None,
        }
    }

    /// Forgets all sessions and the handshake under way.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.attempt = None;
        self.start = None;
    }

    /// Asks for a handshake at `at`, or earlier if one is asked for already.
    pub(crate) fn start_at(&mut self, at: Instant) {
        self.start = Some(self.start.map_or(at, |start| start.min(at)));
    }

    /// Lets nothing start before `until`.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.start = Some(until);
        self.not_before = Some(until);
    }

    /// Where the next initiation goes: takes turns while nothing answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.moved.filter(|_| self.tries.is_multiple_of(2)).unwrap_or(self.peer.gossip)
    }

    /// The cookie to prove our address with.
    pub(crate) fn cookie(&self, now: Instant) -> Option<&[u8; TAG]> {
        self.cookie
            .as_ref()
            .filter(|(since, _)| now.saturating_duration_since(*since) < COOKIE_AGE)
            .map(|(_, cookie)| cookie)
    }

    /// Wait before the next retry, without its jitter.
    pub(crate) fn backoff(&self) -> Duration {
        let at = (self.tries as usize).saturating_sub(1).min(RETRY.len() - 1);
        Duration::from_secs(RETRY[at])
    }

    /// What is to be done at `now`.
    pub(crate) fn need(&self, now: Instant) -> Need {
        if self.wipe_at().is_some_and(|at| at <= now) {
            return Need::Wipe;
        }
        if self.quiet_at().is_some_and(|at| at <= now) {
            return Need::Quiet;
        }
        if self.attempt.as_ref().is_some_and(|attempt| attempt.retry <= now) && self.is_hopeless() {
            return Need::GiveUp;
        }
        if self.start_due().is_some_and(|at| at <= now) { Need::Start } else { Need::Nothing }
    }

    /// When [`PeerState::need`] or the slots have something to do next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let again = self.slots.unconfirmed().and_then(|unconfirmed| unconfirmed.again);
        [self.start_due(), self.quiet_at(), self.wipe_at(), again, self.slots.retire_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When an initiation is due: a retry, one that was asked for, or a rekey.
    fn start_due(&self) -> Option<Instant> {
        if let Some(attempt) = &self.attempt {
            return Some(attempt.retry);
        }
        // While our response goes out a session is on its way.
        let responding = self.slots.unconfirmed().is_some_and(|unconfirmed| unconfirmed.again.is_some());
        let due = [self.start, self.rekey_at()].into_iter().flatten().min().filter(|_| !responding);
        due.map(|due| self.not_before.map_or(due, |earliest| earliest.max(due)))
    }

    fn rekey_at(&self) -> Option<Instant> {
        let Some(session) = self.slots.sending() else {
            // Only the peer can have sessions that we do not send on: it did not come back to us.
            return self.slots.newest().filter(|_| self.wanted).map(|since| since + RESPONDER_WAITS);
        };
        let waits = match session.role {
            Role::Initiator { .. } => Duration::ZERO,
            _ => RESPONDER_WAITS,
        };
        let used = self.traffic.last().is_some_and(|last| last >= session.since);
        let age = match (used, self.wanted) {
            (true, _) => Some(self.rekey_after),
            (false, true) => Some(REKEY_IDLE_AFTER),
            (false, false) => None,
        };
        age.map(|age| session.since + age + waits + self.jitter)
    }

    fn wipe_at(&self) -> Option<Instant> {
        let newest = self.slots.newest().filter(|_| !self.wanted)?;
        Some(self.traffic.last().map_or(newest, |last| last.max(newest)) + WIPE_AFTER)
    }

    fn quiet_at(&self) -> Option<Instant> {
        self.slots.sending().and_then(|_| self.wipe_at()).map(|at| at - QUIET_BEFORE)
    }

    fn is_hopeless(&self) -> bool {
        !self.wanted && self.tries as usize >= RETRY.len()
    }

    pub(crate) fn view(&self, now: Instant) -> SessionView {
        let sending = self.slots.sending();
        let making = self.attempt.is_some() || self.slots.unconfirmed().is_some();
        SessionView {
            peer: self.peer.id,
            vtep: self.peer.vtep,
            address: self.moved.unwrap_or(self.peer.gossip),
            state: match (sending.is_some(), making) {
                (false, false) if !self.wanted => SessionState::Idle,
                (false, _) => SessionState::Connecting,
                (true, false) => SessionState::Established,
                (true, true) => SessionState::Rekeying,
            },
            index: sending.map(|session| session.send),
            epoch: sending.map(|session| session.epoch),
            age: sending.map(|session| now.saturating_duration_since(session.since)),
            receiving: self.slots.len(),
            wanted: self.wanted,
            tries: self.tries,
        }
    }
}
