//! Messages of DHCP (RFC 2131): an endpoint gets its own address, and hears no for any other.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use ipnet::Ipv4Net;
use weft_dataplane::wire::MacAddr;

use super::{Client, LEASE, REBIND, RENEW, v4};

/// What clients of BOOTP need at least (RFC 951 §3).
const SHORTEST: usize = 300;

/// What is answered to a message, and to which address.
pub(super) fn answer(
    server: Ipv4Addr,
    client: &Client,
    mac: MacAddr,
    message: &[u8],
) -> Option<(Ipv4Addr, Vec<u8>)> {
    let asked = Message::decode(&mut Decoder::new(message)).ok()?;
    let direct = asked.opcode() == Opcode::BootRequest && asked.giaddr().is_unspecified();
    if !direct || asked.htype() != HType::Eth || asked.hlen() != 6 || asked.chaddr() != mac.0 {
        return None;
    }
    let own = client.v4?;
    let kind = kind(&asked, server, own.addr())?;
    let reply = reply(&asked, kind, server, own, client);
    let mut octets = reply.to_vec().ok()?;
    octets.resize(octets.len().max(SHORTEST), 0);
    Some((destination(&asked, kind, own.addr()), octets))
}

/// What kind of answer a message gets, if any (RFC 2131 §4.3).
fn kind(asked: &Message, server: Ipv4Addr, own: Ipv4Addr) -> Option<MessageType> {
    match asked.opts().msg_type()? {
        MessageType::Discover => Some(MessageType::Offer),
        MessageType::Inform => Some(MessageType::Ack),
        MessageType::Request => {
            let other = |named: Ipv4Addr| named != server;
            if address(asked, OptionCode::ServerIdentifier).is_some_and(other) {
                // It has chosen another server's offer.
                return None;
            }
            let held = Some(asked.ciaddr()).filter(|held| !held.is_unspecified());
            let wanted = address(asked, OptionCode::RequestedIpAddress).or(held)?;
            Some(if wanted == own { MessageType::Ack } else { MessageType::Nak })
        }
        // Whatever it declines or releases stays its own.
        _ => None,
    }
}

fn address(asked: &Message, code: OptionCode) -> Option<Ipv4Addr> {
    match asked.opts().get(code)? {
        DhcpOption::ServerIdentifier(address) | DhcpOption::RequestedIpAddress(address) => Some(*address),
        _ => None,
    }
}

fn reply(asked: &Message, kind: MessageType, server: Ipv4Addr, own: Ipv4Net, client: &Client) -> Message {
    let mut reply = Message::default();
    reply.set_opcode(Opcode::BootReply).set_htype(HType::Eth).set_xid(asked.xid()).set_flags(asked.flags());
    reply.set_chaddr(asked.chaddr());
    let options = reply.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(server));
    if kind == MessageType::Nak {
        return reply;
    }
    describe(own, client).into_iter().for_each(|option| drop(options.insert(option)));
    if asked.opts().has_msg_type(MessageType::Inform) {
        // It has its address from elsewhere.
        reply.set_ciaddr(asked.ciaddr());
        return reply;
    }
    for option in
        [DhcpOption::AddressLeaseTime(LEASE), DhcpOption::Renewal(RENEW), DhcpOption::Rebinding(REBIND)]
    {
        options.insert(option);
    }
    reply.set_yiaddr(own.addr());
    reply.set_ciaddr(asked.ciaddr());
    reply
}

fn describe(own: Ipv4Net, client: &Client) -> Vec<DhcpOption> {
    let mut options = vec![DhcpOption::SubnetMask(own.netmask()), DhcpOption::InterfaceMtu(client.mtu)];
    let (routers, dns) = (v4(&client.routers), v4(&client.dns));
    if !routers.is_empty() {
        options.push(DhcpOption::Router(routers));
    }
    if !dns.is_empty() {
        options.push(DhcpOption::DomainNameServer(dns));
    }
    if !client.hostname.is_empty() {
        options.push(DhcpOption::Hostname(client.hostname.clone()));
    }
    options
}

/// The address an answer goes to (RFC 2131 §4.1); the frame goes to the client in any case.
fn destination(asked: &Message, kind: MessageType, own: Ipv4Addr) -> Ipv4Addr {
    match kind {
        MessageType::Nak => Ipv4Addr::BROADCAST,
        _ if !asked.ciaddr().is_unspecified() => asked.ciaddr(),
        _ if asked.flags().broadcast() => Ipv4Addr::BROADCAST,
        _ => own,
    }
}
