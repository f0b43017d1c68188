//! weft as Docker's address manager: pools, and addresses of endpoints to come.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::json;

use super::super::{Node, Reply, answer, now, random};
use super::{done, refused, well};
use crate::cluster::{ClusterError, Ticket};
use crate::docker::protocol::{Call, ReleaseAddress, RequestAddress, RequestPool};
use crate::docker::{Binding, DockerId, NETWORK, PoolError, PoolId};
use crate::io::server::{Answer, Refusal};
use crate::model::{NetworkId, SandboxId};
use crate::network::{NetworkError, overlap};

/// Looks at whether a container is gone whose address is asked for again.
const LOOKS: u32 = 4;
/// Longest that an engine takes to release an address of an endpoint it has removed.
const RETURN: Duration = Duration::from_secs(30);
/// Time between the first and the second; each is longer than the one before.
const PAUSE: Duration = Duration::from_millis(100);

/// Whose a pool is.
enum Owner {
    /// A network's.
    Network(NetworkId),
    /// A network's that has no name yet.
    Waits(DockerId),
    /// A network's that is being made.
    ToCome,
}

/// Where an address comes from.
enum Found {
    /// The network has set it aside.
    Own(Result<Answer, Refusal>),
    /// A free one of the network's subnet, or that one.
    Free(NetworkId, IpNet, Option<IpAddr>),
    /// That is to be seen when the network has a name.
    Later(DockerId),
}

impl Node {
    /// Gives a pool: a subnet of a network that is there, or one for a network to come.
    pub(super) fn request_pool(&mut self, call: &RequestPool) -> Result<Answer, Refusal> {
        let subnet = match call.pool.as_str() {
            "" => None,
            text => Some(subnet(text, call.v6)?),
        };
        match call.options.get(NETWORK) {
            Some(network) => self.pool_of_network(network, subnet, call.v6),
            None => self.pool_to_come(subnet, call.v6),
        }
    }

    fn pool_of_network(&self, text: &str, subnet: Option<IpNet>, v6: bool) -> Result<Answer, Refusal> {
        let network = self.resolve_overlay(text)?;
        let subnets = self.cluster.subnets_of(network);
        let fits = |has: &&IpNet| has.addr().is_ipv6() == v6 && subnet.is_none_or(|subnet| subnet == **has);
        let name = self.name_of(network);
        let Some(&found) = subnets.iter().find(fits) else {
            let wanted =
                subnet.map_or(if v6 { "IPv6".to_owned() } else { "IPv4".to_owned() }, |s| s.to_string());
            return Err(refused(format!("network {name} has no subnet {wanted}")));
        };
        let id = PoolId { network: Some(network), subnet: found };
        well(&json!({ "PoolID": id.to_string(), "Pool": found.to_string(), "Data": {} }))
    }

    fn pool_to_come(&mut self, subnet: Option<IpNet>, v6: bool) -> Result<Answer, Refusal> {
        let used = self.subnets_for_docker();
        let subnet = match subnet {
            Some(subnet) if used.iter().any(|&other| overlap(other, subnet)) => {
                return Err(refused(PoolError::Overlap));
            }
            Some(subnet) => {
                self.docker.pools.add(now(), subnet).map_err(refused)?;
                subnet
            }
            None => {
                let random = if v6 { Some(NetworkId(random()?)) } else { None };
                self.docker.pools.choose(now(), &used, random).map_err(refused)?
            }
        };
        let id = PoolId { network: None, subnet };
        well(&json!({ "PoolID": id.to_string(), "Pool": subnet.to_string(), "Data": {} }))
    }

    /// A pool is no longer needed. One that is not known is released already.
    pub(super) fn release_pool(&mut self, pool: &str) -> Result<Answer, Refusal> {
        if let Ok(PoolId { network: None, subnet }) = pool.parse() {
            self.docker.pools.remove(subnet);
        }
        done()
    }

    /// Gives an address of a pool: one of the network itself, or one that is held for an endpoint.
    pub(super) fn request_address(&mut self, call: RequestAddress, turn: u32, reply: Reply) {
        match self.find_address(&call) {
            Ok(Found::Own(address)) => answer(reply, address),
            Ok(Found::Later(network)) => self.park(network, Call::RequestAddress(call), reply),
            Ok(Found::Free(network, subnet, ip)) => {
                if let Some(ip) = ip.filter(|ip| self.cluster.hold_on(now(), network, *ip)) {
                    return answer(reply, shown(ip, subnet));
                }
                let holder = ip.and_then(|ip| self.docker_holder(network, ip));
                if holder.is_some() && turn < LOOKS {
                    return self.look_again(network, call, turn + 1, reply);
                }
                match self.cluster.hold(now(), network, subnet, ip) {
                    Ok(ticket) => drop(self.docker.holding.insert(ticket, reply)),
                    Err(fault) => answer(reply, Err(fault.into())),
                }
                self.drain_cluster();
            }
            Err(refusal) => answer(reply, Err(refusal)),
        }
    }

    /// Looks whether a container whose address is asked for again is gone, for which the kernel takes its time.
    fn look_again(&mut self, network: NetworkId, call: RequestAddress, turn: u32, reply: Reply) {
        let done = self.worker.done();
        self.forget_lost_endpoints(Some(network), move |_| {
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE * (turn - 1)).await;
                // The loop may have ended.
                let _ = done.send(Box::new(move |node: &mut Self| node.request_address(call, turn, reply)));
            });
        });
    }

    fn find_address(&mut self, call: &RequestAddress) -> Result<Found, Refusal> {
        let pool: PoolId = call.pool.parse().map_err(refused)?;
        let (subnet, asked, gateway) = (pool.subnet, asked(&call.address, pool.subnet)?, call.is_gateway());
        let own = |ip: IpAddr| Found::Own(shown(ip, subnet));
        // What a network to come has of its own is in the call that makes it.
        match (self.owner_of(&pool)?, asked) {
            (Owner::Network(network), _) => {
                let found = self.address_of_network(network, &pool, asked, gateway)?;
                Ok(found.map_or(Found::Free(network, subnet, asked), own))
            }
            (_, Some(ip)) if gateway => Ok(own(ip)),
            (_, None) if gateway => {
                let first = pool.default_gateway();
                Ok(own(first.ok_or_else(|| refused(NetworkError::Exhausted))?))
            }
            (Owner::Waits(network), _) => Ok(Found::Later(network)),
            (Owner::ToCome, Some(ip)) => Ok(own(ip)),
            (Owner::ToCome, None) => Err(refused(
                "addresses of weft are for networks of weft: make the network with --driver weft",
            )),
        }
    }

    /// An address that the network has set aside itself.
    fn address_of_network(
        &self,
        network: NetworkId,
        pool: &PoolId,
        asked: Option<IpAddr>,
        gateway: bool,
    ) -> Result<Option<IpAddr>, Refusal> {
        let own = self.cluster.set_aside(network, pool.subnet);
        let (its_gateway, auxiliary) = own.ok_or_else(|| refused(PoolError::Unknown(pool.to_string())))?;
        match asked {
            None if gateway => Ok(Some(its_gateway)),
            Some(ip) if gateway && ip != its_gateway => {
                let name = self.name_of(network);
                Err(refused(format!("the gateway of network {name} is {its_gateway}, not {ip}")))
            }
            Some(ip) if gateway || auxiliary.contains(&ip) => Ok(Some(ip)),
            _ => Ok(None),
        }
    }

    /// The cluster holds an address, or has none.
    pub(in crate::io::node) fn address_held(&mut self, ticket: Ticket, result: Result<IpNet, ClusterError>) {
        let Some(reply) = self.docker.holding.remove(&ticket) else { return };
        answer(reply, result.map_err(Refusal::from).and_then(|net| shown(net.addr(), net)));
    }

    /// Ends the hold of an address that no endpoint came for. One that an endpoint has is given back with that: an engine
    /// that releases it without having removed the endpoint first has lost it, with the answer to a call.
    pub(super) fn release_address(&mut self, call: &ReleaseAddress) -> Result<Answer, Refusal> {
        let Ok(pool) = call.pool.parse::<PoolId>() else { return done() };
        if let (Ok(Owner::Network(network)), Ok(ip)) = (self.owner_of(&pool), call.address.parse()) {
            if self.is_returned(network, ip) {
                return done();
            }
            self.cluster.release_hold(network, ip)?;
            self.forget_idle_endpoint(network, ip);
        }
        done()
    }

    /// Notes the addresses of an endpoint that is removed: the engine releases them once more, when others may have them.
    pub(super) fn note_returned(&mut self, sandbox: SandboxId) {
        let present = now();
        let returned = &mut self.docker.returned;
        returned.retain(|(_, _, since)| present - *since < RETURN);
        if let Some(lease) = self.lease_of(sandbox) {
            let addresses = lease.addresses.iter().map(|net| (lease.network, net.addr(), present));
            self.docker.returned.extend(addresses);
        }
    }

    /// Whether an address was given back with its endpoint just now; asked once.
    fn is_returned(&mut self, network: NetworkId, ip: IpAddr) -> bool {
        let present = now();
        let is_it = |&(of, address, since): &(NetworkId, IpAddr, Instant)| {
            of == network && address == ip && present - since < RETURN
        };
        let at = self.docker.returned.iter().position(is_it);
        at.map(|at| self.docker.returned.swap_remove(at)).is_some()
    }

    fn owner_of(&mut self, pool: &PoolId) -> Result<Owner, Refusal> {
        if let Some(network) = pool.network {
            return Ok(Owner::Network(network));
        }
        let has = |binding: &Binding| match binding {
            Binding::Pending(wish) => wish.prefixes().any(|prefix| prefix == pool.subnet),
            Binding::Bound(network) => self.cluster.subnets_of(*network).contains(&pool.subnet),
        };
        match self.docker.bindings.networks().find(|(_, binding)| has(binding)) {
            Some((_, Binding::Bound(network))) => Ok(Owner::Network(*network)),
            Some((id, Binding::Pending(_))) => Ok(Owner::Waits(id.clone())),
            None if self.docker.pools.has(now(), pool.subnet) => Ok(Owner::ToCome),
            None => Err(refused(PoolError::Unknown(pool.to_string()))),
        }
    }
}

fn shown(ip: IpAddr, subnet: IpNet) -> Result<Answer, Refusal> {
    well(&json!({ "Address": format!("{ip}/{}", subnet.prefix_len()), "Data": {} }))
}

fn subnet(text: &str, v6: bool) -> Result<IpNet, Refusal> {
    let invalid = || refused(format!("invalid subnet {:?}", text.chars().take(80).collect::<String>()));
    let subnet: IpNet = text.parse().map_err(|_| invalid())?;
    if subnet != subnet.trunc() || subnet.addr().is_ipv6() != v6 { Err(invalid()) } else { Ok(subnet) }
}

fn asked(text: &str, subnet: IpNet) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(80).collect();
    let ip: IpAddr = text.parse().map_err(|_| refused(format!("invalid address {shown:?}")))?;
    if subnet.contains(&ip) { Ok(Some(ip)) } else { Err(refused(format!("{ip} is not of {subnet}"))) }
}
