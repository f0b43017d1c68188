//! Networks: made, learned, named, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use weft_dataplane::wire::Vni;

use super::grants::PoolState;
use super::record::{DEFINITION, Endpoint, REMOVAL, Removal, hear, state};
use super::{Cluster, ClusterError, ClusterEvent};
use crate::api::NetworkCreate;
use crate::ipam::Owner;
use crate::ledger;
use crate::model::{EndpointId, NetworkId, NodeId};
use crate::network::{Definition, MAX_DEFINITION, NetworkError, NetworkWish, Options, choose};
use crate::reconcile::automatic_vni;
use crate::storage::{Table, Write};
use crate::timestamp::UnixMillis;

/// Networks a node knows; further ones of others are not taken in.
pub(super) const MAX_NETWORKS: usize = 1_000;
/// Removed networks a node remembers.
const MAX_REMOVED: usize = 65_536;
/// Of those, how many may be of networks that were never known here: what any member can make up.
const MAX_REMOVED_UNKNOWN: usize = 4_096;
/// Removals that are told to everybody; older ones are told to who still mentions the network.
const RECENT: usize = 200;
/// Nodes that hand on a definition beside its creator and the nodes in the network.
const SPONSORS: usize = 3;
/// Interval at which definitions that nobody hands on are looked for.
const ORPHAN_PERIOD: std::time::Duration = std::time::Duration::from_secs(10);

/// A network as this node knows it.
pub(super) struct Network {
    pub(super) definition: Definition,
    /// The definition as its creator signed it.
    pub(super) statement: Vec<u8>,
    pub(super) options: Options,
    pub(super) pools: Vec<PoolState>,
    /// Nobody else hands its definition on.
    pub(super) orphan: bool,
}

/// A network that is gone.
pub(super) struct Removed {
    pub(super) author: NodeId,
    pub(super) at: UnixMillis,
    /// When this node learned of it, by its own clock: the author's may be wrong by years.
    pub(super) heard: UnixMillis,
    pub(super) statement: Vec<u8>,
    /// Nobody else tells it who should know.
    pub(super) orphan: bool,
}

impl Network {
    /// The network of a statement, if the statement is its creator's and sound.
    pub(super) fn open(id: NetworkId, statement: &[u8], me: NodeId) -> Option<Self> {
        let (author, definition): (NodeId, Definition) = hear(DEFINITION, statement)?;
        let options = definition.check().ok()?;
        let space = |subnet: &crate::network::Subnet| subnet.space().from_the_top(options.engine_addresses);
        let pool = |subnet| PoolState::new(me, space(subnet), author);
        let pools = definition.subnets.iter().map(pool).collect();
        let statement = statement.to_vec();
        (definition.id == id && definition.creator == author).then_some(Self {
            definition,
            statement,
            options,
            pools,
            orphan: false,
        })
    }

    /// The pool that holds `ip`.
    pub(super) fn pool_of(&self, ip: IpAddr) -> Option<(usize, u128)> {
        self.pools.iter().enumerate().find_map(|(index, state)| Some((index, state.pool.locate(ip)?)))
    }

    /// An address with the prefix length of its subnet.
    pub(super) fn with_prefix(&self, ip: IpAddr) -> IpNet {
        let subnet = self.pool_of(ip).map(|(pool, _)| self.pools[pool].pool.space().subnet());
        subnet.and_then(|subnet| IpNet::new(ip, subnet.prefix_len()).ok()).unwrap_or_else(|| IpNet::from(ip))
    }

    /// The addresses of an endpoint of another node: none if one of them is reserved, of no subnet, or of another
    /// owner's range as far as known here.
    pub(super) fn addresses_of<'e>(&self, node: NodeId, endpoint: &'e Endpoint) -> &'e [IpAddr] {
        let is_theirs = |&ip: &IpAddr| {
            let Some((pool, number)) = self.pool_of(ip) else { return false };
            let pool = &self.pools[pool].pool;
            let owner = pool.map().get(number).map(|held| held.owner);
            // Whose a contested address is nobody can tell: who has it keeps it.
            let theirs = owner == Some(Owner::Node(node)) || owner == Some(Owner::Contested);
            theirs && !pool.space().is_reserved(number)
        };
        if endpoint.ips.iter().all(is_theirs) { &endpoint.ips } else { &[] }
    }

    pub(super) fn take(&mut self, ip: IpAddr, endpoint: EndpointId) {
        if let Some((index, number)) = self.pool_of(ip) {
            self.pools[index].pool.take(number, endpoint);
        }
    }
}

impl Removed {
    /// The removal of a statement heard at `heard`, if the statement is its author's.
    pub(super) fn open(id: NetworkId, heard: UnixMillis, statement: &[u8]) -> Option<Self> {
        let (author, removal): (NodeId, Removal) = hear(REMOVAL, statement)?;
        let statement = statement.to_vec();
        (removal.network == id).then_some(Self { author, at: removal.at, heard, statement, orphan: false })
    }

    /// Its durable row: when it was heard (8 octets, network order), then the statement.
    fn row(&self) -> Vec<u8> {
        [&self.heard.0.to_be_bytes(), self.statement.as_slice()].concat()
    }

    pub(super) fn restore(id: NetworkId, row: &[u8]) -> Option<Self> {
        let (heard, statement) = row.split_first_chunk()?;
        Self::open(id, UnixMillis(u64::from_be_bytes(*heard)), statement)
    }
}

impl Cluster {
    /// Makes a network; it is durable, and published with the next [`Cluster::poll_transmit`].
    ///
    /// # Errors
    /// The wishes are refused, or the state cannot be made durable; nothing was made.
    pub fn create_network(
        &mut self,
        now: Instant,
        request: NetworkCreate,
    ) -> Result<NetworkId, ClusterError> {
        let id = self.fresh_network_id();
        self.create_network_as(now, id, request)
    }

    /// As [`Cluster::create_network`], with an id that somebody else drew.
    ///
    /// # Errors
    /// As those; or the id is used already, or was.
    pub fn create_network_as(
        &mut self,
        now: Instant,
        id: NetworkId,
        request: NetworkCreate,
    ) -> Result<NetworkId, ClusterError> {
        self.check_here()?;
        if self.networks.contains_key(&id) || self.removed.contains_key(&id) {
            return Err(ClusterError::Removed(id));
        }
        let wish = NetworkWish::parse(request)?;
        if self.config.require_encryption && !wish.options().encrypted {
            return Err(ClusterError::Clear(wish.name().to_string()));
        }
        if self.networks.len() >= MAX_NETWORKS {
            return Err(ClusterError::Full("networks"));
        }
        self.check_room(MAX_DEFINITION)?;
        let names = self.names();
        if names.values().any(|name| name == wish.name().as_str()) {
            return Err(NetworkError::NameTaken(wish.name().to_string()).into());
        }
        self.check_vni(wish.name().as_str(), wish.options().vni, &names)?;
        let definition = wish.define(id, self.me, self.now_wall(now), &self.subnets(), &self.underlay())?;
        let statement = state(&self.identity, DEFINITION, &definition);
        let Some(network) = Network::open(id, &statement, self.me) else {
            return Err(ClusterError::Corrupt { what: "definition" });
        };
        self.ledger.commit("network-create", vec![ledger::put(Table::Networks, id.0, statement)])?;
        self.add_network(id, network);
        self.settle(now);
        Ok(id)
    }

    /// Subnets of every network.
    #[must_use]
    pub fn subnets(&self) -> Vec<IpNet> {
        self.networks.values().flat_map(|n| n.definition.subnets.iter().map(|s| s.prefix)).collect()
    }

    /// Whether the network is there.
    #[must_use]
    pub fn has_network(&self, id: NetworkId) -> bool {
        self.networks.contains_key(&id)
    }

    /// Subnets of one network; none where it is not known.
    #[must_use]
    pub fn subnets_of(&self, id: NetworkId) -> Vec<IpNet> {
        let subnets = self.networks.get(&id).map(|network| network.definition.subnets.as_slice());
        subnets.unwrap_or_default().iter().map(|subnet| subnet.prefix).collect()
    }

    /// The gateway of a network's subnet, and the addresses of it that are kept for others.
    #[must_use]
    pub fn set_aside(&self, id: NetworkId, subnet: IpNet) -> Option<(IpAddr, Vec<IpAddr>)> {
        let subnets = &self.networks.get(&id)?.definition.subnets;
        let found = subnets.iter().find(|found| found.prefix == subnet)?;
        Some((found.gateway, found.auxiliary.values().copied().collect()))
    }

    /// Removes a network for good, on every node.
    ///
    /// # Errors
    /// Endpoints are in it as far as this node knows, or the state cannot be made durable; nothing was removed.
    pub fn remove_network(&mut self, now: Instant, id: NetworkId) -> Result<(), ClusterError> {
        self.check_here()?;
        if !self.networks.contains_key(&id) {
            return Err(NetworkError::NoNetwork(id.long()).into());
        }
        let endpoints = self.endpoints_in_view(now, id);
        let attaching = self.attaching.values().any(|attaching| attaching.network() == id);
        if !endpoints.is_empty() || attaching {
            let name = self.names().remove(&id).unwrap_or_default();
            return Err(NetworkError::Active { name, endpoints }.into());
        }
        let removal = Removal { network: id, at: self.now_wall(now) };
        let statement = state(&self.identity, REMOVAL, &removal);
        let Some(removed) = Removed::open(id, removal.at, &statement) else {
            return Err(ClusterError::Corrupt { what: "removal" });
        };
        let rows = self.removal_rows(id, &removed);
        self.ledger.commit("network-remove", rows)?;
        self.drop_network(id, removed);
        self.settle(now);
        Ok(())
    }

    /// The network meant by an id, a name as shown, or the beginning of an id.
    ///
    /// # Errors
    /// None or several could be meant.
    pub fn resolve(&self, text: &str) -> Result<NetworkId, ClusterError> {
        let names = self.names();
        let all: Vec<_> = names.iter().map(|(id, name)| (*id, *id, name.as_str())).collect();
        Ok(choose(&all, text)?)
    }

    /// Names as shown: of several networks of one name the oldest has it, the others add `~` and the beginning of
    /// their id, so that every node shows the same and none is lost.
    #[must_use]
    pub fn names(&self) -> BTreeMap<NetworkId, String> {
        let mut ordered: Vec<&Definition> = self.networks.values().map(|n| &n.definition).collect();
        ordered.sort_by_key(|definition| definition.precedence());
        let mut taken = BTreeSet::new();
        let mut names = BTreeMap::new();
        for definition in ordered {
            let hex = definition.id.to_string();
            let marked = [4, 8, 32].map(|digits| format!("{}~{}", definition.name, &hex[..digits]));
            let candidates = [definition.name.to_string()].into_iter().chain(marked);
            let name = candidates.into_iter().find(|name| !taken.contains(name)).unwrap_or(hex);
            taken.insert(name.clone());
            names.insert(definition.id, name);
        }
        names
    }

    /// Whether this node may promise anything.
    pub(super) fn check_here(&self) -> Result<(), ClusterError> {
        if self.left || self.leaving.is_some() {
            return Err(ClusterError::Left);
        }
        if self.clashes.contains_key(&self.me) { Err(ClusterError::Clash) } else { Ok(()) }
    }

    fn check_vni(
        &self,
        name: &str,
        vni: Option<Vni>,
        names: &BTreeMap<NetworkId, String>,
    ) -> Result<(), ClusterError> {
        let Some(vni) = vni else { return Ok(()) };
        let holder = self.networks.iter().find(|(_, network)| network.options.vni == Some(vni));
        let Some(other) = holder.and_then(|(id, _)| names.get(id).cloned()) else { return Ok(()) };
        Err(ClusterError::VniTaken { vni: vni.into(), name: name.to_owned(), other })
    }

    fn fresh_network_id(&mut self) -> NetworkId {
        loop {
            let id = NetworkId(self.rng.random());
            if !self.networks.contains_key(&id) && !self.removed.contains_key(&id) {
                return id;
            }
        }
    }

    /// Where hosts are: default subnets keep away from their neighbourhood.
    fn underlay(&self) -> Vec<IpNet> {
        let hosts = self.gossip.members().map(|member| member.addr.ip()).chain([self.config.advertise.ip()]);
        hosts.map(IpNet::from).collect()
    }

    pub(super) fn add_network(&mut self, id: NetworkId, network: Network) {
        self.networks.insert(id, network);
        self.unheard.reconsider(id);
        self.sealed.dirty = true;
        self.dirty.records.insert(id);
        self.dirty.segments.insert(id);
        self.dirty.attaching = true;
        self.events.push_back(ClusterEvent::NetworkAdded(id));
    }

    /// The removal that another node hands on, unless it is so old that nobody needs it.
    pub(super) fn open_removal(&self, id: NetworkId, wall: UnixMillis, statement: &[u8]) -> Option<Removed> {
        let known = self.networks.contains_key(&id);
        if self.removed.len() >= if known { MAX_REMOVED } else { MAX_REMOVED_UNKNOWN } {
            return None;
        }
        let removed = Removed::open(id, wall, statement)?;
        // Of a network that is known here it is news, whatever its author's clock said.
        let old = removed.at.is_older_than(self.config.timing.forget_removed, wall);
        (known || !old).then_some(removed)
    }

    /// What a removal changes in durable state.
    pub(super) fn removal_rows(&self, id: NetworkId, removed: &Removed) -> Vec<Write> {
        let own = self.own_in(id);
        let mut writes: Vec<Write> =
            own.iter().map(|endpoint| ledger::delete(Table::Endpoints, endpoint.0)).collect();
        for table in [Table::Ranges, Table::Quarantine, Table::Holds, Table::Networks] {
            writes.extend(self.ledger.rows(table, &id.0).map(|(key, _)| ledger::delete(table, key)));
        }
        writes.push(ledger::put(Table::Removed, id.0, removed.row()));
        writes
    }

    /// Endpoints of this node in a network.
    fn own_in(&self, id: NetworkId) -> Vec<EndpointId> {
        let own = self.endpoints.iter().filter(|(_, own)| own.network == id);
        own.map(|(&endpoint, _)| endpoint).collect()
    }

    /// Takes in that a network is gone, which is durable. Removal wins over everything, on every node.
    pub(super) fn drop_network(&mut self, id: NetworkId, removed: Removed) {
        let drained = self.own_in(id);
        for endpoint in &drained {
            self.endpoints.remove(endpoint);
        }
        self.holds.retain(|(network, _), _| *network != id);
        let known = self.networks.remove(&id).is_some();
        self.sealed.dirty = true;
        let eldest = self.recently_removed().last().copied();
        self.removed_by_age.insert((removed.at, id));
        self.removed.insert(id, removed);
        self.dirty.records.extend(eldest);
        self.fetches.retain(|key, _| key.network != id);
        self.fail_attaching(id);
        self.segments.remove(&id);
        self.contested.remove(&id);
        self.ignored.remove(&id);
        self.dirty.records.insert(id);
        if known {
            self.events.push_back(ClusterEvent::NetworkRemoved { network: id, endpoints: drained });
        }
    }

    pub(super) fn forget_removed(&mut self, now: Instant) {
        let wall = self.now_wall(now);
        let limit = self.config.timing.forget_removed;
        let old: Vec<NetworkId> = self
            .removed
            .iter()
            .filter(|(_, removed)| removed.at.max(removed.heard).is_older_than(limit, wall))
            .map(|(&id, _)| id)
            .collect();
        if old.is_empty() {
            return;
        }
        let writes = old.iter().map(|id| ledger::delete(Table::Removed, id.0)).collect();
        if self.ledger.commit("network-remove", writes).is_ok() {
            self.removed_by_age.retain(|(_, id)| !old.contains(id));
            for id in old {
                self.removed.remove(&id);
                self.dirty.records.insert(id);
            }
        }
    }

    /// The networks removed last, the latest first.
    pub(super) fn recently_removed(&self) -> impl Iterator<Item = &NetworkId> {
        self.removed_by_age.iter().rev().take(RECENT).map(|(_, id)| id)
    }

    /// Whether a removal is still to be told: it is recent, or another node does not know of it.
    pub(super) fn must_tell_removal(&self, id: NetworkId) -> bool {
        self.recently_removed().any(|&recent| recent == id)
            || self.views.values().any(|view| view.mentions.contains(&id))
    }

    /// Hands on definitions and removals that nobody else does. The others have not heard of a network yet, or know
    /// that it was removed and will say so. Where several nodes would, the first in the network's order of sponsors does.
    pub(super) fn adopt_orphans(&mut self, now: Instant) {
        if now < self.orphans_at {
            return;
        }
        self.orphans_at = now + ORPHAN_PERIOD;
        let mut defined: BTreeMap<NetworkId, Vec<NodeId>> = BTreeMap::new();
        let mut told: BTreeMap<NetworkId, Vec<NodeId>> = BTreeMap::new();
        for (&node, view) in self.views.iter().filter(|(node, _)| self.is_alive(**node)) {
            view.definitions.iter().for_each(|&id| defined.entry(id).or_default().push(node));
            view.removals.iter().for_each(|&id| told.entry(id).or_default().push(node));
        }
        let mentioned: BTreeSet<NetworkId> =
            self.views.values().flat_map(|view| &view.mentions).copied().collect();
        let me = self.me;
        let networks =
            self.networks.iter_mut().map(|(&id, network)| (id, &mut network.orphan, defined.get(&id)));
        let removed = self.removed.iter_mut().filter(|(id, _)| mentioned.contains(id));
        let removed = removed.map(|(&id, removed)| (id, &mut removed.orphan, told.get(&id)));
        for (id, orphan, others) in networks.chain(removed) {
            let others = others.map(Vec::as_slice).unwrap_or_default();
            let before = *orphan;
            *orphan = if before {
                !others.iter().any(|&node| sponsor_rank(id, node) < sponsor_rank(id, me))
            } else {
                others.is_empty()
            };
            if *orphan != before {
                self.dirty.records.insert(id);
            }
        }
    }

    /// Whether this node is one of those who hand on what is known of a network.
    pub(super) fn sponsors(&self, id: NetworkId) -> bool {
        let ours = sponsor_rank(id, self.me);
        self.alive().filter(|&node| sponsor_rank(id, node) < ours).take(SPONSORS).count() < SPONSORS
    }

    /// The VNI a network wishes for where none is pinned.
    pub(super) fn wished_vni(id: NetworkId) -> Vni {
        let hash = Sha256::new_with_prefix(b"weft vni").chain_update(id.0).finalize();
        automatic_vni(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }
}

/// The order in which nodes sponsor a network, different for each network (rendezvous hashing).
fn sponsor_rank(id: NetworkId, node: NodeId) -> ([u8; 8], NodeId) {
    let hash = Sha256::new_with_prefix(id.0).chain_update(node.0).finalize();
    let mut rank = [0; 8];
    rank.copy_from_slice(&hash[..8]);
    (rank, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::model::{Name, SandboxId};

    #[test]
    fn addresses_of_another_nodes_endpoint_count_where_its_node_owns_them() {
        let author = Identity::from_secret(&[1; 32]);
        let creator = author.node_id();
        let request = NetworkCreate { name: "web".to_owned(), ..Default::default() };
        let wish = NetworkWish::parse(request).expect("valid");
        let id = NetworkId([7; 16]);
        let definition = wish.define(id, creator, UnixMillis(1), &[], &[]).expect("free");
        let statement = state(&author, DEFINITION, &definition);
        let network = Network::open(id, &statement, NodeId([9; 16])).expect("sound");
        let name: Name = "c1".parse().expect("a name");
        let counted = |node: NodeId, ips: &[&str]| {
            let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
            let mac = "02:00:00:00:00:07".parse().expect("a MAC address");
            let endpoint = Endpoint::new(mac, ips, SandboxId([1; 16]), name.clone(), Vec::new(), 0);
            network.addresses_of(node, &endpoint).len()
        };
        assert_eq!(counted(creator, &["10.0.0.9"]), 1);
        assert_eq!(counted(NodeId([3; 16]), &["10.0.0.9"]), 0, "another's range");
        assert_eq!(counted(creator, &["10.0.0.1"]), 0, "the gateway");
        assert_eq!(counted(creator, &["192.0.2.1"]), 0, "no subnet of the network");
        assert_eq!(counted(creator, &["10.0.0.9", "10.0.0.1"]), 0, "not even the other one");
    }
}
