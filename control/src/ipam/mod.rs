//! Who may hand out which address: a versioned map of ranges per subnet, and the pool that allocates from it.
//!
//! Every address of a subnet has one owner at a version. The creator of the network owns the whole subnet at
//! version 1; an entry at version v + 1 is made by the owner at v alone, and only after it has durably stopped
//! owning. So at most one correct node can allocate an address, under any delay, loss, reordering or partition,
//! and views merge by the highest version in any order. Addresses are numbers here, so that IPv4 and IPv6 are one.
//!
//! Nothing in this module touches storage: operations that promise something come in two halves (`pick` and
//! `take`, `carve` and `merge`), and the caller makes the promise durable in between.

mod map;
mod pool;
mod range;

pub use map::{Claim, Held, Owner, VersionedMap};
pub use pool::{Pool, Space, Standing, Use, block_size};
pub use range::{Range, RangeSet, number};
