//! What the dataplane's totals say: whether a session is used, and whether anything comes back.

use std::time::{Duration, Instant};

use super::limits::{REKEY_AFTER, SILENCE};

/// Totals of one peer, and when they last moved.
#[derive(Debug)]
pub(crate) struct Traffic {
    sent: u64,
    received: u64,
    last: Option<Instant>,
    /// First sending after which nothing was received.
    unanswered: Option<Instant>,
    /// How much silence asks for a handshake; grows while handshakes change nothing about it.
    patience: Duration,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { sent: 0, received: 0, last: None, unanswered: None, patience: SILENCE }
    }
}

impl Traffic {
    /// Takes the totals in; whether the silence has lasted too long. Totals that shrink start over.
    pub(crate) fn note(&mut self, now: Instant, sent: u64, received: u64) -> bool {
        if sent < self.sent || received < self.received {
            (self.sent, self.received) = (0, 0);
        }
        let (more_sent, more_received) = (sent > self.sent, received > self.received);
        (self.sent, self.received) = (sent, received);
        if more_sent || more_received {
            self.last = Some(now);
        }
        if more_received {
            self.unanswered = None;
            self.patience = SILENCE;
        }
        more_sent && !more_received && self.has_waited(now)
    }

    fn has_waited(&mut self, now: Instant) -> bool {
        let since = *self.unanswered.get_or_insert(now);
        let waited = now.saturating_duration_since(since) >= self.patience;
        if waited {
            self.unanswered = None;
            self.patience = (self.patience * 2).min(REKEY_AFTER);
        }
        waited
    }

    /// A frame was dropped for want of a session: that is traffic, too.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// When anything was last sent or received.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_asks_for_a_handshake_and_each_time_later() {
        let start = crate::gossip::testing::start();
        let mut traffic = Traffic::default();
        let asked: Vec<u64> = (0..200)
            .filter(|second| traffic.note(start + Duration::from_secs(*second), second + 1, 0))
            .collect();
        assert_eq!(asked, [15, 46, 107], "15, 30, 60 s after the next sending");
        assert!(!traffic.note(start + Duration::from_secs(200), 201, 1));
        assert!(!traffic.note(start + Duration::from_secs(201), 202, 1));
        assert!(traffic.note(start + Duration::from_secs(216), 203, 1), "patience is short again");
    }

    #[test]
    fn rest_is_not_silence() {
        let start = crate::gossip::testing::start();
        let mut traffic = Traffic::default();
        assert!(!traffic.note(start, 1, 0));
        assert!((1..600).all(|second| !traffic.note(start + Duration::from_secs(second), 1, 0)));
        assert_eq!(traffic.last(), Some(start));
    }
}
