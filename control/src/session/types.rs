//! What sessions are given, and what they tell.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use weft_dataplane::seal::PeerSpec;
use zeroize::Zeroizing;

use crate::model::NodeId;

/// What sessions need to know of their node.
pub struct SessionConfig {
    /// The cluster's public name; handshakes are bound to it.
    pub cluster_id: [u8; 16],
    /// This node.
    pub us: NodeId,
    /// Its static X25519 secret.
    pub static_secret: Zeroizing<[u8; 32]>,
    /// Start of this node, raised durably before each.
    pub boot_epoch: u32,
    /// UDP port of its tunnel end.
    pub data_port: u16,
    /// Age at which a session with traffic is replaced; [`super::REKEY_AFTER`] but in tests.
    pub rekey_after: Duration,
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig").field("us", &self.us).finish_non_exhaustive()
    }
}

/// A node that sessions may be made with, as its owner signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: NodeId,
    /// Its static X25519 public key, out of its certificate.
    pub static_public: [u8; 32],
    /// Where its gossip, and so its handshakes, are reached.
    pub gossip: SocketAddr,
    /// Its tunnel end.
    pub vtep: SocketAddr,
    /// Its start.
    pub boot_epoch: u32,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The sessions with a peer, all of them; for [`weft_dataplane::change::Change::SetPeer`].
    Changed(PeerSpec),
    /// No peer has this tunnel end any more.
    Gone {
        /// The tunnel end.
        vtep: SocketAddr,
    },
    /// A peer proved to be reached at another address than it announced. A hint: it may be lost.
    PeerMoved {
        /// Who.
        id: NodeId,
        /// Where its handshakes come from.
        to: SocketAddr,
        /// UDP port of its tunnel end.
        data_port: u16,
    },
    /// A peer uses a ring key that is not here: the ring should be pulled. A hint: it may be lost.
    RingWanted {
        /// Who used it.
        from: NodeId,
        /// The key's epoch.
        epoch: u32,
    },
}

/// How it stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// There is no session, and none is wanted.
    Idle,
    /// There is no session to send on yet.
    Connecting,
    /// There is a session to send on.
    Established,
    /// There is one, and a newer one is being made.
    Rekeying,
}

/// The sessions with one peer as a table shows them; no secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// Who.
    pub peer: NodeId,
    /// Its tunnel end.
    pub vtep: SocketAddr,
    /// Where handshakes with it go.
    pub address: SocketAddr,
    /// How it stands.
    pub state: SessionState,
    /// Index that our datagrams carry, if any are sent.
    pub index: Option<u32>,
    /// Ring epoch of the session we send on.
    pub epoch: Option<u32>,
    /// Age of the session we send on.
    pub age: Option<Duration>,
    /// Sessions we open datagrams with, 0 to 3.
    pub receiving: usize,
    /// Whether a sealed network is shared with it.
    pub wanted: bool,
    /// Initiations sent since the last one that was answered.
    pub tries: u32,
}
