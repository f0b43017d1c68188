//! Docker's ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{NetworkId, SandboxId};

/// Id that a Docker engine gave a network or an endpoint: 64 hexadecimal digits, random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DockerId(String);

/// The text is no id of Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid id {0:?}: Docker's have 64 hexadecimal digits")]
pub struct InvalidId(String);

impl DockerId {
    /// All digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as tables show it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// The weft network that is made for a network of this id: so the same call, come twice, makes one.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId(self.half())
    }

    /// The sandbox of an endpoint of this id.
    #[must_use]
    pub fn sandbox(&self) -> SandboxId {
        SandboxId(self.half())
    }

    fn half(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (octet, at) in octets.iter_mut().zip((0..32).step_by(2)) {
            *octet = u8::from_str_radix(&self.0[at..at + 2], 16).unwrap_or_default();
        }
        octets
    }
}

impl FromStr for DockerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(lower) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for DockerId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<DockerId> for String {
    fn from(id: DockerId) -> Self {
        id.0
    }
}

impl fmt::Display for DockerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_64_digits_and_names_a_network_and_a_sandbox_of_weft() {
        let text = "0123456789abcdef".repeat(4);
        let id: DockerId = text.parse().expect("an id");
        assert_eq!((id.short(), id.network().to_string()), ("0123456789ab", text[..32].to_owned()));
        assert_eq!(id.sandbox().0, id.network().0);
        for bad in ["", "../../etc", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"é".repeat(32)]
        {
            assert!(bad.parse::<DockerId>().is_err(), "{bad:?}");
        }
    }
}
