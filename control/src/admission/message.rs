//! What is said, as postcard.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AdmissionError;
use crate::gossip::Ring;
use crate::model::NodeId;
use crate::timestamp::UnixMillis;
use crate::trust::{Chain, NodeCertificate, Revocation, Signed, Statement, TokenCertificate, TokenId};

/// The member's first words: who it is, and what time it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) chain: Chain,
    pub(super) clock: UnixMillis,
}

/// What the other side came for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) clock: UnixMillis,
    pub(super) ask: Ask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    Join(Join),
    Ring(Member),
    Renew(Member),
}

/// A member's chain, and the proof of its node's key, bound to this handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) chain: Chain,
    pub(super) by_node: Signed<Proof>,
}

/// Proof of a token and of a node's key, both bound to this handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Join {
    pub(super) token: TokenId,
    pub(super) key: [u8; 32],
    pub(super) by_token: Signed<Proof>,
    pub(super) by_node: Signed<Proof>,
}

/// That its signer takes part in the handshake with this hash, for the node with this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) handshake: [u8; 32],
    pub(super) key: [u8; 32],
}

impl Statement for Proof {
    const LABEL: &'static [u8] = b"weft join proof 1";
}

/// What a token allows, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The token's certificate.
    pub token: Signed<TokenCertificate>,
    /// The chain of the admin that made it.
    pub admin: Chain,
}

/// What a member needs to take part.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The node's own chain, where it was made or renewed.
    pub chain: Option<Chain>,
    /// Gossip keys.
    #[serde(with = "ring_octets")]
    pub ring: Ring,
    /// Chains of the admins that made those keys.
    pub makers: Vec<Chain>,
    /// Nodes that are revoked, the latest first; gossip tells the rest.
    pub revocations: Vec<Revocation>,
    /// Members and where their gossip is reached.
    pub peers: Vec<(NodeId, SocketAddr)>,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome").field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// What a member is asked and its cluster has to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May the node with this Ed25519 key join with this token now?
    Token(TokenId, [u8; 32]),
    /// This node has made its certificate with a token: is it let in?
    Admit(Chain),
    /// This member asks for the gossip keys.
    Ring(Chain),
    /// This member asks for a new certificate.
    Renew(Chain),
}

/// What a member answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Token`].
    Terms(Box<Terms>),
    /// To the others.
    Welcome(Box<Welcome>),
    /// To any.
    Refused(Refusal),
}

/// Why somebody is not let in, in words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The token has ended.
    #[error(
        "the join token expired at {} (it is {} there): make a new one with 'weft token create'",
        .not_after.to_seconds_text(), .now.to_seconds_text()
    )]
    Expired {
        /// When it ended.
        not_after: UnixMillis,
        /// The member's time.
        now: UnixMillis,
    },
    /// The token has been used as often as it may be.
    #[error("the join token is spent: it was good for {0} node(s); make a new one with 'weft token create'")]
    Spent(u32),
    /// The member has heard of no such token.
    #[error(
        "the join token is not known there yet: if it is new, try again in some seconds; otherwise make a new one \
         with 'weft token create'"
    )]
    UnknownToken,
    /// An admin took the token back.
    #[error("the join token was revoked: make a new one with 'weft token create'")]
    TokenRevoked,
    /// The node is revoked; by whom, when and why.
    #[error("this node was {0}")]
    Revoked(String),
    /// The certificate proves nothing.
    #[error("the certificate is not accepted: {0}")]
    NotAccepted(String),
    /// The node's identity is in use by another member.
    #[error("{0}")]
    Clash(String),
    /// The member can't renew certificates.
    #[error("the node asked is no admin")]
    NotAdmin,
    /// The clocks differ too much.
    #[error(
        "the clocks differ: it is {} here and {} there; set this host's clock (or theirs) and try again",
        .asker.to_seconds_text(), .member.to_seconds_text()
    )]
    Clock {
        /// The asking side's time.
        asker: UnixMillis,
        /// The member's.
        member: UnixMillis,
    },
    /// The member failed.
    #[error("the node asked cannot do it now: {0}")]
    Trouble(String),
}

pub(super) fn encode<T: Serialize>(value: &T) -> Zeroizing<Vec<u8>> {
    // Plain data; encoding it into memory has no way to fail.
    Zeroizing::new(postcard::to_stdvec(value).unwrap_or_default())
}

pub(super) fn decode<T: DeserializeOwned>(octets: &[u8]) -> Result<T, AdmissionError> {
    postcard::from_bytes(octets).map_err(|_| AdmissionError::Garbled)
}

/// A ring as the octets that it is kept in.
mod ring_octets {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use zeroize::Zeroizing;

    use crate::gossip::Ring;

    pub(super) fn serialize<S: Serializer>(ring: &Ring, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&ring.to_octets())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ring, D::Error> {
        let octets = Zeroizing::new(Vec::<u8>::deserialize(deserializer)?);
        Ring::from_octets(&octets).ok_or_else(|| D::Error::custom("no ring"))
    }
}

/// The third message of a joiner.
pub(super) type Certificate = Signed<NodeCertificate>;
