//! Who belongs to the cluster, and how everybody can tell: keys, certificates, join tokens, revocations.
//!
//! ```text
//! root ──signs──▶ admin certificate ──▶ token certificate ──▶ node certificate
//!  (first node)    (an admin's key)      (a token's key)       (a node's two keys, its role)
//! ```
//! A node of role admin can certify in turn, so a chain may have several such links; a renewed node certificate is
//! signed by an admin directly and needs no token. Every signature is Ed25519 over a label and the postcard encoding of
//! what is said; all of it is verified offline against the root, of which a token pins a hash.
//!
//! Times are the wall clock's, in milliseconds; clocks may differ by [`TOLERANCE`].

mod base32;
mod certificate;
mod chain;
mod papers;
mod registry;
mod revocation;
mod root;
mod signed;
#[cfg(test)]
mod tests;
mod token;

use std::time::Duration;

pub use self::certificate::{AdminCertificate, NodeCertificate, Role, TokenCertificate, UnknownRole};
pub use self::chain::{Chain, ChainError, Link, MAX_LINKS, Revoked, TokenTerms, Verified};
#[cfg(feature = "io")]
pub(crate) use self::papers::identity_row;
pub(crate) use self::papers::{
    CERTIFICATE_ROW, REVOCATION_ROW, TOKEN_ROW, chain_row, is_secret, ring_row, row,
};
pub use self::papers::{Papers, PapersError, Settings};
pub use self::registry::{KnownToken, Registry, TokenRecord, TokenRefusal};
pub use self::revocation::{MAX_REASON, MAX_SPARED, Revocation, RevocationStatement};
pub use self::root::{ClusterId, Root, RootHash, cluster_id, root_hash};
pub use self::signed::{Digest, Signature, Signed, Statement};
pub use self::token::{InvalidToken, MAX_SEEDS, Token, TokenId, TokenKey};

/// How far two clocks may be apart.
pub const TOLERANCE: Duration = Duration::from_secs(10 * 60);
/// Longest a node certificate is good.
pub const NODE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the certificate of the first admin is good: nobody but the root can make it anew.
pub const ADMIN_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Longest a token is good.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a token is good where nothing else is asked for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
