//! The key ring: secrets that all members share, one of them active for sending.
//!
//! Everything is opened with whatever epoch its header names, so a change of key needs no moment at which all change
//! over. An epoch is named by its number and 16 bits of a hash of its key: two keys that two admins make at the same
//! time under one number are just two epochs, and everybody prefers the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::wire::{Reader, Writer as _};
use crate::identity::{Identity, node_id, verify};
use crate::model::NodeId;

/// Epochs that a ring holds at most; the oldest go first.
pub const MAX_EPOCHS: usize = 16;
/// How far above all of ours another's epoch may be: more than a node misses while its certificate is good, and little
/// enough that no single ring uses up the numbers.
pub(super) const MAX_AHEAD: u16 = 1024;

/// Name of an epoch: its number in the upper half, 16 bits of a hash of its key in the lower. Higher is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// How many epochs were made before it, one after the other.
    #[must_use]
    pub fn number(self) -> u16 {
        (self.0 >> 16) as u16
    }

    fn of(number: u16, key: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"weft epoch 1");
        hash.update(number.to_be_bytes());
        hash.update(key);
        let hash = hash.finalize();
        Self(u32::from(number) << 16 | u32::from(hash[0]) << 8 | u32::from(hash[1]))
    }
}

impl fmt::Display for Epoch {
    /// `number-hash`, as in `3-0a1b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:04x}", self.number(), self.0 as u16)
    }
}

#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
struct Secret {
    key: [u8; 32],
    urgent: bool,
    /// Ed25519 key of who made it, and its signature; of the first epoch nothing.
    maker: [u8; 32],
    signature: [u8; 64],
}

impl Secret {
    fn new(key: [u8; 32], urgent: bool) -> Self {
        Self { key, urgent, maker: [0; 32], signature: [0; 64] }
    }

    fn signed_octets(&self, epoch: Epoch) -> Vec<u8> {
        let mut octets = b"weft epoch statement 1".to_vec();
        octets.u32(epoch.0);
        octets.flag(self.urgent);
        octets.octets(&Sha256::digest(self.key));
        octets
    }

    fn is_signed(&self, epoch: Epoch) -> bool {
        verify(&self.maker, &self.signed_octets(epoch), &self.signature)
    }
}

/// The keys of a cluster, by epoch. They leave memory with this value and are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Ring {
    secrets: BTreeMap<Epoch, Secret>,
    active: Epoch,
}

impl Ring {
    /// The ring of a new cluster.
    #[must_use]
    pub fn found(key: [u8; 32]) -> Self {
        let first = Epoch::of(1, &key);
        Self { secrets: BTreeMap::from([(first, Secret::new(key, false))]), active: first }
    }

    /// The epoch that is sent with.
    #[must_use]
    pub fn active(&self) -> Epoch {
        self.active
    }

    /// Every epoch, oldest first.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = Epoch> {
        self.secrets.keys().copied()
    }

    /// Whether this epoch's key is here.
    #[must_use]
    pub fn has(&self, epoch: Epoch) -> bool {
        self.secrets.contains_key(&epoch)
    }

    /// The newest epoch, active or not.
    #[must_use]
    pub fn newest(&self) -> Epoch {
        self.secrets.keys().next_back().copied().unwrap_or(self.active)
    }

    /// Whether the epoch was made because a node must no longer know the keys.
    #[must_use]
    pub fn is_urgent(&self, epoch: Epoch) -> bool {
        self.secrets.get(&epoch).is_some_and(|secret| secret.urgent)
    }

    /// Adds an epoch above all others, with a key from the operating system's generator; it is not sent with yet.
    /// `None` after 65,535 epochs.
    pub fn add(&mut self, key: [u8; 32], urgent: bool, maker: &Identity) -> Option<Epoch> {
        let epoch = Epoch::of(self.newest().number().checked_add(1)?, &key);
        let mut secret = Secret { maker: maker.public_key(), ..Secret::new(key, urgent) };
        secret.signature = maker.sign(&secret.signed_octets(epoch));
        self.secrets.insert(epoch, secret);
        self.trim();
        Some(epoch)
    }

    /// Takes over epochs of another member's ring that are missing here, not older than all of ours, and made by
    /// somebody who may: no member can plant a key that outlives it. `true` if there were any.
    pub fn merge(&mut self, other: &Self, may_make: impl Fn(&[u8; 32]) -> bool) -> bool {
        let oldest = self.secrets.keys().next().copied();
        let before: Vec<Epoch> = self.epochs().collect();
        let newer = other.secrets.iter().filter(|(epoch, _)| oldest.is_none_or(|oldest| **epoch > oldest));
        let furthest = self.newest().number().saturating_add(MAX_AHEAD);
        let near = newer.filter(|(epoch, _)| epoch.number() <= furthest);
        for (epoch, secret) in near.filter(|(epoch, _)| !before.contains(epoch)) {
            if may_make(&secret.maker) && secret.is_signed(*epoch) {
                self.secrets.insert(*epoch, secret.clone());
            }
        }
        self.trim();
        !self.epochs().eq(before)
    }

    /// Who made the epochs.
    #[must_use]
    pub fn makers(&self) -> BTreeSet<NodeId> {
        self.secrets.values().filter(|secret| secret.maker != [0; 32]).map(|s| node_id(&s.maker)).collect()
    }

    /// Sends with `epoch` from now on. `false` if its key is not here.
    pub fn activate(&mut self, epoch: Epoch) -> bool {
        let known = self.has(epoch);
        if known {
            self.active = epoch;
        }
        known
    }

    /// Forgets every epoch older than `epoch`, but never the active one. `true` if there were any.
    pub fn retire_before(&mut self, epoch: Epoch) -> bool {
        let before = self.secrets.len();
        let active = self.active;
        self.secrets.retain(|e, _| *e >= epoch || *e == active);
        self.secrets.len() != before
    }

    fn trim(&mut self) {
        while self.secrets.len() > MAX_EPOCHS {
            let oldest = self.secrets.keys().find(|epoch| **epoch != self.active).copied();
            oldest.and_then(|epoch| self.secrets.remove(&epoch));
        }
    }

    /// What the pre-shared keys of pairwise sessions are derived from, 32 octets.
    #[must_use]
    pub fn psk_root(&self, epoch: Epoch) -> Option<Zeroizing<[u8; 32]>> {
        self.derive(epoch, None, b"weft session psk 1")
    }

    /// What the sealing keys of gossip are derived from.
    pub(super) fn gossip_root(&self, epoch: Epoch, cluster: &[u8; 16]) -> Option<Hkdf<Sha256>> {
        self.secrets.get(&epoch).map(|secret| Hkdf::new(Some(cluster), &secret.key))
    }

    fn derive(&self, epoch: Epoch, salt: Option<&[u8]>, purpose: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let secret = self.secrets.get(&epoch)?;
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(salt, &secret.key).expand(purpose, &mut *derived).ok()?;
        Some(derived)
    }

    /// The ring as octets, for the state directory and for other members over a channel of two.
    ///
    /// ```text
    /// active 4 | count 2 | count × (epoch 4 | urgent 1 | key 32 | maker 32 | signature 64)
    /// ```
    #[must_use]
    pub fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(6 + self.secrets.len() * 133));
        out.u32(self.active.0);
        out.u16(self.secrets.len() as u16);
        for (epoch, secret) in &self.secrets {
            out.u32(epoch.0);
            out.flag(secret.urgent);
            out.octets(&secret.key);
            out.octets(&secret.maker);
            out.octets(&secret.signature);
        }
        out
    }

    /// Reads what [`Ring::to_octets`] wrote; `None` for anything else, and for keys that their epoch does not name.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        let (active, count) = (Epoch(reader.u32()?), usize::from(reader.u16()?));
        let mut secrets = BTreeMap::new();
        for _ in 0..count.min(MAX_EPOCHS + 1) {
            let epoch = Epoch(reader.u32()?);
            let urgent = reader.flag()?;
            let (key, maker, signature) = (reader.array()?, reader.array()?, reader.array()?);
            let secret = Secret { key, urgent, maker, signature };
            (epoch == Epoch::of(epoch.number(), &secret.key)).then_some(())?;
            secrets.insert(epoch, secret);
        }
        reader.end()?;
        (secrets.len() <= MAX_EPOCHS && secrets.contains_key(&active)).then_some(Self { secrets, active })
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs: Vec<String> = self.epochs().map(|epoch| epoch.to_string()).collect();
        f.debug_struct("Ring").field("active", &self.active.to_string()).field("epochs", &epochs).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(octet: u8) -> [u8; 32] {
        std::array::from_fn(|i| octet ^ i as u8)
    }

    fn admin() -> Identity {
        Identity::from_secret(&[5; 32])
    }

    fn anybody(_: &[u8; 32]) -> bool {
        true
    }

    #[test]
    fn a_key_that_no_admin_made_is_not_taken() {
        let (mut ring, mut planted) = (Ring::found(key(1)), Ring::found(key(1)));
        planted.add(key(2), false, &Identity::from_secret(&[6; 32]));
        let may = |maker: &[u8; 32]| *maker == admin().public_key();
        assert!(!ring.merge(&planted, may));
        for secret in planted.secrets.values_mut() {
            secret.maker = admin().public_key();
        }
        assert!(!ring.merge(&planted, may), "nor one that an admin did not sign");
        let mut honest = Ring::found(key(1));
        honest.add(key(2), true, &admin());
        for secret in honest.secrets.values_mut() {
            secret.urgent = false;
        }
        assert!(!ring.merge(&honest, may), "nor as something else than what it was made for");
    }

    #[test]
    fn an_epoch_far_above_ours_is_not_taken() {
        let mut ring = Ring::found(key(1));
        let at = |number| {
            let (mut other, epoch) = (Ring::found(key(1)), Epoch::of(number, &key(2)));
            let mut secret = Secret { maker: admin().public_key(), ..Secret::new(key(2), false) };
            secret.signature = admin().sign(&secret.signed_octets(epoch));
            other.secrets.insert(epoch, secret);
            other
        };
        assert!(!ring.merge(&at(u16::MAX), anybody), "no number would be left");
        assert!(!ring.merge(&at(MAX_AHEAD + 2), anybody));
        assert!(ring.merge(&at(MAX_AHEAD + 1), anybody));
    }

    #[test]
    fn a_ring_survives_its_octets_and_nothing_else_is_one() {
        let mut ring = Ring::found(key(1));
        ring.add(key(2), true, &admin());
        let octets = ring.to_octets();
        assert_eq!(Ring::from_octets(&octets), Some(ring));
        for at in 0..octets.len() {
            assert_eq!(Ring::from_octets(&octets[..at]), None);
        }
        let mut forged = octets.to_vec();
        forged[11] ^= 1;
        assert_eq!(Ring::from_octets(&forged), None, "a key under another key's name");
    }

    #[test]
    fn two_keys_under_one_number_are_two_epochs_and_all_prefer_the_same() {
        let (mut a, mut b) = (Ring::found(key(1)), Ring::found(key(1)));
        let (of_a, of_b) = (a.add(key(2), false, &admin()), b.add(key(3), false, &admin()));
        assert_eq!(of_a.map(Epoch::number), of_b.map(Epoch::number));
        assert_ne!(of_a, of_b);
        assert!(a.merge(&b, anybody) && b.merge(&a, anybody));
        assert_eq!(a, b);
        assert_eq!(Some(a.newest()), of_a.max(of_b));
    }

    #[test]
    fn retired_epochs_do_not_come_back_from_others() {
        let mut ring = Ring::found(key(1));
        let before = ring.clone();
        let next = ring.add(key(2), false, &admin()).expect("there is room");
        assert!(ring.activate(next) && ring.retire_before(next));
        assert!(!ring.merge(&before, anybody));
        assert_eq!(ring.epochs().collect::<Vec<_>>(), [next]);
    }

    #[test]
    fn a_ring_is_bounded_and_keeps_what_it_sends_with() {
        let mut ring = Ring::found(key(1));
        let first = ring.active();
        for octet in 2..100 {
            ring.add(key(octet), false, &admin());
        }
        assert_eq!(ring.epochs().count(), MAX_EPOCHS);
        assert!(ring.has(first));
        assert_eq!(ring.newest().number(), 99);
    }

    #[test]
    fn debug_output_and_roots_tell_nothing_of_the_keys() {
        let ring = Ring::found([0xab; 32]);
        assert!(!format!("{ring:?}").contains("171") && !format!("{ring:?}").contains("abab"));
        let root = ring.psk_root(ring.active()).expect("it is here");
        assert_ne!(*root, [0xab; 32]);
        assert_eq!(ring.psk_root(Epoch(0)), None);
    }

    proptest! {
        #[test]
        fn merging_is_commutative_and_idempotent(ours in prop::collection::vec(any::<u8>(), 0..6), theirs in prop::collection::vec(any::<u8>(), 0..6)) {
            let of = |octets: &[u8]| {
                let mut ring = Ring::found(key(0));
                for octet in octets {
                    ring.add([*octet; 32], false, &admin());
                }
                ring
            };
            let (a, b) = (of(&ours), of(&theirs));
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.merge(&b, anybody);
            ba.merge(&a, anybody);
            prop_assert_eq!(&ab, &ba);
            prop_assert!(!ab.merge(&b, anybody));
        }

        #[test]
        fn octets_of_others_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ring::from_octets(&octets);
        }
    }
}
