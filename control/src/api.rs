//! The agent's HTTP + JSON interface: the shapes both ends share.
//!
//! Served on a unix socket (default `/run/weft/weft.sock`, mode 0660). Network shapes and paths are those of
//! Docker's Engine API (`/networks…`), with weft's additions at the end of each object; the rest is weft's own.
//! Errors are `{"message": "…"}` with status 400 (bad request), 403 (refused), 404 (not found), 409 (exists),
//! 500 (failed), 503 (cannot now, e.g. no address range reachable).
//!
//! | call | body → answer |
//! |---|---|
//! | `GET /networks`, `GET /networks/{id or name}` | → `Vec<Network>` (without `Containers`), `Network` |
//! | `POST /networks/create` | [`NetworkCreate`] → 201 [`NetworkCreated`] |
//! | `DELETE /networks/{id or name}` | → 204 |
//! | `POST /networks/{id or name}/connect`, `…/disconnect` | [`Connect`] → [`Connected`], [`Disconnect`] → 200 |
//! | `GET /sandboxes`, `GET /sandboxes/{name}` | → `Vec<Sandbox>`, `Sandbox` |
//! | `POST /sandboxes/create`, `DELETE /sandboxes/{name}` | [`SandboxCreate`] → 201 [`Sandbox`], 204 |
//! | `GET /sandboxes/{name}/files` | → [`SandboxFiles`] |
//! | `POST /networks/{name}/namespace` | `Upgrade: weft-descriptor` → 101, then one octet with the network's hidden namespace as `SCM_RIGHTS` |
//! | `POST /networks/{name}/tap?name=SANDBOX` | `Upgrade: weft-descriptor` → 101, then one octet with the TAP of a virtual machine's endpoint as `SCM_RIGHTS`, once |
//! | `POST /sandboxes/{name}/namespace` | `Upgrade: weft-descriptor` → 101, then one octet with the network namespace as `SCM_RIGHTS` |
//! | `POST /sandboxes/adopt?name=N` | `Upgrade: weft-descriptor` → 101, the client sends one octet with a namespace descriptor; the agent answers one line of JSON ([`Sandbox`] or [`ErrorMessage`]) |
//! | `GET /keys`, `POST /keys/rotate` | → `Vec<KeyEpoch>`, → 201 [`KeyRotated`] |
//! | `GET /tokens`, `POST /tokens/create`, `DELETE /tokens/{id}` | → `Vec<TokenShown>`, [`TokenCreate`] → 201 [`TokenCreated`], 204 |
//! | `GET /nodes`, `DELETE /nodes/{id or name}`, `POST /nodes/{id or name}/revoke` | → `Vec<Node>`, 204, [`NodeRevoke`] → 200 |
//! | `POST /leave` | [`Leave`] → 200; the agent ends |
//! | `GET /status`, `/peers`, `/stats`, `/networks/{id or name}/fdb` | → [`Status`], `Vec<Peer>`, [`Stats`], `Vec<FdbEntry>` |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::command::{Command, State};
use crate::publish::PortMap;

/// Header value of the descriptor-passing upgrade.
pub const UPGRADE_DESCRIPTOR: &str = "weft-descriptor";

/// Body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMessage {
    /// What failed, why, and what to do.
    pub message: String,
}

/// Request to make a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkCreate {
    /// Name, unique among the networks known here at creation.
    pub name: String,
    /// `bridge` (also where it is empty) or `overlay`.
    pub driver: String,
    /// Whether to add an IPv6 subnet where none is given.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Subnets, ranges, gateways.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Driver options: of `overlay` `encrypted`, `weft.vni`, `weft.static_vteps`, `weft.broadcast`,
    /// `weft.dhcp`, `com.docker.network.driver.mtu`; of `bridge` Docker's and `weft.dhcp`.
    pub options: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Accepted for Docker's sake; every weft network is attachable.
    pub attachable: bool,
    /// No way out of the network.
    pub internal: bool,
}

/// Address management of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// Always `default`.
    pub driver: String,
    /// Unused; `null` in answers.
    pub options: Option<BTreeMap<String, String>>,
    /// One entry per subnet.
    pub config: Vec<IpamConfig>,
}

/// One subnet; texts, so that a bad one is refused with Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// Prefix in CIDR form.
    pub subnet: String,
    /// Part of the subnet automatic addresses come from.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// Reserved address of the gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses kept for others, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

/// Answer to [`NetworkCreate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCreated {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Something the user should know, or empty.
    pub warning: String,
}

/// A network as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Name, with `~` and four digits of the id where another network owns the plain name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// RFC 3339, UTC, nanoseconds.
    pub created: String,
    /// `local`; `swarm` in Docker's words for a network that spans hosts, for which weft says `global`.
    pub scope: String,
    /// `overlay`, `bridge`, `host` or `null`.
    pub driver: String,
    /// Has IPv4 subnets.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Has IPv6 subnets.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Subnets, ranges, gateways.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// No way out of the network.
    pub internal: bool,
    /// True of networks that span hosts, always.
    pub attachable: bool,
    /// Always false.
    pub ingress: bool,
    /// Always of no network.
    #[serde(default)]
    pub config_from: ConfigFrom,
    /// Always false.
    #[serde(default)]
    pub config_only: bool,
    /// Driver options as given.
    pub options: BTreeMap<String, String>,
    /// Labels as given.
    pub labels: BTreeMap<String, String>,
    /// Nodes with an endpoint in it.
    #[serde(default)]
    pub peers: Vec<NetworkPeer>,
    /// Every endpoint of the cluster in this network: sandbox id (local) or `ep-` and endpoint id (remote).
    #[serde(default)]
    pub containers: BTreeMap<String, NetworkEndpoint>,
    /// VNI this node receives the network on; 0, and absent, where it does not span hosts.
    #[serde(rename = "VNI", default, skip_serializing_if = "is_zero")]
    pub vni: u32,
    /// Largest inner IP packet, octets; 0 where the network has no say in it.
    #[serde(rename = "MTU")]
    pub mtu: u16,
    /// Address use on this node, per subnet.
    #[serde(default)]
    pub ranges: Vec<RangeUse>,
}

/// The network whose configuration is used; weft has no such networks, Docker's readers expect the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// Always empty.
    pub network: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A node with an endpoint in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkPeer {
    /// Node name.
    pub name: String,
    /// Underlay address.
    #[serde(rename = "IP")]
    pub ip: String,
    /// Sealed traffic with it; absent in networks that are not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// An endpoint as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkEndpoint {
    /// Sandbox name.
    pub name: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Colon form.
    pub mac_address: String,
    /// CIDR form or empty.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// CIDR form or empty.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
    /// Name of the node it is on.
    pub node: String,
}

/// Address use of one subnet as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RangeUse {
    /// The subnet.
    pub subnet: String,
    /// Addresses this node may hand out.
    pub owned: u64,
    /// Of those, in use or in quarantine here.
    pub used: u64,
}

/// Request to attach a sandbox to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Connect {
    /// Sandbox name or id (`Container` as in Docker's API).
    pub container: String,
    /// Wishes for the endpoint.
    pub endpoint_config: EndpointConfig,
}

/// Wishes for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointConfig {
    /// Fixed addresses.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: EndpointIpamConfig,
    /// Fixed MAC, or empty.
    pub mac_address: String,
    /// Further names of the endpoint.
    pub aliases: Vec<String>,
    /// Of a sandbox's networks, the one with the highest carries its default route; among equals the first by name.
    pub gw_priority: i64,
}

/// Fixed addresses of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct EndpointIpamConfig {
    /// `--ip`.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// `--ip6`.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: Option<Ipv6Addr>,
}

/// What an attachment got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Connected {
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Name of the interface in the sandbox.
    pub interface: String,
    /// Colon form.
    pub mac_address: String,
    /// Addresses in CIDR form.
    pub addresses: Vec<String>,
    /// Next hops out of the network, at most one of each family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet, octets.
    #[serde(rename = "MTU", default)]
    pub mtu: u16,
}

/// Request to detach a sandbox from a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Disconnect {
    /// Sandbox name or id.
    pub container: String,
    /// Accepted for Docker's sake.
    pub force: bool,
}

/// Request to make a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct SandboxCreate {
    /// Unique on this node; the agent makes one up when empty.
    pub name: String,
    /// Gone when the process at the other end of the socket (`SO_PEERCRED`) ends.
    pub ephemeral: bool,
    /// Whether it is a virtual machine: it has no namespace, and its endpoints are TAPs to be asked for.
    pub tap: bool,
    /// Of a virtual machine whose TAP is in the host's namespace, named as the sandbox: who may open it.
    pub tap_owner: Option<u32>,
    /// What it calls itself; empty for the first 12 digits of its id.
    pub hostname: String,
    /// Servers for names outside, instead of the host's; asked from the sandbox.
    pub dns: Vec<String>,
    /// Domains a name is looked for in, instead of the host's; `.` for none.
    pub dns_search: Vec<String>,
    /// Options of the resolver, instead of the host's.
    pub dns_options: Vec<String>,
    /// Further hosts, `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Ports that something in it listens on, as `80/tcp`; values are empty objects.
    pub exposed_ports: BTreeMap<String, Empty>,
    /// What concerns the host.
    pub host_config: HostConfig,
}

/// What a command in a sandbox is to read instead of the host's files; empty in a namespace that weft did not make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct SandboxFiles {
    /// What it calls itself.
    pub hostname: String,
    /// Where its `/etc/resolv.conf` is, in the agent's mount namespace.
    pub resolv_conf_path: String,
    /// What is in it.
    pub resolv_conf: String,
    /// Where its `/etc/hosts` is.
    pub hosts_path: String,
    /// What is in it.
    pub hosts: String,
    /// Where its `/etc/hostname` is; in it is the name.
    pub hostname_path: String,
}

/// An empty object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Empty {}

/// What of a sandbox concerns the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// Ports to publish, and where.
    pub port_bindings: PortMap,
    /// Whether to publish exposed ports, each on any port of the host.
    pub publish_all_ports: bool,
}

/// A network namespace that holds endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub struct Sandbox {
    /// Unique on this node.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// Path of the namespace in the agent's mount namespace; empty of a virtual machine, which has none.
    pub namespace: String,
    /// Whether it goes with the process that made it.
    pub ephemeral: bool,
    /// Whether weft made the namespace; adopted ones are only let go.
    pub adopted: bool,
    /// Endpoints by network name.
    pub networks: BTreeMap<String, SandboxEndpoint>,
    /// Directory of its command: what to run, what became of it, its output ([`crate::command`]).
    #[serde(default)]
    pub directory: String,
    /// What runs in it; absent where commands come and go by `exec` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// How its command goes.
    #[serde(default)]
    pub state: State,
    /// What of it others see.
    #[serde(default)]
    pub network_settings: NetworkSettings,
    /// What it asked of the host.
    #[serde(default)]
    pub host_config: HostConfig,
}

/// What of a sandbox others see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Exposed ports with where they are published, or `null`.
    pub ports: PortMap,
}

/// A sandbox's end of one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub struct SandboxEndpoint {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Interface name in the sandbox.
    pub interface: String,
    /// Colon form.
    pub mac_address: String,
    /// Address without prefix, or empty.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Prefix length of it.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// Address without prefix, or empty.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Prefix length of it.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
}

/// Request to make a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct TokenCreate {
    /// How long it is good; 0 means a day.
    pub ttl_seconds: u64,
    /// How many nodes may join with it; 0 for any number.
    pub uses: u32,
    /// `node` or `admin`; empty means `node`.
    pub role: String,
}

/// Answer to [`TokenCreate`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TokenCreated {
    /// The token, a secret while it is good.
    pub token: String,
    /// What everybody may know of it.
    #[serde(flatten)]
    pub shown: TokenShown,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TokenShown {
    /// 16 hexadecimal digits.
    pub id: String,
    /// `node` or `admin`.
    pub role: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// RFC 3339, UTC.
    pub expires: String,
    /// Nodes known to have joined with it.
    pub uses: usize,
    /// How many may; 0 for any number.
    pub max_uses: u32,
    /// Name of the node that made it.
    pub made_by: String,
    /// `valid`, `expired`, `spent` or `revoked`.
    pub state: String,
}

/// A node with a certificate, or one that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Node name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub node_id: String,
    /// `node` or `admin`.
    pub role: String,
    /// Underlay address and gossip port, where it was heard of.
    pub address: Option<SocketAddr>,
    /// When its certificate was made. RFC 3339, UTC.
    pub joined: String,
    /// When its certificate ends; renewed before. RFC 3339, UTC.
    pub expires: String,
    /// Id of the token it joined with, or empty.
    pub token: String,
    /// `alive`, `dead`, `left`, `unseen`, `expired` or `revoked`.
    pub state: String,
    /// Whether this is the node that answers.
    pub this_node: bool,
    /// By whom, when and why it was revoked, or empty.
    pub note: String,
}

/// Request to revoke a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeRevoke {
    /// Why, for people.
    pub reason: String,
}

/// Request to leave the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Leave {
    /// Even with sandboxes attached, or as the last admin.
    pub force: bool,
}

/// The agent at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// This node's id, 32 hexadecimal digits.
    pub node_id: String,
    /// This node's name.
    pub node: String,
    /// Underlay address others reach it by.
    pub advertise: IpAddr,
    /// UDP port of the dataplane.
    pub data_port: u16,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// Packet workers.
    pub workers: usize,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// Times this node's agent has started.
    pub boot_epoch: u64,
    /// Members alive, this node included.
    pub members_alive: usize,
    /// Members dead and not yet forgotten.
    pub members_dead: usize,
    /// Networks known.
    pub networks: usize,
    /// Endpoints on this node.
    pub endpoints_local: usize,
    /// Endpoints on other nodes.
    pub endpoints_remote: usize,
    /// Networks known whose packets are sealed.
    #[serde(default)]
    pub networks_encrypted: usize,
    /// Whether this node takes part in encrypted networks only.
    #[serde(default)]
    pub require_encryption: bool,
    /// Things an operator should look at.
    pub warnings: Vec<String>,
}

/// One epoch of the keys that all members share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyEpoch {
    /// Number and hash, as in `3-0a1b`; of two with one number the one of the higher hash is used.
    pub epoch: String,
    /// Whether this node sends with it.
    pub active: bool,
    /// Whether it was made to shut a revoked node out.
    pub urgent: bool,
    /// Seconds since it came here or since the agent started, whichever is later.
    pub age_seconds: u64,
    /// Members alive that have it, this node included.
    pub members: usize,
    /// Members alive, this node included.
    pub of: usize,
}

/// A key was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyRotated {
    /// Its epoch.
    pub epoch: String,
}

/// Another node, or this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Peer {
    /// Node name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub node_id: String,
    /// Underlay address and gossip port.
    pub address: SocketAddr,
    /// UDP port of the dataplane.
    pub data_port: u16,
    /// `alive`, `suspect`, `dead` or `left`.
    pub state: String,
    /// Whether this is the node that answers.
    pub this_node: bool,
    /// Endpoints it has.
    pub endpoints: usize,
    /// Version of its record table as seen here.
    pub version: u64,
    /// Sealed traffic with it; absent where no encrypted network is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// How packets between this node and another are sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    /// `idle`, `connecting`, `established` or `rekeying`.
    pub state: String,
    /// `AES-256-GCM`.
    pub cipher: String,
    /// Epoch of the cluster's key that the session was made under; absent where there is none to send on.
    pub key_epoch: Option<String>,
    /// Seconds since the session was made.
    pub age_seconds: Option<u64>,
    /// Seconds since a packet was last sealed for it.
    pub last_sealed_seconds: Option<u64>,
    /// Seconds since a packet of it was last opened.
    pub last_opened_seconds: Option<u64>,
    /// Packets sealed for it.
    pub sealed: u64,
    /// Packets of it that were opened.
    pub opened: u64,
    /// Packets dropped: authentic, but seen before or too old to tell.
    pub replayed: u64,
    /// Packets dropped: not authentic.
    pub forged: u64,
    /// Packets dropped: in clear for an encrypted network, from its address.
    #[serde(default)]
    pub clear: u64,
}

/// One row of a network's FDB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FdbEntry {
    /// Colon form.
    pub mac: String,
    /// Addresses answered for by ARP and ND.
    pub ips: Vec<IpAddr>,
    /// Where frames go; absent for local endpoints.
    pub vtep: Option<SocketAddr>,
    /// VNI used towards that VTEP.
    #[serde(rename = "VNI")]
    pub vni: u32,
    /// Node name, or empty for a static VTEP.
    pub node: String,
    /// Sandbox name, or empty where learned.
    pub endpoint: String,
    /// `local`, `remote`, `suspended` or `learned`.
    pub state: String,
}

/// Counters since the agent started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub struct Stats {
    /// Packet path, by counter name.
    pub dataplane: BTreeMap<String, u64>,
    /// Drops of the packet path, by reason; `bridge_…` are those of the kernel between sandboxes of the host.
    pub drops: BTreeMap<String, u64>,
    /// Gossip, by counter name.
    pub gossip: BTreeMap<String, u64>,
    /// The agent's care for the kernel: audits, repairs, failures.
    #[serde(default)]
    pub agent: BTreeMap<String, u64>,
    /// Questions about names that sandboxes asked, by counter name.
    #[serde(default)]
    pub names: BTreeMap<String, u64>,
    /// Handshakes of sealed networks, by counter name.
    #[serde(default)]
    pub sessions: BTreeMap<String, u64>,
}
