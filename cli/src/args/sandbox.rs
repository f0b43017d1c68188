//! `weft sandbox …`, and its short forms: `run`, `exec`, `ps`, `logs`, `start`, `stop`, `restart`, `kill`, `rm`.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

use super::network::{InspectArgs, RemoveArgs};
use super::publish::PublishArgs;
use super::value::{KeyValue, ipv4, ipv6, mac};
use crate::filter::FilterArg;

/// What to do with sandboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxVerb {
    /// Make a sandbox (an empty network namespace); prints its name
    #[command(disable_help_flag = true)]
    Create {
        /// Name; the agent makes one up if absent
        name: Option<String>,
        #[command(flatten)]
        names: Box<NamesArgs>,
        #[command(flatten)]
        ports: Box<PublishArgs>,
        /// Print help
        #[arg(long, action = ArgAction::Help)]
        help: Option<bool>,
    },
    /// List sandboxes of this host, with their networks and addresses
    #[command(visible_alias = "list")]
    Ls {
        /// Only names
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
        /// Print JSON
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
    },
    /// List sandboxes of this host, with their commands and how these go
    Ps(PsArgs),
    /// Show everything about sandboxes, as JSON
    Inspect(InspectArgs),
    /// Remove sandboxes, and detach them from their networks
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Run a command in a new sandbox
    Run(Box<RunArgs>),
    /// Run a command in a sandbox that exists
    Exec(ExecArgs),
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
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) names: Vec<String>,
}

/// Arguments of `stop` and `restart`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  weft stop $(weft network inspect blue --format '{{range .Containers}}{{.Name}} {{end}}')")]
pub(crate) struct StopArgs {
    /// Seconds until SIGKILL; -1 waits for ever
    #[arg(
        short,
        long,
        visible_alias = "timeout",
        default_value_t = 10,
        allow_negative_numbers = true,
        value_name = "SECONDS"
    )]
    pub(crate) time: i64,
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) names: Vec<String>,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Name or number of the signal
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) names: Vec<String>,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Filters: id=PREFIX, name=PART, label=KEY or KEY=VALUE, status=created|running|exited, exited=CODE, network=NAME

Fields of --format: .ID .Names .Command .CreatedAt .RunningFor .Status .State .Ports .Networks .Labels and
.Label \"KEY\"

Examples:
  weft ps --all --filter network=blue
  weft ps --format 'table {{.Names}}\\t{{.Status}}'")]
pub(crate) struct PsArgs {
    /// Also those whose command has ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only sandboxes that match, e.g. status=exited
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<FilterArg>,
    /// 'table', 'table TEMPLATE', 'json', or a Go template, e.g. '{{.Names}}: {{.Status}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<String>,
    /// Whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
A log is kept to 10 MB, and 10 MB of what was before. What a command in the foreground prints goes to its terminal
alone.

Example:
  weft logs --follow --tail 100 web")]
pub(crate) struct LogsArgs {
    /// Go on until the command ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// So many lines from the end, or all
    #[arg(short = 'n', long, default_value = "all", value_name = "N", value_parser = tail)]
    pub(crate) tail: Tail,
    /// With the time of each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Name or id
    #[arg(value_name = "SANDBOX")]
    pub(crate) name: String,
}

/// How many lines of a log to show; absent for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    // Docker's client takes any negative number for all.
    match text.parse::<i64>() {
        Ok(lines) => Ok(Tail(usize::try_from(lines).ok())),
        Err(_) if text == "all" => Ok(Tail(None)),
        Err(_) => Err("say a number of lines, or all".to_owned()),
    }
}

/// What a sandbox calls itself and others.
#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// What it calls itself [default: the first 12 digits of its id]
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Server for names outside, asked from the sandbox [default: those of the host, asked from the host]; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,
    /// Domain a name is looked for in [default: those of the host]; repeatable, '.' for none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf [default: those of the host]; repeatable
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Further line of /etc/hosts; repeatable
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<String>,
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(override_usage = "weft exec [OPTIONS] SANDBOX [--] CMD...")]
#[command(after_help = "Examples:\n  weft exec web -- ip address\n  weft exec -it -w /srv web -- sh")]
pub(crate) struct ExecArgs {
    /// Run it in the background, without input and output
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Set a variable in the command's environment; without a value, as it is here
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<KeyValue>,
    /// File of such variables, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Accepted for Docker's sake: input and terminal are always passed on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Accepted for Docker's sake
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Name or id of the sandbox
    pub(crate) sandbox: String,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "weft run [OPTIONS] [--network NETWORK] -- CMD...", disable_help_flag = true)]
#[command(after_help = "\
Without --network the sandbox is attached to the network 'bridge', where this host has it. A sandbox whose command
has ended stays, detached, until 'weft rm' ('weft ps -a' shows it) or 'weft start'; with --rm it goes at once.

Examples:
  weft run --rm --network blue -- ip address
  weft run -d --name web --network blue --ip 10.7.0.9 -e PORT=80 -- ./server
  weft run -d --network blue -p 8080:80 -- ./server     on port 8080 of this host
  weft run --rm --network container:web -- ss -ltn      in the network of another sandbox
  weft run --rm --network blue --tap -- sh -c 'exec qemu-system-x86_64 -netdev tap,id=n0,fd=3 \\
    -device virtio-net-pci,netdev=n0,mac=$WEFT_MAC …'     a virtual machine")]
pub(crate) struct RunArgs {
    /// Run the command in the background and print the sandbox's id; its output goes to 'weft logs'
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Remove the sandbox when the command ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Name of the sandbox; the agent makes one up if absent
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Network to attach it to, or 'none', 'host', 'container:NAME'; repeat for more networks
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
    /// Further name in the first network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// Fixed IPv4 address in the first network
    #[arg(long, value_name = "ADDRESS", value_parser = ipv4)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address in the first network
    #[arg(long, value_name = "ADDRESS", value_parser = ipv6)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Fixed MAC address in the first network
    #[arg(long, visible_alias = "mac-address", value_name = "MAC", value_parser = mac)]
    pub(crate) mac: Option<String>,
    /// For a virtual machine: give the command TAPs of the networks as descriptors 3, 4, … instead of putting it in a sandbox
    #[arg(long)]
    pub(crate) tap: bool,
    #[command(flatten)]
    pub(crate) names: NamesArgs,
    #[command(flatten)]
    pub(crate) ports: PublishArgs,
    /// Set a variable in the command's environment; without a value, as it is here
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<KeyValue>,
    /// File of such variables, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Label to find it by
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<KeyValue>,
    /// In the background, leave the command's input open; in the foreground it is always passed on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Accepted for Docker's sake: a terminal is passed on where there is one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// What to do when the command ends; there is 'no'
    #[arg(long, default_value = "no", hide = true)]
    pub(crate) restart: String,
    /// User to run as; the command does that itself
    #[arg(short, long, hide = true)]
    pub(crate) user: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

impl RunArgs {
    /// Why the command cannot be run as asked for, if so.
    pub(crate) fn refusal(&self) -> Option<String> {
        if self.restart != "no" {
            let why = "--restart: weft starts no command again by itself; let systemd run 'weft run' in the foreground";
            return Some(why.to_owned());
        }
        self.user.as_ref().map(|user| {
            format!("--user: let the command change it, e.g. -- setpriv --reuid {user} --init-groups CMD")
        })
    }
}
