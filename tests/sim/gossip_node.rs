//! Nodes of a simulation that only gossip.

use std::net::SocketAddr;
use std::time::Instant;

use weft_control::gossip::{Gossip, GossipConfig, GossipEvent, RecordKey, Ring, Transmit};
use weft_control::identity::Identity;

use crate::network::{SimNode, addr};

/// A gossip node that remembers what it was told.
pub(crate) struct Node {
    pub(crate) gossip: Gossip,
    pub(crate) events: Vec<(Instant, GossipEvent)>,
}

impl SimNode for Node {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.gossip.handle_datagram(now, from, datagram);
    }

    fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]) {
        self.gossip.handle_stream(now, from, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.gossip.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.gossip.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.gossip.poll_transmit()
    }

    fn observe(&mut self, now: Instant) {
        while let Some(event) = self.gossip.poll_event() {
            self.events.push((now, event));
        }
    }
}

/// The ring of every simulated cluster.
pub(crate) fn ring() -> Ring {
    Ring::found(std::array::from_fn(|i| i as u8))
}

pub(crate) fn node(number: usize, boot_epoch: u32, seed: u64, now: Instant) -> Node {
    node_at(number, addr(number), boot_epoch, seed, now)
}

pub(crate) fn node_at(
    number: usize,
    advertise: SocketAddr,
    boot_epoch: u32,
    seed: u64,
    now: Instant,
) -> Node {
    let config = GossipConfig {
        name: format!("n{number}").parse().expect("a name"),
        advertise,
        data_port: 4789,
        cluster: [1; 16],
        ring: ring(),
        credentials: None,
        boot_epoch,
    };
    let gossip = Gossip::new(config, identity(number), seed ^ (number as u64) << 20, now);
    Node { gossip, events: Vec::new() }
}

pub(crate) fn identity(number: usize) -> Identity {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Identity::from_secret(&secret)
}

pub(crate) fn key(text: &str) -> RecordKey {
    RecordKey::new(text.as_bytes()).expect("a key")
}
