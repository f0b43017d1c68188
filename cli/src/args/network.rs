//! `weft network …`: flags and words are those of `docker network`.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand};

use super::value::{KeyValue, Target, ipv4, ipv6, mac};

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkVerb {
    /// Make a network that spans all hosts; prints its id
    Create(Box<CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about networks, as JSON
    Inspect(InspectArgs),
    /// Remove networks that nothing is attached to
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Attach a sandbox to a network
    Connect(Box<ConnectArgs>),
    /// Detach a sandbox from a network
    Disconnect(DisconnectArgs),
}

/// Arguments of `network create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft network create blue
  weft network create --subnet 10.7.0.0/24 --gateway 10.7.0.254 --ip-range 10.7.0.128/25 blue
  weft network create --ipv6 --subnet 10.7.0.0/24 --subnet 2001:db8:7::/64 blue
  weft network create --opt encrypted blue
  weft network create -o weft.vni=42 -o weft.static_vteps=192.0.2.9 wall   with a hardware or kernel VTEP")]
pub(crate) struct CreateArgs {
    /// Name of the network
    pub(crate) name: String,
    /// Driver of the network; this version has 'overlay'
    #[arg(short, long, default_value = "overlay")]
    pub(crate) driver: String,
    /// Subnet in CIDR form, e.g. 10.7.0.0/24; repeat for one more (IPv6)
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Vec<String>,
    /// Address kept for a gateway of a subnet
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<String>,
    /// Part of a subnet that automatic addresses come from
    #[arg(long, value_name = "CIDR")]
    pub(crate) ip_range: Vec<String>,
    /// Addresses kept for others, by name, e.g. router=10.7.0.9
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub(crate) aux_address: Vec<KeyValue>,
    /// Give the network an IPv6 subnet too
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Driver option, e.g. encrypted, com.docker.network.driver.mtu=1400, weft.vni=42, weft.broadcast=true
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub(crate) opt: Vec<KeyValue>,
    /// Label to find it by
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<KeyValue>,
    /// Accepted for Docker's sake: every weft network is attachable
    #[arg(long)]
    pub(crate) attachable: bool,
    /// No way out of the network
    #[arg(long)]
    pub(crate) internal: bool,
}

/// Arguments of `network ls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Filters: driver=NAME, id=PREFIX, label=KEY or KEY=VALUE, name=PART, scope=NAME, type=builtin|custom,
dangling=true|false (nothing attached). Several of one key: any may match (labels: all); several keys: all must.")]
pub(crate) struct ListArgs {
    /// Only networks that match, e.g. label=team=blue
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<KeyValue>,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
}

/// Arguments of `network inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// Accepted for Docker's sake: the answer is always verbose
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Accepted for the sake of the other verbs: the answer is always JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `network rm` and `sandbox rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// No error for what does not exist; of sandboxes, also those with running processes
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Arguments of `network connect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft network connect blue web
  weft network connect --ip 10.7.0.9 blue pid:4711             any process's network namespace
  weft network connect blue /run/netns/vm1                     a namespace made by 'ip netns add'")]
pub(crate) struct ConnectArgs {
    /// Name or id of the network
    pub(crate) network: String,
    /// A sandbox's name, pid:N, or the path of a network namespace
    pub(crate) sandbox: Target,
    /// Fixed IPv4 address
    #[arg(long, value_name = "ADDRESS", value_parser = ipv4)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Fixed IPv6 address
    #[arg(long, value_name = "ADDRESS", value_parser = ipv6)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// Fixed MAC address
    #[arg(long, visible_alias = "mac-address", value_name = "MAC", value_parser = mac)]
    pub(crate) mac: Option<String>,
    /// Further name in this network
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Vec<String>,
    /// Print what the attachment got, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct DisconnectArgs {
    /// Name or id of the network
    pub(crate) network: String,
    /// A sandbox's name, pid:N, or the path of a network namespace
    pub(crate) sandbox: Target,
    /// Accepted for Docker's sake
    #[arg(short, long)]
    pub(crate) force: bool,
}
