//! Which networks and endpoints of Docker are which of weft's, durably.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DockerId, Wish};
use crate::model::NetworkId;
use crate::storage::{Row, Table, Write};

/// What a network of Docker is in weft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// Nothing yet: its name is not known.
    Pending(Wish),
    /// This network.
    Bound(NetworkId),
}

/// An endpoint of a container. The endpoint of weft is that of the sandbox [`DockerId::sandbox`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Docker's network.
    pub network: DockerId,
    /// Path of its container's network namespace; empty before it has joined.
    pub sandbox_key: String,
}

/// A row of the state file that is no binding: written by another version, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of what Docker's engine has is not one of this version's")]
pub struct Unreadable;

/// What is bound. Changes are offered as [`Write`]s first, made durable by the owner, and only then applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    networks: BTreeMap<DockerId, Binding>,
    endpoints: BTreeMap<DockerId, Endpoint>,
}

impl Bindings {
    /// Reads the rows of [`Table::DockerNetworks`] and [`Table::DockerEndpoints`].
    ///
    /// # Errors
    /// One cannot be read.
    pub fn load(networks: Vec<Row>, endpoints: Vec<Row>) -> Result<Self, Unreadable> {
        Ok(Self { networks: rows(networks)?, endpoints: rows(endpoints)? })
    }

    /// What a network is.
    #[must_use]
    pub fn network(&self, id: &DockerId) -> Option<&Binding> {
        self.networks.get(id)
    }

    /// All networks.
    pub fn networks(&self) -> impl Iterator<Item = (&DockerId, &Binding)> {
        self.networks.iter()
    }

    /// An endpoint.
    #[must_use]
    pub fn endpoint(&self, id: &DockerId) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = (&DockerId, &Endpoint)> {
        self.endpoints.iter()
    }

    /// The write that binds a network.
    #[must_use]
    pub fn save_network(id: &DockerId, binding: &Binding) -> Write {
        write(Table::DockerNetworks, id, Some(encode(binding)))
    }

    /// The write that forgets a network.
    #[must_use]
    pub fn forget_network(id: &DockerId) -> Write {
        write(Table::DockerNetworks, id, None)
    }

    /// The write that remembers an endpoint.
    #[must_use]
    pub fn save_endpoint(id: &DockerId, endpoint: &Endpoint) -> Write {
        write(Table::DockerEndpoints, id, Some(encode(endpoint)))
    }

    /// The write that forgets an endpoint.
    #[must_use]
    pub fn forget_endpoint(id: &DockerId) -> Write {
        write(Table::DockerEndpoints, id, None)
    }

    /// Takes in a binding that has been made durable.
    pub fn put_network(&mut self, id: DockerId, binding: Binding) {
        self.networks.insert(id, binding);
    }

    /// Takes in that a network is forgotten, which is durable.
    pub fn remove_network(&mut self, id: &DockerId) {
        self.networks.remove(id);
    }

    /// Takes in an endpoint that has been made durable.
    pub fn put_endpoint(&mut self, id: DockerId, endpoint: Endpoint) {
        self.endpoints.insert(id, endpoint);
    }

    /// Takes in that an endpoint is forgotten, which is durable.
    pub fn remove_endpoint(&mut self, id: &DockerId) {
        self.endpoints.remove(id);
    }
}

fn write(table: Table, id: &DockerId, value: Option<Vec<u8>>) -> Write {
    Write { table, key: id.as_str().as_bytes().to_vec(), value }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data of bounded size has an encoding")
}

fn rows<T: DeserializeOwned>(rows: Vec<Row>) -> Result<BTreeMap<DockerId, T>, Unreadable> {
    let read = |(key, value): Row| {
        let id = String::from_utf8(key).ok().and_then(|text| text.parse().ok());
        Ok((id.ok_or(Unreadable)?, serde_json::from_slice(&value).map_err(|_| Unreadable)?))
    };
    rows.into_iter().map(read).collect()
}
