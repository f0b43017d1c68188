//! The root of a cluster: the key that everything else can be traced to.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{ADMIN_LIFE, AdminCertificate, Signed};
use crate::timestamp::UnixMillis;

/// Public name of a cluster: SHA-256("weft cluster 1" ‖ root public key), cut to 16 octets.
pub type ClusterId = [u8; 16];
/// What a token pins: SHA-256 of the root's public key, cut to 16 octets.
pub type RootHash = [u8; 16];

/// The cluster that this root public key is the root of.
#[must_use]
pub fn cluster_id(root: &[u8; 32]) -> ClusterId {
    cut(Sha256::new().chain_update(b"weft cluster 1").chain_update(root))
}

/// The hash of a root public key that tokens pin.
#[must_use]
pub fn root_hash(root: &[u8; 32]) -> RootHash {
    cut(Sha256::new().chain_update(root))
}

fn cut(hash: Sha256) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    first
}

/// A root's key pair, kept by the first node of the cluster.
///
/// The secret leaves memory with this value and is never printed.
pub struct Root(SigningKey);

impl Root {
    /// The root whose 32 secret octets these are.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret octets, to be stored with mode 0600.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key, 32 octets.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Makes the holder of an Ed25519 key an admin of the cluster.
    #[must_use]
    pub fn appoint(&self, key: [u8; 32], now: UnixMillis) -> Signed<AdminCertificate> {
        let cluster = cluster_id(&self.public_key());
        let certificate = AdminCertificate { cluster, key, issued: now, not_after: now.after(ADMIN_LIFE) };
        Signed::new(certificate, |octets| self.0.sign(octets).to_bytes())
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root(redacted)")
    }
}
