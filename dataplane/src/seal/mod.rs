//! Sealed networks: what keeps inner frames from being read, forged or replayed on the underlay.

mod key;
mod peer;

pub use key::Key;
pub use peer::{PeerSpec, PeerTotals, ReceiveSession, SendSession};
