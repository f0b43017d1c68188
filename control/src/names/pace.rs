//! How fast one sandbox may ask, so that its questions do not take the time of others'.

use std::time::{Duration, Instant};

/// Queries a second of one sandbox.
const RATE: u32 = 5_000;
/// Queries at once, after a while without any.
const BURST: u32 = 1_000;

/// A bucket of queries, refilled at a steady rate.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// When the bucket is full again.
    full: Instant,
}

impl Pace {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes a query out; answers how long it has to wait.
    pub fn take(&mut self, now: Instant) -> Duration {
        const EACH: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);
        self.full = self.full.max(now) + EACH;
        self.full.saturating_duration_since(now).saturating_sub(EACH * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
    fn who_asks_without_end_is_answered_at_a_steady_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..BURST {
            assert_eq!(pace.take(now), Duration::ZERO);
        }
        for _ in 0..RATE {
            now += pace.take(now);
        }
        let took = now - start;
        assert!(took > Duration::from_millis(990) && took < Duration::from_millis(1_010), "{took:?}");
        assert_eq!(pace.take(now + Duration::from_secs(1)), Duration::ZERO, "and after a rest at once");
    }
}
