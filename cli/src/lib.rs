//! The `weft` program: parse, call, print.
//!
//! Two programs in one binary. `weft init` and `weft join` make a host a member; `weft agent` composes the
//! configuration and runs `weft_control`'s agent. Every other verb is a client of that agent's unix socket. `weft demo` and
//! `weft bench --self` start several of both in namespaces of one machine.

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, DEFAULT_SOCKET, Verb};
use client::Client;
use failure::Outcome;
use output::Screen;

mod agent;
mod args;
pub mod bench;
mod capture;
mod client;
mod config;
mod demo;
mod failure;
mod filter;
mod format;
mod hardening;
pub mod interrupt;
mod ipam;
mod joining;
mod moment;
mod output;
mod process;
pub mod rig;
mod supervise;
mod surroundings;
mod sys;
pub mod traffic;
mod verbs;
mod watchdog;

/// Parses the command line, does what it says, and tells the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut screen = Screen::terminal();
    match perform(&cli, &mut screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&mut screen),
    }
}

fn perform(cli: &Cli, screen: &mut Screen) -> Outcome {
    let client = || Client::new(cli.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET)));
    match &cli.verb {
        Verb::Agent(args) => agent::perform(args, cli.socket.as_deref(), screen),
        Verb::Init(args) => joining::init(args, screen),
        Verb::Join(args) => joining::join(args, screen),
        Verb::Leave(args) => verbs::cluster::leave(args, &client()?, screen),
        Verb::Token(verb) => verbs::cluster::token(verb, &client()?, screen),
        Verb::Node(verb) => verbs::cluster::node(verb, &client()?, screen),
        Verb::Demo(args) => demo::perform(args, screen),
        Verb::Bench(args) => bench::perform(args, client, screen),
        Verb::Network(verb) => verbs::network::perform(verb, &client()?, screen),
        Verb::Sandbox(verb) => verbs::sandbox::perform(verb, client()?, screen),
        Verb::Run(args) => verbs::sandbox::run(args, client()?, screen),
        Verb::Exec(args) => verbs::sandbox::exec(args, client()?),
        Verb::Ps(args) => verbs::sandbox::ps(args, &client()?, screen),
        Verb::Logs(args) => verbs::sandbox::logs(args, &client()?, screen),
        Verb::Start(args) => verbs::sandbox::start(&args.names, &client()?, screen),
        Verb::Stop(args) => verbs::sandbox::stop(args, &client()?, screen),
        Verb::Restart(args) => verbs::sandbox::restart(args, &client()?, screen),
        Verb::Kill(args) => verbs::sandbox::kill(args, &client()?, screen),
        Verb::Rm(args) => verbs::sandbox::remove(args, &client()?, screen),
        Verb::Inspect(args) => verbs::sandbox::inspect(args, &client()?, screen),
        Verb::Completion { shell } => complete(*shell),
        Verb::Man { directory } => Ok(clap_mangen::generate_to(Cli::command(), directory)?),
        Verb::Supervise => supervise::perform(&client()?),
        Verb::Keys(verb) => verbs::keys::perform(verb, &client()?, screen),
        Verb::Status(args) => verbs::node::status(args, &client()?, screen),
        Verb::Peers(args) => verbs::node::peers(args, &client()?, screen),
        Verb::Fdb(args) => verbs::node::fdb(args, &client()?, screen),
        Verb::Capture(args) => capture::perform(args, client()?, screen),
        Verb::Doctor(args) => verbs::host::doctor(args, cli.socket.as_deref(), screen),
        Verb::Cleanup(args) => verbs::host::cleanup(args, screen),
        Verb::Stats(args) => verbs::node::stats(args, &client()?, screen),
    }
}

/// Prints what a shell needs to complete the words of the argument tree.
fn complete(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weft", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
}
