//! Limits of sessions, and the bucket that keeps rates.

use std::time::{Duration, Instant};

/// Peers with state here.
pub const MAX_PEERS: usize = 4096;
/// Datagrams that wait for the driver; more are dropped and counted.
pub const MAX_OUTBOX: usize = 4096;
/// Hints that wait for the driver; the oldest are dropped.
pub(crate) const MAX_HINTS: usize = 1024;

/// A session with traffic is replaced at this age by its initiator.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// An idle session that is wanted is replaced at this age: that also shows whether the peer still has it.
pub const REKEY_IDLE_AFTER: Duration = Duration::from_secs(300);
/// The responder waits longer, so that both do not start at once.
pub(crate) const RESPONDER_WAITS: Duration = Duration::from_secs(10);
/// Older sessions are refused so long after the peer was heard on a newer one.
pub const RETIRE_AFTER: Duration = Duration::from_secs(180);
/// Sessions without traffic that nobody wants are wiped.
pub const WIPE_AFTER: Duration = Duration::from_secs(600);
/// So long before that nothing is sent on them any more, as the other end's idle time may have begun earlier.
pub(crate) const QUIET_BEFORE: Duration = Duration::from_secs(60);
/// Sending so long without hearing anything asks for a new handshake; doubled each time up to `REKEY_AFTER`.
pub const SILENCE: Duration = Duration::from_secs(15);

/// A handshake of the lower static key outranks the other's for so long after it was sent.
pub(crate) const CROSSING: Duration = Duration::from_millis(500);
/// Chance that keeps nodes apart that have the same reason at the same time.
pub(crate) const JITTER: Duration = Duration::from_millis(500);
/// Waits between initiations, seconds; the last one goes on.
pub(crate) const RETRY: [u64; 6] = [1, 2, 5, 10, 20, 30];
/// Traffic may ask for a retry when the last one is so old.
pub(crate) const RETRY_ON_TRAFFIC: Duration = Duration::from_secs(5);
/// Waits before an unconfirmed response is sent again, seconds.
pub(crate) const RESEND: [u64; 3] = [1, 2, 5];

/// Initiations we send, of all peers together, per second and at once.
pub(crate) const STARTS: Rate = Rate { per_second: 50, burst: 50 };
/// Initiations worked on without a proof of their address.
pub(crate) const UNPROVEN: Rate = Rate { per_second: 50, burst: 50 };
/// Initiations worked on with a proof, from addresses that no known peer has.
pub(crate) const STRANGERS: Rate = Rate { per_second: 50, burst: 50 };
/// Initiations worked on with a proof, from one known peer's address; and authentic ones of one peer.
pub(crate) const PER_PEER: Rate = Rate { per_second: 1, burst: 5 };
/// Responses worked on for one peer, right or wrong; and confirmations repeated.
pub(crate) const RESPONSES: Rate = Rate { per_second: 20, burst: 20 };

/// So many a second, and so many at once after a rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// Keeps a rate with one instant of memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: Rate,
    /// When it will be full again.
    full: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full: now }
    }

    /// Takes one if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let allowed = self.next() <= now;
        if allowed {
            self.full = self.full.max(now) + self.interval();
        }
        allowed
    }

    /// When there is one to take; may be past.
    pub(crate) fn next(&self) -> Instant {
        self.full.checked_sub(self.interval() * (self.rate.burst - 1)).unwrap_or(self.full)
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_its_burst_and_then_its_rate() {
        let now = crate::gossip::testing::start() + Duration::from_secs(10);
        let mut bucket = Bucket::new(Rate { per_second: 2, burst: 3 }, now);
        let taken = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, now), 3);
        assert_eq!(bucket.next(), now + Duration::from_millis(500));
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(60)), 3);
    }
}
