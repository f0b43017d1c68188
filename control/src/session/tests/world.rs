//! Nodes, the network between them, and frames that flow over their sessions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_dataplane::change::Event;
use weft_dataplane::seal::SendSession;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::super::{Peer, SessionConfig, SessionEvent, SessionState, Sessions};
use super::dataplane::Dataplane;
use crate::model::NodeId;

pub(super) const CLUSTER: [u8; 16] = [0xc1; 16];
pub(super) const EPOCH: u32 = 7;

pub(super) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn id(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 16])
}

pub(super) fn gossip(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 7946))
}

pub(super) fn vtep(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 4789))
}

pub(super) fn secret(number: usize) -> [u8; 32] {
    [number as u8 + 0x40; 32]
}

pub(super) fn public(number: usize) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(secret(number))).to_bytes()
}

pub(super) fn ring(epochs: &[u32]) -> BTreeMap<u32, Zeroizing<[u8; 32]>> {
    epochs.iter().map(|epoch| (*epoch, Zeroizing::new([*epoch as u8; 32]))).collect()
}

/// A node; `stream` keeps its seeds apart from other starts.
pub(super) fn sessions(number: usize, boot_epoch: u32, stream: u64, now: Instant) -> Sessions {
    let config = SessionConfig {
        cluster_id: CLUSTER,
        us: id(number),
        static_secret: Zeroizing::new(secret(number)),
        boot_epoch,
        rekey_after: super::super::REKEY_AFTER,
        data_port: 4789,
    };
    let mut seed = Zeroizing::new([number as u8; 32]);
    seed[..8].copy_from_slice(&stream.to_be_bytes());
    let mut sessions = Sessions::new(config, seed, now);
    sessions.set_ring(now, EPOCH, ring(&[EPOCH]));
    sessions
}

pub(super) struct Node {
    pub(super) sessions: Sessions,
    pub(super) dataplane: Dataplane,
    pub(super) address: SocketAddr,
    pub(super) boot_epoch: u32,
    pub(super) events: Vec<SessionEvent>,
    told_wanted: BTreeMap<usize, Instant>,
}

enum Cargo {
    Handshake(SocketAddr, Vec<u8>),
    Frame(usize, SendSession),
}

/// A datagram as it was sent.
#[derive(Clone)]
pub(super) struct Recorded {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// What became of frames.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) opened: u64,
    /// Dropped by the receiver, which did not hold the session.
    pub(super) lost: u64,
    /// Dropped by the sender, which had no session.
    pub(super) unsent: u64,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    flights: BTreeMap<(Instant, u64), (usize, Cargo)>,
    sequence: u64,
    pub(super) rng: StdRng,
    /// Share of handshake datagrams that are lost, and that come twice.
    pub(super) loss: f64,
    pub(super) duplicates: f64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) recorded: Vec<Recorded>,
    pub(super) frames: Frames,
    /// Sender, receiver and gap of streams of frames, and when the next is due.
    streams: Vec<(usize, usize, Duration, Instant)>,
    totals_due: Instant,
    /// Times that a send session was not held by its receiver.
    pub(super) orphans: u64,
}

impl World {
    pub(super) fn new(count: usize, seed: u64) -> Self {
        let now = crate::gossip::testing::start() + seconds(60);
        let node = |number| Node {
            sessions: sessions(number, 1, seed, now),
            dataplane: Dataplane::default(),
            address: gossip(number),
            boot_epoch: 1,
            events: Vec::new(),
            told_wanted: BTreeMap::new(),
        };
        let mut world = Self {
            nodes: (0..count).map(node).collect(),
            now,
            flights: BTreeMap::new(),
            sequence: 0,
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            duplicates: 0.0,
            delay: millis(5),
            jitter: Duration::ZERO,
            recorded: Vec::new(),
            frames: Frames::default(),
            streams: Vec::new(),
            totals_due: now,
            orphans: 0,
        };
        world.introduce_all();
        world
    }

    pub(super) fn introduce_all(&mut self) {
        for (one, other) in self.pairs() {
            self.introduce(one, other);
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        (0..count)
            .flat_map(|one| (0..count).map(move |other| (one, other)))
            .filter(|(one, other)| one != other)
            .collect()
    }

    /// Tells `one` of `other` as it is now.
    pub(super) fn introduce(&mut self, one: usize, other: usize) {
        let node = &self.nodes[other];
        let peer = Peer {
            id: id(other),
            static_public: public(other),
            gossip: node.address,
            vtep: SocketAddr::new(node.address.ip(), 4789),
            boot_epoch: node.boot_epoch,
        };
        let now = self.now;
        self.nodes[one].sessions.set_peer(now, peer);
        self.drain(one);
    }

    pub(super) fn want_all(&mut self) {
        for (one, other) in self.pairs() {
            self.want(one, other);
        }
    }

    pub(super) fn want(&mut self, one: usize, other: usize) {
        let now = self.now;
        self.act(one, |sessions| sessions.want(now, id(other)));
    }

    /// Calls a node and takes out what comes of it.
    pub(super) fn act(&mut self, number: usize, call: impl FnOnce(&mut Sessions)) {
        call(&mut self.nodes[number].sessions);
        self.drain(number);
    }

    /// Starts a node anew without memory, as after a crash. The others have not heard of it.
    pub(super) fn restart(&mut self, number: usize) {
        let (now, stream) = (self.now, self.rng.random());
        let node = &mut self.nodes[number];
        node.boot_epoch += 1;
        node.sessions = sessions(number, node.boot_epoch, stream, now);
        for vtep in node.dataplane.specs().map(|spec| spec.vtep).collect::<Vec<_>>() {
            node.dataplane.remove(vtep);
        }
        for other in (0..self.nodes.len()).filter(|other| *other != number) {
            self.introduce(number, other);
        }
    }

    /// Frames from `one` to `other` every `gap` from now on.
    pub(super) fn stream(&mut self, one: usize, other: usize, gap: Duration) {
        self.streams.push((one, other, gap, self.now + gap));
    }

    pub(super) fn stop_streams(&mut self) {
        self.streams.clear();
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    fn step(&mut self, end: Instant) -> bool {
        let flight = self.flights.keys().next().map(|(at, _)| *at);
        let timeouts = self.nodes.iter().filter_map(|node| node.sessions.poll_timeout());
        let streams = self.streams.iter().map(|stream| stream.3);
        let next = timeouts.chain(streams).chain(flight).chain([self.totals_due]).min().unwrap_or(end);
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        self.land();
        self.send_frames();
        self.tell_totals();
        for number in 0..self.nodes.len() {
            let now = self.now;
            if self.nodes[number].sessions.poll_timeout().is_some_and(|at| at <= now) {
                self.act(number, |sessions| sessions.handle_timeout(now));
                let next = self.nodes[number].sessions.poll_timeout();
                assert!(next.is_none_or(|at| at > now), "a timeout that is handled is not due again");
            }
        }
        self.count_orphans();
        true
    }

    fn land(&mut self) {
        while let Some(entry) = self.flights.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, cargo) = entry.remove();
            match cargo {
                Cargo::Handshake(from, bytes) => self.deliver(to, from, &bytes),
                Cargo::Frame(from, session) => self.open(to, from, &session),
            }
        }
    }

    /// Hands a datagram over as it is.
    pub(super) fn deliver(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        self.act(to, |sessions| sessions.handle_datagram(now, from, bytes));
    }

    fn open(&mut self, to: usize, from: usize, session: &SendSession) {
        let vtep = SocketAddr::new(self.nodes[from].address.ip(), 4789);
        let node = &mut self.nodes[to];
        if !node.dataplane.opens(vtep, session) {
            self.frames.lost += 1;
            return;
        }
        self.frames.opened += 1;
        node.dataplane.totals.entry(vtep).or_default().1 += 1;
        if node.dataplane.is_first(session.index) {
            let (now, index) = (self.now, session.index);
            self.act(to, |sessions| sessions.note(now, Event::SessionConfirmed { vtep, index }));
        }
    }

    fn send_frames(&mut self) {
        for at in 0..self.streams.len() {
            let (from, to, gap, due) = self.streams[at];
            if due <= self.now {
                self.streams[at].3 = due + gap;
                self.send_frame(from, to);
            }
        }
    }

    /// Sends one frame, as the dataplane would.
    pub(super) fn send_frame(&mut self, from: usize, to: usize) {
        let vtep = SocketAddr::new(self.nodes[to].address.ip(), 4789);
        let node = &mut self.nodes[from];
        if let Some(session) = node.dataplane.send(vtep).cloned() {
            node.dataplane.totals.entry(vtep).or_default().0 += 1;
            return self.fly(to, Cargo::Frame(from, session));
        }
        self.frames.unsent += 1;
        let now = self.now;
        if node.told_wanted.get(&to).is_none_or(|told| now >= *told + seconds(1)) {
            node.told_wanted.insert(to, now);
            self.act(from, |sessions| sessions.note(now, Event::SessionWanted { vtep }));
        }
    }

    fn tell_totals(&mut self) {
        if self.totals_due > self.now {
            return;
        }
        self.totals_due = self.now + seconds(1);
        let now = self.now;
        for (one, other) in self.pairs() {
            let vtep = SocketAddr::new(self.nodes[other].address.ip(), 4789);
            if let Some((sent, received)) = self.nodes[one].dataplane.totals.get(&vtep).copied() {
                self.act(one, |sessions| sessions.note_traffic(now, id(other), sent, received));
            }
        }
    }

    fn count_orphans(&mut self) {
        for (one, other) in self.pairs() {
            let (ours, theirs) = (self.nodes[one].address.ip(), self.nodes[other].address.ip());
            let Some(session) = self.nodes[one].dataplane.send(SocketAddr::new(theirs, 4789)) else {
                continue;
            };
            let held = self.nodes[other].dataplane.opens(SocketAddr::new(ours, 4789), session);
            self.orphans += u64::from(!held);
        }
    }

    fn fly(&mut self, to: usize, cargo: Cargo) {
        let at = self.now + self.delay + self.jitter.mul_f64(self.rng.random());
        self.sequence += 1;
        self.flights.insert((at, self.sequence), (to, cargo));
    }

    /// Takes out what a node has to say.
    pub(super) fn drain(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let from = node.address;
        while let Some(event) = node.sessions.poll_event() {
            match event {
                SessionEvent::Changed(spec) => node.dataplane.set(spec),
                SessionEvent::Gone { vtep } => node.dataplane.remove(vtep),
                hint => node.events.push(hint),
            }
        }
        let mut sent = Vec::new();
        while let Some((to, bytes)) = node.sessions.poll_transmit() {
            assert!(bytes.len() <= 1200);
            sent.push(Recorded { from, to, bytes });
        }
        for datagram in sent {
            self.recorded.push(datagram.clone());
            self.carry(&datagram);
        }
    }

    fn carry(&mut self, datagram: &Recorded) {
        let Some(to) = self.nodes.iter().position(|node| node.address == datagram.to) else { return };
        let copies = match () {
            () if self.rng.random_bool(self.loss) => 0,
            () if self.rng.random_bool(self.duplicates) => 2,
            () => 1,
        };
        for _ in 0..copies {
            self.fly(to, Cargo::Handshake(datagram.from, datagram.bytes.clone()));
        }
    }

    pub(super) fn state(&self, one: usize, other: usize) -> SessionState {
        let peer = id(other);
        let mut views = self.nodes[one].sessions.views(self.now);
        views.find(|view| view.peer == peer).expect("a peer").state
    }

    pub(super) fn is_established(&self, one: usize, other: usize) -> bool {
        self.nodes[one].dataplane.send(vtep(other)).is_some()
    }

    pub(super) fn all_established(&self) -> bool {
        self.pairs().into_iter().all(|(one, other)| self.is_established(one, other))
    }

    /// Both ends send on one and the same session.
    pub(super) fn agree(&self, one: usize, other: usize) -> bool {
        let newest = |a: usize, b: usize| {
            let spec = self.nodes[a].dataplane.spec(vtep(b))?;
            Some((spec.send.as_ref()?.index, spec.receive.last()?.index))
        };
        newest(one, other).is_some()
            && newest(one, other) == newest(other, one).map(|(send, receive)| (receive, send))
    }

    /// Everything the dataplanes hold.
    pub(super) fn snapshot(&self) -> Vec<weft_dataplane::seal::PeerSpec> {
        self.nodes.iter().flat_map(|node| node.dataplane.specs().cloned()).collect()
    }
}
