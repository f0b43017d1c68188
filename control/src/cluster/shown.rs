//! The cluster as people see it: the shapes of the API.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::Cluster;
use super::networks::Network;
use super::record::Endpoint;
use crate::api;
use crate::gossip::MemberState;
use crate::ipam::{Claim, Range, Use};
use crate::model::{EndpointId, NetworkId, NodeId};
use crate::reconcile::{self, Attachment};

/// An endpoint of any node.
struct Shown<'a> {
    node: NodeId,
    id: EndpointId,
    endpoint: &'a Endpoint,
}

impl Cluster {
    /// Every network, without endpoints, ordered by name.
    #[must_use]
    pub fn networks(&self, now: Instant) -> Vec<api::Network> {
        let mut networks: Vec<api::Network> =
            self.networks.keys().filter_map(|&id| self.network(now, id)).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        for network in &mut networks {
            network.containers.clear();
        }
        networks
    }

    /// One network with every endpoint of the cluster.
    #[must_use]
    pub fn network(&self, now: Instant, id: NetworkId) -> Option<api::Network> {
        let network = self.networks.get(&id)?;
        let definition = &network.definition;
        let has = |v4: bool| definition.subnets.iter().any(|subnet| subnet.prefix.addr().is_ipv4() == v4);
        let vni =
            self.vnis().get(&id).copied().or(network.options.vni).unwrap_or_else(|| Self::wished_vni(id));
        Some(api::Network {
            name: self.name_of(id),
            id: id.long(),
            created: definition.created.to_string(),
            scope: "global".to_owned(),
            driver: "overlay".to_owned(),
            enable_ipv4: has(true),
            enable_ipv6: has(false),
            ipam: api::Ipam {
                driver: "default".to_owned(),
                options: None,
                config: definition.shown_subnets(),
            },
            internal: definition.internal,
            attachable: true,
            ingress: false,
            config_from: api::ConfigFrom::default(),
            config_only: false,
            options: definition.options.clone(),
            labels: definition.labels.clone(),
            peers: self.network_peers(now, id),
            containers: self.containers(now, id, network),
            vni: vni.into(),
            mtu: self.mtu(id),
            ranges: network.pools.iter().map(|state| range_use(&state.pool)).collect(),
        })
    }

    fn network_peers(&self, now: Instant, id: NetworkId) -> Vec<api::NetworkPeer> {
        let sealed = self.networks.get(&id).is_some_and(|network| network.options.encrypted);
        let mut sessions = if sealed { self.sealed.shown(now) } else { BTreeMap::new() };
        let mut peers: Vec<api::NetworkPeer> = (self.gossip.members())
            .filter(|member| {
                let theirs =
                    self.views.get(&member.id).is_some_and(|view| view.memberships.contains_key(&id));
                let ours = member.id == self.me && self.endpoints.values().any(|own| own.network == id);
                ours || (theirs && self.is_remembered(now, member.id))
            })
            .map(|member| api::NetworkPeer {
                name: member.name.to_string(),
                ip: member.addr.ip().to_string(),
                session: sessions.remove(&member.id),
            })
            .collect();
        peers.sort_by(|a, b| (&a.name, &a.ip).cmp(&(&b.name, &b.ip)));
        peers
    }

    fn containers(
        &self,
        now: Instant,
        id: NetworkId,
        network: &Network,
    ) -> BTreeMap<String, api::NetworkEndpoint> {
        let cidr = |endpoint: &Endpoint, v4: bool| {
            let ip = endpoint.ips.iter().find(|ip| ip.is_ipv4() == v4);
            ip.map_or_else(String::new, |&ip| with_prefix(network, ip))
        };
        let show = |shown: Shown<'_>| {
            let Shown { node, id, endpoint } = shown;
            let key = if node == self.me { endpoint.sandbox.long() } else { format!("ep-{}", id.long()) };
            let value = api::NetworkEndpoint {
                name: endpoint.name.to_string(),
                endpoint_id: id.long(),
                mac_address: endpoint.mac().to_string(),
                ipv4_address: cidr(endpoint, true),
                ipv6_address: cidr(endpoint, false),
                node: self.node_name(node),
            };
            (key, value)
        };
        self.shown(now, id).into_iter().map(show).collect()
    }

    /// Endpoints of a network: announced ones of this node, and those of nodes that are not long dead.
    fn shown(&self, now: Instant, id: NetworkId) -> Vec<Shown<'_>> {
        let own = self.endpoints.iter().filter(|(_, own)| own.network == id);
        let own = own.map(|(&id, own)| Shown { node: self.me, id, endpoint: &own.endpoint });
        let views = self.views.iter().filter(|(node, _)| self.is_remembered(now, **node));
        let others = views.flat_map(|(&node, view)| {
            let endpoints = view.endpoints.get(&id).into_iter().flatten();
            endpoints.map(move |(&id, endpoint)| Shown { node, id, endpoint })
        });
        own.chain(others).collect()
    }

    /// Names and ids of the endpoints that keep a network from being removed.
    pub(super) fn endpoints_in_view(&self, now: Instant, id: NetworkId) -> Vec<(String, EndpointId)> {
        self.shown(now, id).into_iter().map(|shown| (shown.endpoint.name.to_string(), shown.id)).collect()
    }

    /// Every node that ever proved itself and has not left, this one included.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<api::Peer> {
        let mut sessions = self.sealed.shown(now);
        let mut peers: Vec<api::Peer> = (self.gossip.members())
            .map(|member| {
                let this_node = member.id == self.me;
                let endpoints =
                    if this_node { self.endpoints.len() } else { self.remote_endpoints(member.id) };
                let records = self.gossip.records(member.id).map(|(_, record)| record.version());
                api::Peer {
                    name: member.name.to_string(),
                    node_id: member.id.to_string(),
                    address: member.addr,
                    data_port: member.data_port,
                    state: state_text(member.state, this_node).to_owned(),
                    session: sessions.remove(&member.id),
                    this_node,
                    endpoints,
                    version: records.max().unwrap_or(u64::from(member.boot_epoch) << 32),
                }
            })
            .collect();
        peers.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
        peers
    }

    fn remote_endpoints(&self, node: NodeId) -> usize {
        self.views.get(&node).map_or(0, |view| view.endpoints.values().map(BTreeMap::len).sum())
    }

    /// The FDB of a network as derived from records; what the dataplane learned of static VTEPs is the agent's to add.
    #[must_use]
    pub fn fdb(&self, now: Instant, id: NetworkId) -> Vec<api::FdbEntry> {
        let shown = self.shown(now, id);
        let network = self.networks.get(&id);
        let attachments: Vec<Attachment<'_>> = (shown.iter())
            .map(|s| Attachment {
                node: s.node,
                endpoint: s.id,
                mac: s.endpoint.mac(),
                ips: match network.filter(|_| s.node != self.me) {
                    Some(network) => network.addresses_of(s.node, s.endpoint),
                    None => &s.endpoint.ips,
                },
                mobility: s.endpoint.mobility,
                alive: self.is_alive(s.node),
            })
            .collect();
        let first = |mac| self.contested.get(&id)?.get(&mac).copied();
        let winners = reconcile::winners(self.me, &attachments, first);
        let own_vni = self.vnis().get(&id).copied();
        let entry = |winner: &Attachment<'_>| {
            let endpoint = shown.iter().find(|s| s.id == winner.endpoint && s.node == winner.node)?;
            let local = winner.node == self.me;
            let member = self.gossip.member(winner.node);
            let vni =
                if local { own_vni } else { self.views.get(&winner.node)?.memberships.get(&id).copied() };
            let state = match (local, self.is_alive(winner.node)) {
                (true, _) => "local",
                (false, true) => "remote",
                (false, false) => "suspended",
            };
            Some(api::FdbEntry {
                mac: winner.mac.to_string(),
                ips: winner.ips.to_vec(),
                vtep: member.filter(|_| !local).map(|member| member.vtep()),
                vni: vni?.into(),
                node: self.node_name(winner.node),
                endpoint: endpoint.endpoint.name.to_string(),
                state: state.to_owned(),
            })
        };
        winners.values().filter_map(entry).collect()
    }

    /// The ranges of each subnet of a network that this node owns, for audits.
    #[must_use]
    pub fn ranges(&self, id: NetworkId) -> Vec<(IpNet, Vec<Claim>)> {
        let pools = self.networks.get(&id).into_iter().flat_map(|network| &network.pools);
        pools.map(|state| (state.pool.space().subnet(), state.pool.owned())).collect()
    }

    pub(super) fn node_name(&self, id: NodeId) -> String {
        self.gossip.member(id).map_or_else(|| id.short(), |member| member.name.to_string())
    }

    /// The cluster at a glance; workers and uptime are the agent's to add.
    #[must_use]
    pub fn status(&self) -> api::Status {
        let dead = self.gossip.members().filter(|m| m.id != self.me && m.state == MemberState::Down).count();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: self.me.to_string(),
            node: self.config.name.to_string(),
            advertise: self.config.advertise.ip(),
            data_port: self.config.data_port,
            gossip_port: self.config.advertise.port(),
            workers: 0,
            uptime_seconds: 0,
            boot_epoch: self.boot_epoch.into(),
            members_alive: self.alive().count(),
            members_dead: dead,
            networks: self.networks.len(),
            endpoints_local: self.endpoints.len(),
            endpoints_remote: self.views.keys().map(|&node| self.remote_endpoints(node)).sum(),
            networks_encrypted: self.networks.values().filter(|n| n.options.encrypted).count(),
            require_encryption: self.config.require_encryption,
            warnings: self.warnings(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(trouble) = self.ledger.trouble() {
            warnings.push(format!("nothing new can be promised until state can be written: {trouble}"));
        }
        warnings.extend(self.paper_warnings());
        for &id in self.clashes.keys() {
            warnings.push(if id == self.me {
                "another host runs with this node's identity (its state directory was copied), or this one runs on old \
                 state: on the copy, end the agent, remove the state directory and 'weft join' it as a node of its own"
                    .to_owned()
            } else {
                format!(
                    "node {} runs twice or on old state: end the agent on the copy, remove its state directory and \
                     'weft join' it as a node of its own",
                    self.node_name(id)
                )
            });
        }
        for (id, name) in self.names().into_iter().filter(|(_, name)| name.contains('~')) {
            warnings.push(format!("network {name} ({}) was made while another of its name was", id.short()));
        }
        for id in self.assigned_vnis().1 {
            warnings.push(format!(
                "the VNI of network {} is another's: static VTEPs cannot reach it",
                self.name_of(id)
            ));
        }
        for (&id, network) in &self.networks {
            if self.stays_apart(network) && self.endpoints.values().any(|own| own.network == id) {
                let name = self.name_of(id);
                warnings.push(format!(
                    "network {name} is not encrypted: its endpoints here reach no other node (--require-encryption)"
                ));
            }
            if network.pools.iter().any(|state| state.pool.is_contested()) {
                let name = self.name_of(id);
                warnings.push(format!(
                    "address ranges of network {name} are claimed by two nodes: one is a copy"
                ));
            }
        }
        for (&id, count) in &self.ignored {
            warnings.push(format!(
                "{count} endpoints of other nodes in network {} claim addresses that are not their node's: these are ignored",
                self.name_of(id)
            ));
        }
        for (&id, places) in &self.contested {
            for (mac, &node) in places {
                warnings.push(format!(
                    "MAC address {mac} of network {} is claimed by several nodes: it is that of {}",
                    self.name_of(id),
                    self.node_name(node)
                ));
            }
        }
        for (node, vtep) in self.sealed.holders.refused() {
            let node = self.node_name(node);
            warnings.push(format!(
                "node {node} claims the tunnel end {vtep}, which is another's: encrypted networks do not reach it"
            ));
        }
        warnings.extend(self.keys.warning());
        warnings.extend(self.strays());
        warnings.extend(self.overlaps());
        warnings
    }

    /// Subnets that two networks have, made on both sides of a partition: legal, but no sandbox can be in both.
    fn overlaps(&self) -> Vec<String> {
        let mut subnets: Vec<(Range, bool, NetworkId)> = (self.networks.iter())
            .flat_map(|(&id, network)| network.definition.subnets.iter().map(move |s| (s.prefix, id)))
            .map(|(prefix, id)| (Range::of(prefix), prefix.addr().is_ipv4(), id))
            .collect();
        subnets.sort_by_key(|&(range, v4, id)| (v4, range, id));
        let overlap = |pair: &&[(Range, bool, NetworkId)]| {
            pair[0].1 == pair[1].1 && pair[0].0.intersection(pair[1].0).is_some()
        };
        let text = |pair: &[(Range, bool, NetworkId)]| {
            let names = [self.name_of(pair[0].2), self.name_of(pair[1].2)];
            format!("networks {} and {} overlap: a sandbox cannot use both", names[0], names[1])
        };
        subnets.windows(2).filter(overlap).map(text).collect()
    }

    /// Endpoints of this node on addresses that others own: this node ran on an old copy of its state.
    fn strays(&self) -> impl Iterator<Item = String> + '_ {
        self.endpoints.values().flat_map(move |own| {
            let network = self.networks.get(&own.network);
            let foreign = move |ip: &&IpAddr| {
                let place =
                    network.and_then(|n| n.pool_of(**ip).map(|(pool, number)| (&n.pools[pool].pool, number)));
                place.is_some_and(|(pool, number)| !pool.owns(number))
            };
            let name = &own.endpoint.name;
            let text = move |ip: &IpAddr| {
                format!(
                    "address {ip} of {name} is another node's: this node ran on old state; attach it anew"
                )
            };
            own.endpoint.ips.iter().filter(foreign).map(text)
        })
    }
}

fn state_text(state: MemberState, this_node: bool) -> &'static str {
    match state {
        _ if this_node => "alive",
        MemberState::Alive => "alive",
        MemberState::Down => "dead",
        MemberState::Left => "left",
    }
}

fn with_prefix(network: &Network, ip: IpAddr) -> String {
    match network.pool_of(ip) {
        Some((pool, _)) => format!("{ip}/{}", network.pools[pool].pool.space().subnet().prefix_len()),
        None => ip.to_string(),
    }
}

fn range_use(pool: &crate::ipam::Pool) -> api::RangeUse {
    let Use { owned, used } = pool.usage();
    let saturated = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    api::RangeUse {
        subnet: pool.space().subnet().to_string(),
        owned: saturated(owned),
        used: saturated(used),
    }
}
