//! Drivers: each turns what networks want on this node into a [`Plan`].

use crate::model::{EndpointId, NetworkId};
use crate::plan::{Plan, Step};

pub mod bridge;
mod endpoint;
mod guard;
pub mod macvlan;
mod observed;
pub mod overlay;

pub use endpoint::{End, WantedEndpoint, WishError, far_name, free_interface, port_name};
pub use guard::{COUNTERS, Guard, TABLE};
pub use observed::{SeenLink, SeenPort, Setting};

/// Smallest MTU an IPv4 link may have (RFC 791 §3.2).
const MIN_MTU: u16 = 68;
/// Smallest MTU an IPv6 link may have (RFC 8200 §5).
const MIN_MTU6: u16 = 1280;

/// Steps that happen whole or not at all, whatever becomes of the other pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whom it is for.
    pub scope: Scope,
    /// What to do.
    pub plan: Plan,
}

/// Whom a piece is for, and so who goes without if it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything that is settled with it.
    All,
    /// One network.
    Network(NetworkId),
    /// One endpoint.
    Endpoint(EndpointId),
}

/// Pieces in the order they are to happen.
#[derive(Debug, Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    /// Adds what `plan` says, if anything.
    fn add(&mut self, scope: Scope, plan: impl FnOnce(&mut Vec<Step>)) {
        let mut steps = Vec::new();
        plan(&mut steps);
        if !steps.is_empty() {
            self.0.push(Piece { scope, plan: Plan(steps) });
        }
    }
}

/// Whether the kernel takes `name` for a link (`net/core/dev.c`, `dev_valid_name`), and every path does too.
pub(crate) fn is_interface_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    plain && (1..=15).contains(&name.len())
}
