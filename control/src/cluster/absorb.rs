//! Taking in what other nodes say.
//!
//! Whatever is heard in one turn becomes durable in at most two commits (definitions and removals, then ranges),
//! however many networks it is about: the loop that calls answers probes too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Cluster;
use super::networks::{MAX_NETWORKS, Network, Removed};
use super::record::Key;
use super::view::View;
use crate::gossip::{Gossip, MemberState, Record};
use crate::ledger;
use crate::model::{NetworkId, NodeId};
use crate::storage::{Table, Write};
use crate::timestamp::UnixMillis;

/// Statements opened in one turn; each costs the check of a signature. The rest waits for the next turn.
const STATEMENTS: usize = 64;
/// Grants opened in one turn.
const GRANTS: usize = 256;
/// Pause between two turns.
const PAUSE: Duration = Duration::from_millis(10);

/// Statements of others that are still to be opened, and those that cannot be.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    /// Who hands some on, since the last turn had enough.
    origins: BTreeSet<NodeId>,
    /// Whose grants were not all opened.
    unseen: BTreeSet<NodeId>,
    /// When they are looked at again.
    pub(super) due: Option<Instant>,
    /// Versions of records whose statement is refused: their signatures are not checked again.
    refused: BTreeMap<NetworkId, BTreeMap<(NodeId, Kind), u64>>,
}

/// What a statement is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Removal,
    Definition,
}

/// Statements opened in one turn.
#[derive(Default)]
struct News {
    opened: usize,
    removals: BTreeMap<NetworkId, Removed>,
    networks: BTreeMap<NetworkId, Network>,
}

impl Unheard {
    fn refuse(&mut self, id: NetworkId, teller: (NodeId, Kind), version: u64) {
        self.refused.entry(id).or_default().insert(teller, version);
    }

    fn is_refused(&self, id: NetworkId, teller: (NodeId, Kind), version: u64) -> bool {
        self.refused.get(&id).is_some_and(|tellers| tellers.get(&teller) == Some(&version))
    }

    /// The network has come to be known, which may make a removal count that did not.
    pub(super) fn reconsider(&mut self, id: NetworkId) {
        self.refused.remove(&id);
    }

    /// Keeps no more about an origin than its records do.
    fn prune(&mut self, gossip: &Gossip, origin: NodeId) {
        self.refused.retain(|&id, tellers| {
            tellers.retain(|&(node, kind), version| {
                node != origin || statement(gossip, node, kind, id).is_some_and(|r| r.version() == *version)
            });
            !tellers.is_empty()
        });
    }
}

impl Cluster {
    /// Takes in everything these origins say.
    pub(super) fn absorb(&mut self, now: Instant, mut origins: BTreeSet<NodeId>) {
        origins.remove(&self.me);
        let late = self.hear_papers(now, &mut origins);
        self.hear_keys(now, &origins);
        let learned = self.hear_statements(now, &origins);
        self.book.begin();
        let mut pools = BTreeSet::new();
        for &origin in &origins {
            pools.extend(self.see(now, origin));
        }
        // Grants in a network may have been heard before the network itself.
        pools.extend(learned.into_iter().flat_map(|id| (0..=u8::MAX).map(move |pool| (id, pool))));
        self.hear_grants(now, pools);
        if !late.is_empty() {
            self.unheard.unseen.extend(late);
            self.unheard.due = Some(now + PAUSE);
        }
    }

    /// Goes on with statements that were too many for one turn.
    pub(super) fn absorb_rest(&mut self, now: Instant) {
        if self.unheard.due.is_some_and(|due| due <= now) {
            let origins = std::mem::take(&mut self.unheard.unseen);
            self.absorb(now, origins);
        }
    }

    /// Opens statements, makes them durable together and takes them in; answers which networks came to be known.
    fn hear_statements(&mut self, now: Instant, origins: &BTreeSet<NodeId>) -> Vec<NetworkId> {
        self.unheard.due = None;
        let mut tellers = std::mem::take(&mut self.unheard.origins);
        tellers.extend(origins);
        tellers.retain(|teller| self.counts(now, *teller));
        let mut news = News::default();
        let wall = self.now_wall(now);
        tellers.iter().for_each(|&teller| self.unheard.prune(&self.gossip, teller));
        // A removal wins, so it must be known before the definition that another node still hands on.
        for kind in [Kind::Removal, Kind::Definition] {
            tellers.iter().for_each(|&teller| self.open_statements(&mut news, teller, kind, wall));
        }
        if news.opened >= STATEMENTS {
            self.unheard.origins = tellers;
            self.unheard.due = Some(now + PAUSE);
        }
        self.take_in(news)
    }

    fn open_statements(&mut self, news: &mut News, origin: NodeId, kind: Kind, wall: UnixMillis) {
        for (id, record) in statements(&self.gossip, origin, kind) {
            if news.opened >= STATEMENTS {
                return;
            }
            let known = self.removed.contains_key(&id) || news.removals.contains_key(&id);
            let teller = (origin, kind);
            if known || self.unheard.is_refused(id, teller, record.version()) {
                continue;
            }
            let opened = match kind {
                Kind::Removal => self.open_removal(id, wall, record.body()).map(|removed| {
                    news.removals.insert(id, removed);
                }),
                Kind::Definition => {
                    let here = self.networks.contains_key(&id) || news.networks.contains_key(&id);
                    if here || self.networks.len() + news.networks.len() >= MAX_NETWORKS {
                        continue;
                    }
                    Network::open(id, record.body(), self.me).map(|network| {
                        news.networks.insert(id, network);
                    })
                }
            };
            news.opened += 1;
            if opened.is_none() {
                self.unheard.refuse(id, teller, record.version());
            }
        }
    }

    fn take_in(&mut self, news: News) -> Vec<NetworkId> {
        let mut writes: Vec<Write> = Vec::new();
        for (&id, removed) in &news.removals {
            writes.extend(self.removal_rows(id, removed));
        }
        for (&id, network) in &news.networks {
            writes.push(ledger::put(Table::Networks, id.0, network.statement.clone()));
        }
        if self.ledger.commit("network-learn", writes).is_err() {
            self.dirty.views = true;
            return Vec::new();
        }
        for (id, removed) in news.removals {
            self.drop_network(id, removed);
        }
        let learned = news.networks.keys().copied().collect();
        for (id, network) in news.networks {
            self.add_network(id, network);
        }
        learned
    }

    /// Decodes an origin's records anew; answers the pools of which it publishes other grants than before.
    fn see(&mut self, now: Instant, origin: NodeId) -> BTreeSet<(NetworkId, u8)> {
        let (mut view, statements) = View::decode(self.gossip.records(origin));
        for (place, statement) in statements {
            if self.book.checked() >= GRANTS {
                self.unheard.unseen.insert(origin);
                self.unheard.due = Some(now + PAUSE);
                break;
            }
            let grant = self.book.open(&statement);
            let grant = grant.filter(|grant| (grant.grant.network, grant.grant.pool) == place);
            if let Some(grant) = grant {
                view.grants.entry(place).or_default().insert(grant.id, grant);
            }
        }
        if !self.gossip.is_complete(origin) {
            // Grants move between records: until all of those are here, what is missing is not withdrawn.
            for (place, grants) in self.views.get(&origin).into_iter().flat_map(|view| &view.grants) {
                let known = grants.iter().map(|(id, grant)| (*id, Arc::clone(grant)));
                view.grants.entry(*place).or_default().extend(known);
            }
        }
        let before = self.views.insert(origin, view);
        let (new, before) = (before.is_none(), before.unwrap_or_default());
        let view = &self.views[&origin];
        // Whoever takes a removed network for an existing one is told, however long ago it was removed.
        self.dirty.records.extend(view.mentions.symmetric_difference(&before.mentions).copied());
        self.dirty.segments.extend(view.differing(&before));
        self.sealed.dirty |= new || view.memberships != before.memberships;
        let places = view.grants.keys().chain(before.grants.keys()).copied();
        let changed = places.filter(|place| view.grants.get(place) != before.grants.get(place)).collect();
        let alive = self.gossip.member(origin).is_some_and(|member| member.state == MemberState::Alive);
        if !alive {
            self.down.entry(origin).or_insert(now);
        }
        changed
    }
}

fn statements(gossip: &Gossip, origin: NodeId, kind: Kind) -> impl Iterator<Item = (NetworkId, &Record)> {
    gossip.records(origin).filter_map(move |(key, record)| match (Key::decode(key.as_bytes())?, kind) {
        (Key::Removal(id), Kind::Removal) | (Key::Definition(id), Kind::Definition) => Some((id, record)),
        _ => None,
    })
}

fn statement(gossip: &Gossip, origin: NodeId, kind: Kind, id: NetworkId) -> Option<&Record> {
    let key = match kind {
        Kind::Removal => Key::Removal(id),
        Kind::Definition => Key::Definition(id),
    };
    gossip.record(origin, &crate::gossip::RecordKey::new(&key.encode())?)
}
