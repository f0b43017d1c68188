//! Ports of a sandbox on the host: `-p`, `-P`, `--expose`.

use std::collections::BTreeMap;

use clap::Args;
use weft_control::api::{Empty, HostConfig};
use weft_control::publish::{Port, PortBinding, PortMap, SpecError, Wish, parse_expose, parse_publish};

/// Arguments of every verb that makes a sandbox.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Ports to publish.
    #[arg(
        help = "Publish a port on the host: [IP:][HOST:]PORT[/tcp|udp|sctp]; ranges, e.g. 8000-8010:80, and IPv6, e.g. [::1]:80:80",
        short, long, value_name = "PORT", value_parser = wishes)]
    publish: Vec<Wishes>,
    /// Publish every exposed port, each on any port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Port, or range, that something in the sandbox listens on
    #[arg(long, value_name = "PORT", value_parser = exposed)]
    expose: Vec<Exposed>,
}

/// What one `-p` asks for.
#[derive(Debug, Clone)]
struct Wishes(Vec<Wish>);

/// What one `--expose` names.
#[derive(Debug, Clone)]
struct Exposed(Vec<Port>);

fn wishes(text: &str) -> Result<Wishes, SpecError> {
    parse_publish(text).map(Wishes)
}

fn exposed(text: &str) -> Result<Exposed, SpecError> {
    parse_expose(text).map(Exposed)
}

impl PublishArgs {
    /// Whether any port is to be published.
    pub(crate) fn publishes(&self) -> bool {
        !self.publish.is_empty() || self.publish_all
    }

    /// Whether any port is exposed.
    pub(crate) fn exposes(&self) -> bool {
        !self.expose.is_empty()
    }

    /// Exposed ports, as the API has them.
    pub(crate) fn exposed_ports(&self) -> BTreeMap<String, Empty> {
        self.expose.iter().flat_map(|Exposed(ports)| ports).map(|port| (port.to_string(), Empty {})).collect()
    }

    /// Ports to publish, as the API has them.
    pub(crate) fn host_config(&self) -> HostConfig {
        let mut port_bindings = PortMap::new();
        for Wish { port, host, host_ports } in self.publish.iter().flat_map(|Wishes(wishes)| wishes) {
            let host_port = match host_ports {
                None => String::new(),
                Some(ports) if ports.len() == 1 => ports.start().to_string(),
                Some(ports) => format!("{}-{}", ports.start(), ports.end()),
            };
            let host_ip = host.map(|host| host.to_string()).unwrap_or_default();
            let bindings = port_bindings.entry(port.to_string()).or_default().get_or_insert_default();
            bindings.push(PortBinding { host_ip, host_port });
        }
        HostConfig { port_bindings, publish_all_ports: self.publish_all }
    }
}
