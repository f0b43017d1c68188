//! Seals every message, and lets no parser see one that is not sealed.
//!
//! ```text
//!  0      1      2           18             34          42
//!  kind | ver 1 | sender 16 | boot nonce 16 | counter 8 | AES-256-GCM(body) | tag 16
//! ```
//! Key = HKDF-SHA256(cluster key, "weft gossip 1" ‖ sender ‖ boot nonce); nonce = 4 zero octets ‖ counter; the
//! header is authenticated. The boot nonce is fresh for each start and renewed long before a counter could wrap,
//! so no (key, nonce) pair is ever used twice and no counter is stored. A sender costs memory only after one of
//! its messages opened, and its replay window moves only then.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::key::ClusterKey;
use super::limits::{MAX_CONTEXTS, MAX_DATAGRAM, MAX_SEAL_AGE, MAX_SEALS, MAX_STREAM, UNKNOWN_OPENS};
use super::window::Window;
use crate::model::NodeId;

/// Octets before the ciphertext.
pub(crate) const HEADER: usize = 42;
/// Octets that a seal adds.
pub(crate) const OVERHEAD: usize = HEADER + TAG;
const TAG: usize = 16;
const VERSION: u8 = 1;

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
}

/// An authentic, new message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'m> {
    pub(crate) sender: NodeId,
    pub(crate) boot: BootNonce,
    pub(crate) body: &'m [u8],
}

struct Context {
    cipher: Aes256Gcm,
    window: Window,
    used: u64,
}

/// Seals our messages and opens others'.
pub(crate) struct Seal {
    root: Hkdf<Sha256>,
    us: NodeId,
    seed: [u8; 32],
    boot: BootNonce,
    cipher: Aes256Gcm,
    counter: u64,
    renewed: u64,
    since: Instant,
    contexts: BTreeMap<(NodeId, BootNonce), Context>,
    clock: u64,
    attempts: Attempts,
}

impl Seal {
    /// `seed` must differ between any two starts of one node; boot epoch and operating system's randomness see to it.
    pub(crate) fn new(key: &ClusterKey, us: NodeId, seed: [u8; 32], now: Instant) -> Self {
        let root = Hkdf::<Sha256>::new(Some(b"weft cluster 1"), key.octets());
        let boot = boot_nonce(&seed, us, 0);
        let cipher = subkey(&root, us, &boot);
        Self {
            root,
            us,
            seed,
            boot,
            cipher,
            counter: 0,
            renewed: 0,
            since: now,
            contexts: BTreeMap::new(),
            clock: 0,
            attempts: Attempts::new(now),
        }
    }

    /// A public name of the cluster that follows from its key; signatures are bound to it.
    pub(crate) fn cluster_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.root.expand(b"weft cluster id 1", &mut id).expect("16 octets is a length HKDF can give");
        id
    }

    /// Seals `body`; the caller keeps it within `via`'s limit.
    pub(crate) fn seal(&mut self, now: Instant, via: Via, body: &[u8]) -> Vec<u8> {
        if self.counter >= MAX_SEALS || now.saturating_duration_since(self.since) >= MAX_SEAL_AGE {
            self.renew(now);
        }
        let mut message = Vec::with_capacity(body.len() + OVERHEAD);
        message.extend_from_slice(&[via.kind(), VERSION]);
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
        now: Instant,
        via: Via,
        from: SocketAddr,
        message: &'m mut [u8],
    ) -> Result<Opened<'m>, Refusal> {
        let (sender, boot, counter) = parse(via, message).ok_or(Refusal::Malformed)?;
        if sender == self.us && boot == self.boot {
            return Err(Refusal::Reflected);
        }
        self.clock += 1;
        let body = match self.contexts.get_mut(&(sender, boot)) {
            Some(context) => {
                context.used = self.clock;
                context.open(counter, message)?
            }
            None => {
                if !self.attempts.allow(now, from.ip()) {
                    return Err(Refusal::RateLimited);
                }
                let cipher = subkey(&self.root, sender, &boot);
                let mut context = Context { cipher, window: Window::default(), used: self.clock };
                let body = context.open(counter, message)?;
                self.attempts.refund(from.ip());
                self.remember((sender, boot), context);
                body
            }
        };
        Ok(Opened { sender, boot, body })
    }

    /// Forgets the sender's boot, so that its memory is free and its messages must prove themselves anew.
    pub(crate) fn forget(&mut self, sender: NodeId, boot: BootNonce) {
        self.contexts.remove(&(sender, boot));
    }

    #[cfg(test)]
    pub(crate) fn contexts(&self) -> usize {
        self.contexts.len()
    }

    fn remember(&mut self, key: (NodeId, BootNonce), context: Context) {
        if self.contexts.len() >= MAX_CONTEXTS {
            let oldest = self.contexts.iter().min_by_key(|(_, context)| context.used).map(|(key, _)| *key);
            oldest.map(|key| self.contexts.remove(&key));
        }
        self.contexts.insert(key, context);
    }

    fn renew(&mut self, now: Instant) {
        self.renewed += 1;
        self.boot = boot_nonce(&self.seed, self.us, self.renewed);
        self.cipher = subkey(&self.root, self.us, &self.boot);
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

fn parse(via: Via, message: &[u8]) -> Option<(NodeId, BootNonce, u64)> {
    if message.len() < OVERHEAD || message.len() > via.limit() || message[..2] != [via.kind(), VERSION] {
        return None;
    }
    let sender = message[2..18].try_into().ok()?;
    let boot = message[18..34].try_into().ok()?;
    let counter = message[34..HEADER].try_into().ok()?;
    Some((NodeId(sender), boot, u64::from_be_bytes(counter)))
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

/// Attempts to open messages of unknown senders, in a fixed number of buckets by source address.
struct Attempts {
    left: [u32; 256],
    since: Instant,
}

impl Attempts {
    fn new(now: Instant) -> Self {
        Self { left: [UNKNOWN_OPENS; 256], since: now }
    }

    fn allow(&mut self, now: Instant, from: IpAddr) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let left = &mut self.left[bucket(from)];
        let allowed = *left > 0;
        *left = left.saturating_sub(1);
        allowed
    }

    /// An authentic message costs no attempt: many members behind one address may start at once.
    fn refund(&mut self, from: IpAddr) {
        self.left[bucket(from)] += 1;
    }
}

fn bucket(from: IpAddr) -> usize {
    let mix = |octets: &[u8]| octets.iter().fold(0u8, |hash, octet| hash.rotate_left(3) ^ octet);
    usize::from(match from {
        IpAddr::V4(v4) => mix(&v4.octets()),
        IpAddr::V6(v6) => mix(&v6.octets()),
    })
}
