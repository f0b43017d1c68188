//! Grants: signed transfers of address ranges, and what follows from those a node knows.
//!
//! Whoever owns addresses publishes the grants by which they came to it, back to the network's creator, so that
//! everybody can tell, however late they join and whoever has left since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::record::{hear, state};
use crate::identity::Identity;
use crate::ipam::{Claim, GRANT_PIECES, Outcome, Owner, Pool, Range, Space, Transfer, outcome};
use crate::model::{NetworkId, NodeId};

/// Subject of a grant.
const GRANT: &[u8] = b"weft grant 1";
/// Statements remembered beyond those in use, so that a signature is checked once.
const REMEMBERED: usize = 16_384;

/// Names a grant: SHA-256 of its statement, cut to 128 bits.
pub(super) type GrantId = [u8; 16];
/// Grants by their names.
pub(super) type Grants = BTreeMap<GrantId, Arc<SignedGrant>>;

/// That addresses of a pool change hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) network: NetworkId,
    pub(super) pool: u8,
    pub(super) to: NodeId,
    /// The addresses, each stretch with the version of the ownership that begins.
    pub(super) pieces: Vec<(Range, u64)>,
    /// Whether they are single addresses that still rest: a leaving node hands on its quarantine too.
    pub(super) rests: bool,
}

/// A grant as its giver signed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedGrant {
    pub(super) id: GrantId,
    pub(super) from: NodeId,
    pub(super) grant: Grant,
    pub(super) statement: Vec<u8>,
}

impl Grant {
    /// The grants that carry `claims`, which are all for one owner.
    pub(super) fn of(network: NetworkId, pool: usize, claims: &[Claim], rests: bool) -> Vec<Self> {
        // At most 16 subnets.
        let pool = u8::try_from(pool).unwrap_or(u8::MAX);
        let grant = |part: &[Claim]| {
            let pieces = part.iter().map(|claim| (claim.range, claim.version)).collect();
            Some(Self { network, pool, to: part.first()?.owner, pieces, rests })
        };
        claims.chunks(GRANT_PIECES).filter_map(grant).collect()
    }
}

impl SignedGrant {
    pub(super) fn sign(giver: &Identity, grant: Grant) -> Arc<Self> {
        let statement = state(giver, GRANT, &grant);
        Arc::new(Self { id: id_of(&statement), from: giver.node_id(), grant, statement })
    }

    fn open(statement: &[u8]) -> Option<Arc<Self>> {
        let (from, grant): (NodeId, Grant) = hear(GRANT, statement)?;
        let single = |&(range, _): &(Range, u64)| range.count() == 1;
        let sound = grant.pieces.len() <= GRANT_PIECES && (!grant.rests || grant.pieces.iter().all(single));
        let id = id_of(statement);
        sound.then(|| Arc::new(Self { id, from, grant, statement: statement.to_vec() }))
    }

    pub(super) fn is_of(&self, network: NetworkId, pool: usize) -> bool {
        (self.grant.network, usize::from(self.grant.pool)) == (network, pool)
    }

    fn transfers(&self) -> impl Iterator<Item = (GrantId, Transfer)> + '_ {
        let (from, to) = (self.from, self.grant.to);
        self.grant
            .pieces
            .iter()
            .map(move |&(range, version)| (self.id, Transfer { range, version, from, to }))
    }
}

fn id_of(statement: &[u8]) -> GrantId {
    let hash = Sha256::digest(statement);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}

/// Opened statements, so that a signature is checked once however often its record is read.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// `None` for what is no grant.
    opened: BTreeMap<GrantId, Option<Arc<SignedGrant>>>,
    /// Signatures checked since the budget was last set.
    checked: usize,
}

impl Book {
    /// Begins a turn; what nobody uses any more is forgotten.
    pub(super) fn begin(&mut self) {
        self.checked = 0;
        if self.opened.len() > REMEMBERED {
            let used = |grant: &mut Option<Arc<SignedGrant>>| {
                grant.as_ref().is_some_and(|g| Arc::strong_count(g) > 1)
            };
            self.opened.retain(|_, grant| used(grant));
        }
    }

    /// Signatures checked in this turn.
    pub(super) fn checked(&self) -> usize {
        self.checked
    }

    pub(super) fn open(&mut self, statement: &[u8]) -> Option<Arc<SignedGrant>> {
        let id = id_of(statement);
        if let Some(known) = self.opened.get(&id) {
            return known.clone();
        }
        self.checked += 1;
        let grant = SignedGrant::open(statement);
        self.opened.insert(id, grant.clone());
        grant
    }
}

/// What the others publish of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heard {
    grants: Grants,
    /// Those that the one publishes who got the addresses.
    received: BTreeSet<GrantId>,
}

impl Heard {
    pub(super) fn add(&mut self, teller: NodeId, grant: &Arc<SignedGrant>) {
        self.grants.insert(grant.id, Arc::clone(grant));
        if grant.grant.to == teller {
            self.received.insert(grant.id);
        }
    }
}

/// A subnet and what is known of its owners.
pub(super) struct PoolState {
    pub(super) pool: Pool,
    me: NodeId,
    /// What was owned at first: everything, by the creator.
    first: Claim,
    /// What this node would know alone after a restart.
    durable: Grants,
    heard: Heard,
    counted: BTreeSet<GrantId>,
    /// No reserve is asked for before, after one could not be had.
    pub(super) reserve_after: Option<Instant>,
    /// When the node's share is looked at next.
    pub(super) balance_at: Option<Instant>,
}

/// What taking in grants would come to.
pub(super) struct Weighed {
    heard: Heard,
    outcome: Outcome<GrantId>,
    /// To be durable before they are taken in: by them this node owns something, or does not any more.
    pub(super) news: Vec<Arc<SignedGrant>>,
}

impl Weighed {
    /// Addresses that come to this node while they rest.
    pub(super) fn resting(&self, me: NodeId) -> impl Iterator<Item = u128> + '_ {
        let resting = self.news.iter().filter(move |signed| signed.grant.rests && signed.grant.to == me);
        resting.flat_map(|signed| signed.grant.pieces.iter().map(|(range, _)| range.first()))
    }
}

impl PoolState {
    pub(super) fn new(me: NodeId, space: Space, creator: NodeId) -> Self {
        let first = Claim { range: Range::of(space.subnet()), version: 1, owner: creator };
        Self {
            pool: Pool::new(me, space, creator),
            me,
            first,
            durable: Grants::new(),
            heard: Heard::default(),
            counted: BTreeSet::new(),
            reserve_after: None,
            balance_at: None,
        }
    }

    /// Takes in the grants that a restart finds; answers those that mean nothing any more.
    pub(super) fn restore(&mut self, durable: Grants) -> Vec<GrantId> {
        self.durable = durable;
        let outcome = self.outcome(&Grants::new());
        // How this node came to what it has given away since is still to be told with it.
        let idle =
            |signed: &&Arc<SignedGrant>| signed.from != self.me && !outcome.counted.contains(&signed.id);
        let idle = self.durable.values().filter(idle).map(|signed| signed.id).collect();
        self.settle(outcome);
        idle
    }

    /// Considers what the others publish now, all of it.
    pub(super) fn weigh(&self, heard: Heard) -> Weighed {
        let outcome = self.outcome(&heard.grants);
        let needed = self.needed(&outcome, &heard.grants);
        let news = needed.filter(|signed| !self.durable.contains_key(&signed.id)).cloned().collect();
        Weighed { heard, outcome, news }
    }

    /// Considers one grant more.
    pub(super) fn weigh_with(&self, grant: &Arc<SignedGrant>) -> Weighed {
        let mut heard = self.heard.clone();
        heard.grants.insert(grant.id, Arc::clone(grant));
        self.weigh(heard)
    }

    /// Takes in what was weighed, whose news are durable; answers whether anything changed.
    pub(super) fn accept(&mut self, weighed: Weighed) -> bool {
        let Weighed { heard, outcome, news } = weighed;
        let changed = heard != self.heard || !news.is_empty();
        self.durable.extend(news.into_iter().map(|signed| (signed.id, signed)));
        self.heard = heard;
        self.settle(outcome);
        changed
    }

    /// Takes in grants of this node, which are durable.
    pub(super) fn give(&mut self, grants: impl IntoIterator<Item = Arc<SignedGrant>>) {
        self.durable.extend(grants.into_iter().map(|signed| (signed.id, signed)));
        let outcome = self.outcome(&self.heard.grants);
        self.settle(outcome);
    }

    /// What this node publishes: how it came to what it owns, and to what it gave to whoever does not publish that.
    pub(super) fn published(&self) -> Vec<Arc<SignedGrant>> {
        let open: Vec<Range> = self.unreceived().flat_map(|signed| self.in_force(signed)).collect();
        let mut published: Vec<Arc<SignedGrant>> = (self.durable.values())
            .filter(|signed| {
                let given = signed
                    .grant
                    .pieces
                    .iter()
                    .any(|(range, _)| open.iter().any(|open| open.intersection(*range).is_some()));
                self.counted.contains(&signed.id) && (given || rests_on(self.pool.map(), self.me, signed))
            })
            .cloned()
            .collect();
        published.sort_by_key(|signed| (signed.grant.pieces.iter().map(|p| p.1).min(), signed.id));
        published
    }

    /// Grants of this node that are in force and that their receiver does not publish.
    ///
    /// What other givers publish does not matter: two of them would take each other's word as a reason to be silent,
    /// and each other's silence as a reason to speak, for ever.
    pub(super) fn unreceived(&self) -> impl Iterator<Item = &Arc<SignedGrant>> {
        let ours = self.durable.values().filter(|signed| signed.from == self.me);
        let ours = ours.filter(|signed| !self.heard.received.contains(&signed.id));
        ours.filter(|signed| self.counted.contains(&signed.id) && self.in_force(signed).next().is_some())
    }

    /// Addresses of a grant that have not changed hands since.
    fn in_force<'g>(&'g self, signed: &'g SignedGrant) -> impl Iterator<Item = Range> + 'g {
        signed.grant.pieces.iter().flat_map(|&(range, version)| {
            self.pool.map().within(range).filter(move |held| held.version == version).map(|held| held.range)
        })
    }

    fn outcome(&self, heard: &Grants) -> Outcome<GrantId> {
        let grants = self.durable.values().chain(heard.values());
        outcome(&self.first, grants.flat_map(|signed| signed.transfers()))
    }

    /// What must survive a restart for this node to know what it owns: how it came to it, and whatever it gave away.
    fn needed<'g>(
        &'g self,
        outcome: &'g Outcome<GrantId>,
        heard: &'g Grants,
    ) -> impl Iterator<Item = &'g Arc<SignedGrant>> {
        self.durable.values().chain(heard.values()).filter(|signed| {
            let counts = outcome.counted.contains(&signed.id);
            signed.from == self.me || (counts && rests_on(&outcome.map, self.me, signed))
        })
    }

    fn settle(&mut self, outcome: Outcome<GrantId>) {
        self.pool.set_map(outcome.map);
        self.counted = outcome.counted;
    }
}

/// Whether what `me` owns, or what is contested, has come about by a grant.
fn rests_on(map: &crate::ipam::VersionedMap, me: NodeId, signed: &SignedGrant) -> bool {
    signed.grant.pieces.iter().any(|&(range, version)| {
        let ours = |held: &crate::ipam::Held| {
            held.version >= version && [Owner::Node(me), Owner::Contested].contains(&held.owner)
        };
        map.within(range).any(|held| ours(&held))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 16]);

    fn identity(n: u8) -> Identity {
        Identity::from_secret(&[n; 32])
    }

    fn range(first: u32, last: u32) -> Range {
        Range::new(0x0a00_0000 + u128::from(first), 0x0a00_0000 + u128::from(last)).expect("not empty")
    }

    fn signed(from: u8, to: u8, range: Range, version: u64) -> Arc<SignedGrant> {
        let to = identity(to).node_id();
        let grant = Grant { network: NETWORK, pool: 0, to, pieces: vec![(range, version)], rests: false };
        SignedGrant::sign(&identity(from), grant)
    }

    /// The pool of 10.0.0.0/24, made by node 1, as node `me` has it.
    fn state(me: u8) -> PoolState {
        let space = Space::new("10.0.0.0/24".parse().expect("a prefix"), None, []);
        PoolState::new(identity(me).node_id(), space, identity(1).node_id())
    }

    /// Grants as those publish them who got the addresses.
    fn heard(grants: &[&Arc<SignedGrant>]) -> Heard {
        let mut heard = Heard::default();
        grants.iter().for_each(|grant| heard.add(grant.grant.to, grant));
        heard
    }

    fn owner(state: &PoolState, address: u32) -> Option<Owner> {
        state.pool.map().get(range(address, address).first()).map(|held| held.owner)
    }

    #[test]
    fn a_member_cannot_give_what_it_does_not_own_and_no_claim_takes_what_is_ours() {
        let mut ours = state(1);
        let stolen = [signed(3, 3, range(0, 255), 2), signed(3, 3, range(0, 255), 200)];
        let weighed = ours.weigh(heard(&[&stolen[0], &stolen[1]]));
        assert!(weighed.news.is_empty(), "nothing of it is worth writing down");
        ours.accept(weighed);
        assert_eq!(owner(&ours, 9), Some(Owner::Node(identity(1).node_id())));
        assert!(ours.published().is_empty(), "nor repeating");
    }

    #[test]
    fn a_statement_that_was_altered_or_is_anothers_is_no_grant() {
        let good = signed(1, 2, range(8, 15), 2);
        let mut book = Book::default();
        assert_eq!(book.open(&good.statement), Some(Arc::clone(&good)));
        for at in [0, 20, good.statement.len() - 1] {
            let mut bad = good.statement.clone();
            bad[at] ^= 1;
            assert_eq!(book.open(&bad), None);
        }
        let longer = [&good.statement[..], &[0]].concat();
        assert_eq!(book.open(&longer), None);
        let checked = book.checked();
        assert!(book.open(&good.statement).is_some() && book.open(&longer).is_none());
        assert_eq!(book.checked(), checked, "signatures are checked once");
    }

    #[test]
    fn who_gets_a_range_keeps_and_tells_how_its_giver_came_to_it() {
        let (first, second) = (signed(1, 2, range(0, 127), 2), signed(2, 3, range(16, 31), 3));
        let mut ours = state(3);
        let late = ours.weigh(heard(&[&second]));
        assert!(late.news.is_empty(), "its giver is not known to have owned it");
        ours.accept(late);
        let weighed = ours.weigh(heard(&[&second, &first]));
        assert_eq!(weighed.news.len(), 2);
        ours.accept(weighed);
        assert_eq!(owner(&ours, 20), Some(Owner::Node(identity(3).node_id())));
        let mut restarted = state(3);
        assert!(restarted.restore(ours.durable.clone()).is_empty());
        assert_eq!(restarted.pool.owned(), ours.pool.owned());
        let told: Vec<GrantId> = restarted.published().iter().map(|grant| grant.id).collect();
        assert_eq!(told, [first.id, second.id]);
        let mut newcomer = state(4);
        newcomer.accept(newcomer.weigh(heard(&restarted.published().iter().collect::<Vec<_>>())));
        assert_eq!(owner(&newcomer, 20), Some(Owner::Node(identity(3).node_id())));
    }

    #[test]
    fn a_giver_tells_of_its_grant_until_the_receiver_does() {
        let grant = signed(1, 2, range(16, 31), 2);
        let mut ours = state(1);
        ours.give([Arc::clone(&grant)]);
        assert_eq!((ours.published().len(), ours.unreceived().count()), (1, 1));
        ours.accept(ours.weigh(heard(&[&grant])));
        assert_eq!((ours.published().len(), ours.unreceived().count()), (0, 0));
    }

    #[test]
    fn givers_of_what_has_no_owner_to_tell_of_it_do_not_take_turns() {
        let (there, gone) = (signed(1, 2, range(16, 31), 2), signed(2, 9, range(16, 31), 3));
        let told_by = |me: u8, other: &[Arc<SignedGrant>]| {
            let mut state = state(me);
            state.restore([&there, &gone].map(|grant| (grant.id, Arc::clone(grant))).into());
            let mut heard = Heard::default();
            other.iter().for_each(|grant| heard.add(identity(3 - me).node_id(), grant));
            state.accept(state.weigh(heard));
            state.published().iter().map(|grant| grant.id).collect::<Vec<_>>()
        };
        let both = [Arc::clone(&there), Arc::clone(&gone)];
        for other in [&[], &both[..]] {
            assert_eq!(told_by(2, other), [there.id, gone.id], "the last giver tells, whoever else does");
            assert!(told_by(1, other).is_empty(), "the one before does not");
        }
    }

    #[test]
    fn what_an_owner_gave_to_two_is_contested_and_stays_so_after_a_restart() {
        let mut ours = state(2);
        let (to_us, to_other) = (signed(1, 2, range(16, 31), 2), signed(1, 3, range(24, 40), 2));
        ours.accept(ours.weigh(heard(&[&to_us, &to_other])));
        assert_eq!(owner(&ours, 25), Some(Owner::Contested));
        let mut restarted = state(2);
        restarted.restore(ours.durable.clone());
        assert_eq!(owner(&restarted, 25), Some(Owner::Contested));
        assert!(restarted.pool.is_contested());
    }

    #[test]
    fn a_grant_of_ours_that_we_forgot_still_counts_and_is_written_down() {
        let mut rolled_back = state(1);
        let forgotten = signed(1, 2, range(16, 31), 2);
        let weighed = rolled_back.weigh(heard(&[&forgotten]));
        assert_eq!(weighed.news.len(), 1);
        rolled_back.accept(weighed);
        assert_eq!(owner(&rolled_back, 20), Some(Owner::Node(identity(2).node_id())));
    }
}
