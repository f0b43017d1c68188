//! The forwarding database: MAC → where it is.
//!
//! [`Fdb`] holds what control says and never changes once built. [`Learned`] holds what packets from static
//! VTEPs taught: a bounded table of atomics that every worker reads and writes without a lock, because two
//! workers that race over one MAC may both be right and the next packet settles it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::wire::MacAddr;

/// Seconds since some fixed start; the caller's coarse clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seconds(pub u32);

/// Where an endpoint of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind this node's port; index into the segment's local endpoints.
    Local(u32),
    /// Behind another node's VTEP; index into the segment's remote endpoints.
    Remote(u32),
}

/// Keyed hash of short fixed-size keys: one multiplication per 8 octets. The seed keeps a member that chooses
/// its MACs from choosing their buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix(pub(crate) u64);

/// State of one [`Mix`] computation.
pub(crate) struct Mixer(u64);

/// 2^64 divided by the golden ratio, odd: spreads consecutive keys over the high half of the product.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

pub(crate) fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * u128::from(SPREAD);
    (product as u64) ^ ((product >> 64) as u64)
}

impl BuildHasher for Mix {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = mix(self.0, u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.0 = mix(self.0, u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = mix(self.0, u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = mix(self.0, n);
    }

    fn write_usize(&mut self, n: usize) {
        self.0 = mix(self.0, n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What control says about a segment's MACs; immutable.
#[derive(Debug)]
pub struct Fdb {
    places: HashMap<u64, Place, Mix>,
}

impl Fdb {
    /// Builds the table; where a MAC is named twice the first place wins. `seed` keys its hashes and should be random.
    #[must_use]
    pub fn build(entries: impl Iterator<Item = (MacAddr, Place)>, seed: u64) -> Self {
        let mut places = HashMap::with_capacity_and_hasher(entries.size_hint().0, Mix(seed));
        for (mac, place) in entries {
            places.entry(mac_key(mac)).or_insert(place);
        }
        Self { places }
    }

    /// Where `mac` is, if control knows it.
    #[must_use]
    pub fn lookup(&self, mac: MacAddr) -> Option<Place> {
        self.places.get(&mac_key(mac)).copied()
    }
}

/// The MAC in the upper 48 bits, so that [`Learned`] has 16 bits left for the VTEP.
fn mac_key(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

/// A learned entry is forgotten when its MAC has been silent this long (as Linux and IEEE 802.1Q §8.8.3).
pub const AGEING: u32 = 300;

const WAYS: usize = 8;
const SETS: usize = 512;
/// Most MACs learned per segment: 4,096 in 48 KiB.
pub const LEARNED_MAX: usize = WAYS * SETS;

/// Empty slot; no assignable MAC has this key.
const EMPTY: u64 = 0;

/// What seeing a source MAC changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It was known there.
    Known,
    /// It is new, or was elsewhere.
    Learned,
    /// Its set is full of fresh entries; it stays unknown.
    Refused,
}

/// MACs learned behind static VTEPs, at most [`LEARNED_MAX`], aged out after [`AGEING`] seconds.
#[derive(Debug)]
pub struct Learned {
    /// `MAC << 16 | index of the static VTEP`, or [`EMPTY`].
    entries: Box<[AtomicU64]>,
    seen: Box<[AtomicU32]>,
    seed: u64,
}

impl Learned {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            entries: (0..LEARNED_MAX).map(|_| AtomicU64::new(EMPTY)).collect(),
            seen: (0..LEARNED_MAX).map(|_| AtomicU32::new(0)).collect(),
            seed,
        }
    }

    /// The same MACs with VTEP indices translated by `moved`; those it maps to `None` are forgotten.
    pub(crate) fn translate(&self, moved: impl Fn(u16) -> Option<u16>) -> Self {
        let copy = Self::new(self.seed);
        for slot in 0..LEARNED_MAX {
            let entry = self.entries[slot].load(Ordering::Relaxed);
            if let Some(vtep) = moved(vtep_of(entry)).filter(|_| entry != EMPTY) {
                copy.entries[slot].store(entry & !0xffff | u64::from(vtep), Ordering::Relaxed);
                copy.seen[slot].store(self.seen[slot].load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        copy
    }

    /// Index of the static VTEP `mac` was last seen behind, unless that is too long ago.
    #[must_use]
    pub fn lookup(&self, mac: MacAddr, now: Seconds) -> Option<u16> {
        let key = mac_key(mac);
        self.set_of(key).find_map(|slot| {
            let entry = self.entries[slot].load(Ordering::Relaxed);
            (entry & !0xffff == key && self.is_fresh(slot, now)).then(|| vtep_of(entry))
        })
    }

    /// Notes that `mac` sent a frame from static VTEP `vtep`.
    pub fn observe(&self, mac: MacAddr, vtep: u16, now: Seconds) -> Observation {
        let key = mac_key(mac);
        let wanted = key | u64::from(vtep);
        let mut free = None;
        for slot in self.set_of(key) {
            let entry = self.entries[slot].load(Ordering::Relaxed);
            if entry == wanted && self.is_fresh(slot, now) {
                self.touch(slot, now);
                return Observation::Known;
            }
            if entry & !0xffff == key {
                return self.fill(slot, wanted, now);
            }
            if free.is_none() && (entry == EMPTY || !self.is_fresh(slot, now)) {
                free = Some(slot);
            }
        }
        free.map_or(Observation::Refused, |slot| self.fill(slot, wanted, now))
    }

    /// Every fresh entry: MAC, index of its static VTEP, seconds since it was seen.
    pub fn entries(&self, now: Seconds) -> impl Iterator<Item = (MacAddr, u16, u32)> + '_ {
        (0..LEARNED_MAX).filter(move |&slot| self.is_fresh(slot, now)).filter_map(move |slot| {
            let entry = self.entries[slot].load(Ordering::Relaxed);
            let [a, b, c, d, e, f, ..] = entry.to_be_bytes();
            let age = now.0.saturating_sub(self.seen[slot].load(Ordering::Relaxed));
            (entry != EMPTY).then_some((MacAddr([a, b, c, d, e, f]), vtep_of(entry), age))
        })
    }

    fn set_of(&self, key: u64) -> std::ops::Range<usize> {
        let set = (mix(self.seed, key) >> 32) as usize % SETS;
        set * WAYS..(set + 1) * WAYS
    }

    fn is_fresh(&self, slot: usize, now: Seconds) -> bool {
        now.0.saturating_sub(self.seen[slot].load(Ordering::Relaxed)) <= AGEING
    }

    fn fill(&self, slot: usize, entry: u64, now: Seconds) -> Observation {
        self.seen[slot].store(now.0, Ordering::Relaxed);
        self.entries[slot].store(entry, Ordering::Relaxed);
        Observation::Learned
    }

    /// Writes only when the second changed, so that workers do not pull one cache line to and fro per packet.
    fn touch(&self, slot: usize, now: Seconds) {
        if self.seen[slot].load(Ordering::Relaxed) != now.0 {
            self.seen[slot].store(now.0, Ordering::Relaxed);
        }
    }
}

fn vtep_of(entry: u64) -> u16 {
    entry as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    #[test]
    fn a_built_table_finds_every_mac_and_no_other() {
        let fdb = Fdb::build((0..1000).map(|n| (mac(n), Place::Remote(n))), 7);
        for n in 0..1000 {
            assert_eq!(fdb.lookup(mac(n)), Some(Place::Remote(n)));
        }
        assert_eq!(fdb.lookup(mac(1000)), None);
    }

    #[test]
    fn a_learned_mac_is_found_until_it_has_been_silent_for_the_ageing_time() {
        let learned = Learned::new(1);
        assert_eq!(learned.observe(mac(1), 3, Seconds(10)), Observation::Learned);
        assert_eq!(learned.observe(mac(1), 3, Seconds(20)), Observation::Known);
        assert_eq!(learned.lookup(mac(1), Seconds(20 + AGEING)), Some(3));
        assert_eq!(learned.lookup(mac(1), Seconds(21 + AGEING)), None);
        assert_eq!(learned.observe(mac(1), 3, Seconds(21 + AGEING)), Observation::Learned);
    }

    #[test]
    fn a_learned_mac_moves_to_the_vtep_that_sent_last() {
        let learned = Learned::new(1);
        learned.observe(mac(1), 0, Seconds(0));
        assert_eq!(learned.observe(mac(1), 5, Seconds(1)), Observation::Learned);
        assert_eq!(learned.lookup(mac(1), Seconds(1)), Some(5));
        assert_eq!(learned.entries(Seconds(2)).collect::<Vec<_>>(), [(mac(1), 5, 1)]);
    }

    #[test]
    fn a_flood_of_macs_is_refused_once_full_and_makes_room_by_ageing() {
        let learned = Learned::new(1);
        let refused =
            (0..100_000).filter(|&n| learned.observe(mac(n), 0, Seconds(0)) == Observation::Refused).count();
        assert_eq!(refused, 100_000 - LEARNED_MAX, "every slot fills under a flood");
        assert_eq!(learned.entries(Seconds(0)).count(), LEARNED_MAX);
        assert_eq!(learned.observe(mac(200_000), 0, Seconds(AGEING + 1)), Observation::Learned);
    }

    #[test]
    fn translation_keeps_macs_of_vteps_that_stay_and_forgets_the_others() {
        let learned = Learned::new(1);
        learned.observe(mac(1), 0, Seconds(5));
        learned.observe(mac(2), 1, Seconds(5));
        let moved = learned.translate(|vtep| (vtep == 1).then_some(0));
        assert_eq!(moved.lookup(mac(1), Seconds(5)), None);
        assert_eq!(moved.lookup(mac(2), Seconds(5)), Some(0));
    }
}
