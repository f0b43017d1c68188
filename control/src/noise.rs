//! Noise handshakes whose randomness is an argument, and whose keys leave memory with them.
//!
//! `snow` brings the protocol and the hash. Its own X25519 and AES-GCM would leave keys in freed memory and accept
//! public keys of small order; these do not. What `snow` itself keeps (chaining key, preshared key) it does not
//! wipe: owners of a handshake overwrite it with [`blank`] if that matters.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const TAG: usize = 16;

/// A builder of handshakes that draws its ephemeral keys from `seed`.
///
/// The seed is from the operating system's generator, or fixed in tests; no two handshakes may be given the same.
#[must_use]
pub fn builder<'key>(params: NoiseParams, seed: [u8; 32]) -> Builder<'key> {
    Builder::with_resolver(params, Box::new(Resolver(Zeroizing::new(seed))))
}

/// Overwrites a handshake that is over, and with it the secrets that `snow` would leave in memory.
pub fn blank(handshake: &mut HandshakeState) {
    let empty =
        "Noise_NN_25519_AESGCM_SHA256".parse().and_then(|params| builder(params, [0; 32]).build_initiator());
    if let Ok(empty) = empty {
        *handshake = empty;
        std::hint::black_box(handshake);
    }
}

/// Resolver of one handshake; its randomness is all in the seed.
struct Resolver(Zeroizing<[u8; 32]>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Generator(StdRng::from_seed(*self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::<Aes>::default() as Box<dyn Cipher>)
    }
}

struct Generator(StdRng);

impl Random for Generator {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl X25519 {
    fn derive(&mut self) {
        self.public = PublicKey::from(&StaticSecret::from(*self.secret)).to_bytes();
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let length = privkey.len().min(32);
        self.secret[..length].copy_from_slice(&privkey[..length]);
        self.derive();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        rng.try_fill_bytes(&mut *self.secret)?;
        self.derive();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    /// `pubkey` may be longer than a key: the caller's buffers are sized for every curve.
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let theirs: [u8; 32] = pubkey.get(..32).and_then(|key| key.try_into().ok()).ok_or(Error::Dh)?;
        let shared = StaticSecret::from(*self.secret).diffie_hellman(&PublicKey::from(theirs));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[derive(Default)]
struct Aes {
    key: Zeroizing<[u8; 32]>,
}

impl Aes {
    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.key).into())
    }
}

impl Cipher for Aes {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        *self.key = *key;
    }

    /// `out` holds at least `plaintext` and a tag, as the trait's callers see to.
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, tag) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let made = self
            .cipher()
            .encrypt_inout_detached(&noise_nonce(nonce), authtext, body.into())
            .expect("a handshake message is far below AES-GCM's 64 GiB");
        tag[..TAG].copy_from_slice(&made);
        plaintext.len() + TAG
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let length = ciphertext.len().checked_sub(TAG).ok_or(Error::Decrypt)?;
        let (sealed, tag) = ciphertext.split_at(length);
        let tag = Tag::try_from(tag).map_err(|_| Error::Decrypt)?;
        let body = out.get_mut(..length).ok_or(Error::Decrypt)?;
        body.copy_from_slice(sealed);
        self.cipher()
            .decrypt_inout_detached(&noise_nonce(nonce), authtext, body.into(), &tag)
            .map_err(|_| Error::Decrypt)?;
        Ok(length)
    }
}

fn noise_nonce(counter: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
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

    #[test]
    fn public_keys_of_small_order_are_refused() {
        let mut ours = X25519::default();
        ours.set(&[7; 32]);
        let mut out = [0; 32];
        assert!(ours.dh(&[0; 32], &mut out).is_err());
        assert!(ours.dh(&[9; 31], &mut out).is_err());
        assert!(ours.dh(&[9; 56], &mut out).is_ok());
    }

    /// The library's own primitives are the oracle.
    #[test]
    fn handshake_with_the_librarys_own_primitives_succeeds() {
        let pattern = || "Noise_IKpsk2_25519_AESGCM_SHA256".parse::<NoiseParams>().expect("a pattern");
        let (ours, theirs) = ([1; 32], [2; 32]);
        let public = |secret: [u8; 32]| PublicKey::from(&StaticSecret::from(secret)).to_bytes();
        let their_public = public(theirs);
        let mut one = builder(pattern(), [3; 32])
            .local_private_key(&ours)
            .and_then(|builder| builder.remote_public_key(&their_public))
            .and_then(|builder| builder.psk(2, &[4; 32]))
            .and_then(Builder::build_initiator)
            .expect("an initiator");
        let mut other = Builder::with_resolver(pattern(), Box::new(Foreign))
            .local_private_key(&theirs)
            .and_then(|builder| builder.psk(2, &[4; 32]))
            .and_then(Builder::build_responder)
            .expect("a responder");
        let (mut wire, mut payload) = ([0; 300], [0; 300]);
        let sent = one.write_message(b"hello", &mut wire).expect("written");
        let got = other.read_message(&wire[..sent], &mut payload).expect("read");
        assert_eq!(&payload[..got], b"hello");
        let sent = other.write_message(b"answer", &mut wire).expect("written");
        let got = one.read_message(&wire[..sent], &mut payload).expect("read");
        assert_eq!(&payload[..got], b"answer");
        assert_eq!(one.dangerously_get_raw_split(), other.dangerously_get_raw_split());
        assert_eq!(other.get_remote_static(), Some(&public(ours)[..]));
    }

    /// The default resolver, which has no generator of its own here.
    struct Foreign;

    impl CryptoResolver for Foreign {
        fn resolve_rng(&self) -> Option<Box<dyn Random>> {
            Some(Box::new(Generator(StdRng::from_seed([5; 32]))))
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
}
