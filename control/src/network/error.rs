//! Refusals that networks of every reach share, in Docker's words.

use std::net::IpAddr;

use crate::model::EndpointId;

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

/// A wish about a network that was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameTaken(String),
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
}

impl NetworkError {
    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Ambiguous { .. } | Self::Mac(_) | Self::Aliases(_) | Self::OutsideSubnets(_) => {
                Class::Invalid
            }
            Self::NoNetwork(_) | Self::NoEndpoint(_) => Class::NotFound,
            Self::NameTaken(_) => Class::Exists,
            Self::Active { .. } | Self::Attached { .. } | Self::MacTaken { .. } | Self::AddressTaken => {
                Class::Refused
            }
            Self::Exhausted => Class::Unavailable,
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
        let error = NetworkError::Active { name: "n1".to_owned(), endpoints };
        assert_eq!(
            error.to_string(),
            "error while removing network: network n1 has active endpoints \
             (name:\"c1\" id:\"abababababab\", name:\"c2\" id:\"000000000000\")"
        );
        assert_eq!(error.class().status(), 403);
    }
}
