//! Seals every message, and lets no parser see one that is not sealed.
//!
//! ```text
//!  0      1       2         6           22             38          46
//!  kind | ver 2 | epoch 4 | sender 16 | boot nonce 16 | counter 8 | AES-256-GCM(body) | tag 16
//! ```
//! Key = HKDF-SHA256(key of the epoch, salt cluster id, "weft gossip 1" ‖ sender ‖ boot nonce); nonce = 4 zero octets
//! ‖ counter; the header is authenticated. The boot nonce is fresh for each start and renewed long before a counter could wrap,
//! so no (key, nonce) pair is ever used twice and no counter is stored. A sender costs memory only after one of
//! its messages opened, and its replay window moves only then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::attempts::Attempts;
use super::limits::{MAX_CONTEXTS, MAX_DATAGRAM, MAX_SEAL_AGE, MAX_SEALS, MAX_STREAM};
use super::record::ClusterId;
use super::ring::{Epoch, Ring};
use super::window::Window;
use super::wire::Reader;
use crate::model::NodeId;

/// Octets before the ciphertext.
pub(crate) const HEADER: usize = 46;
/// Octets that a seal adds.
pub(crate) const OVERHEAD: usize = HEADER + TAG;
const TAG: usize = 16;
const VERSION: u8 = 2;

/// How a message travels; the first octet of its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// One UDP datagram, at most [`MAX_DATAGRAM`] octets.
    Datagram,
    /// One message of a TCP connection, at most [`MAX_STREAM`] octets.
    Stream,
}

impl Via {
    fn kind(self) -> u8 {
        match self {
            Self::Datagram => 1,
            Self::Stream => 2,
        }
    }

    /// Largest message, octets, seal included.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::Datagram => MAX_DATAGRAM,
            Self::Stream => MAX_STREAM,
        }
    }
}

/// A fresh random-looking value per start and renewal, public.
pub(crate) type BootNonce = [u8; 16];

/// Why a message was dropped before anything read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    RateLimited,
    Unauthentic,
    Replayed,
    Reflected,
    UnknownEpoch(Epoch),
    Banned,
}

/// Who sealed a message, in which start or renewal, with which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextId {
    sender: NodeId,
    boot: BootNonce,
    epoch: Epoch,
}

/// An authentic, new message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'m> {
    pub(crate) sender: NodeId,
    pub(crate) context: ContextId,
    pub(crate) body: &'m [u8],
}

struct Context {
    cipher: Aes256Gcm,
    window: Window,
    used: u64,
}

/// Seals our messages and opens others'.
pub(crate) struct Seal {
    cluster: ClusterId,
    ring: Ring,
    roots: BTreeMap<Epoch, Hkdf<Sha256>>,
    us: NodeId,
    seed: [u8; 32],
    boot: BootNonce,
    cipher: Aes256Gcm,
    counter: u64,
    renewed: u64,
    since: Instant,
    contexts: BTreeMap<ContextId, Context>,
    banned: BTreeSet<NodeId>,
    clock: u64,
    pub(crate) attempts: Attempts,
}

impl Seal {
    /// `seed` must differ between any two starts of one node; boot epoch and operating system's randomness see to it.
    pub(crate) fn new(cluster: ClusterId, ring: Ring, us: NodeId, seed: [u8; 32], now: Instant) -> Self {
        let boot = boot_nonce(&seed, us, 0);
        let roots = roots(&ring, &cluster);
        let cipher = subkey(&roots[&ring.active()], us, &boot);
        Self {
            cluster,
            ring,
            roots,
            us,
            seed,
            boot,
            cipher,
            counter: 0,
            renewed: 0,
            since: now,
            contexts: BTreeMap::new(),
            banned: BTreeSet::new(),
            clock: 0,
            attempts: Attempts::new(bucket_secret(&seed), now),
        }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Seals and opens with another ring from now on.
    pub(crate) fn set_ring(&mut self, now: Instant, ring: Ring) {
        self.roots = roots(&ring, &self.cluster);
        self.contexts.retain(|id, _| ring.has(id.epoch));
        self.ring = ring;
        // A key is left for good once another is used, so that going back to its epoch repeats no nonce.
        self.renew(now);
    }

    /// Opens nothing of `sender` any more.
    pub(crate) fn ban(&mut self, sender: NodeId) {
        self.banned.insert(sender);
        self.contexts.retain(|id, _| id.sender != sender);
    }

    /// Whether it is how we seal ourselves now.
    pub(crate) fn is_ours(&self, context: ContextId) -> bool {
        (context.sender, context.boot) == (self.us, self.boot)
    }

    /// Seals `body`; the caller keeps it within `via`'s limit.
    pub(crate) fn seal(&mut self, now: Instant, via: Via, body: &[u8]) -> Vec<u8> {
        if self.counter >= MAX_SEALS || now.saturating_duration_since(self.since) >= MAX_SEAL_AGE {
            self.renew(now);
        }
        let mut message = Vec::with_capacity(body.len() + OVERHEAD);
        message.extend_from_slice(&[via.kind(), VERSION]);
        message.extend_from_slice(&self.ring.active().0.to_be_bytes());
        message.extend_from_slice(&self.us.0);
        message.extend_from_slice(&self.boot);
        message.extend_from_slice(&self.counter.to_be_bytes());
        message.extend_from_slice(body);
        let (header, plain) = message.split_at_mut(HEADER);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(self.counter), header, plain.into())
            .expect("a message is far below AES-GCM's 64 GiB");
        message.extend_from_slice(&tag);
        self.counter += 1;
        message
    }

    /// Opens `message` in place.
    pub(crate) fn open<'m>(
        &mut self,
        via: Via,
        from: SocketAddr,
        message: &'m mut [u8],
    ) -> Result<Opened<'m>, Refusal> {
        let (context, counter) = parse(via, message).ok_or(Refusal::Malformed)?;
        if self.is_ours(context) {
            return Err(Refusal::Reflected);
        }
        if self.banned.contains(&context.sender) {
            return Err(Refusal::Banned);
        }
        let root = self.roots.get(&context.epoch).ok_or(Refusal::UnknownEpoch(context.epoch))?;
        self.clock += 1;
        let body = match self.contexts.get_mut(&context) {
            Some(known) => {
                known.used = self.clock;
                known.open(counter, message)?
            }
            None => {
                if !self.attempts.allow(from.ip()) {
                    return Err(Refusal::RateLimited);
                }
                let cipher = subkey(root, context.sender, &context.boot);
                let mut fresh = Context { cipher, window: Window::default(), used: self.clock };
                let body = fresh.open(counter, message)?;
                self.attempts.refund(from.ip());
                self.remember(context, fresh);
                body
            }
        };
        Ok(Opened { sender: context.sender, context, body })
    }

    /// Forgets a sender's start, so that its memory is free and its messages must prove themselves anew.
    pub(crate) fn forget(&mut self, context: ContextId) {
        self.contexts.remove(&context);
    }

    #[cfg(test)]
    pub(crate) fn contexts(&self) -> usize {
        self.contexts.len()
    }

    fn remember(&mut self, key: ContextId, context: Context) {
        if self.contexts.len() >= MAX_CONTEXTS {
            let oldest = self.contexts.iter().min_by_key(|(_, context)| context.used).map(|(key, _)| *key);
            oldest.map(|key| self.contexts.remove(&key));
        }
        self.contexts.insert(key, context);
    }

    fn renew(&mut self, now: Instant) {
        self.renewed += 1;
        self.boot = boot_nonce(&self.seed, self.us, self.renewed);
        self.cipher = subkey(&self.roots[&self.ring.active()], self.us, &self.boot);
        self.counter = 0;
        self.since = now;
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("us", &self.us).field("counter", &self.counter).finish_non_exhaustive()
    }
}

impl Context {
    fn open<'m>(&mut self, counter: u64, message: &'m mut [u8]) -> Result<&'m [u8], Refusal> {
        if !self.window.is_new(counter) {
            return Err(Refusal::Replayed);
        }
        let (header, sealed) = message.split_at_mut(HEADER);
        let (body, tag) = sealed.split_at_mut(sealed.len() - TAG);
        let tag = Tag::try_from(&*tag).map_err(|_| Refusal::Malformed)?;
        self.cipher
            .decrypt_inout_detached(&nonce(counter), header, (&mut *body).into(), &tag)
            .map_err(|_| Refusal::Unauthentic)?;
        self.window.note(counter);
        Ok(body)
    }
}

fn parse(via: Via, message: &[u8]) -> Option<(ContextId, u64)> {
    if message.len() < OVERHEAD || message.len() > via.limit() || message[..2] != [via.kind(), VERSION] {
        return None;
    }
    let mut reader = Reader::new(&message[2..HEADER]);
    let (epoch, sender, boot) = (Epoch(reader.u32()?), reader.node()?, reader.array()?);
    Some((ContextId { sender, boot, epoch }, reader.u64()?))
}

/// The active epoch is always among a ring's.
fn roots(ring: &Ring, cluster: &ClusterId) -> BTreeMap<Epoch, Hkdf<Sha256>> {
    ring.epochs().filter_map(|epoch| Some((epoch, ring.gossip_root(epoch, cluster)?))).collect()
}

fn bucket_secret(seed: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"weft bucket secret 1");
    hash.update(seed);
    hash.finalize().into()
}

fn nonce(counter: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

fn subkey(root: &Hkdf<Sha256>, sender: NodeId, boot: &BootNonce) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; 32]);
    root.expand_multi_info(&[b"weft gossip 1", &sender.0, boot], &mut *key)
        .expect("32 octets is a length HKDF can give");
    Aes256Gcm::new((&*key).into())
}

fn boot_nonce(seed: &[u8; 32], us: NodeId, renewal: u64) -> BootNonce {
    let mut hash = Sha256::new();
    hash.update(b"weft boot nonce 1");
    hash.update(seed);
    hash.update(us.0);
    hash.update(renewal.to_be_bytes());
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&hash.finalize()[..16]);
    nonce
}
