//! Notices when somebody else changes our tables or the routing rules (nf_tables and rtnetlink notifications).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::nfnetlink::{BODY, attribute, messages};
use crate::firewall::{PRIORITIES, TABLE};

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h), as a bit of the mask of groups.
const TABLES: u32 = 1 << (7 - 1);
/// `RTNLGRP_IPV4_RULE` and `RTNLGRP_IPV6_RULE` (linux/rtnetlink.h).
const RULES: u32 = 1 << (8 - 1) | 1 << (19 - 1);
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
/// `NFPROTO_IPV4` and `NFPROTO_IPV6` (linux/netfilter.h): those of the firewall's tables. What guards bridges has a
/// table of the same name in another family, and changes with every endpoint.
const FAMILIES: [u8; 2] = [2, 10];
/// `RTM_DELRULE`.
const DELETED: u16 = 33;
/// `FRA_PRIORITY` (linux/fib_rules.h).
const PRIORITY: u16 = 6;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and so on: what any of its messages is about (nf_tables.h).
const OF_TABLE: u16 = 1;
/// Octets of `struct fib_rule_hdr`.
const RULE: usize = 12;
/// Between two reactions: a tool that rewrites its ruleset does so in many messages.
const REST: Duration = Duration::from_millis(20);
/// Processes of ours remembered.
const REMEMBERED: usize = 64;

/// Processes that change tables for us; `nft` sends from a netlink port of its process's number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ours(Arc<Mutex<VecDeque<u32>>>);

impl Ours {
    pub(crate) fn add(&self, pid: u32) {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pids.len() == REMEMBERED {
            pids.pop_front();
        }
        pids.push_back(pid);
    }

    fn has(&self, pid: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }
}

/// What others have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbed {
    /// A table.
    Tables,
    /// A routing rule; it may have been us.
    Rules,
}

/// Listens in the namespace it was opened in.
pub(crate) struct Watch {
    tables: AsyncFd<OwnedFd>,
    rules: AsyncFd<OwnedFd>,
    ours: Ours,
}

impl Watch {
    /// Begins to listen; what `ours` do is no news.
    ///
    /// # Errors
    /// No netlink sockets of that kind.
    pub(crate) fn open(ours: Ours) -> io::Result<Self> {
        let tables = listen(SockProtocol::NetlinkNetFilter, TABLES)?;
        Ok(Self { tables, rules: listen(SockProtocol::NetlinkRoute, RULES)?, ours })
    }

    /// Says so each time that something of ours was changed by others, until nobody listens.
    pub(crate) async fn tell(self, disturbed: mpsc::Sender<Disturbed>) {
        loop {
            let (what, changed) = tokio::select! {
                ready = self.tables.readable() => {
                    (Disturbed::Tables, drained(ready, |octets| self.touches_tables(octets)))
                }
                ready = self.rules.readable() => (Disturbed::Rules, drained(ready, touches_rules)),
            };
            match changed {
                Ok(false) => {}
                Ok(true) => {
                    if disturbed.send(what).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(REST).await;
                }
                Err(fault) => {
                    tracing::warn!(%fault, "changes of the firewall are no longer noticed at once");
                    return;
                }
            }
        }
    }

    fn touches_tables(&self, octets: &[u8]) -> bool {
        messages(octets).any(|message| {
            let name = attribute(message.body, BODY, OF_TABLE);
            let named = name.is_some_and(|name| name.strip_suffix(&[0]).unwrap_or(name) == TABLE.as_bytes());
            let family = message.body.first().is_some_and(|family| FAMILIES.contains(family));
            message.kind.to_be_bytes()[0] == NFTABLES && family && named && !self.ours.has(message.port)
        })
    }
}

fn touches_rules(octets: &[u8]) -> bool {
    messages(octets).filter(|message| message.kind == DELETED).any(|message| {
        let priority = attribute(message.body, RULE, PRIORITY);
        let priority = priority.and_then(|value| Some(u32::from_ne_bytes(value.try_into().ok()?)));
        priority.is_some_and(|priority| PRIORITIES.contains(&priority))
    })
}

#[expect(
    deprecated,
    reason = "it is unsound only for types that change their descriptor; an OwnedFd keeps it"
)]
fn listen(protocol: SockProtocol, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    AsyncFd::new(socket)
}

/// Takes in everything that has arrived. What was lost may have been about us.
fn drained(
    ready: io::Result<tokio::io::unix::AsyncFdReadyGuard<'_, OwnedFd>>,
    concerns: impl Fn(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut ready = ready?;
    let (mut concerned, mut buffer) = (false, vec![0; 1 << 16]);
    loop {
        match recv(ready.get_inner().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => concerned |= concerns(&buffer[..length]),
            Err(Errno::ENOBUFS) => concerned = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                return Ok(concerned);
            }
            Err(fault) => return Err(fault.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, port: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).expect("short");
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 6]);
        message.extend(port.to_ne_bytes());
        message.extend(body);
        message
    }

    fn encoded(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    #[tokio::test]
    async fn only_what_others_do_to_our_tables_is_news() {
        let watch = Watch::open(Ours::default()).expect("netlink sockets");
        watch.ours.add(7);
        let table_of = |family: u8, name: &str, port: u32| {
            let head = [vec![family], vec![0; BODY - 1]].concat();
            message(0x0a02, port, &[head, encoded(OF_TABLE, format!("{name}\0").as_bytes())].concat())
        };
        let table = |name: &str, port: u32| table_of(2, name, port);
        assert!(watch.touches_tables(&table("weft", 8)));
        assert!(watch.touches_tables(&[table("filter", 8), table("weft", 8)].concat()));
        assert!(!watch.touches_tables(&table("weft", 7)), "we did it");
        assert!(!watch.touches_tables(&table("wefts", 8)));
        assert!(watch.touches_tables(&table_of(10, "weft", 8)));
        assert!(!watch.touches_tables(&table_of(7, "weft", 8)), "that guards a bridge");
        let whole = table("weft", 8);
        for cut in 0..whole.len() {
            assert!(!watch.touches_tables(&whole[..cut]), "cut at {cut}");
        }
    }

    #[test]
    fn only_our_rules_that_go_are_news() {
        let rule = |kind, priority: u32| {
            let body = [vec![0; RULE], encoded(PRIORITY, &priority.to_ne_bytes())].concat();
            message(kind, 1, &body)
        };
        assert!(touches_rules(&rule(DELETED, *PRIORITIES.start())));
        assert!(!touches_rules(&rule(DELETED - 1, *PRIORITIES.start())));
        assert!(!touches_rules(&rule(DELETED, 32766)));
    }
}
