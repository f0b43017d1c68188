//! Who may say what: a frame's source MAC, source IP and the claims it makes by ARP, ND and DHCP must belong to
//! the endpoint it comes from, and no endpoint may play router or DHCP server (RFC 6105, RFC 7610).

use std::net::IpAddr;

use crate::segment::{Endpoint, Segment};
use crate::stats::DropReason;
use crate::wire::MacAddr;
use crate::wire::arp::Arp;
use crate::wire::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};
use crate::wire::ip::{Ip, PROTOCOL_ICMPV6, PROTOCOL_UDP, Version};
use crate::wire::ndp::{self, Advertisement, Solicitation};

/// EtherTypes below are lengths (IEEE 802.3 §3.2.6).
const ETHERTYPE_MIN: u16 = 0x600;
/// Groups of these first five octets and a last one below 16 stay on one link (IEEE 802.1Q §8.6.3).
const LINK_LOCAL_GROUP: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];

/// What the checks read of a frame, for later ones not to read again.
#[derive(Debug)]
pub(crate) enum Payload<'f> {
    Arp(Arp),
    /// A neighbour solicitation, checked whole.
    Solicitation(Solicitation),
    Ip(Ip<'f>),
    Other,
}

/// Reads the Ethernet header and refuses what no segment carries.
pub(crate) fn ethernet(frame: &[u8]) -> Result<Ethernet, DropReason> {
    let ethernet = Ethernet::parse(frame).ok_or(DropReason::FrameTooShort)?;
    if ethernet.tags > 0 {
        return Err(DropReason::VlanTagged);
    }
    if ethernet.ethertype < ETHERTYPE_MIN {
        return Err(DropReason::NotEthernetII);
    }
    let [group @ .., last] = ethernet.dst.0;
    if group == LINK_LOCAL_GROUP && last < 16 {
        return Err(DropReason::LinkLocalGroup);
    }
    if !ethernet.src.is_assignable() {
        return Err(DropReason::SpoofedMac);
    }
    Ok(ethernet)
}

/// Who speaks, and so what may be said.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaker<'e> {
    /// An endpoint control knows: it speaks for its own addresses only and is neither router nor DHCP server.
    Endpoint(&'e Endpoint),
    /// Somebody behind a static VTEP: anything but the addresses of endpoints control knows.
    Stranger(&'e Segment),
}

impl Speaker<'_> {
    fn may_use(self, ip: IpAddr) -> bool {
        match self {
            Self::Endpoint(endpoint) => endpoint.owns(ip),
            Self::Stranger(segment) => segment.neighbours.lookup(ip).is_none(),
        }
    }

    fn is_endpoint(self) -> bool {
        matches!(self, Self::Endpoint(_))
    }
}

/// Checks everything a frame claims about its sender.
pub(crate) fn payload<'f>(
    speaker: Speaker<'_>,
    ethernet: &Ethernet,
    frame: &'f [u8],
) -> Result<Payload<'f>, DropReason> {
    match ethernet.ethertype {
        ETHERTYPE_ARP => arp(speaker, ethernet, frame).map(Payload::Arp),
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => ip(speaker, ethernet, frame),
        _ => Ok(Payload::Other),
    }
}

fn arp(speaker: Speaker<'_>, ethernet: &Ethernet, frame: &[u8]) -> Result<Arp, DropReason> {
    let arp = Arp::parse(ethernet.payload(frame)).ok_or(DropReason::MalformedArp)?;
    if arp.sender_mac != ethernet.src || !speaker.may_use(arp.sender_ip.into()) {
        return Err(DropReason::SpoofedArp);
    }
    Ok(arp)
}

fn ip<'f>(speaker: Speaker<'_>, ethernet: &Ethernet, frame: &'f [u8]) -> Result<Payload<'f>, DropReason> {
    let ip = Ip::parse(ethernet.ethertype, ethernet.payload(frame)).ok_or(DropReason::MalformedIp)?;
    if !speaker.may_use(ip.source()) {
        return Err(DropReason::SpoofedIp);
    }
    match ip.protocol() {
        PROTOCOL_ICMPV6 if ip.version() == Version::V6 => icmpv6(speaker, ethernet, ip),
        PROTOCOL_UDP if speaker.is_endpoint() && is_dhcp_server(&ip) => Err(DropReason::DhcpServer),
        protocol if speaker.is_endpoint() && hides_behind_extensions(&ip, protocol) => {
            Err(DropReason::MalformedIp)
        }
        _ => Ok(Payload::Ip(ip)),
    }
}

fn icmpv6<'f>(speaker: Speaker<'_>, ethernet: &Ethernet, ip: Ip<'f>) -> Result<Payload<'f>, DropReason> {
    match *ip.payload().first().ok_or(DropReason::MalformedIp)? {
        ndp::ROUTER_ADVERTISEMENT if speaker.is_endpoint() => Err(DropReason::RouterAdvertisement),
        ndp::REDIRECT if speaker.is_endpoint() => Err(DropReason::RouterRedirect),
        ndp::SOLICITATION => {
            let question = Solicitation::parse(&ip).ok_or(DropReason::MalformedNd)?;
            said_by(ethernet.src, question.source_mac)?;
            Ok(Payload::Solicitation(question))
        }
        ndp::ADVERTISEMENT => {
            let claim = Advertisement::parse(ip.payload()).ok_or(DropReason::MalformedNd)?;
            said_by(ethernet.src, claim.target_mac)?;
            if !speaker.may_use(claim.target.into()) {
                return Err(DropReason::SpoofedNd);
            }
            Ok(Payload::Ip(ip))
        }
        _ => Ok(Payload::Ip(ip)),
    }
}

fn said_by(src: MacAddr, claimed: Option<MacAddr>) -> Result<(), DropReason> {
    if claimed.is_none_or(|mac| mac == src) { Ok(()) } else { Err(DropReason::SpoofedNd) }
}

/// Whether it comes from the port DHCPv4 or DHCPv6 servers answer from.
fn is_dhcp_server(ip: &Ip<'_>) -> bool {
    const PORT_V4: u16 = 67;
    const PORT_V6: u16 = 547;
    let port = if ip.version() == Version::V4 { PORT_V4 } else { PORT_V6 };
    !is_later_fragment(ip) && ip.payload().first_chunk().map(|port| u16::from_be_bytes(*port)) == Some(port)
}

/// A later IPv4 fragment starts in the middle of something (of IPv6 ones the protocol is not known at all).
fn is_later_fragment(ip: &Ip<'_>) -> bool {
    const OFFSET: u16 = 0x1fff;
    let packet = ip.packet();
    ip.version() == Version::V4 && u16::from_be_bytes([packet[6], packet[7]]) & OFFSET != 0
}

/// Whether the chain of extension headers is longer than anybody looks: what hides behind it could be a router
/// advertisement (RFC 7113 §3). A later fragment stops at its fragment header and is no message of its own.
fn hides_behind_extensions(ip: &Ip<'_>, protocol: u8) -> bool {
    const EXTENSIONS: [u8; 5] = [0, 43, 51, 60, 135];
    ip.version() == Version::V6 && EXTENSIONS.contains(&protocol)
}
