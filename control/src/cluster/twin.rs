//! Other processes that run as this node, or as another one.

use std::time::{Duration, Instant};

use super::{Cluster, ClusterError, ClusterEvent, record, start};
use crate::ledger;
use crate::model::NodeId;
use crate::storage::Table;

/// How long a warning stays that another node runs twice, after the last sign of it.
const WARNED: Duration = Duration::from_secs(10 * 60);

impl Cluster {
    pub(super) fn note_clash(&mut self, now: Instant, id: NodeId) {
        self.clashes.insert(id, now);
    }

    /// Drops warnings that are over. About this node itself one stays, as what it promises may be promised already.
    pub(super) fn forget_clashes(&mut self, now: Instant) {
        let me = self.me;
        self.clashes.retain(|id, at| *id == me || now.saturating_duration_since(*at) < WARNED);
    }

    /// Another process that ran as this node has given way. Whoever met it alone took it for this node's newest start,
    /// so this one goes on as a later one.
    pub(super) fn twin_gone(&mut self, now: Instant, boot_epoch: u32) {
        self.clashes.remove(&self.me);
        if boot_epoch < self.boot_epoch {
            return;
        }
        if let Err(fault) = self.rise_above(now, boot_epoch) {
            tracing::warn!(%fault, "members that took a copy of this node for it do not hear it before its next start");
        }
    }

    fn rise_above(&mut self, now: Instant, boot_epoch: u32) -> Result<(), ClusterError> {
        let next = boot_epoch.checked_add(1).ok_or(ClusterError::Clash)?;
        self.ledger
            .commit("boot", vec![ledger::put(Table::Node, start::BOOT_EPOCH, record::encode(&next))])?;
        self.boot_epoch = next;
        self.gossip.rise(now, next);
        self.sealed.sessions.rise(next);
        Ok(())
    }

    /// Another process that runs as this node was there first.
    pub(super) fn twin_first(&mut self, at: std::net::SocketAddr) {
        self.left = true;
        self.events.push_back(ClusterEvent::TwinFirst(at));
    }
}
