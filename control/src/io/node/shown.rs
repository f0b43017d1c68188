//! The node as people see it: the shapes of the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::http::StatusCode;

use super::{Node, json, now};
use crate::api;
use crate::catalog::Reach;
use crate::command::State;
use crate::driver::COUNTERS;
use crate::io::commands::{self, Directory};
use crate::io::server::{Answer, Refusal};
use crate::io::streams::StreamCounters;
use crate::model::{Name, SandboxId};
use crate::publish::Ports;
use crate::sandbox::{Origin, Sandbox};
use crate::timestamp::UnixMillis;

/// What does not change while the agent runs, or only with the underlay.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) name: Name,
    pub(crate) workers: usize,
    pub(crate) started: Instant,
    pub(crate) namespaces: std::path::PathBuf,
    /// Directories of sandboxes' commands.
    pub(crate) commands: std::path::PathBuf,
    pub(crate) streams: Arc<StreamCounters>,
    /// Things an operator should look at.
    pub(crate) warnings: BTreeMap<&'static str, String>,
}

impl Node {
    pub(super) fn show_status(&self) -> api::Status {
        let mut status = self.cluster.status();
        status.warnings.extend(self.facts.warnings.values().cloned());
        status.warnings.extend(self.engine_warnings());
        let uptime_seconds = now().saturating_duration_since(self.facts.started).as_secs();
        api::Status { workers: self.facts.workers, uptime_seconds, ..status }
    }

    /// `in_bridges` is what the kernel dropped between sandboxes of this host, by reason.
    pub(super) fn show_stats(&self, in_bridges: &BTreeMap<String, u64>) -> api::Stats {
        let counted = |name: &&str| (format!("bridge_{name}"), in_bridges.get(*name).copied().unwrap_or(0));
        let totals = self.dataplane.stats();
        let own = |(name, count): (&'static str, u64)| (name.to_owned(), count);
        let streams = &self.facts.streams;
        let streams = [
            ("stream_connections_refused", &streams.refused),
            ("stream_connections_broken", &streams.broken),
            ("stream_messages_unsent", &streams.unsent),
            ("admissions_refused", &streams.not_admitted),
        ];
        let streams = streams.map(|(name, count)| (name, count.load(Ordering::Relaxed)));
        let counters = self.counters;
        let node = [
            ("audits", counters.audits),
            ("repairs", counters.repairs),
            ("kernel_failures", counters.kernel_failures),
        ];
        api::Stats {
            dataplane: totals.counters().map(own).collect(),
            drops: totals.drops_by_reason().map(own).chain(COUNTERS.iter().map(counted)).collect(),
            gossip: self.cluster.gossip().counters().named().into_iter().chain(streams).map(own).collect(),
            agent: node.into_iter().map(own).collect(),
            names: self.names.counters().named().into_iter().map(own).collect(),
            sessions: self.cluster.session_counters().into_iter().map(own).collect(),
        }
    }

    pub(super) fn show_fdb(&self, name: &str) -> Result<Answer, Refusal> {
        let id = self.resolve_overlay(name)?;
        let mut entries = self.cluster.fdb(now(), id);
        if let Some(segment) = self.programmed(id) {
            let learned = self.dataplane.learned(segment.vni).into_iter();
            entries.extend(learned.map(|(mac, vtep, _)| api::FdbEntry {
                mac: mac.to_string(),
                ips: Vec::new(),
                vtep: Some(vtep),
                vni: segment.vni.into(),
                node: String::new(),
                endpoint: String::new(),
                state: "learned".to_owned(),
            }));
        }
        json(StatusCode::OK, &entries)
    }

    /// The directory of a sandbox's command.
    pub(super) fn commands_of(&self, sandbox: SandboxId) -> std::path::PathBuf {
        self.facts.commands.join(sandbox.long())
    }

    pub(super) fn show_networks(&self) -> Vec<api::Network> {
        let mut networks = self.cluster.networks(now());
        networks.extend(self.local.shown());
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    pub(super) fn show_network(&self, reach: Reach) -> Option<api::Network> {
        match reach {
            Reach::Cluster(id) => self.cluster.network(now(), id),
            Reach::Local(id) => self.local.show_whole(id, self.facts.name.as_str()),
        }
    }

    pub(super) fn show_sandboxes(&self) -> Vec<api::Sandbox> {
        let mut shown: Vec<_> = self.sandboxes.iter().map(|sandbox| self.show_sandbox(sandbox)).collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        shown
    }

    pub(super) fn show_sandbox(&self, sandbox: &Sandbox) -> api::Sandbox {
        let own = self.attachments().filter(|own| own.sandbox == sandbox.id);
        let networks = own.filter_map(|own| {
            let lease = own.lease;
            let interface = sandbox.interfaces.get(&lease.endpoint)?.clone();
            let address = |four: bool| lease.addresses.iter().find(|net| net.addr().is_ipv4() == four);
            let (ip_address, ip_prefix_len) = split(address(true));
            let (global_ipv6_address, global_ipv6_prefix_len) = split(address(false));
            let endpoint = api::SandboxEndpoint {
                network_id: lease.network.long(),
                endpoint_id: lease.endpoint.long(),
                interface,
                mac_address: lease.shown_mac(),
                ip_address,
                ip_prefix_len,
                global_ipv6_address,
                global_ipv6_prefix_len,
            };
            Some((self.name_of(lease.network), endpoint))
        });
        let directory = Directory::at(&self.commands_of(sandbox.id));
        let ports = self.publishing.get(sandbox.id);
        let port_bindings = ports.map(Ports::bindings).unwrap_or_default();
        api::Sandbox {
            name: sandbox.name.to_string(),
            id: sandbox.id.long(),
            created: UnixMillis(sandbox.created).to_string(),
            namespace: match sandbox.has_namespace() {
                true => self.facts.namespaces.join(sandbox.name.as_str()).display().to_string(),
                false => String::new(),
            },
            ephemeral: sandbox.owner.is_some(),
            adopted: sandbox.origin == Origin::Adopted,
            networks: networks.collect(),
            state: show_state(sandbox, &directory),
            command: directory.command(),
            directory: self.commands_of(sandbox.id).display().to_string(),
            network_settings: api::NetworkSettings { ports: ports.map(Ports::shown).unwrap_or_default() },
            host_config: api::HostConfig { port_bindings, publish_all_ports: false },
        }
    }
}

/// How the command of a sandbox goes; one without any is there to be entered.
fn show_state(sandbox: &Sandbox, directory: &Directory) -> State {
    match directory.life() {
        Some(life) => life.state(commands::is_supervised(&life)),
        None => State::standing(UnixMillis(sandbox.created)),
    }
}

/// Address and prefix length, or Docker's way of having none.
fn split(net: Option<&ipnet::IpNet>) -> (String, u8) {
    net.map_or((String::new(), 0), |net| (net.addr().to_string(), net.prefix_len()))
}
