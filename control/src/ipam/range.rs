//! Ranges of addresses and sets of them.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_never_empty_and_reaches_the_ends_of_the_number_line() {
        assert_eq!(Range::new(2, 1), None);
        assert!(Range::try_from((2, 1)).is_err());
        let all = Range::new(0, u128::MAX).expect("not empty");
        assert!(all.contains(0) && all.contains(u128::MAX));
        assert_eq!((all.count(), Range::single(7).count()), (u128::MAX, 1));
    }
}
