//! What a member keeps in its state: its keys, its chain, the gossip keys, and how it was set up.

use std::collections::BTreeMap;
use std::fmt;

use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    Chain, ClusterId, NODE_LIFE, NodeCertificate, Role, Root, RootHash, Signed, TOKEN_LIFE, Token,
    TokenCertificate, TokenTerms, cluster_id, root_hash,
};
use crate::gossip::Ring;
use crate::identity::Identity;
use crate::model::Name;
use crate::storage::{Storage, StorageError, Table, Write};
use crate::timestamp::UnixMillis;

const IDENTITY: &[u8] = b"identity";
const ROOT: &[u8] = b"root";
const CHAIN: &[u8] = b"chain";
const RING: &[u8] = b"ring";
const SETTINGS: &[u8] = b"settings";
/// Keys of rows about others begin like the keys of the records that tell of them.
pub(crate) const CERTIFICATE_ROW: &[u8] = b"c/";
pub(crate) const TOKEN_ROW: &[u8] = b"t/";
pub(crate) const REVOCATION_ROW: &[u8] = b"r/";

/// How a node was set up, kept so that its agent needs only its state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The node's name.
    pub name: Name,
    /// Address or interface that others reach it by; empty for the default route's.
    pub advertise: String,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
}

/// A member's papers.
pub struct Papers {
    /// Its keys.
    pub identity: Identity,
    /// The root of a cluster that was just made. It is kept, and not read again: [`Papers::load_root`].
    pub root: Option<Root>,
    /// Its certificate, traced to the root.
    pub chain: Chain,
    /// Gossip keys.
    pub ring: Ring,
    /// How it was set up.
    pub settings: Settings,
}

/// The papers cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// The medium's fault.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A row cannot be decoded or is missing.
    #[error("the state is damaged: {0}")]
    Corrupt(&'static str),
}

impl Papers {
    /// The first node of a new cluster. All secrets follow from `seed`, which is from the operating system's generator.
    #[must_use]
    pub fn found(seed: &[u8; 32], settings: Settings, now: UnixMillis) -> Self {
        let root = Root::from_secret(&derive(seed, b"weft init root 1"));
        let identity = Identity::from_secret(&derive(seed, b"weft init identity 1"));
        let certificate = NodeCertificate {
            cluster: cluster_id(&root.public_key()),
            key: identity.public_key(),
            static_key: identity.static_public(),
            proof: super::certificate::prove_keys(cluster_id(&root.public_key()), &identity),
            name: Some(settings.name.clone()),
            role: Role::Admin,
            issued: now,
            not_after: now.after(NODE_LIFE),
            token: None,
        };
        let node = Signed::new(certificate, |octets| identity.sign(octets));
        let admin = root.appoint(identity.public_key(), now);
        let chain = Chain::of_first(root.public_key(), admin, node);
        let ring = Ring::found(*derive(seed, b"weft init ring 1"));
        Self { identity, root: Some(root), chain, ring, settings }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.chain.cluster()
    }

    /// What tokens of the cluster pin.
    #[must_use]
    pub fn root_hash(&self) -> RootHash {
        root_hash(&self.chain.root)
    }

    /// The token that is printed at once with a new cluster: any number of nodes, for a day.
    #[must_use]
    pub fn first_token(
        &self,
        secret: [u8; 16],
        seeds: &[std::net::SocketAddr],
        now: UnixMillis,
    ) -> (Token, Signed<TokenCertificate>) {
        let token = Token::new(self.root_hash(), secret, seeds);
        let terms = TokenTerms { role: Role::Node, max_uses: 0, life: TOKEN_LIFE };
        let certificate = self.chain.certify_token(&self.identity, token.key().public_key(), terms, now);
        (token, certificate)
    }

    /// Reads the papers; `None` where the state is in no cluster yet.
    ///
    /// # Errors
    /// The medium's fault, or rows that no member wrote.
    pub fn load(storage: &dyn Storage) -> Result<Option<Self>, PapersError> {
        let rows = |table| storage.load(table).map(|rows| rows.into_iter().collect::<BTreeMap<_, _>>());
        let (node, trust) = (rows(Table::Node)?, rows(Table::Trust)?);
        let Some(chain) = trust.get(CHAIN) else { return Ok(None) };
        let chain: Chain = read(chain, "chain")?;
        let identity = secret(node.get(IDENTITY), "identity")?;
        let ring = rows(Table::Ring)?.get(RING).and_then(|row| Ring::from_octets(row));
        let ring = ring.ok_or(PapersError::Corrupt("gossip keys"))?;
        let settings = trust.get(SETTINGS).ok_or(PapersError::Corrupt("settings"))?;
        Ok(Some(Self {
            identity: Identity::from_secret(&identity),
            root: None,
            chain,
            ring,
            settings: read(settings, "settings")?,
        }))
    }

    /// Reads the root, which only the node that made the cluster has, and which nothing but the making of an admin needs.
    ///
    /// # Errors
    /// The medium's fault, or a row that no member wrote.
    pub fn load_root(storage: &dyn Storage) -> Result<Option<Root>, PapersError> {
        let rows = storage.load(Table::Trust)?;
        let row = rows.iter().find(|(key, _)| key == ROOT).map(|(_, row)| row);
        let octets = row.map(|row| secret(Some(row), "root")).transpose()?;
        Ok(octets.map(|octets| Root::from_secret(&octets)))
    }

    /// Reads the keys of the node, which a host has from its first attempt to join.
    ///
    /// # Errors
    /// The medium's fault, or a row that no node wrote.
    pub fn load_identity(storage: &dyn Storage) -> Result<Option<Identity>, PapersError> {
        let rows = storage.load(Table::Node)?;
        let row = rows.iter().find(|(key, _)| key == IDENTITY).map(|(_, row)| row);
        let octets = row.map(|row| secret(Some(row), "identity")).transpose()?;
        Ok(octets.map(|octets| Identity::from_secret(&octets)))
    }

    /// The rows that hold the papers, to be committed in one batch.
    #[must_use]
    pub fn rows(&self) -> Vec<Write> {
        let put = |table, key: &[u8], value: Vec<u8>| Write { table, key: key.to_vec(), value: Some(value) };
        let mut rows = vec![
            identity_row(&self.identity),
            chain_row(&self.chain),
            put(Table::Trust, SETTINGS, encode(&self.settings)),
        ];
        rows.extend(self.root.iter().map(|root| put(Table::Trust, ROOT, root.secret().to_vec())));
        rows.push(ring_row(&self.ring));
        rows
    }
}

/// The row of a node's keys.
pub(crate) fn identity_row(identity: &Identity) -> Write {
    Write { table: Table::Node, key: IDENTITY.to_vec(), value: Some(identity.secret().to_vec()) }
}

/// A row of others' papers.
pub(crate) fn row(prefix: &[u8], id: &[u8], value: &impl Serialize) -> Write {
    Write { table: Table::Trust, key: [prefix, id].concat(), value: Some(encode(value)) }
}

/// Whether the row under this key holds a secret.
pub(crate) fn is_secret(table: Table, key: &[u8]) -> bool {
    matches!((table, key), (Table::Node, IDENTITY) | (Table::Trust, ROOT) | (Table::Ring, _))
}

/// The row of the gossip keys, to be replaced when they change.
pub(crate) fn ring_row(ring: &Ring) -> Write {
    Write { table: Table::Ring, key: RING.to_vec(), value: Some(ring.to_octets().to_vec()) }
}

/// The row of a member's own chain, to be replaced at renewal.
pub(crate) fn chain_row(chain: &Chain) -> Write {
    Write { table: Table::Trust, key: CHAIN.to_vec(), value: Some(encode(chain)) }
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Papers").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn derive(seed: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    // 32 octets are far below the limit of HKDF-SHA256.
    let _ = Hkdf::<Sha256>::new(None, seed).expand(label, &mut *secret);
    secret
}

fn secret(row: Option<&Vec<u8>>, what: &'static str) -> Result<Zeroizing<[u8; 32]>, PapersError> {
    let octets = row.and_then(|row| <[u8; 32]>::try_from(row.as_slice()).ok());
    octets.map(Zeroizing::new).ok_or(PapersError::Corrupt(what))
}

fn read<T: for<'de> Deserialize<'de>>(row: &[u8], what: &'static str) -> Result<T, PapersError> {
    postcard::from_bytes(row).map_err(|_| PapersError::Corrupt(what))
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data; encoding it into memory has no way to fail.
    postcard::to_stdvec(value).unwrap_or_default()
}
