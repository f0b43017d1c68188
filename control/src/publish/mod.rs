//! Ports of sandboxes on the addresses of this host: what is wished for, what is given, what goes with a sandbox.
//!
//! Plain state, as [`crate::sandbox`]: offered as writes, made durable by the owner, then applied. What is in use
//! is derived from the records, so a restarted agent gives every sandbox the ports it had.

mod allocate;
mod port;
mod record;
mod spec;

pub use allocate::{Conflict, Grant, MAX_ATTEMPTS, Taken, addresses_of};
pub use port::{InvalidPort, Port, Protocol};
pub use record::{MAX_PORTS, Ports, Publishing, Unreadable, WishError, forget, save};
pub use spec::{SpecError, parse_expose, parse_publish};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Bindings by port, as Docker's API has them: `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Where a port is to be, or is, on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Address of the host; empty means the network's default.
    pub host_ip: String,
    /// A port, a range `first-last` to choose from, or empty for any.
    pub host_port: String,
}

/// One port that a sandbox wants published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The sandbox's.
    pub port: Port,
    /// Address of the host, where one was asked for.
    pub host: Option<IpAddr>,
    /// Ports of the host to choose from; absent, any.
    pub host_ports: Option<RangeInclusive<u16>>,
}

/// One port of a sandbox on one address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The sandbox's.
    pub port: Port,
    /// Address of the host; unspecified for all of its family.
    pub host: IpAddr,
    /// Port of the host.
    pub host_port: u16,
}
