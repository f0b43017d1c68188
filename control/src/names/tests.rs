//! What a sandbox is told, seen from outside the octets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::forward::{Heard, hear, outgoing};
use super::*;
use crate::model::NetworkId;

const FRONT: NetworkId = NetworkId([1; 16]);
const BACK: NetworkId = NetworkId([2; 16]);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `front` has web (twice) and api, `back` has api and db; addresses tell which is which.
fn view() -> View {
    let zone = |name: &str, subnet: &str, endpoints: &[(&[&str], &[IpAddr])]| {
        let named = endpoints.iter().map(|(names, addresses)| Named { names: names.to_vec(), addresses });
        Arc::new(Zone::derive(name, vec![subnet.parse().expect("a subnet")], named))
    };
    let web = [ip("10.1.0.2"), ip("fd01::2")];
    let front = zone(
        "front",
        "10.1.0.0/24",
        &[
            (&["Web", "www", "0123456789ab"], &web),
            (&["web2", "www"], &[ip("10.1.0.3")]),
            (&["api"], &[ip("10.1.0.4")]),
        ],
    );
    let back = zone("back", "10.2.0.0/24", &[(&["api"], &[ip("10.2.0.4")]), (&["db"], &[ip("10.2.0.5")])]);
    View { zones: [(FRONT, front), (BACK, back)].into(), ..View::default() }
}

fn asker(networks: &[NetworkId]) -> Asker {
    Asker { networks: networks.to_vec(), outside: Outside::Host }
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("it fits")
}

fn decide(networks: &[NetworkId], octets: &[u8]) -> Decision {
    answer(&view(), &asker(networks), octets, Transport::Udp, &mut StdRng::seed_from_u64(1))
}

/// The reply to a question, which must be one that is answered here.
fn ask(networks: &[NetworkId], name: &str, kind: RecordType) -> Message {
    match decide(networks, &query(name, kind)) {
        Decision::Reply(reply, _) => Message::from_vec(&reply).expect("a sound reply"),
        other => panic!("{name} {kind}: {other:?}"),
    }
}

fn addresses(reply: &Message) -> BTreeSet<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(a) => IpAddr::V4(a.0),
        RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
        other => panic!("{other:?}"),
    };
    reply.answers.iter().map(|record| address(&record.data)).collect()
}

fn found(networks: &[NetworkId], name: &str, kind: RecordType) -> Vec<String> {
    let reply = ask(networks, name, kind);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name}");
    addresses(&reply).iter().map(ToString::to_string).collect()
}

#[test]
fn names_aliases_ids_and_names_with_their_network_mean_addresses() {
    for name in ["web.", "WEB.", "web.front.", "0123456789ab.", "0123456789AB.Front."] {
        assert_eq!(found(&[FRONT], name, RecordType::A), ["10.1.0.2"], "{name}");
        assert_eq!(found(&[FRONT], name, RecordType::AAAA), ["fd01::2"], "{name}");
    }
    assert_eq!(found(&[FRONT], "www.", RecordType::A), ["10.1.0.2", "10.1.0.3"]);
    assert_eq!(found(&[FRONT], "web.", RecordType::ANY), ["10.1.0.2", "fd01::2"]);
    let reply = ask(&[FRONT], "web.", RecordType::A);
    assert!(reply.answers.iter().all(|record| record.ttl <= 5), "nobody keeps it for long");
    assert!(reply.metadata.recursion_available && reply.metadata.id == 0x1234);
}

#[test]
fn what_is_not_known_in_a_container_of_docker_is_asked_of_dockers_resolver() {
    let asker = Asker { networks: vec![FRONT], outside: Outside::Engine };
    let decide = |name: &str, kind| {
        answer(&view(), &asker, &query(name, kind), Transport::Udp, &mut StdRng::seed_from_u64(1))
    };
    for (name, kind) in [
        ("linked.", RecordType::A),
        ("nobody.front.", RecordType::A),
        ("example.org.", RecordType::AAAA),
        ("9.0.1.10.in-addr.arpa.", RecordType::PTR),
    ] {
        assert!(matches!(decide(name, kind), Decision::Forward(_)), "{name}");
    }
    assert!(matches!(decide("web.", RecordType::A), Decision::Reply(_, Outcome::Answered)));
    assert!(matches!(decide("api.", RecordType::AAAA), Decision::Reply(_, Outcome::NoData)));
}

#[test]
fn a_name_of_another_network_is_no_name() {
    assert_eq!(ask(&[FRONT], "db.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(found(&[BACK], "db.", RecordType::A), ["10.2.0.5"]);
    assert_eq!(found(&[FRONT, BACK], "api.", RecordType::A), ["10.1.0.4"], "the first network it is in");
    assert_eq!(found(&[FRONT, BACK], "api.back.", RecordType::A), ["10.2.0.4"]);
    assert!(
        matches!(decide(&[FRONT], &query("db.back.", RecordType::A)), Decision::Forward(_)),
        "of the world, here"
    );
    assert_eq!(ask(&[], "web.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_name_without_the_kind_that_is_asked_for_is_answered_with_nothing_and_not_handed_on() {
    for (name, kind) in [("db.", RecordType::AAAA), ("db.back.", RecordType::AAAA), ("db.", RecordType::MX)] {
        let reply = ask(&[BACK], name, kind);
        assert_eq!(
            (reply.metadata.response_code, reply.answers.len()),
            (ResponseCode::NoError, 0),
            "{name} {kind}"
        );
    }
}

#[test]
fn addresses_are_called_what_they_are_in_the_askers_networks() {
    let reverse = |networks: &[NetworkId], name: &str| {
        let reply = ask(networks, name, RecordType::PTR);
        let name = |data: &RData| match data {
            RData::PTR(name) => name.0.to_ascii(),
            other => panic!("{other:?}"),
        };
        (
            reply.metadata.response_code,
            reply.answers.iter().map(|record| name(&record.data)).collect::<Vec<_>>(),
        )
    };
    let web = vec!["web.front.".to_owned()];
    assert_eq!(reverse(&[FRONT], "2.0.1.10.in-addr.arpa."), (ResponseCode::NoError, web.clone()));
    let six = format!("2.{}1.0.d.f.ip6.arpa.", "0.".repeat(27));
    assert_eq!(reverse(&[FRONT], &six), (ResponseCode::NoError, web));
    assert_eq!(
        reverse(&[FRONT], "9.0.1.10.in-addr.arpa."),
        (ResponseCode::NXDomain, vec![]),
        "nobody has it"
    );
    for name in ["5.0.2.10.in-addr.arpa.", "1.10.in-addr.arpa.", "8.8.8.8.in-addr.arpa."] {
        let octets = query(name, RecordType::PTR);
        assert!(matches!(decide(&[FRONT], &octets), Decision::Forward(_)), "{name} is the world's");
    }
}

#[test]
fn names_of_sandboxes_that_are_not_there_stay_on_the_host() {
    for name in ["ghost.", "ghost.front.", "xn--ghost.", "_ghost."] {
        assert_eq!(
            ask(&[FRONT], name, RecordType::A).metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
    }
    for (name, kind) in [
        ("example.org.", RecordType::A),
        ("a.b.front.", RecordType::A),
        ("org.", RecordType::NS),
        (".", RecordType::NS),
    ] {
        assert!(matches!(decide(&[FRONT], &query(name, kind)), Decision::Forward(_)), "{name}");
    }
}

#[test]
fn a_sandbox_without_a_way_out_learns_that_there_is_no_such_name() {
    let inside = Asker { networks: vec![FRONT], outside: Outside::Nowhere };
    let octets = query("example.org.", RecordType::A);
    let Decision::Reply(reply, outcome) =
        answer(&view(), &inside, &octets, Transport::Udp, &mut StdRng::seed_from_u64(1))
    else {
        panic!("it must not be handed on")
    };
    assert_eq!((reply[3] & 0x0f, outcome), (3, Outcome::NoName));
}

#[test]
fn several_addresses_come_in_any_order() {
    let first = |seed| {
        let rng = &mut StdRng::seed_from_u64(seed);
        match answer(&view(), &asker(&[FRONT]), &query("www.", RecordType::A), Transport::Udp, rng) {
            Decision::Reply(reply, _) => addresses_in_order(&reply)[0],
            other => panic!("{other:?}"),
        }
    };
    let firsts: BTreeSet<IpAddr> = (0..32).map(first).collect();
    assert_eq!(firsts.len(), 2);
}

fn addresses_in_order(reply: &[u8]) -> Vec<IpAddr> {
    let reply = Message::from_vec(reply).expect("sound");
    reply.answers.iter().map(|record| record.data.ip_addr().expect("an address")).collect()
}

/// A view in which `many` has `count` addresses.
fn crowded(count: u32) -> View {
    let addresses: Vec<IpAddr> = (0..count).map(|n| IpAddr::V4((0x0a00_0000 + n).into())).collect();
    let zone = Zone::derive("front", vec![], [Named { names: vec!["many"], addresses: &addresses }]);
    View { zones: [(FRONT, Arc::new(zone))].into(), ..View::default() }
}

#[test]
fn what_does_not_fit_is_cut_and_marked_so_that_it_is_asked_for_again_over_tcp() {
    let octets = query("many.", RecordType::A);
    let ask = |octets: &[u8], transport| match answer(
        &crowded(300),
        &asker(&[FRONT]),
        octets,
        transport,
        &mut StdRng::seed_from_u64(1),
    ) {
        Decision::Reply(reply, _) => (reply.len(), Message::from_vec(&reply).expect("sound")),
        other => panic!("{other:?}"),
    };
    let (length, reply) = ask(&octets, Transport::Udp);
    assert!(length <= 512 && reply.metadata.truncation && reply.answers.len() > 20);
    let (_, reply) = ask(&octets, Transport::Tcp);
    assert!(!reply.metadata.truncation && reply.answers.len() == 300);
    let mut extended = octets;
    extended[11] = 1;
    extended.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    let (length, reply) = ask(&extended, Transport::Udp);
    assert!((513..=1232).contains(&length) && reply.metadata.truncation, "{length}");
}

#[test]
fn what_no_resolver_sends_is_refused_or_dropped() {
    let code = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = query("web.", RecordType::A);
        change(&mut octets);
        match decide(&[FRONT], &octets) {
            Decision::Reply(reply, outcome) => {
                assert_eq!(outcome, Outcome::Refused);
                Some(Message::from_vec(&reply).map_or(reply[3] & 0x0f, |m| m.metadata.response_code.low()))
            }
            Decision::Drop => None,
            Decision::Forward(_) => panic!("handed on"),
        }
    };
    assert_eq!(code(&|q| q.truncate(11)), None, "cut in the header");
    assert_eq!(code(&|q| q[2] |= 0x80), None, "a reply");
    assert_eq!(code(&|q| q.truncate(14)), Some(1), "cut in the question");
    assert_eq!(code(&|q| q[5] = 0), Some(1), "no question");
    assert_eq!(code(&|q| q[4..6].fill(0xff)), Some(1), "65,535 questions");
    assert_eq!(code(&|q| q[7] = 1), Some(1), "an answer in a query");
    assert_eq!(code(&|q| q.splice(12..17, [0xc0, 12]).for_each(drop)), Some(1), "a name that is itself");
    assert_eq!(code(&|q| q.splice(12..13, [64]).for_each(drop)), Some(1), "a label too long");
    assert_eq!(code(&|q| q.resize(MAX_QUERY + 1, 0)), Some(1), "far too long");
    assert_eq!(code(&|q| q[2] |= 0x28), Some(4), "an update");
    let end = query("web.", RecordType::A).len();
    assert_eq!(code(&|q| q[end - 1] = 3), Some(5), "the class of chaos");
    assert_eq!(code(&|q| q[end - 3] = 252), Some(5), "a transfer");
}

#[test]
fn an_unknown_version_of_edns_is_named() {
    let mut octets = query("web.", RecordType::A);
    octets[11] = 1;
    octets.extend([0, 0, 41, 0x04, 0xd0, 0, 1, 0, 0, 0, 0]);
    let Decision::Reply(reply, _) = decide(&[FRONT], &octets) else { panic!("a reply") };
    let reply = Message::from_vec(&reply).expect("sound");
    assert_eq!(reply.edns.expect("edns").rcode_high(), 1, "BADVERS is 16");
}

fn forwarded(octets: &[u8]) -> Asked {
    match decide(&[FRONT], octets) {
        Decision::Forward(asked) => asked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_goes_out_under_another_id_and_only_its_own_reply_comes_back() {
    let octets = query("Example.org.", RecordType::A);
    let asked = forwarded(&octets);
    let mut sent = outgoing(&asked, &octets, 7);
    assert_eq!((&sent[..2], &sent[2..]), ([0, 7].as_slice(), &octets[2..]));
    sent[2] |= 0x80;
    let mut returned = octets.clone();
    returned[2] |= 0x80;
    assert_eq!(hear(&asked, 7, &sent), Heard::Reply(returned.clone()));
    assert_eq!(hear(&asked, 8, &sent), Heard::Other, "another id");
    assert_eq!(hear(&asked, 7, &octets), Heard::Other, "no reply");
    sent[3] = 2;
    returned[3] = 2;
    assert_eq!(hear(&asked, 7, &sent), Heard::Failure(returned), "another server may know");
    sent[14] ^= 1;
    assert_eq!(hear(&asked, 7, &sent), Heard::Other, "another question");
    sent.truncate(12);
    sent[5] = 0;
    assert!(matches!(hear(&asked, 7, &sent), Heard::Failure(_)), "refused without a word");
    sent[3] = 0;
    assert_eq!(hear(&asked, 7, &sent), Heard::Other);
}

#[test]
fn a_reply_longer_than_the_asker_takes_becomes_one_that_says_so() {
    let octets = query("example.org.", RecordType::A);
    let asked = forwarded(&octets);
    let mut reply = outgoing(&asked, &octets, 7);
    reply[2] |= 0x80;
    reply.resize(600, 0);
    let Heard::Reply(cut) = hear(&asked, 7, &reply) else { panic!("a reply") };
    let cut = Message::from_vec(&cut).expect("sound");
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.metadata.id == 0x1234);
}

#[test]
fn names_that_are_none_of_dns_are_left_out() {
    let address = [ip("10.0.0.2")];
    let endpoints = ["a..b", "c.", "ok"].map(|name| Named { names: vec![name], addresses: &address });
    let zone = Zone::derive("x~1", vec![], endpoints);
    let view = View { zones: [(FRONT, Arc::new(zone))].into(), ..View::default() };
    let find = |name| view.find(&asker(&[FRONT]), name, |_| true).known;
    assert!(find("ok") && !find("a..b") && !find("c."));
}

fn wire_name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..10), 0..6).prop_map(|labels| {
        let label = |label: &Vec<u8>| [&[label.len() as u8], label.as_slice()].concat();
        [labels.iter().flat_map(label).collect(), vec![0]].concat()
    })
}

proptest! {
    #[test]
    fn any_octets_are_borne(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzzing::query(&octets);
        fuzzing::reply(&octets);
    }

    #[test]
    fn any_question_gets_a_decision_that_fits(name in wire_name(), kind in any::<u16>(), additional in 0..3u8) {
        let mut octets = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00".to_vec();
        octets.push(additional);
        octets.extend(name);
        octets.extend(kind.to_be_bytes());
        octets.extend(u16::from(DNSClass::IN).to_be_bytes());
        octets.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0].repeat(additional.into()));
        fuzzing::query(&octets);
    }
}
