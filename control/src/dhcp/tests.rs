//! What clients hear, and what they do not.

use dhcproto::v4::{self, DhcpOption, HType, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, v6};
use proptest::prelude::*;
use weft_dataplane::checksum::{Sum, pseudo_header};
use weft_dataplane::neighbour::link_local;
use weft_dataplane::wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

use super::*;

const BRIDGE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const WEB: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2);

fn service() -> Service {
    let client = Client {
        v4: Some("10.7.0.2/24".parse().expect("a prefix")),
        v6: Some("fd07::2/64".parse().expect("a prefix")),
        routers: vec![IpAddr::V4(GATEWAY)],
        dns: vec![[9, 9, 9, 9].into()],
        mtu: 1450,
        hostname: "web".into(),
    };
    Service { mac: BRIDGE, server: Some(GATEWAY), clients: [(WEB, client)].into() }
}

fn question(kind: MessageType, from: MacAddr) -> v4::Message {
    let mut message = v4::Message::default();
    message.set_opcode(Opcode::BootRequest).set_htype(HType::Eth).set_chaddr(&from.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

/// A frame with a datagram to `port`; no checksums, as from a guest that leaves them to its host.
fn sent(from: MacAddr, ethertype: u16, port: u16, message: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + message.len()).expect("it fits");
    let mut packet = if ethertype == ETHERTYPE_IPV4 {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0];
        header[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
        [&header[..], &[0; 4], &[255; 4]].concat()
    } else {
        let [high, low] = udp_len.to_be_bytes();
        let header = [0x60, 0, 0, 0, high, low, PROTOCOL_UDP, 1];
        [&header[..], &link_local(from).octets(), &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]]
            .concat()
    };
    packet.extend([&68_u16.to_be_bytes()[..], &port.to_be_bytes(), &udp_len.to_be_bytes(), &[0; 2]].concat());
    packet.extend(message);
    [&Ethernet::header(MacAddr::BROADCAST, from, ethertype)[..], &packet].concat()
}

/// The IP packet of an answer, whose checksums must be right and which must go to `to` alone.
fn checked(answer: &[u8], to: MacAddr) -> Ip<'_> {
    let ethernet = Ethernet::parse(answer).expect("a frame");
    assert_eq!((ethernet.dst, ethernet.src), (to, BRIDGE));
    let ip = Ip::parse(ethernet.ethertype, ethernet.payload(answer)).expect("a packet");
    if ip.version() == Version::V4 {
        assert!(Sum::of(&ip.packet()[..20]).is_valid(), "checksum of the header");
    }
    let sum = pseudo_header(ip.addresses(), ip.protocol(), ip.payload().len()) + Sum::of(ip.payload());
    assert!(sum.is_valid(), "checksum of the payload");
    ip
}

fn hears(message: &v4::Message) -> Option<(IpAddr, v4::Message)> {
    let octets = message.to_vec().expect("encoded");
    let answer = respond(&service(), &sent(WEB, ETHERTYPE_IPV4, 67, &octets))?;
    let ip = checked(&answer, WEB);
    let message = v4::Message::decode(&mut Decoder::new(&ip.payload()[8..])).expect("a message");
    assert!(ip.payload().len() >= 308, "old clients take no shorter one");
    Some((ip.destination(), message))
}

fn kind_of(message: &v4::Message) -> Option<MessageType> {
    hears(message).and_then(|(_, answer)| answer.opts().msg_type())
}

#[test]
fn an_endpoint_that_discovers_is_offered_its_own_address_and_all_it_needs() {
    let (to, offer) = hears(&question(MessageType::Discover, WEB)).expect("an offer");
    assert_eq!((to, offer.yiaddr(), offer.chaddr()), (OWN.into(), OWN, &WEB.0[..]));
    for option in [
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(GATEWAY),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![GATEWAY]),
        DhcpOption::DomainNameServer(vec![Ipv4Addr::new(9, 9, 9, 9)]),
        DhcpOption::InterfaceMtu(1450),
        DhcpOption::Hostname("web".into()),
        DhcpOption::AddressLeaseTime(LEASE),
    ] {
        assert_eq!(offer.opts().get(OptionCode::from(&option)), Some(&option));
    }
    let mut service = service();
    service.clients.values_mut().for_each(|client| (client.routers, client.dns) = (Vec::new(), Vec::new()));
    let octets = question(MessageType::Discover, WEB).to_vec().expect("encoded");
    let answer = respond(&service, &sent(WEB, ETHERTYPE_IPV4, 67, &octets)).expect("an offer");
    let offer =
        v4::Message::decode(&mut Decoder::new(&checked(&answer, WEB).payload()[8..])).expect("a message");
    assert_eq!(offer.opts().get(OptionCode::Router), None, "there is no way out");
    assert_eq!(offer.opts().get(OptionCode::DomainNameServer), None);
}

#[test]
fn requests_for_the_own_address_are_granted_and_others_denied_in_every_state() {
    let request = |option: Option<DhcpOption>, held: Ipv4Addr, chosen: Option<Ipv4Addr>| {
        let mut request = question(MessageType::Request, WEB);
        request.set_ciaddr(held);
        let chosen = chosen.map(DhcpOption::ServerIdentifier);
        option.into_iter().chain(chosen).for_each(|option| drop(request.opts_mut().insert(option)));
        request
    };
    let (none, wrong) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 7, 0, 3));
    let wants = |ip| Some(DhcpOption::RequestedIpAddress(ip));
    for (request, kind, state) in [
        (request(wants(OWN), none, Some(GATEWAY)), Some(MessageType::Ack), "selecting"),
        (request(wants(wrong), none, Some(GATEWAY)), Some(MessageType::Nak), "selecting another address"),
        (request(wants(OWN), none, Some(wrong)), None, "another server's offer"),
        (request(wants(OWN), none, None), Some(MessageType::Ack), "booting again"),
        (request(wants(wrong), none, None), Some(MessageType::Nak), "booting with another's address"),
        (request(None, OWN, None), Some(MessageType::Ack), "renewing"),
        (request(None, wrong, None), Some(MessageType::Nak), "renewing another's"),
        (request(None, none, None), None, "wanting nothing"),
    ] {
        assert_eq!(kind_of(&request), kind, "{state}");
    }
    let (to, _) = hears(&request(wants(wrong), none, None)).expect("a refusal");
    assert_eq!(to, IpAddr::V4(Ipv4Addr::BROADCAST), "it has no address to hear it at");
    let (to, answer) = hears(&request(None, OWN, None)).expect("an answer");
    assert_eq!((to, answer.yiaddr()), (OWN.into(), OWN));
}

#[test]
fn an_address_that_came_from_elsewhere_gets_settings_but_no_lease() {
    let mut inform = question(MessageType::Inform, WEB);
    inform.set_ciaddr(OWN);
    let (_, answer) = hears(&inform).expect("settings");
    assert_eq!(answer.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(answer.opts().get(OptionCode::AddressLeaseTime), None);
    assert_eq!(answer.opts().get(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(1450)));
}

#[test]
fn nobody_else_is_answered() {
    let discover = |from: MacAddr, claimed: MacAddr| {
        let octets = question(MessageType::Discover, claimed).to_vec().expect("encoded");
        respond(&service(), &sent(from, ETHERTYPE_IPV4, 67, &octets))
    };
    assert!(discover(WEB, WEB).is_some());
    assert_eq!(discover(OTHER, OTHER), None, "no endpoint of this node");
    assert_eq!(discover(WEB, OTHER), None, "on behalf of somebody else");
    assert_eq!(discover(OTHER, WEB), None);
    let mut relayed = question(MessageType::Discover, WEB);
    relayed.set_giaddr([10, 9, 0, 1]);
    assert_eq!(hears(&relayed), None, "by way of a relay");
    let mut reply = question(MessageType::Discover, WEB);
    reply.set_opcode(Opcode::BootReply);
    assert_eq!(hears(&reply), None);
    for kind in [MessageType::Decline, MessageType::Release, MessageType::Offer, MessageType::Ack] {
        assert_eq!(hears(&question(kind, WEB)), None, "{kind:?}");
    }
    let octets = question(MessageType::Discover, WEB).to_vec().expect("encoded");
    assert_eq!(respond(&service(), &sent(WEB, ETHERTYPE_IPV4, 68, &octets)), None, "another port");
}

fn solicit(kind: v6::MessageType, options: Vec<v6::DhcpOption>) -> Option<v6::Message> {
    let mut message = v6::Message::new_with_id(kind, [1, 2, 3]);
    message.opts_mut().insert(v6::DhcpOption::ClientId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 2]));
    options.into_iter().for_each(|option| message.opts_mut().insert(option));
    let frame = sent(WEB, ETHERTYPE_IPV6, 547, &message.to_vec().expect("encoded"));
    let answer = respond(&service(), &frame)?;
    let ip = checked(&answer, WEB);
    assert_eq!(ip.destination(), IpAddr::V6(link_local(WEB)));
    Some(v6::Message::decode(&mut Decoder::new(&ip.payload()[8..])).expect("a message"))
}

fn association(addresses: &[Ipv6Addr]) -> v6::DhcpOption {
    let address = |addr: &Ipv6Addr| {
        let opts = v6::DhcpOptions::new();
        v6::DhcpOption::IAAddr(v6::IAAddr { addr: *addr, preferred_life: 1, valid_life: 1, opts })
    };
    let opts = addresses.iter().map(address).collect();
    v6::DhcpOption::IANA(v6::IANA { id: 7, t1: 0, t2: 0, opts })
}

/// Addresses of the first association of an answer, with how long they are good for.
fn given(answer: &v6::Message) -> Vec<(Ipv6Addr, u32)> {
    let Some(v6::DhcpOption::IANA(association)) = answer.opts().get(v6::OptionCode::IANA) else {
        return Vec::new();
    };
    let all = association.opts.get_all(v6::OptionCode::IAAddr).unwrap_or_default();
    let address = |option: &v6::DhcpOption| match option {
        v6::DhcpOption::IAAddr(address) => (address.addr, address.valid_life),
        other => panic!("{other:?}"),
    };
    let mut all: Vec<_> = all.iter().map(address).collect();
    all.sort_unstable();
    all
}

#[test]
fn an_endpoint_gets_its_own_ipv6_address_and_loses_any_other() {
    let ours = || v6::DhcpOption::ServerId([&[0, 3, 0, 1][..], &BRIDGE.0].concat());
    let advertised = solicit(v6::MessageType::Solicit, vec![association(&[])]).expect("an advertisement");
    assert_eq!(advertised.msg_type(), v6::MessageType::Advertise);
    assert_eq!(given(&advertised), [(OWN6, LEASE)]);
    let at_once = vec![association(&[]), v6::DhcpOption::RapidCommit];
    let at_once = solicit(v6::MessageType::Solicit, at_once).expect("a reply");
    assert_eq!(at_once.msg_type(), v6::MessageType::Reply);
    assert!(at_once.opts().get(v6::OptionCode::RapidCommit).is_some());
    let strange = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 3);
    for kind in [v6::MessageType::Request, v6::MessageType::Renew] {
        let answer = solicit(kind, vec![association(&[strange]), ours()]).expect("a reply");
        assert_eq!(given(&answer), [(OWN6, LEASE), (strange, 0)]);
        let theirs = v6::DhcpOption::ServerId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 7]);
        assert_eq!(solicit(kind, vec![association(&[OWN6]), theirs]), None, "another server's");
    }
    for (address, status) in [(OWN6, v6::Status::Success), (strange, v6::Status::NotOnLink)] {
        let answer = solicit(v6::MessageType::Confirm, vec![association(&[address])]).expect("a reply");
        let found = answer.opts().get(v6::OptionCode::StatusCode);
        assert!(matches!(found, Some(v6::DhcpOption::StatusCode(found)) if found.status == status));
    }
}

#[test]
fn a_router_solicitation_is_answered_with_the_prefix_and_no_way_out_where_there_is_none() {
    let message = [133, 0, 0, 0, 0, 0, 0, 0];
    let ask = |service: &Service, hops: u8| {
        let mut header = vec![0x60, 0, 0, 0, 0, 8, PROTOCOL_ICMPV6, hops];
        header.extend(link_local(WEB).octets());
        header.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        let frame =
            [&Ethernet::header(MacAddr::BROADCAST, WEB, ETHERTYPE_IPV6)[..], &header, &message].concat();
        respond(service, &frame)
    };
    let answer = ask(&service(), 255).expect("an advertisement");
    let ip = checked(&answer, WEB);
    let told = ip.payload();
    assert_eq!((told[0], told[5], &told[6..8], ip.hop_limit()), (134, 0xc0, &[0, 0][..], 255));
    let prefix = [&[3, 4, 64, 0x80][..], &[0xff; 8], &[0; 4], &[0xfd, 7], &[0; 14]].concat();
    assert!(told.windows(32).any(|option| option == prefix), "{told:02x?}");
    assert!(told.windows(8).any(|option| option == [5, 1, 0, 0, 0, 0, 5, 0xaa]), "MTU 1450 in {told:02x?}");
    assert_eq!(ask(&service(), 64), None, "from behind a router");
    assert_eq!(unsolicited(&service()).count(), 0);

    let mut routed = service();
    routed.clients.values_mut().for_each(|client| client.routers.push(OWN6.into()));
    let told = ask(&routed, 255).expect("an advertisement");
    assert_eq!(checked(&told, WEB).payload()[6..8], 9_000_u16.to_be_bytes());
    assert_eq!(unsolicited(&routed).collect::<Vec<_>>(), [told]);
}

proptest! {
    #[test]
    fn whatever_is_asked_the_answer_goes_to_who_asked(octets: Vec<u8>, four: bool, known: bool) {
        let (ethertype, port) = if four { (ETHERTYPE_IPV4, 67) } else { (ETHERTYPE_IPV6, 547) };
        let from = if known { WEB } else { OTHER };
        let answer = respond(&service(), &sent(from, ethertype, port, &octets));
        prop_assert!(answer.is_none() || known);
        if let Some(answer) = answer {
            checked(&answer, WEB);
        }
        let _ = respond(&service(), &octets);
    }

    #[test]
    fn a_damaged_question_does_no_harm(at in 0_usize..600, octet: u8, cut in 0_usize..600) {
        let mut request = question(MessageType::Request, WEB);
        request.opts_mut().insert(DhcpOption::RequestedIpAddress(OWN));
        let mut frame = sent(WEB, ETHERTYPE_IPV4, 67, &request.to_vec().expect("encoded"));
        if let Some(there) = frame.get_mut(at) {
            *there = octet;
        }
        frame.truncate(cut.max(14));
        if let Some(answer) = respond(&service(), &frame) {
            checked(&answer, WEB);
        }
    }
}
