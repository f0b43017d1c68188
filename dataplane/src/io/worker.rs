//! A packet worker: one thread that runs every packet to completion, from one queue of every TAP to its own
//! underlay sockets and back. It waits in epoll without a timeout, so nothing spins when nothing flows.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::outbox::{Outbox, Part};
use super::sys::Inbox;
use super::tap::{TapQueue, VNET_HEADER_LEN};
use super::udp::Underlay;
use crate::change::Event;
use crate::engine::{Engine, Verdict};
use crate::fdb::Seconds;
use crate::segment::Vtep;
use crate::stats::{Counter, Counters, DropReason};
use crate::wire::{Vni, vxlan};

/// What the owner asks of a worker. Each is acknowledged once it took effect.
pub(crate) enum Command {
    Attach { vni: Vni, queue: TapQueue, done: Sender<io::Result<()>> },
    Detach { vni: Vni, done: Sender<()> },
    Stop,
}

/// Longest read from a TAP: header, Ethernet header with tag, 64 KiB of IP.
const FRAME_MAX: usize = VNET_HEADER_LEN + 18 + 65_535;
/// Memory for frames read and not yet sent, octets. A few super-frames: what is read should still be in the
/// second-level cache when it is sent.
const FRAMES: usize = 256 << 10;
/// Largest message received, octets: UDP_GRO joins up to 64 KiB.
const MESSAGE_MAX: usize = 65_536;
const MESSAGES: usize = 64;
/// Frames read per TAP before others get their turn.
const FRAMES_PER_TURN: usize = 64;
/// Epoll token of the owner's bell, of the underlay, and of the first port.
const BELL: u64 = 0;
const UNDERLAY: u64 = 1;
const FIRST_PORT: u64 = 2;

struct Port {
    vni: Vni,
    queue: TapQueue,
    ready: bool,
}

/// What a worker is made of; it lives on its own thread.
pub(crate) struct Worker {
    pub(crate) engine: Arc<ArcSwap<Engine>>,
    pub(crate) underlay: Underlay,
    pub(crate) bell: Arc<EventFd>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: SyncSender<Event>,
    pub(crate) event_bell: Arc<EventFd>,
    pub(crate) start: Instant,
}

/// Prepares the wait set, so that its failure is the caller's to see.
pub(crate) fn wait_set(worker: &Worker) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&worker.bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
    epoll.add(worker.underlay.inbound.as_fd(), edge(UNDERLAY))?;
    Ok(epoll)
}

fn edge(token: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token)
}

/// Runs until told to stop.
pub(crate) fn run(worker: Worker, epoll: Epoll) {
    let sockets = worker.underlay.outbound.len();
    let mut state = State {
        epoll,
        ports: Vec::new(),
        underlay_ready: true,
        inbox: Inbox::new(MESSAGES, MESSAGE_MAX),
        frames: vec![0; FRAMES],
        outbox: Outbox::new(sockets),
        worker,
    };
    while state.turn() {}
}

struct State {
    worker: Worker,
    epoll: Epoll,
    /// Slots; a detached one stays empty until reused.
    ports: Vec<Option<Port>>,
    underlay_ready: bool,
    inbox: Inbox,
    frames: Vec<u8>,
    outbox: Outbox,
}

impl State {
    /// One round: what is ready inbound, then what is ready outbound. False when told to stop.
    fn turn(&mut self) -> bool {
        if !self.wait() {
            return false;
        }
        let engine = self.worker.engine.load_full();
        let now = Seconds(self.worker.start.elapsed().as_secs() as u32);
        if self.underlay_ready {
            self.receive(&engine, now);
        }
        for slot in 0..self.ports.len() {
            self.transmit(slot, &engine, now);
        }
        true
    }

    fn wait(&mut self) -> bool {
        let ready = self.underlay_ready || self.ports.iter().flatten().any(|port| port.ready);
        let timeout = if ready { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let mut events = [EpollEvent::empty(); 32];
        let Ok(count) = self.epoll.wait(&mut events, timeout) else { return true };
        self.worker.counters.add(Counter::Wakeups, u64::from(!ready));
        for event in &events[..count] {
            match event.data() {
                BELL => {
                    if !self.obey() {
                        return false;
                    }
                }
                UNDERLAY => self.underlay_ready = true,
                token => {
                    if let Some(Some(port)) = self.ports.get_mut((token - FIRST_PORT) as usize) {
                        port.ready = true;
                    }
                }
            }
        }
        true
    }

    fn obey(&mut self) -> bool {
        let _ = self.worker.bell.read();
        while let Ok(command) = self.worker.commands.try_recv() {
            match command {
                Command::Attach { vni, queue, done } => {
                    let _ = done.send(self.attach(vni, queue));
                }
                Command::Detach { vni, done } => {
                    self.detach(vni);
                    let _ = done.send(());
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, vni: Vni, queue: TapQueue) -> io::Result<()> {
        let slot = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        self.epoll.add(&queue, edge(FIRST_PORT + slot as u64))?;
        let port = Some(Port { vni, queue, ready: true });
        if slot == self.ports.len() {
            self.ports.push(port)
        } else {
            self.ports[slot] = port
        }
        Ok(())
    }

    fn detach(&mut self, vni: Vni) {
        for slot in &mut self.ports {
            if let Some(port) = slot.take_if(|port| port.vni == vni) {
                let _ = self.epoll.delete(&port.queue);
            }
        }
    }

    fn receive(&mut self, engine: &Engine, now: Seconds) {
        let counters = &self.worker.counters;
        let count = self.inbox.receive(self.worker.underlay.inbound.as_fd(), MESSAGES).unwrap_or(0);
        self.underlay_ready = count == MESSAGES;
        for index in 0..count {
            let Some(message) = self.inbox.message(index) else { continue };
            let memory = self.inbox.memory();
            let octets = &memory[message.range.start as usize..message.range.end as usize];
            for datagram in octets.chunks(message.stride as usize) {
                counters.add(Counter::DatagramsIn, 1);
                counters.add(Counter::DatagramBytesIn, datagram.len() as u64);
                let mut notice = |_| {};
                match engine.handle_datagram(message.from.ip(), datagram, now, &mut notice) {
                    Verdict::Deliver(vni) => {
                        let frame = &datagram[vxlan::HEADER_LEN..];
                        deliver(&self.ports, vni, frame, counters);
                    }
                    Verdict::Drop(reason) => counters.dropped(reason, 1),
                    Verdict::Tunnel(_) | Verdict::Flood(_) | Verdict::Reply(_) => {}
                }
            }
        }
    }

    fn transmit(&mut self, slot: usize, engine: &Engine, now: Seconds) {
        let Some(Some(port)) = self.ports.get_mut(slot) else { return };
        if !port.ready {
            return;
        }
        let counters = &self.worker.counters;
        for _ in 0..FRAMES_PER_TURN {
            let len = match port.queue.read(&mut self.frames[..FRAME_MAX]) {
                Ok(len) => len,
                Err(_) => {
                    port.ready = false;
                    break;
                }
            };
            if len < VNET_HEADER_LEN {
                continue;
            }
            let frame = &mut self.frames[VNET_HEADER_LEN..len];
            counters.add(Counter::FramesOut, 1);
            counters.add(Counter::FrameBytesOut, frame.len() as u64);
            let payload = Part { start: VNET_HEADER_LEN as u32, len: frame.len() as u32 };
            let one;
            let vteps: &[Vtep] = match engine.handle_frame(port.vni, frame, now) {
                Verdict::Tunnel(vtep) => {
                    one = [*vtep];
                    &one
                }
                Verdict::Flood(vteps) => vteps,
                Verdict::Drop(reason) => {
                    counters.dropped(reason, 1);
                    continue;
                }
                Verdict::Reply(reply) => {
                    write(&port.queue, &[0; VNET_HEADER_LEN], reply.frame(), counters);
                    continue;
                }
                Verdict::Deliver(_) => continue,
            };
            for vtep in vteps {
                let _ = self.outbox.push_with_header(vtep, 0, 0, payload, |_| {});
            }
            self.outbox.flush(&self.frames, &self.worker.underlay.outbound, counters);
        }
    }
}

fn deliver(ports: &[Option<Port>], vni: Vni, frame: &[u8], counters: &Counters) {
    let Some(port) = ports.iter().flatten().find(|port| port.vni == vni) else {
        counters.dropped(DropReason::NoPort, 1);
        return;
    };
    write(&port.queue, &[0; VNET_HEADER_LEN], frame, counters);
}

fn write(queue: &TapQueue, header: &[u8], frame: &[u8], counters: &Counters) {
    match queue.write(&[IoSlice::new(header), IoSlice::new(frame)]) {
        Ok(_) => {
            counters.add(Counter::WritesIn, 1);
            counters.add(Counter::FramesIn, 1);
            counters.add(Counter::FrameBytesIn, frame.len() as u64);
        }
        Err(_) => counters.dropped(DropReason::TapWriteFailed, 1),
    }
}
