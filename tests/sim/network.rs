//! A network that exists only in memory: it delays, loses, doubles, reorders and cuts, as a seed decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_control::gossip::{Transmit, Via};

/// Anything that speaks gossip without doing IO.
pub(crate) trait SimNode {
    /// One datagram came.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]);
    /// One message of a stream came.
    fn handle_stream(&mut self, now: Instant, from: SocketAddr, message: &mut [u8]);
    /// The time asked for by `poll_timeout` is here.
    fn handle_timeout(&mut self, now: Instant);
    /// When to call `handle_timeout`.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Next message to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;
    /// Called after every input, with the output not yet sent; drains events.
    fn observe(&mut self, now: Instant);
}

/// What happens to messages.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    /// Share of datagrams lost, 0 to 1. A stream message suffers a delay instead.
    pub(crate) loss: f64,
    /// Share of datagrams that come twice.
    pub(crate) duplicates: f64,
    /// Shortest way.
    pub(crate) delay: Duration,
    /// Added at random; what is sent later may come earlier.
    pub(crate) jitter: Duration,
}

impl Default for Conditions {
    /// A quiet local network.
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicates: 0.0,
            delay: Duration::from_micros(200),
            jitter: Duration::from_micros(100),
        }
    }
}

/// What the network carried, by sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

struct Slot<N> {
    node: Option<N>,
    wake: Option<Instant>,
    paused_until: Option<Instant>,
}

struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    via: Via,
    bytes: Vec<u8>,
}

/// The nodes, by address, and everything between them.
pub(crate) struct Network<N> {
    slots: BTreeMap<SocketAddr, Slot<N>>,
    flights: BTreeMap<(Instant, u64), Flight>,
    wakes: BTreeSet<(Instant, SocketAddr)>,
    sequence: u64,
    rng: StdRng,
    start: Instant,
    now: Instant,
    pub(crate) conditions: Conditions,
    /// Pairs from → to over which nothing comes.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    traffic: BTreeMap<SocketAddr, Traffic>,
    /// Every message as it was sent, if asked for.
    pub(crate) capture: Option<Vec<(SocketAddr, Transmit)>>,
}

/// The address of the node with this number.
pub(crate) fn addr(number: usize) -> SocketAddr {
    SocketAddr::from(([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], 7946))
}

impl<N: SimNode> Network<N> {
    #[expect(clippy::disallowed_methods, reason = "there is no other way to make an Instant")]
    pub(crate) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            slots: BTreeMap::new(),
            flights: BTreeMap::new(),
            wakes: BTreeSet::new(),
            sequence: 0,
            rng: StdRng::seed_from_u64(seed ^ 0x5eed),
            start: now,
            now,
            conditions: Conditions::default(),
            cut: BTreeSet::new(),
            traffic: BTreeMap::new(),
            capture: None,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Starts a node at `at`, in the place of whatever was there.
    pub(crate) fn start(&mut self, at: SocketAddr, node: N) {
        self.slots.insert(at, Slot { node: Some(node), wake: None, paused_until: None });
        self.settle(at);
    }

    /// Takes a node away without a word; what is under way to it is lost.
    pub(crate) fn crash(&mut self, at: SocketAddr) -> Option<N> {
        self.slots.remove(&at).and_then(|slot| slot.node)
    }

    /// Moves a running node to another address, as when its host is renumbered.
    pub(crate) fn readdress(&mut self, from: SocketAddr, to: SocketAddr) {
        if let Some(node) = self.crash(from) {
            self.start(to, node);
        }
    }

    /// Lets a node sleep: what is sent to it waits, its timers are late.
    pub(crate) fn pause(&mut self, at: SocketAddr, pause: Duration) {
        let until = self.now + pause;
        if let Some(slot) = self.slots.get_mut(&at) {
            slot.paused_until = Some(until);
            self.wakes.insert((until, at));
        }
    }

    pub(crate) fn node(&self, at: SocketAddr) -> Option<&N> {
        self.slots.get(&at).and_then(|slot| slot.node.as_ref())
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (SocketAddr, &N)> {
        self.slots.iter().filter_map(|(at, slot)| slot.node.as_ref().map(|node| (*at, node)))
    }

    /// Acts on a node, then sends what it wants sent.
    pub(crate) fn with<T>(&mut self, at: SocketAddr, act: impl FnOnce(&mut N, Instant) -> T) -> Option<T> {
        let now = self.now;
        let result = self.slots.get_mut(&at)?.node.as_mut().map(|node| act(node, now));
        self.settle(at);
        result
    }

    /// Nothing comes from `from` to `to` any more.
    pub(crate) fn cut_one_way(&mut self, from: SocketAddr, to: SocketAddr) {
        self.cut.insert((from, to));
    }

    /// Nothing passes between the two sides any more.
    pub(crate) fn partition(&mut self, one: &[SocketAddr], other: &[SocketAddr]) {
        for a in one {
            for b in other {
                self.cut_one_way(*a, *b);
                self.cut_one_way(*b, *a);
            }
        }
    }

    /// Whether both can exchange anything.
    pub(crate) fn reaches(&self, one: SocketAddr, other: SocketAddr) -> bool {
        !self.cut.contains(&(one, other)) && !self.cut.contains(&(other, one))
    }

    /// All cuts are mended.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Octets and messages sent from `at` so far.
    pub(crate) fn traffic(&self, at: SocketAddr) -> Traffic {
        self.traffic.get(&at).copied().unwrap_or_default()
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, looking every 10 ms of virtual time; how long it took, or `None` after `limit`.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            if self.now - start >= limit {
                return None;
            }
            self.run_for(Duration::from_millis(10));
        }
        Some(self.now - start)
    }

    /// Carries out the next thing before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let flight = self.flights.keys().next().map(|(at, _)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        let Some(next) = flight.into_iter().chain(wake).min().filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if flight == Some(next) {
            self.deliver();
        } else {
            self.wake();
        }
        true
    }

    fn deliver(&mut self) {
        let Some((_, mut flight)) = self.flights.pop_first() else { return };
        let Some(slot) = self.slots.get_mut(&flight.to) else { return };
        if let Some(until) = slot.paused_until.filter(|until| *until > self.now) {
            self.sequence += 1;
            self.flights.insert((until, self.sequence), flight);
            return;
        }
        let Some(node) = slot.node.as_mut() else { return };
        match flight.via {
            Via::Datagram => node.handle_datagram(self.now, flight.from, &mut flight.bytes),
            Via::Stream => node.handle_stream(self.now, flight.from, &mut flight.bytes),
        }
        self.settle(flight.to);
    }

    fn wake(&mut self) {
        let Some((at, addr)) = self.wakes.pop_first() else { return };
        let Some(slot) = self.slots.get_mut(&addr) else { return };
        if let Some(until) = slot.paused_until {
            if until > at {
                return;
            }
            slot.paused_until = None;
        } else if slot.wake != Some(at) {
            return;
        }
        slot.wake = None;
        if let Some(node) = slot.node.as_mut() {
            node.handle_timeout(self.now);
        }
        self.settle(addr);
    }

    fn settle(&mut self, at: SocketAddr) {
        let Some(slot) = self.slots.get_mut(&at) else { return };
        let Some(node) = slot.node.as_mut() else { return };
        node.observe(self.now);
        let mut sent = Vec::new();
        while let Some(transmit) = node.poll_transmit() {
            sent.push(transmit);
        }
        let wake = node.poll_timeout().map(|wake| wake.max(self.now + Duration::from_micros(1)));
        if wake != slot.wake {
            if let Some(old) = slot.wake {
                self.wakes.remove(&(old, at));
            }
            slot.wake = wake;
            wake.map(|wake| self.wakes.insert((wake, at)));
        }
        for transmit in sent {
            let traffic = self.traffic.entry(at).or_default();
            traffic.messages += 1;
            traffic.bytes += transmit.bytes.len() as u64;
            if let Some(capture) = &mut self.capture {
                capture.push((at, transmit.clone()));
            }
            self.carry(at, transmit);
        }
    }

    fn carry(&mut self, from: SocketAddr, Transmit { to, via, bytes }: Transmit) {
        if self.cut.contains(&(from, to)) || (via == Via::Stream && self.cut.contains(&(to, from))) {
            return;
        }
        let lost = self.rng.random_bool(self.conditions.loss);
        let doubled = self.rng.random_bool(self.conditions.duplicates);
        match via {
            Via::Datagram if lost => {}
            Via::Datagram => {
                if doubled {
                    self.fly(from, to, via, bytes.clone(), Duration::ZERO);
                }
                self.fly(from, to, via, bytes, Duration::ZERO);
            }
            // Connecting, and sending again what was lost.
            Via::Stream => {
                let again = if lost { Duration::from_millis(200) } else { Duration::ZERO };
                let connect = self.conditions.delay * 2;
                self.fly(from, to, via, bytes, connect + again);
            }
        }
    }

    fn fly(&mut self, from: SocketAddr, to: SocketAddr, via: Via, bytes: Vec<u8>, extra: Duration) {
        let jitter = self.conditions.jitter.as_nanos() as u64;
        let at = self.now
            + self.conditions.delay
            + extra
            + Duration::from_nanos(self.rng.random_range(0..=jitter));
        self.sequence += 1;
        self.flights.insert((at, self.sequence), Flight { from, to, via, bytes });
    }
}
