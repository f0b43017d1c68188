//! What Docker's Engine API says of networks, containers and events, as far as it is read here.
//!
//! Engines from 20.10 on are read. A field that is absent or `null` means nothing: whether it matters is decided where
//! it is used.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::{Ipam, IpamConfig, NetworkCreate};
use crate::model::Name;
use crate::network::{MAX_ALIASES, last_local};

/// Name of weft's drivers in an engine: that of the plugin's socket.
pub const PLUGIN: &str = "weft";

/// Name of an engine's own network for ways out of networks that have none.
pub const GATEWAY: &str = "docker_gwbridge";

/// `null` is as good as nothing.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A network of the engine (`GET /networks`, `GET /networks/{id}`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineNetwork {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Name, not held to be unique by the engine.
    pub name: String,
    /// Name of its driver.
    pub driver: String,
    /// Subnets.
    #[serde(rename = "IPAM", deserialize_with = "nullable")]
    pub ipam: EngineIpam,
    /// Driver options.
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Attached containers by id; only of one network alone, not of a list.
    #[serde(deserialize_with = "nullable")]
    pub containers: BTreeMap<String, Attached>,
}

impl EngineNetwork {
    /// Its subnets, as far as they can be read.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ipam.config.iter().filter_map(|config| config.subnet.parse().ok())
    }
}

/// Address management of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineIpam {
    /// Subnets.
    #[serde(deserialize_with = "nullable")]
    pub config: Vec<IpamConfig>,
    /// Options of the address manager.
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
}

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Attached {
    /// Name of the container.
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
}

/// A container in a list (`GET /containers/json`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listed {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its networks.
    #[serde(deserialize_with = "nullable")]
    pub network_settings: ContainerNetworks,
}

/// A container (`GET /containers/{id}/json`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, after a slash.
    pub name: String,
    /// How it goes.
    #[serde(deserialize_with = "nullable")]
    pub state: ContainerState,
    /// Its networks.
    #[serde(deserialize_with = "nullable")]
    pub network_settings: ContainerNetworks,
}

/// How a container goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// Its first process, in the engine's PID namespace; 0 where none runs.
    pub pid: u32,
}

/// Networks of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerNetworks {
    /// Path of its network namespace, in the engine's mount namespace.
    pub sandbox_key: String,
    /// Endpoints by name of the network.
    #[serde(deserialize_with = "nullable")]
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// An endpoint of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSettings {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits; empty while the container does not run.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Further names; engines before 25 add the first 12 digits of the container's id.
    #[serde(deserialize_with = "nullable")]
    pub aliases: Vec<String>,
    /// All names, from engines of 25 on.
    #[serde(rename = "DNSNames", deserialize_with = "nullable")]
    pub dns_names: Vec<String>,
}

/// What an endpoint is called: the name of its container, then all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The container's.
    pub name: Name,
    /// Others, none twice, [`MAX_ALIASES`] at most.
    pub aliases: Vec<Name>,
}

impl Container {
    /// Endpoints by id, with their names. Names that cannot be any of ours (longer than a label of DNS) are left out.
    pub fn called(&self) -> impl Iterator<Item = (&str, Called)> {
        let endpoints = self.network_settings.networks.values().filter(|e| !e.endpoint_id.is_empty());
        endpoints.filter_map(|endpoint| {
            let name: Name = self.name.trim_start_matches('/').parse().ok()?;
            let mut aliases: Vec<Name> = Vec::new();
            for alias in endpoint.aliases.iter().chain(&endpoint.dns_names) {
                let alias = alias.parse().ok().filter(|alias| *alias != name && !aliases.contains(alias));
                aliases.extend(alias);
            }
            aliases.truncate(MAX_ALIASES);
            Some((endpoint.endpoint_id.as_str(), Called { name, aliases }))
        })
    }
}

/// Something that happened in the engine (`GET /events`), one object a line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// `network` or `container`.
    pub r#type: String,
    /// What happened.
    pub action: String,
    /// What it happened to.
    pub actor: Actor,
}

/// What an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Actor {
    /// 64 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// More about it.
    #[serde(deserialize_with = "nullable")]
    pub attributes: BTreeMap<String, String>,
}

/// What is to be looked at after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look<'e> {
    /// All networks.
    Networks,
    /// All networks, of which this one is no more.
    Destroyed(&'e str),
    /// A container that was connected to a network of weft's, and the network.
    Connected {
        /// Id of the network.
        network: &'e str,
        /// Id of the container.
        container: &'e str,
    },
    /// A container, if it is in a network of weft's.
    Container(&'e str),
    /// A container that is no more.
    Gone(&'e str),
}

impl Event {
    /// What is to be looked at, if it concerns networks of weft's or may.
    #[must_use]
    pub fn look(&self) -> Option<Look<'_>> {
        let attribute = |key: &str| self.actor.attributes.get(key).map(String::as_str);
        match (self.r#type.as_str(), self.action.as_str()) {
            ("network", "destroy" | "remove") => Some(Look::Destroyed(&self.actor.id)),
            ("network", "create" | "update") => Some(Look::Networks),
            ("network", "connect") if attribute("type") == Some(PLUGIN) => {
                Some(Look::Connected { network: &self.actor.id, container: attribute("container")? })
            }
            ("network", "disconnect") if attribute("type") == Some(PLUGIN) => {
                Some(Look::Container(attribute("container")?))
            }
            ("container", "start" | "restart" | "rename") => Some(Look::Container(&self.actor.id)),
            ("container", "die" | "destroy") => Some(Look::Gone(&self.actor.id)),
            _ => None,
        }
    }
}

/// A request to make a network (`POST /networks/create`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MakeNetwork {
    /// The network in the words that weft's own API shares with Docker's.
    #[serde(flatten)]
    pub network: NetworkCreate,
    /// Whether a second network of the name is refused: older engines make it otherwise.
    #[serde(rename = "CheckDuplicate")]
    pub check_duplicate: bool,
}

impl MakeNetwork {
    /// The network for ways out, as engines make it themselves, but with the last subnet they would take that none of
    /// `used` overlaps.
    #[must_use]
    pub fn gateway(used: &[IpNet]) -> Option<Self> {
        let subnet = last_local(used)?;
        let options = [
            ("com.docker.network.bridge.name", GATEWAY),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ];
        let config = vec![IpamConfig { subnet: subnet.to_string(), ..IpamConfig::default() }];
        let network = NetworkCreate {
            name: GATEWAY.to_owned(),
            driver: "bridge".to_owned(),
            ipam: Ipam { config, ..Ipam::default() },
            options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..NetworkCreate::default()
        };
        Some(Self { network, check_duplicate: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        serde_json::from_str(text).expect("an event")
    }

    #[test]
    fn events_of_an_engine_say_what_to_look_at() {
        // As Docker 20.10.24 wrote them.
        let connect = event(
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"9b95","Attributes":{"container":"dcb1","name":"app","type":"weft"}},"scope":"local","time":1,"timeNano":1}"#,
        );
        assert_eq!(connect.look(), Some(Look::Connected { network: "9b95", container: "dcb1" }));
        let start = event(
            r#"{"status":"start","id":"dcb1","from":"bb:1","Type":"container","Action":"start","Actor":{"ID":"dcb1","Attributes":{"image":"bb:1","name":"web"}},"scope":"local","time":1,"timeNano":1}"#,
        );
        assert_eq!(start.look(), Some(Look::Container("dcb1")));
        let made = event(r#"{"Type":"network","Action":"create","Actor":{"ID":"9b95","Attributes":null}}"#);
        assert_eq!(made.look(), Some(Look::Networks));
        let removed = event(r#"{"Type":"network","Action":"destroy","Actor":{"ID":"9b95"}}"#);
        assert_eq!(removed.look(), Some(Look::Destroyed("9b95")));
        let gone = event(r#"{"Type":"container","Action":"die","Actor":{"ID":"dcb1"}}"#);
        assert_eq!(gone.look(), Some(Look::Gone("dcb1")));
    }

    #[test]
    fn events_of_others_are_nothing_to_look_at() {
        let other = r#"{"Type":"network","Action":"connect","Actor":{"ID":"9b95","Attributes":{"container":"dcb1","type":"bridge"}}}"#;
        for text in [other, r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"dcb1"}}"#, "{}"] {
            assert_eq!(event(text).look(), None, "{text}");
        }
    }

    #[test]
    fn a_containers_endpoints_are_called_as_it_is_and_by_their_aliases() {
        let text = r#"{"Id":"c4af","Name":"/web","State":{"Pid":21764},"NetworkSettings":{"SandboxKey":"/run/docker/netns/6e91",
            "Networks":{"app":{"Aliases":["al","c4af","web"],"NetworkID":"54b5","EndpointID":"13c4"},
                        "new":{"Aliases":["al"],"DNSNames":["web","al","c4af","host-1"],"NetworkID":"54b6","EndpointID":"13c5"},
                        "off":{"Aliases":null,"NetworkID":"54b7","EndpointID":""}}}}"#;
        let container: Container = serde_json::from_str(text).expect("a container");
        let called: Vec<_> = container.called().collect();
        let names = |index: usize| {
            let (endpoint, called): &(&str, Called) = &called[index];
            let aliases: Vec<&str> = called.aliases.iter().map(Name::as_str).collect();
            (*endpoint, called.name.as_str(), aliases)
        };
        assert_eq!(called.len(), 2, "an endpoint without an id is none: {called:?}");
        assert_eq!(names(0), ("13c4", "web", vec!["al", "c4af"]));
        assert_eq!(names(1), ("13c5", "web", vec!["al", "c4af", "host-1"]));
    }

    #[test]
    fn names_that_cannot_be_ours_are_left_out() {
        let long = "x".repeat(64);
        let text = format!(
            r#"{{"Name":"/web","NetworkSettings":{{"Networks":{{"app":{{"EndpointID":"1","Aliases":["{long}","a b",""]}}}}}}}}"#
        );
        let container: Container = serde_json::from_str(&text).expect("a container");
        let called: Vec<_> = container.called().collect();
        assert!(called[0].1.aliases.is_empty(), "{called:?}");
    }

    #[test]
    fn a_network_is_asked_for_in_dockers_words() {
        let network =
            NetworkCreate { name: "app".to_owned(), driver: PLUGIN.to_owned(), ..Default::default() };
        let made = serde_json::to_value(MakeNetwork { network, check_duplicate: true }).expect("JSON");
        assert_eq!(
            (&made["Name"], &made["Driver"], &made["CheckDuplicate"]),
            (&"app".into(), &"weft".into(), &true.into())
        );
    }
}
