//! `weft agent`: flags, their environment variables, and what they mean.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// Arguments of `weft agent`. A flag wins over its variable, that over the file, that over the default.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "\
The host must be a member of a cluster ('weft init', 'weft join'), or become one at the first start by --init or
--token-file. The agent runs in the foreground until SIGTERM or Ctrl-C; networks and sandboxes outlive it.

Every flag can also stand in a TOML file (--config, else /etc/weft/weft.toml if there is one):
  name = \"a\"
  advertise = \"192.0.2.1\"
  token-file = \"/etc/weft/token\"
  join = [\"192.0.2.2\", \"c.example.net:7946\"]

Open between the hosts: UDP 4789 (data), UDP and TCP 7946 (gossip)."
)]
pub(crate) struct AgentArgs {
    /// Name of this host in the cluster [default: the one it joined with]
    #[arg(long, env = "WEFT_NAME", hide_env_values = true)]
    pub(crate) name: Option<String>,
    /// Address the other hosts reach this one by, or the interface that has it [default: as it joined]
    #[arg(long, env = "WEFT_ADVERTISE", hide_env_values = true, value_name = "ADDRESS|INTERFACE")]
    pub(crate) advertise: Option<String>,
    /// Where this host is in no cluster yet, make one as 'weft init' does
    #[arg(long, env = "WEFT_INIT", hide_env_values = true)]
    pub(crate) init: bool,
    /// Where this host is in no cluster yet, join by the token in this file, now or when it comes; with --init, write
    /// the new cluster's token there
    #[arg(long, env = "WEFT_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where else to look for other hosts than where they were last; repeatable
    #[arg(
        long,
        env = "WEFT_JOIN",
        hide_env_values = true,
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    pub(crate) join: Vec<String>,
    /// UDP port of the data path [default: 4789]
    #[arg(long, env = "WEFT_DATA_PORT", hide_env_values = true, value_name = "PORT")]
    pub(crate) data_port: Option<u16>,
    /// UDP and TCP port of gossip [default: as it joined, else 7946]
    #[arg(long, env = "WEFT_GOSSIP_PORT", hide_env_values = true, value_name = "PORT")]
    pub(crate) gossip_port: Option<u16>,
    /// What must survive a restart [default: /var/lib/weft]
    #[arg(long, env = "WEFT_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Socket and namespaces [default: /run/weft]
    #[arg(long, env = "WEFT_RUN_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Address and subnet of the network 'bridge', e.g. 10.9.0.1/24 [default: the first free of 172.17.0.0/16, …]
    #[arg(long, env = "WEFT_BIP", hide_env_values = true, value_name = "CIDR")]
    pub(crate) bip: Option<String>,
    /// Name of the interface of the network 'bridge' [default: weft0]
    #[arg(long, env = "WEFT_BRIDGE", hide_env_values = true, value_name = "INTERFACE")]
    pub(crate) bridge: Option<String>,
    /// The socket of this host's Docker engine, e.g. unix:///var/run/docker.sock: weft is its network driver, and its
    /// networks are on every host
    #[arg(long, env = "WEFT_DOCKER", hide_env_values = true, value_name = "SOCKET")]
    pub(crate) docker: Option<String>,
    /// Where the Docker engine looks for plugins [default with --docker: /run/docker/plugins; else weft is none]
    #[arg(long, env = "WEFT_DOCKER_PLUGIN_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) docker_plugin_dir: Option<PathBuf>,
    /// Packet threads [default: one per processor, at most 8]
    #[arg(long, env = "WEFT_WORKERS", hide_env_values = true, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Whom to ask about names outside [default: /etc/resolv.conf]
    #[arg(long, env = "WEFT_RESOLV_CONF", hide_env_values = true, value_name = "FILE")]
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Make and take part in encrypted networks only
    #[arg(long, env = "WEFT_REQUIRE_ENCRYPTION", hide_env_values = true)]
    pub(crate) require_encryption: bool,
    /// For tests: replace sessions with traffic after so many seconds instead of 120
    #[arg(long, hide = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=120))]
    pub(crate) rekey_after: Option<u64>,
    /// On stopping also remove sandboxes and networks' namespaces, instead of keeping them for the next start
    #[arg(long, env = "WEFT_TEARDOWN_ON_STOP", hide_env_values = true)]
    pub(crate) teardown_on_stop: bool,
    /// TOML file with the same settings
    #[arg(long, env = "WEFT_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to log to standard error, e.g. debug or weft_control=trace
    #[arg(long, env = "WEFT_LOG", hide_env_values = true, value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
}
