//! What was told of a node lately, so that it is not told with every message.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::limits::MAX_NODES;
use crate::model::NodeId;

/// When something was last told, per node.
#[derive(Debug, Default)]
pub(crate) struct Told(BTreeMap<NodeId, Instant>);

impl Told {
    /// Whether it is time to tell (again) of `id`, at most once in `every`; then that counts as done.
    pub(crate) fn may_tell(&mut self, now: Instant, id: NodeId, every: Duration) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < every;
        if self.0.get(&id).is_some_and(recent) {
            return false;
        }
        if self.0.len() >= MAX_NODES {
            self.0.retain(|_, at| recent(at));
        }
        let room = self.0.len() < MAX_NODES;
        if room {
            self.0.insert(id, now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_told_of_once_in_a_while() {
        let (start, every) = (crate::gossip::testing::start(), Duration::from_secs(60));
        let mut told = Told::default();
        for number in 0..=MAX_NODES {
            let id = NodeId((number as u128).to_be_bytes());
            assert_eq!(told.may_tell(start, id, every), number < MAX_NODES, "{number}");
        }
        assert!(!told.may_tell(start, NodeId([0; 16]), every));
        assert!(told.may_tell(start + every, NodeId([0; 16]), every));
    }
}
