//! Taking a node out of the cluster for good.

use serde::{Deserialize, Serialize};

use super::papers::{REVOCATION_ROW, row};
use super::{Chain, ChainError, ClusterId, Digest, Role, RootHash, Signed, Statement};
use crate::identity::{Identity, node_id};
use crate::model::{Name, NodeId};
use crate::storage::Write;
use crate::timestamp::UnixMillis;

/// Longest reason, octets.
pub const MAX_REASON: usize = 200;
/// Most that a revocation lists of what the revoked node signed.
pub const MAX_SPARED: usize = 64;

/// What an admin signs to revoke a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationStatement {
    /// The root's cluster.
    pub cluster: ClusterId,
    /// Who is revoked.
    pub node: NodeId,
    /// What it was called.
    pub name: Option<Name>,
    /// Why, for people, at most [`MAX_REASON`] octets.
    pub reason: String,
    /// When, by the admin's clock.
    pub at: UnixMillis,
    /// The admin's Ed25519 public key.
    pub by: [u8; 32],
    /// What the revoked node had signed by then and stands: digests of node certificates and of revocations, at most
    /// [`MAX_SPARED`]. Everything else that it signs counts only where it was known before, for it can be dated back.
    pub spared: Vec<Digest>,
}

impl Statement for RevocationStatement {
    const LABEL: &'static [u8] = b"weft revocation 1";
}

/// A revocation with its admin's chain, so that it stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    signed: Signed<RevocationStatement>,
    chain: Chain,
}

impl Revocation {
    /// Revokes `node` in the name of `admin`, whose chain this is. A reason is cut to [`MAX_REASON`] octets.
    #[must_use]
    pub fn new(
        admin: &Identity,
        chain: Chain,
        node: NodeId,
        name: Option<Name>,
        reason: &str,
        at: UnixMillis,
    ) -> Self {
        Self::sparing(admin, chain, node, name, (reason, &[]), at)
    }

    /// As [`Revocation::new`], with what the revoked node signed and stands; at most [`MAX_SPARED`] are taken.
    #[must_use]
    pub fn sparing(
        admin: &Identity,
        chain: Chain,
        node: NodeId,
        name: Option<Name>,
        (reason, spared): (&str, &[Digest]),
        at: UnixMillis,
    ) -> Self {
        let spared = spared.iter().take(MAX_SPARED).copied().collect();
        let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
        let reason = reason[..end.unwrap_or_default()].to_owned();
        let (cluster, by) = (chain.cluster(), admin.public_key());
        let statement = RevocationStatement { cluster, node, name, reason, at, by, spared };
        Self { signed: Signed::new(statement, |octets| admin.sign(octets)), chain }
    }

    /// Whether an admin of the cluster signed it.
    ///
    /// # Errors
    /// Why it counts for nothing.
    pub fn verify(&self, pinned: &RootHash) -> Result<(), ChainError> {
        let statement = &self.signed.statement;
        // An admin's certificate ends; what it revoked stays revoked.
        let admin = self.chain.verify(pinned, statement.at, &())?;
        if admin.role != Role::Admin || admin.key != statement.by || statement.cluster != self.chain.cluster()
        {
            return Err(ChainError::Overreach);
        }
        let sized = statement.reason.len() <= MAX_REASON && statement.spared.len() <= MAX_SPARED;
        if !self.signed.is_by(&admin.key) || !sized {
            return Err(ChainError::Signature("revocation"));
        }
        Ok(())
    }

    /// What names it exactly.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.signed.digest()
    }

    /// Whether something that the revoked node signed stands.
    #[must_use]
    pub fn spares(&self, signed: &Digest) -> bool {
        self.signed.statement.spared.contains(signed)
    }

    /// The row that everybody keeps it in.
    #[must_use]
    pub fn row(&self) -> Write {
        row(REVOCATION_ROW, &self.node().0, self)
    }

    /// Who is revoked.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.signed.statement.node
    }

    /// When.
    #[must_use]
    pub fn at(&self) -> UnixMillis {
        self.signed.statement.at
    }

    /// What the node was called.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.signed.statement.name.as_ref()
    }

    /// Why; may be empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.signed.statement.reason
    }

    /// Whether the admin with this Ed25519 public key made it.
    #[must_use]
    pub fn is_by(&self, admin: &[u8; 32]) -> bool {
        self.signed.statement.by == *admin
    }

    /// The admin that made it.
    #[must_use]
    pub fn maker(&self) -> NodeId {
        node_id(&self.signed.statement.by)
    }

    /// Who revoked it: the admin's name if it has one, else its id.
    #[must_use]
    pub fn by(&self) -> String {
        let name = self.chain.subject().and_then(|admin| admin.name.as_ref());
        name.map_or_else(|| node_id(&self.signed.statement.by).short(), ToString::to_string)
    }

    /// Who revoked it, when and why, in a sentence without an end.
    #[must_use]
    pub fn words(&self) -> String {
        let reason = self.reason();
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("revoked by {} at {}{why}", self.by(), self.at().to_seconds_text())
    }
}
