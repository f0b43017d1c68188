//! weft as a network driver and an address manager of the host's Docker engine.
//!
//! The engine calls a plugin over a unix socket ([`protocol`]). A network of Docker is bound to one of weft
//! ([`Bindings`]), an endpoint of a container to an endpoint of weft. No call carries a network's name: whoever watches
//! the engine tells it, and until then a network waits ([`Binding::Pending`]).

mod bindings;
pub mod engine;
mod id;
mod pools;
pub mod protocol;
pub mod settle;
mod wish;

pub use bindings::{Binding, Bindings, Endpoint, Unreadable};
pub use id::{DockerId, InvalidId};
pub use pools::{PendingPools, PoolError, PoolId};
pub use wish::{Kind, Told, Wish, WishError};

/// The address space of networks whose addresses are weft's to give. Every other one is the engine's.
pub const ADDRESS_SPACE: &str = "weft";
/// Driver option, and option of the address manager: the weft network that is meant.
pub const NETWORK: &str = "weft.network";
/// Driver option: the weft driver that is meant, where it is not `overlay`.
pub const DRIVER: &str = "weft.driver";
