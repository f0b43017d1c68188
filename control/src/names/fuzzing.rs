//! Octets of sandboxes and of servers, for the fuzzer.

use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::forward::{Heard, hear, outgoing};
use super::{Asker, Decision, Named, Outside, Transport, View, Zone, answer};
use crate::model::NetworkId;

/// A view with one network, and somebody in it.
fn world() -> (View, Asker) {
    let network = NetworkId([1; 16]);
    let addresses = ["10.0.0.2", "fd00::2"].map(|text| text.parse::<IpAddr>().expect("address"));
    let web = Named { names: vec!["web", "www", "0123456789ab"], addresses: &addresses };
    let db = Named { names: vec!["db"], addresses: &addresses[..1] };
    let subnets = ["10.0.0.0/24", "fd00::/64"].map(|text| text.parse().expect("subnet")).to_vec();
    let zone = Zone::derive("app", subnets, [web, db]);
    let view = View { zones: [(network, Arc::new(zone))].into(), ..View::default() };
    (view, Asker { networks: vec![network], outside: Outside::Host })
}

/// Octets as a query: a reply fits its transport and answers the query; what is handed on is left as it was.
pub fn query(input: &[u8]) {
    let (view, asker) = world();
    for (transport, most) in [(Transport::Udp, 4096), (Transport::Tcp, 65_535)] {
        match answer(&view, &asker, input, transport, &mut StdRng::seed_from_u64(1)) {
            Decision::Reply(reply, _) => {
                assert!(reply.len() >= 12 && reply.len() <= most, "{} octets", reply.len());
                assert!(reply[..2] == input[..2] && reply[2] & 0x80 != 0, "a reply to this query");
            }
            Decision::Forward(asked) => {
                let sent = outgoing(&asked, input, 7);
                assert!(sent.len() <= input.len() && sent[2..] == input[2..sent.len()], "handed on as it is");
            }
            Decision::Drop => {}
        }
    }
}

/// Octets as a server's reply to a question of ours: only one with its id and question counts, and it fits the asker.
pub fn reply(input: &[u8]) {
    const QUESTION: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";
    let (view, asker) = world();
    let rng = &mut StdRng::seed_from_u64(1);
    let Decision::Forward(asked) = answer(&view, &asker, QUESTION, Transport::Udp, rng) else {
        unreachable!("it is about the rest of the world")
    };
    if let Heard::Reply(octets) | Heard::Failure(octets) = hear(&asked, 7, input) {
        assert_eq!(input[..2], [0, 7], "it was for us");
        assert_eq!(octets[..2], QUESTION[..2], "and is for the asker");
        assert!(octets.len() <= 512, "who takes no more");
    }
}
