//! `weft network …`.

use std::collections::BTreeMap;

use weft_control::api::{
    Connect, Connected, Disconnect, EndpointConfig, EndpointIpamConfig, Ipam, Network, NetworkCreate,
    NetworkCreated,
};

use super::id_cell;
use super::sandbox::resolve;
use crate::args::{
    ConnectArgs, CreateArgs, DisconnectArgs, InspectArgs, KeyValue, ListArgs, NetworkVerb, RemoveArgs,
};
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::filter::Filter;
use crate::ipam;
use crate::output::{Screen, Table, escape};

/// Does what was asked.
pub(crate) fn perform(verb: &NetworkVerb, client: &Client, screen: &mut Screen) -> Outcome {
    match verb {
        NetworkVerb::Create(args) => create(args, client, screen),
        NetworkVerb::Ls(args) => list(args, client, screen),
        NetworkVerb::Inspect(args) => inspect(args, client, screen),
        NetworkVerb::Rm(args) => remove(args, client, screen),
        NetworkVerb::Connect(args) => connect(args, client, screen),
        NetworkVerb::Disconnect(args) => disconnect(args, client),
    }
}

fn create(args: &CreateArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let request = NetworkCreate {
        name: args.name.clone(),
        driver: args.driver.clone(),
        enable_ipv6: args.ipv6,
        ipam: Ipam { driver: "default".to_owned(), options: None, config: ipam::pair_up(args)? },
        options: map(&args.opt),
        labels: map(&args.label),
        attachable: args.attachable,
        internal: args.internal,
    };
    let created: NetworkCreated = client.change("/networks/create", &request)?;
    if !created.warning.is_empty() {
        screen.complain(&format!("WARNING: {}", escape(&created.warning)));
    }
    Ok(screen.line(&escape(&created.id))?)
}

fn list(args: &ListArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let filter = Filter::new(&args.filter)?;
    let mut networks: Vec<Network> = client.read("/networks")?;
    networks.retain(|network| filter.admits(network));
    if let Some(dangling) = filter.dangling() {
        retain_dangling(&mut networks, dangling, client)?;
    }
    networks.sort_by_key(|network| natural(&network.name));
    if args.json {
        return Ok(screen.json(&networks)?);
    }
    if args.quiet {
        return networks.iter().try_for_each(|n| Ok(screen.line(&escape(&id_cell(&n.id, args.no_trunc)))?));
    }
    let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    for network in &networks {
        table.row([&id_cell(&network.id, args.no_trunc), &network.name, &network.driver, &network.scope]);
    }
    Ok(screen.table(&table)?)
}

/// Keeps the networks with (or without) endpoints; the list has none, so each is asked for.
fn retain_dangling(networks: &mut Vec<Network>, dangling: bool, client: &Client) -> Outcome {
    let mut kept = Vec::new();
    for network in networks.drain(..) {
        match client.read::<Network>(&path(&network.id)) {
            Ok(whole) if whole.containers.is_empty() == dangling => kept.push(network),
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    *networks = kept;
    Ok(())
}

fn inspect(args: &InspectArgs, client: &Client, screen: &mut Screen) -> Outcome {
    inspect_each::<Network>(&args.networks, path, client, screen)
}

/// Prints what is found as one JSON array, and an error for each that is not.
pub(super) fn inspect_each<T>(
    names: &[String],
    path: impl Fn(&str) -> String,
    client: &Client,
    screen: &mut Screen,
) -> Outcome
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let mut found = Vec::new();
    let mut refusals = Vec::new();
    for name in names {
        match client.read::<T>(&path(name)) {
            Ok(value) => found.push(value),
            Err(failure @ Failure::Refused { .. }) => refusals.push(failure.message()),
            Err(failure) => return Err(failure),
        }
    }
    screen.json(&found)?;
    refusals.iter().for_each(|refusal| screen.complain(&escape(refusal)));
    if refusals.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn remove(args: &RemoveArgs, client: &Client, screen: &mut Screen) -> Outcome {
    remove_each(args, path, client, screen)
}

/// Removes each, printing its name; goes on after a refusal.
pub(super) fn remove_each(
    args: &RemoveArgs,
    path: impl Fn(&str) -> String,
    client: &Client,
    screen: &mut Screen,
) -> Outcome {
    let mut refused = false;
    for name in &args.names {
        match client.remove(&path(name)) {
            Ok(()) => screen.line(&escape(name))?,
            Err(failure) if args.force && failure.is_not_found() => {}
            Err(failure @ Failure::Refused { .. }) => {
                screen.complain(&escape(&failure.message()));
                refused = true;
            }
            Err(failure) => return Err(failure),
        }
    }
    if refused { Err(Failure::Exit(1)) } else { Ok(()) }
}

fn connect(args: &ConnectArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let wishes = EndpointConfig {
        ipam_config: EndpointIpamConfig { ipv4_address: args.ip, ipv6_address: args.ip6 },
        mac_address: args.mac.clone().unwrap_or_default(),
        aliases: args.alias.clone(),
    };
    let connected = attach(&args.network, resolve(&args.sandbox, client)?, wishes, client)?;
    if args.json { Ok(screen.json(&connected)?) } else { Ok(()) }
}

/// Attaches a sandbox to a network.
pub(super) fn attach(
    network: &str,
    sandbox: String,
    endpoint_config: EndpointConfig,
    client: &Client,
) -> Outcome<Connected> {
    client.change(&format!("{}/connect", path(network)), &Connect { container: sandbox, endpoint_config })
}

fn disconnect(args: &DisconnectArgs, client: &Client) -> Outcome {
    let request = Disconnect { container: resolve(&args.sandbox, client)?, force: args.force };
    client.order(&format!("{}/disconnect", path(&args.network)), &request)
}

fn path(network: &str) -> String {
    format!("/networks/{}", segment(network))
}

fn map(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

/// A key that sorts names as people do: `net2` before `net10`.
fn natural(name: &str) -> Vec<(u128, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(text_end);
        let number_end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(number_end);
        parts.push((text.to_owned(), number.parse::<u128>().unwrap_or(0)));
        rest = tail;
    }
    parts.into_iter().flat_map(|(text, number)| [(0, text), (number, String::new())]).collect()
}
