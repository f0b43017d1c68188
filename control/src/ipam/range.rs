//! Ranges of addresses and sets of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The addresses `first..=last` of one family, as numbers; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u128, u128)", into = "(u128, u128)")]
pub struct Range {
    first: u128,
    last: u128,
}

/// An address as a number; IPv4 addresses are below 2^32.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl Range {
    /// `first..=last`, or `None` where that is empty.
    #[must_use]
    pub fn new(first: u128, last: u128) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// One address.
    #[must_use]
    pub fn single(address: u128) -> Self {
        Self { first: address, last: address }
    }

    /// Every address of a prefix, network and broadcast included.
    #[must_use]
    pub fn of(prefix: IpNet) -> Self {
        Self { first: number(prefix.network()), last: number(prefix.broadcast()) }
    }

    /// Lowest address.
    #[must_use]
    pub fn first(self) -> u128 {
        self.first
    }

    /// Highest address.
    #[must_use]
    pub fn last(self) -> u128 {
        self.last
    }

    /// Number of addresses; 2^128 saturates.
    #[must_use]
    pub fn count(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: u128) -> bool {
        self.first <= address && address <= self.last
    }

    /// The part both share.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The text of an address of this range in the family of `subnet`.
    #[must_use]
    pub fn address(subnet: IpNet, number: u128) -> IpAddr {
        match subnet {
            // Numbers of an IPv4 pool are clipped to its subnet, so they fit.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

/// A range whose end lies before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address range ends before it starts")]
pub struct EmptyRange;

impl TryFrom<(u128, u128)> for Range {
    type Error = EmptyRange;

    fn try_from((first, last): (u128, u128)) -> Result<Self, EmptyRange> {
        Self::new(first, last).ok_or(EmptyRange)
    }
}

impl From<Range> for (u128, u128) {
    fn from(range: Range) -> Self {
        (range.first, range.last)
    }
}

/// A set of addresses as disjoint ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: BTreeMap<u128, u128>,
}

impl RangeSet {
    /// Adds every address of `range`.
    pub fn insert(&mut self, range: Range) {
        let (mut first, mut last) = (range.first, range.last);
        let reach = last.saturating_add(1);
        let touching: Vec<(u128, u128)> = self
            .ranges
            .range(..=reach)
            .rev()
            .take_while(|&(_, &end)| end.saturating_add(1) >= range.first)
            .map(|(&start, &end)| (start, end))
            .collect();
        for (start, end) in touching {
            self.ranges.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// The parts of `range` that are in the set, in order.
    pub fn within(&self, range: Range) -> impl Iterator<Item = Range> + '_ {
        let before = self.ranges.range(..=range.first).next_back();
        let after = self.ranges.range(range.first..=range.last).skip_while(move |&(&f, _)| f == range.first);
        before
            .into_iter()
            .chain(after)
            .filter_map(move |(&first, &last)| Range { first, last }.intersection(range))
    }

    /// Whether the set holds `address`.
    #[must_use]
    pub fn contains(&self, address: u128) -> bool {
        self.within(Range::single(address)).next().is_some()
    }

    /// Its ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().map(|(&first, &last)| Range { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_range_set_is_the_set_of_its_addresses(
            inserts in prop::collection::vec((0u128..60, 0u128..12), 0..12), probe in (0u128..60, 0u128..20)
        ) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (first, more) in inserts {
                set.insert(Range { first, last: first + more });
                model.extend(first..=first + more);
            }
            let listed: BTreeSet<u128> = set.iter().flat_map(|r| r.first..=r.last).collect();
            prop_assert_eq!(&listed, &model);
            let ranges: Vec<Range> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].last + 1 < w[1].first), "ranges touch: {ranges:?}");
            let window = Range { first: probe.0, last: probe.0 + probe.1 };
            let inside: Vec<u128> = set.within(window).flat_map(|r| r.first..=r.last).collect();
            let expected: Vec<u128> = model.into_iter().filter(|&a| window.contains(a)).collect();
            prop_assert_eq!(inside, expected);
        }
    }

    #[test]
    fn ranges_reach_the_ends_of_the_number_line() {
        let mut set = RangeSet::default();
        set.insert(Range { first: u128::MAX - 1, last: u128::MAX });
        set.insert(Range { first: 0, last: 3 });
        assert!(set.contains(u128::MAX) && set.contains(0) && !set.contains(4));
        assert!(Range::new(2, 1).is_none());
    }
}
