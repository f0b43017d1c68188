//! The versioned map: address → (version, owner), merged by the highest version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::range::Range;
use crate::model::NodeId;

/// A statement that `owner` owns `range` at `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Addresses it speaks of.
    pub range: Range,
    /// Times ownership of these addresses has changed, counted from 1 at the creator.
    pub version: u64,
    /// Whose they are.
    pub owner: NodeId,
}

/// Who owns an address as far as this map knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// One node.
    Node(NodeId),
    /// Two nodes claim it at the same version: proof of a rolled-back disk or a cloned node. Nobody allocates.
    Contested,
}

/// A stretch of addresses with one version and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The addresses.
    pub range: Range,
    /// Version of the ownership.
    pub version: u64,
    /// The owner.
    pub owner: Owner,
}

/// Owners of disjoint ranges, in canonical form: equal neighbours are one entry, so equal maps are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionedMap {
    held: BTreeMap<u128, Stretch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    last: u128,
    version: u64,
    owner: Owner,
}

impl VersionedMap {
    /// Takes in a claim; per address the higher version wins and equal versions of different owners are contested.
    ///
    /// Commutative, associative and idempotent, so neither order nor repetition nor loss in between matters.
    /// Answers whether anything changed.
    pub fn merge(&mut self, claim: &Claim) -> bool {
        self.absorb(claim.range, claim.version, Owner::Node(claim.owner))
    }

    /// Takes in every entry of another map.
    pub fn merge_map(&mut self, other: &Self) -> bool {
        other.iter().fold(false, |changed, held| self.absorb(held.range, held.version, held.owner) | changed)
    }

    fn absorb(&mut self, range: Range, version: u64, owner: Owner) -> bool {
        self.cut_before(range.first());
        if let Some(after) = range.last().checked_add(1) {
            self.cut_before(after);
        }
        let inside: Vec<(u128, Stretch)> = self
            .held
            .range(range.first()..=range.last())
            .map(|(&first, &stretch)| (first, stretch))
            .collect();
        let mut changed = false;
        let mut next = Some(range.first());
        for (first, stretch) in inside {
            if let Some(start) = next.filter(|&start| start < first) {
                self.held.insert(start, Stretch { last: first - 1, version, owner });
                changed = true;
            }
            let winner = stretch.against(version, owner);
            changed |= winner != stretch;
            self.held.insert(first, winner);
            next = stretch.last.checked_add(1);
        }
        if let Some(start) = next.filter(|&start| start <= range.last()) {
            self.held.insert(start, Stretch { last: range.last(), version, owner });
            changed = true;
        }
        self.join_neighbours(range);
        changed
    }

    /// Splits the entry that spans `address` so that one starts there.
    fn cut_before(&mut self, address: u128) {
        if let Some((_, stretch)) = self.held.range_mut(..address).next_back()
            && stretch.last >= address
        {
            let tail = *stretch;
            stretch.last = address - 1;
            self.held.insert(address, tail);
        }
    }

    fn join_neighbours(&mut self, range: Range) {
        let from = self.held.range(..range.first()).next_back().map_or(range.first(), |(&first, _)| first);
        let firsts: Vec<u128> =
            self.held.range(from..=range.last().saturating_add(1)).map(|(&first, _)| first).collect();
        let mut left = None;
        for first in firsts {
            let stretch = self.held[&first];
            match left.and_then(|at| self.held.get_mut(&at)) {
                Some(before) if before.joins(first, &stretch) => {
                    before.last = stretch.last;
                    self.held.remove(&first);
                }
                _ => left = Some(first),
            }
        }
    }

    /// The entry that holds `address`.
    #[must_use]
    pub fn get(&self, address: u128) -> Option<Held> {
        let (&first, stretch) = self.held.range(..=address).next_back()?;
        stretch.held(first).filter(|held| held.range.contains(address))
    }

    /// Every entry, in order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = Held> + '_ {
        self.held.iter().filter_map(|(&first, stretch)| stretch.held(first))
    }

    /// The entries that overlap `range`, cut to it.
    pub fn within(&self, range: Range) -> impl Iterator<Item = Held> + '_ {
        let before = self.held.range(..range.first()).next_back();
        before.into_iter().chain(self.held.range(range.first()..=range.last())).filter_map(
            move |(&first, stretch)| {
                let held = stretch.held(first)?;
                Some(Held { range: held.range.intersection(range)?, ..held })
            },
        )
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Stretch {
    fn held(&self, first: u128) -> Option<Held> {
        Some(Held { range: Range::new(first, self.last)?, version: self.version, owner: self.owner })
    }

    fn against(self, version: u64, owner: Owner) -> Self {
        match version.cmp(&self.version) {
            std::cmp::Ordering::Greater => Self { version, owner, ..self },
            std::cmp::Ordering::Equal if owner != self.owner => Self { owner: Owner::Contested, ..self },
            std::cmp::Ordering::Equal | std::cmp::Ordering::Less => self,
        }
    }

    fn joins(&self, first: u128, right: &Self) -> bool {
        self.last.checked_add(1) == Some(first) && self.version == right.version && self.owner == right.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        prop::collection::vec(
            (0u128..40, 0u128..16, 1u64..5, 0u8..4).prop_map(|(first, more, version, node)| Claim {
                range: Range::new(first, first + more).expect("not empty"),
                version,
                owner: NodeId([node; 16]),
            }),
            0..12,
        )
    }

    fn map(claims: &[Claim]) -> VersionedMap {
        let mut map = VersionedMap::default();
        for claim in claims {
            map.merge(claim);
        }
        map
    }

    fn joined(a: &VersionedMap, b: &VersionedMap) -> VersionedMap {
        let mut out = a.clone();
        out.merge_map(b);
        out
    }

    /// The definition, address by address.
    fn model(claims: &[Claim], address: u128) -> Option<(u64, Owner)> {
        let here: Vec<&Claim> = claims.iter().filter(|c| c.range.contains(address)).collect();
        let version = here.iter().map(|c| c.version).max()?;
        let mut owners: Vec<NodeId> = here.iter().filter(|c| c.version == version).map(|c| c.owner).collect();
        owners.sort();
        owners.dedup();
        Some((version, if owners.len() == 1 { Owner::Node(owners[0]) } else { Owner::Contested }))
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in claims(), b in claims(), c in claims()) {
            let (a, b, c) = (map(&a), map(&b), map(&c));
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn each_address_has_its_highest_version_and_a_tie_is_contested(claims in claims()) {
            let map = map(&claims);
            for address in 0..60 {
                let got = map.get(address).map(|h| (h.version, h.owner));
                prop_assert_eq!(got, model(&claims, address), "address {}", address);
            }
        }

        #[test]
        fn a_merge_says_whether_it_changed_anything(claims in claims(), more in claims()) {
            let mut map = map(&claims);
            for claim in more {
                let before = map.clone();
                prop_assert_eq!(map.merge(&claim), map != before);
            }
        }
    }

    #[test]
    fn the_whole_of_ipv6_can_be_claimed() {
        let all = Range::new(0, u128::MAX).expect("not empty");
        let mut map = map(&[Claim { range: all, version: 1, owner: NodeId([1; 16]) }]);
        map.merge(&Claim { range: Range::single(u128::MAX), version: 2, owner: NodeId([2; 16]) });
        assert_eq!(map.len(), 2);
        assert_eq!(map.get(u128::MAX).map(|h| h.owner), Some(Owner::Node(NodeId([2; 16]))));
    }
}
