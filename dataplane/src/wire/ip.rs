//! IPv4 and IPv6 headers, and where the upper layer begins behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Octets of an IPv4 header without options.
pub const V4_HEADER_LEN: usize = 20;
/// Octets of the fixed IPv6 header.
pub const V6_HEADER_LEN: usize = 40;

/// Extension headers looked behind; real packets carry at most three or four, the rest is somebody's fuzzing.
const MAX_EXTENSIONS: usize = 8;

/// Version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// A view of one IP packet whose own length fits in the octets it was given.
#[derive(Debug, Clone, Copy)]
pub struct Ip<'p> {
    packet: &'p [u8],
    version: Version,
    protocol: u8,
    header_len: u16,
    fragment: bool,
}

impl<'p> Ip<'p> {
    /// Reads the packet at the start of `octets`, the payload of a frame of this `ethertype`.
    ///
    /// Octets beyond the packet's own length (Ethernet padding) are left out. `None` where the ethertype is
    /// not IP, the version disagrees with it, or a length leads outside.
    #[must_use]
    #[inline]
    pub fn parse(ethertype: u16, octets: &'p [u8]) -> Option<Self> {
        match ethertype {
            ETHERTYPE_IPV4 => Self::parse_v4(octets),
            ETHERTYPE_IPV6 => Self::parse_v6(octets),
            _ => None,
        }
    }

    #[inline]
    fn parse_v4(octets: &'p [u8]) -> Option<Self> {
        let header: &[u8; V4_HEADER_LEN] = octets.first_chunk()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || header_len < V4_HEADER_LEN || total_len < header_len {
            return None;
        }
        Some(Self {
            packet: octets.get(..total_len)?,
            version: Version::V4,
            protocol: header[9],
            header_len: header_len as u16,
            // MF or any offset; DF and the reserved bit are not fragmentation.
            fragment: u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0,
        })
    }

    #[inline]
    fn parse_v6(octets: &'p [u8]) -> Option<Self> {
        let header: &[u8; V6_HEADER_LEN] = octets.first_chunk()?;
        let total_len = V6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 {
            return None;
        }
        let packet = octets.get(..total_len)?;
        let upper = Upper::walk(packet, header[6])?;
        Some(Self {
            packet,
            version: Version::V6,
            protocol: upper.protocol,
            header_len: upper.offset as u16,
            fragment: upper.fragment,
        })
    }

    /// The packet, trimmed to its own length.
    #[must_use]
    #[inline]
    pub fn packet(&self) -> &'p [u8] {
        self.packet
    }

    /// IPv4 or IPv6.
    #[must_use]
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Protocol number of the payload, behind extension headers.
    #[must_use]
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Octets from the packet's start to its payload: options and extension headers included.
    #[must_use]
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// Whether nothing stands between the fixed header and the payload: no options, no extension headers.
    #[must_use]
    #[inline]
    pub fn has_plain_header(&self) -> bool {
        self.header_len() == plain_header_len(self.version)
    }

    /// Whether the packet is a piece of a larger one, so that its payload may lack an L4 header.
    #[must_use]
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        match self.version {
            Version::V4 => self.packet[8],
            Version::V6 => self.packet[7],
        }
    }

    /// What follows the headers.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'p [u8] {
        &self.packet[self.header_len()..]
    }

    /// Source and destination as they stand in the header: 8 or 32 octets.
    #[must_use]
    #[inline]
    pub fn addresses(&self) -> &'p [u8] {
        &self.packet[addresses(self.version)]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        let half = self.addresses().len() / 2;
        address(&self.addresses()[..half])
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        let half = self.addresses().len() / 2;
        address(&self.addresses()[half..])
    }
}

/// Where source and destination stand in a header of this version.
#[inline]
pub(crate) fn addresses(version: Version) -> std::ops::Range<usize> {
    match version {
        Version::V4 => 12..20,
        Version::V6 => 8..40,
    }
}

/// Octets of a header without options and extension headers.
#[inline]
pub(crate) fn plain_header_len(version: Version) -> usize {
    match version {
        Version::V4 => V4_HEADER_LEN,
        Version::V6 => V6_HEADER_LEN,
    }
}

fn address(octets: &[u8]) -> IpAddr {
    if let Some(v6) = octets.first_chunk::<16>() {
        return Ipv6Addr::from(*v6).into();
    }
    octets.first_chunk::<4>().map_or(Ipv4Addr::UNSPECIFIED, |v4| Ipv4Addr::from(*v4)).into()
}

/// What the chain of IPv6 extension headers leads to (RFC 8200 §4).
struct Upper {
    protocol: u8,
    offset: usize,
    fragment: bool,
}

impl Upper {
    #[inline]
    fn walk(packet: &[u8], first: u8) -> Option<Self> {
        let mut upper = Self { protocol: first, offset: V6_HEADER_LEN, fragment: false };
        for _ in 0..MAX_EXTENSIONS {
            let Some(length) = upper.extension_len(packet)? else { break };
            upper.protocol = packet[upper.offset];
            upper.offset += length;
            if upper.offset > packet.len() {
                return None;
            }
        }
        Some(upper)
    }

    /// Octets of the extension header here; `Some(None)` where the payload is reached.
    #[inline]
    fn extension_len(&mut self, packet: &[u8]) -> Option<Option<usize>> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        const MOBILITY: u8 = 135;
        if !matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY)
        {
            return Some(None);
        }
        let header: &[u8; 8] = packet.get(self.offset..)?.first_chunk()?;
        let units = usize::from(header[1]);
        match self.protocol {
            FRAGMENT => {
                self.fragment = true;
                let later = u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
                Some((!later).then_some(8)) // behind a later fragment's header stands the middle of something
            }
            AUTHENTICATION => Some(Some((units + 2) * 4)),
            _ => Some(Some((units + 1) * 8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_trimmed_to_its_length_and_fields_are_read() {
        let mut octets = v4(24, 0x4000);
        octets.extend([1, 2, 3, 4, 0, 0, 0]);
        let ip = Ip::parse(ETHERTYPE_IPV4, &octets).expect("whole");
        assert_eq!((ip.version(), ip.protocol(), ip.hop_limit()), (Version::V4, PROTOCOL_UDP, 64));
        assert_eq!(ip.payload(), [1, 2, 3, 4]);
        assert_eq!(ip.source(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(ip.destination(), IpAddr::from([10, 0, 0, 2]));
        assert!(!ip.is_fragment(), "DF alone does not make a fragment");
    }

    #[test]
    fn ipv4_fragments_are_recognised_by_more_bit_and_by_offset() {
        for field in [0x2000, 0x0001, 0x1fff] {
            assert!(Ip::parse(ETHERTYPE_IPV4, &v4(20, field)).expect("whole").is_fragment(), "{field:#x}");
        }
    }

    #[test]
    fn wrong_version_or_lengths_are_none() {
        let good = v4(20, 0);
        assert!(Ip::parse(ETHERTYPE_IPV4, &good).is_some());
        assert!(Ip::parse(ETHERTYPE_IPV6, &good).is_none());
        for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x4f), (3, 19), (3, 21)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Ip::parse(ETHERTYPE_IPV4, &bad).is_none(), "octet {at} = {value:#x}");
        }
    }

    #[test]
    fn ipv6_extension_headers_are_walked_to_the_payload() {
        let octets = v6(0, &[60, 0, 0, 0, 0, 0, 0, 0, PROTOCOL_TCP, 1, 0, 0, 0, 0, 0, 0], &[7; 24]);
        let ip = Ip::parse(ETHERTYPE_IPV6, &octets).expect("whole");
        assert_eq!((ip.protocol(), ip.header_len(), ip.is_fragment()), (PROTOCOL_TCP, 64, false));
        assert_eq!(ip.payload(), [7; 16]);
        assert_eq!(ip.destination(), IpAddr::from(Ipv6Addr::from([2; 16])));
    }

    #[test]
    fn a_later_ipv6_fragment_ends_the_walk() {
        let octets = v6(44, &[PROTOCOL_TCP, 0, 0, 8, 0, 0, 0, 1], &[9; 8]);
        let ip = Ip::parse(ETHERTYPE_IPV6, &octets).expect("whole");
        assert_eq!((ip.protocol(), ip.is_fragment()), (44, true));
    }

    #[test]
    fn an_endless_chain_of_extensions_is_left_as_an_unknown_protocol() {
        let octets = v6(60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(12), &[]);
        assert_eq!(Ip::parse(ETHERTYPE_IPV6, &octets).expect("whole").protocol(), 60);
    }

    #[test]
    fn an_extension_that_leads_outside_is_none() {
        assert!(Ip::parse(ETHERTYPE_IPV6, &v6(60, &[6, 9, 0, 0, 0, 0, 0, 0], &[])).is_none());
        assert!(Ip::parse(ETHERTYPE_IPV6, &v6(60, &[6, 0, 0], &[])).is_none());
    }

    fn v4(total_len: u8, fragment: u16) -> Vec<u8> {
        let [f0, f1] = fragment.to_be_bytes();
        vec![0x45, 0, 0, total_len, 0, 0, f0, f1, 64, PROTOCOL_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    }

    fn v6(next: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
        let [l0, l1] = ((extensions.len() + payload.len()) as u16).to_be_bytes();
        let mut octets = vec![0x60, 0, 0, 0, l0, l1, next, 64];
        octets.extend([1; 16]);
        octets.extend([2; 16]);
        octets.extend(extensions);
        octets.extend(payload);
        octets
    }
}
