//! The tables that guard networks' bridges: loaded, counted, reported where they cannot be.

use std::collections::{BTreeMap, BTreeSet};

use crate::driver::{Guard, TABLE};
use crate::io::namespace::Namespace;
use crate::io::nft;
use crate::plan::Place;

/// What is known of the tables of all networks.
#[derive(Debug, Default)]
pub(super) struct Guards {
    loaded: BTreeMap<Place, Guard>,
    /// Where there is a table.
    tables: BTreeSet<Place>,
    faults: BTreeMap<Place, String>,
    told: Option<String>,
    /// What tables had counted when they went.
    counted: BTreeMap<String, u64>,
}

impl Guards {
    /// What guards the bridges there as far as we know.
    pub(super) fn loaded(&self, at: Place) -> Option<&Guard> {
        self.loaded.get(&at)
    }

    /// Forgets what is loaded, so that everything is loaded again: somebody may have changed it. That there is nothing
    /// to guard stays known.
    pub(super) fn doubt(&mut self) {
        self.loaded.retain(|_, guard| guard.endpoints() == 0);
    }

    /// Loads a table. Where that is not possible the network works without, and the reason is news.
    pub(super) fn load(&mut self, at: Place, namespace: &Namespace, guard: &Guard) {
        if guard.endpoints() == 0 {
            self.retire(at, Some(namespace));
        }
        let changes = self.loaded.get(&at).and_then(|before| guard.changes(before));
        match nft::apply(namespace, &changes.unwrap_or_else(|| guard.batch())) {
            Ok(()) => {
                self.loaded.insert(at, guard.clone());
                if guard.endpoints() > 0 {
                    self.tables.insert(at);
                }
                self.faults.remove(&at);
            }
            // What cannot load a table has not loaded one before either.
            Err(_) if guard.endpoints() == 0 => drop(self.loaded.insert(at, guard.clone())),
            Err(fault) => {
                self.loaded.remove(&at);
                self.faults.insert(at, fault.to_string());
            }
        }
    }

    /// Keeps what a table has counted; its namespace is about to go.
    pub(super) fn retire(&mut self, at: Place, namespace: Option<&Namespace>) {
        self.loaded.remove(&at);
        self.faults.remove(&at);
        if self.tables.remove(&at)
            && let Some(namespace) = namespace
        {
            add(&mut self.counted, nft::counters(namespace, TABLE).unwrap_or_default());
        }
    }

    /// Where there is a table.
    pub(super) fn tables(&self) -> impl Iterator<Item = Place> + '_ {
        self.tables.iter().copied()
    }

    /// Frames dropped so far, by reason, with those of the tables in `namespaces`.
    pub(super) fn drops<'n>(&self, namespaces: impl Iterator<Item = &'n Namespace>) -> BTreeMap<String, u64> {
        let mut all = self.counted.clone();
        namespaces.for_each(|namespace| add(&mut all, nft::counters(namespace, TABLE).unwrap_or_default()));
        all
    }

    /// Why some network is not guarded, if that has changed since it was last asked.
    pub(super) fn news(&mut self) -> Option<Option<String>> {
        let fault = self.faults.values().next().cloned();
        if fault == self.told {
            return None;
        }
        self.told.clone_from(&fault);
        Some(fault)
    }
}

fn add(all: &mut BTreeMap<String, u64>, counted: BTreeMap<String, u64>) {
    for (name, packets) in counted {
        *all.entry(name).or_default() += packets;
    }
}
