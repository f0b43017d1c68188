//! Why an operation on the cluster was refused or failed, in Docker's words where Docker has some.

use std::net::IpAddr;

use crate::model::{EndpointId, NetworkId};
use crate::network::CreateError;
use crate::storage::StorageError;
use crate::trust::PapersError;

/// Whose fault an error is, as a class of HTTP statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request cannot be meant: 400.
    Invalid,
    /// The request is understood and refused: 403.
    Refused,
    /// What it names does not exist: 404.
    NotFound,
    /// It exists already: 409.
    Exists,
    /// This node failed: 500.
    Failed,
    /// Not possible now, perhaps later: 503.
    Unavailable,
}

impl Class {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Refused => 403,
            Self::NotFound => 404,
            Self::Exists => 409,
            Self::Failed => 500,
            Self::Unavailable => 503,
        }
    }
}

/// An operation that was refused or failed; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The network cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameTaken(String),
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
    /// No such network.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// Several networks could be meant.
    #[error("network {name} is ambiguous ({matches} matches found {by})")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many there are.
        matches: usize,
        /// `on name` or `based on ID prefix`.
        by: &'static str,
    },
    /// Endpoints are in it.
    #[error("error while removing network: network {name} has active endpoints ({})", listed(.endpoints))]
    Active {
        /// The network.
        name: String,
        /// Names and ids of the endpoints.
        endpoints: Vec<(String, EndpointId)>,
    },
    /// The sandbox is in the network already.
    #[error("endpoint with name {sandbox} already exists in network {network}")]
    Attached {
        /// Name of the sandbox.
        sandbox: String,
        /// Name of the network.
        network: String,
    },
    /// No such endpoint on this node.
    #[error("endpoint {0} not found")]
    NoEndpoint(EndpointId),
    /// The MAC address is none an interface can have.
    #[error("invalid MAC address {0}: it must be a unicast address")]
    Mac(String),
    /// The MAC address is in use in the network, on a node that is alive.
    #[error("MAC address {mac} is in use in network {network} by {holder}")]
    MacTaken {
        /// The address.
        mac: String,
        /// Name of the network.
        network: String,
        /// Name of the sandbox that has it.
        holder: String,
    },
    /// Aliases that are too many.
    #[error("{0} aliases are too many: at most {max}", max = super::MAX_ALIASES)]
    Aliases(usize),
    /// No subnet holds the address.
    #[error("invalid endpoint settings:\nno configured subnet contains IP address {0}")]
    OutsideSubnets(IpAddr),
    /// The address is in use or reserved.
    #[error("Address already in use")]
    AddressTaken,
    /// The subnets have no free address left, on any node.
    #[error("no available addresses on this pool")]
    Exhausted,
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
            Self::Create(CreateError::Overlap | CreateError::Predefined(_)) => Class::Refused,
            Self::Create(CreateError::Driver(_)) => Class::NotFound,
            Self::Create(_)
            | Self::Mac(_)
            | Self::Aliases(_)
            | Self::OutsideSubnets(_)
            | Self::Ambiguous { .. }
            | Self::SeveralNodes { .. } => Class::Invalid,
            Self::NameTaken(_) => Class::Exists,
            Self::NoNetwork(_)
            | Self::NoEndpoint(_)
            | Self::Removed(_)
            | Self::NoToken(_)
            | Self::NoNode(_) => Class::NotFound,
            Self::NotAdmin(_)
            | Self::Itself
            | Self::NodeAlive(_)
            | Self::VniTaken { .. }
            | Self::Clear(_)
            | Self::Active { .. }
            | Self::Attached { .. }
            | Self::MacTaken { .. }
            | Self::AddressTaken => Class::Refused,
            Self::Unreachable { .. } | Self::Full(_) | Self::Exhausted | Self::Contested { .. } => {
                Class::Unavailable
            }
            Self::Storage(_)
            | Self::Left
            | Self::Clash
            | Self::Corrupt { .. }
            | Self::NoCluster
            | Self::Papers(_) => Class::Failed,
        }
    }
}

fn listed(list: &[(String, EndpointId)]) -> String {
    let shown: Vec<String> =
        list.iter().map(|(name, id)| format!("name:{name:?} id:\"{}\"", id.short())).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_endpoints_are_listed_as_docker_lists_them() {
        let endpoints =
            vec![("c1".to_owned(), EndpointId([0xab; 16])), ("c2".to_owned(), EndpointId([0; 16]))];
        let error = ClusterError::Active { name: "n1".to_owned(), endpoints };
        assert_eq!(
            error.to_string(),
            "error while removing network: network n1 has active endpoints \
             (name:\"c1\" id:\"abababababab\", name:\"c2\" id:\"000000000000\")"
        );
        assert_eq!(error.class().status(), 403);
    }
}
