//! Sandboxes of a rig's agents as ends of measurements.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use weft_control::api::{
    Connect, Connected, EndpointConfig, EndpointIpamConfig, Network, NetworkCreate, NetworkCreated, Sandbox,
    SandboxCreate,
};
use weft_control::io::namespace::Namespace;

use super::{Host, Rig};
use crate::client::segment;
use crate::failure::Failure;
use crate::traffic::{Ends, Station};

impl Rig {
    /// Makes a network through a host's agent; gives its first IPv4 subnet as text.
    ///
    /// # Errors
    /// What the agent says.
    pub fn create_network(&self, host: usize, request: &NetworkCreate) -> Result<Network> {
        let client = self.hosts[host].client()?;
        let _: NetworkCreated = client.change("/networks/create", request).map_err(words)?;
        client.read(&format!("/networks/{}", segment(&request.name))).map_err(words)
    }

    /// Makes an overlay network through the first host's agent and waits until all others know it.
    ///
    /// # Errors
    /// What the agent says, or others do not learn of it within `limit`.
    pub fn create_overlay(&self, name: &str, sealed: bool, limit: Duration) -> Result<()> {
        let options = sealed.then(|| ("encrypted".to_owned(), String::new())).into_iter().collect();
        let (name, driver) = (name.to_owned(), "overlay".to_owned());
        let request = NetworkCreate { name, driver, options, ..NetworkCreate::default() };
        self.create_network(0, &request)?;
        (1..self.hosts.len()).try_for_each(|host| self.await_network(host, &request.name, limit))
    }

    /// Waits until a host's agent knows a network.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn await_network(&self, host: usize, network: &str, limit: Duration) -> Result<()> {
        let client = self.hosts[host].client()?;
        let path = format!("/networks/{}", segment(network));
        let known = self.interrupt.until(limit, || Ok(client.read::<Network>(&path).ok()))?;
        known
            .map(drop)
            .with_context(|| format!("host {} does not learn of the network", self.hosts[host].name))
    }

    /// Makes a sandbox through a host's agent, on no network.
    ///
    /// # Errors
    /// What the agent says.
    pub fn create_sandbox(&self, host: usize, name: &str) -> Result<Namespace> {
        let client = self.hosts[host].client()?;
        let request = SandboxCreate { name: name.to_owned(), ..SandboxCreate::default() };
        let sandbox: Sandbox = client.change("/sandboxes/create", &request).map_err(words)?;
        Ok(Namespace::from_descriptor(client.namespace(&sandbox.name).map_err(words)?)?)
    }

    /// Attaches a sandbox to a network through its host's agent.
    ///
    /// # Errors
    /// What the agent says.
    pub fn connect(
        &self,
        host: usize,
        network: &str,
        sandbox: &str,
        ip: Option<Ipv4Addr>,
    ) -> Result<Connected> {
        let ipam_config = EndpointIpamConfig { ipv4_address: ip, ipv6_address: None };
        let endpoint_config = EndpointConfig { ipam_config, ..EndpointConfig::default() };
        let request = Connect { container: sandbox.to_owned(), endpoint_config };
        let path = format!("/networks/{}/connect", segment(network));
        self.hosts[host].client()?.change(&path, &request).map_err(words)
    }

    /// Removes a sandbox.
    ///
    /// # Errors
    /// What the agent says.
    pub fn remove_sandbox(&self, host: usize, name: &str) -> Result<()> {
        self.hosts[host].client()?.remove(&format!("/sandboxes/{}", segment(name))).map_err(words)
    }

    /// Makes a sandbox, attached to a network.
    ///
    /// # Errors
    /// What the agent says.
    pub fn station(&self, host: usize, network: &str, sandbox: &str) -> Result<Station> {
        let namespace = self.create_sandbox(host, sandbox)?;
        let connected = self.connect(host, network, sandbox, None)?;
        let addresses =
            connected.addresses.iter().filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        let (four, six): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
        let address = four.first().copied().context("the endpoint has no IPv4 address")?;
        Ok(Station::new(namespace, address, six.first().copied(), None))
    }

    /// Two stations with this rig's Ctrl-C between them.
    #[must_use]
    pub fn ends<'a>(&'a self, from: &'a Station, to: &'a Station) -> Ends<'a> {
        Ends { from, to, interrupt: &self.interrupt }
    }
}

impl Host {
    /// Reads a value of this host's agent.
    ///
    /// # Errors
    /// What the agent says.
    pub fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.client()?.read(path).map_err(words)
    }
}

fn words(failure: Failure) -> anyhow::Error {
    anyhow!(failure.message())
}
