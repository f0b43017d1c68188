//! How many messages of unknown senders are tried per second.
//!
//! Trying costs a key derivation, so strangers must not be able to have many tried; and whoever is new must not be
//! shut out by them. Source addresses share a fixed number of buckets by a keyed hash, so nobody can choose whose
//! bucket to fill; addresses of members have a share of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::limits::{MEMBER_OPENS, UNKNOWN_OPENS};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Attempts {
    secret: [u8; 32],
    left: [u32; 256],
    members: BTreeMap<IpAddr, u32>,
    since: Instant,
}

impl Attempts {
    /// `secret` is known to nobody else.
    pub(crate) fn new(secret: [u8; 32], now: Instant) -> Self {
        Self { secret, left: [UNKNOWN_OPENS; 256], members: BTreeMap::new(), since: now }
    }

    /// Whether members' addresses should be given anew, which begins another second.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SECOND
    }

    /// Begins a second in which these are members' addresses.
    pub(crate) fn begin(&mut self, now: Instant, members: impl Iterator<Item = IpAddr>) {
        self.left = [UNKNOWN_OPENS; 256];
        self.members = members.map(|ip| (ip.to_canonical(), MEMBER_OPENS)).collect();
        self.since = now;
    }

    /// Whether the address is a member's.
    pub(crate) fn is_member(&self, from: IpAddr) -> bool {
        self.members.contains_key(&from.to_canonical())
    }

    pub(crate) fn allow(&mut self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        let own = self.members.get_mut(&from).is_some_and(take);
        own || take(&mut self.left[bucket(&self.secret, from)])
    }

    /// An authentic message costs no attempt: many members behind one address may start at once.
    pub(crate) fn refund(&mut self, from: IpAddr) {
        let from = from.to_canonical();
        match self.members.get_mut(&from) {
            Some(left) => *left += 1,
            None => self.left[bucket(&self.secret, from)] += 1,
        }
    }
}

fn take(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

fn bucket(secret: &[u8; 32], from: IpAddr) -> usize {
    let mut hash = Sha256::new();
    hash.update(secret);
    match from {
        IpAddr::V4(v4) => hash.update(v4.octets()),
        // Whoever has one address of a network has all of them.
        IpAddr::V6(v6) => hash.update(&v6.octets()[..8]),
    }
    usize::from(hash.finalize()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_use_up_what_is_a_members() {
        let start = crate::gossip::testing::start();
        let mut attempts = Attempts::new([1; 32], start);
        let member = IpAddr::from([192, 0, 2, 1]);
        attempts.begin(start, std::iter::once(member));
        let stranger = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        let tried = (0..1_000_000).filter(|number| attempts.allow(stranger(*number))).count();
        assert_eq!(tried, 256 * UNKNOWN_OPENS as usize);
        assert!((0..MEMBER_OPENS).all(|_| attempts.allow(member)));
        assert!(!attempts.allow(member));
    }

    #[test]
    fn whose_bucket_an_address_is_in_depends_on_the_secret() {
        let same = |from: u32| {
            let from = IpAddr::from(from.to_be_bytes());
            bucket(&[1; 32], from) == bucket(&[2; 32], from)
        };
        assert!((0..1000).filter(|from| same(*from)).count() < 100);
    }
}
