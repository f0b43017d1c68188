//! The two messages of `Noise_IKpsk2_25519_AESGCM_SHA256`, and the keys that come out of them.
//!
//! Prologue = "weft session 1" ‖ cluster id (16) ‖ the initiation's clear header (12). The static keys of both
//! ends are bound by the pattern, their node ids by the preshared key:
//! psk = HKDF-SHA256(ring root of the epoch; info = "weft pair psk 1" ‖ cluster id ‖ lower id ‖ higher id).
//!
//! Out of the split (k1, k2) and the handshake hash h:
//! prk = HKDF-Extract(salt = h, k1 ‖ k2); data keys = Expand("weft data i2r 1") and Expand("weft data r2i 1"),
//! confirmation key = Expand("weft confirm 1"); 32 octets each.

use hkdf::Hkdf;
use sha2::Sha256;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::wire::{Answer, HEADER, Hello, INITIATION, INITIATION_HEADER, RESPONSE, TAG};
use crate::model::NodeId;
use crate::noise;
use weft_dataplane::seal::Key;

const PATTERN: &str = "Noise_IKpsk2_25519_AESGCM_SHA256";

/// The other end's message is not authentic, or its keys are of small order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("handshake message is not authentic")]
pub(crate) struct Unauthentic;

impl From<snow::Error> for Unauthentic {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// Our half of every handshake.
pub(crate) struct Local {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) us: NodeId,
    pub(crate) secret: Zeroizing<[u8; 32]>,
}

/// Secrets of a finished handshake.
pub(crate) struct Secrets {
    pub(crate) send: Key,
    pub(crate) receive: Key,
    pub(crate) confirm: Zeroizing<[u8; 32]>,
}

impl Local {
    /// Preshared key with `peer` under one epoch's root.
    pub(crate) fn psk(&self, root: &[u8; 32], peer: NodeId) -> Zeroizing<[u8; 32]> {
        let (low, high) = (self.us.min(peer), self.us.max(peer));
        let mut psk = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, root)
            .expand_multi_info(&[b"weft pair psk 1", &self.cluster_id, &low.0, &high.0], &mut *psk)
            .expect("32 octets is a length HKDF can give");
        psk
    }

    fn prologue(&self, header: &[u8]) -> Vec<u8> {
        [b"weft session 1", &self.cluster_id[..], header].concat()
    }
}

/// A handshake under way.
struct Exchange(Box<HandshakeState>);

impl Drop for Exchange {
    fn drop(&mut self) {
        noise::blank(&mut self.0);
    }
}

impl Exchange {
    fn secrets(&mut self, initiator: bool) -> Secrets {
        let split = self.0.dangerously_get_raw_split();
        let (one, two) = (Zeroizing::new(split.0), Zeroizing::new(split.1));
        let joined = Zeroizing::new([*one, *two].concat());
        let prk = Hkdf::<Sha256>::new(Some(self.0.get_handshake_hash()), &joined);
        let expand = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            prk.expand(label, &mut *key).expect("32 octets is a length HKDF can give");
            key
        };
        let (i2r, r2i) = (Key::new(*expand(b"weft data i2r 1")), Key::new(*expand(b"weft data r2i 1")));
        let confirm = expand(b"weft confirm 1");
        let (send, receive) = if initiator { (i2r, r2i) } else { (r2i, i2r) };
        Secrets { send, receive, confirm }
    }
}

/// An initiation that awaits its response.
pub(crate) struct Initiator(Exchange);

/// Starts a handshake; gives the datagram without its MACs, too.
pub(crate) fn initiate(
    local: &Local,
    peer: &[u8; 32],
    psk: &[u8; 32],
    seed: Zeroizing<[u8; 32]>,
    header: &[u8; INITIATION_HEADER],
    hello: &Hello,
) -> Result<(Initiator, Vec<u8>), Unauthentic> {
    let prologue = local.prologue(header);
    let mut state = noise::builder(PATTERN.parse()?, *seed)
        .local_private_key(&*local.secret)?
        .remote_public_key(peer)?
        .prologue(&prologue)?
        .psk(2, psk)?
        .build_initiator()
        .map(|state| Exchange(Box::new(state)))?;
    let mut datagram = vec![0; INITIATION - 2 * TAG];
    datagram[..INITIATION_HEADER].copy_from_slice(header);
    state.0.write_message(&hello.encode(), &mut datagram[INITIATION_HEADER..])?;
    Ok((Initiator(state), datagram))
}

impl Initiator {
    /// Reads the response. A forged one changes nothing: the right one may still come.
    pub(crate) fn finish(&mut self, noise: &[u8]) -> Result<(Answer, Secrets), Unauthentic> {
        let mut payload = [0; Answer::LEN];
        self.0.0.read_message(noise, &mut payload)?;
        let answer = Answer::decode(&payload).ok_or(Unauthentic)?;
        Ok((answer, self.0.secrets(true)))
    }
}

/// An authentic initiation, not answered yet.
pub(crate) struct Responder(Exchange);

/// Reads an initiation: whose static key made it, and what it says.
pub(crate) fn read(
    local: &Local,
    seed: Zeroizing<[u8; 32]>,
    header: &[u8],
    noise: &[u8],
) -> Result<(Responder, [u8; 32], Hello), Unauthentic> {
    let prologue = local.prologue(header);
    let mut state = noise::builder(PATTERN.parse()?, *seed)
        .local_private_key(&*local.secret)?
        .prologue(&prologue)?
        .build_responder()
        .map(|state| Exchange(Box::new(state)))?;
    let mut payload = [0; Hello::LEN];
    state.0.read_message(noise, &mut payload)?;
    let from = state.0.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Unauthentic)?;
    let hello = Hello::decode(&payload).ok_or(Unauthentic)?;
    Ok((Responder(state), from, hello))
}

impl Responder {
    /// Answers: the datagram without its MAC, and the keys.
    pub(crate) fn answer(
        mut self,
        psk: &[u8; 32],
        header: &[u8; HEADER],
        answer: &Answer,
    ) -> Result<(Vec<u8>, Secrets), Unauthentic> {
        self.0.0.set_psk(2, psk)?;
        let mut datagram = vec![0; RESPONSE - TAG];
        datagram[..HEADER].copy_from_slice(header);
        self.0.0.write_message(&answer.encode(), &mut datagram[HEADER..])?;
        let secrets = self.0.secrets(false);
        Ok((datagram, secrets))
    }
}

#[cfg(test)]
mod tests {
    use x25519_dalek::{PublicKey, StaticSecret};

    use super::super::wire::{initiation_header, response_header};
    use super::*;

    fn local(number: u8) -> (Local, [u8; 32]) {
        let secret = [number; 32];
        let public = PublicKey::from(&StaticSecret::from(secret)).to_bytes();
        let us = NodeId([number; 16]);
        (Local { cluster_id: [9; 16], us, secret: Zeroizing::new(secret) }, public)
    }

    fn seed(number: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([number; 32])
    }

    const HELLO: Hello = Hello { boot_epoch: 1, counter: 2, data_port: 4789, sending_on: 0 };
    const ANSWER: Answer = Answer { boot_epoch: 1, counter: 3, data_port: 4789, index: 77, sending_on: 0 };

    /// Runs a handshake where the responder holds `their_psk`.
    fn run(their_psk: &[u8; 32]) -> Result<(Secrets, Secrets), Unauthentic> {
        let ((a, a_public), (b, b_public)) = (local(1), local(2));
        let header = initiation_header(5, 6);
        let (mut initiator, datagram) = initiate(&a, &b_public, &[8; 32], seed(3), &header, &HELLO)?;
        let noise = &datagram[INITIATION_HEADER..];
        let (responder, from, hello) = read(&b, seed(4), &header, noise)?;
        assert_eq!((from, hello), (a_public, HELLO));
        let (datagram, theirs) = responder.answer(their_psk, &response_header(5), &ANSWER)?;
        let (answer, ours) = initiator.finish(&datagram[HEADER..])?;
        assert_eq!(answer, ANSWER);
        Ok((ours, theirs))
    }

    #[test]
    fn both_ends_get_the_same_keys_one_for_each_direction() {
        let (ours, theirs) = run(&[8; 32]).expect("equal preshared keys");
        assert_eq!((&ours.send, &ours.receive), (&theirs.receive, &theirs.send));
        assert_eq!(ours.confirm, theirs.confirm);
        assert_ne!(ours.send, ours.receive);
    }

    #[test]
    fn another_preshared_key_makes_the_response_unauthentic() {
        assert!(run(&[7; 32]).is_err());
    }

    #[test]
    fn clear_header_and_cluster_are_bound_to_the_initiation() {
        let ((a, _), (mut b, b_public)) = (local(1), local(2));
        let header = initiation_header(5, 6);
        let (_, datagram) = initiate(&a, &b_public, &[8; 32], seed(3), &header, &HELLO).expect("started");
        let noise = &datagram[INITIATION_HEADER..];
        assert!(read(&b, seed(4), &initiation_header(5, 7), noise).is_err());
        assert!(read(&b, seed(4), &initiation_header(4, 6), noise).is_err());
        b.cluster_id = [8; 16];
        assert!(read(&b, seed(4), &header, noise).is_err());
    }

    #[test]
    fn preshared_key_is_of_the_pair_in_either_order() {
        let ((a, _), (b, _)) = (local(1), local(2));
        assert_eq!(a.psk(&[1; 32], b.us), b.psk(&[1; 32], a.us));
        assert_ne!(a.psk(&[1; 32], b.us), a.psk(&[1; 32], NodeId([3; 16])));
        assert_ne!(a.psk(&[1; 32], b.us), a.psk(&[2; 32], b.us));
    }
}
