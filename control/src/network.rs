//! What a network is: its definition, made once, signed by its author, never changed.
//!
//! A definition carries everything a node needs to take part, so that the network survives the node that made it.
//! The texts of a user's wishes ([`api::NetworkCreate`](crate::api::NetworkCreate)) become a definition in
//! [`NetworkWish::parse`] and [`NetworkWish::define`]; refusals use Docker's words.

mod attachment;
mod choose;
mod create;
mod error;
mod options;
mod pools;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use attachment::{Attach, Lease, OwnEndpoint};
pub(crate) use choose::choose;
pub use create::{CreateError, NetworkWish};
pub(crate) use create::{Wish, admit_name, shortened};
pub use error::{Class, NetworkError};
pub(crate) use options::{ADDRESSES, DHCP, OF_ENGINE};
pub use options::{OptionError, Options};
pub(crate) use pools::{LOCAL_POOLS, default_gateway, free_global, free_local, last_local, unique_local};
pub(crate) use validate::{overlap, shown};

use crate::ipam::{Space, number};
use crate::model::{Name, NetworkId, NodeId};
use crate::timestamp::UnixMillis;

/// Subnets a network may have.
pub const MAX_SUBNETS: usize = 16;
/// Other names an endpoint may have.
pub const MAX_ALIASES: usize = 16;
/// Octets of an encoded definition; one record must hold it with its signature.
pub const MAX_DEFINITION: usize = 3_500;

/// A network as its creator made it; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its identity.
    pub id: NetworkId,
    /// Wanted name; another network of this name that is older owns the plain name.
    pub name: Name,
    /// Wall clock of the creator, for display and for name conflicts.
    pub created: UnixMillis,
    /// Who made it and owns every address at first.
    pub creator: NodeId,
    /// Subnets in the order given.
    pub subnets: Vec<Subnet>,
    /// No way out of the network.
    pub internal: bool,
    /// Driver options as given; [`Options::parse`] reads them.
    pub options: BTreeMap<String, String>,
    /// Labels as given.
    pub labels: BTreeMap<String, String>,
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The prefix, host bits zero.
    pub prefix: IpNet,
    /// Part that automatic addresses come from.
    pub ip_range: Option<IpNet>,
    /// Reserved for the gateway.
    pub gateway: IpAddr,
    /// Reserved for others, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl Subnet {
    /// The addresses and what of them is reserved.
    #[must_use]
    pub fn space(&self) -> Space {
        let reserved = self.auxiliary.values().copied().chain([self.gateway]).map(number);
        Space::new(self.prefix, self.ip_range, reserved)
    }
}

impl Definition {
    /// Order of precedence among networks of one name: the lowest owns the plain name on every node.
    #[must_use]
    pub fn precedence(&self) -> (UnixMillis, NetworkId) {
        (self.created, self.id)
    }

    /// Whether a definition of another node is one this version can take part in: bounded, with valid subnets
    /// and options. Members are authenticated but need not be correct.
    ///
    /// # Errors
    /// What is wrong with it, the author's fault.
    pub fn check(&self) -> Result<Options, CreateError> {
        validate::definition(self)?;
        Ok(Options::parse(&self.options)?)
    }
}
