//! What several tests of gossip need.

use std::time::Instant;

/// A point in time to count from; tests add to it and never look at the clock again.
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
pub(crate) fn start() -> Instant {
    Instant::now()
}
