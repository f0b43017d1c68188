//! Which networks answer DHCP, and what they tell each endpoint.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;

use super::Node;
use crate::dhcp::{Client, Service};
use crate::driver::{bridge, overlay};
use crate::io::dhcp::listen;
use crate::io::server::explain;
use crate::model::NetworkId;
use crate::network::{OwnEndpoint, Subnet};
use crate::plan::Place;

/// Where a network is served, and with what.
struct Site {
    at: Place,
    bridge: String,
    service: Service,
}

impl Node {
    /// Brings what answers DHCP to what networks have now.
    pub(super) fn settle_dhcp(&mut self) {
        let wanted = self.wanted_dhcp();
        self.dhcp.keep(|network| wanted.contains_key(&network));
        for (network, site) in wanted {
            if self.dhcp.tell(network, site.service) {
                continue;
            }
            self.worker.hand(move |bench| {
                let opened = bench.kernel.open(site.at).map_err(|fault| explain(&fault));
                let listening = opened.and_then(|namespace| {
                    let socket = namespace.run(|| listen(&site.bridge)).map_err(|fault| explain(&fault))?;
                    socket.map_err(|fault| fault.to_string())
                });
                move |node: &mut Self| node.dhcp_opened(network, listening)
            });
        }
    }

    fn dhcp_opened(&mut self, network: NetworkId, listening: Result<OwnedFd, String>) {
        const WARNING: &str = "dhcp";
        match listening.and_then(|socket| self.dhcp.serve(network, socket).map_err(|fault| fault.to_string()))
        {
            Ok(()) => drop(self.facts.warnings.remove(WARNING)),
            Err(fault) => {
                self.dhcp.keep(|other| other != network);
                let name = self.name_of(network);
                tracing::warn!(%network, fault, "DHCP is not answered; the next audit tries again");
                let text = format!("DHCP is not answered in network {name}: {fault}");
                self.facts.warnings.insert(WARNING, text);
            }
        }
    }

    fn wanted_dhcp(&self) -> BTreeMap<NetworkId, Site> {
        let mut wanted: BTreeMap<NetworkId, Site> = BTreeMap::new();
        for own in self.own_endpoints() {
            let network = own.lease.network;
            let site = match wanted.entry(network) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(place) => match self.dhcp_site(network) {
                    Some(site) => place.insert(site),
                    None => continue,
                },
            };
            let (mac, client) = (own.lease.mac, self.dhcp_client(own));
            site.service.clients.insert(mac, client);
        }
        wanted
    }

    /// Where a network is served, nobody told anything yet; nothing for one without DHCP.
    fn dhcp_site(&self, network: NetworkId) -> Option<Site> {
        let (at, bridge, mac, subnets) = if let Some(definition) = self.cluster.with_dhcp(network) {
            let (at, mac) = (Place::Hidden(network), overlay::bridge_mac(network));
            (at, overlay::BRIDGE.to_owned(), mac, &definition.subnets)
        } else {
            let definition = self.local.with_dhcp(network)?;
            let interface = self.local.bridge(network)?.interface;
            let mac = bridge::mark(self.cluster.node_id(), &interface);
            (Place::Host, interface, mac, &definition.subnets)
        };
        let gateway = |subnet: &Subnet| if let IpAddr::V4(ip) = subnet.gateway { Some(ip) } else { None };
        let service = Service { mac, server: subnets.iter().find_map(gateway), clients: BTreeMap::new() };
        Some(Site { at, bridge, service })
    }

    fn dhcp_client(&self, own: OwnEndpoint) -> Client {
        let routers = self.gateways_of(own.sandbox, own.lease.endpoint);
        let wishes = self.sandboxes.get(own.sandbox).map(|sandbox| &sandbox.wishes);
        let dns = match wishes.map(|wishes| wishes.dns.clone()).unwrap_or_default() {
            none if none.is_empty() && !routers.is_empty() => self.names.servers_for_guests(),
            own => own,
        };
        let hostname = wishes.map(|wishes| wishes.hostname.clone()).filter(|name| !name.is_empty());
        Client {
            v4: own
                .lease
                .addresses
                .iter()
                .find_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }),
            v6: own
                .lease
                .addresses
                .iter()
                .find_map(|net| if let IpNet::V6(net) = net { Some(*net) } else { None }),
            routers,
            dns,
            mtu: own.lease.mtu,
            hostname: hostname.unwrap_or_else(|| own.name.to_string()),
        }
    }
}
