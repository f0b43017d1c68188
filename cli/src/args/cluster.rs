//! `weft init` and `weft join`: how a host becomes a member.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::ReadArgs;

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

/// `weft token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token that lets hosts in, and print how
    Create(TokenCreateArgs),
    /// List tokens
    #[command(visible_alias = "list")]
    Ls(ReadArgs),
    /// Take a token back: nobody joins with it any more
    Revoke {
        /// Id of the token, or the beginning of it
        #[arg(value_name = "TOKEN-ID")]
        id: String,
    },
}

/// Arguments of `weft token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// How long it is good, e.g. 90m, 24h, 7d
    #[arg(long, default_value = "24h", value_name = "TIME")]
    pub(crate) ttl: Seconds,
    /// How many hosts may join with it [default: any number]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) uses: u32,
    /// What they may do: an admin can also make tokens and revoke nodes
    #[arg(long, default_value = "node", value_parser = ["node", "admin"])]
    pub(crate) role: String,
    /// Print the token alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) u64);

impl FromStr for Seconds {
    type Err = String;

    /// A number with `s`, `m`, `h` or `d` behind it; more than none.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no length of time: say 90m, 24h or 7d");
        let unit = match text.bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            _ => return Err(bad()),
        };
        let count: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
        count.checked_mul(unit).filter(|seconds| *seconds > 0).map(Self).ok_or_else(bad)
    }
}

/// `weft node …`
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List the nodes of the cluster, their roles and certificates
    #[command(visible_alias = "list")]
    Ls(ReadArgs),
    /// Take a node out that does not answer and will not come back
    #[command(visible_alias = "rm")]
    Remove {
        /// Name or id of the node
        node: String,
    },
    /// Shut a node out at once, whatever it says: a stolen host, a leaked state directory
    Revoke {
        /// Name or id of the node
        node: String,
        /// Why; shown to everybody, the node included
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// Arguments of `weft leave`.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// Even with sandboxes attached, or as the last admin
    #[arg(short, long)]
    pub(crate) force: bool,
}
