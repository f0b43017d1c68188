//! A statement and the signature under it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::identity::verify;

/// Something that is signed; the label keeps a signature on one kind from passing for one on another.
pub trait Statement: Serialize {
    /// Begins every signed message of this kind.
    const LABEL: &'static [u8];
}

/// A statement with its signature: Ed25519 over the label and the statement's postcard encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// What is said.
    pub statement: T,
    signature: Signature,
}

/// Public name of something signed: SHA-256 of label, statement and signature, cut to 16 octets.
pub type Digest = [u8; 16];

/// An Ed25519 signature in halves.
pub type Signature = [[u8; 32]; 2];

impl<T: Statement> Signed<T> {
    /// Has `statement` signed by `sign`, which is given the octets to sign.
    #[must_use]
    pub fn new(statement: T, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        let whole = sign(&octets(&statement));
        let mut signature = [[0; 32]; 2];
        signature[0].copy_from_slice(&whole[..32]);
        signature[1].copy_from_slice(&whole[32..]);
        Self { statement, signature }
    }

    /// A statement known otherwise, with its signature.
    #[must_use]
    pub fn from_parts(statement: T, signature: Signature) -> Self {
        Self { statement, signature }
    }

    /// The signature alone.
    #[must_use]
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// What names exactly this statement under exactly this signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let signed = Sha256::new().chain_update(octets(&self.statement));
        let whole = signed.chain_update(self.signature.as_flattened()).finalize();
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        digest
    }

    /// Whether the holder of `public_key` signed it.
    #[must_use]
    pub fn is_by(&self, public_key: &[u8; 32]) -> bool {
        let mut whole = [0; 64];
        whole[..32].copy_from_slice(&self.signature[0]);
        whole[32..].copy_from_slice(&self.signature[1]);
        verify(public_key, &octets(&self.statement), &whole)
    }
}

fn octets<T: Statement>(statement: &T) -> Vec<u8> {
    // A statement is plain data; encoding it into memory has no way to fail.
    postcard::to_extend(statement, T::LABEL.to_vec()).unwrap_or_default()
}
