//! Makes the kernel forget exchanges of datagrams whose translation is no longer true (ctnetlink).
//!
//! A stream that goes to the wrong place is reset and made anew; a client that keeps sending datagrams would go on
//! being translated as before for as long as it sends.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use super::nfnetlink::{BODY, Netfilter, attribute, attributes};
use crate::firewall::{Family, Forward};
use crate::io::namespace::Namespace;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`, `… | IPCTNL_MSG_CT_DELETE` (nfnetlink_conntrack.h).
const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`; inside, `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`; inside that, `CTA_PROTO_NUM`,
/// `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const PROTOCOL: u16 = 1;
const FROM: u16 = 2;
const TO: u16 = 3;
/// `NLA_F_NESTED`, `IPPROTO_UDP`.
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;

/// Forgets what is remembered of the published ports in `stale`. What cannot be forgotten ends by itself.
pub(super) fn forget(host: &Namespace, stale: &[Forward]) {
    for family in Family::BOTH {
        let stale: Vec<_> = stale.iter().filter(|one| Family::of(one.host.ip()) == family).collect();
        if stale.is_empty() {
            continue;
        }
        match host.run(|| forget_of(family, &stale)).map_err(io::Error::other).flatten() {
            Ok(gone) => tracing::debug!(gone, "stale exchanges forgotten"),
            Err(fault) => tracing::debug!(%fault, "stale exchanges are left to end by themselves"),
        }
    }
}

fn forget_of(family: Family, stale: &[&Forward]) -> io::Result<usize> {
    // AF_INET, AF_INET6
    let number = if family == Family::V4 { 2 } else { 10 };
    let (netfilter, own) = (Netfilter::open()?, own_addresses());
    let concerned = |entry: &Entry| {
        let (address, port) = entry.original.to;
        stale.iter().any(|forward| {
            let host = forward.host.ip();
            let there = port == forward.host.port() && (host.is_unspecified() || address == host);
            let translated = entry.reply.from == (forward.target.ip(), forward.target.port());
            there && (translated || own.contains(&address))
        })
    };
    let found = netfilter.dump(GET, number)?;
    let found: Vec<_> = found.iter().filter_map(|body| entry(body)).filter(concerned).collect();
    for entry in &found {
        netfilter.tell(DELETE, number, &entry.key)?;
    }
    Ok(found.len())
}

fn own_addresses() -> BTreeSet<IpAddr> {
    let address = |interface: InterfaceAddress| {
        let address = interface.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    };
    getifaddrs().into_iter().flatten().filter_map(address).collect()
}

/// One direction of an exchange.
struct Tuple {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

struct Entry {
    original: Tuple,
    reply: Tuple,
    /// The attribute that names it.
    key: Vec<u8>,
}

/// An exchange of datagrams, if it is one.
fn entry(body: &[u8]) -> Option<Entry> {
    let (original, reply) = (attribute(body, BODY, ORIGINAL)?, attribute(body, BODY, REPLY)?);
    let mut key = u16::try_from(original.len() + 4).ok()?.to_ne_bytes().to_vec();
    key.extend((ORIGINAL | NESTED).to_ne_bytes());
    key.extend(original);
    key.resize(key.len().next_multiple_of(4), 0);
    Some(Entry { original: tuple(original)?, reply: tuple(reply)?, key })
}

fn tuple(nested: &[u8]) -> Option<Tuple> {
    let (addresses, ports) = (attribute(nested, 0, ADDRESSES)?, attribute(nested, 0, PORTS)?);
    if attribute(ports, 0, PROTOCOL)? != [UDP] {
        return None;
    }
    // CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST
    let mut addresses = attributes(addresses, 0).map(|(_, octets)| address(octets));
    let (from, to) = (addresses.next()??, addresses.next()??);
    let port = |kind| Some(u16::from_be_bytes(attribute(ports, 0, kind)?.try_into().ok()?));
    Some(Tuple { from: (from, port(FROM)?), to: (to, port(TO)?) })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
