//! The addresses of one subnet of one host: lowest first, as Docker hands them out, but freed ones last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::ipam::{Range, Space, number};

/// How long a freed address rests while there are others: who talked to its last holder has forgotten it by then.
const QUARANTINE: Duration = Duration::from_secs(30);

/// One subnet and who has what of it.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    space: Space,
    taken: BTreeSet<u128>,
    /// Freed addresses, and until when they rest.
    resting: BTreeMap<u128, Instant>,
}

impl Pool {
    pub(super) fn new(space: Space) -> Self {
        Self { space, taken: BTreeSet::new(), resting: BTreeMap::new() }
    }

    pub(super) fn is_v4(&self) -> bool {
        self.space.subnet().addr().is_ipv4()
    }

    pub(super) fn prefix_len(&self) -> u8 {
        self.space.subnet().prefix_len()
    }

    pub(super) fn holds(&self, ip: IpAddr) -> bool {
        self.space.subnet().contains(&ip)
    }

    /// Whether nobody has `ip` and it is kept for nobody.
    pub(super) fn is_free(&self, ip: IpAddr) -> bool {
        let number = number(ip);
        !self.taken.contains(&number) && !self.space.is_reserved(number)
    }

    /// The lowest free automatic address that does not rest, or else the one that has rested longest.
    pub(super) fn pick(&self, now: Instant) -> Option<IpAddr> {
        let range = self.space.automatic();
        let rests = |number: &u128| self.resting.get(number).is_some_and(|until| *until > now);
        let mut free = (range.first()..=range.last())
            .filter(|number| !self.taken.contains(number) && !self.space.is_reserved(*number));
        // Resting ones are few, so that a large subnet is not walked.
        let fresh = free.find(|number| !rests(number));
        let rested = || {
            let within = self.resting.iter().filter(|(number, _)| range.contains(**number));
            within.min_by_key(|(_, until)| **until).map(|(number, _)| *number)
        };
        fresh.or_else(rested).map(|number| Range::address(self.space.subnet(), number))
    }

    pub(super) fn take(&mut self, ip: IpAddr) {
        self.taken.insert(number(ip));
        self.resting.remove(&number(ip));
    }

    pub(super) fn release(&mut self, now: Instant, ip: IpAddr) {
        self.resting.retain(|_, until| *until > now);
        if self.taken.remove(&number(ip)) {
            self.resting.insert(number(ip), now + QUARANTINE);
        }
    }

    /// Automatic addresses, and how many of all are in use.
    pub(super) fn usage(&self) -> (u128, usize) {
        (self.space.automatic_count(), self.taken.len())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time starts somewhere")]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>, gateway: &str) -> Pool {
        let gateway: IpAddr = gateway.parse().expect("an address");
        let range = range.map(|range| range.parse().expect("a prefix"));
        Pool::new(Space::new(subnet.parse().expect("a prefix"), range, [number(gateway)]))
    }

    fn take(pool: &mut Pool, now: Instant) -> Option<String> {
        let ip = pool.pick(now)?;
        pool.take(ip);
        Some(ip.to_string())
    }

    #[test]
    fn the_lowest_free_address_goes_first_and_a_freed_one_rests() {
        let (mut pool, now) = (pool("10.0.0.0/24", None, "10.0.0.1"), Instant::now());
        let first: Vec<_> = (0..3).filter_map(|_| take(&mut pool, now)).collect();
        assert_eq!(first, ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        pool.release(now, "10.0.0.3".parse().expect("an address"));
        assert_eq!(take(&mut pool, now).as_deref(), Some("10.0.0.5"), "the freed one rests");
        assert_eq!(take(&mut pool, now + QUARANTINE).as_deref(), Some("10.0.0.3"));
    }

    #[test]
    fn a_full_pool_gives_the_address_that_has_rested_longest_and_then_none() {
        let (mut pool, now) = (pool("10.0.0.0/29", None, "10.0.0.1"), Instant::now());
        while take(&mut pool, now).is_some() {}
        pool.release(now, "10.0.0.6".parse().expect("an address"));
        pool.release(now + Duration::from_secs(1), "10.0.0.2".parse().expect("an address"));
        assert_eq!(take(&mut pool, now).as_deref(), Some("10.0.0.6"));
        assert_eq!(take(&mut pool, now).as_deref(), Some("10.0.0.2"));
        assert_eq!(take(&mut pool, now), None);
        assert_eq!(pool.usage(), (5, 5));
    }

    #[test]
    fn a_range_limits_automatic_addresses_only() {
        let (mut pool, now) = (pool("172.28.0.0/16", Some("172.28.5.0/24"), "172.28.5.254"), Instant::now());
        assert_eq!(
            take(&mut pool, now).as_deref(),
            Some("172.28.5.0"),
            "as Docker, whose subnet begins elsewhere"
        );
        let outside = "172.28.9.9".parse().expect("an address");
        assert!(pool.holds(outside) && pool.is_free(outside));
        for kept in ["172.28.5.254", "172.28.0.0", "172.28.255.255"] {
            assert!(!pool.is_free(kept.parse().expect("an address")), "{kept}");
        }
    }
}
