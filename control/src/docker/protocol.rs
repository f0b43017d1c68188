//! The calls of Docker's plugin protocols (network driver and IPAM driver, engines 20.10 to 29) and their answers.
//!
//! Each call is a POST with a JSON object. Engines differ in what they leave out and what they send as `null`, and newer
//! ones add fields: what is absent is empty, what is not known is ignored. Whoever calls may be anybody who gets at the
//! socket: bodies are bounded by the server, ids are checked here, everything else where it is used.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::{ADDRESS_SPACE, DockerId};

/// What every answer is said to be.
pub const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Under this the engine says which ports a container publishes.
const PORTS: &str = "com.docker.network.portmap";

/// What a call is about, which decides the name of the field that an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The network driver, and the plugin itself.
    Network,
    /// The IPAM driver.
    Ipam,
}

impl Family {
    /// The body of a failure.
    #[must_use]
    pub fn failure(self, text: &str) -> Value {
        match self {
            Self::Network => json!({ "Err": text }),
            Self::Ipam => json!({ "Error": text }),
        }
    }
}

/// A request as it is to be dealt with.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// The same is answered always.
    Answered(Value),
    /// Somebody has to do something.
    Asked(Call),
}

/// A call somebody has to do something for.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// `NetworkDriver.GetCapabilities`, which an engine asks for once, before everything else.
    GetCapabilities,
    /// `NetworkDriver.CreateNetwork`.
    CreateNetwork(CreateNetwork),
    /// `NetworkDriver.DeleteNetwork`.
    DeleteNetwork(NetworkRef),
    /// `NetworkDriver.CreateEndpoint`.
    CreateEndpoint(CreateEndpoint),
    /// `NetworkDriver.DeleteEndpoint`.
    DeleteEndpoint(EndpointRef),
    /// `NetworkDriver.Join`.
    Join(Join),
    /// `NetworkDriver.Leave`.
    Leave(EndpointRef),
    /// `IpamDriver.RequestPool`.
    RequestPool(RequestPool),
    /// `IpamDriver.ReleasePool`.
    ReleasePool(ReleasePool),
    /// `IpamDriver.RequestAddress`.
    RequestAddress(RequestAddress),
    /// `IpamDriver.ReleaseAddress`.
    ReleaseAddress(ReleaseAddress),
}

/// The body is not the object that was expected; the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// There is none: engines before 23 repeat a call so when the agent ended during it.
    #[error("the agent was started again during the call: try again")]
    Empty,
    /// It is another.
    #[error("invalid request: {0}")]
    Json(#[from] serde_json::Error),
}

/// Subnet of a network that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamData {
    /// Whose addresses they are.
    #[serde(deserialize_with = "or_nothing")]
    pub address_space: String,
    /// Prefix in CIDR form.
    #[serde(deserialize_with = "or_nothing")]
    pub pool: String,
    /// Address of the gateway with the prefix length; empty where there is none.
    #[serde(deserialize_with = "or_nothing")]
    pub gateway: String,
    /// Addresses with prefix lengths, by name.
    #[serde(deserialize_with = "or_nothing")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetwork {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network: DockerId,
    /// Docker's labels, and under `com.docker.network.generic` the user's driver options.
    #[serde(default, deserialize_with = "or_nothing")]
    pub options: BTreeMap<String, Value>,
    /// IPv4 subnets.
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_nothing")]
    pub ipv4: Vec<IpamData>,
    /// IPv6 subnets.
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_nothing")]
    pub ipv6: Vec<IpamData>,
}

/// A call that names a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NetworkRef {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network: DockerId,
}

/// A call that names an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EndpointRef {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub network: DockerId,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint: DockerId,
}

/// What an endpoint's interface has; what is empty is the driver's to choose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Interface {
    /// IPv4 address with prefix length.
    #[serde(deserialize_with = "or_nothing", skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// IPv6 address with prefix length.
    #[serde(
        rename = "AddressIPv6",
        deserialize_with = "or_nothing",
        skip_serializing_if = "String::is_empty"
    )]
    pub address_ipv6: String,
    /// MAC address.
    #[serde(deserialize_with = "or_nothing", skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateEndpoint {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub network: DockerId,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint: DockerId,
    /// What it is to have.
    #[serde(default, deserialize_with = "or_nothing")]
    pub interface: Interface,
}

/// `NetworkDriver.Join`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Join {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub network: DockerId,
    /// The endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint: DockerId,
    /// Path of the container's network namespace; there may be nothing yet.
    #[serde(default, deserialize_with = "or_nothing")]
    pub sandbox_key: String,
    /// What else the engine knows of the container.
    #[serde(default, deserialize_with = "or_nothing")]
    pub options: BTreeMap<String, Value>,
}

impl Join {
    /// Whether the container publishes ports.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.options.get(PORTS).and_then(Value::as_array).is_some_and(|ports| !ports.is_empty())
    }
}

/// Where the engine finds an interface, and what it is to be called in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    /// Name in the host's namespace.
    pub src_name: String,
    /// What its name in the container begins with; the engine adds a number.
    pub dst_prefix: String,
}

/// Answer to `NetworkDriver.GetCapabilities`.
#[must_use]
pub fn capabilities() -> Value {
    // An engine that is no Swarm manager makes no network of scope global.
    json!({ "Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": false })
}

/// Answer to `NetworkDriver.Join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    /// The interface.
    pub interface_name: InterfaceName,
    /// Next hop of the IPv4 default route; without one the engine adds `docker_gwbridge`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// The same of IPv6.
    #[serde(rename = "GatewayIPv6", skip_serializing_if = "String::is_empty")]
    pub gateway_ipv6: String,
    /// Whether the engine is to leave `docker_gwbridge` out.
    pub disable_gateway_service: bool,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RequestPool {
    /// Prefix in CIDR form, or nothing for any.
    #[serde(deserialize_with = "or_nothing")]
    pub pool: String,
    /// Part of it that automatic addresses come from.
    #[serde(deserialize_with = "or_nothing")]
    pub sub_pool: String,
    /// The user's options of the address manager.
    #[serde(deserialize_with = "or_nothing")]
    pub options: BTreeMap<String, String>,
    /// Whether it is of IPv6.
    #[serde(rename = "V6", deserialize_with = "or_nothing")]
    pub v6: bool,
}

/// `IpamDriver.ReleasePool`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReleasePool {
    /// The pool.
    #[serde(rename = "PoolID")]
    pub pool: String,
}

/// `IpamDriver.RequestAddress`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestAddress {
    /// The pool.
    #[serde(rename = "PoolID")]
    pub pool: String,
    /// A certain address, or nothing for any.
    #[serde(default, deserialize_with = "or_nothing")]
    pub address: String,
    /// What it is for.
    #[serde(default, deserialize_with = "or_nothing")]
    pub options: BTreeMap<String, String>,
}

impl RequestAddress {
    /// Whether it is to be the gateway's.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.options.get("RequestAddressType").is_some_and(|kind| kind == "com.docker.network.gateway")
    }
}

/// `IpamDriver.ReleaseAddress`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReleaseAddress {
    /// The pool.
    #[serde(rename = "PoolID")]
    pub pool: String,
    /// The address.
    #[serde(default, deserialize_with = "or_nothing")]
    pub address: String,
}

/// Reads a request to `path`; nothing where no such call is known.
///
/// # Errors
/// The body is not what the call takes.
pub fn read(path: &str, body: &[u8]) -> Option<(Family, Result<Request, Malformed>)> {
    let (family, call) = match path.strip_prefix('/')?.split_once('.')? {
        ("Plugin", call) | ("NetworkDriver", call) => (Family::Network, call),
        ("IpamDriver", call) => (Family::Ipam, call),
        _ => return None,
    };
    let known = path.starts_with("/Plugin.") == (call == "Activate");
    let request = match family {
        Family::Network if known => network_call(call, body),
        Family::Network => None,
        Family::Ipam => ipam_call(call, body),
    };
    Some((family, request?))
}

fn network_call(call: &str, body: &[u8]) -> Option<Result<Request, Malformed>> {
    Some(match call {
        "Activate" => Ok(Request::Answered(json!({ "Implements": ["NetworkDriver", "IpamDriver"] }))),
        "GetCapabilities" => Ok(Request::Asked(Call::GetCapabilities)),
        "GwAllocCheck" => Ok(Request::Answered(json!({ "SkipIPv4": false, "SkipIPv6": false }))),
        "CreateNetwork" => asked(body, Call::CreateNetwork),
        "DeleteNetwork" => asked(body, Call::DeleteNetwork),
        "CreateEndpoint" => asked(body, Call::CreateEndpoint),
        "DeleteEndpoint" => asked(body, Call::DeleteEndpoint),
        "Join" => asked(body, Call::Join),
        "Leave" => asked(body, Call::Leave),
        "EndpointOperInfo" => Ok(Request::Answered(json!({ "Value": {} }))),
        // Ports are published by the engine's own docker_gwbridge; other nodes are found by gossip.
        "ProgramExternalConnectivity"
        | "RevokeExternalConnectivity"
        | "DiscoverNew"
        | "DiscoverDelete"
        // Of Swarm's managers, which have networks of scope global.
        | "FreeNetwork" => Ok(Request::Answered(json!({}))),
        "AllocateNetwork" => Ok(Request::Answered(json!({ "Options": {} }))),
        _ => return None,
    })
}

fn ipam_call(call: &str, body: &[u8]) -> Option<Result<Request, Malformed>> {
    Some(match call {
        "GetCapabilities" => Ok(Request::Answered(json!({
            "RequiresMACAddress": false, "RequiresRequestReplay": false
        }))),
        "GetDefaultAddressSpaces" => Ok(Request::Answered(json!({
            "LocalDefaultAddressSpace": ADDRESS_SPACE, "GlobalDefaultAddressSpace": ADDRESS_SPACE
        }))),
        "RequestPool" => asked(body, Call::RequestPool),
        "ReleasePool" => asked(body, Call::ReleasePool),
        "RequestAddress" => asked(body, Call::RequestAddress),
        "ReleaseAddress" => asked(body, Call::ReleaseAddress),
        _ => return None,
    })
}

fn asked<T: DeserializeOwned>(body: &[u8], call: impl FnOnce(T) -> Call) -> Result<Request, Malformed> {
    if body.is_empty() {
        return Err(Malformed::Empty);
    }
    Ok(Request::Asked(call(serde_json::from_slice(body)?)))
}

/// Go says `null` for whatever is empty.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}
