//! Networks of this node alone: bridges and what is attached to them.

use std::collections::BTreeMap;

use crate::model::NetworkId;

mod view;

pub use view::{BridgeView, EndpointView};

/// The networks of this node alone.
#[derive(Debug, Default)]
pub struct Local {
    bridges: BTreeMap<NetworkId, BridgeView>,
}

impl Local {
    /// Every bridge network with what is attached to it, in order of ids.
    pub fn bridges(&self) -> impl Iterator<Item = BridgeView> + '_ {
        self.bridges.values().cloned()
    }
}
