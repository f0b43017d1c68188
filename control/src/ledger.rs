//! Durable rows with a mirror in memory, so that a failed commit leaves no doubt behind.
//!
//! When a commit fails, the medium may hold the old rows or the new ones. The next commit writes the rows of the
//! failed one again as memory has them, so nothing is built on what was never promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::storage::{Storage, StorageError, Table, Write};
use crate::trust::is_secret;

type Place = (Table, Vec<u8>);

/// Durable rows of one owner: no other may write its tables.
pub(crate) struct Ledger {
    storage: Arc<dyn Storage>,
    rows: BTreeMap<Place, Vec<u8>>,
    doubtful: BTreeSet<Place>,
    /// What the last failed commit said, until one succeeds.
    trouble: Option<String>,
}

impl Ledger {
    /// Reads `tables`.
    ///
    /// # Errors
    /// The medium's fault.
    pub(crate) fn load(storage: Arc<dyn Storage>, tables: &[Table]) -> Result<Self, StorageError> {
        let mut rows = BTreeMap::new();
        for &table in tables {
            // Secrets have an owner that wipes them.
            let shared = storage.load(table)?.into_iter().filter(|(key, _)| !is_secret(table, key));
            rows.extend(shared.map(|(key, value)| ((table, key), value)));
        }
        Ok(Self { storage, rows, doubtful: BTreeSet::new(), trouble: None })
    }

    /// Rows of `table` whose key begins with `prefix`.
    pub(crate) fn rows<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.rows
            .range((table, prefix.to_vec())..)
            .take_while(move |((t, key), _)| *t == table && key.starts_with(prefix))
            .map(|((_, key), value)| (key.as_slice(), value.as_slice()))
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(&(table, key.to_vec())).map(Vec::as_slice)
    }

    /// Makes `writes` durable, all or none; rows that are as wanted already cost nothing.
    pub(crate) fn commit(&mut self, step: &'static str, writes: Vec<Write>) -> Result<(), StorageError> {
        let changes = |w: &Write| self.rows.get(&(w.table, w.key.clone())) != w.value.as_ref();
        let wanted: Vec<Write> = writes.into_iter().filter(changes).collect();
        if wanted.is_empty() && self.doubtful.is_empty() {
            return Ok(());
        }
        let restored = self.doubtful.iter().map(|place| Write {
            table: place.0,
            key: place.1.clone(),
            value: self.rows.get(place).cloned(),
        });
        let batch: Vec<Write> = restored.chain(wanted.iter().cloned()).collect();
        if let Err(error) = self.storage.commit(step, &batch) {
            self.doubtful.extend(wanted.into_iter().map(|w| (w.table, w.key)));
            self.trouble = Some(error.to_string());
            return Err(error);
        }
        self.doubtful.clear();
        self.trouble = None;
        for write in wanted {
            match write.value {
                Some(value) => self.rows.insert((write.table, write.key), value),
                None => self.rows.remove(&(write.table, write.key)),
            };
        }
        Ok(())
    }

    /// Makes a secret durable, of which no copy is kept here. After a failure either row may be there: the caller goes
    /// on with what it had, and tries again.
    pub(crate) fn commit_secret(&mut self, step: &'static str, write: Write) -> Result<(), StorageError> {
        self.storage.commit(step, &[write]).inspect_err(|error| self.trouble = Some(error.to_string()))
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// A row to put.
pub(crate) fn put(table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Write {
    Write { table, key: key.into(), value: Some(value) }
}

/// A row to delete.
pub(crate) fn delete(table: Table, key: impl Into<Vec<u8>>) -> Write {
    Write { table, key: key.into(), value: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Memory;

    #[test]
    fn rows_of_a_failed_commit_are_written_again_as_memory_has_them() {
        let memory = Arc::new(Memory::default());
        let mut ledger = Ledger::load(memory.clone(), &[Table::Node, Table::Peers]).expect("loads");
        ledger.commit("a", vec![put(Table::Node, *b"k", vec![1])]).expect("committed");
        memory.fail_after_writing(true); // the medium took the rows and said it did not
        let failed =
            ledger.commit("b", vec![put(Table::Node, *b"k", vec![2]), put(Table::Peers, *b"p", vec![])]);
        assert!(failed.is_err() && ledger.trouble().is_some());
        assert_eq!(memory.load(Table::Node).expect("loads"), [(b"k".to_vec(), vec![2])], "it did");
        memory.fail_after_writing(false);
        ledger.commit("c", vec![put(Table::Node, *b"other", vec![3])]).expect("committed");
        assert_eq!(memory.load(Table::Node).expect("loads")[0], (b"k".to_vec(), vec![1]));
        assert_eq!(memory.load(Table::Peers).expect("loads"), []);
        assert_eq!(ledger.trouble(), None);
    }
}
