//! Addresses held for endpoints to come: whoever asks for addresses first and for the endpoint later (Docker's address
//! managers) is promised them durably, for a while.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::attach::{Ticket, Wish};
use super::start::{corrupt, pool_key, rest_key};
use super::{Cluster, ClusterError};
use crate::ipam::{Range, Standing};
use crate::ledger;
use crate::model::{EndpointId, NetworkId};
use crate::network::{Attach, NetworkError};
use crate::storage::Table;

/// Time within which the endpoint must come.
const HOLD: Duration = Duration::from_secs(60);
/// Addresses held at once.
const MAX_HOLDS: usize = 4_096;
/// Who has an address that is held.
const NOBODY: EndpointId = EndpointId([0; 16]);

/// A wish for an address to be held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) network: NetworkId,
    pub(super) pool: usize,
    /// A certain one.
    pub(super) ip: Option<IpAddr>,
}

/// An address that is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    until: Instant,
    /// Whether it was before the start: who asked for it may not have heard of it.
    is_old: bool,
}

impl Cluster {
    /// Asks for an address of the subnet to be held; the outcome comes as [`ClusterEvent::Held`](super::ClusterEvent).
    /// It is held for a minute: [`Cluster::attach_held`] makes it an endpoint's.
    ///
    /// # Errors
    /// There is no such subnet, or the address is taken or reserved; nothing was promised.
    pub fn hold(
        &mut self,
        now: Instant,
        network: NetworkId,
        subnet: IpNet,
        ip: Option<IpAddr>,
    ) -> Result<Ticket, ClusterError> {
        self.check_here()?;
        if self.holds.len() >= MAX_HOLDS {
            return Err(ClusterError::Full("addresses held"));
        }
        let known = self.networks.get(&network).ok_or(NetworkError::NoNetwork(network.long()))?;
        let mut pools = known.pools.iter().map(|state| &state.pool).enumerate();
        let found = pools.find(|(_, pool)| pool.space().subnet() == subnet);
        let (index, pool) = found.ok_or_else(|| NetworkError::OutsideSubnets(subnet.addr()))?;
        if let Some(ip) = ip {
            let number = pool.locate(ip).ok_or(NetworkError::OutsideSubnets(ip))?;
            if matches!(pool.standing(number), Standing::Taken | Standing::Reserved) {
                return Err(NetworkError::AddressTaken.into());
            }
        }
        Ok(self.begin(now, Wish::Hold(Hold { network, pool: index, ip })))
    }

    /// As [`Cluster::attach`], with fixed addresses of which some may have been held for it.
    ///
    /// # Errors
    /// As those; what was held is held on.
    pub fn attach_held(&mut self, now: Instant, wish: Attach) -> Result<Ticket, ClusterError> {
        let (network, fixed) = (wish.network, wish.fixed().collect::<Vec<_>>());
        let held: Vec<_> =
            fixed.iter().filter_map(|&ip| Some((ip, self.holds.remove(&(network, ip))?))).collect();
        held.iter().for_each(|(ip, _)| self.untake(network, *ip));
        self.attach(now, wish).inspect_err(|_| {
            for (ip, held) in held {
                self.take_hold(network, ip, held);
            }
        })
    }

    /// Ends the hold of an address; one that is not held stays as it is.
    ///
    /// # Errors
    /// The state cannot be made durable; it is held on.
    pub fn release_hold(&mut self, network: NetworkId, ip: IpAddr) -> Result<(), ClusterError> {
        let place = self.networks.get(&network).and_then(|known| known.pool_of(ip));
        let Some((pool, number)) = place else { return Ok(()) };
        let row = ledger::delete(Table::Holds, rest_key(network, pool, number));
        self.ledger.commit("address-release", vec![row])?;
        if self.holds.remove(&(network, ip)).is_some() {
            self.untake(network, ip);
        }
        Ok(())
    }

    /// Goes on with a hold from before the start for who asks for the address once more, as the answer was lost with that;
    /// false where there is none.
    pub fn hold_on(&mut self, now: Instant, network: NetworkId, ip: IpAddr) -> bool {
        let held = self.holds.get_mut(&(network, ip)).filter(|held| held.is_old);
        held.map(|held| *held = Held { until: now + HOLD, is_old: false }).is_some()
    }

    /// Ends all holds: whoever was to come for them is gone. What cannot be made durable ends in its time.
    pub fn release_holds(&mut self) {
        for (network, ip) in self.holds.keys().copied().collect::<Vec<_>>() {
            if let Err(fault) = self.release_hold(network, ip) {
                tracing::warn!(%network, %ip, %fault, "it is held on");
            }
        }
    }

    /// Makes a hold durable, which is the promise of its address.
    pub(super) fn promise_hold(
        &mut self,
        now: Instant,
        hold: &Hold,
        places: &[(usize, u128)],
    ) -> Result<IpNet, ClusterError> {
        let id = hold.network;
        let network = self.networks.get(&id).ok_or(ClusterError::Removed(id))?;
        let &[(pool, number)] = places else { return Err(NetworkError::Exhausted.into()) };
        let ip = Range::address(network.pools[pool].pool.space().subnet(), number);
        let held = network.with_prefix(ip);
        let row = ledger::put(Table::Holds, rest_key(id, pool, number), Vec::new());
        self.ledger.commit("address-hold", vec![row])?;
        self.take_hold(id, ip, Held { until: now + HOLD, is_old: false });
        Ok(held)
    }

    /// What was held before a restart is held anew.
    pub(super) fn load_holds(&mut self, now: Instant) -> Result<(), ClusterError> {
        let mut held = Vec::new();
        for (&id, network) in &self.networks {
            for (index, state) in network.pools.iter().enumerate() {
                for (key, _) in self.ledger.rows(Table::Holds, &pool_key(id, index)) {
                    let number = key.last_chunk().ok_or(corrupt("addresses held"))?;
                    let subnet = state.pool.space().subnet();
                    held.push((id, Range::address(subnet, u128::from_be_bytes(*number))));
                }
            }
        }
        for (id, ip) in held {
            self.take_hold(id, ip, Held { until: now + HOLD, is_old: true });
        }
        Ok(())
    }

    /// Ends holds whose endpoint has not come.
    pub(super) fn end_holds(&mut self, now: Instant) {
        let over = self.holds.iter().filter(|(_, held)| held.until <= now);
        for (network, ip) in over.map(|(place, _)| *place).collect::<Vec<_>>() {
            tracing::info!(%network, %ip, "nobody came for an address that was held");
            if let Err(fault) = self.release_hold(network, ip) {
                tracing::warn!(%network, %ip, %fault, "it is held on");
                return;
            }
        }
    }

    fn take_hold(&mut self, network: NetworkId, ip: IpAddr, held: Held) {
        if let Some(known) = self.networks.get_mut(&network) {
            known.take(ip, NOBODY);
            self.holds.insert((network, ip), held);
        }
    }

    fn untake(&mut self, network: NetworkId, ip: IpAddr) {
        let Some(known) = self.networks.get_mut(&network) else { return };
        if let Some((pool, number)) = known.pool_of(ip) {
            known.pools[pool].pool.untake(number);
        }
    }
}
