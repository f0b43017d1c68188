//! `weft agent`: flags, their environment variables, and what they mean.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// Arguments of `weft agent`. A flag wins over its variable, that over the file, that over the default.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "\
Without any flag the agent is a cluster of one: it makes its own key in its state directory and prints how
another host joins. It runs in the foreground until SIGTERM or Ctrl-C; networks and sandboxes outlive it.

Every flag can also stand in a TOML file (--config, else /etc/weft/weft.toml if there is one):
  name = \"a\"
  advertise = \"192.0.2.1\"
  cluster-key = \"/etc/weft/cluster.key\"
  join = [\"192.0.2.2\", \"c.example.net:7946\"]

Open between the hosts: UDP 4789 (data), UDP and TCP 7946 (gossip)."
)]
pub(crate) struct AgentArgs {
    /// Name of this host in the cluster [default: its host name]
    #[arg(long, env = "WEFT_NAME", hide_env_values = true)]
    pub(crate) name: Option<String>,
    /// Address the other hosts reach this one by, or the interface that has it [default: that of the default route]
    #[arg(long, env = "WEFT_ADVERTISE", hide_env_values = true, value_name = "ADDRESS|INTERFACE")]
    pub(crate) advertise: Option<String>,
    /// File with the cluster's key, made by 'weft keygen' [default: cluster.key in the state directory]
    #[arg(long, env = "WEFT_CLUSTER_KEY", hide_env_values = true, value_name = "FILE")]
    pub(crate) cluster_key: Option<PathBuf>,
    /// Any other host of the cluster; repeatable
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
    /// UDP and TCP port of gossip [default: 7946]
    #[arg(long, env = "WEFT_GOSSIP_PORT", hide_env_values = true, value_name = "PORT")]
    pub(crate) gossip_port: Option<u16>,
    /// What must survive a restart [default: /var/lib/weft]
    #[arg(long, env = "WEFT_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Socket and namespaces [default: /run/weft]
    #[arg(long, env = "WEFT_RUN_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Packet threads [default: one per processor, at most 8]
    #[arg(long, env = "WEFT_WORKERS", hide_env_values = true, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Make and take part in encrypted networks only
    #[arg(long, env = "WEFT_REQUIRE_ENCRYPTION", hide_env_values = true)]
    pub(crate) require_encryption: bool,
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
