//! `weft init` and `weft join`: how a host becomes a member.

use std::path::PathBuf;

use clap::Args;

/// How this host is set up; asked for once, kept in the state directory.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostArgs {
    /// Name of this host in the cluster [default: its host name]
    #[arg(long, env = "WEFT_NAME", hide_env_values = true)]
    pub(crate) name: Option<String>,
    /// Address the other hosts reach this one by, or the interface that has it [default: that of the default route]
    #[arg(long, env = "WEFT_ADVERTISE", hide_env_values = true, value_name = "ADDRESS|INTERFACE")]
    pub(crate) advertise: Option<String>,
    /// UDP and TCP port of gossip [default: 7946]
    #[arg(long, env = "WEFT_GOSSIP_PORT", hide_env_values = true, value_name = "PORT")]
    pub(crate) gossip_port: Option<u16>,
    /// What must survive a restart [default: /var/lib/weft]
    #[arg(long, env = "WEFT_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// TOML file with the same settings [default: /etc/weft/weft.toml if there is one]
    #[arg(long, env = "WEFT_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Arguments of `weft init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes this host's keys and the cluster's root in the state directory, and a token that lets other hosts in for a
day. No agent needs to run; start it afterwards with 'weft agent'.

Example:
  a# weft init --advertise 192.0.2.1")]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Write the join token here (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Arguments of `weft join`.
#[derive(Debug, Args)]
#[command(after_help = "\
A token is a secret while it is good: whoever has it can join. Arguments can be seen by everybody on this host;
'weft join -' reads the token from standard input, --token-file from a file.

Examples:
  b# weft join weft1_…
  b# ssh a weft token create --quiet | weft join -")]
pub(crate) struct JoinArgs {
    /// Token that 'weft init' or 'weft token create' printed; '-' reads it from standard input
    #[arg(required_unless_present = "token_file", conflicts_with = "token_file", value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// File with the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}
