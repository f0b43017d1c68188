//! `weft sandbox …` and its short forms.

use weft_control::api::{Sandbox, SandboxCreate};
use weft_control::model::Name;

use super::each::inspect_each;
use crate::args::{InspectArgs, NamesArgs, PublishArgs, SandboxVerb};
use crate::client::{Client, segment};
use crate::failure::{Failure, Outcome};
use crate::output::{Screen, escape};

mod environment;
mod exec;
mod inspect;
mod list;
mod logs;
mod mode;
mod run;
mod stop;
mod target;

pub(crate) use exec::exec;
pub(crate) use list::ps;
pub(crate) use logs::logs;
pub(crate) use mode::{namespace_of, surroundings_of};
pub(crate) use run::{run, start};
pub(crate) use stop::{kill, remove, restart, stop};
pub(super) use target::resolve;

/// Does what was asked.
pub(crate) fn perform(verb: &SandboxVerb, client: Client, screen: &mut Screen) -> Outcome {
    match verb {
        SandboxVerb::Create { name, names, ports, .. } => {
            create(name.as_deref(), (names, ports), &client, screen)
        }
        SandboxVerb::Ls { quiet, no_trunc, json } => {
            list::list(client.read("/sandboxes")?, (*quiet, *no_trunc, *json), screen)
        }
        SandboxVerb::Ps(args) => ps(args, &client, screen),
        SandboxVerb::Inspect(args) => {
            let fetch = |name: &str| Ok(inspect::shape(client.read(&path(name))?));
            inspect_each(&args.networks, args.format.as_deref(), fetch, screen)
        }
        SandboxVerb::Rm(args) => remove(args, &client, screen),
        SandboxVerb::Run(args) => run(args, client, screen),
        SandboxVerb::Exec(args) => exec(args, client),
        SandboxVerb::Logs(args) => logs(args, &client, screen),
        SandboxVerb::Start(args) => start(&args.names, &client, screen),
        SandboxVerb::Stop(args) => stop(args, &client, screen),
        SandboxVerb::Restart(args) => restart(args, &client, screen),
        SandboxVerb::Kill(args) => kill(args, &client, screen),
    }
}

fn create(
    name: Option<&str>,
    (names, ports): (&NamesArgs, &PublishArgs),
    client: &Client,
    screen: &mut Screen,
) -> Outcome {
    let request = SandboxCreate { name: wanted_name(name)?, ..wishes(names, ports) };
    let sandbox: Sandbox = client.change("/sandboxes/create", &request)?;
    Ok(screen.line(&escape(&sandbox.name))?)
}

/// Shows sandboxes, and networks where there is no sandbox of the name.
pub(crate) fn inspect(args: &InspectArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let fetch = |name: &str| match client.read(&path(name)) {
        Ok(sandbox) => {
            serde_json::to_value(inspect::shape(sandbox)).map_err(|fault| Failure::Failed(fault.into()))
        }
        Err(failure) if failure.is_not_found() => {
            client.read(&format!("/networks/{}", segment(name))).map_err(|_| no_such_object(name))
        }
        Err(failure) => Err(failure),
    };
    inspect_each(&args.networks, args.format.as_deref(), fetch, screen)
}

fn no_such_object(name: &str) -> Failure {
    Failure::Refused { status: 404, message: format!("Error: No such object: {name}") }
}

/// What the flags say of names and ports; the rest is to be filled in.
fn wishes(names: &NamesArgs, ports: &PublishArgs) -> SandboxCreate {
    SandboxCreate {
        hostname: names.hostname.clone().unwrap_or_default(),
        dns: names.dns.clone(),
        dns_search: names.dns_search.clone(),
        dns_options: names.dns_option.clone(),
        extra_hosts: names.add_host.clone(),
        exposed_ports: ports.exposed_ports(),
        host_config: ports.host_config(),
        ..SandboxCreate::default()
    }
}

/// A name that was given must be one; only without any the agent makes one up.
fn wanted_name(name: Option<&str>) -> Outcome<String> {
    let Some(text) = name else { return Ok(String::new()) };
    text.parse::<Name>().map(String::from).map_err(|fault| Failure::Usage(fault.to_string()))
}

/// Where the agent's API has a sandbox.
pub(crate) fn path(sandbox: &str) -> String {
    format!("/sandboxes/{}", segment(sandbox))
}
