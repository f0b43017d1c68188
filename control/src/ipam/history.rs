//! From transfers to owners: who owns what follows from the set of transfers alone.
//!
//! A transfer counts where its giver was the owner right before it. So nobody can take what is not theirs to give,
//! and a transfer whose giver is not known yet to have been the owner counts once that is known.

use std::collections::{BTreeMap, BTreeSet};

use super::map::{Claim, Owner, VersionedMap};
use super::range::Range;
use crate::model::NodeId;

/// Addresses that change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transfer {
    /// The addresses.
    pub range: Range,
    /// Version of the ownership that begins.
    pub version: u64,
    /// Who gives them, and so has signed it.
    pub from: NodeId,
    /// Who gets them.
    pub to: NodeId,
}

/// The owners after any number of transfers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome<K: Ord> {
    /// Who owns what; addresses that one owner has given to two are contested, and stay so.
    pub map: VersionedMap,
    /// The transfers that count for at least one address.
    pub counted: BTreeSet<K>,
}

/// Derives the owners from what was owned at first and the transfers since, named by `K`, in whatever order.
///
/// O(n log n) in the number of transfers and stretches.
#[must_use]
pub fn outcome<K: Copy + Ord>(
    first: &Claim,
    transfers: impl IntoIterator<Item = (K, Transfer)>,
) -> Outcome<K> {
    let mut by_version: BTreeMap<u64, Vec<(K, Transfer)>> = BTreeMap::new();
    for (key, transfer) in transfers {
        by_version.entry(transfer.version).or_default().push((key, transfer));
    }
    let mut map = VersionedMap::default();
    map.merge(first);
    let mut counted = BTreeSet::new();
    for (version, group) in by_version {
        // All of one version are held against the owners before it, so that two of them show as contested.
        let mut claims = Vec::new();
        for (key, Transfer { range, from, to, .. }) in group {
            let given = |held: &super::Held| {
                held.version.checked_add(1) == Some(version) && held.owner == Owner::Node(from)
            };
            for held in map.within(range).filter(given) {
                claims.push(Claim { range: held.range, version, owner: to });
                counted.insert(key);
            }
        }
        for claim in claims {
            map.merge(&claim);
        }
    }
    Outcome { map, counted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);
    const C: NodeId = NodeId([3; 16]);

    fn range(first: u128, last: u128) -> Range {
        Range::new(first, last).expect("not empty")
    }

    fn first() -> Claim {
        Claim { range: range(0, 63), version: 1, owner: A }
    }

    fn transfer(range: Range, version: u64, from: NodeId, to: NodeId) -> Transfer {
        Transfer { range, version, from, to }
    }

    fn after(transfers: &[Transfer]) -> Outcome<usize> {
        outcome(&first(), transfers.iter().copied().enumerate())
    }

    fn owner(outcome: &Outcome<usize>, address: u128) -> Option<Owner> {
        outcome.map.get(address).map(|held| held.owner)
    }

    #[test]
    fn only_the_owner_gives_addresses_away() {
        let stolen = after(&[
            transfer(range(0, 63), 2, B, C),
            transfer(range(0, 63), 900, C, C),
            transfer(range(0, 63), 1, C, C),
            transfer(range(0, 200), u64::MAX, C, C),
        ]);
        assert_eq!((owner(&stolen, 5), stolen.counted.len()), (Some(Owner::Node(A)), 0));
        let given = after(&[transfer(range(8, 100), 2, A, B), transfer(range(0, 15), 3, B, C)]);
        let owners = [7, 8, 16, 64].map(|address| owner(&given, address));
        assert_eq!(owners, [Some(Owner::Node(A)), Some(Owner::Node(C)), Some(Owner::Node(B)), None]);
    }

    #[test]
    fn a_transfer_counts_once_its_giver_is_known_to_be_the_owner() {
        let late = transfer(range(8, 15), 3, B, C);
        assert_eq!(owner(&after(&[late]), 9), Some(Owner::Node(A)));
        assert_eq!(owner(&after(&[late, transfer(range(8, 31), 2, A, B)]), 9), Some(Owner::Node(C)));
    }

    #[test]
    fn what_one_owner_gives_to_two_is_nobodys() {
        let twice = [transfer(range(8, 31), 2, A, B), transfer(range(16, 40), 2, A, C)];
        let contested = after(&twice);
        assert_eq!(owner(&contested, 20), Some(Owner::Contested));
        assert_eq!(
            (owner(&contested, 9), owner(&contested, 39)),
            (Some(Owner::Node(B)), Some(Owner::Node(C)))
        );
        let more = after(&[twice[0], twice[1], transfer(range(8, 31), 3, B, A)]);
        assert_eq!(owner(&more, 20), Some(Owner::Contested), "and none of the two can give it on");
    }

    fn transfers() -> impl Strategy<Value = Vec<Transfer>> {
        let node = || (1u8..4).prop_map(|n| NodeId([n; 16]));
        let one =
            (0u128..60, 0u128..16, 2u64..6, node(), node()).prop_map(|(first, more, version, from, to)| {
                transfer(range(first, first + more), version, from, to)
            });
        prop::collection::vec(one, 0..14)
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            (given, mut shuffled) in transfers().prop_flat_map(|t| (Just(t.clone()), Just(t).prop_shuffle())),
        ) {
            let straight = outcome(&first(), given.iter().map(|t| (*t, *t)));
            shuffled.extend(given);
            prop_assert_eq!(straight, outcome(&first(), shuffled.iter().map(|t| (*t, *t))));
        }

        #[test]
        fn what_did_not_count_can_be_left_out(given in transfers()) {
            let all = outcome(&first(), given.iter().map(|t| (*t, *t)));
            let counted = all.counted.iter().map(|t| (*t, *t));
            prop_assert_eq!(&outcome(&first(), counted), &all);
        }

        #[test]
        fn nobody_loses_what_they_did_not_give(given in transfers()) {
            let others: Vec<Transfer> = given.into_iter().filter(|t| t.from != A).collect();
            prop_assert_eq!(owner(&after(&others), 30), Some(Owner::Node(A)));
        }
    }
}
