//! Routing rules.

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteHeader;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::IpVersion;

use super::{Links, Result, failed};
use crate::firewall::{Action, Family, MARK, PRIORITIES, Rule};

impl Links {
    /// The rules of a family at our priorities: those that are as ours, and those that somebody else put there.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) async fn rules(&self, family: Family) -> Result<(Vec<Rule>, Vec<RuleMessage>)> {
        let version = if family == Family::V4 { IpVersion::V4 } else { IpVersion::V6 };
        let found: Vec<_> =
            self.handle.rule().get(version).execute().try_collect().await.map_err(failed("list rules"))?;
        let (mut ours, mut foreign) = (Vec::new(), Vec::new());
        for message in found {
            if priority(&message).is_some_and(|priority| PRIORITIES.contains(&priority)) {
                match read(family, &message) {
                    Some(rule) if !ours.contains(&rule) => ours.push(rule),
                    _ => foreign.push(message),
                }
            }
        }
        Ok((ours, foreign))
    }

    /// Adds a rule. One that is there already is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = write(rule);
        match request.execute().await.map_err(failed(format!("add routing rule {}", rule.priority))) {
            Err(fault) if fault.exists() => Ok(()),
            other => other,
        }
    }

    /// Removes a rule. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) async fn delete_rule(&self, rule: RuleMessage) -> Result<()> {
        match self.handle.rule().del(rule).execute().await.map_err(failed("remove a routing rule")) {
            Err(fault) if fault.is_missing() => Ok(()),
            other => other,
        }
    }
}

fn priority(message: &RuleMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    })
}

fn read(family: Family, message: &RuleMessage) -> Option<Rule> {
    let action = match message.header.action {
        RuleAction::ToTable if message.header.table == RouteHeader::RT_TABLE_MAIN => Action::Main,
        RuleAction::Blackhole => Action::Blackhole,
        _ => return None,
    };
    let (from, to, unmarked, priority) = (None, None, false, priority(message)?);
    let mut rule = Rule { family, priority, from, to, unmarked, action };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Iifname(name) => rule.from = Some(name.clone()),
            RuleAttribute::Destination(address) => {
                rule.to = Some(IpNet::new(*address, message.header.dst_len).ok()?);
            }
            RuleAttribute::FwMask(MARK) => rule.unmarked = true,
            RuleAttribute::FwMark(mark) if *mark != 0 => return None,
            RuleAttribute::FwMask(_) | RuleAttribute::Source(_) | RuleAttribute::Oifname(_) => return None,
            _ => {}
        }
    }
    Some(rule)
}

pub(crate) fn write(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family =
        if rule.family == Family::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    (message.header.action, message.header.table) = match rule.action {
        Action::Main => (RuleAction::ToTable, RouteHeader::RT_TABLE_MAIN),
        Action::Blackhole => (RuleAction::Blackhole, RouteHeader::RT_TABLE_UNSPEC),
    };
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.extend(rule.from.clone().map(RuleAttribute::Iifname));
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix_len();
        message.attributes.push(RuleAttribute::Destination(to.addr()));
    }
    if rule.unmarked {
        message.attributes.extend([RuleAttribute::FwMark(0), RuleAttribute::FwMask(MARK)]);
    }
    message
}
