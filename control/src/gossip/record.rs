//! What nodes say of themselves: records, and the head that says which records there are.
//!
//! A record is signed by its owner, so any member may relay it and none can alter it. The head is signed too and
//! holds a hash over the set of live records: who has records that hash to the head has all of them, and a record
//! that is absent then was withdrawn.

use std::fmt;
use std::net::SocketAddr;

use sha2::{Digest as _, Sha256};

use super::limits::{MAX_BODY, MAX_KEY, MAX_KEYS};
use super::membership::Peer;
use super::wire::{Reader, Writer as _};
use crate::identity::{Identity, node_id, verify};
use crate::model::{Name, NodeId};

/// The cluster that a signature is bound to.
pub(crate) type ClusterId = [u8; 16];
/// SHA-256 cut to 128 bits.
pub(crate) type Hash = [u8; 16];
/// What names a record's key, version and content.
pub(crate) type RecordHash = Hash;

/// A record's key: 1 to 64 octets, ordered as such.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(Box<[u8]>);

impl RecordKey {
    /// The key of these octets, unless there are none or more than 64.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        (1..=MAX_KEY).contains(&octets.len()).then(|| Self(octets.into()))
    }

    /// The key's octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({})", self.0.escape_ascii())
    }
}

/// A record as its owner signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    version: u64,
    body: Option<Box<[u8]>>,
    signature: [u8; 64],
    hash: Hash,
}

impl Record {
    pub(crate) fn sign(
        cluster: &ClusterId,
        owner: &Identity,
        key: &RecordKey,
        version: u64,
        body: Option<Box<[u8]>>,
    ) -> Self {
        let signature = owner.sign(&signed_octets(cluster, owner.node_id(), key, version, body.as_deref()));
        Self { version, hash: record_hash(key, version, body.as_deref()), body, signature }
    }

    pub(crate) fn verify(&self, cluster: &ClusterId, public_key: &[u8; 32], key: &RecordKey) -> bool {
        let octets = signed_octets(cluster, node_id(public_key), key, self.version, self.body.as_deref());
        verify(public_key, &octets, &self.signature)
    }

    /// The owner's boot epoch in the upper half, its count of changes since in the lower.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The content; empty for a withdrawal.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    pub(crate) fn withdrawn(&self) -> bool {
        self.body.is_none()
    }

    pub(crate) fn hash(&self) -> &Hash {
        &self.hash
    }

    pub(crate) fn emit(&self, key: &RecordKey, out: &mut Vec<u8>) {
        out.u8(key.0.len() as u8);
        out.octets(&key.0);
        out.u64(self.version);
        match &self.body {
            Some(body) => {
                out.u16(body.len() as u16);
                out.octets(body);
            }
            None => out.u16(WITHDRAWN),
        }
        out.octets(&self.signature);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Option<(RecordKey, Self)> {
        let key_len = usize::from(reader.u8()?);
        let key = RecordKey::new(reader.take(key_len)?)?;
        let version = reader.u64()?;
        let body = match reader.u16()? {
            WITHDRAWN => None,
            len if usize::from(len) <= MAX_BODY => Some(Box::from(reader.take(usize::from(len))?)),
            _ => return None,
        };
        let signature = reader.array()?;
        let hash = record_hash(&key, version, body.as_deref());
        Some((key, Self { version, body, signature, hash }))
    }

    pub(crate) fn wire_len(&self, key: &RecordKey) -> usize {
        1 + key.0.len() + 8 + 2 + self.body().len() + 64
    }
}

/// Length field of a record without a body.
const WITHDRAWN: u16 = u16::MAX;

fn signed_octets(
    cluster: &ClusterId,
    owner: NodeId,
    key: &RecordKey,
    version: u64,
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut octets = b"weft record 1".to_vec();
    octets.octets(cluster);
    octets.node(owner);
    octets.u8(key.0.len() as u8);
    octets.octets(&key.0);
    octets.u64(version);
    octets.flag(body.is_none());
    octets.octets(body.unwrap_or_default());
    octets
}

fn record_hash(key: &RecordKey, version: u64, body: Option<&[u8]>) -> Hash {
    let mut hash = Sha256::new();
    hash.update([key.0.len() as u8, u8::from(body.is_none())]);
    hash.update(&key.0);
    hash.update(version.to_be_bytes());
    hash.update(body.unwrap_or_default());
    cut(hash)
}

fn cut(hash: Sha256) -> Hash {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// Hash over a set of records, in key order.
pub(crate) fn set_hash<'r>(records: impl Iterator<Item = &'r Record>) -> Hash {
    let mut hash = Sha256::new();
    for record in records {
        hash.update(record.hash);
    }
    cut(hash)
}

/// Key of the record that shows why its owner is a member.
pub const CERTIFICATE: &[u8] = b"c";

/// Who is a member.
pub trait Credentials: fmt::Debug + Send + Sync {
    /// Whether `certificate`, the body of the record [`CERTIFICATE`] that the holder of this Ed25519 key signed, makes
    /// it a member.
    fn admit(&self, public_key: &[u8; 32], certificate: &[u8]) -> bool;
}

/// What a node signs of itself and of its records as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) public_key: [u8; 32],
    pub(crate) name: Name,
    /// Where its gossip is reached.
    pub(crate) addr: SocketAddr,
    /// UDP port of its tunnel end, on the same address.
    pub(crate) data_port: u16,
    /// The owner's boot epoch in the upper half, its count of changes since in the lower.
    pub(crate) version: u64,
    /// Chosen at random by each start, so that two with the same boot epoch are told apart.
    pub(crate) start: [u8; 8],
    /// Returns from the dead and changes of address since that start.
    pub(crate) returns: u32,
    /// Live records.
    pub(crate) count: u32,
    /// Hash over them.
    pub(crate) root: Hash,
    /// It says goodbye and has no records.
    pub(crate) left: bool,
    pub(crate) signature: [u8; 64],
}

impl Head {
    pub(crate) fn origin(&self) -> NodeId {
        node_id(&self.public_key)
    }

    /// The owner's start that this head belongs to.
    pub(crate) fn boot_epoch(&self) -> u32 {
        (self.version >> 32) as u32
    }

    /// The owner as the membership engine names it; whatever else is said of it, the owner did not say.
    pub(crate) fn peer(&self) -> Peer {
        let generation = self.version >> 32 << 32 | u64::from(self.returns);
        Peer { id: self.origin(), addr: self.addr, generation }
    }

    /// Whether both are of one boot epoch, but not of one start: two processes use the owner's identity.
    pub(crate) fn clashes_with(&self, other: &Self) -> bool {
        self.boot_epoch() == other.boot_epoch() && self.start != other.start
    }

    pub(crate) fn sign(&mut self, cluster: &ClusterId, owner: &Identity) {
        self.signature = owner.sign(&self.signed_octets(cluster));
    }

    pub(crate) fn verify(&self, cluster: &ClusterId) -> bool {
        verify(&self.public_key, &self.signed_octets(cluster), &self.signature)
    }

    fn signed_octets(&self, cluster: &ClusterId) -> Vec<u8> {
        let mut octets = b"weft head 2".to_vec();
        octets.octets(cluster);
        self.emit_unsigned(&mut octets);
        octets
    }

    fn emit_unsigned(&self, out: &mut Vec<u8>) {
        out.octets(&self.public_key);
        out.u8(self.name.as_str().len() as u8);
        out.octets(self.name.as_str().as_bytes());
        out.addr(&self.addr);
        out.u16(self.data_port);
        out.u64(self.version);
        out.octets(&self.start);
        out.u32(self.returns);
        out.u32(self.count);
        out.octets(&self.root);
        out.flag(self.left);
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        self.emit_unsigned(out);
        out.octets(&self.signature);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        let public_key = reader.array()?;
        let name_len = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.take(name_len)?).ok()?.parse().ok()?;
        let head = Self {
            public_key,
            name,
            addr: reader.addr()?,
            data_port: reader.u16()?,
            version: reader.u64()?,
            start: reader.array()?,
            returns: reader.u32()?,
            count: reader.u32()?,
            root: reader.array()?,
            left: reader.flag()?,
            signature: reader.array()?,
        };
        (head.count as usize <= MAX_KEYS && head.data_port != 0).then_some(head)
    }
}
