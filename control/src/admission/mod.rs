//! Letting nodes in: the exchange by which a token becomes a membership, and a membership is kept up.
//!
//! ```text
//! joiner                                                     member (any)
//!   ── e ─────────────────────────────────────────────────▶   nothing but a fresh key
//!   ◀───────────────── e, ee, s, es, Hello{chain, clock} ──   the member proves itself to the pinned root first
//!   ── s, se, Request{clock, Join | Ring | Renew} ────────▶   a token is proved by a signature over the handshake
//!   ◀──────────────────────────── Terms{token certificate} ─  (Join) what the token allows
//!   ── node certificate, signed with the token's key ─────▶   (Join)
//!   ◀──────────────────────────────── Welcome | Refused ───   gossip keys, revocations, addresses of members
//! ```
//! `Noise_XX_25519_AESGCM_SHA256`; the static keys are those that certificates name. Each message is preceded by its
//! length (16 bit, network order), the first one by the octet [`FIRST_OCTET`], which no gossip stream begins with.
//! The token's secret never crosses the wire; whoever stands between learns and gains nothing.
//!
//! [`Initiator`] and [`Responder`] do no IO: messages, the wall clock and a seed are arguments.

mod initiator;
mod message;
mod responder;
#[cfg(test)]
mod tests;

pub use self::initiator::{Errand, Initiator, Outcome, Step};
pub use self::message::{Answer, Question, Refusal, Terms, Welcome};
pub use self::responder::{Presented, Responder};

/// Begins every connection of this kind; gossip streams begin with zero.
pub const FIRST_OCTET: u8 = 0x57;
/// Longest message, octets (the Noise protocol framework §3).
pub const MAX_MESSAGE: usize = 65_535;
/// Longest message of somebody who has not proved anything, octets.
pub const MAX_STRANGER: usize = 8_192;

const PATTERN: &str = "Noise_XX_25519_AESGCM_SHA256";
const PROLOGUE: &[u8] = b"weft admission 1";
/// What AES-GCM adds to a message, octets.
const TAG: usize = 16;

/// The exchange came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The other side does not speak this protocol, or somebody altered a message.
    #[error("what came is no answer of a weft node, or was altered on the way")]
    Garbled,
    /// The other side is no member of the cluster that the token or the certificate is of.
    #[error("the node there belongs to another cluster")]
    OtherCluster,
    /// The other side's certificate proves nothing.
    #[error("the node there cannot prove that it is a member: {0}")]
    Unproved(crate::trust::ChainError),
    /// The clocks differ too much to tell what is still good.
    #[error(
        "the clocks differ: it is {} here and {} there; set this host's clock (or theirs) and try again",
        .here.to_seconds_text(), .there.to_seconds_text()
    )]
    Clock {
        /// This side's time.
        here: crate::timestamp::UnixMillis,
        /// The other side's.
        there: crate::timestamp::UnixMillis,
    },
    /// The other side said no.
    #[error("{0}")]
    Refused(Refusal),
}

impl From<snow::Error> for AdmissionError {
    fn from(_: snow::Error) -> Self {
        Self::Garbled
    }
}
