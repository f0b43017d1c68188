//! Where in the network a sandbox's command lives: in networks, in none, in the host's or in another sandbox's.

use std::os::fd::OwnedFd;

use weft_control::api::{EndpointConfig, EndpointIpamConfig, Network, Sandbox};
use weft_control::command::{Attachment, HOST, NONE, SHARED};
use weft_control::local::LocalError;

use super::path;
use crate::args::RunArgs;
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::surroundings::Surroundings;

/// What sandboxes are attached to that name no network.
const DEFAULT: &str = "bridge";

/// The network mode that was asked for, in Docker's words, and what to attach the sandbox to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) name: String,
    pub(super) networks: Vec<Attachment>,
}

/// Works out the mode.
///
/// # Errors
/// Wishes that exclude each other, with Docker's words; a sandbox to share with that is not there or does not run.
pub(super) fn mode(args: &RunArgs, client: &Client) -> Outcome<Mode> {
    let first = args.network.first().map(String::as_str);
    let alone = |name: &str| args.network.len() > 1 && args.network.iter().any(|network| network == name);
    if alone(NONE) {
        return refuse(&LocalError::Private.to_string());
    }
    let shares = |network: &String| network == HOST || network.starts_with(SHARED);
    if args.network.len() > 1 && args.network.iter().any(shares) {
        return refuse(&LocalError::Shared.to_string());
    }
    match first {
        Some(NONE | HOST) => apart(args, first.unwrap_or(NONE).to_owned()),
        Some(text) if text.starts_with(SHARED) => shared(args, &text[SHARED.len()..], client),
        Some(DEFAULT) => on_default(args, &args.network),
        Some(_) => Ok(attached(args, &args.network)),
        None if has_default(client)? => on_default(args, &[DEFAULT.to_owned()]),
        None => apart(args, NONE.to_owned()),
    }
}

/// Whether the host has the network that sandboxes are attached to without being asked.
fn has_default(client: &Client) -> Outcome<bool> {
    match client.read::<Network>(&format!("/networks/{}", segment(DEFAULT))) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_not_found() => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// The network that has no names, nor addresses to choose.
fn on_default(args: &RunArgs, networks: &[String]) -> Outcome<Mode> {
    user_defined_only(args)?;
    Ok(attached(args, networks))
}

/// A mode without endpoints, which have no addresses or names to be wished for.
fn apart(args: &RunArgs, name: String) -> Outcome<Mode> {
    user_defined_only(args)?;
    Ok(Mode { name, networks: Vec::new() })
}

fn user_defined_only(args: &RunArgs) -> Outcome {
    if args.ip.is_some() || args.ip6.is_some() {
        return refuse(
            "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only",
        );
    }
    if !args.network_alias.is_empty() {
        return refuse(
            "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks",
        );
    }
    Ok(())
}

fn shared(args: &RunArgs, name: &str, client: &Client) -> Outcome<Mode> {
    if name.is_empty() {
        return refuse("invalid network mode: invalid container format container:<name|id>");
    }
    if args.names.hostname.is_some() {
        return refuse("conflicting options: hostname and the network mode");
    }
    if !args.names.dns.is_empty() || !args.names.dns_search.is_empty() || !args.names.dns_option.is_empty() {
        return refuse("conflicting options: dns and the network mode");
    }
    if !args.names.add_host.is_empty() {
        return refuse("conflicting options: custom host-to-IP mapping and the network mode");
    }
    if args.ports.publishes() {
        return refuse("conflicting options: port publishing and the container type network mode");
    }
    if args.ports.exposes() {
        return refuse("conflicting options: port exposing and the container type network mode");
    }
    if args.name.as_deref() == Some(name) {
        return refuse("cannot join own network namespace");
    }
    let other: Sandbox = client.read(&path(name))?;
    if !other.state.running {
        let why = format!(
            "cannot join network namespace of a non running container: container {name} is {}",
            other.state.status
        );
        return Err(refused(409, why));
    }
    apart(args, format!("{SHARED}{}", other.id))
}

fn attached(args: &RunArgs, networks: &[String]) -> Mode {
    let mut wishes = EndpointConfig {
        ipam_config: EndpointIpamConfig { ipv4_address: args.ip, ipv6_address: args.ip6 },
        mac_address: args.mac.clone().unwrap_or_default(),
        aliases: args.network_alias.clone(),
        gw_priority: 0,
    };
    let attach = |network: &String| Attachment {
        network: network.clone(),
        endpoint_config: std::mem::take(&mut wishes),
    };
    Mode {
        name: networks.first().cloned().unwrap_or_default(),
        networks: networks.iter().map(attach).collect(),
    }
}

/// The namespace that commands in a sandbox live in.
///
/// # Errors
/// The agent gives none, or the sandbox it shares with is gone.
pub(crate) fn namespace_of(sandbox: &Sandbox, client: &Client) -> Outcome<OwnedFd> {
    let mode = sandbox.command.as_ref().map_or("", |command| command.network_mode.as_str());
    match mode.strip_prefix(SHARED) {
        Some(other) => client.namespace(other),
        None if mode == HOST => client.agent_namespace(),
        None => client.namespace(&sandbox.id),
    }
}

/// What commands in a sandbox find in `/etc`; nothing of its own where they live in the host's network.
///
/// # Errors
/// The agent does not say, or the sandbox it shares with is gone.
pub(crate) fn surroundings_of(sandbox: &Sandbox, client: &Client) -> Outcome<Option<Surroundings>> {
    let mode = sandbox.command.as_ref().map_or("", |command| command.network_mode.as_str());
    if mode == HOST {
        return Ok(None);
    }
    let files = |id: &str| client.read(&format!("{}/files", path(id)));
    match mode.strip_prefix(SHARED) {
        Some(other) => Ok(Surroundings::new(&client.read(&path(other))?, files(other)?)),
        None => Ok(Surroundings::new(sandbox, files(&sandbox.id)?)),
    }
}

fn refuse<T>(why: &str) -> Outcome<T> {
    Err(refused(400, why.to_owned()))
}

fn refused(status: u16, message: String) -> Failure {
    Failure::Refused { status, message }
}
