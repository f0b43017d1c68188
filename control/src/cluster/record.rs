//! What nodes tell each other about networks: keys and bodies of records, and calls.
//!
//! | key | body | published by |
//! |---|---|---|
//! | `N` network | [`Definition`](crate::network::Definition) as a statement of its creator | creator, nodes in it, three sponsors, or who sees nobody else do it |
//! | `X` network | [`Removal`] as a statement of who removed it | three sponsors, while it is recent or somebody still mentions the network |
//! | `n` network | [`Membership`] | nodes with an endpoint in it |
//! | `e` network endpoint | [`Endpoint`] | the endpoint's node |
//! | `r` network pool chunk | [`Ranges`] | owners of ranges |
//!
//! A statement carries its author's public key and signature, so that it can be handed on by others.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_dataplane::wire::{MacAddr, Vni};

use crate::identity::{self, Identity};
use crate::model::{EndpointId, Name, NetworkId, NodeId, SandboxId};
use crate::timestamp::UnixMillis;

/// Octets of the statements in one record; a grant takes under 500.
pub(super) const RANGES_OCTETS: usize = 3_500;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Definition(NetworkId),
    Removal(NetworkId),
    Membership(NetworkId),
    Endpoint(NetworkId, EndpointId),
    Ranges(NetworkId, u8, u16),
}

impl Key {
    pub(super) fn encode(self) -> Vec<u8> {
        let (kind, network) = match self {
            Self::Definition(network) => (b'N', network),
            Self::Removal(network) => (b'X', network),
            Self::Membership(network) => (b'n', network),
            Self::Endpoint(network, _) => (b'e', network),
            Self::Ranges(network, ..) => (b'r', network),
        };
        let mut octets = vec![kind];
        octets.extend(network.0);
        match self {
            Self::Endpoint(_, endpoint) => octets.extend(endpoint.0),
            Self::Ranges(_, pool, chunk) => {
                octets.push(pool);
                octets.extend(chunk.to_be_bytes());
            }
            Self::Definition(_) | Self::Removal(_) | Self::Membership(_) => {}
        }
        octets
    }

    /// The network it takes for an existing one.
    pub(super) fn mentions(self) -> Option<NetworkId> {
        match self {
            Self::Definition(network)
            | Self::Membership(network)
            | Self::Endpoint(network, _)
            | Self::Ranges(network, ..) => Some(network),
            Self::Removal(_) => None,
        }
    }

    /// `None` for kinds that a later version may have.
    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let (&kind, rest) = octets.split_first()?;
        let (network, rest) = rest.split_first_chunk()?;
        let network = NetworkId(*network);
        match (kind, rest) {
            (b'N', []) => Some(Self::Definition(network)),
            (b'X', []) => Some(Self::Removal(network)),
            (b'n', []) => Some(Self::Membership(network)),
            (b'e', rest) => Some(Self::Endpoint(network, EndpointId(rest.try_into().ok()?))),
            (b'r', &[pool, a, b]) => Some(Self::Ranges(network, pool, u16::from_be_bytes([a, b]))),
            _ => None,
        }
    }
}

/// That a network is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removal {
    pub(super) network: NetworkId,
    pub(super) at: UnixMillis,
}

/// That a node is in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    vni: u32,
}

impl Membership {
    pub(super) fn new(vni: Vni) -> Self {
        Self { vni: vni.into() }
    }

    /// The VNI it wants to receive; `None` from a node that does not know what a VNI is.
    pub(super) fn vni(self) -> Option<Vni> {
        Vni::try_from(self.vni).ok()
    }
}

/// One attachment of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    mac: [u8; 6],
    pub(super) ips: Vec<IpAddr>,
    pub(super) sandbox: SandboxId,
    pub(super) name: Name,
    pub(super) aliases: Vec<Name>,
    /// Times this MAC has come up elsewhere, as far as its node saw.
    pub(super) mobility: u32,
}

impl Endpoint {
    pub(super) fn new(
        mac: MacAddr,
        ips: Vec<IpAddr>,
        sandbox: SandboxId,
        name: Name,
        aliases: Vec<Name>,
        mobility: u32,
    ) -> Self {
        Self { mac: mac.0, ips, sandbox, name, aliases, mobility }
    }

    pub(super) fn mac(&self) -> MacAddr {
        MacAddr(self.mac)
    }

    /// Whether an endpoint can be like this; members are authenticated but need not be correct.
    fn is_sound(&self) -> bool {
        self.mac().is_assignable() && self.ips.len() <= 2 && self.aliases.len() <= crate::network::MAX_ALIASES
    }
}

/// The grants a node's ownership rests on, and those of its own that nobody else publishes: statements.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Ranges {
    pub(super) statements: Vec<Vec<u8>>,
}

/// A call between two members about ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Call {
    /// Asks for addresses; the same request number gets the same answer.
    Request { number: u64, network: NetworkId, pool: u8, want: Want },
    /// Answers it.
    Answer { number: u64, answer: Answer },
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Want {
    /// So many automatic addresses.
    Block(u64),
    /// This address.
    Exact(u128),
}

/// What is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Ranges that are now owned by who asked: the statement of a grant.
    Granted(Vec<u8>),
    /// Nothing is free here.
    Empty,
    /// The address is in use or reserved.
    Taken,
    /// The address is this node's to give.
    Elsewhere(NodeId),
    /// The network is not known here, or not usable.
    Unknown,
}

pub(super) fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    // Encoding plain data into memory has no way to fail.
    postcard::to_stdvec(body).unwrap_or_default()
}

pub(super) fn decode<T: DeserializeOwned>(octets: &[u8]) -> Option<T> {
    postcard::from_bytes(octets).ok()
}

pub(super) fn decode_endpoint(octets: &[u8]) -> Option<Endpoint> {
    decode(octets).filter(Endpoint::is_sound)
}

const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// Signs `body` as a statement about `subject`: body, public key, signature.
pub(super) fn state<T: Serialize>(author: &Identity, subject: &'static [u8], body: &T) -> Vec<u8> {
    let mut octets = encode(body);
    let signature = author.sign(&[subject, &octets].concat());
    octets.extend(author.public_key());
    octets.extend(signature);
    octets
}

/// Opens a statement: who made it and what it says, if the signature holds.
pub(super) fn hear<T: DeserializeOwned>(subject: &'static [u8], statement: &[u8]) -> Option<(NodeId, T)> {
    let (signed, signature) = statement.split_last_chunk::<SIGNATURE_LEN>()?;
    let (body, key) = signed.split_last_chunk::<KEY_LEN>()?;
    let message = [subject, body].concat();
    identity::verify(key, &message, signature).then_some(())?;
    // Octets after the body would be kept with it and mean nothing.
    let (body, []) = postcard::take_from_bytes(body).ok()? else { return None };
    Some((identity::node_id(key), body))
}

/// Subject of a definition.
pub(super) const DEFINITION: &[u8] = b"weft network definition 1";
/// Subject of a removal.
pub(super) const REMOVAL: &[u8] = b"weft network removal 1";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_round_trip_and_unknown_kinds_are_ignored() {
        let network = NetworkId([9; 16]);
        for key in [
            Key::Definition(network),
            Key::Removal(network),
            Key::Membership(network),
            Key::Endpoint(network, EndpointId([3; 16])),
            Key::Ranges(network, 1, 300),
        ] {
            assert_eq!(Key::decode(&key.encode()), Some(key));
            let mut longer = key.encode();
            longer.push(0);
            assert_eq!(Key::decode(&longer), None);
        }
        assert_eq!(Key::decode(b"z"), None);
    }

    #[test]
    fn a_statement_holds_for_its_subject_and_its_words_only() {
        let author = Identity::from_secret(&[1; 32]);
        let removal = Removal { network: NetworkId([1; 16]), at: UnixMillis(5) };
        let statement = state(&author, REMOVAL, &removal);
        assert_eq!(hear(REMOVAL, &statement), Some((author.node_id(), removal)));
        assert_eq!(hear::<Removal>(DEFINITION, &statement), None);
        for i in 0..statement.len() {
            let mut bad = statement.clone();
            bad[i] ^= 1;
            assert_eq!(hear::<Removal>(REMOVAL, &bad), None, "octet {i}");
        }
        assert_eq!(hear::<Removal>(REMOVAL, &statement[..50]), None);
    }

    proptest! {
        #[test]
        fn whatever_a_member_sends_is_decoded_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Key::decode(&octets), decode::<Call>(&octets), decode_endpoint(&octets));
            let _ = (decode::<Ranges>(&octets), decode::<Membership>(&octets));
            let _ = (hear::<crate::network::Definition>(DEFINITION, &octets), hear::<Removal>(REMOVAL, &octets));
        }
    }
}
