//! The argument tree: every verb, its flags, and the words a newcomer reads in `--help`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

mod agent;
mod bench;
mod cluster;
mod host;
mod keys;
mod network;
mod publish;
mod sandbox;
mod value;

pub(crate) use agent::AgentArgs;
pub(crate) use bench::{BenchArgs, ContenderName, MeasureArgs, Part, UnderlayChoice};
pub(crate) use cluster::{HostArgs, InitArgs, JoinArgs, LeaveArgs, NodeVerb, TokenCreateArgs, TokenVerb};
pub(crate) use host::{CleanupArgs, DoctorArgs, PlaceArgs};
pub(crate) use keys::KeysVerb;
pub(crate) use network::{
    ConnectArgs, CreateArgs, DisconnectArgs, InspectArgs, ListArgs, NetworkVerb, PruneArgs, RemoveArgs,
};
pub(crate) use publish::PublishArgs;
pub(crate) use sandbox::{
    ExecArgs, KillArgs, LogsArgs, NamesArgs, PsArgs, RunArgs, SandboxVerb, StartArgs, StopArgs,
};
pub(crate) use value::{Device, KeyValue, Target};

/// Where clients look for the agent.
pub(crate) const DEFAULT_SOCKET: &str = "/run/weft/weft.sock";

/// Joins containers, namespaces and virtual machines on several hosts into virtual Ethernet networks.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    bin_name = "weft",
    version,
    disable_help_subcommand = true,
    after_help = "\
First steps, on one machine:
  weft demo                                      three hosts in namespaces, one network, real traffic

On two hosts (as root):
  a# weft init && weft agent &                   prints how other hosts join
  b# weft join TOKEN && weft agent &
  a# weft network create -d overlay blue
  a# weft run -d --name web --network blue -- CMD   CMD in a sandbox with an address in 'blue'
  b# weft run --rm --network blue -- ping web

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no agent answers, 64 --format is no template; 'run' and 'exec' pass
on that of CMD."
)]
pub(crate) struct Cli {
    /// Unix socket of the agent to speak to, or for 'agent' to serve on [default: /run/weft/weft.sock]
    #[arg(long, global = true, env = "WEFT_SOCKET", hide_env_values = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a cluster with this host as its first node, and print how other hosts join
    Init(Box<InitArgs>),
    /// Make this host a node of a cluster
    Join(Box<JoinArgs>),
    /// Take this host out of its cluster: its agent removes all it has made and ends
    Leave(LeaveArgs),
    /// Make, list and revoke the tokens that let hosts join
    #[command(subcommand)]
    Token(TokenVerb),
    /// List, remove and revoke the nodes of the cluster
    #[command(subcommand)]
    Node(NodeVerb),
    /// Run this host's agent in the foreground
    Agent(Box<AgentArgs>),
    /// Make, list, inspect and remove networks; attach sandboxes to them
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Make, list, inspect and remove sandboxes (network namespaces); run commands in them
    #[command(subcommand)]
    Sandbox(SandboxVerb),
    /// Run a command in a new sandbox, attached to a network
    Run(Box<RunArgs>),
    /// Run a command in a sandbox that exists
    Exec(ExecArgs),
    /// List sandboxes of this host, with their commands and how these go
    Ps(PsArgs),
    /// Show the output of a command that 'run -d' started
    Logs(LogsArgs),
    /// Start the commands of sandboxes again, in the background
    Start(StartArgs),
    /// End the commands of sandboxes: SIGTERM, after a time SIGKILL
    Stop(StopArgs),
    /// Stop, then start
    Restart(StopArgs),
    /// Send the commands of sandboxes a signal
    Kill(KillArgs),
    /// Remove sandboxes, and detach them from their networks
    Rm(RemoveArgs),
    /// Show everything about sandboxes or networks, as JSON
    Inspect(InspectArgs),
    /// Print what a shell needs to complete weft's words
    #[command(after_help = "\
Examples:
  weft completion bash > /usr/share/bash-completion/completions/weft
  source <(weft completion zsh)
  weft completion fish > ~/.config/fish/completions/weft.fish")]
    Completion {
        /// Shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages of every verb into a directory (used to make packages)
    #[command(hide = true)]
    Man {
        /// Directory
        directory: PathBuf,
    },
    /// Watch over a command in the background (used by 'run -d' and 'start')
    #[command(hide = true)]
    Supervise,
    /// Show and change the keys that all members share
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Show the agent at a glance
    Status(ReadArgs),
    /// List the hosts of the cluster and whether they are alive
    Peers(ReadArgs),
    /// Show which MAC and IP addresses of a network are where
    Fdb(FdbArgs),
    /// Write the frames of a network on this host as pcapng, decoded and opened (as root)
    #[command(after_help = "\
Every frame is written once, where it enters the network on this host: at the port of the sandbox that sent it, or
at 'weft0' if it came from another host. Ends on Ctrl-C.

Examples:
  weft capture blue -w blue.pcapng
  weft capture blue | tshark -r -")]
    Capture(CaptureArgs),
    /// Show counters, and drops by reason
    Stats(StatsArgs),
    /// Look at this host for whatever may keep weft from working, and say what to do
    Doctor(Box<DoctorArgs>),
    /// Remove what an agent that will not run again left in this host's kernel
    Cleanup(CleanupArgs),
    /// Show what weft does: several hosts in namespaces on this machine, one network, real traffic (as root)
    Demo(DemoArgs),
    /// Measure how fast a path is and what it costs, between two sandboxes or beside the kernel's VXLAN (as root)
    Bench(Box<BenchArgs>),
}

/// Flags of every verb that only shows something.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `weft fdb`.
#[derive(Debug, clap::Args)]
pub(crate) struct FdbArgs {
    /// Name or id of a network
    pub(crate) network: String,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Arguments of `weft capture`.
#[derive(Debug, clap::Args)]
pub(crate) struct CaptureArgs {
    /// Name or id of a network
    pub(crate) network: String,
    /// Where to write; '-' is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) write: PathBuf,
    /// End after so many frames
    #[arg(short, long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Arguments of `weft stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Also the counters that are zero
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Arguments of `weft demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many hosts to make
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) hosts: u8,
    /// Leave it running at the end, say what to try, and end it on Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
}

#[cfg(test)]
mod tests;
