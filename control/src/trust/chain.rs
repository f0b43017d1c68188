//! A node's certificate with everything needed to trace it to the root.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    AdminCertificate, ClusterId, MAX_TOKEN_LIFE, NODE_LIFE, NodeCertificate, Revocation, Role, RootHash,
    Signature, Signed, TOLERANCE, TokenCertificate, TokenId, cluster_id, root_hash,
};
use crate::identity::{Identity, node_id};
use crate::model::{Name, NodeId};
use crate::timestamp::UnixMillis;

/// Most links between the first admin and a node.
pub const MAX_LINKS: usize = 4;

/// One step of a chain: the authority before it signed the token and the token the node, or it signed the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The token that the node joined with; none in a certificate that an admin made.
    pub token: Option<Signed<TokenCertificate>>,
    /// The node.
    pub node: Signed<NodeCertificate>,
}

/// A node's certificate, traced to the root. Every node but the last is an admin that certified the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The root's public key.
    pub root: [u8; 32],
    /// The first admin's certificate, signed by the root.
    pub admin: Signed<AdminCertificate>,
    /// 1 to [`MAX_LINKS`] links.
    pub links: Vec<Link>,
}

/// A node whose certificate was traced to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The node.
    pub id: NodeId,
    /// Its Ed25519 public key.
    pub key: [u8; 32],
    /// Its static X25519 public key.
    pub static_key: [u8; 32],
    /// Its own signature over its keys.
    pub proof: Signature,
    /// What it was called when it joined.
    pub name: Option<Name>,
    /// What it may do.
    pub role: Role,
    /// When its certificate was made.
    pub issued: UnixMillis,
    /// When its certificate ends.
    pub not_after: UnixMillis,
    /// The token that it joined with.
    pub token: Option<TokenId>,
}

/// Answers whether a node was revoked.
pub trait Revoked {
    /// The revocation of a node, if there is one.
    fn revocation(&self, node: NodeId) -> Option<&Revocation>;

    /// Whether exactly this certificate was known before whoever stands above it was revoked.
    fn held(&self, certificate: &Signed<NodeCertificate>) -> bool;
}

/// Nobody is revoked, as far as is known.
impl Revoked for () {
    fn revocation(&self, _: NodeId) -> Option<&Revocation> {
        None
    }

    fn held(&self, _: &Signed<NodeCertificate>) -> bool {
        false
    }
}

/// What a token is to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTerms {
    /// Most a node that joins with it may do.
    pub role: Role,
    /// How many nodes may join with it; 0 for any number.
    pub max_uses: u32,
    /// How long it is good; [`MAX_TOKEN_LIFE`] at most.
    pub life: Duration,
}

/// Why a chain proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another root.
    #[error("it belongs to another cluster")]
    OtherCluster,
    /// No link, or too many.
    #[error("its chain has {0} links; 1 to {MAX_LINKS} are possible")]
    Links(usize),
    /// A signature is not that of whom it should be of.
    #[error("the signature under its {0} certificate is wrong")]
    Signature(&'static str),
    /// Somebody else had it made for a key that is not theirs.
    #[error("the holder of the key that it names did not sign for it")]
    Unheld,
    /// Somebody certified more than they may.
    #[error("its certificate was made by somebody who may not")]
    Overreach,
    /// It has ended.
    #[error("its {what} certificate ended at {}; it is {} here", .not_after.to_seconds_text(), .now.to_seconds_text())]
    Expired {
        /// Which certificate.
        what: &'static str,
        /// When it ended.
        not_after: UnixMillis,
        /// The time here.
        now: UnixMillis,
    },
    /// It is from the future: a clock is wrong.
    #[error(
        "its certificate was made at {}, but it is {} here: one of the clocks is wrong",
        .issued.to_seconds_text(), .now.to_seconds_text()
    )]
    Early {
        /// When it was made, by its maker's clock.
        issued: UnixMillis,
        /// The time here.
        now: UnixMillis,
    },
    /// The token that it was made with was taken back, or used up.
    #[error("its join token had been taken back or used up")]
    Closed,
    /// The node was revoked.
    #[error("{0}")]
    Revoked(String),
}

impl Chain {
    /// The chain of the cluster's first admin itself: its node certificate is its own.
    #[must_use]
    pub fn of_first(root: [u8; 32], admin: Signed<AdminCertificate>, node: Signed<NodeCertificate>) -> Self {
        Self { root, admin, links: vec![Link { token: None, node }] }
    }

    /// This chain as that of an authority, with one more link under it.
    ///
    /// The first admin certifies by its admin certificate; a link for its own node is left out.
    #[must_use]
    pub fn extended(&self, link: Link) -> Self {
        let own = self.links.len() == 1 && self.links[0].node.statement.key == self.admin.statement.key;
        let mut links = if own { Vec::new() } else { self.links.clone() };
        links.push(link);
        Self { root: self.root, admin: self.admin.clone(), links }
    }

    /// Has `admin`, whose own chain this is, let holders of the token `key` join.
    #[must_use]
    pub fn certify_token(
        &self,
        admin: &Identity,
        key: [u8; 32],
        terms: TokenTerms,
        now: UnixMillis,
    ) -> Signed<TokenCertificate> {
        let TokenTerms { role, max_uses, life } = terms;
        let certificate = TokenCertificate {
            cluster: self.cluster(),
            key,
            role,
            max_uses,
            issued: now,
            not_after: now.after(life.min(MAX_TOKEN_LIFE)),
        };
        Signed::new(certificate, |octets| admin.sign(octets))
    }

    /// Has `admin`, whose own chain this is, certify a node anew; the chain of the node.
    #[must_use]
    pub fn certify_again(&self, admin: &Identity, node: &Verified, now: UnixMillis) -> Self {
        let certificate = NodeCertificate {
            cluster: self.cluster(),
            key: node.key,
            static_key: node.static_key,
            proof: node.proof,
            name: node.name.clone(),
            role: node.role,
            issued: now,
            not_after: now.after(NODE_LIFE),
            token: node.token,
        };
        self.extended(Link { token: None, node: Signed::new(certificate, |octets| admin.sign(octets)) })
    }

    /// Certificates in it that rest on this node's signature.
    pub(super) fn certified_by(&self, node: NodeId) -> impl Iterator<Item = &Signed<NodeCertificate>> {
        let makers = self.links.iter().map(|link| link.node.statement.id());
        let makers = [node_id(&self.admin.statement.key)].into_iter().chain(makers);
        makers.zip(&self.links).filter(move |(maker, _)| *maker == node).map(|(_, link)| &link.node)
    }

    /// Whether a certificate in it rests on this node's signature.
    pub(super) fn is_certified_by(&self, node: NodeId) -> bool {
        self.certified_by(node).next().is_some()
    }

    /// Whether the admin that made it a node is this one.
    #[must_use]
    pub fn rests_on(&self, admin: NodeId) -> bool {
        self.certified_by(admin).any(|node| Some(&node.statement) == self.subject())
    }

    /// The cluster it speaks of, verified or not.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        cluster_id(&self.root)
    }

    /// The node it is of, verified or not.
    #[must_use]
    pub fn subject(&self) -> Option<&NodeCertificate> {
        self.links.last().map(|link| &link.node.statement)
    }

    /// Follows every signature to the root that `pinned` is the hash of.
    ///
    /// `now` is the wall clock. An authority that was revoked still counts for what it certified before, as far as that
    /// was known before.
    ///
    /// # Errors
    /// The first reason found why the chain proves nothing.
    pub fn verify(
        &self,
        pinned: &RootHash,
        now: UnixMillis,
        revoked: &impl Revoked,
    ) -> Result<Verified, ChainError> {
        if root_hash(&self.root) != *pinned {
            return Err(ChainError::OtherCluster);
        }
        let cluster = cluster_id(&self.root);
        let admin = &self.admin.statement;
        if admin.cluster != cluster || !self.admin.is_by(&self.root) {
            return Err(ChainError::Signature("admin"));
        }
        current("admin", admin.issued, admin.not_after, now)?;
        if self.links.is_empty() || self.links.len() > MAX_LINKS {
            return Err(ChainError::Links(self.links.len()));
        }
        let mut authority = Authority { key: admin.key, until: admin.not_after };
        for link in &self.links {
            authority = link.verify(&cluster, &authority, revoked)?;
        }
        self.last(now, revoked)
    }

    fn last(&self, now: UnixMillis, revoked: &impl Revoked) -> Result<Verified, ChainError> {
        let (last, before) = self.links.split_last().ok_or(ChainError::Links(0))?;
        if before.iter().any(|link| link.node.statement.role != Role::Admin) {
            return Err(ChainError::Overreach);
        }
        let node = &last.node.statement;
        let id = node.id();
        if let Some(revocation) = revoked.revocation(id) {
            return Err(ChainError::Revoked(revocation.words()));
        }
        if node.not_after > node.issued.after(NODE_LIFE) {
            return Err(ChainError::Overreach);
        }
        current("node", node.issued, node.not_after, now)?;
        Ok(Verified {
            id,
            key: node.key,
            static_key: node.static_key,
            proof: node.proof,
            name: node.name.clone(),
            role: node.role,
            issued: node.issued,
            not_after: node.not_after,
            token: node.token,
        })
    }
}

/// Whoever signs next.
struct Authority {
    key: [u8; 32],
    until: UnixMillis,
}

impl Authority {
    /// Whether it could sign at that time.
    fn stood(&self, at: UnixMillis, for_whom: &Link, revoked: &impl Revoked) -> Result<(), ChainError> {
        if at > self.until.after(TOLERANCE) {
            return Err(ChainError::Overreach);
        }
        let Some(revocation) = revoked.revocation(node_id(&self.key)) else { return Ok(()) };
        let node = &for_whom.node;
        let dated = at <= revocation.at();
        // What a revoked admin signs can be dated back.
        if dated && (revocation.spares(&node.digest()) || revoked.held(node)) {
            return Ok(());
        }
        let unknown = if dated { ", and this certificate was not known here before" } else { "" };
        let words = revocation.words();
        Err(ChainError::Revoked(format!("the admin that certified it was {words}{unknown}")))
    }
}

impl Link {
    /// Verifies one link under `above` and gives the authority that its node may be.
    fn verify(
        &self,
        cluster: &ClusterId,
        above: &Authority,
        revoked: &impl Revoked,
    ) -> Result<Authority, ChainError> {
        let node = &self.node.statement;
        let signer = match &self.token {
            None => {
                above.stood(node.issued, self, revoked)?;
                above.key
            }
            Some(token) => {
                if token.statement.cluster != *cluster || !token.is_by(&above.key) {
                    return Err(ChainError::Signature("token"));
                }
                above.stood(token.statement.issued, self, revoked)?;
                within(&token.statement, node)?;
                token.statement.key
            }
        };
        if node.cluster != *cluster || !self.node.is_by(&signer) {
            return Err(ChainError::Signature("node"));
        }
        if !node.is_held() {
            return Err(ChainError::Unheld);
        }
        Ok(Authority { key: node.key, until: node.not_after })
    }
}

/// Whether a token allows what the node certificate says.
fn within(token: &TokenCertificate, node: &NodeCertificate) -> Result<(), ChainError> {
    let early = node.issued.after(TOLERANCE) < token.issued;
    let late = node.issued > token.not_after.after(TOLERANCE);
    let long = token.not_after > token.issued.after(MAX_TOKEN_LIFE);
    if early || late || long || node.role > token.role || node.token != Some(token.id()) {
        return Err(ChainError::Overreach);
    }
    Ok(())
}

fn current(
    what: &'static str,
    issued: UnixMillis,
    not_after: UnixMillis,
    now: UnixMillis,
) -> Result<(), ChainError> {
    if issued > now.after(TOLERANCE) {
        return Err(ChainError::Early { issued, now });
    }
    if now > not_after.after(TOLERANCE) {
        return Err(ChainError::Expired { what, not_after, now });
    }
    Ok(())
}
