//! Start: durable state read back, the boot epoch raised before the first packet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::attach::Own;
use super::grants::{Grants, SignedGrant};
use super::keys::Keys;
use super::networks::{Network, Removed};
use super::papers::{Rooted, Trust};
use super::record::{decode, encode};
use super::sealed::Sealed;
use super::{Cluster, ClusterConfig, ClusterError, Dirty, JUDGE_EVERY, TICK};
use crate::gossip::{Gossip, GossipConfig};
use crate::identity::Identity;
use crate::ledger::{self, Ledger};
use crate::model::{EndpointId, NetworkId};
use crate::storage::{Storage, Table, Write};
use crate::timestamp::UnixMillis;
use crate::trust::Papers;

/// Tables the cluster writes.
const TABLES: [Table; 9] = [
    Table::Node,
    Table::Networks,
    Table::Removed,
    Table::Ranges,
    Table::Endpoints,
    Table::Quarantine,
    Table::Holds,
    Table::Peers,
    Table::Trust,
];
pub(super) const BOOT_EPOCH: &[u8] = b"boot_epoch";
/// Remembered addresses that are tried at start.
const PEERS_TRIED: usize = 32;

/// A seed for one purpose, which tells nothing of those for others.
fn part(seed: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(Sha256::new().chain_update(label).chain_update(seed).finalize().into())
}

impl Cluster {
    /// Reads the state back, raises the boot epoch durably and publishes what this node had published.
    ///
    /// `seed` is from the operating system's generator. The state holds the node's papers.
    /// Endpoints come back as they were; the agent detaches those whose sandbox is gone
    /// ([`Cluster::own_endpoints`]).
    ///
    /// # Errors
    /// The state is in no cluster yet, or cannot be read or written.
    pub fn start(
        config: ClusterConfig,
        storage: Arc<dyn Storage>,
        seed: [u8; 32],
        now: Instant,
        wall: UnixMillis,
    ) -> Result<Self, ClusterError> {
        let papers = Papers::load(&*storage)?.ok_or(ClusterError::NoCluster)?;
        let mut ledger = Ledger::load(storage, &TABLES)?;
        let boot_epoch = boot_epoch(&ledger)?;
        ledger.commit("boot", vec![ledger::put(Table::Node, BOOT_EPOCH, encode(&boot_epoch))])?;
        // This generator's state shows all it ever gave: the keys of sessions do not come from it.
        let seed = Zeroizing::new(seed);
        let mut rng = StdRng::from_seed(*part(&seed, b"weft cluster generator 1"));
        let identity = Identity::from_secret(&papers.identity.secret());
        let gossip = GossipConfig {
            name: config.name.clone(),
            advertise: config.advertise,
            data_port: config.data_port,
            cluster: papers.cluster(),
            ring: papers.ring.clone(),
            credentials: Some(Arc::new(Rooted(papers.root_hash()))),
            boot_epoch,
        };
        let sealed = Sealed::new(
            papers.cluster(),
            &config,
            &identity,
            boot_epoch,
            part(&seed, b"weft sessions 1"),
            now,
        );
        let gossip = Gossip::new(gossip, Identity::from_secret(&identity.secret()), rng.random(), now);
        let mut cluster = Self {
            me: identity.node_id(),
            gossip,
            sealed,
            identity,
            boot_epoch,
            ledger,
            keys: Keys::new(papers.ring.clone(), config.timing.keys, part(&seed, b"weft ring keys 1"), now),
            trust: Trust::new(papers),
            rng,
            clocks: (now, wall),
            config,
            networks: BTreeMap::new(),
            removed: BTreeMap::new(),
            removed_by_age: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            holds: BTreeMap::new(),
            views: BTreeMap::new(),
            unheard: Default::default(),
            book: Default::default(),
            down: BTreeMap::new(),
            attaching: BTreeMap::new(),
            last_ticket: 0,
            fetches: BTreeMap::new(),
            answered: VecDeque::new(),
            published: BTreeMap::new(),
            segments: BTreeMap::new(),
            contested: BTreeMap::new(),
            ignored: BTreeMap::new(),
            dirty: Dirty::default(),
            renamed: BTreeSet::new(),
            tick_at: now + TICK,
            judge_at: now + JUDGE_EVERY,
            orphans_at: now + TICK,
            leaving: None,
            left: false,
            clashes: BTreeMap::new(),
            events: VecDeque::new(),
        };
        cluster.load_papers(now);
        cluster.tell_keys(now);
        cluster.load(now)?;
        cluster.contact_peers(now);
        cluster.settle(now);
        Ok(cluster)
    }

    fn load(&mut self, now: Instant) -> Result<(), ClusterError> {
        self.load_networks()?;
        self.load_endpoints()?;
        self.load_holds(now)?;
        self.load_ranges(now)?;
        self.dirty.records.extend(self.networks.keys());
        self.dirty.sponsors = true;
        self.dirty.segments.extend(self.networks.keys());
        Ok(())
    }

    fn load_networks(&mut self) -> Result<(), ClusterError> {
        for (key, row) in self.ledger.rows(Table::Removed, &[]) {
            let id = NetworkId(key.try_into().map_err(|_| corrupt("removed networks"))?);
            let removed = Removed::restore(id, row).ok_or(corrupt("removed networks"))?;
            self.removed_by_age.insert((removed.at, id));
            self.removed.insert(id, removed);
        }
        for (key, statement) in self.ledger.rows(Table::Networks, &[]) {
            let id = NetworkId(key.try_into().map_err(|_| corrupt("networks"))?);
            let network = Network::open(id, statement, self.me).ok_or(corrupt("networks"))?;
            self.networks.insert(id, network);
        }
        Ok(())
    }

    fn load_endpoints(&mut self) -> Result<(), ClusterError> {
        for (key, value) in self.ledger.rows(Table::Endpoints, &[]) {
            let id = EndpointId(key.try_into().map_err(|_| corrupt("endpoints"))?);
            let own: Own = decode(value).ok_or(corrupt("endpoints"))?;
            let network = self.networks.get_mut(&own.network).ok_or(corrupt("endpoints"))?;
            for &ip in &own.endpoint.ips {
                network.take(ip, id);
            }
            self.endpoints.insert(id, Own { announced: true, ..own });
        }
        Ok(())
    }

    /// Grants that this node knows, and addresses at rest, which rest anew in full: no clock tells how long the agent
    /// was away.
    fn load_ranges(&mut self, now: Instant) -> Result<(), ClusterError> {
        let mut idle = Vec::new();
        for (&id, network) in &mut self.networks {
            for (index, state) in network.pools.iter_mut().enumerate() {
                let prefix = pool_key(id, index);
                let mut grants = Grants::new();
                for (_, statement) in self.ledger.rows(Table::Ranges, &prefix) {
                    let grant = self.book.open(statement).filter(|grant| grant.is_of(id, index));
                    let grant = grant.ok_or(corrupt("ranges"))?;
                    grants.insert(grant.id, grant);
                }
                idle.extend(state.restore(grants).iter().map(|grant| {
                    ledger::delete(Table::Ranges, [prefix.as_slice(), grant.as_slice()].concat())
                }));
                for (key, _) in self.ledger.rows(Table::Quarantine, &prefix) {
                    let address = key.last_chunk().ok_or(corrupt("quarantine"))?;
                    state.pool.rest(u128::from_be_bytes(*address), now + self.config.timing.quarantine);
                }
            }
        }
        self.ledger.commit("boot", idle)?;
        Ok(())
    }

    fn contact_peers(&mut self, now: Instant) {
        let peers = self.ledger.rows(Table::Peers, &[]).filter_map(|(_, value)| decode::<SocketAddr>(value));
        let peers: Vec<SocketAddr> = peers.take(PEERS_TRIED).collect();
        if !peers.is_empty() {
            self.gossip.join(now, &peers);
        }
    }

    /// Writes down where members are, to find the cluster again after a restart; no promise, so a failure waits.
    pub(super) fn remember_peers(&mut self) {
        if !std::mem::take(&mut self.dirty.peers) {
            return;
        }
        let mut writes: Vec<Write> =
            self.ledger.rows(Table::Peers, &[]).map(|(key, _)| ledger::delete(Table::Peers, key)).collect();
        let others = self.gossip.members().filter(|member| member.id != self.me);
        writes.extend(
            others
                .filter(|member| member.state != crate::gossip::MemberState::Left)
                .map(|member| ledger::put(Table::Peers, member.id.0, encode(&member.addr))),
        );
        self.dirty.peers = self.ledger.commit("peers", last_of_each_row(writes)).is_err();
    }
}

pub(super) fn corrupt(what: &'static str) -> ClusterError {
    ClusterError::Corrupt { what }
}

fn boot_epoch(ledger: &Ledger) -> Result<u32, ClusterError> {
    let Some(stored) = ledger.get(Table::Node, BOOT_EPOCH) else { return Ok(1) };
    let before: u32 = decode(stored).ok_or(corrupt("boot epoch"))?;
    before.checked_add(1).ok_or(corrupt("boot epoch"))
}

fn last_of_each_row(writes: Vec<Write>) -> Vec<Write> {
    let rows: BTreeMap<_, _> = writes.into_iter().map(|w| ((w.table, w.key), w.value)).collect();
    rows.into_iter().map(|((table, key), value)| Write { table, key, value }).collect()
}

/// Key prefix of a pool's rows.
pub(super) fn pool_key(network: NetworkId, pool: usize) -> Vec<u8> {
    let mut key = network.0.to_vec();
    // At most 16 subnets.
    key.push(u8::try_from(pool).unwrap_or(u8::MAX));
    key
}

/// The durable row of a grant: its statement. Rows are a set, so they are only ever added.
pub(super) fn grant_row(grant: &SignedGrant) -> Write {
    let mut key = pool_key(grant.grant.network, usize::from(grant.grant.pool));
    key.extend(grant.id);
    ledger::put(Table::Ranges, key, grant.statement.clone())
}

/// Key of a resting address.
pub(super) fn rest_key(network: NetworkId, pool: usize, address: u128) -> Vec<u8> {
    let mut key = pool_key(network, pool);
    key.extend(address.to_be_bytes());
    key
}
