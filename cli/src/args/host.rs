//! `weft doctor` and `weft cleanup`: what concerns the host itself.

use std::path::PathBuf;

use clap::Args;

use super::ReadArgs;

/// Where an agent of this host keeps its things; as those of `weft agent`.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Where the agent keeps its state [default: /var/lib/weft]
    #[arg(long, env = "WEFT_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the agent has its socket and namespaces [default: /run/weft]
    #[arg(long, env = "WEFT_RUN_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// The agent's TOML file [default: /etc/weft/weft.toml if there is one]
    #[arg(long, env = "WEFT_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Arguments of `weft doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Works before the first agent is started, and without root as far as that goes. Nothing is changed; other hosts are asked
for ICMP echoes alone.

Exit status: 0 nothing keeps weft from working (warnings may be shown), 1 something does.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Address the other hosts are to reach this one by, or the interface that has it
    #[arg(long, env = "WEFT_ADVERTISE", hide_env_values = true, value_name = "ADDRESS|INTERFACE")]
    pub(crate) advertise: Option<String>,
    /// UDP port of the data path, where no agent runs [default: 4789]
    #[arg(long, env = "WEFT_DATA_PORT", hide_env_values = true, value_name = "PORT")]
    pub(crate) data_port: Option<u16>,
    /// UDP and TCP port of gossip, where no agent runs [default: 7946]
    #[arg(long, env = "WEFT_GOSSIP_PORT", hide_env_values = true, value_name = "PORT")]
    pub(crate) gossip_port: Option<u16>,
    /// Socket of Docker's engine [default: the agent's, else unix:///var/run/docker.sock]
    #[arg(long, env = "WEFT_DOCKER", hide_env_values = true, value_name = "unix://PATH")]
    pub(crate) docker: Option<String>,
    /// Where Docker's engine looks for plugins [default: /run/docker/plugins]
    #[arg(long, env = "WEFT_DOCKER_PLUGIN_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) docker_plugin_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Arguments of `weft cleanup`.
#[derive(Debug, Args)]
#[command(after_help = "\
For a host whose agent will not run again: a stopped agent keeps its networks and sandboxes for the next start, and takes
them over then. 'weft leave' does this too, and takes the host out of the cluster.

What runs in a sandbox loses its network. Records stay: an agent that is started later makes everything anew.")]
pub(crate) struct CleanupArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}
