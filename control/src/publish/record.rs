//! What is kept of published ports: per sandbox, wishes and what was given for them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{InvalidPort, Port, PortBinding, PortMap, Published, SpecError, Taken, Wish, spec};
use crate::model::SandboxId;
use crate::storage::{Row, Table, Write};

/// Most ports that a sandbox may publish: each costs a socket of the agent's per address.
pub const MAX_PORTS: usize = 1024;

/// The ports of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Ports that its maker says something listens on.
    pub exposed: BTreeSet<Port>,
    /// Ports to be published.
    pub wishes: Vec<Wish>,
    /// What was given; nothing while the sandbox has no endpoint that ports can be published by.
    pub given: Vec<Published>,
}

/// Why wishes are refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// A key is no port.
    #[error(transparent)]
    Port(#[from] InvalidPort),
    /// A binding is none.
    #[error(transparent)]
    Binding(#[from] SpecError),
    /// More than [`MAX_PORTS`].
    #[error("{0} ports are too many: a sandbox may publish {MAX_PORTS}")]
    TooMany(usize),
}

/// A row of the state file that is no record of ports: written by another version, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {0} of published ports is not one of this version's")]
pub struct Unreadable(pub String);

impl Ports {
    /// What a request asks for, in the words of Docker's API; with `all`, exposed ports that nobody bound get any port.
    ///
    /// # Errors
    /// Something of it is no port, no address, or too much.
    pub fn requested<'e>(
        exposed: impl IntoIterator<Item = &'e String>,
        bindings: &PortMap,
        all: bool,
    ) -> Result<Self, WishError> {
        let mut exposed = exposed.into_iter().map(|text| text.parse()).collect::<Result<BTreeSet<_>, _>>()?;
        let mut wishes = Vec::new();
        for (port, bindings) in bindings {
            let port: Port = port.parse()?;
            exposed.insert(port);
            let unbound = [PortBinding::default()];
            let bindings = bindings.as_deref().filter(|list| !list.is_empty()).unwrap_or(&unbound);
            for binding in bindings {
                wishes.push(wish(port, binding)?);
            }
        }
        if all {
            let unbound = exposed.iter().filter(|port| !bindings.contains_key(&port.to_string()));
            wishes.extend(unbound.map(|&port| Wish { port, host: None, host_ports: None }));
        }
        match wishes.len() {
            more if more > MAX_PORTS => Err(WishError::TooMany(more)),
            _ => Ok(Self { exposed, wishes, given: Vec::new() }),
        }
    }

    /// Whether there is anything to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exposed.is_empty() && self.wishes.is_empty()
    }

    /// As `HostConfig.PortBindings`: what was asked for.
    #[must_use]
    pub fn bindings(&self) -> PortMap {
        let mut bindings = PortMap::new();
        for Wish { port, host, host_ports } in &self.wishes {
            let host_port = match host_ports {
                Some(range) if range.start() == range.end() => range.start().to_string(),
                Some(range) => format!("{}-{}", range.start(), range.end()),
                None => String::new(),
            };
            let host_ip = host.map(|host| host.to_string()).unwrap_or_default();
            let binding = PortBinding { host_ip, host_port };
            bindings.entry(port.to_string()).or_default().get_or_insert_default().push(binding);
        }
        bindings
    }

    /// As `NetworkSettings.Ports`: exposed ports, with bindings or `null`.
    #[must_use]
    pub fn shown(&self) -> PortMap {
        let mut shown: PortMap = self.exposed.iter().map(|port| (port.to_string(), None)).collect();
        for one in &self.given {
            let binding = PortBinding { host_ip: one.host.to_string(), host_port: one.host_port.to_string() };
            shown.entry(one.port.to_string()).or_default().get_or_insert_default().push(binding);
        }
        shown
    }
}

fn wish(port: Port, binding: &PortBinding) -> Result<Wish, SpecError> {
    let PortBinding { host_ip, host_port } = binding;
    let address = if host_ip.contains(':') { format!("[{host_ip}]") } else { host_ip.clone() };
    let text = if address.is_empty() {
        format!("{host_port}:{port}")
    } else {
        format!("{address}:{host_port}:{port}")
    };
    Ok(spec::parse_publish(&text)?.remove(0))
}

/// The ports of all sandboxes that have any.
#[derive(Debug, Clone, Default)]
pub struct Publishing(BTreeMap<SandboxId, Ports>);

impl Publishing {
    /// Reads what [`save`] wrote.
    ///
    /// # Errors
    /// The first row that cannot be read.
    pub fn load(rows: Vec<Row>) -> Result<Self, Unreadable> {
        let read = |(key, value): Row| {
            let unreadable = || Unreadable(key.iter().map(|octet| format!("{octet:02x}")).collect());
            let id = <[u8; 16]>::try_from(key.as_slice()).map_err(|_| unreadable())?;
            let ports = postcard::from_bytes(&value).map_err(|_| unreadable())?;
            Ok((SandboxId(id), ports))
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Every sandbox with its ports, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (SandboxId, &Ports)> {
        self.0.iter().map(|(id, ports)| (*id, ports))
    }

    /// The ports of a sandbox.
    #[must_use]
    pub fn get(&self, sandbox: SandboxId) -> Option<&Ports> {
        self.0.get(&sandbox)
    }

    /// Adds or replaces what has been made durable.
    pub fn put(&mut self, sandbox: SandboxId, ports: Ports) {
        if ports.is_empty() {
            self.0.remove(&sandbox);
        } else {
            self.0.insert(sandbox, ports);
        }
    }

    /// Forgets what has durably been removed.
    pub fn remove(&mut self, sandbox: SandboxId) -> Option<Ports> {
        self.0.remove(&sandbox)
    }

    /// Everything that sandboxes have on this host.
    pub fn given(&self) -> impl Iterator<Item = (SandboxId, Published)> {
        self.0.iter().flat_map(|(id, ports)| ports.given.iter().map(|one| (*id, *one)))
    }

    /// Which ports of the host are taken.
    #[must_use]
    pub fn taken(&self) -> Taken {
        Taken::by(self.0.values().flat_map(|ports| &ports.given))
    }
}

/// The write that makes a sandbox's ports durable.
#[must_use]
pub fn save(sandbox: SandboxId, ports: &Ports) -> Write {
    let value = postcard::to_stdvec(ports).expect("plain data of bounded size has an encoding");
    Write { table: Table::Ports, key: sandbox.0.to_vec(), value: Some(value) }
}

/// The write that forgets a sandbox's ports.
#[must_use]
pub fn forget(sandbox: SandboxId) -> Write {
    Write { table: Table::Ports, key: sandbox.0.to_vec(), value: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(host_ip: &str, host_port: &str) -> PortBinding {
        PortBinding { host_ip: host_ip.to_owned(), host_port: host_port.to_owned() }
    }

    fn requested(all: bool) -> Ports {
        let bindings = [
            ("80/tcp".to_owned(), Some(vec![binding("127.0.0.1", "8080"), binding("::1", "8080-8090")])),
            ("53/udp".to_owned(), None),
        ];
        Ports::requested([&"80/tcp".to_owned(), &"443".to_owned()], &bindings.into(), all).expect("ports")
    }

    #[test]
    fn a_request_is_read_as_dockers_api_has_it() {
        let ports = requested(false);
        assert_eq!(ports.exposed.len(), 3);
        let hosts: Vec<_> = ports.wishes.iter().map(|wish| wish.host.map(|host| host.to_string())).collect();
        assert_eq!(hosts, [None, Some("127.0.0.1".to_owned()), Some("::1".to_owned())]);
        assert_eq!(ports.wishes[2].host_ports, Some(8080..=8090));
        assert_eq!(requested(true).wishes.len(), 4, "443 too");
        let bindings = serde_json::to_value(ports.bindings()).expect("json");
        let expected = serde_json::json!({
            "53/udp": [{"HostIp": "", "HostPort": ""}],
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8080-8090"}]
        });
        assert_eq!(bindings, expected, "and shown so");
        let bad = |port: &str, host: PortBinding| {
            let bindings = [(port.to_owned(), Some(vec![host]))].into();
            Ports::requested([], &bindings, false).expect_err("no port").to_string()
        };
        assert_eq!(bad("0/tcp", binding("", "")), "invalid port '0/tcp'");
        assert_eq!(bad("80/tcp", binding("", "x")), "invalid hostPort: x");
        assert_eq!(bad("80/tcp", binding("x", "")), "invalid IP address: x");
    }

    #[test]
    fn what_is_given_is_shown_and_comes_back_after_a_restart() {
        let mut ports = requested(false);
        let (port, host) = (ports.wishes[1].port, [127, 0, 0, 1].into());
        ports.given.push(Published { port, host, host_port: 8080 });
        let shown = serde_json::to_value(ports.shown()).expect("json");
        let expected = serde_json::json!({
            "443/tcp": null, "53/udp": null, "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
        });
        assert_eq!(shown, expected);
        let saved = save(SandboxId([1; 16]), &ports);
        let row = (saved.key, saved.value.expect("a value"));
        let loaded = Publishing::load(vec![row.clone()]).expect("it was saved");
        assert_eq!(loaded.get(SandboxId([1; 16])), Some(&ports));
        for cut in 0..row.1.len() {
            assert!(Publishing::load(vec![(row.0.clone(), row.1[..cut].to_vec())]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn nobody_publishes_without_end() {
        let port = |number: u32| (format!("{number}/tcp"), None);
        let refused = Ports::requested([], &(1..=1025).map(port).collect(), false).expect_err("too many");
        assert_eq!(refused, WishError::TooMany(1025));
    }
}
