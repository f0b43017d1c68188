//! What a network of one host is: its definition, made once.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::options::{BridgeOptions, OptionError};
use super::parent::ParentOptions;
use crate::driver::bridge::Presence;
use crate::model::{Name, NetworkId};
use crate::network::Subnet;
use crate::timestamp::UnixMillis;

/// The predefined networks, with their drivers.
pub(super) const PREDEFINED: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

/// What brings a network's endpoints together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// A bridge of the kernel in the host's namespace.
    Bridge,
    /// The host's own stack.
    Host,
    /// Nothing.
    Null,
    /// A link of the host, each with a MAC address of its own.
    Macvlan,
    /// A link of the host, all with its MAC address.
    Ipvlan,
}

impl Driver {
    /// The driver of a name, if networks of one host have it; the default is `bridge`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "" | "bridge" => Some(Self::Bridge),
            "host" => Some(Self::Host),
            "null" => Some(Self::Null),
            "macvlan" => Some(Self::Macvlan),
            "ipvlan" => Some(Self::Ipvlan),
            _ => None,
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        })
    }
}

/// A network of one host as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its identity.
    pub id: NetworkId,
    /// Its name.
    pub name: Name,
    /// When it was made, for display.
    pub created: UnixMillis,
    /// What brings its endpoints together.
    pub driver: Driver,
    /// At most one subnet of each family.
    pub subnets: Vec<Subnet>,
    /// No way out of the network.
    pub internal: bool,
    /// Driver options in Docker's spelling.
    pub options: BTreeMap<String, String>,
    /// Labels as given.
    pub labels: BTreeMap<String, String>,
}

impl Definition {
    /// Whether it is one of those that are always there.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        PREDEFINED.iter().any(|(name, _)| *name == self.name.as_str())
    }

    /// Whether its sandboxes find each other by name.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.is_predefined() && !self.is_gateway_bridge()
    }

    /// When its bridge is there.
    pub(super) fn presence(&self) -> Presence {
        match (self.is_predefined(), self.is_gateway_bridge()) {
            (true, _) => Presence::Lasting,
            (_, true) => Presence::Used,
            _ => Presence::Always,
        }
    }

    /// Its driver options.
    ///
    /// # Errors
    /// They cannot be meant.
    pub(super) fn bridge_options(&self) -> Result<BridgeOptions, OptionError> {
        match self.driver {
            Driver::Bridge => BridgeOptions::parse(&self.options, self.has(false)),
            Driver::Host | Driver::Null | Driver::Macvlan | Driver::Ipvlan => Ok(BridgeOptions::default()),
        }
    }

    /// Its driver options, where the driver has a parent.
    ///
    /// # Errors
    /// They cannot be meant.
    pub(super) fn parent_options(&self) -> Result<Option<ParentOptions>, OptionError> {
        ParentOptions::parse(self.driver, &self.options, self.has(false))
    }

    /// Whether it has a subnet of a family.
    pub(super) fn has(&self, v4: bool) -> bool {
        self.subnets.iter().any(|subnet| subnet.prefix.addr().is_ipv4() == v4)
    }
}
