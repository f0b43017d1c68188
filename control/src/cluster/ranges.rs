//! Address ranges between nodes: asking for them, giving them, hearing of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt as _;

use super::attach::Refusal;
use super::grants::{Grant, Grants, Heard, SignedGrant, Weighed};
use super::record::{Answer, Call, Want, encode};
use super::start::{grant_row, rest_key};
use super::{Cluster, ClusterEvent, TICK};
use crate::ipam::{Claim, Owner, Pool, Range, Standing, block_size};
use crate::ledger;
use crate::model::{NetworkId, NodeId};
use crate::storage::{StorageError, Table, Write};

/// Times one request is sent to one node.
const SENDS: u8 = 3;
/// Answers kept, so that a repeated request gets the same one.
const MAX_ANSWERED: usize = 256;
/// Requests of this node under way.
const MAX_FETCHES: usize = 256;
/// Blocks that a node should have before it is asked for one in reserve.
const PLENTY: u128 = 4;
/// Rest before a reserve that could not be had is asked for again.
const RESERVE_PAUSE: std::time::Duration = std::time::Duration::from_secs(20);
/// Most time a leaving node waits for its heir.
const LEAVE_WAIT: std::time::Duration = std::time::Duration::from_secs(4);

/// What is being fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FetchKey {
    pub(super) network: NetworkId,
    pub(super) pool: usize,
    /// One address, or a block of any.
    pub(super) exact: Option<u128>,
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// What endpoints need next.
    Block,
    /// What is missing to an equal share.
    Share,
}

/// A request under way, to one node after another.
#[derive(Debug)]
pub(super) struct Fetch {
    number: u64,
    amount: Amount,
    donor: Option<NodeId>,
    sends: u8,
    due: Instant,
    deadline: Instant,
    /// Said that they have nothing.
    empty: BTreeSet<NodeId>,
    /// Did not answer in this round.
    silent: BTreeSet<NodeId>,
    /// Said to own the address asked for.
    hint: Option<NodeId>,
}

impl Fetch {
    pub(super) fn due(&self) -> Instant {
        self.due
    }
}

/// An answer given.
#[derive(Debug)]
pub(super) struct Answered {
    to: NodeId,
    number: u64,
    answer: Answer,
}

impl Cluster {
    /// Starts to fetch until `deadline`, or goes on with what is under way until then.
    pub(super) fn fetch(&mut self, now: Instant, key: FetchKey, deadline: Instant, amount: Amount) {
        if let Some(fetch) = self.fetches.get_mut(&key) {
            fetch.deadline = fetch.deadline.max(deadline);
            return;
        }
        if self.fetches.len() >= MAX_FETCHES {
            return;
        }
        let fetch = Fetch {
            number: self.rng.random(),
            amount,
            donor: None,
            sends: 0,
            due: now,
            deadline,
            empty: BTreeSet::new(),
            silent: BTreeSet::new(),
            hint: None,
        };
        self.fetches.insert(key, fetch);
        self.run_fetch(now, key);
    }

    pub(super) fn run_fetches(&mut self, now: Instant) {
        let due: Vec<FetchKey> =
            self.fetches.iter().filter(|(_, fetch)| fetch.due <= now).map(|(&key, _)| key).collect();
        for key in due {
            self.run_fetch(now, key);
        }
    }

    /// Sends again, turns to the next node, or gives up.
    fn run_fetch(&mut self, now: Instant, key: FetchKey) {
        let retry = self.config.timing.retry;
        let Some(fetch) = self.fetches.get_mut(&key) else { return };
        if fetch.donor.is_some() && fetch.sends >= SENDS {
            fetch.silent.extend(fetch.donor.take());
        }
        if now >= fetch.deadline {
            return self.give_up(now, key);
        }
        fetch.due = fetch.deadline.min(now + retry);
        if fetch.donor.is_none() {
            fetch.sends = 0;
            fetch.number = self.rng.random();
            let donor = self.choose_donor(key);
            let Some(fetch) = self.fetches.get_mut(&key) else { return };
            fetch.donor = donor;
            if donor.is_none() && !self.has_hope(key) {
                return self.give_up(now, key);
            }
            if donor.is_none() {
                // A new round in a while: who was silent may answer, who was dead may be back.
                if let Some(fetch) = self.fetches.get_mut(&key) {
                    fetch.silent.clear();
                }
                return;
            }
        }
        self.send_request(now, key);
    }

    fn send_request(&mut self, now: Instant, key: FetchKey) {
        let Some(amount) = self.fetches.get(&key).map(|fetch| fetch.amount) else { return };
        let want = key.exact.map_or_else(|| Want::Block(self.count(key, amount)), Want::Exact);
        let Some(fetch) = self.fetches.get_mut(&key) else { return };
        let Some(donor) = fetch.donor else { return };
        fetch.sends += 1;
        let pool = u8::try_from(key.pool).unwrap_or(u8::MAX);
        let call = Call::Request { number: fetch.number, network: key.network, pool, want };
        self.gossip.send_rpc(now, donor, encode(&call));
    }

    fn count(&self, key: FetchKey, amount: Amount) -> u64 {
        let state = self.networks.get(&key.network).and_then(|network| network.pools.get(key.pool));
        let Some(pool) = state.map(|state| &state.pool) else { return 0 };
        let (size, nodes) = (pool.space().automatic_count(), self.alive().count());
        let block = block_size(size, nodes);
        let count = match amount {
            Amount::Block => block,
            Amount::Share => share(size, nodes).saturating_sub(pool.usage().owned).max(block),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// The node that answers and has most to give, or owns the address asked for.
    fn choose_donor(&self, key: FetchKey) -> Option<NodeId> {
        let fetch = self.fetches.get(&key)?;
        let open = |node: &NodeId| {
            self.is_alive(*node) && !fetch.empty.contains(node) && !fetch.silent.contains(node)
        };
        if let Some(address) = key.exact {
            return fetch
                .hint
                .or_else(|| self.owner(key, address))
                .filter(open)
                .filter(|&node| node != self.me);
        }
        let free = self.free_of_others(key);
        free.into_iter()
            .filter(|(node, _)| open(node))
            .max_by_key(|&(node, free)| (free, node))
            .map(|(node, _)| node)
    }

    fn owner(&self, key: FetchKey, address: u128) -> Option<NodeId> {
        match self.networks.get(&key.network)?.pools.get(key.pool)?.pool.map().get(address)?.owner {
            Owner::Node(owner) => Some(owner),
            Owner::Contested => None,
        }
    }

    /// What each other owner has and shows no endpoint on.
    fn free_of_others(&self, key: FetchKey) -> BTreeMap<NodeId, u128> {
        let state = self.networks.get(&key.network).and_then(|network| network.pools.get(key.pool));
        let Some(state) = state else { return BTreeMap::new() };
        let mut free = state.pool.owners();
        for (node, free) in &mut free {
            let endpoints = self.views.get(node).and_then(|view| view.endpoints.get(&key.network));
            let ips = endpoints.into_iter().flatten().flat_map(|(_, endpoint)| &endpoint.ips);
            let used = ips.filter(|&&ip| state.pool.locate(ip).is_some()).count();
            *free = free.saturating_sub(u128::try_from(used).unwrap_or(u128::MAX));
        }
        free
    }

    /// Whether somebody who may have something has not said no.
    fn has_hope(&self, key: FetchKey) -> bool {
        let Some(fetch) = self.fetches.get(&key) else { return false };
        match key.exact {
            Some(address) => self.owner(key, address).is_some(),
            None => {
                self.free_of_others(key).iter().any(|(node, &free)| free > 0 && !fetch.empty.contains(node))
            }
        }
    }

    fn give_up(&mut self, now: Instant, key: FetchKey) {
        let refusal = if self.has_hope(key) { self.unreachable(key) } else { Refusal::Exhausted };
        self.end_fetch(now, key, refusal);
    }

    /// Says who has free addresses and does not answer.
    fn unreachable(&self, key: FetchKey) -> Refusal {
        let holders: Vec<NodeId> = match key.exact {
            Some(address) => self.owner(key, address).into_iter().collect(),
            None => self
                .free_of_others(key)
                .into_iter()
                .filter(|&(_, free)| free > 0)
                .map(|(node, _)| node)
                .collect(),
        };
        let name = |id: &NodeId| self.gossip.member(*id).map_or_else(|| id.short(), |m| m.name.to_string());
        let names: Vec<String> = holders.iter().take(5).map(name).collect();
        let more = if holders.len() > names.len() { " and others" } else { "" };
        Refusal::Unreachable(format!("no answer from {}{more}", names.join(", ")))
    }

    /// A fetch ends with nothing; who waits for it is told.
    fn end_fetch(&mut self, now: Instant, key: FetchKey, refusal: Refusal) {
        self.fetches.remove(&key);
        if let Some(state) = self.networks.get_mut(&key.network).and_then(|n| n.pools.get_mut(key.pool)) {
            state.reserve_after = Some(now + RESERVE_PAUSE);
        }
        self.refuse_attaching(key, &refusal);
        self.progress_attaching(now);
    }

    /// Asks for what will be needed: a first block where there is plenty, the next one at three quarters; and now
    /// and then for a fair share.
    pub(super) fn fetch_reserves(&mut self, now: Instant) {
        if self.check_here().is_err() {
            return;
        }
        let nodes = self.alive().count();
        let mut wanted = Vec::new();
        let balance = self.config.timing.balance;
        for (&network, known) in &mut self.networks {
            for (pool, state) in known.pools.iter_mut().enumerate() {
                let key = FetchKey { network, pool, exact: None };
                let rested = state.reserve_after.is_none_or(|at| at <= now);
                if rested && nodes > 1 && wants_reserve(&state.pool, nodes) {
                    wanted.push((key, Amount::Block));
                } else if now >= *state.balance_at.get_or_insert(now + balance) {
                    state.balance_at = Some(now + balance);
                    wanted.extend(wants_share(&state.pool, nodes).then_some((key, Amount::Share)));
                }
            }
        }
        for (key, amount) in wanted {
            if self.others_have_plenty(key, nodes) && !self.fetches.contains_key(&key) {
                self.fetch(now, key, now + self.config.timing.patience, amount);
            }
        }
    }

    /// Whether somebody can give a block and has several left. Of a subnet that is nearly full nobody asks for more
    /// than it needs, or the last addresses would go to and fro.
    fn others_have_plenty(&self, key: FetchKey, nodes: usize) -> bool {
        let state = self.networks.get(&key.network).and_then(|network| network.pools.get(key.pool));
        let Some(state) = state else { return false };
        let block = block_size(state.pool.space().automatic_count(), nodes);
        self.free_of_others(key).values().any(|&free| free / PLENTY >= block)
    }

    /// Answers another node's request; ranges are lost durably before the answer.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        from: NodeId,
        number: u64,
        network: NetworkId,
        pool: u8,
        want: Want,
    ) {
        let before = self.answered.iter().find(|before| (before.to, before.number) == (from, number));
        let answer = match before.map(|before| before.answer.clone()) {
            Some(answer) => answer,
            None => {
                let answer = self.decide(from, network, usize::from(pool), want);
                self.remember_answer(Answered { to: from, number, answer: answer.clone() });
                answer
            }
        };
        self.gossip.send_rpc(now, from, encode(&Call::Answer { number, answer }));
    }

    /// So that the same request, come twice, costs one block.
    fn remember_answer(&mut self, answered: Answered) {
        if matches!(answered.answer, Answer::Unknown) {
            return;
        }
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.pop_front();
        }
        self.answered.push_back(answered);
    }

    fn decide(&mut self, from: NodeId, network: NetworkId, index: usize, want: Want) -> Answer {
        if self.check_here().is_err() || from == self.me {
            return Answer::Unknown;
        }
        let state = self.networks.get_mut(&network).and_then(|network| network.pools.get_mut(index));
        let Some(state) = state else { return Answer::Unknown };
        let claims = match want {
            Want::Block(count) => state.pool.carve(u128::from(count), from),
            Want::Exact(address) => match state.pool.standing(address) {
                Standing::Free => state.pool.carve_exact(address, from).into_iter().collect(),
                Standing::Taken | Standing::Reserved => return Answer::Taken,
                Standing::Foreign(owner) => return Answer::Elsewhere(owner),
                Standing::Contested | Standing::Outside => return Answer::Unknown,
            },
        };
        if claims.is_empty() {
            return Answer::Empty;
        }
        let grant = Grant::of(network, index, &claims, false).into_iter().next();
        let Some(grant) = grant.map(|grant| SignedGrant::sign(&self.identity, grant)) else {
            return Answer::Empty;
        };
        if self.ledger.commit("range-grant", vec![grant_row(&grant)]).is_err() {
            return Answer::Unknown;
        }
        let statement = grant.statement.clone();
        state.give([grant]);
        self.dirty.records.insert(network);
        Answer::Granted(statement)
    }

    /// Takes in an answer to an own request; a late one still brings what it grants.
    pub(super) fn handle_answer(&mut self, now: Instant, from: NodeId, number: u64, answer: Answer) {
        let asked = self.fetches.iter().find(|(_, f)| f.number == number && f.donor == Some(from));
        let Some(key) = asked.map(|(&key, _)| key) else { return };
        match answer {
            Answer::Granted(statement) => match self.gain(now, key, &statement) {
                Ok(true) => {
                    self.fetches.remove(&key);
                    self.dirty.attaching = true;
                }
                // How the donor came to it is not known here yet; the donor publishes that, and answers again.
                Ok(false) => {}
                Err(error) => self.end_fetch(now, key, Refusal::Unreachable(error.to_string())),
            },
            Answer::Taken => self.end_fetch(now, key, Refusal::Taken),
            Answer::Elsewhere(owner) => self.turn_to(now, key, |fetch| {
                fetch.silent.insert(from);
                fetch.hint = Some(owner);
            }),
            Answer::Empty => self.turn_to(now, key, |fetch| fetch.empty.extend([from])),
            Answer::Unknown => self.turn_to(now, key, |fetch| fetch.silent.extend([from])),
        }
    }

    fn turn_to(&mut self, now: Instant, key: FetchKey, note: impl FnOnce(&mut Fetch)) {
        if let Some(fetch) = self.fetches.get_mut(&key) {
            note(fetch);
            fetch.donor = None;
            self.run_fetch(now, key);
        }
    }

    /// Takes in a grant that was asked for; answers whether this node owns anything by it now.
    fn gain(&mut self, now: Instant, key: FetchKey, statement: &[u8]) -> Result<bool, StorageError> {
        let grant = self.book.open(statement).filter(|grant| grant.is_of(key.network, key.pool));
        let state = self.networks.get(&key.network).and_then(|network| network.pools.get(key.pool));
        let Some((grant, state)) = grant.zip(state) else { return Ok(false) };
        let weighed = state.weigh_with(&grant);
        let gained = weighed.news.iter().any(|news| news.id == grant.id);
        if gained {
            self.accept(now, vec![(key.network, key.pool, weighed)])?;
        }
        Ok(gained)
    }

    /// Takes in what the other nodes publish about the owners of pools.
    pub(super) fn hear_grants(&mut self, now: Instant, places: BTreeSet<(NetworkId, u8)>) {
        let mut weighed = Vec::new();
        for (id, pool) in places {
            let index = usize::from(pool);
            let state = self.networks.get(&id).and_then(|network| network.pools.get(index));
            let Some(state) = state else { continue };
            let mut heard = Heard::default();
            for (&teller, view) in &self.views {
                let published = view.grants.get(&(id, pool)).into_iter().flat_map(Grants::values);
                published.for_each(|grant| heard.add(teller, grant));
            }
            weighed.push((id, index, state.weigh(heard)));
        }
        if self.accept(now, weighed).is_err() {
            self.dirty.views = true;
        }
    }

    /// Makes durable, in one commit, whatever makes this node an owner or ends that; then takes everything in.
    fn accept(&mut self, now: Instant, all: Vec<(NetworkId, usize, Weighed)>) -> Result<(), StorageError> {
        let mut rows: Vec<Write> = Vec::new();
        for (id, pool, weighed) in &all {
            rows.extend(weighed.news.iter().map(|grant| grant_row(grant)));
            let resting = weighed.resting(self.me);
            rows.extend(resting.map(|a| ledger::put(Table::Quarantine, rest_key(*id, *pool, a), Vec::new())));
        }
        self.ledger.commit("range-gain", rows)?;
        for (id, pool, weighed) in all {
            let state = self.networks.get_mut(&id).and_then(|network| network.pools.get_mut(pool));
            let Some(state) = state else { continue };
            let resting: Vec<u128> = weighed.resting(self.me).collect();
            if state.accept(weighed) {
                self.dirty.records.insert(id);
                self.dirty.segments.insert(id);
                self.dirty.attaching = true;
            }
            for address in resting {
                state.pool.rest(address, now + self.config.timing.quarantine);
            }
        }
        Ok(())
    }

    /// Ends quarantines; their rows go with the next commit that is a promise, or never matter.
    pub(super) fn wake_addresses(&mut self, now: Instant) {
        let mut rows = Vec::new();
        for (&id, network) in &mut self.networks {
            for (index, state) in network.pools.iter_mut().enumerate() {
                let rested = state.pool.wake(now);
                rows.extend(
                    rested.into_iter().map(|a| ledger::delete(Table::Quarantine, rest_key(id, index, a))),
                );
            }
        }
        if !rows.is_empty() {
            self.dirty.attaching = true;
            // A row that stays only makes its address rest once more after a restart.
            let _ = self.ledger.commit("range-wake", rows);
        }
    }

    /// Hands every range of this node to the members, withdraws its endpoints and says goodbye;
    /// [`ClusterEvent::Left`] tells when that is done. Addresses that nobody took in time stay with this identity.
    ///
    /// # Errors
    /// The state cannot be made durable; nothing has changed.
    pub fn leave(&mut self, now: Instant) -> Result<(), super::ClusterError> {
        self.check_here()?;
        let own: Vec<_> = self.endpoints.keys().copied().collect();
        for endpoint in own {
            self.detach(now, endpoint)?;
        }
        let mut granted: BTreeMap<(NetworkId, usize), Vec<Arc<SignedGrant>>> = BTreeMap::new();
        for (&id, network) in &self.networks {
            for (index, state) in network.pools.iter().enumerate() {
                let owners = state.pool.owners();
                let heir = (self.alive().filter(|&node| node != self.me))
                    .min_by_key(|node| (owners.get(node).copied().unwrap_or(0), *node));
                let claims = heir.map(|heir| state.pool.surrender(heir)).unwrap_or_default();
                let (awake, asleep) = apart(claims, &state.pool.resting().collect());
                let grants = Grant::of(id, index, &awake, false).into_iter();
                let grants = grants.chain(Grant::of(id, index, &asleep, true));
                let signed = grants.map(|grant| SignedGrant::sign(&self.identity, grant)).collect();
                granted.insert((id, index), signed);
            }
        }
        let rows = granted.values().flatten().map(|grant| grant_row(grant)).collect();
        self.ledger.commit("range-leave", rows)?;
        for ((id, index), grants) in granted {
            if let Some(state) = self.networks.get_mut(&id).and_then(|n| n.pools.get_mut(index)) {
                state.give(grants);
            }
            self.dirty.records.insert(id);
        }
        self.leaving = Some(now + LEAVE_WAIT);
        self.tick_at = now + TICK / 10;
        self.settle(now);
        Ok(())
    }

    pub(super) fn finish_leaving(&mut self, now: Instant) {
        let Some(deadline) = self.leaving else { return };
        let pools = self.networks.values().flat_map(|network| &network.pools);
        let mut open = pools.flat_map(|state| state.unreceived());
        let waiting = open.any(|grant| self.is_alive(grant.grant.to));
        if waiting && now < deadline {
            self.tick_at = now + TICK / 10;
            return;
        }
        self.gossip.leave(now);
        self.leaving = None;
        self.left = true;
        self.events.push_back(ClusterEvent::Left);
    }
}

/// Whether a pool should have more than it has: a first block where there is plenty, the next one at three quarters.
fn wants_reserve(pool: &Pool, nodes: usize) -> bool {
    let usage = pool.usage();
    if usage.owned == 0 { is_ample(pool, nodes) } else { usage.used * 4 >= usage.owned * 3 }
}

/// Whether this node owns less than half its share of a subnet with plenty.
fn wants_share(pool: &Pool, nodes: usize) -> bool {
    nodes > 1
        && is_ample(pool, nodes)
        && pool.usage().owned < share(pool.space().automatic_count(), nodes) / 2
}

/// Whether every node can have a block from half the subnet.
fn is_ample(pool: &Pool, nodes: usize) -> bool {
    let size = pool.space().automatic_count();
    block_size(size, nodes).saturating_mul(u128::try_from(nodes).unwrap_or(u128::MAX)) <= size / 2
}

fn share(size: u128, nodes: usize) -> u128 {
    size / u128::try_from(nodes.max(1)).unwrap_or(u128::MAX)
}

/// Splits claims into those that are awake and single addresses that rest.
fn apart(claims: Vec<Claim>, resting: &BTreeSet<u128>) -> (Vec<Claim>, Vec<Claim>) {
    let mut awake = Vec::new();
    let mut asleep = Vec::new();
    for claim in claims {
        let mut next = Some(claim.range.first());
        for &address in resting.range(claim.range.first()..=claim.range.last()) {
            let before = next.zip(address.checked_sub(1)).and_then(|(first, last)| Range::new(first, last));
            awake.extend(before.map(|range| Claim { range, ..claim }));
            asleep.push(Claim { range: Range::single(address), ..claim });
            next = address.checked_add(1);
        }
        let rest = next.and_then(|first| Range::new(first, claim.range.last()));
        awake.extend(rest.map(|range| Claim { range, ..claim }));
    }
    (awake, asleep)
}
