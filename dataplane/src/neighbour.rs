//! Neighbours: IP → MAC and place, for ARP and ND to be answered without a frame crossing the underlay.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::fdb::{Mix, Place};
use crate::wire::MacAddr;

/// Who owns an address of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The owner's MAC.
    pub mac: MacAddr,
    /// Where the owner is.
    pub place: Place,
}

/// Owners of all addresses of a segment, link-local ones included; immutable.
#[derive(Debug)]
pub struct Neighbours {
    owners: HashMap<u128, Neighbour, Mix>,
}

impl Neighbours {
    /// Builds the table; where an address is claimed twice the first claim wins.
    pub(crate) fn build<'e>(
        endpoints: impl Iterator<Item = (MacAddr, &'e [IpAddr], Place)>,
        seed: u64,
    ) -> Self {
        let mut owners = HashMap::with_hasher(Mix(seed));
        for (mac, ips, place) in endpoints {
            let link_local = IpAddr::V6(link_local(mac));
            for ip in ips.iter().chain([&link_local]) {
                owners.entry(ip_key(*ip)).or_insert(Neighbour { mac, place });
            }
        }
        Self { owners }
    }

    /// The owner of `ip`.
    #[must_use]
    pub fn lookup(&self, ip: IpAddr) -> Option<Neighbour> {
        self.owners.get(&ip_key(ip)).copied()
    }
}

/// IPv4 addresses take the place of their IPv4-mapped IPv6 form, which never appears on a segment.
fn ip_key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The link-local address an interface forms from its MAC (RFC 4291 appendix A); the only one weft lets an
/// endpoint use, because it is the only one that can be known to be its own.
#[must_use]
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_its_owner_and_link_local_ones_are_derived() {
        let mac = MacAddr([0x02, 0x42, 0xac, 0x11, 0, 2]);
        let ips = ["10.0.0.2".parse().expect("address"), "fd00::2".parse().expect("address")];
        let neighbours = Neighbours::build([(mac, &ips[..], Place::Remote(4))].into_iter(), 9);
        for ip in ["10.0.0.2", "fd00::2", "fe80::42:acff:fe11:2"] {
            let owner = neighbours.lookup(ip.parse().expect("address"));
            assert_eq!(owner, Some(Neighbour { mac, place: Place::Remote(4) }), "{ip}");
        }
        assert_eq!(neighbours.lookup("10.0.0.3".parse().expect("address")), None);
    }
}
