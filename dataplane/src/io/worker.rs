//! A packet worker: one thread that runs every packet to completion, from its queues of every TAP to the
//! underlay and back. It waits in epoll without a timeout, so nothing spins when nothing flows.
//!
//! Rounds alternate: one batch inbound, then one fill of the frame memory outbound. Neither side can starve
//! the other, and what was read is still in the processor's cache when it is sent.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::inbound::Inbound;
use super::limiter::Limiter;
use super::outbound::{self, Outbound};
use super::queues::Queues;
use super::tap::TapQueue;
use super::turns;
use super::udp::Underlay;
use crate::change::Event;
use crate::engine::{Engine, Reply};
use crate::fdb::Seconds;
use crate::seal::Refusal;
use crate::segment::Segment;
use crate::stats::{Counter, Counters};
use crate::wire::Vni;

/// What the owner asks of a worker.
pub(crate) enum Command {
    Attach {
        vni: Vni,
        sealing: Option<[u8; 16]>,
        queues: Vec<TapQueue>,
        done: Sender<io::Result<()>>,
    },
    Detach {
        vni: Vni,
        done: Sender<()>,
    },
    /// Has no answer: nobody waits for it.
    Announce {
        vni: Vni,
        frame: Box<Reply>,
    },
    Stop,
}

/// Epoll token of the owner's bell, of the first underlay socket, and of the first queue of the first port.
const BELL: u64 = 0;
const UNDERLAY: u64 = 1;
const FIRST_PORT: u64 = UNDERLAY + turns::MOST as u64;
/// Events taken per wait; the rest comes with the next.
const EVENTS: usize = 32;

/// One worker's share of a segment's TAP.
pub(crate) struct Port {
    pub(crate) vni: Vni,
    /// The id of the network behind it, if that is sealed.
    pub(crate) sealing: Option<[u8; 16]>,
    pub(crate) queues: Queues,
}

impl Port {
    /// Whether the network behind it is the segment's: a VNI goes to another network before its port does.
    pub(crate) fn is_of(&self, segment: &Segment) -> bool {
        self.vni == segment.vni() && self.sealing == segment.sealing
    }
}

/// Slots of ports; a detached one stays empty until reused, because epoll knows ports by slot.
pub(crate) type Ports = [Option<Port>];

/// What both directions need besides their own memory.
pub(crate) struct Shared {
    /// Number of the worker: its queue in sessions.
    pub(crate) queue: u8,
    pub(crate) counters: Arc<Counters>,
    events: SyncSender<Event>,
    event_bell: Arc<EventFd>,
    /// What was told lately of peers nothing can be sealed for; all workers share it.
    refused_peers: Arc<Limiter>,
    start: Instant,
    /// Seconds from the start to the end of the time in which no refusal is told again.
    quiet_until: AtomicU64,
}

/// Whoever floods addresses must not flood those who listen: one refusal a second says it, all are counted.
const REFUSAL_PAUSE: u64 = 1;

impl Shared {
    pub(crate) fn new(
        queue: u8,
        events: SyncSender<Event>,
        event_bell: Arc<EventFd>,
        refused_peers: Arc<Limiter>,
    ) -> Self {
        let (start, quiet_until) = (Instant::now(), AtomicU64::new(0));
        Self { queue, counters: Arc::default(), events, event_bell, refused_peers, start, quiet_until }
    }

    /// Counts a frame that could not be sealed for the peer at `vtep`, and says so once in a while.
    pub(crate) fn refuse(&self, refusal: Refusal, vtep: SocketAddr, now: Seconds) {
        self.counters.dropped(refusal.into(), 1);
        if self.refused_peers.admits(vtep, now) {
            self.tell(match refusal {
                Refusal::NoSession => Event::SessionWanted { vtep },
                Refusal::Spent => Event::SessionWorn { vtep },
            });
        }
    }

    /// Counts an event and passes it on, if that is due; false where there is no room.
    pub(crate) fn tell(&self, event: Event) -> bool {
        match event {
            Event::Learned { .. } => self.counters.add(Counter::Learned, 1),
            Event::LearnRefused { .. } => {
                self.counters.add(Counter::LearnRefused, 1);
                if !self.may_tell_refusal() {
                    return true;
                }
            }
            Event::PortLost { .. }
            | Event::SessionWanted { .. }
            | Event::SessionConfirmed { .. }
            | Event::SessionWorn { .. } => {}
        }
        let told = self.events.try_send(event).is_ok();
        self.counters.add(Counter::EventsLost, u64::from(!told));
        let _ = self.event_bell.write(1);
        told
    }

    fn may_tell_refusal(&self) -> bool {
        let second = self.start.elapsed().as_secs();
        let told = self.quiet_until.load(Ordering::Relaxed);
        if second >= told {
            self.quiet_until.store(second + REFUSAL_PAUSE, Ordering::Relaxed);
        }
        second >= told
    }
}

/// What a worker is made of, until its thread runs.
pub(crate) struct Worker {
    pub(crate) engine: Arc<ArcSwap<Engine>>,
    pub(crate) underlay: Underlay,
    pub(crate) bell: Arc<EventFd>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) shared: Shared,
    pub(crate) start: Instant,
}

/// Prepares the wait set, so that its failure is the caller's to see.
pub(crate) fn wait_set(worker: &Worker) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&worker.bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
    for (socket, token) in worker.underlay.inbound.iter().zip(UNDERLAY..) {
        epoll.add(socket.as_fd(), edge(token))?;
    }
    Ok(epoll)
}

/// Edge-triggered: who is ready is remembered until a read says otherwise, which saves a wait per batch.
fn edge(token: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token)
}

/// Runs until told to stop.
pub(crate) fn run(worker: Worker, epoll: Epoll) {
    let Worker { engine, underlay, bell, commands, shared, start } = worker;
    let outbound = Outbound::new(underlay.outbound);
    let inbound = Inbound::new(underlay.inbound);
    let ports = Vec::new();
    let mut running = Running { engine, bell, commands, shared, start, epoll, ports, inbound, outbound };
    while running.turn() {}
}

struct Running {
    engine: Arc<ArcSwap<Engine>>,
    bell: Arc<EventFd>,
    commands: Receiver<Command>,
    shared: Shared,
    start: Instant,
    epoll: Epoll,
    ports: Vec<Option<Port>>,
    inbound: Inbound,
    outbound: Outbound,
}

impl Running {
    /// One round; false when told to stop.
    fn turn(&mut self) -> bool {
        if !self.wait() {
            return false;
        }
        let engine = self.engine.load_full();
        let now = Seconds(self.start.elapsed().as_secs() as u32);
        if self.inbound.is_due() {
            self.inbound.turn(&engine, now, &self.ports, &self.shared);
        }
        for slot in 0..self.ports.len() {
            if let Some(port) = self.ports[slot].as_mut().filter(|port| port.queues.are_due()) {
                self.outbound.turn(&engine, now, port, &self.shared);
            }
        }
        self.outbound.flush(&self.shared.counters);
        true
    }

    fn wait(&mut self) -> bool {
        let ready = self.inbound.is_due() || self.ports.iter().flatten().any(|port| port.queues.are_due());
        let timeout = if ready { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let mut events = [EpollEvent::empty(); EVENTS];
        let Ok(count) = self.epoll.wait(&mut events, timeout) else { return true };
        self.shared.counters.add(Counter::Wakeups, u64::from(!ready));
        for event in &events[..count] {
            match event.data() {
                BELL => {
                    if !self.obey() {
                        return false;
                    }
                }
                token @ UNDERLAY..FIRST_PORT => self.inbound.wake((token - UNDERLAY) as usize),
                token => {
                    let (slot, queue) = place_of(token);
                    if let Some(Some(port)) = self.ports.get_mut(slot) {
                        port.queues.wake(queue);
                    }
                }
            }
        }
        true
    }

    fn obey(&mut self) -> bool {
        let _ = self.bell.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach { vni, sealing, queues, done } => {
                    let _ = done.send(self.attach(vni, sealing, queues));
                }
                Command::Detach { vni, done } => {
                    self.detach(vni);
                    let _ = done.send(());
                }
                Command::Announce { vni, frame } => {
                    if let Some(port) = self.ports.iter().flatten().find(|port| port.vni == vni) {
                        outbound::say(port, &frame, &self.shared.counters);
                    }
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, vni: Vni, sealing: Option<[u8; 16]>, queues: Vec<TapQueue>) -> io::Result<()> {
        let slot = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        for (index, queue) in queues.iter().enumerate() {
            self.epoll.add(queue, edge(token_of(slot, index)))?;
        }
        let port = Some(Port { vni, sealing, queues: Queues::new(queues) });
        if slot == self.ports.len() {
            self.ports.push(port);
        } else {
            self.ports[slot] = port;
        }
        Ok(())
    }

    fn detach(&mut self, vni: Vni) {
        for slot in &mut self.ports {
            if let Some(port) = slot.take_if(|port| port.vni == vni) {
                for queue in port.queues.all() {
                    let _ = self.epoll.delete(queue);
                }
            }
        }
    }
}

/// Epoll token of queue `index` of the port in `slot`.
fn token_of(slot: usize, index: usize) -> u64 {
    FIRST_PORT + (slot * turns::MOST + index) as u64
}

/// Slot and queue of an epoll token.
fn place_of(token: u64) -> (usize, usize) {
    let place = (token - FIRST_PORT) as usize;
    (place / turns::MOST, place % turns::MOST)
}
