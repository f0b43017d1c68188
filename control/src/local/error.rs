//! Why something about a network of this host was refused or failed, in Docker's words where Docker has some.

use crate::model::Name;
use crate::network::{Class, CreateError, NetworkError};
use crate::storage::StorageError;

use super::gateway::GATEWAY_BRIDGE;
use super::options::OptionError;

/// An operation that was refused or failed; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// What networks of every reach refuse.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The network cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A driver option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Only one of each.
    #[error("only one instance of \"{0}\" network is allowed")]
    OneOnly(&'static str),
    /// Several subnets of one family.
    #[error("bridge driver doesn't support multiple subnets")]
    Subnets,
    /// Two networks want one interface.
    #[error(
        "cannot create network {id} ({interface}): conflicts with network {other} ({interface}): networks have same \
         bridge name"
    )]
    SameInterface {
        /// The network that is not made.
        id: String,
        /// Name of the interface.
        interface: String,
        /// The network that has it.
        other: String,
    },
    /// A parent that one network alone can have, and another one has.
    #[error("cannot use mode passthru, macvlan network {other} is already using parent interface {parent}")]
    PassthruShared {
        /// The network that has it.
        other: String,
        /// The parent.
        parent: String,
    },
    /// A parent that another network has for itself.
    #[error("macvlan network {other} is already using parent interface {parent} in mode passthru")]
    PassthruTaken {
        /// The network that has it.
        other: String,
        /// The parent.
        parent: String,
    },
    /// Networks of the driver `ipvlan` share no parents.
    #[error("network {other} is already using parent interface {parent}")]
    ParentTaken {
        /// The network that has it.
        other: String,
        /// The parent.
        parent: String,
    },
    /// The only endpoint that a parent can have in this mode is there.
    #[error(
        "network {network} is in macvlan mode passthru, which has one endpoint: disconnect {holder} first, or make the \
         network with another -o macvlan_mode"
    )]
    PassthruFull {
        /// The network.
        network: String,
        /// Who has it.
        holder: Name,
    },
    /// Endpoints have their parent's address.
    #[error("ipvlan interfaces do not support custom mac address assignment")]
    ParentMac,
    /// A network that is always there.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(Name),
    /// The host's stack is chosen when a sandbox is made.
    #[error("cannot connect container to host network - container must be created in host network mode")]
    ConnectHost,
    /// The host's stack stays.
    #[error("cannot disconnect container from host network - container was created in host network mode")]
    DisconnectHost,
    /// A sandbox in `none` is in nothing else.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    Private,
    /// A sandbox in the network of others has none of its own.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    Shared,
    /// The default bridge takes what comes.
    #[error(
        "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only"
    )]
    FixedAddress,
    /// The default bridge has no names.
    #[error(
        "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"
    )]
    Aliases,
    /// What the gateway bridge is for.
    #[error(
        "{GATEWAY_BRIDGE} leads out and keeps sandboxes apart: it can neither be internal nor have \
         com.docker.network.bridge.enable_icc=true"
    )]
    GatewayBridge,
    /// The gateway bridge is one of each host.
    #[error("{GATEWAY_BRIDGE} is the way out of one host: it can only have the driver bridge")]
    GatewayDriver,
    /// Who is in the gateway bridge is not the user's to say.
    #[error(
        "sandboxes are in {GATEWAY_BRIDGE} for as long as they are in overlay networks and no bridge network: connect \
         them to another bridge network, or make the overlay networks with --internal"
    )]
    GatewayEndpoints,
    /// An address would be in two networks of a sandbox.
    #[error(
        "its networks have addresses of {GATEWAY_BRIDGE}, {0}: once no sandbox is in that, remove it and make it \
         anew with 'weft network create --subnet SUBNET {GATEWAY_BRIDGE}'"
    )]
    GatewaySubnet(String),
    /// [`MAX_NETWORKS`](super::MAX_NETWORKS) are there.
    #[error("this host has {0} networks of its own, which is the most it may have")]
    Full(usize),
    /// The default bridge has another subnet, and endpoints.
    #[error(
        "--bip {wanted}: the network bridge has the subnet {subnet} and sandboxes in it; disconnect them first, with \
         an agent that is started without --bip"
    )]
    Bip {
        /// What was asked for.
        wanted: String,
        /// What it has.
        subnet: String,
    },
    /// The state could not be made durable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stored state is not what this version writes.
    #[error("stored {0} cannot be read: the state file is damaged or of another version")]
    Corrupt(&'static str),
}

impl LocalError {
    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Network(fault) => fault.class(),
            Self::Create(fault) => fault.class(),
            Self::ParentMac
            | Self::Option(_)
            | Self::Subnets
            | Self::FixedAddress
            | Self::Aliases
            | Self::GatewayBridge
            | Self::GatewayDriver
            | Self::Bip { .. } => Class::Invalid,
            Self::OneOnly(_)
            | Self::SameInterface { .. }
            | Self::PassthruShared { .. }
            | Self::PassthruTaken { .. }
            | Self::ParentTaken { .. }
            | Self::PassthruFull { .. }
            | Self::Predefined(_)
            | Self::ConnectHost
            | Self::DisconnectHost
            | Self::GatewayEndpoints
            | Self::GatewaySubnet(_)
            | Self::Shared
            | Self::Private => Class::Refused,
            Self::Full(_) => Class::Unavailable,
            Self::Storage(_) | Self::Corrupt(_) => Class::Failed,
        }
    }
}
