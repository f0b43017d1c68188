//! `weft sandbox …`, `weft run`, `weft exec`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use weft_control::api::{EndpointConfig, EndpointIpamConfig, Sandbox, SandboxCreate};
use weft_control::model::Name;

use super::network::{attach, inspect_each, remove_each};
use super::{id_cell, or_dash};
use crate::args::{ExecArgs, NamesArgs, RunArgs, SandboxVerb, Target};
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::output::{Screen, Table, escape};
use crate::process::{Job, Signals, run_in};
use crate::surroundings::Surroundings;

/// The network that is none: only a loopback interface, as Docker's.
const NO_NETWORK: &str = "none";

/// Does what was asked.
pub(crate) fn perform(verb: &SandboxVerb, client: Client, screen: &mut Screen) -> Outcome {
    match verb {
        SandboxVerb::Create { name, names } => {
            let request = SandboxCreate { name: wanted_name(name.as_deref())?, ..wishes(names) };
            let sandbox: Sandbox = client.change("/sandboxes/create", &request)?;
            Ok(screen.line(&escape(&sandbox.name))?)
        }
        SandboxVerb::Ls { quiet, no_trunc, json } => {
            list(client.read("/sandboxes")?, (*quiet, *no_trunc, *json), screen)
        }
        SandboxVerb::Inspect { names, .. } => inspect_each::<Sandbox>(names, path, &client, screen),
        SandboxVerb::Rm(args) => {
            let force = if args.force { "?force=true" } else { "" };
            remove_each(args, |name| format!("{}{force}", path(name)), &client, screen)
        }
        SandboxVerb::Exec(args) => exec(args, client),
    }
}

fn list(
    mut sandboxes: Vec<Sandbox>,
    (quiet, whole, json): (bool, bool, bool),
    screen: &mut Screen,
) -> Outcome {
    sandboxes.sort_by(|a, b| a.name.cmp(&b.name));
    if json {
        return Ok(screen.json(&sandboxes)?);
    }
    if quiet {
        return sandboxes.iter().try_for_each(|sandbox| Ok(screen.line(&escape(&sandbox.name))?));
    }
    let mut table = Table::new(["SANDBOX ID", "NAME", "NETWORKS", "ADDRESSES"]);
    for sandbox in &sandboxes {
        let networks: Vec<&str> = sandbox.networks.keys().map(String::as_str).collect();
        table.row([
            &id_cell(&sandbox.id, whole),
            &sandbox.name,
            &or_dash(networks.join(",")),
            &or_dash(addresses(sandbox).join(",")),
        ]);
    }
    Ok(screen.table(&table)?)
}

fn addresses(sandbox: &Sandbox) -> Vec<&str> {
    let of =
        sandbox.networks.values().flat_map(|end| [end.ip_address.as_str(), end.global_ipv6_address.as_str()]);
    of.filter(|address| !address.is_empty()).collect()
}

/// Runs a command in a sandbox that exists.
pub(crate) fn exec(args: &ExecArgs, client: Client) -> Outcome {
    let namespace = client.namespace(&args.sandbox)?;
    let surroundings = surroundings(&args.sandbox, &client)?;
    // No thread and no descriptor of ours in the sandbox but the command's.
    drop(client);
    let signals = Signals::hold()?;
    let job = Job { command: &args.command, env: &args.env, surroundings: surroundings.as_ref() };
    run_in(namespace, &job, &signals)
}

/// What a command in the sandbox finds in `/etc`.
fn surroundings(sandbox: &str, client: &Client) -> Outcome<Option<Surroundings>> {
    let shown: Sandbox = client.read(&path(sandbox))?;
    let files = client.read(&format!("{}/files", path(sandbox)))?;
    Ok(Surroundings::new(&shown, files))
}

/// What the flags say of names; the rest is to be filled in.
fn wishes(names: &NamesArgs) -> SandboxCreate {
    SandboxCreate {
        hostname: names.hostname.clone().unwrap_or_default(),
        dns: names.dns.clone(),
        dns_search: names.dns_search.clone(),
        dns_options: names.dns_option.clone(),
        extra_hosts: names.add_host.clone(),
        ..SandboxCreate::default()
    }
}

/// A name that was given must be one; only without any the agent makes one up.
fn wanted_name(name: Option<&str>) -> Outcome<String> {
    let Some(text) = name else { return Ok(String::new()) };
    text.parse::<Name>().map(String::from).map_err(|fault| Failure::Usage(fault.to_string()))
}

/// Runs a command in a sandbox of its own, which goes when the command ends.
///
/// The sandbox is ephemeral: should this process be killed, the agent removes it.
pub(crate) fn run(args: &RunArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let request =
        SandboxCreate { name: wanted_name(args.name.as_deref())?, ephemeral: true, ..wishes(&args.names) };
    let sandbox: Sandbox = client.change("/sandboxes/create", &request)?;
    let outcome = run_attached(args, &sandbox.name, client);
    match client.remove(&path(&sandbox.name)) {
        Err(failure) if !failure.is_not_found() => {
            screen.complain(&escape(&format!(
                "weft: sandbox {} is left: {}",
                sandbox.name,
                failure.message()
            )));
        }
        _ => {}
    }
    outcome
}

fn run_attached(args: &RunArgs, sandbox: &str, client: &Client) -> Outcome {
    let mut wishes = EndpointConfig {
        ipam_config: EndpointIpamConfig { ipv4_address: args.ip, ipv6_address: args.ip6 },
        mac_address: args.mac.clone().unwrap_or_default(),
        aliases: args.network_alias.clone(),
    };
    for network in args.network.iter().filter(|network| *network != NO_NETWORK) {
        attach(network, sandbox.to_owned(), std::mem::take(&mut wishes), client)?;
    }
    let namespace = client.namespace(sandbox)?;
    let surroundings = surroundings(sandbox, client)?;
    let signals = Signals::hold()?;
    let job = Job { command: &args.command, env: &args.env, surroundings: surroundings.as_ref() };
    run_in(namespace, &job, &signals)
}

/// The name the agent knows the target by; a namespace it does not know yet is handed to it.
pub(super) fn resolve(target: &Target, client: &Client) -> Outcome<String> {
    match target {
        Target::Sandbox(name) => Ok(name.clone()),
        Target::Process(pid) => {
            adopt(&format!("pid-{pid}"), Path::new(&format!("/proc/{pid}/ns/net")), client)
        }
        Target::Path(namespace) => adopt(&name_of(namespace)?, namespace, client),
    }
}

fn adopt(name: &str, namespace: &Path, client: &Client) -> Outcome<String> {
    let file =
        File::open(namespace).with_context(|| format!("open the namespace {}", namespace.display()))?;
    Ok(client.adopt(name, file.as_fd())?.name)
}

/// The last part of the path, with what a name may not hold replaced.
fn name_of(namespace: &Path) -> Outcome<String> {
    let Some(last) = namespace.file_name() else {
        return Err(Failure::Usage(format!("{} is not the path of a namespace", namespace.display())));
    };
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let name: String = last.to_string_lossy().chars().map(allowed).collect();
    Ok(name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(63).collect())
}

fn path(sandbox: &str) -> String {
    format!("/sandboxes/{}", segment(sandbox))
}
