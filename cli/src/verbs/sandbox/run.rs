//! `weft run`, `weft start`: commands in sandboxes of their own.

use weft_control::api::{Sandbox, SandboxCreate};
use weft_control::command::{Command, HOST};

use super::environment::variables;
use super::mode::mode;
use super::{path, wanted_name, wishes};
use crate::args::{KeyValue, RunArgs};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::{Screen, escape};
use crate::supervise::{Task, in_background, supervise};
use crate::verbs::each::each;

/// Runs a command in a sandbox of its own, here or in the background.
pub(crate) fn run(args: &RunArgs, client: Client, screen: &mut Screen) -> Outcome {
    if let Some(reason) = args.refusal() {
        return Err(Failure::Usage(reason));
    }
    let command = compose(args, &client)?;
    if command.network_mode == HOST && args.ports.publishes() {
        screen.complain("WARNING: Published ports are discarded when using host network mode");
    }
    let name = wanted_name(args.name.as_deref())?;
    let request =
        SandboxCreate { name, ephemeral: args.rm, tap: args.tap, ..wishes(&args.names, &args.ports) };
    let task = Task::Run { request: Box::new(request), command };
    if args.detach {
        let begun = in_background(&task, &client)?;
        return Ok(screen.line(&escape(&begun.id))?);
    }
    supervise(&task, &client, |_| {}, screen)
}

fn compose(args: &RunArgs, client: &Client) -> Outcome<Command> {
    let text = |word: &std::ffi::OsString| {
        let odd = || Failure::Usage(format!("{} is not UTF-8, which a command has to be", word.display()));
        word.to_str().map(str::to_owned).ok_or_else(odd)
    };
    let env = variables(&args.env_file, &args.env)?;
    let mode = mode(args, client)?;
    if args.tap && mode.networks.is_empty() {
        let why =
            "--tap: a TAP belongs to a network: name one that is not 'none', 'host' or 'container:NAME'";
        return Err(Failure::Usage(why.to_owned()));
    }
    Ok(Command {
        cmd: args.command.iter().map(text).collect::<Outcome<_>>()?,
        env: env.iter().map(|KeyValue { key, value, .. }| format!("{key}={value}")).collect(),
        working_dir: args.workdir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default(),
        hostname: args.names.hostname.clone().unwrap_or_default(),
        labels: args.label.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        network_mode: mode.name,
        auto_remove: args.rm,
        detached: args.detach,
        open_stdin: args.interactive,
        tap: args.tap,
        networks: mode.networks,
    })
}

/// Starts commands again, in the background.
pub(crate) fn start(names: &[String], client: &Client, screen: &mut Screen) -> Outcome {
    each(names, false, screen, |name| start_one(name, client))
}

/// Starts a command that does not run.
pub(super) fn start_one(name: &str, client: &Client) -> Outcome {
    let sandbox: Sandbox = client.read(&path(name))?;
    if sandbox.state.running {
        return Ok(());
    }
    in_background(&Task::Start { sandbox: sandbox.id }, client).map(drop)
}
