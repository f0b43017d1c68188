//! The port to durable state: small tables of bytes, written in atomic, fsynced batches.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A table of the node's state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Identity, boot epoch, schema version.
    Node,
    /// Definitions of networks, of whoever made them.
    Networks,
    /// Removed networks.
    Removed,
    /// Who owns which address ranges.
    Ranges,
    /// Endpoints of this node and their leases.
    Endpoints,
    /// Addresses that rest before they are handed out again.
    Quarantine,
    /// Sandboxes of this node.
    Sandboxes,
    /// Addresses of members seen before.
    Peers,
    /// Root, own certificate, settings of this node; certificates, revocations and tokens seen.
    Trust,
    /// Gossip keys by epoch.
    Ring,
    /// Published ports of this node's sandboxes.
    Ports,
    /// Networks of this node alone.
    LocalNetworks,
    /// Their endpoints.
    LocalEndpoints,
    /// Addresses held for endpoints to come.
    Holds,
    /// Networks of the Docker engine of this host.
    DockerNetworks,
    /// Endpoints of its containers.
    DockerEndpoints,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 16] = [
        Self::Node,
        Self::Networks,
        Self::Removed,
        Self::Ranges,
        Self::Endpoints,
        Self::Quarantine,
        Self::Sandboxes,
        Self::Peers,
        Self::Trust,
        Self::Ring,
        Self::Ports,
        Self::LocalNetworks,
        Self::LocalEndpoints,
        Self::Holds,
        Self::DockerNetworks,
        Self::DockerEndpoints,
    ];
}

/// One row to put, or with no value to delete.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Key, at most 256 octets.
    pub key: Vec<u8>,
    /// New value, or `None` to delete the row.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Write {
    /// Rows hold keys, so what is written is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.value.as_ref().map(Vec::len);
        f.debug_struct("Write").field("table", &self.table).field("octets", &octets).finish_non_exhaustive()
    }
}

/// A row as it lies in a table.
pub type Row = (Vec<u8>, Vec<u8>);

/// State could not be read or made durable; nothing of the batch was written.
#[derive(Debug, thiserror::Error)]
#[error("state at {step}: {reason}")]
pub struct StorageError {
    /// The step that was being made durable.
    pub step: &'static str,
    /// What the file system or the store said.
    pub reason: String,
}

/// Durable state.
pub trait Storage: Send + Sync {
    /// Writes all of `writes` or none, and returns only once they survive a power cut.
    ///
    /// `step` names the promise being made; tests kill the agent before and after each.
    ///
    /// # Errors
    /// The medium's fault (full, read-only, broken); no row has changed.
    fn commit(&self, step: &'static str, writes: &[Write]) -> Result<(), StorageError>;

    /// Every row of `table`, in key order.
    ///
    /// # Errors
    /// The medium's fault.
    fn load(&self, table: Table) -> Result<Vec<Row>, StorageError>;
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// State in memory, for tests and simulations: it survives the node, not the process.
#[derive(Default)]
pub struct Memory {
    tables: Mutex<Rows>,
    full: AtomicBool,
    lies: AtomicBool,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Clone for Memory {
    /// A copy of the rows, as a copied disk.
    fn clone(&self) -> Self {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { tables: Mutex::new(tables), ..Self::default() }
    }
}

impl Memory {
    /// From now on every commit fails as on a full disk, or works again.
    pub fn fail(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// From now on every commit is carried out and reported as failed, as when fsync fails, or works again.
    pub fn fail_after_writing(&self, lies: bool) {
        self.lies.store(lies, Ordering::Relaxed);
    }
}

impl Storage for Memory {
    fn commit(&self, step: &'static str, writes: &[Write]) -> Result<(), StorageError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StorageError { step, reason: "no space left on device".to_owned() });
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            let place = (write.table, write.key.clone());
            match &write.value {
                Some(value) => tables.insert(place, value.clone()),
                None => tables.remove(&place),
            };
        }
        if self.lies.load(Ordering::Relaxed) {
            return Err(StorageError { step, reason: "input/output error".to_owned() });
        }
        Ok(())
    }

    fn load(&self, table: Table) -> Result<Vec<Row>, StorageError> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let of_table = tables.range((table, Vec::new())..).take_while(|((t, _), _)| *t == table);
        Ok(of_table.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }
}
