//! Router advertisements (RFC 4861 §4.2): which addresses are on the link, that DHCPv6 gives them, and the way out.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;
use weft_dataplane::checksum::{Sum, pseudo_header};
use weft_dataplane::neighbour::link_local;
use weft_dataplane::wire::ethernet::{ETHERTYPE_IPV6, Ethernet};
use weft_dataplane::wire::ip::PROTOCOL_ICMPV6;
use weft_dataplane::wire::ndp::ROUTER_ADVERTISEMENT;

use super::Client;
use super::frame::{Wires, header6};

const SOLICITATION: u8 = 133;
/// What routers of one link say to all on it has travelled no hop.
const HOPS: u8 = 255;
/// Hop limit that hosts are to use.
const CURRENT_HOPS: u8 = 64;
/// Addresses, and all else, are had by DHCPv6.
const MANAGED: u8 = 0xc0;
/// How long the way out is good for, seconds; [`super::unsolicited`] is to be sent more often.
const ROUTER_LIFE: u16 = 9_000;
/// The prefix is on the link; nobody makes addresses of it.
const ON_LINK: u8 = 0x80;
const FOR_EVER: [u8; 4] = [0xff; 4];

/// Whether an ICMPv6 message asks routers to tell of themselves.
pub(super) fn is_solicitation(message: &[u8]) -> bool {
    message.len() >= 8 && message[..2] == [SOLICITATION, 0]
}

/// An advertisement for one endpoint; nothing for one without IPv6.
pub(super) fn frame(wires: Wires, client: &Client) -> Option<Vec<u8>> {
    let (to, mut message) = (link_local(wires.to), message(wires, client.v6?, client));
    let header = header6(wires, to, (PROTOCOL_ICMPV6, HOPS), message.len())?;
    let sum = pseudo_header(&header[8..], PROTOCOL_ICMPV6, message.len()) + Sum::of(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    Some([&Ethernet::header(wires.to, wires.from, ETHERTYPE_IPV6)[..], &header, &message].concat())
}

fn message(wires: Wires, own: Ipv6Net, client: &Client) -> Vec<u8> {
    let routed = client.routers.iter().any(IpAddr::is_ipv6);
    let life = if routed { ROUTER_LIFE } else { 0 }.to_be_bytes();
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, CURRENT_HOPS, MANAGED, life[0], life[1]];
    message.extend([0; 8]);
    message.extend([1, 1]);
    message.extend(wires.from.0);
    message.extend([5, 1, 0, 0]);
    message.extend(u32::from(client.mtu).to_be_bytes());
    message.extend([3, 4, own.prefix_len(), ON_LINK]);
    message.extend([FOR_EVER, FOR_EVER, [0; 4]].concat());
    message.extend(Ipv6Addr::octets(&own.network()));
    message
}
