//! What the fuzzer feeds to gossip: a member that says anything, and strangers.

use std::net::SocketAddr;
use std::time::Instant;

use super::message::{Envelope, Message};
use super::record::Record;
use super::seal::Seal;
use super::wire::Reader;
use super::{Gossip, GossipConfig, Ring, Via};
use crate::identity::Identity;
use crate::model::NodeId;

const CLUSTER: [u8; 16] = [3; 16];

fn ring() -> Ring {
    Ring::found(std::array::from_fn(|at| at as u8))
}

fn node(now: Instant, ring: Ring) -> Gossip {
    let config = GossipConfig {
        name: "a".parse().expect("a name"),
        advertise: SocketAddr::from(([192, 0, 2, 1], 7946)),
        data_port: 4789,
        cluster: CLUSTER,
        ring,
        credentials: None,
        boot_epoch: 1,
    };
    Gossip::new(config, Identity::from_secret(&[1; 32]), 1, now)
}

/// Nobody but the node itself changes what it says.
fn own_records(gossip: &Gossip) -> Vec<Vec<u8>> {
    gossip.records(gossip.node_id()).map(|(_, record)| record.body().to_vec()).collect()
}

/// Octets as a record, as a message, and as what a member says under seal, by datagram and by stream.
pub fn message(now: Instant, input: &[u8]) {
    let mut reader = Reader::new(input);
    if let Some((key, record)) = Record::parse(&mut reader) {
        let mut out = Vec::new();
        record.emit(&key, &mut out);
        assert_eq!(out, input[..input.len() - reader.rest().len()], "what is read is written the same");
    }
    let _ = Message::parse(input);
    let mut gossip = node(now, ring());
    let before = own_records(&gossip);
    let member = Identity::from_secret(&[2; 32]).node_id();
    let mut seal = Seal::new(CLUSTER, ring(), member, [9; 32], now);
    let to = Some(gossip.node_id());
    let mut body = Envelope { to, to_epoch: 1, from_epoch: 1 }.emit(&Message::Member(Vec::new()));
    body.pop();
    body.extend_from_slice(input);
    for via in [Via::Datagram, Via::Stream] {
        let mut sealed = seal.seal(now, via, &body);
        if sealed.len() > via.limit() {
            continue;
        }
        let from = SocketAddr::from(([192, 0, 2, 2], 7946));
        gossip.handle(now, via, from, &mut sealed);
    }
    drain(&mut gossip, now);
    assert_eq!(own_records(&gossip), before, "a member changed records of another one");
}

/// Octets as a stream: messages behind their lengths, of somebody without the key.
pub fn framing(now: Instant, input: &[u8]) {
    let mut gossip = node(now, Ring::found([0x5a; 32]));
    let mut reader = Reader::new(input);
    while let Some(length) = reader.array().and_then(super::frame_length) {
        let Some(message) = reader.take(length) else { break };
        let from = SocketAddr::from(([192, 0, 2, 2], 7946));
        assert!(!gossip.handle_stream(now, from, &mut message.to_vec()), "opened without the key");
    }
    assert!(gossip.poll_transmit().is_none(), "nobody is answered without the key");
    assert_eq!(gossip.origins().collect::<Vec<NodeId>>(), [gossip.node_id()]);
}

fn drain(gossip: &mut Gossip, now: Instant) {
    gossip.handle_timeout(now + std::time::Duration::from_secs(60));
    while gossip.poll_transmit().is_some() {}
    while gossip.poll_event().is_some() {}
}
