//! The way out of sandboxes that are in overlay networks alone: a bridge of the host, as Docker's `docker_gwbridge`.
//!
//! A sandbox's endpoint in it, its leg, is as any other; only that no user asks for it. The node does, for as long as
//! [`needs_leg`] says so of the sandbox's networks. The network is made with the first leg, unless a user has made it
//! before with a subnet or options of their own.

use std::collections::BTreeMap;
use std::time::Instant;

use super::options::{ICC, NAME, boolean, key};
use super::{Definition, Driver, Local, LocalError};
use crate::api::NetworkCreate;
use crate::model::{EndpointId, Name, NetworkId, SandboxId};
use crate::network::{Attach, Lease, NetworkError, overlap};

/// Name of the network, and of its bridge.
pub const GATEWAY_BRIDGE: &str = "weft_gwbridge";
/// Any bridge network is preferred to it.
const PRIORITY: i64 = i64::MIN;

/// What a network means for a sandbox's way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// It has a gateway.
    Gateway,
    /// It has none, but its sandboxes may leave.
    Overlay,
    /// Its sandboxes are to stay inside.
    Internal,
}

/// Whether a sandbox in these networks leaves by a leg in the gateway bridge.
#[must_use]
pub fn needs_leg(networks: &[Outlet]) -> bool {
    networks.contains(&Outlet::Overlay) && !networks.contains(&Outlet::Gateway)
}

impl Definition {
    /// Whether it is the gateway bridge.
    #[must_use]
    pub fn is_gateway_bridge(&self) -> bool {
        self.name.as_str() == GATEWAY_BRIDGE
    }
}

/// The wish that makes the network where no user has.
#[must_use]
pub fn gateway_bridge() -> NetworkCreate {
    NetworkCreate { name: GATEWAY_BRIDGE.to_owned(), ..NetworkCreate::default() }
}

/// The options of the gateway bridge, with those that a user gave it. They cannot join what it keeps apart.
pub(super) fn options(
    driver: Driver,
    internal: bool,
    mut options: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, LocalError> {
    if driver != Driver::Bridge {
        return Err(LocalError::GatewayDriver);
    }
    options.entry(key(NAME)).or_insert_with(|| GATEWAY_BRIDGE.to_owned());
    let icc = options.entry(key(ICC)).or_insert_with(|| "false".to_owned());
    let apart = boolean(ICC, icc).is_ok_and(|icc| !icc);
    if internal || !apart { Err(LocalError::GatewayBridge) } else { Ok(options) }
}

impl Local {
    /// The gateway bridge, once it is made.
    #[must_use]
    pub fn gateway_bridge(&self) -> Option<NetworkId> {
        let mut all = self.networks.values().map(|network| &network.definition);
        all.find(|definition| definition.is_gateway_bridge()).map(|definition| definition.id)
    }

    /// A sandbox's endpoint in the gateway bridge.
    #[must_use]
    pub fn leg(&self, sandbox: SandboxId) -> Option<EndpointId> {
        self.legs().find(|(of, _)| *of == sandbox).map(|(_, leg)| leg)
    }

    /// Every sandbox's endpoint in the gateway bridge.
    pub fn legs(&self) -> impl Iterator<Item = (SandboxId, EndpointId)> {
        let bridge = self.gateway_bridge();
        let legs = self.endpoints.iter().filter(move |(_, endpoint)| Some(endpoint.network) == bridge);
        legs.map(|(id, endpoint)| (endpoint.sandbox, *id))
    }

    /// Gives a sandbox a leg, durably. `beside` are the addresses it has in other networks.
    ///
    /// # Errors
    /// One of those networks has addresses of the gateway bridge's, there is no gateway bridge or no address, or the state
    /// cannot be made durable; nothing was promised.
    pub fn attach_leg(
        &mut self,
        now: Instant,
        (sandbox, name): (SandboxId, Name),
        beside: &[ipnet::IpNet],
    ) -> Result<Lease, LocalError> {
        let bridge = self.gateway_bridge();
        let network = bridge.ok_or_else(|| NetworkError::NoNetwork(GATEWAY_BRIDGE.to_owned()))?;
        let mut subnets = self.network(network)?.definition.subnets.iter().map(|subnet| subnet.prefix);
        if let Some(subnet) =
            subnets.find(|subnet| beside.iter().any(|other| overlap(*subnet, other.trunc())))
        {
            return Err(LocalError::GatewaySubnet(subnet.to_string()));
        }
        let wish = Attach { network, sandbox, name, ip4: None, ip6: None, mac: None, aliases: Vec::new() };
        self.attach(now, wish, PRIORITY)
    }
}

#[cfg(test)]
mod tests {
    use super::Outlet::{Gateway, Internal, Overlay};
    use super::*;

    #[test]
    fn a_sandbox_leaves_by_a_leg_if_it_may_leave_and_no_network_of_its_has_a_gateway() {
        for (networks, leg) in [
            (&[Overlay][..], true),
            (&[Overlay, Overlay, Internal], true),
            (&[Overlay, Gateway], false),
            (&[Gateway], false),
            (&[Internal], false),
            (&[Internal, Gateway], false),
            (&[], false),
        ] {
            assert_eq!(needs_leg(networks), leg, "{networks:?}");
        }
    }
}
