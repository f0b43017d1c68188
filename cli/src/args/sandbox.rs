//! `weft sandbox …`, and its short forms `run` and `exec`.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand};

use super::network::RemoveArgs;
use super::value::{KeyValue, ipv4, ipv6, mac};

/// What to do with sandboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxVerb {
    /// Make a sandbox (an empty network namespace); prints its name
    Create {
        /// Name; the agent makes one up if absent
        name: Option<String>,
        #[command(flatten)]
        names: NamesArgs,
    },
    /// List sandboxes of this host
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
    /// Show everything about sandboxes, as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "SANDBOX")]
        names: Vec<String>,
        /// Accepted for the sake of the other verbs: the answer is always JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove sandboxes, and detach them from their networks
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Run a command in a sandbox
    Exec(ExecArgs),
}

/// What a sandbox calls itself and others.
#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// What it calls itself [default: the first 12 digits of its id]
    #[arg(long, value_name = "NAME")]
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
#[command(after_help = "Example:\n  weft exec web -- ip address")]
pub(crate) struct ExecArgs {
    /// Set a variable in the command's environment
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<KeyValue>,
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
#[command(override_usage = "weft run [OPTIONS] --network NETWORK -- CMD...")]
#[command(after_help = "\
Examples:
  weft run --network blue -- ip address
  weft run --name web --network blue --ip 10.7.0.9 -e PORT=80 -- ./server")]
pub(crate) struct RunArgs {
    /// Name of the sandbox; the agent makes one up if absent
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Network to attach it to; repeat for more (without: only a loopback interface)
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
    /// Fixed IPv4 address in the first network
    #[arg(long, value_name = "ADDRESS", value_parser = ipv4, requires = "network")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address in the first network
    #[arg(long, value_name = "ADDRESS", value_parser = ipv6, requires = "network")]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Fixed MAC address in the first network
    #[arg(long, visible_alias = "mac-address", value_name = "MAC", value_parser = mac, requires = "network")]
    pub(crate) mac: Option<String>,
    /// Further name in the first network; repeatable
    #[arg(long, visible_alias = "net-alias", value_name = "NAME", requires = "network")]
    pub(crate) network_alias: Vec<String>,
    #[command(flatten)]
    pub(crate) names: NamesArgs,
    /// Set a variable in the command's environment
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<KeyValue>,
    /// Accepted for Docker's sake: the sandbox always goes with its command
    #[arg(long)]
    pub(crate) rm: bool,
    /// Accepted for Docker's sake: input and terminal are always passed on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Accepted for Docker's sake
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
