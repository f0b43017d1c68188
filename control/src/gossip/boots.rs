//! Notices two running nodes behind one identity: their boot nonces take turns.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::limits::{MAX_NODES, MAX_UNVERIFIED};
use super::seal::BootNonce;
use crate::model::NodeId;

/// Time in which messages of a sender's previous key may still arrive after its renewal.
const OVERLAP: Duration = Duration::from_secs(5);
/// A clash is told at most so often per node.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Sender {
    epoch: u32,
    current: BootNonce,
    previous: Option<BootNonce>,
    switched: Instant,
}

/// The newest boot nonces of each sender.
#[derive(Debug, Default)]
pub(crate) struct Boots {
    senders: BTreeMap<NodeId, Sender>,
    told: BTreeMap<NodeId, Instant>,
}

impl Boots {
    /// Notes an authentic message; `true` if it shows that another process uses the sender's identity.
    pub(crate) fn note(&mut self, now: Instant, id: NodeId, nonce: BootNonce, epoch: u32) -> bool {
        let fresh = Sender { epoch, current: nonce, previous: None, switched: now };
        let Some(sender) = self.senders.get_mut(&id) else {
            if self.senders.len() < MAX_NODES + MAX_UNVERIFIED {
                self.senders.insert(id, fresh);
            }
            return false;
        };
        if epoch < sender.epoch || nonce == sender.current {
            return false;
        }
        if epoch > sender.epoch {
            *sender = fresh;
            return false;
        }
        if sender.previous == Some(nonce) {
            return now.saturating_duration_since(sender.switched) > OVERLAP;
        }
        *sender = Sender { previous: Some(sender.current), ..fresh };
        false
    }

    /// Frees what is kept of `id`.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.senders.remove(&id);
        self.told.remove(&id);
    }

    /// Whether it is time to tell (again) that `id` clashes.
    pub(crate) fn may_tell(&mut self, now: Instant, id: NodeId) -> bool {
        let recent = self.told.get(&id).is_some_and(|at| now.saturating_duration_since(*at) < TELL_EVERY);
        if !recent && self.told.len() < MAX_NODES + MAX_UNVERIFIED {
            self.told.insert(id, now);
        }
        !recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NodeId = NodeId([1; 16]);

    #[test]
    fn renewal_of_a_key_is_not_a_clash_but_two_keys_taking_turns_are() {
        let start = crate::gossip::testing::start();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut boots = Boots::default();
        assert!(!boots.note(at(0), ID, [1; 16], 1));
        assert!(!boots.note(at(1), ID, [2; 16], 1), "renewed");
        assert!(!boots.note(at(2), ID, [1; 16], 1), "overtaken by the renewal");
        assert!(boots.note(at(7), ID, [1; 16], 1), "still in use");
        assert!(boots.may_tell(at(7), ID));
        assert!(!boots.may_tell(at(8), ID));
    }

    #[test]
    fn restart_is_not_a_clash() {
        let start = crate::gossip::testing::start();
        let mut boots = Boots::default();
        assert!(!boots.note(start, ID, [1; 16], 1));
        assert!(!boots.note(start, ID, [2; 16], 2));
        assert!(!boots.note(start + Duration::from_secs(60), ID, [1; 16], 1));
    }
}
