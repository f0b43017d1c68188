//! TAPs of a virtual machine's command: descriptors 3, 4, … and variables that say what belongs to each.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use weft_control::api::Connected;

use crate::args::KeyValue;
use crate::process::FIRST_DESCRIPTOR;

/// One network's TAP.
struct Tap {
    network: String,
    got: Connected,
}

/// TAPs in the order of their descriptors.
#[derive(Default)]
pub(super) struct Taps {
    taps: Vec<Tap>,
    descriptors: Vec<OwnedFd>,
}

impl Taps {
    /// Adds the TAP of one more network.
    pub(super) fn add(&mut self, network: &str, got: Connected, descriptor: OwnedFd) {
        self.taps.push(Tap { network: network.to_owned(), got });
        self.descriptors.push(descriptor);
    }

    /// What the command is to have as descriptor 3 and after.
    pub(super) fn descriptors(&self) -> &[OwnedFd] {
        &self.descriptors
    }

    /// The first network's as `WEFT_FD`, `WEFT_MAC`, …, those of the second with `_2` behind, and so on.
    pub(super) fn variables(&self) -> impl Iterator<Item = KeyValue> + '_ {
        self.taps.iter().enumerate().flat_map(|(index, tap)| {
            let behind = if index == 0 { String::new() } else { format!("_{}", index + 1) };
            let named = move |(name, value): (&str, String)| {
                let key = format!("WEFT_{name}{behind}");
                KeyValue { key, value, bare: false }
            };
            tap.facts(index).into_iter().map(named)
        })
    }

    /// The same for a person, a line for each.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.taps.iter().enumerate().map(|(index, tap)| tap.line(index))
    }
}

impl Tap {
    fn facts(&self, index: usize) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("FD", number(index).to_string()),
            ("NETWORK", self.network.clone()),
            ("MAC", self.got.mac_address.clone()),
            ("MTU", self.got.mtu.to_string()),
        ];
        let six = |address: &str| address.contains(':');
        facts.extend(
            self.got
                .addresses
                .iter()
                .map(|address| (if six(address) { "ADDRESS6" } else { "ADDRESS" }, address.clone())),
        );
        facts.extend(self.got.gateways.iter().map(|gateway| {
            (if gateway.is_ipv6() { "GATEWAY6" } else { "GATEWAY" }, IpAddr::to_string(gateway))
        }));
        facts
    }

    fn line(&self, index: usize) -> String {
        format!("weft: {} is descriptor {}: {}", self.network, number(index), described(&self.got))
    }
}

/// What an endpoint got, for a person.
pub(crate) fn described(got: &Connected) -> String {
    let Connected { mac_address, addresses, gateways, mtu, .. } = got;
    let mut text = format!("mac {mac_address}");
    for address in addresses {
        // Writing to a string cannot fail.
        let _ = write!(text, ", address {address}");
    }
    for gateway in gateways {
        let _ = write!(text, ", gateway {gateway}");
    }
    let _ = write!(text, ", MTU {mtu}");
    text
}

fn number(index: usize) -> i32 {
    FIRST_DESCRIPTOR + i32::try_from(index).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn each_network_has_its_descriptor_and_its_variables() {
        let mut taps = Taps::default();
        for (network, address) in [("blue", "10.7.0.2/24"), ("red", "fd07::2/64")] {
            let got = Connected {
                endpoint_id: String::new(),
                interface: "tap0".into(),
                mac_address: "02:00:00:00:00:07".into(),
                addresses: vec![address.into()],
                gateways: vec![[10, 7, 0, 1].into()],
                mtu: 1450,
            };
            taps.add(network, got, File::open("/dev/null").expect("it is there").into());
        }
        let shown: Vec<_> = taps.variables().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        for expected in [
            "WEFT_FD=3",
            "WEFT_NETWORK=blue",
            "WEFT_MAC=02:00:00:00:00:07",
            "WEFT_MTU=1450",
            "WEFT_ADDRESS=10.7.0.2/24",
            "WEFT_GATEWAY=10.7.0.1",
            "WEFT_FD_2=4",
            "WEFT_NETWORK_2=red",
            "WEFT_ADDRESS6_2=fd07::2/64",
        ] {
            assert!(shown.iter().any(|pair| pair == expected), "{expected} in {shown:?}");
        }
        let first = "weft: blue is descriptor 3: mac 02:00:00:00:00:07, address 10.7.0.2/24, gateway 10.7.0.1, MTU 1450";
        assert_eq!(taps.lines().next().as_deref(), Some(first));
    }
}
