//! IPv6 neighbour discovery (RFC 4861): solicitations read, advertisements written.
//!
//! ```text
//! 0      1      2          4                    8                   24
//! | type | code | checksum | flags and reserved | target address    | options: type, length / 8, … |
//! ```

use std::net::Ipv6Addr;

use super::MacAddr;
use super::ethernet::{self, ETHERTYPE_IPV6, Ethernet};
use super::ip::{Ip, PROTOCOL_ICMPV6, V6_HEADER_LEN, Version};
use crate::checksum::{Sum, pseudo_header};

/// Octets of an advertisement with the target's MAC.
const ADVERTISEMENT_LEN: usize = 32;
/// Octets of the frame that holds one.
pub const ADVERTISEMENT_FRAME_LEN: usize = ethernet::HEADER_LEN + V6_HEADER_LEN + ADVERTISEMENT_LEN;

/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// ICMPv6 type of a redirect.
pub const REDIRECT: u8 = 137;
/// Octets before the options, of solicitations and advertisements alike.
const SOLICITATION_FIXED_LEN: usize = 24;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;
/// No router forwards a packet with it, so it comes from this link (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A valid neighbour solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; unspecified in duplicate address detection.
    pub source: Ipv6Addr,
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The asker's MAC as its option says, where there is one.
    pub source_mac: Option<MacAddr>,
}

impl Solicitation {
    /// Reads a solicitation out of an IP packet; `None` for anything else and for what RFC 4861 §7.1.1 has
    /// a node discard: hop limit, checksum, lengths, a multicast target, a MAC given by nobody.
    #[must_use]
    pub fn parse(ip: &Ip<'_>) -> Option<Self> {
        if !is_solicitation(ip) {
            return None;
        }
        let message = ip.payload();
        let fixed: &[u8; SOLICITATION_FIXED_LEN] = message.first_chunk()?;
        let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
        let source = Ipv6Addr::from(*ip.addresses().first_chunk::<16>()?);
        let source_mac = mac_option(&message[SOLICITATION_FIXED_LEN..], OPTION_SOURCE_MAC)?;
        let by_nobody = source.is_unspecified() && source_mac.is_some();
        let plausible = !target.is_multicast() && !by_nobody && is_intact(ip);
        plausible.then_some(Self { source, target, source_mac })
    }

    /// Whether the asker wants to take the target for itself and asks if somebody holds it (RFC 4862 §5.4).
    #[must_use]
    pub fn is_duplicate_detection(&self) -> bool {
        self.source.is_unspecified()
    }

    /// Writes a frame to `asker` that answers: `mac` has the target address. Returns its octets.
    ///
    /// In duplicate address detection the answer goes to all nodes and is not marked solicited
    /// (RFC 4861 §7.2.4), as the asker has no address yet. `None` where `out` is shorter than
    /// [`ADVERTISEMENT_FRAME_LEN`].
    #[must_use]
    pub fn write_advertisement(&self, asker: MacAddr, mac: MacAddr, out: &mut [u8]) -> Option<usize> {
        let (destination, flags) = if self.is_duplicate_detection() {
            (ALL_NODES, FLAG_OVERRIDE)
        } else {
            (self.source, FLAG_SOLICITED | FLAG_OVERRIDE)
        };
        let (header, rest) = out.split_first_chunk_mut()?;
        let (packet, rest) = rest.split_first_chunk_mut()?;
        let message = rest.first_chunk_mut()?;
        *header = Ethernet::header(asker, mac, ETHERTYPE_IPV6);
        write_ip(self.target, destination, packet);
        write_message(flags, self.target, mac, message);
        let sum = pseudo_header(&packet[8..], PROTOCOL_ICMPV6, ADVERTISEMENT_LEN) + Sum::of(message);
        message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        Some(ADVERTISEMENT_FRAME_LEN)
    }
}

/// What a neighbour advertisement claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// The address somebody has.
    pub target: Ipv6Addr,
    /// The MAC it is said to have, where the option is there.
    pub target_mac: Option<MacAddr>,
}

impl Advertisement {
    /// Reads an ICMPv6 message that is an advertisement; `None` where it is cut off or its options are broken.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let fixed: &[u8; SOLICITATION_FIXED_LEN] = message.first_chunk()?;
        let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
        let target_mac = mac_option(&message[SOLICITATION_FIXED_LEN..], OPTION_TARGET_MAC)?;
        Some(Self { target, target_mac })
    }
}

fn is_solicitation(ip: &Ip<'_>) -> bool {
    ip.version() == Version::V6
        && ip.protocol() == PROTOCOL_ICMPV6
        && !ip.is_fragment()
        && ip.hop_limit() == HOP_LIMIT
        && ip.payload().starts_with(&[SOLICITATION, 0])
}

fn is_intact(ip: &Ip<'_>) -> bool {
    let pseudo = pseudo_header(ip.addresses(), PROTOCOL_ICMPV6, ip.payload().len());
    (pseudo + Sum::of(ip.payload())).is_valid()
}

/// Looks through the options for the MAC of this kind; `None` where they are malformed, `Some(None)` where it is
/// not among them.
fn mac_option(mut options: &[u8], kind: u8) -> Option<Option<MacAddr>> {
    let mut mac = None;
    while !options.is_empty() {
        let header: &[u8; 8] = options.first_chunk()?;
        let length = usize::from(header[1]) * 8;
        if header[0] == kind && length == 8 {
            mac = Some(MacAddr(*header.last_chunk()?));
        }
        if length == 0 {
            return None;
        }
        options = options.get(length..)?;
    }
    Some(mac)
}

fn write_ip(source: Ipv6Addr, destination: Ipv6Addr, out: &mut [u8; V6_HEADER_LEN]) {
    out[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN as u8, PROTOCOL_ICMPV6, HOP_LIMIT]);
    out[8..24].copy_from_slice(&source.octets());
    out[24..].copy_from_slice(&destination.octets());
}

fn write_message(flags: u8, target: Ipv6Addr, mac: MacAddr, out: &mut [u8; ADVERTISEMENT_LEN]) {
    out[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    out[8..24].copy_from_slice(&target.octets());
    out[24..26].copy_from_slice(&[OPTION_TARGET_MAC, 1]);
    out[26..].copy_from_slice(&mac.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOLDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const ASKER_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const WITH_MAC: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 1];

    #[test]
    fn a_solicitation_is_read_with_its_mac() {
        let packet = solicitation(ASKER_IP, TARGET, &WITH_MAC);
        let expected = Solicitation { source: ASKER_IP, target: TARGET, source_mac: Some(ASKER) };
        assert_eq!(parse(&packet), Some(expected));
        assert!(!expected.is_duplicate_detection());
    }

    #[test]
    fn an_advertisement_is_valid_as_another_decoder_sees_it() {
        let (frame, ip, icmp) = advertisement(ASKER_IP);
        assert_eq!(frame.dst, ASKER);
        assert_eq!((ip.source_addr(), ip.destination_addr(), ip.hop_limit()), (TARGET, ASKER_IP, 255));
        assert_eq!(icmp.type_u8(), ADVERTISEMENT);
        assert_eq!(icmp.bytes5to8()[0], FLAG_SOLICITED | FLAG_OVERRIDE);
        assert_eq!(icmp.payload()[16..], [2, 1, 2, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn duplicate_detection_is_answered_to_all_nodes_and_not_as_solicited() {
        assert!(
            parse(&solicitation(Ipv6Addr::UNSPECIFIED, TARGET, &[])).expect("valid").is_duplicate_detection()
        );
        let (_, ip, icmp) = advertisement(Ipv6Addr::UNSPECIFIED);
        assert_eq!(ip.destination_addr(), ALL_NODES);
        assert_eq!(icmp.bytes5to8()[0], FLAG_OVERRIDE);
    }

    #[test]
    fn what_a_node_must_discard_is_none() {
        let good = solicitation(ASKER_IP, TARGET, &WITH_MAC);
        for (at, flip, why) in [
            (7, 1, "hop limit"),
            (40, 1, "type"),
            (41, 1, "code"),
            (42, 1, "checksum"),
            (60, 1, "bit error in the target"),
        ] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            assert_eq!(parse(&bad), None, "{why}");
        }
        assert_eq!(parse(&solicitation(ASKER_IP, ALL_NODES, &[])), None, "multicast target");
        assert_eq!(parse(&solicitation(ASKER_IP, TARGET, &[1, 0, 0, 0, 0, 0, 0, 0])), None, "empty option");
        assert_eq!(
            parse(&solicitation(ASKER_IP, TARGET, &[1, 2, 0, 0, 0, 0, 0, 0])),
            None,
            "option too long"
        );
        assert_eq!(parse(&solicitation(Ipv6Addr::UNSPECIFIED, TARGET, &WITH_MAC)), None, "MAC of nobody");
    }

    #[test]
    fn a_short_buffer_gets_no_advertisement() {
        let request = Solicitation { source: ASKER_IP, target: TARGET, source_mac: None };
        let mut short = [0; ADVERTISEMENT_FRAME_LEN - 1];
        assert_eq!(request.write_advertisement(ASKER, HOLDER, &mut short), None);
    }

    fn parse(packet: &[u8]) -> Option<Solicitation> {
        Solicitation::parse(&Ip::parse(ETHERTYPE_IPV6, packet)?)
    }

    fn solicitation(source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        message.extend(options);
        let destination = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
        let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, PROTOCOL_ICMPV6, 255];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        let sum = pseudo_header(&packet[8..], PROTOCOL_ICMPV6, message.len()) + Sum::of(&message);
        message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        packet.extend(message);
        packet
    }

    /// The answer to `source`, decoded and its checksum judged by etherparse.
    fn advertisement(
        source: Ipv6Addr,
    ) -> (Ethernet, etherparse::Ipv6HeaderSlice<'static>, etherparse::Icmpv6Slice<'static>) {
        let request = Solicitation { source, target: TARGET, source_mac: None };
        let frame = Box::leak(Box::new([0; ADVERTISEMENT_FRAME_LEN]));
        request.write_advertisement(ASKER, HOLDER, frame).expect("room");
        let decoded = etherparse::SlicedPacket::from_ethernet(frame).expect("decodes");
        let Some(etherparse::NetSlice::Ipv6(ip)) = decoded.net else { panic!("not IPv6") };
        let Some(etherparse::TransportSlice::Icmpv6(icmp)) = decoded.transport else { panic!("not ICMPv6") };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        (Ethernet::parse(frame).expect("whole"), ip.header(), icmp)
    }
}
