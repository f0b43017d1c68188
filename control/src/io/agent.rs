//! The agent: one loop that owns the cluster's state, and the edges that feed it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

mod edges;
mod life;
mod seeds;

pub use life::run;

use super::joining::JoinError;
use crate::local::Defaults;
use crate::model::{Name, NodeId};
use crate::trust::Settings;

/// UDP and TCP port of gossip where none is given, as Docker Swarm's.
pub const DEFAULT_GOSSIP_PORT: u16 = 7946;
/// UDP port of the dataplane where none is given (RFC 7348 §8).
pub const DEFAULT_DATA_PORT: u16 = 4789;

/// Underlay address others reach this node by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Advertise {
    /// The address of the default route's interface, or else the only global address of the host.
    #[default]
    Default,
    /// This address; it must be one of the host's.
    Address(IpAddr),
    /// Whatever address this interface has, followed when it changes.
    Interface(String),
}

impl FromStr for Advertise {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) if text.is_empty() => Self::Default,
            Err(_) => Self::Interface(text.to_owned()),
        })
    }
}

/// Everything an agent is started with.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of this node, for people; absent, the one it joined with.
    pub name: Option<Name>,
    /// Underlay address others reach this node by; the default is the one it joined with.
    pub advertise: Advertise,
    /// What to do where the state is in no cluster yet.
    pub first: FirstStart,
    /// Where else to look for members: `HOST` or `HOST:PORT`, names resolved and retried for as long as the agent
    /// runs.
    pub join: Vec<String>,
    /// UDP port of the dataplane.
    pub data_port: u16,
    /// UDP and TCP port of gossip; absent, the one it joined with.
    pub gossip_port: Option<u16>,
    /// Durable state, mode 0700, of one agent only.
    pub state_dir: PathBuf,
    /// Socket and pinned namespaces, mode 0750, of one agent only.
    pub run_dir: PathBuf,
    /// The API's socket; absent, `run_dir/weft.sock`.
    pub socket: Option<PathBuf>,
    /// The host's `resolv.conf`: whom to ask about names outside, and what files of sandboxes are made from.
    pub resolv_conf: PathBuf,
    /// Whether to take part in encrypted networks only.
    pub require_encryption: bool,
    /// Age at which a pair of nodes replaces a session with traffic; [`crate::session::REKEY_AFTER`] but in tests.
    pub rekey_after: Duration,
    /// Packet workers, each with a queue pair and a thread of its own.
    pub workers: NonZeroUsize,
    /// Docker's engine on this host.
    pub docker: DockerConfig,
    /// How the predefined network `bridge` is to be.
    pub bridge: Defaults,
    /// Whether stopping also removes sandboxes, hidden namespaces and pins. Otherwise they stay for the next start:
    /// local traffic goes on, and cross-host traffic resumes with it.
    pub teardown_on_stop: bool,
}

/// How the agent works for Docker's engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engine's socket; absent, nobody tells the names of its networks and containers.
    pub engine: Option<PathBuf>,
    /// Where the engine looks for sockets of plugins; absent, the agent is none.
    pub plugin_dir: Option<PathBuf>,
}

/// What an agent does whose host is in no cluster yet; later it is of no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FirstStart {
    /// It ends and says what to do.
    #[default]
    Refuse,
    /// It makes a cluster.
    Init {
        /// How the node is set up.
        settings: Settings,
        /// Where the token that lets other hosts in is written, if anywhere.
        token_file: Option<PathBuf>,
    },
    /// It joins a cluster.
    Join {
        /// How the node is set up.
        settings: Settings,
        /// Where the token is, now or later.
        token_file: PathBuf,
    },
}

/// What a started agent tells its operator.
#[derive(Debug, Clone)]
pub struct ReadyReport {
    /// Name of this node.
    pub name: Name,
    /// This node's id.
    pub node_id: NodeId,
    /// Underlay address in use.
    pub advertise: IpAddr,
    /// UDP port of the dataplane.
    pub data_port: u16,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// The API's socket.
    pub socket: PathBuf,
}

/// Why an agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent uses the directory.
    #[error("{path} is in use by another agent{}", holder(.pid))]
    DirectoryHeld {
        /// The directory.
        path: PathBuf,
        /// Process that holds it, where it can be told.
        pid: Option<u32>,
    },
    /// Another process has the port.
    #[error("port {port} is in use{}", holder(.pid))]
    PortHeld {
        /// UDP or TCP port.
        port: u16,
        /// Process that holds it, where it can be told.
        pid: Option<u32>,
    },
    /// The host did not become a member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// No usable underlay address.
    #[error("{0}")]
    Advertise(String),
    /// A file, directory, socket or thread could not be had.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent has the identity in the state directory, and was there first.
    #[error(
        "another agent runs with this node's identity at {at}, and has run for longer: the state directory was copied, \
         and two hosts cannot be one node. If this host is the copy, remove {state} here, then 'weft join' with a new \
         token and start the agent again; if the other host is, do that there, then start this agent again"
    )]
    Twin {
        /// Where the other one's gossip is.
        at: SocketAddr,
        /// The state directory here.
        state: PathBuf,
    },
    /// Something else at start; the text names it.
    #[error("{0}")]
    Start(String),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}
