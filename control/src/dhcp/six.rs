//! Messages of DHCPv6 (RFC 8415): an endpoint's own address as the one of its identity association.

use std::net::Ipv6Addr;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode,
};
use dhcproto::{Decodable, Decoder, Encodable};
use weft_dataplane::wire::MacAddr;

use super::{Client, LEASE, REBIND, RENEW, v6};

/// What is answered to a message.
pub(super) fn answer(server: MacAddr, client: &Client, message: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::decode(&mut Decoder::new(message)).ok()?;
    let own = client.v6?.addr();
    let kind = kind(&asked, &duid(server))?;
    let mut reply = Message::new_with_id(kind, asked.xid());
    let options = reply.opts_mut();
    options.insert(DhcpOption::ServerId(duid(server)));
    asked.opts().get(OptionCode::ClientId).into_iter().for_each(|id| options.insert(id.clone()));
    match asked.msg_type() {
        MessageType::InformationRequest => {}
        MessageType::Confirm => options.insert(status(confirmed(&asked, own))),
        MessageType::Release | MessageType::Decline => options.insert(status(Status::Success)),
        _ => associations(&asked, own).for_each(|association| options.insert(association)),
    }
    if kind == MessageType::Reply && asked.msg_type() == MessageType::Solicit {
        options.insert(DhcpOption::RapidCommit);
    }
    let dns = v6(&client.dns);
    if !dns.is_empty() {
        options.insert(DhcpOption::DomainNameServers(dns));
    }
    reply.to_vec().ok()
}

/// What kind of answer a message gets, if any (RFC 8415 §16 and §18.3).
fn kind(asked: &Message, own: &[u8]) -> Option<MessageType> {
    use MessageType::{
        Advertise, Confirm, Decline, InformationRequest, Rebind, Release, Renew, Reply, Request, Solicit,
    };
    let named = asked.opts().get(OptionCode::ServerId);
    let to_us = matches!(named, Some(DhcpOption::ServerId(id)) if id == own);
    let signed = asked.opts().get(OptionCode::ClientId).is_some();
    match asked.msg_type() {
        Solicit if signed && named.is_none() => {
            let at_once = asked.opts().get(OptionCode::RapidCommit).is_some();
            Some(if at_once { Reply } else { Advertise })
        }
        Confirm | Rebind if signed && named.is_none() => Some(Reply),
        Request | Renew | Release | Decline if signed && to_us => Some(Reply),
        InformationRequest if named.is_none() || to_us => Some(Reply),
        _ => None,
    }
}

/// The server's identifier: by its link-layer address (RFC 8415 §11.4).
fn duid(mac: MacAddr) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac.0].concat()
}

fn asked_associations(asked: &Message) -> impl Iterator<Item = &IANA> {
    let all = asked.opts().get_all(OptionCode::IANA).unwrap_or_default();
    all.iter().filter_map(|option| if let DhcpOption::IANA(one) = option { Some(one) } else { None })
}

fn addresses(association: &IANA) -> impl Iterator<Item = Ipv6Addr> + '_ {
    let all = association.opts.get_all(OptionCode::IAAddr).unwrap_or_default();
    all.iter().filter_map(|option| if let DhcpOption::IAAddr(one) = option { Some(one.addr) } else { None })
}

/// The first association has the endpoint's address, and no other; further ones have none.
fn associations(asked: &Message, own: Ipv6Addr) -> impl Iterator<Item = DhcpOption> + '_ {
    asked_associations(asked).enumerate().map(move |(at, association)| {
        let mut opts = DhcpOptions::new();
        if at == 0 {
            opts.insert(good_for(own, LEASE));
            addresses(association)
                .filter(|other| *other != own)
                .for_each(|other| opts.insert(good_for(other, 0)));
        } else {
            opts.insert(status(Status::NoAddrsAvail));
        }
        DhcpOption::IANA(IANA { id: association.id, t1: RENEW, t2: REBIND, opts })
    })
}

fn good_for(addr: Ipv6Addr, seconds: u32) -> DhcpOption {
    let opts = DhcpOptions::new();
    DhcpOption::IAAddr(IAAddr { addr, preferred_life: seconds, valid_life: seconds, opts })
}

fn confirmed(asked: &Message, own: Ipv6Addr) -> Status {
    let fits = asked_associations(asked).flat_map(addresses).all(|address| address == own);
    if fits { Status::Success } else { Status::NotOnLink }
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: String::new() })
}
