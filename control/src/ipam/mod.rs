//! Who may hand out which address: a versioned map of ranges per subnet, and the pool that allocates from it.
//!
//! Every address of a subnet has one owner at a version. The creator of the network owns the whole subnet at
//! version 1; a transfer to version v + 1 is made by the owner at v alone, and only after it has durably stopped
//! owning. So at most one correct node can allocate an address, under any delay, loss, reordering or partition.
//! The owners follow from the set of transfers ([`outcome`]), in whatever order they are heard, and nobody can claim
//! what was not given to them. Addresses are numbers here, so that IPv4 and IPv6 are one.
//!
//! Nothing in this module touches storage: operations that promise something come in two halves (`pick` and
//! `take`, `carve` and `set_map`), and the caller makes the promise durable in between.

mod history;
mod map;
mod pool;
mod range;

pub use history::{Outcome, Transfer, outcome};
pub use map::{Claim, Held, Owner, VersionedMap};
pub use pool::{GRANT_PIECES, Pool, Space, Standing, Use, block_size};
pub use range::{Range, number};
