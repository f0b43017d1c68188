//! What weft is compared with: the kernel's VXLAN on the same underlay, laid out as an overlay network of Docker's.
//!
//! Per host a hidden namespace with a bridge that joins the VXLAN device and one sandbox's veth, so that a frame
//! goes the same way as with weft but for the tunnel itself.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use ipnet::IpNet;
use weft_control::io::namespace::Namespace;
use weft_control::io::netlink::{Links, PortOptions, Veth, Vxlan};

use super::{Host, Rig, UNDERLAY_MTU};
use crate::traffic::Station;

/// Linux's historic VXLAN port: 4789 is the agent's.
const PORT: u16 = 8472;
const VNI: u32 = 42;
/// Ethernet, IPv4, UDP and VXLAN headers around an inner packet, octets (RFC 7348 §5).
const OVERHEAD: u32 = 50;
const BRIDGE: &str = "br0";
const TUNNEL: &str = "vx0";
const PORT_OF_SANDBOX: &str = "s0";
const INTERFACE: &str = "eth0";

impl Rig {
    /// Two sandboxes, one on each of two hosts, joined by the kernel's VXLAN.
    ///
    /// # Errors
    /// The kernel has no VXLAN, or refuses.
    pub fn kernel_stations(&self, near: usize, far: usize) -> Result<[Station; 2]> {
        let (near, far) = (&self.hosts[near], &self.hosts[far]);
        self.runtime.block_on(async {
            Ok([station(near, far.address, 1).await?, station(far, near.address, 2).await?])
        })
    }
}

async fn station(host: &Host, remote: IpAddr, number: u8) -> Result<Station> {
    let (hidden, sandbox) = (Namespace::create()?, Namespace::create()?);
    let mtu = UNDERLAY_MTU - OVERHEAD;
    // Made in the host's namespace, where its socket stays, and moved from there.
    let outer = Links::open(&host.namespace)?;
    outer.add_vxlan(Vxlan { name: TUNNEL, vni: VNI, local: host.address, remote, port: PORT }).await?;
    outer.move_to(TUNNEL, &hidden).await?;
    let links = Links::open(&hidden)?;
    links.add_bridge(BRIDGE, None).await?;
    let veth =
        Veth { name: PORT_OF_SANDBOX, near: None, peer: INTERFACE, namespace: &sandbox, mac: None, mtu };
    links.add_veth(veth).await?;
    links.set_mtu(TUNNEL, mtu).await?;
    for port in [TUNNEL, PORT_OF_SANDBOX] {
        links
            .enslave(port, BRIDGE, PortOptions { learning: true, flood: true, locked: None, isolated: false })
            .await?;
        links.set_up(port).await?;
    }
    links.set_up(BRIDGE).await?;
    let address = IpAddr::from(Ipv4Addr::new(10, 254, 0, number));
    let inner = Links::open(&sandbox)?;
    inner.set_up("lo").await?;
    inner.add_address(INTERFACE, IpNet::new(address, 24)?).await?;
    inner.set_up(INTERFACE).await?;
    Ok(Station::new(sandbox, address, None, Some(hidden)))
}
