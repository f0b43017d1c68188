//! DHCP (RFC 2131), DHCPv6 (RFC 8415) and router advertisements (RFC 4861) of a network: what its endpoints on this node
//! are told of their own addresses.
//!
//! Addresses are IPAM's, fixed before anybody asks: an answer is a function of the question's Ethernet source and of what
//! that endpoint has. Nothing is remembered of who asked, and nothing but the source address is believed; the guard of the
//! bridge sees to it that it is the endpoint's own. [`respond`] takes frames and gives frames.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use weft_dataplane::wire::MacAddr;
use weft_dataplane::wire::ethernet::Ethernet;
use weft_dataplane::wire::ip::{Ip, PROTOCOL_ICMPV6, PROTOCOL_UDP, Version};

mod advertisement;
mod four;
mod frame;
mod six;
#[cfg(test)]
mod tests;

/// Longest question, octets of a frame; clients keep to what any link carries.
pub const LONGEST: usize = 2048;
/// How long an address is good for without being asked for again, seconds.
const LEASE: u32 = 86_400;
/// When clients ask their server again, seconds.
const RENEW: u32 = 3_600;
/// When they ask any server, seconds; soon after, because in an overlay the server's address reaches nobody.
const REBIND: u32 = RENEW + 60;
/// The server's ports.
const PORT4: u16 = 67;
const PORT6: u16 = 547;

/// What answers in one network on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its MAC address: that of the bridge.
    pub mac: MacAddr,
    /// What it calls itself in IPv4: the network's gateway address.
    pub server: Option<Ipv4Addr>,
    /// Who is answered.
    pub clients: BTreeMap<MacAddr, Client>,
}

/// What an endpoint is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Net>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Net>,
    /// Next hops out of the network, at most one of each family.
    pub routers: Vec<IpAddr>,
    /// Servers of names.
    pub dns: Vec<IpAddr>,
    /// Largest IP packet, octets.
    pub mtu: u16,
    /// Its name; empty for none.
    pub hostname: String,
}

fn v4(ips: &[IpAddr]) -> Vec<Ipv4Addr> {
    ips.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }).collect()
}

fn v6(ips: &[IpAddr]) -> Vec<Ipv6Addr> {
    ips.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }).collect()
}

/// The answer to a frame, if it asks for one. Its destination is the source of the question.
#[must_use]
pub fn respond(service: &Service, question: &[u8]) -> Option<Vec<u8>> {
    let ethernet = Ethernet::parse(question).filter(|ethernet| ethernet.tags == 0)?;
    let client = service.clients.get(&ethernet.src)?;
    let ip = Ip::parse(ethernet.ethertype, ethernet.payload(question)).filter(|ip| !ip.is_fragment())?;
    let wires = frame::Wires { from: service.mac, to: ethernet.src };
    match (ip.version(), ip.protocol()) {
        (Version::V4, PROTOCOL_UDP) => {
            let message = frame::datagram(&ip, PORT4)?;
            let (to, answer) = four::answer(service.server?, client, ethernet.src, message)?;
            frame::udp4(wires, service.server?, to, &answer)
        }
        (Version::V6, PROTOCOL_UDP) => {
            let IpAddr::V6(asker) = ip.source() else { return None };
            let answer = six::answer(service.mac, client, frame::datagram(&ip, PORT6)?)?;
            frame::udp6(wires, asker, &answer)
        }
        (Version::V6, PROTOCOL_ICMPV6) => {
            let solicits = advertisement::is_solicitation(ip.payload()) && ip.hop_limit() == 255;
            solicits.then(|| advertisement::frame(wires, client)).flatten()
        }
        _ => None,
    }
}

/// Router advertisements that nobody asked for, to be sent from time to time so that ways out do not expire.
pub fn unsolicited(service: &Service) -> impl Iterator<Item = Vec<u8>> + '_ {
    let routed = service.clients.iter().filter(|(_, client)| client.routers.iter().any(IpAddr::is_ipv6));
    routed.filter_map(|(mac, client)| {
        advertisement::frame(frame::Wires { from: service.mac, to: *mac }, client)
    })
}
