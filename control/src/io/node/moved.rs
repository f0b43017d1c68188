//! Addresses that have gone to another MAC address: sandboxes here still know the one before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_dataplane::segment::SegmentSpec;
use weft_dataplane::wire::MacAddr;

use crate::model::NetworkId;

/// Whose each address was when it was last seen. What has gone stays, for it may come back with another MAC.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<NetworkId, BTreeMap<IpAddr, MacAddr>>);

impl Holders {
    /// Takes in a segment; gives the addresses that another node has now with another MAC than somebody had before.
    /// Endpoints of this node tell of themselves.
    pub(super) fn learn(&mut self, network: NetworkId, segment: &SegmentSpec) -> Vec<(IpAddr, MacAddr)> {
        let holders = self.0.entry(network).or_default();
        for endpoint in &segment.local {
            holders.extend(endpoint.ips.iter().map(|ip| (*ip, endpoint.mac)));
        }
        let remote = segment.remote.iter().flat_map(|e| e.ips.iter().map(|ip| (*ip, e.mac)));
        remote.filter(|(ip, mac)| holders.insert(*ip, *mac).is_some_and(|before| before != *mac)).collect()
    }

    /// Forgets a network that has no endpoint here.
    pub(super) fn forget(&mut self, network: NetworkId) {
        self.0.remove(&network);
    }
}

#[cfg(test)]
mod tests {
    use weft_dataplane::segment::{Broadcast, LocalEndpoint, RemoteEndpoint, Vtep};
    use weft_dataplane::wire::Vni;

    use super::*;

    const NET: NetworkId = NetworkId([1; 16]);

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn segment(local: &[u8], remote: &[u8]) -> SegmentSpec {
        let vni = Vni::try_from(1).expect("24 bits");
        let vtep = Vtep { address: ([192, 0, 2, 2], 4789).into(), vni };
        let ips = vec![IpAddr::from([10, 0, 0, 2])];
        SegmentSpec {
            vni,
            mtu: 1450,
            broadcast: Broadcast::Local,
            local: local.iter().map(|n| LocalEndpoint { mac: mac(*n), ips: ips.clone() }).collect(),
            remote: remote.iter().map(|n| RemoteEndpoint { mac: mac(*n), ips: ips.clone(), vtep }).collect(),
            static_vteps: Vec::new(),
            members: Vec::new(),
            sealing: None,
        }
    }

    #[test]
    fn an_address_that_comes_back_elsewhere_with_another_mac_is_told() {
        let mut holders = Holders::default();
        let ip = IpAddr::from([10, 0, 0, 2]);
        assert_eq!(holders.learn(NET, &segment(&[], &[1])), [], "nobody had it before");
        assert_eq!(holders.learn(NET, &segment(&[], &[])), [], "it is gone");
        assert_eq!(holders.learn(NET, &segment(&[], &[2])), [(ip, mac(2))]);
        assert_eq!(holders.learn(NET, &segment(&[], &[2])), [], "that is known by now");
        assert_eq!(holders.learn(NET, &segment(&[3], &[])), [], "an endpoint here tells of itself");
        assert_eq!(holders.learn(NET, &segment(&[], &[2])), [(ip, mac(2))]);
        holders.forget(NET);
        assert_eq!(holders.learn(NET, &segment(&[], &[4])), [], "nobody here knows another");
    }
}
