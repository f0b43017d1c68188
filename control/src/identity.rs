//! Who a node is: an Ed25519 key pair whose public half names the node and signs what it says of itself, and a static
//! X25519 key pair that handshakes are made with.
//!
//! Both follow from one stored secret of 32 octets: the Ed25519 secret is these octets (RFC 8032), the X25519 secret
//! HKDF-SHA256 of them with the label "weft static key 1".

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::model::NodeId;

/// A node's key pairs.
///
/// The secrets leave memory with this value and are never printed.
pub struct Identity {
    signing: SigningKey,
    agreeing: StaticSecret,
    id: NodeId,
}

impl Identity {
    /// The identity whose 32 secret octets these are; new ones come from the operating system's generator.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(secret);
        let id = node_id(signing.verifying_key().as_bytes());
        let mut agreeing = Zeroizing::new([0; 32]);
        // 32 octets are far below the limit of HKDF-SHA256.
        let _ = Hkdf::<Sha256>::new(None, secret).expand(b"weft static key 1", &mut *agreeing);
        Self { signing, agreeing: StaticSecret::from(*agreeing), id }
    }

    /// The secret octets, to be stored with mode 0600.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The name that the public key gives this node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// The public key, 32 octets.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The secret half of the X25519 key that handshakes are made with, 32 octets.
    #[must_use]
    pub fn static_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.agreeing.to_bytes())
    }

    /// The public half of the X25519 key that handshakes are made with, 32 octets.
    #[must_use]
    pub fn static_public(&self) -> [u8; 32] {
        PublicKey::from(&self.agreeing).to_bytes()
    }

    /// Signs `message` (RFC 8032 Ed25519, deterministic).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The node that holds `public_key`: the first 16 octets of its SHA-256.
#[must_use]
pub fn node_id(public_key: &[u8; 32]) -> NodeId {
    let hash = Sha256::digest(public_key);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    NodeId(id)
}

/// Whether `signature` over `message` was made by the holder of `public_key`.
///
/// Strict: small-order keys and malleable signatures are refused, so that a signature names one message and one key.
#[must_use]
pub fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_holds_for_one_message_and_one_key_only() {
        let (ours, other) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
        let signature = ours.sign(b"yes");
        assert!(verify(&ours.public_key(), b"yes", &signature));
        assert!(!verify(&ours.public_key(), b"no", &signature));
        assert!(!verify(&other.public_key(), b"yes", &signature));
        assert!(!verify(&[0; 32], b"yes", &signature), "a key of small order");
    }

    #[test]
    fn secret_survives_a_round_trip_and_stays_out_of_debug_output() {
        let identity = Identity::from_secret(&[7; 32]);
        assert_eq!(Identity::from_secret(&identity.secret()).node_id(), identity.node_id());
        assert!(!format!("{identity:?}").contains("7, 7"));
        assert_eq!(
            Identity::from_secret(&identity.secret()).static_public(),
            identity.static_public(),
            "the same key for handshakes"
        );
        assert_ne!(*identity.static_secret(), [7; 32], "two keys never share their octets");
        assert_eq!(identity.node_id(), node_id(&identity.public_key()));
    }
}
