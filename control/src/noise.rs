//! Noise handshakes whose randomness is an argument: snow with a seeded generator instead of the operating system's.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error};

/// A builder of handshakes that draws its ephemeral keys from `seed`.
///
/// The seed is from the operating system's generator, or fixed in tests; no two handshakes may be given the same.
#[must_use]
pub fn builder<'key>(params: NoiseParams, seed: [u8; 32]) -> Builder<'key> {
    Builder::with_resolver(params, Box::new(Seeded(seed)))
}

struct Seeded([u8; 32]);

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Generator(StdRng::from_seed(self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Generator(StdRng);

impl Random for Generator {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_handshake_and_another_seed_another() {
        let first = |seed: u8| {
            let params = "Noise_NN_25519_AESGCM_SHA256".parse().expect("a pattern");
            let mut handshake = builder(params, [seed; 32]).build_initiator().expect("built");
            let mut message = [0; 64];
            let length = handshake.write_message(&[], &mut message).expect("written");
            message[..length].to_vec()
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
