//! Links, addresses and bridge ports by rtnetlink; the only file that knows the netlink crates.
//!
//! A [`Links`] speaks to one network namespace, whichever thread uses it: a netlink socket stays in the namespace
//! it was opened in. Names of links are passed as text and must fit the kernel's 15 octets.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{BridgeStpState, InfoData, InfoKind, InfoVeth, LinkAttribute};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::tc::TcHandle;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan,
    RouteMessageBuilder,
};
use tokio::task::JoinHandle;
use weft_dataplane::wire::MacAddr;

use super::namespace::{Namespace, NamespaceError};

mod children;
mod rules;
mod seen;

pub(crate) use children::Child;
pub(crate) use rules::write as write_rule;
pub use seen::{Ipv6Settings, Link};

/// Handle of a link's ingress queueing (`linux/pkt_sched.h`).
const INGRESS: u32 = 0xffff_0000;
/// Every protocol (`ETH_P_ALL`), in the order of the wire.
const ANY_PROTOCOL: u16 = 3_u16.to_be();

/// What was asked of the kernel's network, and its answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct NetlinkError {
    attempt: String,
    #[source]
    source: io::Error,
}

impl NetlinkError {
    /// Whether the link or address simply is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        // ENODEV for links, EADDRNOTAVAIL for addresses, ENOENT for FDB rows, ESRCH for routes.
        let code = self.source.raw_os_error();
        code.is_some_and(|code| [19, 99, 2, 3].contains(&code))
    }

    /// Whether the kernel has no such thing (EOPNOTSUPP, for links of a kind it does not know).
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.source.raw_os_error() == Some(95)
    }

    /// Whether somebody else has what is needed (EBUSY).
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.source.kind() == io::ErrorKind::ResourceBusy
    }

    /// Whether the request says nothing that can be done (EINVAL).
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.source.kind() == io::ErrorKind::InvalidInput
    }

    /// Whether it exists already.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

impl From<NamespaceError> for NetlinkError {
    fn from(fault: NamespaceError) -> Self {
        Self { attempt: "open a netlink socket".into(), source: io::Error::other(fault) }
    }
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// Turns the crate's error into "cannot {attempt}" with the kernel's own code as the cause.
fn failed(attempt: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |fault| {
        let source = match &fault {
            rtnetlink::Error::NetlinkError(message) => io::Error::from_raw_os_error(message.raw_code().abs()),
            other => io::Error::other(other.to_string()),
        };
        NetlinkError { attempt: attempt.into(), source }
    }
}

/// Options of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortOptions {
    /// Learns source addresses.
    pub learning: bool,
    /// Gets unicast frames for unknown addresses.
    pub flood: bool,
    /// Takes frames only from addresses that are pinned to it; absent where the kernel cannot (before 5.18), or to
    /// leave it as it is.
    pub locked: Option<bool>,
    /// Reaches no other such port.
    pub isolated: bool,
}

/// A veth pair to be made: `name` here, `peer` in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name of the near end.
    pub name: &'a str,
    /// Address of the near end; the kernel picks one if absent.
    pub near: Option<MacAddr>,
    /// Name of the far end.
    pub peer: &'a str,
    /// Namespace of the far end.
    pub namespace: &'a Namespace,
    /// Address of the far end; the kernel picks one if absent.
    pub mac: Option<MacAddr>,
    /// Of both ends, octets.
    pub mtu: u32,
}

/// One of the kernel's own VXLAN devices, with one peer.
#[derive(Debug, Clone, Copy)]
pub struct Vxlan<'a> {
    /// Name of the device.
    pub name: &'a str,
    /// Its VXLAN network identifier.
    pub vni: u32,
    /// Underlay address it sends from.
    pub local: IpAddr,
    /// Underlay address of the peer, of the same family.
    pub remote: IpAddr,
    /// UDP port of both.
    pub port: u16,
}

/// A netlink connection to one network namespace. Needs a tokio runtime.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Opens a connection to `namespace` and serves it on the current runtime.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the socket not opened.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let opened = namespace.run(|| {
            let _context = runtime.enter();
            rtnetlink::new_connection()
        })?;
        let attempt = "open a netlink socket".to_owned();
        let (connection, handle, _) = opened.map_err(|source| NetlinkError { attempt, source })?;
        Ok(Self { handle, connection: runtime.spawn(connection) })
    }

    /// Opens a connection to the calling thread's namespace, which takes no privilege.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn here() -> Result<Self> {
        let attempt = "open a netlink socket".to_owned();
        let opened = rtnetlink::new_connection().map_err(|source| NetlinkError { attempt, source });
        let (connection, handle, _) = opened?;
        Ok(Self { handle, connection: tokio::runtime::Handle::current().spawn(connection) })
    }

    /// Every link of the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn list(&self) -> Result<Vec<Link>> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list links"))?;
        Ok(messages.into_iter().map(seen::link).collect())
    }

    /// The link `name`, if there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn find(&self, name: &str) -> Result<Option<Link>> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found.map_err(failed(format!("look up link {name}"))) {
            Err(fault) if fault.is_missing() => Ok(None),
            other => Ok(other?.map(seen::link)),
        }
    }

    async fn index(&self, name: &str) -> Result<u32> {
        let missing = || NetlinkError {
            attempt: format!("find link {name}"),
            source: io::Error::from_raw_os_error(19),
        };
        Ok(self.find(name).await?.ok_or_else(missing)?.index)
    }

    /// Makes a bridge, down: no spanning tree, no multicast snooping, no netfilter.
    ///
    /// # Errors
    /// The name is taken, or the kernel has no bridges.
    pub async fn add_bridge(&self, name: &str, mac: Option<MacAddr>) -> Result<()> {
        let mut message = LinkMessageBuilder::<LinkBridge>::new(name)
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false);
        if let Some(mac) = mac {
            message = message.address(mac.0.to_vec());
        }
        let message = message.build();
        self.handle.link().add(message).execute().await.map_err(failed(format!("make bridge {name}")))
    }

    /// Makes a veth pair across two namespaces, both ends down.
    ///
    /// # Errors
    /// A name is taken at either end; nothing was made.
    pub async fn add_veth(&self, veth: Veth<'_>) -> Result<()> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer)
            .mtu(veth.mtu)
            .setns_by_fd(veth.namespace.as_fd().as_raw_fd());
        if let Some(mac) = veth.mac {
            far = far.address(mac.0.to_vec());
        }
        let mut near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.name)
            .mtu(veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())));
        if let Some(mac) = veth.near {
            near = near.address(mac.0.to_vec());
        }
        let message = near.build();
        let attempt = format!("make veth pair {} – {}", veth.name, veth.peer);
        self.handle.link().add(message).execute().await.map_err(failed(attempt))
    }

    /// Has whatever comes in by `from` leave by `to`, before anybody else sees it; what was ordered before no longer holds.
    ///
    /// # Errors
    /// No such link, or the kernel has no ingress queueing, `u32` filter or `mirred` action.
    pub async fn redirect(&self, from: &str, to: &str) -> Result<()> {
        let (attempt, to) = (format!("redirect {from} to {to}"), self.index(to).await?);
        let missing = || NetlinkError { attempt: attempt.clone(), source: io::Error::from_raw_os_error(19) };
        let from = i32::try_from(self.index(from).await?).map_err(|_| missing())?;
        let mut clear = self.handle.qdisc().del(from);
        clear.message_mut().header.parent = TcHandle::INGRESS;
        // As a rule there is none.
        let _ = clear.execute().await;
        let queueing = self.handle.qdisc().add(from).ingress().execute().await;
        queueing.map_err(failed(attempt.clone()))?;
        let filter =
            self.handle.traffic_filter(from).add().parent(INGRESS).protocol(ANY_PROTOCOL).redirect(to);
        filter.map_err(failed(attempt.clone()))?.execute().await.map_err(failed(attempt))
    }

    /// Makes a VXLAN device of the kernel's, down; its socket stays in this namespace wherever it is moved.
    ///
    /// # Errors
    /// The name or the port is taken, or the kernel has no VXLAN.
    pub async fn add_vxlan(&self, vxlan: Vxlan<'_>) -> Result<()> {
        let Vxlan { name, vni, local, remote, port } = vxlan;
        let mut message = LinkVxlan::new(name, vni).port(port);
        message = match local {
            IpAddr::V4(local) => message.local(local),
            IpAddr::V6(local) => message.local6(local),
        };
        message = match remote {
            IpAddr::V4(remote) => message.remote(remote),
            IpAddr::V6(remote) => message.remote6(remote),
        };
        let attempt = format!("make VXLAN device {name}");
        self.handle.link().add(message.build()).execute().await.map_err(failed(attempt))
    }

    /// Removes the link `name` (and, of a veth pair, its other end). No such link is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        match self
            .handle
            .link()
            .del(link.index)
            .execute()
            .await
            .map_err(failed(format!("delete link {name}")))
        {
            Err(fault) if fault.is_missing() => Ok(()),
            other => other,
        }
    }

    /// Sets the link up.
    ///
    /// # Errors
    /// No such link.
    pub async fn set_up(&self, name: &str) -> Result<()> {
        self.change(name, format!("set {name} up"), LinkMessageBuilder::up).await
    }

    /// Sets the link down.
    ///
    /// # Errors
    /// No such link.
    pub async fn set_down(&self, name: &str) -> Result<()> {
        self.change(name, format!("set {name} down"), LinkMessageBuilder::down).await
    }

    /// Sets the largest packet, octets.
    ///
    /// # Errors
    /// No such link, or the kernel refuses the size.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.change(name, format!("set MTU {mtu} on {name}"), |link| link.mtu(mtu)).await
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// No such link, or the kernel refuses the address.
    pub async fn set_mac(&self, name: &str, mac: MacAddr) -> Result<()> {
        self.change(name, format!("set address {mac} on {name}"), |link| link.address(mac.0.to_vec())).await
    }

    /// Sets the largest super-frame handed to the link, octets.
    ///
    /// # Errors
    /// No such link, or the kernel refuses the size.
    pub async fn set_gso_max_size(&self, name: &str, octets: u32) -> Result<()> {
        let attempt = format!("set gso_max_size {octets} on {name}");
        self.change(name, attempt, |link| link.append_extra_attribute(LinkAttribute::GsoMaxSize(octets)))
            .await
    }

    /// Gives the link, which must be down, another name.
    ///
    /// # Errors
    /// No such link, or the name is taken.
    pub async fn rename(&self, name: &str, to: &str) -> Result<()> {
        self.change(name, format!("rename {name} to {to}"), |link| link.name(to)).await
    }

    /// Moves the link into another namespace.
    ///
    /// # Errors
    /// No such link, or its name is taken there.
    pub async fn move_to(&self, name: &str, namespace: &Namespace) -> Result<()> {
        let descriptor = namespace.as_fd().as_raw_fd();
        self.change(name, format!("move {name} to another namespace"), |link| link.setns_by_fd(descriptor))
            .await
    }

    /// Makes `name` a port of the bridge `bridge`.
    ///
    /// # Errors
    /// No such link or bridge.
    pub async fn enslave(&self, name: &str, bridge: &str, options: PortOptions) -> Result<()> {
        let controller = self.index(bridge).await?;
        let attempt = format!("add {name} to bridge {bridge}");
        self.change(name, attempt.clone(), |link| link.controller(controller)).await?;
        let mut port = LinkBridgePort::new(self.index(name).await?)
            .learning(options.learning)
            .flood(options.flood)
            .isolated(options.isolated);
        if let Some(locked) = options.locked {
            port = port.locked(locked);
        }
        self.handle.link().set_port(port.build()).execute().await.map_err(failed(attempt))
    }

    /// Pins `mac` to the bridge port `port`; an entry that is there already is replaced.
    ///
    /// # Errors
    /// No such port.
    pub async fn add_static_fdb(&self, port: &str, mac: MacAddr) -> Result<()> {
        let index = self.index(port).await?;
        // NUD_NOARP is bridge(8)'s "static"; NUD_PERMANENT would mean an address of the bridge itself.
        let request = self.handle.neighbours().add_bridge(index, &mac.0);
        let request = request.state(NeighbourState::Noarp).flags(NeighbourFlags::Controller).replace();
        request.execute().await.map_err(failed(format!("pin {mac} to bridge port {port}")))
    }

    /// Addresses pinned to bridge ports, by the ports' indices.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn static_fdb(&self) -> Result<Vec<(u32, MacAddr)>> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let found: Vec<_> =
            request.execute().try_collect().await.map_err(failed("list bridges' addresses"))?;
        Ok(found.iter().filter_map(seen::pinned).collect())
    }

    /// Adds an address that nobody else has: IPv6 is usable at once, without duplicate detection.
    ///
    /// # Errors
    /// No such link, or it has the address already.
    pub async fn add_address(&self, name: &str, address: IpNet) -> Result<()> {
        let index = self.index(name).await?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(failed(format!("add address {address} to {name}")))
    }

    /// Removes an address. No such address is no error.
    ///
    /// # Errors
    /// No such link.
    pub async fn delete_address(&self, name: &str, address: IpNet) -> Result<()> {
        let index = self.index(name).await?;
        let attempt = format!("remove address {address} from {name}");
        let request = self.handle.address().get().set_link_index_filter(index).execute();
        let present: Vec<_> = request.try_collect().await.map_err(failed(attempt.clone()))?;
        for message in present {
            if seen::address(&message.attributes).map(|ip| (ip, message.header.prefix_len))
                == Some((address.addr(), address.prefix_len()))
            {
                self.handle.address().del(message).execute().await.map_err(failed(attempt.clone()))?;
            }
        }
        Ok(())
    }

    /// Addresses of the link `name`, link-local ones included.
    ///
    /// # Errors
    /// No such link.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpNet>> {
        let index = self.index(name).await?;
        let all = self.all_addresses().await?;
        Ok(all.into_iter().filter(|(link, _)| *link == index).map(|(_, address)| address).collect())
    }

    /// Addresses of every link, by the link's index.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn all_addresses(&self) -> Result<Vec<(u32, IpNet)>> {
        let request = self.handle.address().get().execute();
        let found: Vec<_> = request.try_collect().await.map_err(failed("list addresses"))?;
        let net = |message: &netlink_packet_route::address::AddressMessage| {
            let net = IpNet::new(seen::address(&message.attributes)?, message.header.prefix_len).ok()?;
            Some((message.header.index, net))
        };
        Ok(found.iter().filter_map(net).collect())
    }

    /// Adds a route to `to` by way of the neighbour `via`.
    ///
    /// # Errors
    /// `via` is not reachable, or the route exists.
    pub async fn add_route(&self, to: IpNet, via: IpAddr) -> Result<()> {
        let mut route = RouteMessageBuilder::<IpAddr>::new();
        let wrong = |fault| NetlinkError {
            attempt: format!("route {to} via {via}"),
            source: io::Error::other(fault),
        };
        route = route.destination_prefix(to.addr(), to.prefix_len()).map_err(wrong)?;
        route = route.gateway(via).map_err(wrong)?;
        self.handle
            .route()
            .add(route.build())
            .execute()
            .await
            .map_err(failed(format!("route {to} via {via}")))
    }

    /// Makes `via`, reached by the link `name`, the next hop of its family's default route, whatever that was before.
    ///
    /// # Errors
    /// No such link, or `via` is not reachable by it.
    pub async fn set_default_route(&self, name: &str, via: IpAddr) -> Result<()> {
        let attempt = format!("set the default route via {via} by {name}");
        let wrong = |fault| NetlinkError { attempt: attempt.clone(), source: io::Error::other(fault) };
        let any = if via.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let route = RouteMessageBuilder::<IpAddr>::new().output_interface(self.index(name).await?);
        let route = route.destination_prefix(any, 0).map_err(wrong)?.gateway(via).map_err(wrong)?;
        let request = self.handle.route().add(route.build()).replace();
        request.execute().await.map_err(failed(attempt.clone()))
    }

    /// The default routes: next hop and name of the link.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn default_routes(&self) -> Result<Vec<(IpAddr, String)>> {
        let routes = self.routes().await?;
        let links = self.list().await?;
        let default = routes.iter().filter(|route| route.header.destination_prefix_length == 0);
        let named = |route: &RouteMessage| {
            let (via, index) = (seen::next_hop(route)?, seen::output(route)?);
            Some((via, links.iter().find(|link| link.index == index)?.name.clone()))
        };
        Ok(default.filter_map(named).collect())
    }

    /// Prefixes that routes of the main table lead to, default routes left out.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn routed(&self) -> Result<Vec<IpNet>> {
        Ok(self.routes().await?.iter().filter_map(seen::destination).collect())
    }

    /// Routes of the main table.
    async fn routes(&self) -> Result<Vec<RouteMessage>> {
        let mut all = Vec::new();
        for message in [RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(), v6_routes()] {
            let found: Vec<_> = self
                .handle
                .route()
                .get(message)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            all.extend(found.into_iter().filter(seen::is_main));
        }
        Ok(all)
    }

    /// Name of the link the default route leaves by, IPv4's before IPv6's.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn default_route_link(&self) -> Result<Option<String>> {
        for message in [RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(), v6_routes()] {
            let routes: Vec<_> = self
                .handle
                .route()
                .get(message)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            let by_metric =
                routes.iter().filter(|r| r.header.destination_prefix_length == 0).filter_map(|route| {
                    let metric = route.attributes.iter().find_map(|a| match a {
                        RouteAttribute::Priority(metric) => Some(*metric),
                        _ => None,
                    });
                    let index = route.attributes.iter().find_map(|a| match a {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    });
                    let elsewhere =
                        |a: &RouteAttribute| matches!(a, RouteAttribute::Destination(RouteAddress::Other(_)));
                    (!route.attributes.iter().any(elsewhere)).then_some((metric.unwrap_or(0), index?))
                });
            if let Some((_, index)) = by_metric.min() {
                return Ok(self
                    .list()
                    .await?
                    .into_iter()
                    .find(|link| link.index == index)
                    .map(|link| link.name));
            }
        }
        Ok(None)
    }

    async fn change(
        &self,
        name: &str,
        attempt: String,
        set: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<()> {
        let message = set(LinkUnspec::new_with_index(self.index(name).await?)).build();
        self.handle.link().change(message).execute().await.map_err(failed(attempt))
    }
}

fn v6_routes() -> RouteMessage {
    RouteMessageBuilder::<std::net::Ipv6Addr>::new().build()
}
