//! Links with a parent: macvlan, ipvlan and 802.1Q; and parents that lead nowhere.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, IpVlanFlags, IpVlanMode, LinkAttribute, MacVlanMode,
};
use rtnetlink::{LinkDummy, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVlan};
use weft_dataplane::wire::MacAddr;

use super::{Links, Result, failed};
use crate::driver::macvlan::{IpvlanFlag, IpvlanMode, MacvlanMode, Mode};
use crate::io::namespace::Namespace;

/// A child to be made: its parent is here, itself in another namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child<'a> {
    /// Name.
    pub(crate) name: &'a str,
    /// Namespace.
    pub(crate) namespace: &'a Namespace,
    /// Name of the parent.
    pub(crate) parent: &'a str,
    /// What it is to the parent.
    pub(crate) mode: Mode,
    /// Its address, where it has one of its own.
    pub(crate) mac: MacAddr,
    /// Octets; the parent's if absent.
    pub(crate) mtu: Option<u16>,
    /// What it is known by.
    pub(crate) group: u32,
}

impl Links {
    /// Makes a child in another namespace, down.
    ///
    /// # Errors
    /// No such parent, the name is taken, the kernel has no such children, or the parent takes none: it is a bridge's
    /// port, or has children of another kind. Nothing was made.
    pub(crate) async fn add_child(&self, child: Child<'_>) -> Result<()> {
        let Child { name, parent, mode, .. } = child;
        let attempt = format!("make {} {name} on {parent}", mode.driver());
        let index = self.index(parent).await?;
        let message = match mode {
            Mode::Macvlan(mode) => {
                let link = LinkMacVlan::new(name, index, macvlan(mode)).address(child.mac.0.to_vec());
                common(link, child).build()
            }
            Mode::Ipvlan(mode, flag) => {
                common(LinkIpVlan::new(name, index, ipvlan(mode)).flag(ipvlan_flag(flag)), child).build()
            }
        };
        self.handle.link().add(message).execute().await.map_err(failed(attempt))
    }

    /// Makes the link `name` that is VLAN `id` of `parent`, down.
    ///
    /// # Errors
    /// No such parent, the name or the number is taken, or the kernel has no VLANs.
    pub(crate) async fn add_vlan(&self, name: &str, parent: &str, id: u16, group: u32) -> Result<()> {
        let message = LinkVlan::new(name, self.index(parent).await?, id);
        let message = message.append_extra_attribute(LinkAttribute::Group(group)).build();
        let attempt = format!("make VLAN {id} of {parent}");
        self.handle.link().add(message).execute().await.map_err(failed(attempt))
    }

    /// Makes a link that leads nowhere, down.
    ///
    /// # Errors
    /// The name is taken, or the kernel has no such links.
    pub(crate) async fn add_dummy(&self, name: &str, group: u32) -> Result<()> {
        let message = LinkDummy::new(name).append_extra_attribute(LinkAttribute::Group(group)).build();
        self.handle.link().add(message).execute().await.map_err(failed(format!("make dummy {name}")))
    }

    /// Has the kernel load what children of this kind need, and fails if it has no such thing; makes nothing.
    ///
    /// # Errors
    /// [`NetlinkError::is_unsupported`](super::NetlinkError::is_unsupported), or the kernel's.
    pub(crate) async fn probe(&self, mode: Mode) -> Result<()> {
        let kind = match mode {
            Mode::Macvlan(_) => InfoKind::MacVlan,
            Mode::Ipvlan(..) => InfoKind::IpVlan,
        };
        // A child of nothing: a kernel that knows the kind finds the request invalid.
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind).build();
        let asked = self.handle.link().add(message).execute().await;
        match asked.map_err(failed(format!("make {} links", mode.driver()))) {
            Err(fault) if !fault.is_invalid() => Err(fault),
            _ => Ok(()),
        }
    }
}

fn common<T>(link: LinkMessageBuilder<T>, child: Child<'_>) -> LinkMessageBuilder<T> {
    let link = link.setns_by_fd(child.namespace.as_fd().as_raw_fd());
    let link = link.append_extra_attribute(LinkAttribute::Group(child.group));
    match child.mtu {
        Some(mtu) => link.mtu(mtu.into()),
        None => link,
    }
}

fn macvlan(mode: MacvlanMode) -> MacVlanMode {
    match mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
    }
}

fn ipvlan(mode: IpvlanMode) -> IpVlanMode {
    match mode {
        IpvlanMode::L2 => IpVlanMode::L2,
        IpvlanMode::L3 => IpVlanMode::L3,
        IpvlanMode::L3s => IpVlanMode::L3S,
    }
}

fn ipvlan_flag(flag: IpvlanFlag) -> IpVlanFlags {
    match flag {
        IpvlanFlag::Bridge => IpVlanFlags::empty(),
        IpvlanFlag::Private => IpVlanFlags::Private,
        IpvlanFlag::Vepa => IpVlanFlags::Vepa,
    }
}

/// What a link is to its parent, if it is a child of one in a way we know.
pub(super) fn seen(data: &InfoData) -> Option<Mode> {
    match data {
        InfoData::MacVlan(infos) => infos.iter().find_map(seen_macvlan).map(Mode::Macvlan),
        InfoData::IpVlan(infos) => {
            let mode = infos.iter().find_map(seen_ipvlan)?;
            Some(Mode::Ipvlan(mode, infos.iter().find_map(seen_flag)?))
        }
        _ => None,
    }
}

fn seen_macvlan(info: &InfoMacVlan) -> Option<MacvlanMode> {
    let all = [MacvlanMode::Bridge, MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Passthru];
    all.into_iter().find(|mode| *info == InfoMacVlan::Mode(macvlan(*mode)))
}

fn seen_ipvlan(info: &InfoIpVlan) -> Option<IpvlanMode> {
    let all = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s];
    all.into_iter().find(|mode| *info == InfoIpVlan::Mode(ipvlan(*mode)))
}

fn seen_flag(info: &InfoIpVlan) -> Option<IpvlanFlag> {
    let all = [IpvlanFlag::Bridge, IpvlanFlag::Private, IpvlanFlag::Vepa];
    all.into_iter().find(|flag| *info == InfoIpVlan::Flags(ipvlan_flag(*flag)))
}
