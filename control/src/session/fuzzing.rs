//! What the fuzzer does to handshakes: it is the network between two nodes, and a stranger who knows both.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_dataplane::seal::PeerSpec;
use zeroize::Zeroizing;

use super::mac;
use super::wire::{CONFIRMATION, COOKIE, INITIATION, RESPONSE, TAG};
use super::{Peer, SessionConfig, SessionEvent, Sessions};
use crate::identity::Identity;

const CLUSTER: [u8; 16] = [4; 16];
const EPOCH: u32 = 1;
const MOST_STEPS: usize = 400;

struct End {
    sessions: Sessions,
    peer: Peer,
    spec: Option<PeerSpec>,
}

/// Two nodes that want a session, and every datagram they sent.
struct Pair {
    ends: [End; 2],
    now: Instant,
    /// Receiver and octets.
    sent: Vec<(usize, Vec<u8>)>,
    next: usize,
}

fn end(number: u8, now: Instant) -> End {
    let identity = Identity::from_secret(&[number; 32]);
    let address = |port| SocketAddr::from(([192, 0, 2, number], port));
    let (id, static_public) = (identity.node_id(), identity.static_public());
    let config = SessionConfig {
        cluster_id: CLUSTER,
        us: id,
        static_secret: identity.static_secret(),
        boot_epoch: 1,
        data_port: 4789,
        rekey_after: super::REKEY_AFTER,
    };
    let mut sessions = Sessions::new(config, Zeroizing::new([number; 32]), now);
    sessions.set_ring(now, EPOCH, [(EPOCH, Zeroizing::new([5; 32]))].into());
    let peer = Peer { id, static_public, gossip: address(7946), vtep: address(4789), boot_epoch: 1 };
    End { sessions, peer, spec: None }
}

impl Pair {
    fn new(now: Instant) -> Self {
        let mut pair = Self { ends: [end(1, now), end(2, now)], now, sent: Vec::new(), next: 0 };
        for number in 0..2 {
            let other = pair.ends[1 - number].peer;
            pair.ends[number].sessions.set_peer(now, other);
            pair.ends[number].sessions.want(now, other.id);
            pair.drain(number);
        }
        pair
    }

    fn drain(&mut self, number: usize) {
        let end = &mut self.ends[number];
        while let Some(event) = end.sessions.poll_event() {
            if let SessionEvent::Changed(spec) = event {
                end.spec = Some(spec);
            }
        }
        while let Some((_, octets)) = end.sessions.poll_transmit() {
            self.sent.push((1 - number, octets));
        }
    }

    fn deliver(&mut self, to: usize, octets: &[u8]) {
        let (now, from) = (self.now, self.ends[1 - to].peer.gossip);
        self.ends[to].sessions.handle_datagram(now, from, octets);
        self.drain(to);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for number in 0..2 {
            let now = self.now;
            self.ends[number].sessions.handle_timeout(now);
            self.drain(number);
        }
    }

    /// Delivers what no end of ours made: nothing may come of it.
    fn forge(&mut self, to: usize, octets: &[u8]) {
        let (before, said) = (self.ends[to].spec.clone(), self.sent.len());
        self.deliver(to, octets);
        let answers = self.sent.split_off(said);
        assert!(answers.iter().all(|(_, answer)| answer.len() <= octets.len() && answer[0] == 0x12));
        assert!(self.ends[to].spec == before, "a forged datagram changed sessions");
    }

    fn step(&mut self, [kind, one, two]: [u8; 3], rest: &[u8]) {
        let next = self.sent.get(self.next).cloned();
        match (kind % 6, next) {
            (0, Some((to, octets))) => {
                self.next += 1;
                self.deliver(to, &octets);
            }
            (1, Some(_)) => self.next += 1,
            (2, Some((to, mut octets))) => {
                let at = (usize::from(one) << 8 | usize::from(two)) % (octets.len() * 8);
                octets[at / 8] ^= 1 << (at % 8);
                // mac2 is read under load only: changing it changes nothing.
                if !(octets.len() == INITIATION && at / 8 >= INITIATION - TAG) {
                    self.forge(to, &octets);
                }
            }
            (3, _) if !self.sent.is_empty() => {
                let at = usize::from(one) % self.sent.len();
                let (to, octets) = self.sent[at].clone();
                self.deliver(to, &octets);
            }
            (4, _) => self.wait(Duration::from_millis(u64::from(one) * 16 + u64::from(two))),
            (5, _) => {
                let sizes = [INITIATION, RESPONSE, COOKIE, CONFIRMATION];
                let mut octets = vec![0x10 + one % 4, 1, 0, 0];
                octets.extend(rest.iter().copied().cycle().take(if rest.is_empty() { 0 } else { 200 }));
                octets.resize(sizes[usize::from(one % 4)], 0);
                let to = usize::from(two & 1);
                if one % 4 == 0 && two & 2 != 0 {
                    let key = mac::mac1_key(&CLUSTER, &self.ends[to].peer.static_public);
                    octets.truncate(INITIATION - 2 * TAG);
                    mac::append_macs(&mut octets, &key, None);
                }
                self.forge(to, &octets);
            }
            _ => {}
        }
    }

    /// Whatever one end sends on, the other end opens.
    fn check(&self) {
        for number in 0..2 {
            let spec = |number: usize| self.ends[number].spec.as_ref();
            let Some(send) = spec(number).and_then(|spec| spec.send.as_ref()) else { continue };
            let held = spec(1 - number).is_some_and(|spec| {
                spec.receive.iter().any(|session| session.index == send.index && session.key == send.key)
            });
            assert!(held, "frames of node {number} would be lost");
        }
    }
}

/// Three octets a step: deliver, lose, alter, repeat, wait, or make up a datagram out of what follows.
pub fn handshake(now: Instant, input: &[u8]) {
    let mut pair = Pair::new(now);
    for (at, step) in input.chunks_exact(3).enumerate().take(MOST_STEPS) {
        let rest = input.get(at * 3 + 3..).unwrap_or_default();
        pair.step([step[0], step[1], step[2]], &rest[..rest.len().min(200)]);
        pair.check();
    }
}
