//! Own records: what this node says, derived whole from its state, told to gossip by difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use weft_dataplane::segment::Vtep;
use weft_dataplane::wire::Vni;

use super::grants::SignedGrant;
use super::networks::Network;
use super::record::{Key, Membership, RANGES_OCTETS, Ranges, encode};
use super::{Cluster, ClusterError, ClusterEvent};
use crate::gossip::{MAX_KEYS, MAX_TABLE};
use crate::model::{EndpointId, NetworkId, NodeId};
use crate::reconcile::{self, Attachment, Picture, Places, Tunnel};

/// What gossip charges a record beyond its key and body, octets.
const RECORD_COST: usize = 80;
/// Records and octets kept free for removals and ranges, which must always get through.
const SPARE_KEYS: usize = 512;
const SPARE_OCTETS: usize = 96 << 10;

impl Cluster {
    /// Tells gossip the own records of dirty networks.
    pub(super) fn publish(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.dirty.records) {
            let wanted = self.records_of(id);
            let lowest = (id, Vec::new());
            let told: Vec<Vec<u8>> = (self.published.range(lowest..))
                .take_while(|((network, _), _)| *network == id)
                .map(|((_, key), _)| key.clone())
                .collect();
            for key in told.into_iter().filter(|key| !wanted.contains_key(key)) {
                self.published.remove(&(id, key.clone()));
                if let Some(key) = crate::gossip::RecordKey::new(&key) {
                    self.gossip.withdraw(now, &key);
                }
            }
            for (key, body) in wanted {
                self.tell(now, id, key, body);
            }
        }
    }

    fn tell(&mut self, now: Instant, id: NetworkId, key: Vec<u8>, body: Vec<u8>) {
        let place = (id, key);
        if self.published.get(&place) == Some(&body) {
            return;
        }
        let Some(record_key) = crate::gossip::RecordKey::new(&place.1) else { return };
        match self.gossip.set_record(now, record_key, body.clone()) {
            Ok(()) => drop(self.published.insert(place, body)),
            Err(error) => tracing::warn!(network = %id, %error, "a record could not be published"),
        }
    }

    /// Whether another promise can be published: gossip bounds what one node may say, and a promise that others
    /// cannot hear of is none.
    pub(super) fn check_room(&self, octets: usize) -> Result<(), ClusterError> {
        let used: usize =
            self.published.iter().map(|((_, key), body)| key.len() + body.len() + RECORD_COST).sum();
        if self.published.len() >= MAX_KEYS - SPARE_KEYS || used + octets > MAX_TABLE - SPARE_OCTETS {
            return Err(ClusterError::Full("records"));
        }
        Ok(())
    }

    fn records_of(&self, id: NetworkId) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        if let Some(removed) = self.removed.get(&id) {
            let ours = removed.author == self.me || removed.orphan || self.sponsors(id);
            if ours && self.must_tell_removal(id) {
                records.insert(Key::Removal(id).encode(), removed.statement.clone());
            }
            return records;
        }
        let Some(network) = self.networks.get(&id) else { return records };
        let mut taking_part = false;
        let apart = self.stays_apart(network);
        for (&endpoint, own) in self.endpoints.iter().filter(|(_, own)| own.network == id && !apart) {
            taking_part = true;
            if own.announced {
                records.insert(Key::Endpoint(id, endpoint).encode(), encode(&own.endpoint));
            }
        }
        if let Some(vni) = self.vnis().get(&id).filter(|_| taking_part) {
            records.insert(Key::Membership(id).encode(), encode(&Membership::new(*vni)));
        }
        let ours = network.definition.creator == self.me;
        if taking_part || ours || self.sponsors(id) || network.orphan {
            records.insert(Key::Definition(id).encode(), network.statement.clone());
        }
        for (index, state) in network.pools.iter().enumerate() {
            records.extend(range_records(id, index, &state.published()));
        }
        records
    }

    /// The VNI of each network this node takes part in.
    pub(super) fn vnis(&self) -> BTreeMap<NetworkId, Vni> {
        self.assigned_vnis().0
    }

    /// The same, and the networks whose pinned VNI another network has.
    pub(super) fn assigned_vnis(&self) -> (BTreeMap<NetworkId, Vni>, Vec<NetworkId>) {
        let mut active: Vec<NetworkId> = self.endpoints.values().map(|own| own.network).collect();
        active.sort();
        active.dedup();
        let mut networks: Vec<_> =
            active.iter().filter_map(|id| Some((*id, self.networks.get(id)?))).collect();
        networks.sort_by_key(|(_, network)| network.definition.precedence());
        reconcile::assign_vnis(networks.into_iter().map(|(id, n)| (id, Self::wished_vni(id), n.options.vni)))
    }

    /// Derives dirty segments and tells which changed; answers how many endpoints were looked at.
    pub(super) fn derive_segments(&mut self, now: Instant) -> usize {
        let mut endpoints = 0;
        let vnis = self.vnis();
        let dirty = std::mem::take(&mut self.dirty.segments);
        self.renamed.extend(dirty.iter().copied());
        for id in dirty {
            let picture = vnis.get(&id).and_then(|&vni| self.picture(now, id, vni));
            let (derived, contested) = picture.as_ref().map(reconcile::derive).unzip();
            let contested = contested.unwrap_or_default();
            if contested.is_empty() {
                self.contested.remove(&id);
            } else {
                self.contested.insert(id, contested);
            }
            if let Some(ignored) = self.ignored_endpoints(now, id) {
                self.ignored.insert(id, ignored);
            } else {
                self.ignored.remove(&id);
            }
            endpoints += derived.as_ref().map_or(0, |spec| spec.local.len() + spec.remote.len());
            let before = match derived.clone() {
                Some(spec) => self.segments.insert(id, spec),
                None => self.segments.remove(&id),
            };
            if before != derived {
                self.events.push_back(ClusterEvent::SegmentChanged(id));
            }
        }
        endpoints
    }

    fn picture(&self, now: Instant, id: NetworkId, vni: Vni) -> Option<Picture<'_>> {
        let network = self.networks.get(&id)?;
        let apart = self.stays_apart(network);
        let mut attachments = self.own_attachments(id);
        let mut tunnels = BTreeMap::new();
        let others = self.views.iter().filter(|(node, _)| !apart && self.is_remembered(now, **node));
        for (&node, view) in others {
            let Some(tunnel) = self.tunnel(node, id) else { continue };
            tunnels.insert(node, tunnel);
            let endpoints = view.endpoints.get(&id).into_iter().flatten();
            attachments.extend(endpoints.map(|(&endpoint, body)| Attachment {
                ips: network.addresses_of(node, body),
                ..attachment(node, endpoint, body, tunnel.alive)
            }));
        }
        Some(Picture {
            me: self.me,
            vni,
            mtu: self.mtu(id),
            broadcast: network.options.broadcast,
            static_vteps: if apart { &[] } else { &network.options.static_vteps },
            places: self.places(id),
            sealing: network.options.encrypted.then_some(id),
            tunnels,
            attachments,
        })
    }

    /// Who has the MAC addresses of a network that several nodes claim.
    fn places(&self, id: NetworkId) -> Places<'_> {
        let first = self.contested.get(&id).cloned().unwrap_or_default();
        Places { first, before: self.segments.get(&id) }
    }

    /// Whether this node has nothing to do with other nodes in a network, as it is not encrypted.
    pub(super) fn stays_apart(&self, network: &Network) -> bool {
        self.config.require_encryption && !network.options.encrypted
    }

    fn own_attachments(&self, id: NetworkId) -> Vec<Attachment<'_>> {
        let own = self.endpoints.iter().filter(|(_, own)| own.network == id);
        own.map(|(&endpoint, own)| attachment(self.me, endpoint, &own.endpoint, true)).collect()
    }

    /// Endpoints of other nodes with addresses that are not their node's; `None` if there are none.
    fn ignored_endpoints(&self, now: Instant, id: NetworkId) -> Option<usize> {
        let network = self.networks.get(&id)?;
        let views = self.views.iter().filter(|(node, _)| self.is_remembered(now, **node));
        let endpoints = views.flat_map(|(&node, view)| {
            view.endpoints.get(&id).into_iter().flatten().map(move |(_, body)| (node, body))
        });
        let ignored = endpoints.filter(|(node, body)| network.addresses_of(*node, body) != body.ips).count();
        Some(ignored).filter(|&count| count > 0)
    }

    /// Another node's tunnel end in a network, once the node is in it, and if it is nobody else's.
    fn tunnel(&self, node: NodeId, id: NetworkId) -> Option<Tunnel> {
        let vni = *self.views.get(&node)?.memberships.get(&id)?;
        let address = self.sealed.holders.end_of(node)?;
        Some(Tunnel { vtep: Vtep { address, vni }, alive: self.is_alive(node) })
    }

    /// Largest inner IP packet of a network here, octets: what was asked for, as far as the underlay carries it.
    pub(super) fn mtu(&self, id: NetworkId) -> u16 {
        let options = self.networks.get(&id).map(|network| &network.options);
        let fits = self.config.inner_mtu(options.is_some_and(|options| options.encrypted));
        let wanted = options.and_then(|options| options.mtu);
        wanted.map_or(fits, |wanted| wanted.min(fits))
    }
}

fn attachment(
    node: NodeId,
    endpoint: EndpointId,
    body: &super::record::Endpoint,
    alive: bool,
) -> Attachment<'_> {
    Attachment { node, endpoint, mac: body.mac(), ips: &body.ips, mobility: body.mobility, alive }
}

/// Grants packed into records.
fn range_records(id: NetworkId, pool: usize, grants: &[Arc<SignedGrant>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut bodies: Vec<Ranges> = Vec::new();
    let mut room = 0;
    for grant in grants {
        let octets = grant.statement.len() + 4;
        if room < octets {
            bodies.push(Ranges::default());
            room = RANGES_OCTETS;
        }
        room = room.saturating_sub(octets);
        if let Some(body) = bodies.last_mut() {
            body.statements.push(grant.statement.clone());
        }
    }
    let pool = u8::try_from(pool).unwrap_or(u8::MAX);
    let numbered = (0..=u16::MAX).zip(bodies);
    numbered.map(|(chunk, ranges)| (Key::Ranges(id, pool, chunk).encode(), encode(&ranges))).collect()
}
