//! Sealed networks: inner frames that nobody on the underlay can read, forge or replay.
//!
//! ```text
//!  0      1            4               8                        16
//!  kind | VNI (24 bit) | session index | packet counter (64 bit) | AES-256-GCM(inner frame) | tag (16)
//! ```
//!
//! Integers are in network order. `kind` has the bit clear that makes a VXLAN header valid, so every VTEP of
//! RFC 7348 discards it. The nonce is four zero octets and the counter; what is authenticated besides the frame
//! is the header and the network's 128-bit id. The top octet of the counter is the sending worker's queue: no two
//! workers ever draw the same nonce, and none waits for another.
//!
//! A [`Sealer`] draws counters and seals, an [`Opener`] opens and refuses what it has seen before. Both belong to
//! the engine's snapshot and outlive it: [`Peers`] hands those that stay on to the next one.

mod header;
mod key;
mod opener;
mod peer;
mod peers;
mod sealer;
#[cfg(test)]
mod tests;
mod window;

pub use header::{BLOCK_LEN, HEADER_LEN, Header, InnerChecksum, OVERHEAD, OVERHEAD_V4, OVERHEAD_V6, TAG_LEN};
pub use key::Key;
pub use opener::{Opened, Opener, TRAIN_MAX};
pub use peer::{PeerSpec, PeerTotals, ReceiveSession, SendSession};
pub use peers::{Peer, Peers, Refusal};
pub use sealer::{QUEUES_MAX, Reserved, Sealer, Spent, WORN_AT};
pub use window::Window;
