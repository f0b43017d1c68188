//! `weft network …`: flags and words are those of `docker network`.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand};

use super::value::{Device, KeyValue, Target, ipv4, ipv6, mac};
use crate::filter::FilterArg;

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkVerb {
    /// Make a network, of this host or (-d overlay) of all hosts; prints its id
    Create(Box<CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about networks, as JSON
    Inspect(InspectArgs),
    /// Remove networks that nothing is attached to
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    /// Remove all networks that you made and nothing is attached to
    Prune(PruneArgs),
    /// Attach a sandbox to a network
    Connect(Box<ConnectArgs>),
    /// Detach a sandbox from a network
    Disconnect(DisconnectArgs),
}

/// Arguments of `network create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft network create blue                                     on this host
  weft network create -d overlay blue                          over all hosts
  weft network create -d overlay --opt encrypted blue
  weft network create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1 lan   on eth0's segment
  weft network create --subnet 10.7.0.0/24 --gateway 10.7.0.254 --ip-range 10.7.0.128/25 blue
  weft network create --ipv6 --subnet 10.7.0.0/24 --subnet 2001:db8:7::/64 blue
  weft network create -d overlay -o weft.vni=42 -o weft.static_vteps=192.0.2.9 wall   with a hardware or kernel VTEP")]
pub(crate) struct CreateArgs {
    /// Name of the network
    pub(crate) name: String,
    /// Driver of the network: 'bridge' (of this host), 'overlay' (of all hosts), 'macvlan' or 'ipvlan' (on a link of the
    /// host)
    #[arg(short, long, default_value = "bridge")]
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
    /// Driver option, e.g. encrypted, com.docker.network.driver.mtu=1400, weft.vni=42, weft.broadcast=true,
    /// parent=eth0.50, macvlan_mode=private
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
    #[command(flatten)]
    pub(crate) others: DockerOnly,
}

/// Flags of Docker's `network create` that say what weft does anyway, or what it does not do and says so.
#[derive(Debug, Args)]
pub(crate) struct DockerOnly {
    /// IPAM driver; there is 'default'
    #[arg(long, default_value = "default", hide = true)]
    pub(crate) ipam_driver: String,
    /// Options of an IPAM driver; 'default' has none
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    pub(crate) ipam_opt: Vec<KeyValue>,
    /// IPv4 in the network; it cannot be switched off
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub(crate) ipv4: bool,
    /// 'local' or 'global'; the driver decides
    #[arg(long, hide = true)]
    pub(crate) scope: Option<String>,
    /// Docker Swarm's routing mesh
    #[arg(long, hide = true)]
    pub(crate) ingress: bool,
    /// A configuration without a network
    #[arg(long, hide = true)]
    pub(crate) config_only: bool,
    /// The configuration to take
    #[arg(long, hide = true)]
    pub(crate) config_from: Option<String>,
}

impl DockerOnly {
    /// Why the network cannot be made as asked for, if so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let bad_scope =
            self.scope.as_deref().is_some_and(|scope| !["local", "global", "swarm"].contains(&scope));
        let reasons = [
            (self.ipam_driver != "default", "--ipam-driver: weft has the IPAM driver 'default' alone"),
            (!self.ipam_opt.is_empty(), "--ipam-opt: the IPAM driver 'default' has no options"),
            (!self.ipv4, "--ipv4=false: every network has IPv4 addresses; add IPv6 with --ipv6"),
            (bad_scope, "--scope: the driver decides it; 'overlay' spans hosts, the others are local"),
            (self.ingress, "--ingress: weft has no routing mesh; publish ports with 'weft run -p'"),
            (
                self.config_only || self.config_from.is_some(),
                "--config-only and --config-from: give the network its own options instead",
            ),
        ];
        reasons.into_iter().find(|(refused, _)| *refused).map(|(_, reason)| reason.to_owned())
    }
}

/// Arguments of `network ls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Filters: driver=NAME, id=PREFIX, label=KEY or KEY=VALUE, name=PART, scope=NAME, type=builtin|custom,
dangling=true|false (nothing attached). Several of one key: any may match (labels: all); several keys: all must.

Fields of --format: .ID .Name .Driver .Scope .IPv4 .IPv6 .Internal .Labels .CreatedAt and .Label \"KEY\"

Examples:
  weft network ls --filter label=team=blue -q
  weft network ls --format 'table {{.Name}}\\t{{.Label \"team\"}}'")]
pub(crate) struct ListArgs {
    /// Only networks that match, e.g. label=team=blue
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<FilterArg>,
    /// 'table', 'table TEMPLATE', 'json', or a Go template, e.g. '{{.Name}}: {{.Driver}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<String>,
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
#[command(after_help = "\
Examples:
  weft network inspect blue
  weft network inspect blue --format '{{range .Containers}}{{.Name}} - {{.IPv4Address}}{{println}}{{end}}'
  weft network inspect -f '{{(index .IPAM.Config 0).Subnet}}' blue red")]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// 'json' (one line), or a Go template, printed for each network
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<String>,
    /// Accepted for Docker's sake: the answer is always verbose
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Accepted for the sake of the other verbs: the answer is always JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `network prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Filters: label=KEY or KEY=VALUE, label!=KEY or KEY=VALUE, until=TIME (made before: 24h ago, 2026-11-20T10:00:00Z,
or seconds since 1970)

Example:
  weft network prune --force --filter label=environnement=test --filter until=24h")]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only networks that match, e.g. label=team=blue
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<FilterArg>,
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
  weft network connect blue /run/netns/vm1                     a namespace made by 'ip netns add'
  weft network connect --tap vm1,owner=1000 blue               a TAP vm1 on this host, which user 1000 may open")]
pub(crate) struct ConnectArgs {
    /// Name or id of the network
    pub(crate) network: String,
    /// A sandbox's name, pid:N, or the path of a network namespace
    #[arg(required_unless_present = "tap")]
    pub(crate) sandbox: Option<Target>,
    /// Make a TAP of this name for a virtual machine instead; 'network disconnect NETWORK NAME' removes it
    #[arg(long, value_name = "NAME[,owner=UID]", conflicts_with = "sandbox")]
    pub(crate) tap: Option<Device>,
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
    /// The highest of a sandbox's networks gives its default route; among equals the first by name
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    pub(crate) gw_priority: i64,
    /// Names of another container, as Docker had them before networks
    #[arg(long, hide = true)]
    pub(crate) link: Vec<String>,
    /// Further link-local address
    #[arg(long, hide = true)]
    pub(crate) link_local_ip: Vec<String>,
    /// Option of the endpoint's driver
    #[arg(long, hide = true)]
    pub(crate) driver_opt: Vec<String>,
    /// Print what the attachment got, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConnectArgs {
    /// Why the sandbox cannot be attached as asked for, if so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let reasons = [
            (!self.link.is_empty(), "--link: sandboxes of one network find each other by name; use --alias"),
            (
                !self.link_local_ip.is_empty(),
                "--link-local-ip: add it inside, with 'weft exec SANDBOX -- ip address add'",
            ),
            (!self.driver_opt.is_empty(), "--driver-opt: endpoints have no options"),
        ];
        reasons.into_iter().find(|(refused, _)| *refused).map(|(_, reason)| reason.to_owned())
    }
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
