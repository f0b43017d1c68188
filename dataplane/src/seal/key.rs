//! Session keys: they leave memory with their owner and are never shown.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use zeroize::ZeroizeOnDrop;

/// An AES-256 key, 32 octets.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Key([u8; Self::LEN]);

impl Key {
    /// Octets of a key.
    pub const LEN: usize = 32;

    /// Takes the octets of a key; they should be wiped wherever else they are.
    #[must_use]
    pub fn new(octets: [u8; Self::LEN]) -> Self {
        Self(octets)
    }

    /// A digest of the key as that of session `index`, which tells nothing of it.
    pub(super) fn fingerprint(&self, index: u32) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = Context::new(&SHA256);
        context.update(&index.to_be_bytes());
        context.update(&self.0);
        let mut octets = [0; SHA256_OUTPUT_LEN];
        octets.copy_from_slice(context.finish().as_ref());
        octets
    }

    /// The key schedule; `None` where the library has no memory for it.
    pub(super) fn expand(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, &self.0).ok().map(LessSafeKey::new)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_equals_itself_and_is_not_shown() {
        let key = Key::new([0xab; Key::LEN]);
        assert_eq!(key, key.clone());
        assert_ne!(key, Key::new([0xac; Key::LEN]));
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
