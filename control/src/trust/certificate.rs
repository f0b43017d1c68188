//! The three kinds of certificates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ClusterId, NODE_LIFE, Signature, Signed, Statement, TokenId, TokenKey};
use crate::identity::{Identity, node_id};
use crate::model::{Name, NodeId};
use crate::timestamp::UnixMillis;

/// What a node may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Take part, and let others in who bring a token.
    Node,
    /// Also make tokens, renew certificates, revoke nodes.
    Admin,
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role {0:?}: roles are 'node' and 'admin'")]
pub struct UnknownRole(pub String);

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "node" => Ok(Self::Node),
            "admin" => Ok(Self::Admin),
            other => Err(UnknownRole(other.chars().take(40).collect())),
        }
    }
}

/// Signed by the root: this key may make tokens and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminCertificate {
    /// The root's cluster.
    pub cluster: ClusterId,
    /// The admin's Ed25519 public key.
    pub key: [u8; 32],
    /// When it was made.
    pub issued: UnixMillis,
    /// When it ends.
    pub not_after: UnixMillis,
}

impl Statement for AdminCertificate {
    const LABEL: &'static [u8] = b"weft admin certificate 1";
}

/// Signed by an admin: who holds the secret of this token may join until it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCertificate {
    /// The root's cluster.
    pub cluster: ClusterId,
    /// The token's Ed25519 public key.
    pub key: [u8; 32],
    /// Most a node that joins with it may do.
    pub role: Role,
    /// How many nodes may join with it; 0 for any number.
    pub max_uses: u32,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it ends.
    pub not_after: UnixMillis,
}

impl Statement for TokenCertificate {
    const LABEL: &'static [u8] = b"weft token certificate 1";
}

impl TokenCertificate {
    /// The token's public name.
    #[must_use]
    pub fn id(&self) -> TokenId {
        TokenId::of(&self.key)
    }
}

/// Signed by a node itself: these two keys are mine. Nobody can have a certificate made for another's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyProof {
    cluster: ClusterId,
    key: [u8; 32],
    static_key: [u8; 32],
}

impl Statement for KeyProof {
    const LABEL: &'static [u8] = b"weft node proof 1";
}

/// The signature by which `node` holds both of its keys, for every certificate of it in this cluster.
pub(super) fn prove_keys(cluster: ClusterId, node: &Identity) -> Signature {
    let proof = KeyProof { cluster, key: node.public_key(), static_key: node.static_public() };
    Signed::new(proof, |octets| node.sign(octets)).signature()
}

/// Signed by a token at joining or by an admin at renewal: this is a node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificate {
    /// The root's cluster.
    pub cluster: ClusterId,
    /// The node's Ed25519 public key, which names it.
    pub key: [u8; 32],
    /// The node's static X25519 public key.
    pub static_key: [u8; 32],
    /// The node's own signature over its keys, the same at every renewal.
    pub proof: Signature,
    /// What the node was called when it joined.
    pub name: Option<Name>,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it ends, [`NODE_LIFE`] later at most.
    pub not_after: UnixMillis,
    /// The token that the node joined with; none for the first node.
    pub token: Option<TokenId>,
}

impl Statement for NodeCertificate {
    const LABEL: &'static [u8] = b"weft node certificate 1";
}

impl NodeCertificate {
    /// A certificate that the holder of `token` makes for its own node.
    #[must_use]
    pub fn by_token(
        node: &Identity,
        name: Name,
        token: &TokenKey,
        terms: &TokenCertificate,
        now: UnixMillis,
    ) -> Signed<Self> {
        let certificate = Self {
            cluster: terms.cluster,
            key: node.public_key(),
            static_key: node.static_public(),
            proof: prove_keys(terms.cluster, node),
            name: Some(name),
            role: terms.role,
            issued: now,
            not_after: now.after(NODE_LIFE),
            token: Some(token.id()),
        };
        Signed::new(certificate, |octets| token.sign(octets))
    }

    /// Whether the holder of the key that it names signed for both keys.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let proof = KeyProof { cluster: self.cluster, key: self.key, static_key: self.static_key };
        Signed::from_parts(proof, self.proof).is_by(&self.key)
    }

    /// The node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        node_id(&self.key)
    }
}
