//! What gossip is given, and what it tells.

use std::net::SocketAddr;
use std::sync::Arc;

use super::limits::{MAX_BODY, MAX_KEYS, MAX_TABLE};
use super::record::Credentials;
use super::ring::Ring;
use super::seal::Via;
use crate::model::{Name, NodeId};

/// What gossip needs to know of its node.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// The node's name, as others show it.
    pub name: Name,
    /// Where others reach this node's gossip; one address, not a wildcard.
    pub advertise: SocketAddr,
    /// UDP port of the tunnel end on the same address.
    pub data_port: u16,
    /// The cluster; signatures and seals are bound to it.
    pub cluster: [u8; 16],
    /// The keys that messages are sealed with.
    pub ring: Ring,
    /// Who is a member; without it, whoever holds the keys.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// Start of this node, raised durably before each; versions and generations grow from it.
    pub boot_epoch: u32,
}

/// A message for the driver to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where.
    pub to: SocketAddr,
    /// As a datagram, or as one message of a stream.
    pub via: Via,
    /// The sealed message.
    pub bytes: Vec<u8>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipEvent {
    /// A member is there: first seen, or back.
    MemberUp(NodeId),
    /// A member does not answer anybody. Its records stay.
    MemberDown(NodeId),
    /// A member said goodbye. Its records are gone.
    MemberLeft(NodeId),
    /// A member has another address or data port than before.
    MemberMoved(NodeId),
    /// Something in this origin's records changed; look at them.
    RecordsChanged {
        /// Whose.
        origin: NodeId,
    },
    /// A call of another member's upper layer. Unordered, may be lost or come twice.
    Rpc {
        /// Who calls.
        from: NodeId,
        /// What it says.
        body: Vec<u8>,
    },
    /// Two running nodes use one identity (a cloned disk), or one runs on state older than the cluster remembers.
    /// Names this node itself if it is one of them.
    /// Signed evidence shows it, so no other member can make it up.
    IdentityClash(NodeId),
    /// Another running process with this node's identity has run for longer. It was told that this one gives way, which
    /// is silent from now on and must end.
    TwinFirst {
        /// Where it is.
        at: SocketAddr,
    },
    /// Another process with this node's identity has given way to this one. Members that met nobody else may have taken
    /// it for this node's newest start: see [`Gossip::rise`](super::Gossip::rise).
    TwinGone {
        /// The start it was.
        boot_epoch: u32,
    },
    /// Somebody at the address of a member uses a key that is not on the ring here. At most once a second.
    RingNeeded {
        /// Who.
        from: SocketAddr,
    },
}

/// How a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It does not.
    Down,
    /// It said goodbye.
    Left,
}

/// A node of the cluster, as it signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: NodeId,
    /// Its name; nothing keeps two nodes from having the same.
    pub name: Name,
    /// Where its gossip is reached.
    pub addr: SocketAddr,
    /// UDP port of its tunnel end, on the same address.
    pub data_port: u16,
    /// How it is doing, seen from here.
    pub state: MemberState,
    /// Its start.
    pub boot_epoch: u32,
}

impl Member {
    /// Its tunnel end.
    #[must_use]
    pub fn vtep(&self) -> SocketAddr {
        SocketAddr::new(self.addr.ip(), self.data_port)
    }
}

/// A record that this node can't publish. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefused {
    /// The body is too large.
    #[error("record of {0} octets, at most {MAX_BODY} are possible")]
    TooLarge(usize),
    /// This node's table is full.
    #[error("this node's records are full ({MAX_KEYS} records, {MAX_TABLE} octets)")]
    Full,
    /// The node said goodbye.
    #[error("this node has left the cluster")]
    Left,
}
