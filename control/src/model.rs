//! The values everyone speaks of: nodes, networks, endpoints, names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl $name {
            /// The first 12 hexadecimal digits, as tables show it.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }
    };
}

id128!(
    /// A node's identity: the first 16 octets of SHA-256 over its Ed25519 public key.
    NodeId
);
id128!(
    /// A network's identity, random, never used again after removal.
    NetworkId
);
id128!(
    /// An endpoint's identity, random.
    EndpointId
);
id128!(
    /// A sandbox's identity, random.
    SandboxId
);

impl NetworkId {
    /// The 64 hexadecimal digits Docker's tools expect of an id: this id, then zeros.
    #[must_use]
    pub fn long(&self) -> String {
        format!("{self}{:032}", 0)
    }
}

impl NetworkId {
    /// The network of 64 hexadecimal digits as [`NetworkId::long`] writes them.
    #[must_use]
    pub fn from_long(text: &str) -> Option<Self> {
        let digits = text.strip_suffix(&"0".repeat(32)).filter(|digits| digits.len() == 32)?;
        let number = u128::from_str_radix(digits, 16).ok()?;
        Some(Self(number.to_be_bytes())).filter(|id| id.long() == text)
    }
}

impl EndpointId {
    /// The 64 hexadecimal digits Docker's tools expect of an id: this id, then zeros.
    #[must_use]
    pub fn long(&self) -> String {
        format!("{self}{:032}", 0)
    }
}

impl SandboxId {
    /// The 64 hexadecimal digits Docker's tools expect of an id: this id, then zeros.
    #[must_use]
    pub fn long(&self) -> String {
        format!("{self}{:032}", 0)
    }
}

/// A name of a node, network or sandbox: `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`.
///
/// The one rule for names, held at every entrance, so that no name can be a path, an option or markup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 63 characters")]
pub struct InvalidName(pub String);

impl Name {
    /// Longest name, octets.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if first && rest && text.len() <= Self::MAX_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_from_the_digits_it_is_written_in_alone() {
        let id = NetworkId([0xa5; 16]);
        assert_eq!(NetworkId::from_long(&id.long()), Some(id));
        assert_eq!(NetworkId::from_long(&NetworkId([0; 16]).long()), Some(NetworkId([0; 16])));
        let (plus, upper) = (format!("+{}", &id.long()[1..]), id.long().to_uppercase());
        for bad in ["", &id.to_string(), &plus, &upper, &"1".repeat(64), &"é".repeat(32)] {
            assert_eq!(NetworkId::from_long(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_that_could_be_paths_options_or_markup_are_refused() {
        for good in ["a", "web-1", "A.b_c", "0"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "..", "../x", "a/b", "a b", "a\n", "a\0", "é", "a;b", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
