//! Subnets for networks whose creator named none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

use super::validate::overlap;
use crate::ipam::Range;
use crate::model::NetworkId;

/// Docker's pool for networks that span hosts, 10.0.0.0/8.
const GLOBAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);
/// Docker cuts it into /24; ranges granted to nodes want room, so that a dead node strands little.
const DEFAULT_LEN: u8 = 16;

/// Docker's pools for networks of one host, with the length each is cut to.
const LOCAL: [(Ipv4Net, u8); 7] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 18, 0, 0), 16), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 19, 0, 0), 16), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 0, 0), 14), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 24, 0, 0), 14), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 28, 0, 0), 14), 16),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 20),
];
/// Those pools in words.
pub(crate) const LOCAL_POOLS: &str = "172.17.0.0/16 to 172.31.0.0/16 and 192.168.0.0/16";

/// The first subnet of 10.0.0.0/8 with `len` (default 16) bits that overlaps none of `used`.
pub(crate) fn free_global(len: Option<u8>, used: &[IpNet]) -> Option<IpNet> {
    free_in(GLOBAL, len.unwrap_or(DEFAULT_LEN), used)
}

/// The first subnet of the pools for networks of one host that overlaps none of `used`; `len` where another length
/// than the pool's is wanted.
pub(crate) fn free_local(len: Option<u8>, used: &[IpNet]) -> Option<IpNet> {
    LOCAL.into_iter().find_map(|(pool, cut)| {
        let len = len.unwrap_or(cut);
        (len >= pool.prefix_len()).then(|| free_in(pool, len, used))?
    })
}

/// The last of those subnets, which an engine that begins with the first comes to last.
pub(crate) fn last_local(used: &[IpNet]) -> Option<IpNet> {
    let free = |net: &IpNet| !used.iter().any(|&other| overlap(other, *net));
    LOCAL.into_iter().rev().find_map(|(pool, cut)| pool.subnets(cut).ok()?.map(IpNet::V4).filter(free).last())
}

/// The first subnet of `pool` with `len` bits that overlaps none of `used`.
fn free_in(pool: Ipv4Net, len: u8, used: &[IpNet]) -> Option<IpNet> {
    let len = len.max(pool.prefix_len());
    let used: Vec<Range> =
        used.iter().filter(|net| matches!(net, IpNet::V4(_))).map(|&n| Range::of(n)).collect();
    let size = 1_u128 << (32 - len);
    let pool = Range::of(pool.into());
    let mut first = pool.first();
    // Each step passes one of `used` or ends, so a pool cut into millions of subnets is not walked.
    while let Some(candidate) = Range::new(first, first + size - 1).filter(|c| c.last() <= pool.last()) {
        match used.iter().filter(|u| u.intersection(candidate).is_some()).map(|u| u.last()).max() {
            None => {
                let address = Ipv4Addr::from(u32::try_from(first).ok()?);
                return Ipv4Net::new(address, len).ok().map(IpNet::V4);
            }
            Some(last) => first = (last / size + 1) * size,
        }
    }
    None
}

/// The network's own unique local prefix (RFC 4193 §3): `fd`, then 56 bits of a hash of its id.
pub(crate) fn unique_local(id: NetworkId) -> IpNet {
    let hash = Sha256::new_with_prefix(b"weft unique local prefix").chain_update(id.0).finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&hash[..7]);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
}

/// Docker's default gateway: the first free address of the range if there is one, else of the subnet.
pub(crate) fn default_gateway(prefix: IpNet, ip_range: Option<IpNet>, taken: &[IpAddr]) -> Option<IpAddr> {
    let whole = Range::of(prefix);
    let from = Range::of(ip_range.unwrap_or(prefix));
    let edges = if whole.count() > 2 { [Some(whole.first()), Some(whole.last())] } else { [None, None] };
    let taken: Vec<u128> =
        taken.iter().map(|&ip| crate::ipam::number(ip)).chain(edges.into_iter().flatten()).collect();
    (from.first()..=from.last()).find(|n| !taken.contains(n)).map(|n| Range::address(prefix, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn the_last_of_dockers_pools_is_found_where_one_is_free() {
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        assert_eq!(last_local(&[]), Some(net("192.168.240.0/20")));
        assert_eq!(last_local(&[net("192.168.250.0/24"), net("fd00::/8")]), Some(net("192.168.224.0/20")));
        assert_eq!(last_local(&[net("192.168.0.0/16")]), Some(net("172.31.0.0/16")));
        assert_eq!(last_local(&[net("192.168.0.0/16"), net("172.16.0.0/12")]), None);
    }

    #[test]
    fn the_first_free_subnet_is_taken_and_a_full_pool_says_so() {
        assert_eq!(free_global(None, &[]), Some(net("10.0.0.0/16")));
        assert_eq!(free_global(None, &[net("10.0.3.0/24"), net("fd00::/8")]), Some(net("10.1.0.0/16")));
        assert_eq!(free_global(Some(24), &[net("10.0.0.0/23")]), Some(net("10.0.2.0/24")));
        assert_eq!(free_global(None, &[net("10.0.0.0/9"), net("10.128.0.0/16")]), Some(net("10.129.0.0/16")));
        assert_eq!(free_global(None, &[net("0.0.0.0/0")]), None);
        assert_eq!(free_global(Some(30), &[net("10.0.0.0/8")]), None);
    }

    #[test]
    fn networks_of_one_host_get_dockers_pools_in_dockers_order() {
        let mut used = Vec::new();
        while let Some(next) = free_local(None, &used) {
            used.push(next);
        }
        let shown: Vec<String> = used.iter().map(ToString::to_string).collect();
        assert_eq!(
            (shown.len(), shown[0].as_str(), shown[14].as_str()),
            (31, "172.17.0.0/16", "172.31.0.0/16")
        );
        assert_eq!((shown[15].as_str(), shown[30].as_str()), ("192.168.0.0/20", "192.168.240.0/20"));
        assert_eq!(
            free_local(None, &[net("172.17.4.0/24"), net("172.18.0.0/15")]),
            Some(net("172.20.0.0/16"))
        );
        assert_eq!(free_local(Some(24), &[net("172.17.0.0/24")]), Some(net("172.17.1.0/24")));
        assert_eq!(free_local(Some(14), &[]), Some(net("172.20.0.0/14")));
        assert_eq!(free_local(Some(8), &[]), None);
    }

    #[test]
    fn each_network_has_its_own_unique_local_prefix() {
        let (a, b) = (unique_local(NetworkId([1; 16])), unique_local(NetworkId([2; 16])));
        assert_ne!(a, b);
        assert_eq!(a.prefix_len(), 64);
        assert!(net("fd00::/8").contains(&a));
    }

    #[test]
    fn the_default_gateway_is_the_first_free_address_of_the_range() {
        let gateway = |subnet, range: Option<&str>, taken: &[&str]| {
            let taken: Vec<IpAddr> = taken.iter().map(|t| t.parse().expect("an address")).collect();
            default_gateway(net(subnet), range.map(net), &taken).map(|ip| ip.to_string())
        };
        assert_eq!(gateway("10.0.0.0/16", None, &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(gateway("10.0.0.0/24", Some("10.0.0.128/25"), &[]).as_deref(), Some("10.0.0.128"));
        assert_eq!(gateway("10.0.0.0/24", None, &["10.0.0.1"]).as_deref(), Some("10.0.0.2"));
        assert_eq!(gateway("fd00::/64", None, &[]).as_deref(), Some("fd00::1"));
        assert_eq!(gateway("10.0.0.0/31", None, &[]).as_deref(), Some("10.0.0.0"));
    }
}
