//! Papers that count for nothing, remembered so that none is verified again with every word of who published it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::gossip::RecordHash;
use crate::model::NodeId;

/// What was refused is looked at again after this time: what is known of admins and tokens may be more by then.
const AGAIN: Duration = Duration::from_secs(60);

/// When which record of whom was refused last.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<NodeId, BTreeMap<RecordHash, Instant>>);

impl Refused {
    /// Keeps no more about a node than it publishes: these are the records of it that could be refused.
    pub(super) fn keep(&mut self, origin: NodeId, published: &BTreeSet<RecordHash>) {
        let Some(refused) = self.0.get_mut(&origin) else { return };
        refused.retain(|record, _| published.contains(record));
        if refused.is_empty() {
            self.0.remove(&origin);
        }
    }

    pub(super) fn contains(&self, now: Instant, origin: NodeId, record: &RecordHash) -> bool {
        let at = self.0.get(&origin).and_then(|refused| refused.get(record));
        at.is_some_and(|at| now.saturating_duration_since(*at) < AGAIN)
    }

    pub(super) fn note(&mut self, now: Instant, origin: NodeId, record: RecordHash) {
        self.0.entry(origin).or_default().insert(record, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    #[test]
    fn a_refusal_is_remembered_of_its_publisher_while_it_publishes_it_and_for_a_while() {
        let now = crate::gossip::testing::start();
        let mut refused = Refused::default();
        refused.note(now, A, [7; 16]);
        assert!(refused.contains(now, A, &[7; 16]));
        assert!(!refused.contains(now, B, &[7; 16]), "of another it may be good");
        assert!(!refused.contains(now + AGAIN, A, &[7; 16]));
        refused.keep(A, &[[7; 16], [8; 16]].into());
        assert!(refused.contains(now, A, &[7; 16]));
        refused.keep(A, &[[8; 16]].into());
        assert!(refused.0.is_empty());
    }
}
