//! From a query to what is done about it.

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::Rng;
use rand::seq::SliceRandom as _;

use super::query::{Asked, Fault, Transport, read};
use super::view::{Asker, Outside, View};

/// Seconds an answer may be kept: sandboxes come and go.
const TTL: u32 = 2;
/// Most addresses in an answer; they are shuffled before.
const MAX_ADDRESSES: usize = 1_000;

/// What is done about a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// These octets go back.
    Reply(Vec<u8>, Outcome),
    /// Others know.
    Forward(Asked),
    /// Nothing goes back.
    Drop,
}

/// What a reply says, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Addresses or a name.
    Answered,
    /// The name exists, but not so.
    NoData,
    /// No such name.
    NoName,
    /// The query is malformed, of another kind, or asks for what nobody gets.
    Refused,
}

/// Judges a query of `asker`. Several addresses come in a random order.
pub fn answer(
    view: &View,
    asker: &Asker,
    octets: &[u8],
    transport: Transport,
    rng: &mut impl Rng,
) -> Decision {
    match read(octets, transport) {
        Err(Fault::Unanswerable) => Decision::Drop,
        Err(Fault::Refused(asked, code)) => Decision::Reply(asked.reply(code, Vec::new()), Outcome::Refused),
        Ok((asked, query)) => decide(view, asker, asked, &query, rng),
    }
}

/// What is known about a question.
enum Known {
    Answers(Vec<RData>),
    NoData,
    NoName,
    /// Nothing: it is about the rest of the world.
    Nothing,
}

fn decide(view: &View, asker: &Asker, asked: Asked, query: &Query, rng: &mut impl Rng) -> Decision {
    let reply = |code, records, outcome| Decision::Reply(asked.reply(code, records), outcome);
    match look_up(view, asker, query, rng) {
        Known::Answers(answers) => {
            let record = |answer| Record::from_rdata(query.name.clone(), TTL, answer);
            reply(ResponseCode::NoError, answers.into_iter().map(record).collect(), Outcome::Answered)
        }
        Known::NoData => reply(ResponseCode::NoError, Vec::new(), Outcome::NoData),
        // A resolver that is told "no such name" gives up at once; one that is told "failed" tries again for seconds.
        Known::Nothing if asker.outside == Outside::Nowhere => {
            reply(ResponseCode::NXDomain, Vec::new(), Outcome::NoName)
        }
        // Docker's resolver may know it.
        Known::NoName if asker.outside == Outside::Engine => Decision::Forward(asked),
        Known::NoName => reply(ResponseCode::NXDomain, Vec::new(), Outcome::NoName),
        Known::Nothing => Decision::Forward(asked),
    }
}

fn look_up(view: &View, asker: &Asker, query: &Query, rng: &mut impl Rng) -> Known {
    if query.query_type == RecordType::PTR
        && let Some(address) = address_of(&query.name)
    {
        return look_up_reverse(view, asker, address);
    }
    let Some(name) = relative(&query.name) else { return Known::Nothing };
    let wanted = |address: &IpAddr| match query.query_type {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    let mut found = view.find(asker, &name, wanted);
    found.addresses.shuffle(rng);
    found.addresses.truncate(MAX_ADDRESSES);
    match (found.known, found.addresses.is_empty()) {
        (true, false) => Known::Answers(found.addresses.into_iter().map(address_data).collect()),
        (true, true) => Known::NoData,
        (false, _) if is_ours(view, asker, &name, query.query_type) => Known::NoName,
        (false, _) => Known::Nothing,
    }
}

fn look_up_reverse(view: &View, asker: &Asker, address: IpAddr) -> Known {
    match view.reverse(asker, address).and_then(domain) {
        Some(name) => Known::Answers(vec![RData::PTR(PTR(name))]),
        None if view.is_inside(asker, address) => Known::NoName,
        None => Known::Nothing,
    }
}

/// Whether an unknown name is a sandbox's, if anybody's. Asking others would tell them the names of sandboxes, and
/// whoever owns a top-level domain that is called as a network could answer for sandboxes that are not there.
fn is_ours(view: &View, asker: &Asker, name: &str, kind: RecordType) -> bool {
    let of_top_level = [RecordType::NS, RecordType::SOA, RecordType::DS, RecordType::DNSKEY].contains(&kind);
    let single = !name.is_empty() && !name.contains('.');
    (single && !of_top_level) || view.is_below(asker, name)
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The name in lower case without its last dot; `None` if a label holds what no name of ours does.
fn relative(name: &Name) -> Option<String> {
    let usual = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let labels =
        name.iter().map(|label| std::str::from_utf8(label).ok().filter(|l| l.as_bytes().iter().all(usual)));
    let labels: Option<Vec<&str>> = labels.collect();
    labels.map(|labels| labels.join(".").to_ascii_lowercase())
}

/// The address a name below `in-addr.arpa` or `ip6.arpa` stands for, if it is a whole one.
fn address_of(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

fn domain(name: &str) -> Option<Name> {
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}
