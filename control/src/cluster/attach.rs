//! Endpoints of this node: addresses found, promised, announced, given back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use weft_dataplane::wire::MacAddr;

use super::grants::PoolState;
use super::holds::Hold;
use super::ranges::{Amount, FetchKey};
use super::record::{Endpoint, encode};
use super::start::rest_key;
use super::{Cluster, ClusterError, ClusterEvent};
use crate::ipam::{Range, Standing};
use crate::ledger;
use crate::model::{EndpointId, Name, NetworkId, SandboxId};
use crate::network::{Attach, Lease, MAX_ALIASES, NetworkError, OwnEndpoint};
use crate::storage::Table;

/// Names an attachment under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An endpoint of this node, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Own {
    pub(super) network: NetworkId,
    pub(super) endpoint: Endpoint,
    /// Whether others are told. Not a promise: after a restart everything stored is announced.
    #[serde(skip)]
    pub(super) announced: bool,
}

/// Somebody who waits for addresses.
#[derive(Debug)]
pub(super) struct Attaching {
    wish: Wish,
    deadline: Instant,
    /// Sources of addresses that have nothing.
    refused: BTreeMap<FetchKey, Refusal>,
}

/// What somebody waits for.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// An endpoint's addresses.
    Endpoint(Attach),
    /// An address for an endpoint to come.
    Hold(Hold),
}

impl Wish {
    fn network(&self) -> NetworkId {
        match self {
            Self::Endpoint(attach) => attach.network,
            Self::Hold(hold) => hold.network,
        }
    }
}

impl Attaching {
    pub(super) fn new(wish: Wish, deadline: Instant) -> Self {
        Self { wish, deadline, refused: BTreeMap::new() }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn network(&self) -> NetworkId {
        self.wish.network()
    }

    fn attach(&self) -> Option<&Attach> {
        match &self.wish {
            Wish::Endpoint(attach) => Some(attach),
            Wish::Hold(_) => None,
        }
    }
}

/// Why a source has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Exhausted,
    Taken,
    Unreachable(String),
}

/// What a search for one address came to.
enum Found {
    Address(usize, u128),
    /// It must be fetched first.
    Missing(FetchKey),
}

impl Cluster {
    /// Asks for an attachment; the outcome comes as [`ClusterEvent::Attached`], at once when addresses are at hand.
    ///
    /// # Errors
    /// The wish cannot be fulfilled, whatever other nodes have; nothing was promised.
    pub fn attach(&mut self, now: Instant, wish: Attach) -> Result<Ticket, ClusterError> {
        self.check_here()?;
        self.check_wish(&wish)?;
        self.check_room(1 << 10)?;
        Ok(self.begin(now, Wish::Endpoint(wish)))
    }

    /// Looks for addresses, and goes on looking until patience ends.
    pub(super) fn begin(&mut self, now: Instant, wish: Wish) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let deadline = now + self.config.timing.patience;
        self.attaching.insert(ticket, Attaching::new(wish, deadline));
        self.progress(now, ticket);
        self.settle(now);
        ticket
    }

    /// Tells the others of an endpoint whose kernel side is ready.
    ///
    /// # Errors
    /// There is no such endpoint here, perhaps because its network was removed meanwhile.
    pub fn announce(&mut self, now: Instant, endpoint: EndpointId) -> Result<(), ClusterError> {
        let own = self.endpoints.get_mut(&endpoint).ok_or(NetworkError::NoEndpoint(endpoint))?;
        own.announced = true;
        self.dirty.records.insert(own.network);
        self.renamed.insert(own.network);
        self.settle(now);
        Ok(())
    }

    /// Calls an endpoint so, durably; others are told. Answers whether it was called otherwise.
    ///
    /// # Errors
    /// There is no such endpoint, it would have too many names, or the state cannot be made durable; then it is called
    /// as before.
    pub fn rename(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        name: Name,
        aliases: Vec<Name>,
    ) -> Result<bool, ClusterError> {
        if aliases.len() > MAX_ALIASES {
            return Err(NetworkError::Aliases(aliases.len()).into());
        }
        let own = self.endpoints.get_mut(&endpoint).ok_or(NetworkError::NoEndpoint(endpoint))?;
        if own.endpoint.name == name && own.endpoint.aliases == aliases {
            return Ok(false);
        }
        let mut renamed = own.clone();
        (renamed.endpoint.name, renamed.endpoint.aliases) = (name, aliases);
        self.ledger
            .commit("endpoint-rename", vec![ledger::put(Table::Endpoints, endpoint.0, encode(&renamed))])?;
        let network = renamed.network;
        *own = renamed;
        self.dirty.records.insert(network);
        self.renamed.insert(network);
        self.settle(now);
        Ok(true)
    }

    /// Gives an endpoint up; its addresses rest before they are handed out again.
    ///
    /// # Errors
    /// There is no such endpoint, or the state cannot be made durable; then it is still there.
    pub fn detach(&mut self, now: Instant, endpoint: EndpointId) -> Result<(), ClusterError> {
        let own = self.endpoints.get(&endpoint).ok_or(NetworkError::NoEndpoint(endpoint))?;
        let id = own.network;
        let network = self.networks.get(&id);
        let places: Vec<(usize, u128)> =
            own.endpoint.ips.iter().filter_map(|&ip| network.and_then(|n| n.pool_of(ip))).collect();
        let mut rows = vec![ledger::delete(Table::Endpoints, endpoint.0)];
        rows.extend(
            places.iter().map(|&(pool, a)| ledger::put(Table::Quarantine, rest_key(id, pool, a), Vec::new())),
        );
        self.ledger.commit("endpoint-detach", rows)?;
        self.endpoints.remove(&endpoint);
        let until = now + self.config.timing.quarantine;
        if let Some(network) = self.networks.get_mut(&id) {
            for (pool, address) in places {
                network.pools[pool].pool.release(address, until);
            }
        }
        self.touch(id);
        self.settle(now);
        Ok(())
    }

    /// Endpoints of this node, in order of ids.
    pub fn own_endpoints(&self) -> impl Iterator<Item = OwnEndpoint> + '_ {
        self.endpoints.iter().map(|(&id, own)| OwnEndpoint {
            lease: self.lease(id, own),
            sandbox: own.endpoint.sandbox,
            name: own.endpoint.name.clone(),
            aliases: own.endpoint.aliases.clone(),
        })
    }

    fn check_wish(&self, wish: &Attach) -> Result<(), ClusterError> {
        let network = self.networks.get(&wish.network).ok_or(NetworkError::NoNetwork(wish.network.long()))?;
        let of_sandbox =
            |sandbox: SandboxId, network: NetworkId| sandbox == wish.sandbox && network == wish.network;
        let attached = self.endpoints.values().any(|own| of_sandbox(own.endpoint.sandbox, own.network));
        let attaching = self.attaching().any(|other| of_sandbox(other.sandbox, other.network));
        let name = || self.names().remove(&wish.network).unwrap_or_default();
        if attached || attaching {
            return Err(NetworkError::Attached { sandbox: wish.name.to_string(), network: name() }.into());
        }
        if self.stays_apart(network) {
            return Err(ClusterError::Clear(name()));
        }
        if wish.aliases.len() > MAX_ALIASES {
            return Err(NetworkError::Aliases(wish.aliases.len()).into());
        }
        for ip in wish.fixed() {
            let (pool, number) = network.pool_of(ip).ok_or(NetworkError::OutsideSubnets(ip))?;
            if matches!(network.pools[pool].pool.standing(number), Standing::Taken | Standing::Reserved) {
                return Err(NetworkError::AddressTaken.into());
            }
        }
        self.check_mac(wish)
    }

    fn check_mac(&self, wish: &Attach) -> Result<(), ClusterError> {
        let Some(mac) = wish.mac else { return Ok(()) };
        if !mac.is_assignable() {
            return Err(NetworkError::Mac(mac.to_string()).into());
        }
        let of = |network: NetworkId, other: Option<MacAddr>| network == wish.network && other == Some(mac);
        let attached = self.endpoints.values().filter(|own| of(own.network, Some(own.endpoint.mac())));
        let attaching =
            self.attaching().filter(|other| of(other.network, other.mac) && other.sandbox != wish.sandbox);
        let here = attached.map(|own| &own.endpoint.name).chain(attaching.map(|other| &other.name)).next();
        let holder = here.map(Name::to_string).or_else(|| self.elsewhere(wish.network, mac));
        holder.map_or(Ok(()), |holder| {
            let (mac, network) = (mac.to_string(), self.name_of(wish.network));
            Err(NetworkError::MacTaken { mac, network, holder }.into())
        })
    }

    /// Attachments under way.
    fn attaching(&self) -> impl Iterator<Item = &Attach> {
        self.attaching.values().filter_map(Attaching::attach)
    }

    /// Who has a MAC address on another node that answers; nobody would forward to a second one.
    fn elsewhere(&self, id: NetworkId, mac: MacAddr) -> Option<String> {
        let network = self.networks.get(&id)?;
        let views = self.views.iter().filter(|(node, _)| self.is_alive(**node));
        views.into_iter().find_map(|(&node, view)| {
            let mut endpoints = view.endpoints.get(&id)?.values().filter(|endpoint| endpoint.mac() == mac);
            let theirs = endpoints.find(|endpoint| !network.addresses_of(node, endpoint).is_empty())?;
            Some(format!("{} on {}", theirs.name, self.node_name(node)))
        })
    }

    /// Whether somebody on another node that answers has a MAC address.
    #[must_use]
    pub fn has_mac(&self, network: NetworkId, mac: MacAddr) -> bool {
        self.elsewhere(network, mac).is_some()
    }

    /// Who has an address, as far as this node knows.
    #[must_use]
    pub fn holder_of(&self, network: NetworkId, ip: IpAddr) -> Option<String> {
        let mut own = self.endpoints.values().filter(|own| own.network == network);
        if let Some(own) = own.find(|own| own.endpoint.ips.contains(&ip)) {
            return Some(own.endpoint.name.to_string());
        }
        self.views.iter().find_map(|(&node, view)| {
            let mut endpoints = view.endpoints.get(&network)?.values();
            let theirs = endpoints.find(|endpoint| endpoint.ips.contains(&ip))?;
            Some(format!("{} on {}", theirs.name, self.node_name(node)))
        })
    }

    /// Tries every attachment that waits.
    pub(super) fn progress_attaching(&mut self, now: Instant) {
        let waiting: Vec<Ticket> = self.attaching.keys().copied().collect();
        for ticket in waiting {
            self.progress(now, ticket);
        }
    }

    /// Finds addresses and promises them, or fetches what is missing, or fails.
    fn progress(&mut self, now: Instant, ticket: Ticket) {
        let Some(attaching) = self.attaching.get(&ticket) else { return };
        let (wish, found) = (attaching.wish.clone(), self.find_all(attaching));
        let places = match found {
            Ok(found) => {
                let missing: Vec<FetchKey> = found.iter().filter_map(Found::missing).collect();
                if !missing.is_empty() {
                    let deadline = attaching.deadline;
                    for key in missing {
                        self.fetch(now, key, deadline, Amount::Block);
                    }
                    return;
                }
                Ok(found.iter().filter_map(Found::address).collect::<Vec<(usize, u128)>>())
            }
            Err(error) => Err(error),
        };
        self.attaching.remove(&ticket);
        let event = match wish {
            Wish::Endpoint(attach) => {
                let result = places.and_then(|places| self.promise(attach, &places));
                ClusterEvent::Attached { ticket, result }
            }
            Wish::Hold(hold) => {
                let result = places.and_then(|places| self.promise_hold(now, &hold, &places));
                ClusterEvent::Held { ticket, result }
            }
        };
        self.events.push_back(event);
    }

    fn find_all(&self, attaching: &Attaching) -> Result<Vec<Found>, ClusterError> {
        let wish = match &attaching.wish {
            Wish::Endpoint(attach) => attach,
            Wish::Hold(Hold { ip: Some(ip), .. }) => return Ok(vec![self.find_exact(attaching, *ip)?]),
            Wish::Hold(hold) => return Ok(vec![self.find_any(attaching, |pool, _| pool == hold.pool)?]),
        };
        let network = self.networks.get(&wish.network).ok_or(ClusterError::Removed(wish.network))?;
        let families = [wish.ip4.map(IpAddr::V4), wish.ip6.map(IpAddr::V6)];
        let mut found = Vec::new();
        for (fixed, v4) in families.into_iter().zip([true, false]) {
            let has = network.pools.iter().any(|state| is_v4(state.pool.space().subnet()) == v4);
            if let Some(ip) = fixed {
                found.push(self.find_exact(attaching, ip)?);
            } else if has {
                let of_family = |_, state: &PoolState| is_v4(state.pool.space().subnet()) == v4;
                found.push(self.find_any(attaching, of_family)?);
            }
        }
        Ok(found)
    }

    fn find_exact(&self, attaching: &Attaching, ip: IpAddr) -> Result<Found, ClusterError> {
        let id = attaching.network();
        let network = self.networks.get(&id).ok_or(ClusterError::Removed(id))?;
        let (pool, number) = network.pool_of(ip).ok_or(NetworkError::OutsideSubnets(ip))?;
        let key = FetchKey { network: id, pool, exact: Some(number) };
        match network.pools[pool].pool.standing(number) {
            Standing::Free => Ok(Found::Address(pool, number)),
            Standing::Taken | Standing::Reserved => Err(NetworkError::AddressTaken.into()),
            Standing::Outside => Err(NetworkError::OutsideSubnets(ip).into()),
            Standing::Contested => Err(ClusterError::Contested { network: self.name_of(id) }),
            Standing::Foreign(_) => match attaching.refused.get(&key) {
                Some(refusal) => Err(self.refusal(id, refusal)),
                None => Ok(Found::Missing(key)),
            },
        }
    }

    /// The next free address, from the first of those subnets that has one or can get one.
    fn find_any(
        &self,
        attaching: &Attaching,
        of: impl Fn(usize, &PoolState) -> bool,
    ) -> Result<Found, ClusterError> {
        let id = attaching.network();
        let network = self.networks.get(&id).ok_or(ClusterError::Removed(id))?;
        let subnets = || network.pools.iter().enumerate().filter(|(pool, state)| of(*pool, state));
        let wanted = attaching.attach().into_iter().flat_map(Attach::fixed).collect::<Vec<_>>();
        for (pool, state) in subnets() {
            let subnet = state.pool.space().subnet();
            let avoid = |number| wanted.contains(&Range::address(subnet, number));
            if let Some(number) = state.pool.pick(avoid) {
                return Ok(Found::Address(pool, number));
            }
        }
        let mut worst = None;
        for (pool, _) in subnets() {
            let key = FetchKey { network: id, pool, exact: None };
            match attaching.refused.get(&key) {
                None => return Ok(Found::Missing(key)),
                Some(refusal @ Refusal::Unreachable(_)) => worst = Some(refusal),
                Some(_) if network.pools[pool].pool.is_contested() => {
                    return Err(ClusterError::Contested { network: self.name_of(id) });
                }
                Some(_) => {}
            }
        }
        Err(self.refusal(id, worst.unwrap_or(&Refusal::Exhausted)))
    }

    fn refusal(&self, network: NetworkId, refusal: &Refusal) -> ClusterError {
        match refusal {
            Refusal::Exhausted => NetworkError::Exhausted.into(),
            Refusal::Taken => NetworkError::AddressTaken.into(),
            Refusal::Unreachable(reason) => {
                ClusterError::Unreachable { network: self.name_of(network), reason: reason.clone() }
            }
        }
    }

    pub(super) fn name_of(&self, network: NetworkId) -> String {
        self.names().remove(&network).unwrap_or_else(|| network.short())
    }

    /// Makes an endpoint durable, which is the promise of its addresses.
    fn promise(&mut self, wish: Attach, places: &[(usize, u128)]) -> Result<Lease, ClusterError> {
        self.check_mac(&wish)?;
        let Attach { network: id, sandbox, name, mac, aliases, .. } = wish;
        let mac = mac.unwrap_or_else(|| self.fresh_mac(id));
        let endpoint = EndpointId(self.rng.random());
        let mobility = self.mobility_after(id, mac);
        let network = self.networks.get(&id).ok_or(ClusterError::Removed(id))?;
        let ip = |&(pool, number): &(usize, u128)| {
            Range::address(network.pools[pool].pool.space().subnet(), number)
        };
        let body = Endpoint::new(mac, places.iter().map(ip).collect(), sandbox, name, aliases, mobility);
        let own = Own { network: id, endpoint: body, announced: false };
        let mut rows = vec![ledger::put(Table::Endpoints, endpoint.0, encode(&own))];
        let ended = |table| places.iter().map(move |&(pool, a)| ledger::delete(table, rest_key(id, pool, a)));
        rows.extend(ended(Table::Quarantine).chain(ended(Table::Holds)));
        self.ledger.commit("endpoint-attach", rows)?;
        let lease = self.lease(endpoint, &own);
        if let Some(network) = self.networks.get_mut(&id) {
            for &(pool, number) in places {
                network.pools[pool].pool.take(number, endpoint);
            }
        }
        self.endpoints.insert(endpoint, own);
        self.touch(id);
        Ok(lease)
    }

    /// Own records and segments follow; others' VNIs here may move too.
    fn touch(&mut self, id: NetworkId) {
        self.dirty.records.insert(id);
        self.dirty.records.extend(self.endpoints.values().map(|own| own.network));
        self.dirty.segments.insert(id);
        self.dirty.segments.extend(self.segments.keys());
        self.sealed.dirty = true;
        // The agent's own change is not one of a burst: derive at once.
        self.dirty.settled = None;
    }

    /// A random locally administered address that nobody in the network has.
    fn fresh_mac(&mut self, id: NetworkId) -> MacAddr {
        loop {
            let mac = MacAddr::local_from_random(self.rng.random());
            if self.mobility_of(id, mac).is_none() {
                return mac;
            }
        }
    }

    /// How often a MAC address has come up, counting claims of nodes that do not answer.
    fn mobility_after(&self, id: NetworkId, mac: MacAddr) -> u32 {
        self.mobility_of(id, mac).map_or(0, |seen| seen.saturating_add(1))
    }

    fn mobility_of(&self, id: NetworkId, mac: MacAddr) -> Option<u32> {
        let own = self.endpoints.values().filter(|own| own.network == id).map(|own| &own.endpoint);
        let others =
            self.views.values().filter_map(|view| view.endpoints.get(&id)).flat_map(BTreeMap::values);
        own.chain(others).filter(|endpoint| endpoint.mac() == mac).map(|endpoint| endpoint.mobility).max()
    }

    fn lease(&self, endpoint: EndpointId, own: &Own) -> Lease {
        let network = self.networks.get(&own.network);
        let with_prefix = |&ip: &IpAddr| network.map_or_else(|| IpNet::from(ip), |n| n.with_prefix(ip));
        Lease {
            endpoint,
            network: own.network,
            mac: own.endpoint.mac(),
            addresses: own.endpoint.ips.iter().map(with_prefix).collect(),
            mtu: self.mtu(own.network),
        }
    }

    /// A source of addresses has nothing for those who wait for it.
    pub(super) fn refuse_attaching(&mut self, key: FetchKey, refusal: &Refusal) {
        for attaching in self.attaching.values_mut().filter(|a| a.network() == key.network) {
            attaching.refused.insert(key, refusal.clone());
        }
    }

    /// Ends attachments whose patience is over.
    pub(super) fn expire_attaching(&mut self, now: Instant) {
        let over: Vec<Ticket> =
            self.attaching.iter().filter(|(_, a)| a.deadline <= now).map(|(&ticket, _)| ticket).collect();
        for ticket in over {
            let Some(attaching) = self.attaching.remove(&ticket) else { continue };
            let waited = self.config.timing.patience.as_secs_f32();
            let (network, wish) = (self.name_of(attaching.network()), attaching.wish);
            let reason = attaching.refused.into_values().find_map(|refusal| match refusal {
                Refusal::Unreachable(reason) => Some(reason),
                Refusal::Exhausted | Refusal::Taken => None,
            });
            let reason = reason.unwrap_or_else(|| format!("no answer from their owners in {waited} s"));
            self.fail(ticket, &wish, ClusterError::Unreachable { network, reason });
        }
    }

    /// Ends the attachments of a network that is gone.
    pub(super) fn fail_attaching(&mut self, network: NetworkId) {
        let gone: Vec<Ticket> = self
            .attaching
            .iter()
            .filter(|(_, a)| a.network() == network)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in gone {
            if let Some(attaching) = self.attaching.remove(&ticket) {
                self.fail(ticket, &attaching.wish, ClusterError::Removed(network));
            }
        }
    }

    fn fail(&mut self, ticket: Ticket, wish: &Wish, fault: ClusterError) {
        self.events.push_back(match wish {
            Wish::Endpoint(_) => ClusterEvent::Attached { ticket, result: Err(fault) },
            Wish::Hold(_) => ClusterEvent::Held { ticket, result: Err(fault) },
        });
    }
}

impl Found {
    fn missing(&self) -> Option<FetchKey> {
        match self {
            Self::Missing(key) => Some(*key),
            Self::Address(..) => None,
        }
    }

    fn address(&self) -> Option<(usize, u128)> {
        match self {
            Self::Address(pool, number) => Some((*pool, *number)),
            Self::Missing(_) => None,
        }
    }
}

fn is_v4(net: IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}
