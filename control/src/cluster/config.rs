//! What a cluster's node is told at start.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_dataplane::seal;
use weft_dataplane::wire::vxlan::{OVERHEAD_V4, OVERHEAD_V6};

use crate::gossip::KeyTiming;
use crate::model::Name;
use crate::session::REKEY_AFTER;

/// What a node is told at start.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The node's name.
    pub name: Name,
    /// Where others reach this node's gossip; the dataplane is on the same address.
    pub advertise: SocketAddr,
    /// UDP port of the dataplane.
    pub data_port: u16,
    /// Largest IP packet of the underlay, octets; usually 1500.
    pub underlay_mtu: u16,
    /// Whether to take part in encrypted networks only.
    pub require_encryption: bool,
    /// Waits and rests.
    pub timing: Timing,
}

impl ClusterConfig {
    /// Largest inner IP packet that fits the underlay in one datagram, octets.
    #[must_use]
    pub fn inner_mtu(&self, encrypted: bool) -> u16 {
        let overhead = match (self.advertise.ip(), encrypted) {
            (IpAddr::V4(_), false) => OVERHEAD_V4,
            (IpAddr::V6(_), false) => OVERHEAD_V6,
            (IpAddr::V4(_), true) => seal::OVERHEAD_V4,
            (IpAddr::V6(_), true) => seal::OVERHEAD_V6,
        };
        self.underlay_mtu.saturating_sub(overhead)
    }
}

/// Waits and rests; the defaults are for production, tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Rest of a freed address before it is handed out automatically again: longer than any view, cache or
    /// connection table keeps the old holder.
    pub quarantine: Duration,
    /// Most time an attachment waits for an address range of another node.
    pub patience: Duration,
    /// Wait for an answer to one request for a range before it is sent again.
    pub retry: Duration,
    /// Interval at which a node that owns far less than its share of a subnet asks for more, so that a dead node
    /// strands its share and not the whole.
    pub balance: Duration,
    /// Time after which the endpoints of a dead node are no longer shown and forwarded to.
    pub forget_dead: Duration,
    /// Age at which a removed network is forgotten. A node that was away longer must join as a new one.
    pub forget_removed: Duration,
    /// Least time between two derivations of one segment, so that a burst of changes costs one.
    pub settle: Duration,
    /// Age at which a pair of nodes replaces a session with traffic.
    pub rekey: Duration,
    /// When keys change.
    pub keys: KeyTiming,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quarantine: Duration::from_secs(120),
            patience: Duration::from_secs(5),
            retry: Duration::from_millis(300),
            balance: Duration::from_secs(30),
            forget_dead: Duration::from_secs(15 * 60),
            forget_removed: Duration::from_secs(30 * 24 * 3600),
            settle: Duration::from_millis(3),
            rekey: REKEY_AFTER,
            keys: KeyTiming::default(),
        }
    }
}
