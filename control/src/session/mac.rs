//! Cheap proofs that come before any curve operation: mac1 (knows our key), mac2 (owns its address).
//!
//! HMAC-SHA256 cut to 16 octets throughout.
//! mac1 key = SHA-256("weft session mac 1" ‖ cluster id ‖ receiver's static public key); it covers all before it.
//! cookie = HMAC(secret of at most 2 min, address ‖ port); mac2 is keyed by the cookie and covers all before it.
//! A cookie travels sealed by AES-256-GCM with key HKDF(receiver's static public key, salt = nonce (16),
//! info "weft session cookie 1"), GCM nonce 0, AAD = the initiation's mac1.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::wire::TAG;
use crate::ratchet::Ratchet;

/// A cookie is good for so long at its holder, and its secret for so long at its maker.
pub(crate) const COOKIE_AGE: Duration = Duration::from_secs(120);

/// Key of mac1 of messages to the holder of `static_public`.
pub(crate) fn mac1_key(cluster_id: &[u8; 16], static_public: &[u8; 32]) -> [u8; 32] {
    let hash = Sha256::new().chain_update(b"weft session mac 1").chain_update(cluster_id);
    hash.chain_update(static_public).finalize().into()
}

/// First 16 octets of HMAC-SHA256.
pub(crate) fn mac(key: &[u8], message: &[u8]) -> [u8; TAG] {
    let whole = hmac(key, message).finalize().into_bytes();
    std::array::from_fn(|at| whole[at])
}

/// Whether `tag` is [`mac`] of `message`, in constant time.
pub(crate) fn holds(key: &[u8], message: &[u8], tag: &[u8]) -> bool {
    tag.len() == TAG && hmac(key, message).verify_truncated_left(tag).is_ok()
}

fn hmac(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hkdf::hmac::KeyInit>::new_from_slice(key)
        .expect("HMAC takes a key of any length")
        .chain_update(message)
}

/// Appends mac1 and the place of mac2, which stays zero without a cookie.
pub(crate) fn append_macs(datagram: &mut Vec<u8>, key: &[u8; 32], cookie: Option<&[u8; TAG]>) {
    datagram.extend_from_slice(&mac(key, datagram));
    let mac2 = cookie.map_or([0; TAG], |cookie| mac(cookie, datagram));
    datagram.extend_from_slice(&mac2);
}

/// Makes cookies, without memory of whom it made them for.
#[derive(Debug)]
pub(crate) struct Jar {
    secret: Zeroizing<[u8; 32]>,
    since: Instant,
}

impl Jar {
    pub(crate) fn new(now: Instant, ratchet: &mut Ratchet) -> Self {
        Self { secret: ratchet.draw(), since: now }
    }

    /// The cookie of an address.
    pub(crate) fn cookie(&mut self, now: Instant, from: SocketAddr, ratchet: &mut Ratchet) -> [u8; TAG] {
        if now.saturating_duration_since(self.since) >= COOKIE_AGE {
            *self = Self::new(now, ratchet);
        }
        let port = from.port().to_be_bytes();
        match from.ip() {
            IpAddr::V4(ip) => mac(&*self.secret, &[&ip.octets()[..], &port].concat()),
            IpAddr::V6(ip) => mac(&*self.secret, &[&ip.octets()[..], &port].concat()),
        }
    }
}

/// Seals `cookie` for whoever sent the initiation with this mac1. `nonce` is never used twice.
pub(crate) fn seal_cookie(
    static_public: &[u8; 32],
    nonce: &[u8; TAG],
    mac1: &[u8],
    cookie: [u8; TAG],
) -> [u8; 2 * TAG] {
    let mut sealed = [0; 2 * TAG];
    let (body, tag) = sealed.split_at_mut(TAG);
    body.copy_from_slice(&cookie);
    let made = cookie_cipher(static_public, nonce)
        .encrypt_inout_detached(&Nonce::default(), mac1, body.into())
        .expect("16 octets is below AES-GCM's 64 GiB");
    tag.copy_from_slice(&made);
    sealed
}

/// Opens what [`seal_cookie`] made.
pub(crate) fn open_cookie(
    static_public: &[u8; 32],
    nonce: &[u8; TAG],
    mac1: &[u8],
    sealed: &[u8],
) -> Option<[u8; TAG]> {
    let (body, tag) = sealed.split_at_checked(TAG)?;
    let mut cookie: [u8; TAG] = body.try_into().ok()?;
    let tag = Tag::try_from(tag).ok()?;
    cookie_cipher(static_public, nonce)
        .decrypt_inout_detached(&Nonce::default(), mac1, (&mut cookie[..]).into(), &tag)
        .ok()?;
    Some(cookie)
}

fn cookie_cipher(static_public: &[u8; 32], nonce: &[u8; TAG]) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(nonce), static_public)
        .expand(b"weft session cookie 1", &mut *key)
        .expect("32 octets is a length HKDF can give");
    Aes256Gcm::new((&*key).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_of_one_address_and_goes_stale() {
        let now = crate::gossip::testing::start();
        let mut ratchet = Ratchet::new(Zeroizing::new([1; 32]));
        let mut jar = Jar::new(now, &mut ratchet);
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let cookie = jar.cookie(now, address(1), &mut ratchet);
        let soon = now + COOKIE_AGE / 2;
        assert_eq!(jar.cookie(soon, address(1), &mut ratchet), cookie);
        assert_ne!(jar.cookie(soon, address(2), &mut ratchet), cookie);
        assert_ne!(jar.cookie(now + COOKIE_AGE, address(1), &mut ratchet), cookie);
    }

    #[test]
    fn cookie_opens_only_for_the_initiation_it_answers() {
        let sealed = seal_cookie(&[1; 32], &[2; 16], &[3; 16], [4; 16]);
        assert_eq!(open_cookie(&[1; 32], &[2; 16], &[3; 16], &sealed), Some([4; 16]));
        assert_eq!(open_cookie(&[1; 32], &[2; 16], &[9; 16], &sealed), None);
        assert_eq!(open_cookie(&[9; 32], &[2; 16], &[3; 16], &sealed), None);
        assert_eq!(open_cookie(&[1; 32], &[9; 16], &[3; 16], &sealed), None);
    }
}
