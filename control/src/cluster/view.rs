//! What one other node says, decoded.

use std::collections::{BTreeMap, BTreeSet};

use weft_dataplane::wire::Vni;

use super::grants::Grants;
use super::record::{self, Endpoint, Key, Membership, Ranges};
use crate::gossip::{Record, RecordKey};
use crate::model::{EndpointId, NetworkId};

/// One origin's records by network; what cannot be decoded is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) memberships: BTreeMap<NetworkId, Vni>,
    pub(super) endpoints: BTreeMap<NetworkId, BTreeMap<EndpointId, Endpoint>>,
    /// Grants it publishes, by network and pool.
    pub(super) grants: BTreeMap<(NetworkId, u8), Grants>,
    /// Networks whose definition it hands on.
    pub(super) definitions: BTreeSet<NetworkId>,
    /// Networks whose removal it hands on.
    pub(super) removals: BTreeSet<NetworkId>,
    /// Networks it says anything about, but that they are gone.
    pub(super) mentions: BTreeSet<NetworkId>,
}

/// Statements of grants, by network and pool, not opened yet.
pub(super) type Statements = Vec<((NetworkId, u8), Vec<u8>)>;

impl View {
    pub(super) fn decode<'r>(
        records: impl Iterator<Item = (&'r RecordKey, &'r Record)>,
    ) -> (Self, Statements) {
        let mut statements = Statements::new();
        let mut view = Self::default();
        for (key, record) in records {
            let body = record.body();
            let key = Key::decode(key.as_bytes());
            view.mentions.extend(key.and_then(Key::mentions));
            match key {
                Some(Key::Definition(network)) => drop(view.definitions.insert(network)),
                Some(Key::Removal(network)) => drop(view.removals.insert(network)),
                Some(Key::Membership(network)) => {
                    let vni = record::decode(body).and_then(Membership::vni);
                    view.memberships.extend(vni.map(|vni| (network, vni)));
                }
                Some(Key::Endpoint(network, id)) => {
                    let endpoint = record::decode_endpoint(body).map(|endpoint| (id, endpoint));
                    view.endpoints.entry(network).or_default().extend(endpoint);
                }
                Some(Key::Ranges(network, pool, _)) => {
                    let ranges: Option<Ranges> = record::decode(body);
                    let listed = ranges.into_iter().flat_map(|ranges| ranges.statements);
                    statements.extend(listed.map(|statement| ((network, pool), statement)));
                }
                None => {}
            }
        }
        (view, statements)
    }

    /// Networks whose endpoints or membership differ.
    pub(super) fn differing(&self, other: &Self) -> BTreeSet<NetworkId> {
        let networks = |view: &Self| -> Vec<NetworkId> {
            view.memberships.keys().chain(view.endpoints.keys()).copied().collect()
        };
        let mut all: BTreeSet<NetworkId> = networks(self).into_iter().chain(networks(other)).collect();
        all.retain(|id| {
            self.memberships.get(id) != other.memberships.get(id)
                || self.endpoints.get(id) != other.endpoints.get(id)
        });
        all
    }

    /// Networks it says anything about.
    pub(super) fn networks(&self) -> BTreeSet<NetworkId> {
        self.memberships.keys().chain(self.endpoints.keys()).copied().collect()
    }
}
