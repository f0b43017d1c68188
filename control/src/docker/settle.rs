//! What to do so that this host's engine has every network of the cluster, and no other of weft's.
//!
//! Decided anew from what there is, whatever has happened: what the engine shows, which of its networks are known here,
//! and the cluster's networks. The cluster's word wins; what is somebody else's in the engine is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use super::engine::{EngineNetwork, GATEWAY, PLUGIN};
use super::{Binding, Bindings, DockerId, NETWORK};
use crate::model::NetworkId;
use crate::network::overlap;

/// A network of the cluster, as engines are to have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
}

/// All there is.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Networks of the engine, of any driver.
    pub engine: &'a [EngineNetwork],
    /// What networks of the engine are to weft.
    pub bindings: &'a Bindings,
    /// The cluster's networks.
    pub cluster: &'a BTreeMap<NetworkId, Named>,
    /// Networks of this host alone.
    pub local: &'a BTreeSet<NetworkId>,
    /// Networks of the engine, by their ids, that have no binding for a moment only: they are being removed.
    pub fleeting: &'a BTreeSet<DockerId>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A network of the engine becomes one of weft's, under the name it has there.
    Name {
        /// Its id in the engine.
        docker: DockerId,
    },
    /// A network of the engine that says which it is, is it.
    Bind {
        /// Its id in the engine.
        docker: DockerId,
        /// Which it is.
        network: NetworkId,
    },
    /// The engine gets its network for ways out of other networks before it makes that itself: it would take a subnet
    /// that a network of the cluster has, or the next one would get.
    Gateway,
    /// The engine gets a network of the cluster.
    Make(NetworkId),
    /// The engine loses a network that is none any more.
    Remove {
        /// Its id in the engine.
        docker: DockerId,
    },
}

/// What cannot be done, and stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The engine has another network of the name.
    NameTaken {
        /// The name.
        name: String,
        /// Driver of the network that has it.
        driver: String,
        /// Its id in the engine, of 64 digits or a swarm's.
        docker: String,
    },
    /// Another network of the engine has addresses of one of the cluster.
    Overlap {
        /// Name of the cluster's.
        name: String,
        /// Its subnet.
        subnet: IpNet,
        /// Name of the other.
        other: String,
        /// That one's subnet.
        taken: IpNet,
    },
    /// A network of weft's in the engine is not known here.
    Unknown {
        /// Its name.
        name: String,
        /// Its id in the engine.
        docker: DockerId,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { name, driver, docker } => write!(
                f,
                "network {name} of the cluster is not in this host's Docker engine, which has another network {name} \
                 (driver {driver}, id {}): nothing was overwritten; remove that one, and this one appears",
                docker.get(..12).unwrap_or(docker)
            ),
            Self::Overlap { name, subnet, other, taken } if other == GATEWAY => write!(
                f,
                "no container of this host can join network {name}: its subnet {subnet} overlaps that of {GATEWAY}, {taken}; \
                 end the containers that use {GATEWAY}, 'docker network rm {GATEWAY}', and weft makes it anew elsewhere"
            ),
            Self::Overlap { name, subnet, other, taken } => write!(
                f,
                "no container of this host can be in network {name} ({subnet}) and in its Docker engine's network {other} \
                 ({taken}) at once: they overlap"
            ),
            Self::Unknown { name, docker } => write!(
                f,
                "network {name} ({}) of this host's Docker engine has driver weft, but weft does not know it (was the state \
                 directory removed?): 'docker network rm {name}', then create it again",
                docker.short()
            ),
        }
    }
}

/// What to do, and what cannot be done.
#[must_use]
pub fn settle(seen: Seen<'_>) -> (Vec<Step>, Vec<Obstacle>) {
    let (mut steps, mut obstacles) = (Vec::new(), Vec::new());
    for network in seen.engine {
        match seen.judge(network) {
            Verdict::Well => {}
            Verdict::Do(step) => steps.push(step),
            Verdict::Cannot(obstacle) => obstacles.push(obstacle),
        }
    }
    // Before the first network: whoever makes one runs containers in it at once, and an engine without a way out makes
    // it then, where addresses of the cluster may be.
    if !seen.engine.iter().any(|network| network.name == GATEWAY) {
        steps.push(Step::Gateway);
    }
    let there = seen.there();
    let mut by_name: BTreeMap<&str, &EngineNetwork> = BTreeMap::new();
    for network in seen.engine {
        by_name.entry(&network.name).or_insert(network);
    }
    for (&id, named) in seen.cluster.iter().filter(|(id, _)| !there.contains(id)) {
        let name = &named.name;
        match by_name.get(name.as_str()) {
            Some(other) if seen.is_leaving(other) => {}
            Some(other) => obstacles.push(Obstacle::NameTaken {
                name: name.clone(),
                driver: other.driver.clone(),
                docker: other.id.clone(),
            }),
            None => steps.push(Step::Make(id)),
        }
    }
    obstacles.extend(seen.overlaps());
    (steps, obstacles)
}

/// What is thought of a network of the engine.
enum Verdict {
    Well,
    Do(Step),
    Cannot(Obstacle),
}

impl Seen<'_> {
    fn judge(&self, network: &EngineNetwork) -> Verdict {
        // A plugin like weft has no networks of a swarm, whose ids are others.
        let docker = network.id.parse::<DockerId>().ok().filter(|_| network.driver == PLUGIN);
        let Some(docker) = docker else { return Verdict::Well };
        match self.bindings.network(&docker) {
            Some(Binding::Pending(_)) => Verdict::Do(Step::Name { docker }),
            Some(Binding::Bound(id)) if self.exists(*id) => Verdict::Well,
            Some(Binding::Bound(_)) => Verdict::Do(Step::Remove { docker }),
            None if self.fleeting.contains(&docker) => Verdict::Well,
            None => match said(network).or_else(|| self.made_of(&docker)) {
                Some(id) if self.exists(id) => Verdict::Do(Step::Bind { docker, network: id }),
                Some(_) => Verdict::Do(Step::Remove { docker }),
                None => Verdict::Cannot(Obstacle::Unknown { name: network.name.clone(), docker }),
            },
        }
    }

    /// The network of the cluster that was made for this one of the engine.
    fn made_of(&self, docker: &DockerId) -> Option<NetworkId> {
        Some(docker.network()).filter(|network| self.cluster.contains_key(network))
    }

    fn exists(&self, network: NetworkId) -> bool {
        self.cluster.contains_key(&network) || self.local.contains(&network)
    }

    /// Networks that the engine has, or is getting.
    fn there(&self) -> BTreeSet<NetworkId> {
        let bound = self.bindings.networks().filter_map(|(_, binding)| match binding {
            Binding::Bound(network) => Some(*network),
            Binding::Pending(_) => None,
        });
        let made_for = |other: &EngineNetwork| other.id.parse().ok().and_then(|id| self.made_of(&id));
        let ours = self.engine.iter().filter(|other| other.driver == PLUGIN);
        bound.chain(ours.filter_map(|other| said(other).or_else(|| made_for(other)))).collect()
    }

    /// Subnets that a network of the cluster and one of the engine that is not weft's both have.
    fn overlaps(&self) -> impl Iterator<Item = Obstacle> {
        let others = self.engine.iter().filter(|other| other.driver != PLUGIN);
        let others = others.flat_map(|other| other.subnets().map(|taken| (&other.name, taken)));
        others.flat_map(|(other, taken)| {
            let ours =
                self.cluster.values().flat_map(|named| named.subnets.iter().map(|net| (&named.name, *net)));
            ours.filter(move |(_, subnet)| overlap(*subnet, taken)).map(move |(name, subnet)| {
                Obstacle::Overlap { name: name.clone(), subnet, other: other.clone(), taken }
            })
        })
    }

    /// Whether the network is about to be removed from the engine.
    fn is_leaving(&self, network: &EngineNetwork) -> bool {
        matches!(self.judge(network), Verdict::Do(Step::Remove { .. }))
    }
}

/// Which weft network a network of the engine says it is.
fn said(network: &EngineNetwork) -> Option<NetworkId> {
    let text = network.ipam.options.get(NETWORK).or_else(|| network.options.get(NETWORK))?;
    NetworkId::from_long(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::IpamConfig;
    use crate::docker::{Kind, Wish};

    const APP: NetworkId = NetworkId([0xaa; 16]);
    const OTHER: NetworkId = NetworkId([0xbb; 16]);

    /// The id of Docker's that has this digit alone.
    fn id(digit: char) -> DockerId {
        digit.to_string().repeat(64).parse().expect("an id")
    }

    fn pending() -> Binding {
        let (options, subnets) = (BTreeMap::new(), Vec::new());
        Binding::Pending(Wish { kind: Kind::Overlay, internal: false, ipv6: false, options, subnets })
    }

    fn in_engine(digit: char, name: &str, driver: &str) -> EngineNetwork {
        let (id, name, driver) = (id(digit).as_str().to_owned(), name.to_owned(), driver.to_owned());
        EngineNetwork { id, name, driver, ..Default::default() }
    }

    fn saying(digit: char, name: &str, network: NetworkId) -> EngineNetwork {
        let mut saying = in_engine(digit, name, PLUGIN);
        saying.ipam.options = [(NETWORK.to_owned(), network.long())].into();
        saying
    }

    /// What there is, as it can be borrowed from.
    #[derive(Default)]
    struct World {
        engine: Vec<EngineNetwork>,
        bindings: Bindings,
        cluster: BTreeMap<NetworkId, Named>,
        local: BTreeSet<NetworkId>,
        fleeting: BTreeSet<DockerId>,
    }

    impl World {
        fn new(engine: &[EngineNetwork], bound: &[(char, Binding)], cluster: &[(NetworkId, &str)]) -> Self {
            let mut world = Self { engine: engine.to_vec(), ..Self::default() };
            world.engine.push(in_engine('f', GATEWAY, "bridge"));
            bound.iter().for_each(|(digit, binding)| world.bindings.put_network(id(*digit), binding.clone()));
            let named = |name: &str| Named {
                name: name.to_owned(),
                subnets: vec!["172.18.0.0/16".parse().expect("one")],
            };
            world.cluster = cluster.iter().map(|&(id, name)| (id, named(name))).collect();
            world
        }

        fn settle(&self) -> (Vec<Step>, Vec<Obstacle>) {
            let Self { engine, bindings, cluster, local, fleeting } = self;
            settle(Seen { engine, bindings, cluster, local, fleeting })
        }

        /// What to do where nothing is in the way.
        fn steps(&self) -> Vec<Step> {
            let (steps, obstacles) = self.settle();
            assert_eq!(obstacles, [], "nothing is in the way");
            steps
        }
    }

    #[test]
    fn a_network_of_the_cluster_is_made_in_the_engine_once() {
        let cluster = [(APP, "app")];
        let world = World::new(&[in_engine('1', "bridge", "bridge")], &[], &cluster);
        assert_eq!(world.steps(), [Step::Make(APP)]);
        let bound = [('2', Binding::Bound(APP))];
        assert_eq!(World::new(&[in_engine('2', "app", PLUGIN)], &bound, &cluster).steps(), []);
        assert_eq!(World::new(&[], &bound, &cluster).steps(), [], "the engine was not looked at since");
    }

    #[test]
    fn a_network_made_in_the_engine_is_named_as_it_is_there() {
        let world = World::new(&[in_engine('2', "app", PLUGIN)], &[('2', pending())], &[]);
        assert_eq!(world.steps(), [Step::Name { docker: id('2') }]);
    }

    #[test]
    fn a_network_that_is_gone_is_removed_from_the_engine_before_a_new_one_gets_its_name() {
        for cluster in [&[][..], &[(OTHER, "app")]] {
            let bound = [('2', Binding::Bound(APP))];
            let world = World::new(&[in_engine('2', "app", PLUGIN)], &bound, cluster);
            assert_eq!(world.steps(), [Step::Remove { docker: id('2') }]);
        }
    }

    #[test]
    fn networks_of_this_host_alone_stay() {
        let bound = [('2', Binding::Bound(APP))];
        let mut world = World::new(&[in_engine('2', "app", PLUGIN)], &bound, &[]);
        world.local.insert(APP);
        assert_eq!(world.steps(), []);
    }

    #[test]
    fn a_network_that_its_owner_is_removing_is_not_removed_a_second_time() {
        let mut world = World::new(&[saying('2', "app", APP), in_engine('3', "web", PLUGIN)], &[], &[]);
        world.fleeting = [id('2'), id('3')].into();
        assert_eq!(world.steps(), []);
    }

    #[test]
    fn what_has_the_name_already_is_left_alone_and_named() {
        for (driver, digit) in [("bridge", '3'), (PLUGIN, '4')] {
            let engine = [in_engine(digit, "app", driver)];
            let world =
                World::new(&engine, &[('4', Binding::Bound(OTHER))], &[(APP, "app"), (OTHER, "app~aaaa")]);
            let (driver, docker) = (driver.to_owned(), id(digit).as_str().to_owned());
            let expected = Obstacle::NameTaken { name: "app".to_owned(), driver, docker };
            assert_eq!(world.settle(), (Vec::new(), vec![expected]));
        }
        let mut swarms = in_engine('5', "app", "overlay");
        swarms.id = "x0kq3fzyqvt2m4k5b6n7c8v9a".to_owned();
        let (steps, obstacles) = World::new(&[swarms], &[], &[(APP, "app")]).settle();
        assert!(steps.is_empty() && obstacles[0].to_string().contains("id x0kq3fzyqvt2"), "{obstacles:?}");
    }

    #[test]
    fn networks_that_say_which_they_are_need_no_memory() {
        let made = [saying('2', "app", APP)];
        let known = World::new(&made, &[], &[(APP, "app")]).steps();
        assert_eq!(known, [Step::Bind { docker: id('2'), network: APP }]);
        assert_eq!(World::new(&made, &[], &[]).steps(), [Step::Remove { docker: id('2') }]);
    }

    #[test]
    fn a_network_of_the_cluster_that_was_made_for_one_of_the_engine_is_known_again() {
        let made = id('2').network();
        let world = World::new(&[in_engine('2', "app", PLUGIN)], &[], &[(made, "app")]);
        assert_eq!(world.steps(), [Step::Bind { docker: id('2'), network: made }]);
    }

    #[test]
    fn a_network_that_nobody_knows_is_left_to_its_owner() {
        let outcome = World::new(&[in_engine('2', "app", PLUGIN)], &[], &[]).settle();
        let expected = Obstacle::Unknown { name: "app".to_owned(), docker: id('2') };
        assert_eq!(outcome, (Vec::new(), vec![expected]));
    }

    #[test]
    fn an_engine_without_a_way_out_gets_one_before_the_first_network() {
        let mut world = World::new(&[], &[], &[]);
        assert_eq!(world.steps(), []);
        world.engine.clear();
        assert_eq!(world.steps(), [Step::Gateway]);
    }

    #[test]
    fn what_has_addresses_of_a_network_is_named() {
        let with = |mut network: EngineNetwork, subnet: &str| {
            network.ipam.config.push(IpamConfig { subnet: subnet.to_owned(), ..Default::default() });
            network
        };
        let own = with(saying('2', "app", APP), "172.18.0.0/16");
        let far = with(in_engine('3', "far", "bridge"), "172.19.0.0/16");
        let near = with(in_engine('4', "near", "bridge"), "172.18.5.0/24");
        let way_out = with(in_engine('5', GATEWAY, "bridge"), "172.16.0.0/12");
        let engine = [own, far, near, way_out];
        let world = World::new(&engine, &[('2', Binding::Bound(APP))], &[(APP, "app")]);
        let texts: Vec<String> = world.settle().1.iter().map(ToString::to_string).collect();
        assert!(
            texts[0].contains("in network app (172.18.0.0/16) and in its Docker engine's network near"),
            "{texts:?}"
        );
        assert!(texts[1].starts_with("no container of this host can join network app:"), "{texts:?}");
        assert_eq!(texts.len(), 2, "{texts:?}");
    }
}
