//! Argument values with a meaning of their own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use weft_dataplane::wire::MacAddr;

/// `key=value`; a bare `key` has the empty value, as with Docker's `--opt encrypted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Whether it came without `=`.
    pub(crate) bare: bool,
}

impl FromStr for KeyValue {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = !text.contains('=');
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.trim().is_empty() {
            return Err("expected KEY=VALUE");
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), bare })
    }
}

/// What `network connect` attaches: a sandbox the agent knows, or any network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A sandbox by name or id.
    Sandbox(String),
    /// The network namespace of a process (`pid:N`).
    Process(u32),
    /// A network namespace bound to a path; anything with a `/` in it.
    Path(PathBuf),
}

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if let Some(pid) = text.strip_prefix("pid:").and_then(|n| n.parse().ok()) {
            return Ok(Self::Process(pid));
        }
        if text.contains('/') { Ok(Self::Path(text.into())) } else { Ok(Self::Sandbox(text.to_owned())) }
    }
}

/// A TAP to be made: its name, and who may open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// User; absent for whoever asks.
    pub(crate) owner: Option<u32>,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, owner) = match text.split_once(",owner=") {
            Some((name, owner)) => {
                (name, Some(owner.parse().map_err(|_| format!("invalid user {owner:?}: say a number"))?))
            }
            None => (text, None),
        };
        Ok(Self { name: name.to_owned(), owner })
    }
}

/// Reads an IPv4 address, refusing others with Docker's words.
pub(crate) fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("invalid IPv4 address: {text}"))
}

/// Reads an IPv6 address, refusing others with Docker's words.
pub(crate) fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("invalid IPv6 address: {text}"))
}

/// Reads a MAC address an interface may own.
pub(crate) fn mac(text: &str) -> Result<String, String> {
    let mac: MacAddr = text.parse().map_err(|error| format!("invalid MAC address: {text}: {error}"))?;
    if !mac.is_assignable() {
        return Err(format!("invalid MAC address: {text}: a group or zero address belongs to no interface"));
    }
    Ok(mac.to_string())
}
