//! What the fuzzer feeds, and the tests replay: octets of strangers and of bad members into the code that must bear
//! them. A function returns, whatever the octets; what it asserts is what nobody may bring about.

use std::time::Instant;

use crate::admission::{Answer, Terms};
use crate::timestamp::UnixMillis;
use crate::trust::{Chain, Token};

pub use crate::gossip::fuzzing::{framing, message as gossip};
pub use crate::names::fuzzing::{query, reply};
pub use crate::session::fuzzing::handshake;
pub use weft_dataplane::fuzzing::sealed_datagram;

/// A target: its name and body.
pub type Target = (&'static str, fn(Instant, &[u8]));

/// Every target; each has its seeds in `fuzz/corpus/NAME`.
pub const TARGETS: [Target; 7] = [
    ("sealed_datagram", |_, input| sealed_datagram(input)),
    ("handshake", handshake),
    ("admission", |_, input| admission(input)),
    ("gossip", gossip),
    ("framing", framing),
    ("dns_query", |_, input| query(input)),
    ("dns_reply", |_, input| reply(input)),
];

/// Octets as a join token's text, as a chain of certificates, and as what is said at admission.
pub fn admission(input: &[u8]) {
    if let Ok(token) = std::str::from_utf8(input).unwrap_or_default().parse::<Token>() {
        let text = token.to_text();
        let again = text.parse::<Token>();
        assert!(again.is_ok_and(|again| again == token), "what is read is written the same");
    }
    if let Ok(chain) = postcard::from_bytes::<Chain>(input) {
        let verified = chain.verify(&[0; 16], UnixMillis(0), &());
        assert!(verified.is_err(), "made up out of nothing");
    }
    let _ = postcard::from_bytes::<Answer>(input);
    let _ = postcard::from_bytes::<Terms>(input);
}
