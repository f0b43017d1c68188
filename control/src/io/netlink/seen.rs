//! What rtnetlink's messages say of links, ports and addresses, in our words.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use weft_dataplane::wire::MacAddr;

use super::{PortOptions, children};
use crate::driver::macvlan::Mode;

/// One link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Number of the link in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; zero where the link has none.
    pub mac: MacAddr,
    /// Octets.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up and connected.
    pub running: bool,
    /// `veth`, `bridge`, `tun`, …; empty for loopback and hardware.
    pub kind: String,
    /// Index of the bridge the link is a port of.
    pub controller: Option<u32>,
    /// How it is a port of it.
    pub port: Option<PortOptions>,
    /// 0 where nobody gave it one.
    pub group: u32,
    /// Index of its parent, or of its other end, in that one's namespace.
    pub parent: Option<u32>,
    /// UDP port it receives on, of a VXLAN device of the kernel's.
    pub vxlan_port: Option<u16>,
    /// What it is to its parent, where it is a child.
    pub mode: Option<Mode>,
    /// `net.ipv4.conf.{name}.arp_notify`.
    pub arp_notify: Option<i32>,
    /// Of `net.ipv6.conf.{name}`; absent where the link or the kernel has no IPv6.
    pub ipv6: Option<Ipv6Settings>,
}

/// Settings of IPv6 on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Settings {
    /// `accept_ra`.
    pub accept_ra: i32,
    /// `disable_ipv6`.
    pub disable_ipv6: i32,
    /// `ndisc_notify`.
    pub ndisc_notify: i32,
}

pub(super) fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(octets) => link.mac = octets.try_into().map(MacAddr).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.running = state == State::Up,
            LinkAttribute::Controller(index) => link.controller = Some(index).filter(|index| *index != 0),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Link(index) => link.parent = Some(index),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| describe(&mut link, info)),
            LinkAttribute::AfSpecUnspec(specs) => specs.iter().for_each(|spec| settings(&mut link, spec)),
            _ => {}
        }
    }
    link
}

fn describe(link: &mut Link, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
        LinkInfo::Data(InfoData::Vxlan(infos)) => link.vxlan_port = infos.iter().find_map(port_of_vxlan),
        LinkInfo::Data(data) => link.mode = children::seen(data),
        LinkInfo::PortData(InfoPortData::BridgePort(options)) => link.port = Some(port(options)),
        _ => {}
    }
}

fn port_of_vxlan(info: &InfoVxlan) -> Option<u16> {
    match info {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    }
}

fn port(options: &[InfoBridgePort]) -> PortOptions {
    let mut port = PortOptions { learning: false, flood: false, locked: None, isolated: false };
    for option in options {
        match option {
            InfoBridgePort::Learning(learning) => port.learning = *learning,
            InfoBridgePort::UnicastFlood(flood) => port.flood = *flood,
            InfoBridgePort::Locked(locked) => port.locked = Some(*locked),
            InfoBridgePort::Isolated(isolated) => port.isolated = *isolated,
            _ => {}
        }
    }
    port
}

fn settings(link: &mut Link, spec: &AfSpecUnspec) {
    match spec {
        AfSpecUnspec::Inet(of) => {
            link.arp_notify = of.iter().find_map(|of| match of {
                AfSpecInet::DevConf(conf) => Some(conf.arp_notify),
                _ => None,
            });
        }
        AfSpecUnspec::Inet6(of) => {
            link.ipv6 = of.iter().find_map(|of| match of {
                AfSpecInet6::DevConf(conf) => Some(Ipv6Settings {
                    accept_ra: conf.accept_ra,
                    disable_ipv6: conf.disable_ipv6,
                    ndisc_notify: conf.ndisc_notify,
                }),
                _ => None,
            });
        }
        _ => {}
    }
}

/// The interface's own address: `Local` where the link is point-to-point, else `Address`.
pub(super) fn address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

/// The port and address of a bridge's static FDB entry.
pub(super) fn pinned(message: &NeighbourMessage) -> Option<(u32, MacAddr)> {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(octets) => octets.as_slice().try_into().map(MacAddr).ok(),
        _ => None,
    });
    (message.header.state == NeighbourState::Noarp).then_some((message.header.ifindex, mac?))
}

/// Whether the route is of the table that everything uses (rtnetlink(7), RT_TABLE_MAIN).
pub(super) fn is_main(route: &RouteMessage) -> bool {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(route.header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

/// The next hop of a route that has one.
pub(super) fn next_hop(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(hop) => ip(hop),
        _ => None,
    })
}

/// Index of the link a route leaves by.
pub(super) fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Where a route leads, unless it is a default route.
pub(super) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => ip(to),
        _ => None,
    })?;
    IpNet::new(to, route.header.destination_prefix_length).ok().filter(|net| net.prefix_len() > 0)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
