//! Why an operation on the cluster was refused or failed, in Docker's words where Docker has some.

use crate::model::NetworkId;
use crate::network::{Class, CreateError, NetworkError};
use crate::storage::StorageError;
use crate::trust::PapersError;

/// An operation that was refused or failed; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// What networks of every reach refuse.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The network cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The VNI is pinned to another network, so that nobody could tell their frames apart.
    #[error("could not assign vxlan id {vni} to network {name}: network {other} has it")]
    VniTaken {
        /// The VNI.
        vni: u32,
        /// The network that wants it.
        name: String,
        /// The network that has it.
        other: String,
    },
    /// The network is not encrypted, and this node takes part in encrypted ones only.
    #[error(
        "network {0} is not encrypted and this node requires it (--require-encryption): create it with --opt encrypted"
    )]
    Clear(String),
    /// Free addresses are with nodes that do not answer.
    #[error("no address range of network {network} can be reached: {reason}; try again when it is back")]
    Unreachable {
        /// Name of the network.
        network: String,
        /// Who does not answer.
        reason: String,
    },
    /// Two nodes claim the address, which only a rolled-back or copied disk can bring about.
    #[error("address range of network {network} is claimed by two nodes: one runs on an old or copied disk")]
    Contested {
        /// Name of the network.
        network: String,
    },
    /// The network was removed while the operation ran.
    #[error("network {0} was removed")]
    Removed(NetworkId),
    /// The state could not be made durable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node has said goodbye.
    #[error("this node has left the cluster")]
    Left,
    /// The node has no room for more.
    #[error("this node has as many {0} as it can tell others about: remove some")]
    Full(&'static str),
    /// Another process runs as this node, or this one runs on state older than the cluster remembers. What it
    /// would promise may be promised already.
    #[error(
        "another node runs with this node's identity, or this node's state is older than the cluster remembers: \
         nothing new is promised; start it with an empty state directory to make it a new node"
    )]
    Clash,
    /// Only admins may; names of those that are known.
    #[error("this node is no admin of the cluster: ask one of {0}")]
    NotAdmin(String),
    /// No such token, or several.
    #[error("token {0} not found")]
    NoToken(String),
    /// No such node.
    #[error("node {0} not found")]
    NoNode(String),
    /// Several nodes could be meant.
    #[error("node {node} is ambiguous ({count} matches found): use its id")]
    SeveralNodes {
        /// What was asked for.
        node: String,
        /// How many there are.
        count: usize,
    },
    /// A node can't revoke itself.
    #[error("this is the node itself: 'weft leave' takes it out")]
    Itself,
    /// A node that answers is not removed.
    #[error("node {0} is alive: 'weft leave' on it takes it out, 'weft node revoke' shuts it out")]
    NodeAlive(String),
    /// The state is in no cluster yet.
    #[error("this host is in no cluster yet: 'weft init' makes one, 'weft join TOKEN' joins one")]
    NoCluster,
    /// The node's papers cannot be read.
    #[error(transparent)]
    Papers(#[from] PapersError),
    /// The stored state is not what this version writes.
    #[error("stored {what} cannot be read: the state file is damaged or of another version")]
    Corrupt {
        /// Which rows.
        what: &'static str,
    },
}

impl ClusterError {
    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Network(fault) => fault.class(),
            Self::Create(fault) => fault.class(),
            Self::SeveralNodes { .. } => Class::Invalid,
            Self::Removed(_) | Self::NoToken(_) | Self::NoNode(_) => Class::NotFound,
            Self::NotAdmin(_)
            | Self::Itself
            | Self::NodeAlive(_)
            | Self::VniTaken { .. }
            | Self::Clear(_) => Class::Refused,
            Self::Unreachable { .. } | Self::Full(_) | Self::Contested { .. } => Class::Unavailable,
            Self::Storage(_)
            | Self::Left
            | Self::Clash
            | Self::Corrupt { .. }
            | Self::NoCluster
            | Self::Papers(_) => Class::Failed,
        }
    }
}
