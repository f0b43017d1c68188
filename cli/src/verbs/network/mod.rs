//! `weft network …`.

use std::collections::BTreeMap;

use weft_control::api::{
    Connect, Connected, Disconnect, EndpointConfig, EndpointIpamConfig, Ipam, Network, NetworkCreate,
    NetworkCreated, Sandbox, SandboxCreate,
};

use super::each::{each, inspect_each};
use super::sandbox::resolve;
use crate::args::{
    ConnectArgs, CreateArgs, Device, DisconnectArgs, InspectArgs, KeyValue, NetworkVerb, RemoveArgs,
};
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::ipam;
use crate::output::{Screen, escape};
use crate::supervise::described;

mod list;
mod prune;

/// Does what was asked.
pub(crate) fn perform(verb: &NetworkVerb, client: &Client, screen: &mut Screen) -> Outcome {
    match verb {
        NetworkVerb::Create(args) => create(args, client, screen),
        NetworkVerb::Ls(args) => list::list(args, client, screen),
        NetworkVerb::Inspect(args) => inspect(args, client, screen),
        NetworkVerb::Prune(args) => prune::prune(args, client, screen),
        NetworkVerb::Rm(args) => remove(args, client, screen),
        NetworkVerb::Connect(args) => connect(args, client, screen),
        NetworkVerb::Disconnect(args) => disconnect(args, client),
    }
}

fn create(args: &CreateArgs, client: &Client, screen: &mut Screen) -> Outcome {
    if let Some(reason) = args.others.refusal() {
        return Err(Failure::Usage(reason));
    }
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

fn inspect(args: &InspectArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let fetch = |name: &str| client.read::<Network>(&path(name));
    inspect_each(&args.networks, args.format.as_deref(), fetch, screen)
}

fn remove(args: &RemoveArgs, client: &Client, screen: &mut Screen) -> Outcome {
    each(&args.names, args.force, screen, |name| client.remove(&path(name)))
}

fn connect(args: &ConnectArgs, client: &Client, screen: &mut Screen) -> Outcome {
    if let Some(reason) = args.refusal() {
        return Err(Failure::Usage(reason));
    }
    let wishes = EndpointConfig {
        ipam_config: EndpointIpamConfig { ipv4_address: args.ip, ipv6_address: args.ip6 },
        mac_address: args.mac.clone().unwrap_or_default(),
        aliases: args.alias.clone(),
        gw_priority: args.gw_priority,
    };
    let connected = match (&args.tap, &args.sandbox) {
        (Some(device), _) => connect_device(&args.network, device, wishes, client, screen)?,
        (None, Some(target)) => attach(&args.network, resolve(target, client)?, wishes, client)?,
        (None, None) => return Err(Failure::Usage("say what to attach".to_owned())),
    };
    if args.json { Ok(screen.json(&connected)?) } else { Ok(()) }
}

/// Makes a TAP on this host that is an endpoint of a network; one that cannot be attached is gone again.
fn connect_device(
    network: &str,
    device: &Device,
    wishes: EndpointConfig,
    client: &Client,
    screen: &mut Screen,
) -> Outcome<Connected> {
    let tap_owner = Some(device.owner.unwrap_or_else(|| nix::unistd::getuid().as_raw()));
    let request =
        SandboxCreate { name: device.name.clone(), tap: true, tap_owner, ..SandboxCreate::default() };
    let sandbox: Sandbox = client.change("/sandboxes/create", &request)?;
    let connected = attach(network, sandbox.id.clone(), wishes, client).inspect_err(|_| {
        let _ = client.remove(&format!("{}?force=true", super::sandbox::path(&sandbox.id)));
    })?;
    let line = format!("weft: {} is a TAP of {network}: {}", device.name, described(&connected));
    screen.complain(&escape(&line));
    Ok(connected)
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
