//! Names of sandboxes: what a question in a sandbox is answered with, and the files its resolver reads.
//!
//! [`answer()`] judges a DNS query (RFC 1035) by what is known: names of the networks its asker is in are answered here,
//! names outside are for the servers of the host, and what no honest resolver sends is refused or dropped. Nothing here
//! reads a clock or a socket.

mod answer;
mod files;
pub mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod pace;
mod query;
#[cfg(test)]
mod tests;
mod view;
mod wishes;

pub use answer::{Decision, Outcome, answer};
pub use files::{Files, HostResolver, SERVER, hosts, resolv_conf};
pub use pace::Pace;
pub use query::{Asked, MAX_QUERY, Transport};
pub use view::{Asker, Named, Outside, View, Zone};
pub use wishes::{WishError, Wishes};
