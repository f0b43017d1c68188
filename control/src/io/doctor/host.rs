//! The host itself: privileges, kernel, TAP, nftables, sysctls.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use caps::{CapSet, Capability};
use weft_dataplane::io::{Tap, TapError, kernel_version, udp_offload};

use super::super::namespace::Namespace;
use super::super::netlink::Links;
use super::super::nft::{self, NftError};
use super::super::server::explain;
use crate::doctor::{Kernel, Nft, Tun};
use crate::firewall::{Bridge, Firewall, Forward};
use crate::publish::Protocol;

/// What no agent can do without, with its name.
const NEEDED: [(Capability, &str); 2] =
    [(Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"), (Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN")];
/// Names of what is made to try.
const BRIDGE: &str = "trial-bridge";
const TAP: &str = "trial-tap";

/// Capabilities that an agent started from here would lack.
pub(super) fn lacking() -> Vec<&'static str> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    NEEDED.iter().filter(|(one, _)| !held.contains(one)).map(|(_, name)| *name).collect()
}

pub(super) fn kernel() -> Kernel {
    let release = nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
    Kernel {
        release: format!("Linux {}", release.unwrap_or_default()),
        version: kernel_version(),
        udp_offload: udp_offload(),
        bridge: None,
    }
}

pub(super) async fn try_bridge(scratch: &Namespace) -> Result<(), String> {
    let links = Links::open(scratch).map_err(|fault| explain(&fault))?;
    links.add_bridge(BRIDGE, None).await.map_err(|fault| explain(&fault))
}

pub(super) fn tun(driver: Result<(), TapError>) -> Tun {
    match driver {
        Ok(()) => Tun::Untried,
        // ENOENT: no such file; ENODEV, ENXIO: no such driver behind it.
        Err(TapError::Open(fault)) if matches!(fault.raw_os_error(), Some(2 | 6 | 19)) => Tun::Missing,
        Err(TapError::Open(fault)) if fault.kind() == io::ErrorKind::PermissionDenied => Tun::Forbidden,
        Err(fault) => Tun::Fails(explain(&fault)),
    }
}

pub(super) fn try_tap(scratch: &Namespace) -> Tun {
    match scratch.run(|| Tap::create(TAP, 1).map(drop)) {
        Ok(Ok(())) => Tun::Works,
        Ok(Err(fault)) => Tun::Fails(explain(&fault)),
        Err(fault) => Tun::Fails(explain(&fault)),
    }
}

pub(super) fn nft() -> Nft {
    match nft::version() {
        Ok(version) => Nft::Untried(version),
        Err(NftError::Missing) => Nft::Missing,
        Err(fault) => Nft::Fails(explain(&fault)),
    }
}

/// Loads tables such as weft's where nobody has a use for them.
pub(super) fn try_nft(scratch: &Namespace, found: Nft) -> Nft {
    let Nft::Untried(version) = found else { return found };
    match nft::apply(scratch, &sample().batch()) {
        Ok(()) => Nft::Works(version),
        Err(fault) => Nft::Fails(format!("{version}: {fault}")),
    }
}

/// A firewall with one of everything.
fn sample() -> Firewall {
    let bridge = Bridge {
        interface: BRIDGE.to_owned(),
        subnets: [[192, 0, 2, 0].into(), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0])]
            .into_iter()
            .filter_map(|net: IpAddr| ipnet::IpNet::new(net, if net.is_ipv4() { 24 } else { 64 }).ok())
            .collect(),
        internal: false,
        icc: true,
        masquerade: true,
    };
    let forward = Forward {
        protocol: Protocol::Tcp,
        host: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80),
        target: SocketAddr::new([192, 0, 2, 2].into(), 80),
    };
    Firewall::of([bridge], [forward])
}

/// `net.bridge.bridge-nf-call-iptables` and `…-ip6tables`.
pub(super) fn bridge_filtering() -> [Option<bool>; 2] {
    ["iptables", "ip6tables"].map(|tables| {
        let value = fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{tables}")).ok()?;
        Some(value.trim() != "0")
    })
}
