//! One subnet of one network as this node sees it: what it owns, what it has handed out, what rests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ipnet::IpNet;

use super::map::{Claim, Owner, VersionedMap};
use super::range::{Range, number};
use crate::model::{EndpointId, NodeId};

/// Fewest and most addresses of a block that is asked for at once.
const BLOCK: std::ops::RangeInclusive<u128> = 4..=256;
/// Pieces a grant may consist of; a fragmented donor gives less rather than an answer too big for a datagram.
pub const GRANT_PIECES: usize = 8;
/// Times addresses may change hands: every owner publishes how it came to them, each time.
const MAX_VERSION: u64 = 256;

/// How many addresses to ask for in a subnet of `size` addresses among `nodes` nodes: every node can get four
/// blocks, clamped to 4..=256.
#[must_use]
pub fn block_size(size: u128, nodes: usize) -> u128 {
    let nodes = u128::try_from(nodes.max(16)).unwrap_or(u128::MAX);
    (size / nodes.saturating_mul(4)).clamp(*BLOCK.start(), *BLOCK.end())
}

/// The addresses of a subnet and the rules of handing them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    subnet: IpNet,
    whole: Range,
    automatic: Range,
    reserved: BTreeSet<u128>,
    /// Highest first, to stay away from whoever else hands out the lowest.
    from_the_top: bool,
}

impl Space {
    /// `reserved` comes on top of the network and broadcast address (IPv4 up to /30) or the subnet-router anycast
    /// address (IPv6 up to /126, RFC 4291 §2.6.1). Automatic addresses come from `ip_range` only.
    #[must_use]
    pub fn new(subnet: IpNet, ip_range: Option<IpNet>, reserved: impl IntoIterator<Item = u128>) -> Self {
        let whole = Range::of(subnet);
        let mut reserved: BTreeSet<u128> = reserved.into_iter().collect();
        if whole.count() > 2 {
            reserved.insert(whole.first());
            if matches!(subnet, IpNet::V4(_)) {
                reserved.insert(whole.last());
            }
        }
        let automatic = ip_range.and_then(|r| Range::of(r).intersection(whole)).unwrap_or(whole);
        Self { subnet, whole, automatic, reserved, from_the_top: false }
    }

    /// The same, with addresses handed out and granted from the top where that is so.
    #[must_use]
    pub fn from_the_top(self, from_the_top: bool) -> Self {
        Self { from_the_top, ..self }
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Where automatic addresses come from; reserved ones are in it.
    #[must_use]
    pub fn automatic(&self) -> Range {
        self.automatic
    }

    /// Addresses that can be handed out automatically.
    #[must_use]
    pub fn automatic_count(&self) -> u128 {
        self.automatic.count() - self.reserved_in(self.automatic)
    }

    /// Whether `address` is the network's, the broadcast, the gateway's or an auxiliary one.
    #[must_use]
    pub fn is_reserved(&self, address: u128) -> bool {
        self.reserved.contains(&address)
    }

    fn reserved_in(&self, range: Range) -> u128 {
        count(self.reserved.range(range.first()..=range.last()))
    }
}

/// What an address is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Ours and free, if need be out of quarantine early.
    Free,
    /// In use by an endpoint here.
    Taken,
    /// Network, broadcast, gateway or auxiliary address.
    Reserved,
    /// Another node's to give.
    Foreign(NodeId),
    /// Claimed by two nodes.
    Contested,
    /// Not of this subnet.
    Outside,
}

/// Address use of a pool on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Use {
    /// Automatic addresses owned.
    pub owned: u128,
    /// Of those, in use or resting.
    pub used: u128,
}

/// One subnet of one network as one node sees it.
#[derive(Debug, Clone)]
pub struct Pool {
    me: NodeId,
    space: Space,
    map: VersionedMap,
    taken: BTreeMap<u128, EndpointId>,
    resting: BTreeMap<u128, Instant>,
    cursor: u128,
}

impl Pool {
    /// The pool of a network made by `creator`, who owns the whole subnet at version 1.
    #[must_use]
    pub fn new(me: NodeId, space: Space, creator: NodeId) -> Self {
        let mut pool = Self {
            me,
            cursor: space.automatic.first(),
            map: VersionedMap::default(),
            taken: BTreeMap::new(),
            resting: BTreeMap::new(),
            space,
        };
        pool.map.merge(&Claim { range: pool.space.whole, version: 1, owner: creator });
        pool
    }

    /// The subnet and its rules.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Owners of every address, as known here.
    #[must_use]
    pub fn map(&self) -> &VersionedMap {
        &self.map
    }

    /// Sets the owners. What makes this node an owner, or ends that, must be durable before.
    pub fn set_map(&mut self, map: VersionedMap) {
        self.map = map;
    }

    /// Ranges this node owns, as claims.
    #[must_use]
    pub fn owned(&self) -> Vec<Claim> {
        self.own_within(self.space.whole)
            .map(|(range, version)| Claim { range, version, owner: self.me })
            .collect()
    }

    /// Whether `address` is this node's, in use or not.
    #[must_use]
    pub fn owns(&self, address: u128) -> bool {
        self.own_within(Range::single(address)).next().is_some()
    }

    /// Whether some range is claimed by two nodes.
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.map.iter().any(|held| held.owner == Owner::Contested)
    }

    /// What `address` is to this node.
    #[must_use]
    pub fn standing(&self, address: u128) -> Standing {
        if self.space.reserved.contains(&address) {
            return Standing::Reserved;
        }
        match self.map.get(address).map(|held| held.owner) {
            _ if self.taken.contains_key(&address) => Standing::Taken,
            None => Standing::Outside,
            Some(Owner::Contested) => Standing::Contested,
            Some(Owner::Node(owner)) if owner == self.me => Standing::Free,
            Some(Owner::Node(owner)) => Standing::Foreign(owner),
        }
    }

    /// The next automatic address that is ours, free and not refused by `avoid`.
    ///
    /// Next-fit: the search starts after the address taken last, so that a freed one is not reused at once.
    /// Nothing changes until [`take`](Self::take).
    #[must_use]
    pub fn pick(&self, avoid: impl Fn(u128) -> bool) -> Option<u128> {
        if self.space.from_the_top {
            return self.highest(avoid);
        }
        let automatic = self.space.automatic;
        let ahead = Range::new(self.cursor.max(automatic.first()), automatic.last());
        let behind = self
            .cursor
            .checked_sub(1)
            .and_then(|end| Range::new(automatic.first(), end.min(automatic.last())));
        [ahead, behind].into_iter().flatten().find_map(|part| {
            self.own_within(part).find_map(|(range, _)| {
                (range.first()..=range.last()).find(|&address| !self.is_used(address) && !avoid(address))
            })
        })
    }

    fn highest(&self, avoid: impl Fn(u128) -> bool) -> Option<u128> {
        let own: Vec<Range> = self.own_within(self.space.automatic).map(|(range, _)| range).collect();
        own.into_iter().rev().find_map(|range| {
            (range.first()..=range.last()).rev().find(|&address| !self.is_used(address) && !avoid(address))
        })
    }

    /// Records that `endpoint` has `address`; the endpoint must be durable.
    pub fn take(&mut self, address: u128, endpoint: EndpointId) {
        self.taken.insert(address, endpoint);
        self.resting.remove(&address);
        self.cursor = address.saturating_add(1);
    }

    /// Frees `address`, which nobody has used.
    pub fn untake(&mut self, address: u128) {
        self.taken.remove(&address);
    }

    /// Frees `address`, which rests until `until` before it is handed out automatically or granted in a block.
    pub fn release(&mut self, address: u128, until: Instant) {
        self.taken.remove(&address);
        self.rest(address, until);
    }

    /// Lets `address` rest until `until`.
    pub fn rest(&mut self, address: u128, until: Instant) {
        self.resting.insert(address, until);
    }

    /// Ends the quarantine of addresses that have rested enough and answers which.
    pub fn wake(&mut self, now: Instant) -> Vec<u128> {
        let rested: Vec<u128> =
            self.resting.iter().filter(|&(_, &until)| until <= now).map(|(&address, _)| address).collect();
        for address in &rested {
            self.resting.remove(address);
        }
        rested
    }

    /// Resting addresses.
    pub fn resting(&self) -> impl Iterator<Item = u128> + '_ {
        self.resting.keys().copied()
    }

    /// When the next address has rested enough.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        self.resting.values().min().copied()
    }

    /// Chooses up to `want` free automatic addresses to grant to `to`, at most half of what is free: blocks of a
    /// power of two that begin at a multiple of it, lowest first (or highest), but for the one this node is handing out
    /// from.
    /// Nothing changes until the claims are durable and merged.
    #[must_use]
    pub fn carve(&self, want: u128, to: NodeId) -> Vec<Claim> {
        let mut runs = self.free_runs();
        let free: u128 = runs.iter().map(|run| run.count()).sum();
        let mut left = want.min(free.div_ceil(2));
        // Crumbs beside a block are not worth an entry of their own in everybody's map.
        let least = left / 8;
        let mut unit = power_of_two_in(left);
        let mut claims = Vec::new();
        while unit > 0 && (claims.is_empty() || unit >= least) && claims.len() < GRANT_PIECES {
            match cut_block(&mut runs, unit, (self.cursor, self.space.from_the_top)) {
                Some(block) => {
                    left -= unit;
                    claims.extend(self.hand_over(block, to));
                    unit = unit.min(power_of_two_in(left));
                }
                None => unit /= 2,
            }
        }
        claims.truncate(GRANT_PIECES);
        claims
    }

    /// The claim that grants one address to `to`, if it is ours and free.
    #[must_use]
    pub fn carve_exact(&self, address: u128, to: NodeId) -> Option<Claim> {
        if self.standing(address) != Standing::Free {
            return None;
        }
        self.hand_over(Range::single(address), to).next()
    }

    /// The claims that grant everything to `to`, for a node that leaves.
    #[must_use]
    pub fn surrender(&self, to: NodeId) -> Vec<Claim> {
        self.hand_over(self.space.whole, to).collect()
    }

    /// How full the pool is on this node.
    #[must_use]
    pub fn usage(&self) -> Use {
        let mut usage = Use::default();
        for (range, _) in self.own_within(self.space.automatic) {
            usage.owned += range.count() - self.space.reserved_in(range);
            let span = range.first()..=range.last();
            usage.used += count(self.taken.range(span.clone())) + count(self.resting.range(span));
        }
        usage
    }

    /// Automatic addresses each other owner has, reserved ones not counted; what they use is theirs to know.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<NodeId, u128> {
        let mut owners = BTreeMap::new();
        for held in self.map.within(self.space.automatic) {
            if let Owner::Node(owner) = held.owner
                && owner != self.me
            {
                *owners.entry(owner).or_default() += held.range.count() - self.space.reserved_in(held.range);
            }
        }
        owners
    }

    /// The pool's number of `address`, if it belongs to the subnet.
    #[must_use]
    pub fn locate(&self, address: std::net::IpAddr) -> Option<u128> {
        self.space.subnet.contains(&address).then(|| number(address))
    }

    fn hand_over(&self, range: Range, to: NodeId) -> impl Iterator<Item = Claim> + '_ {
        self.own_within(range)
            .filter(|(_, version)| *version < MAX_VERSION)
            .map(move |(range, version)| Claim { range, version: version + 1, owner: to })
    }

    fn own_within(&self, range: Range) -> impl Iterator<Item = (Range, u64)> + '_ {
        self.map
            .within(range)
            .filter(|held| held.owner == Owner::Node(self.me))
            .map(|held| (held.range, held.version))
    }

    fn is_used(&self, address: u128) -> bool {
        self.taken.contains_key(&address)
            || self.resting.contains_key(&address)
            || self.space.reserved.contains(&address)
    }

    /// Own automatic addresses that are neither taken nor resting nor reserved.
    fn free_runs(&self) -> Vec<Range> {
        let mut runs = Vec::new();
        for (range, _) in self.own_within(self.space.automatic) {
            let span = range.first()..=range.last();
            let used: BTreeSet<u128> = self
                .taken
                .range(span.clone())
                .map(|(&a, _)| a)
                .chain(self.resting.range(span.clone()).map(|(&a, _)| a))
                .chain(self.space.reserved.range(span).copied())
                .collect();
            let mut next = Some(range.first());
            for address in used {
                let run = next.zip(address.checked_sub(1)).and_then(|(first, last)| Range::new(first, last));
                runs.extend(run);
                next = address.checked_add(1);
            }
            runs.extend(next.and_then(|first| Range::new(first, range.last())));
        }
        runs
    }
}

/// The largest power of two that is at most `count`; 0 of 0.
fn power_of_two_in(count: u128) -> u128 {
    count.checked_ilog2().map_or(0, |bits| 1 << bits)
}

/// Takes the lowest aligned block of `unit` addresses out of `runs`, or the highest, rather not the one around `cursor`.
fn cut_block(runs: &mut Vec<Range>, unit: u128, (cursor, from_the_top): (u128, bool)) -> Option<Range> {
    let block = |run: &Range| if from_the_top { last_block(run, unit) } else { first_block(run, unit) };
    let beside = |run: &Range, block: Range| match from_the_top {
        true => last_block(&Range::new(run.first(), block.first().checked_sub(1)?)?, unit),
        false => first_block(&Range::new(block.last().checked_add(1)?, run.last())?, unit),
    };
    let next = |apart: bool| {
        let mut upwards = runs.iter().enumerate();
        let mut downwards = runs.iter().enumerate().rev();
        let mut ordered = std::iter::from_fn(|| if from_the_top { downwards.next() } else { upwards.next() });
        ordered.find_map(|(at, run)| {
            let first = block(run)?;
            match apart && first.contains(cursor) {
                true => Some((at, beside(run, first)?)),
                false => Some((at, first)),
            }
        })
    };
    let (at, block) = next(true).or_else(|| next(false))?;
    let run = runs.remove(at);
    let before = block.first().checked_sub(1).and_then(|last| Range::new(run.first(), last));
    let after = block.last().checked_add(1).and_then(|first| Range::new(first, run.last()));
    runs.splice(at..at, before.into_iter().chain(after));
    Some(block)
}

/// The lowest block of `unit` addresses in a run that begins at a multiple of it.
fn first_block(run: &Range, unit: u128) -> Option<Range> {
    let first = run.first().checked_next_multiple_of(unit)?;
    Range::new(first, first.checked_add(unit - 1)?).filter(|block| block.last() <= run.last())
}

/// The highest one.
fn last_block(run: &Range, unit: u128) -> Option<Range> {
    let beyond = run.last().saturating_add(1);
    let first = (beyond / unit * unit).checked_sub(unit)?;
    Range::new(first, first + (unit - 1)).filter(|block| run.first() <= block.first())
}

fn count<T>(items: impl Iterator<Item = T>) -> u128 {
    u128::try_from(items.count()).unwrap_or(u128::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time starts somewhere")]
mod tests {
    use super::*;
    use crate::ipam::{Transfer, outcome};
    use proptest::prelude::*;
    use std::time::Duration;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    fn space(subnet: &str, ip_range: Option<&str>, reserved: &[u128]) -> Space {
        let parse = |text: &str| text.parse().expect("a prefix");
        Space::new(parse(subnet), ip_range.map(parse), reserved.iter().copied())
    }

    fn endpoint(n: u128) -> EndpointId {
        EndpointId(n.to_be_bytes())
    }

    /// Lets ownership change as the claims say.
    fn give(pool: &mut Pool, claims: &[Claim]) {
        let mut map = pool.map().clone();
        for claim in claims {
            map.merge(claim);
        }
        pool.set_map(map);
    }

    fn slash29() -> Pool {
        // 10.0.0.8/29: .8 network, .9 gateway, .15 broadcast, five for endpoints.
        let base = number("10.0.0.8".parse().expect("an address"));
        Pool::new(A, space("10.0.0.8/29", None, &[base + 1]), A)
    }

    #[test]
    fn addresses_are_handed_out_next_fit_without_the_reserved_ones() {
        let mut pool = slash29();
        let base = pool.space.whole.first();
        let mut got = Vec::new();
        while let Some(address) = pool.pick(|_| false) {
            pool.take(address, endpoint(address));
            got.push(address - base);
        }
        assert_eq!(got, [2, 3, 4, 5, 6]);
        let now = Instant::now();
        pool.release(base + 3, now + Duration::from_secs(120));
        assert_eq!(pool.pick(|_| false), None, "a freed address rests");
        assert_eq!(pool.wake(now + Duration::from_secs(119)), []);
        assert_eq!(pool.wake(now + Duration::from_secs(120)), [base + 3]);
        assert_eq!(pool.pick(|_| false), Some(base + 3));
    }

    #[test]
    fn automatic_addresses_stay_in_the_ip_range_and_its_first_one_is_used() {
        let pool = Pool::new(A, space("172.28.0.0/16", Some("172.28.5.0/24"), &[]), A);
        let first = pool.pick(|_| false).expect("free");
        assert_eq!(Range::address(pool.space.subnet, first).to_string(), "172.28.5.0");
        assert_eq!(pool.space.automatic_count(), 256);
        let outside = number("172.28.9.9".parse().expect("an address"));
        assert_eq!(pool.standing(outside), Standing::Free, "a chosen address may lie outside the range");
        assert!(
            pool.carve(1000, B).iter().all(|c| pool.space.automatic.intersection(c.range) == Some(c.range))
        );
    }

    #[test]
    fn a_grant_gives_at_most_half_and_never_what_is_used_or_resting() {
        let mut pool = slash29();
        let base = pool.space.whole.first();
        pool.take(base + 4, endpoint(1));
        pool.rest(base + 5, Instant::now());
        let claims = pool.carve(100, B);
        let given: Vec<u128> =
            claims.iter().flat_map(|c| c.range.first()..=c.range.last()).map(|a| a - base).collect();
        assert_eq!(given, [2, 3], "two of the three free ones");
        assert!(claims.iter().all(|c| c.version == 2 && c.owner == B));
    }

    #[test]
    fn a_block_is_aligned_and_lies_beside_the_one_that_is_handed_out_from() {
        let mut pool = Pool::new(A, space("10.0.0.0/16", None, &[]), A);
        let first = pool.pick(|_| false).expect("free");
        pool.take(first, endpoint(1));
        let text = |claims: &[Claim]| -> Vec<String> {
            let address = |number| Range::address(pool.space.subnet, number).to_string();
            claims
                .iter()
                .map(|c| format!("{}-{}", address(c.range.first()), address(c.range.last())))
                .collect()
        };
        assert_eq!(text(&pool.carve(256, B)), ["10.0.1.0-10.0.1.255"]);
        let share = ["10.0.32.0-10.0.63.255", "10.0.16.0-10.0.31.255", "10.0.8.0-10.0.15.255"];
        assert_eq!(text(&pool.carve(16_383, B)), share);
    }

    #[test]
    fn a_pool_whose_lowest_addresses_somebody_else_hands_out_gives_the_highest() {
        let space = space("10.0.0.0/16", None, &[]).from_the_top(true);
        let mut pool = Pool::new(A, space, A);
        let subnet = pool.space.subnet;
        let text = |number| Range::address(subnet, number).to_string();
        assert_eq!(pool.pick(|_| false).map(text), Some("10.0.255.254".to_owned()));
        let texts = |claims: &[Claim]| -> Vec<String> {
            claims.iter().map(|c| format!("{}-{}", text(c.range.first()), text(c.range.last()))).collect()
        };
        assert_eq!(texts(&pool.carve(256, B)), ["10.0.254.0-10.0.254.255"], "the highest whole block");
        let given = pool.carve(256, B);
        give(&mut pool, &given);
        let next = pool.carve(256, B);
        assert_eq!(texts(&next), ["10.0.253.0-10.0.253.255"]);
        let mut small = Pool::new(A, slash29().space.from_the_top(true), A);
        let mut got = Vec::new();
        while let Some(address) = small.pick(|_| false) {
            small.take(address, endpoint(address));
            got.push(address - small.space.whole.first());
        }
        assert_eq!(got, [6, 5, 4, 3, 2]);
    }

    #[test]
    fn an_address_owned_by_another_is_not_ours_to_give() {
        let mut pool = slash29();
        let base = pool.space.whole.first();
        let grant = pool.carve_exact(base + 2, B).expect("free");
        give(&mut pool, &[grant]);
        assert_eq!(pool.standing(base + 2), Standing::Foreign(B));
        assert_eq!(pool.carve_exact(base + 2, B), None);
        assert_eq!(pool.pick(|_| false), Some(base + 3));
        assert_eq!(pool.standing(base), Standing::Reserved);
        assert_eq!(pool.standing(base + 8), Standing::Outside);
    }

    #[test]
    fn a_range_that_has_changed_hands_too_often_stays() {
        let mut pool = slash29();
        let base = pool.space.whole.first();
        let last = Claim { range: pool.space.whole, version: MAX_VERSION, owner: A };
        give(&mut pool, &[last]);
        assert_eq!((pool.carve(4, B), pool.carve_exact(base + 3, B)), (vec![], None));
    }

    #[test]
    fn a_contested_range_is_nobodys() {
        let mut pool = slash29();
        let base = pool.space.whole.first();
        let twice = Claim { range: pool.space.whole, version: 1, owner: B };
        give(&mut pool, &[twice]);
        assert!(pool.is_contested());
        assert_eq!(pool.pick(|_| false), None);
        assert_eq!(pool.carve(4, B), []);
        assert_eq!(pool.standing(base + 3), Standing::Contested);
    }

    #[test]
    fn blocks_shrink_with_the_subnet_and_the_cluster() {
        assert_eq!(block_size(65_536, 3), 256);
        assert_eq!(block_size(65_536, 1_000), 16);
        assert_eq!(block_size(256, 3), 4);
        assert_eq!(block_size(1 << 64, 100_000), 256);
    }

    /// What two correct nodes and the messages between them may do.
    #[derive(Debug, Clone)]
    enum Step {
        Attach(bool),
        Detach(bool),
        Ask(bool, u128),
        AskExact(bool, u128),
        Deliver(usize),
        Restart(bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => any::<bool>().prop_map(Step::Attach),
            2 => any::<bool>().prop_map(Step::Detach),
            3 => (any::<bool>(), 1u128..9).prop_map(|(n, w)| Step::Ask(n, w)),
            2 => (any::<bool>(), 0u128..32).prop_map(|(n, a)| Step::AskExact(n, a)),
            4 => any::<usize>().prop_map(Step::Deliver),
            1 => any::<bool>().prop_map(Step::Restart),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn no_address_is_ever_handed_out_twice(steps in steps()) {
            let make = |me| Pool::new(me, space("10.0.0.0/27", None, &[]), A);
            let whole = make(A).space.whole;
            let first = Claim { range: whole, version: 1, owner: A };
            let learn = |pool: &mut Pool, known: &BTreeSet<Transfer>| {
                pool.set_map(outcome(&first, known.iter().map(|t| (*t, *t))).map);
            };
            let mut pools = [make(A), make(B)];
            let mut known = [BTreeSet::new(), BTreeSet::new()];
            let mut said: Vec<Transfer> = Vec::new(); // every transfer ever sent: delivered late, twice or never
            let base = whole.first();
            for step in steps {
                match step {
                    Step::Attach(n) => {
                        let other = usize::from(!n);
                        if let Some(address) = pools[usize::from(n)].pick(|_| false) {
                            prop_assert!(!pools[other].taken.contains_key(&address), "{address} twice");
                            pools[usize::from(n)].take(address, endpoint(address));
                        }
                    }
                    Step::Detach(n) => {
                        let first = pools[usize::from(n)].taken.keys().next().copied();
                        if let Some(address) = first {
                            let pool = &mut pools[usize::from(n)];
                            pool.taken.remove(&address);
                        }
                    }
                    Step::Ask(n, _) | Step::AskExact(n, _) => {
                        let (donor, from, to) = if n { (0, A, B) } else { (1, B, A) };
                        let claims: Vec<Claim> = match step {
                            Step::Ask(_, want) => pools[donor].carve(want, to),
                            Step::AskExact(_, offset) => pools[donor].carve_exact(base + offset, to).into_iter().collect(),
                            _ => Vec::new(),
                        };
                        let transfers: Vec<Transfer> = claims
                            .iter()
                            .map(|c| Transfer { range: c.range, version: c.version, from, to })
                            .collect();
                        known[donor].extend(transfers.iter().copied());
                        learn(&mut pools[donor], &known[donor]);
                        said.extend(transfers);
                    }
                    Step::Deliver(which) => {
                        if let Some(&transfer) = said.get(which % said.len().max(1)) {
                            for (pool, known) in pools.iter_mut().zip(&mut known) {
                                known.insert(transfer);
                                learn(pool, known);
                            }
                        }
                    }
                    Step::Restart(n) => {
                        // Nothing is left but what was written: its own grants, and how it came to what it owns.
                        let at = usize::from(n);
                        let me = pools[at].me;
                        let taken = std::mem::take(&mut pools[at].taken);
                        let counted = outcome(&first, known[at].iter().map(|t| (*t, *t))).counted;
                        known[at].retain(|t| t.from == me || counted.contains(t));
                        pools[at] = make(me);
                        learn(&mut pools[at], &known[at]);
                        pools[at].taken = taken;
                    }
                }
                for address in base..base + 32 {
                    let ours = pools.iter().filter(|pool| pool.owns(address));
                    prop_assert!(ours.count() <= 1, "{} owned twice", address);
                }
            }
        }
    }
}
