//! The only place of the crate with descriptors, threads and clocks.
#![allow(clippy::disallowed_methods, reason = "the edge: clocks, sockets, threads and chance enter here")]

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::sys::eventfd::{EfdFlags, EventFd};
use socket2::Socket;

mod batch;
mod inbound;
mod lane;
mod limiter;
mod link;
mod outbound;
mod outbox;
mod packet;
mod plan;
mod queues;
mod sys;
mod tap;
#[cfg(test)]
mod tests;
mod turns;
mod udp;
mod worker;

pub use packet::open_packet_socket;
pub use sys::{kernel_version, receive_descriptors};
pub use tap::{QUEUES_MAX, Tap, TapError, TapQueue};
pub use udp::{forbid_fragments, udp_offload};

use crate::change::{Change, Event};
use crate::engine::{Engine, Reply};
use crate::fdb::Seconds;
use crate::seal::PeerTotals;
use crate::stats::{Counters, DropReason, Totals};
use crate::wire::{MacAddr, Vni};
use limiter::Limiter;
use link::QueueDrops;
use worker::{Command, Shared, Worker};

/// Most events waiting to be drained; further ones are lost and counted.
const EVENTS_MAX: usize = 1024;

/// How to run the packet path.
#[derive(Debug, Clone)]
pub struct DataplaneConfig {
    /// Underlay address: datagrams are received on it and sent from it. One of this host's.
    pub bind: IpAddr,
    /// UDP port, 4789 unless there is a reason; 0 picks a free one.
    pub port: u16,
    /// Packet threads; each takes one queue of every TAP. More than CPUs is of no use.
    pub workers: NonZeroUsize,
    /// Source ports that flows are spread over, and with them the peer's workers and queues; 4 to 64, several
    /// times the number of workers. Each costs one socket.
    pub source_ports: usize,
}

/// The packet path could not be started or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// Somebody else receives on the port.
    #[error("UDP port {port} on {bind} is in use by {holder}; stop it, or use another --data-port")]
    PortInUse {
        /// Address asked for.
        bind: IpAddr,
        /// Port asked for.
        port: u16,
        /// Who holds it, as far as can be told.
        holder: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The address is not this host's, or may not be used.
    #[error("cannot receive on {bind} UDP port {port}")]
    Bind {
        /// Address asked for.
        bind: IpAddr,
        /// Port asked for.
        port: u16,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A socket could not be made ready.
    #[error("cannot prepare an underlay socket on {bind}")]
    Socket {
        /// Address asked for.
        bind: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A thread or its wait set could not be made.
    #[error("cannot start packet worker {worker}")]
    Worker {
        /// Its number, from 0.
        worker: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A TAP has some queues for each worker.
    #[error("segment {vni} needs {expected} TAP queues, as many for each worker, not {given}")]
    Queues {
        /// The segment.
        vni: Vni,
        /// Number of queues needed: see [`Dataplane::queues`].
        expected: usize,
        /// Number of queues given.
        given: usize,
    },
    /// A segment has one port.
    #[error("segment {vni} has a port already")]
    Attached {
        /// The segment.
        vni: Vni,
    },
    /// A worker could not take the queue.
    #[error("cannot attach the port of segment {vni}")]
    Attach {
        /// The segment.
        vni: Vni,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

struct Handle {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// The running packet path: worker threads, their sockets and the tables they read. Dropping it stops it.
pub struct Dataplane {
    address: SocketAddr,
    engine: Arc<ArcSwap<Engine>>,
    workers: Vec<Handle>,
    /// Serialises changes, and remembers which segments have a port.
    attached: Mutex<Vec<Vni>>,
    /// What the kernel dropped in front of the ports.
    queue_drops: Mutex<QueueDrops>,
    events: Mutex<Receiver<Event>>,
    event_bell: Arc<EventFd>,
    /// What workers receive from, to see what the kernel had no room for.
    inbound: Vec<Arc<[Socket]>>,
    start: Instant,
}

impl Dataplane {
    /// Opens the sockets in the calling thread's network namespace and starts the workers. The threads never
    /// enter another namespace; TAPs may live in any.
    ///
    /// # Errors
    /// The address or port cannot be had (the error says who holds it), or a thread cannot be started.
    pub fn start(config: DataplaneConfig) -> Result<Self, DataplaneError> {
        let DataplaneConfig { bind, port, workers, source_ports } = config;
        let (address, underlays) = udp::open(bind, port, workers.get(), source_ports.max(1))?;
        let seed = RandomState::new().hash_one(address);
        let engine = Engine::new(bind.to_canonical(), workers.get(), seed);
        let engine = Arc::new(ArcSwap::from_pointee(engine));
        let refused_peers = Arc::new(Limiter::default());
        let inbound = underlays.iter().map(|underlay| Arc::clone(&underlay.inbound)).collect();
        let start = Instant::now();
        let (event_sender, events) = mpsc::sync_channel(EVENTS_MAX);
        let event_bell = Arc::new(bell().map_err(|source| DataplaneError::Worker { worker: 0, source })?);
        let mut dataplane = Self {
            address,
            engine,
            workers: Vec::with_capacity(workers.get()),
            attached: Mutex::default(),
            queue_drops: Mutex::default(),
            events: Mutex::new(events),
            event_bell,
            inbound,
            start,
        };
        for (number, underlay) in underlays.into_iter().enumerate() {
            let (commands, command_receiver) = mpsc::channel();
            let failed = |source| DataplaneError::Worker { worker: number, source };
            let queue = u8::try_from(number).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
            let event_bell = Arc::clone(&dataplane.event_bell);
            let shared = Shared::new(queue, event_sender.clone(), event_bell, Arc::clone(&refused_peers));
            let worker = Worker {
                engine: Arc::clone(&dataplane.engine),
                underlay,
                bell: Arc::new(bell().map_err(failed)?),
                commands: command_receiver,
                shared,
                start,
            };
            dataplane.workers.push(spawn(number, worker, commands).map_err(failed)?);
        }
        Ok(dataplane)
    }

    /// Where datagrams are received.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Number of queues a TAP must have: some for each worker.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.workers.len() * turns::per_worker(self.workers.len())
    }

    /// Gives segment `vni` its port. Returns when every worker serves its queues. `sealing` is what
    /// [`SegmentSpec::sealing`](crate::segment::SegmentSpec::sealing) is of the network behind the port: while another
    /// network has the VNI, nothing passes between that and this port.
    ///
    /// # Errors
    /// Wrong number of queues, a port there already, or a worker that cannot wait for its queues; the TAP is
    /// gone then, for its queues were consumed.
    pub fn attach(&self, vni: Vni, sealing: Option<[u8; 16]>, tap: Tap) -> Result<(), DataplaneError> {
        let (queues, link) = tap.into_parts();
        let (expected, given) = (self.queues(), queues.len());
        if given != expected {
            return Err(DataplaneError::Queues { vni, expected, given });
        }
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.contains(&vni) {
            return Err(DataplaneError::Attached { vni });
        }
        let (done, results) = mpsc::channel();
        let mut queues = queues.into_iter();
        let share = expected / self.workers.len();
        for worker in &self.workers {
            let queues = queues.by_ref().take(share).collect();
            worker.tell(Command::Attach { vni, sealing, queues, done: done.clone() });
        }
        drop(done);
        attached.push(vni);
        drop(attached);
        self.queue_drops().add(vni, link);
        match acknowledged(&results, self.workers.len()) {
            Ok(()) => Ok(()),
            Err(source) => {
                self.detach(vni);
                Err(DataplaneError::Attach { vni, source })
            }
        }
    }

    /// Takes the port of segment `vni` away, and with it the TAP. Returns when no worker holds it; without a
    /// port nothing happens.
    pub fn detach(&self, vni: Vni) {
        self.queue_drops().retire(vni);
        let (done, finished) = mpsc::channel();
        for worker in &self.workers {
            worker.tell(Command::Detach { vni, done: done.clone() });
        }
        drop(done);
        finished.iter().for_each(drop);
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).retain(|&other| other != vni);
    }

    /// Applies a change; packets handled from now on see it.
    pub fn apply(&self, change: Change) {
        let _serialised = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.engine.load().after(change);
        self.engine.store(Arc::new(next));
    }

    /// Tells whoever is behind the port of segment `vni` that `mac` has `ip` now; without a port nobody is told.
    pub fn announce(&self, vni: Vni, ip: IpAddr, mac: MacAddr) {
        if let Some(worker) = self.workers.first() {
            worker.tell(Command::Announce { vni, frame: Box::new(Reply::announcement(ip, mac)) });
        }
    }

    /// The next event, if there is one.
    pub fn poll_event(&self) -> Option<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let event = events.try_recv().ok();
        if event.is_none() {
            let _ = self.event_bell.read();
        }
        // One that arrived between the look and the reset of the bell must not wait for the next one.
        event.or_else(|| events.try_recv().ok())
    }

    /// A descriptor that polls readable while events may be waiting; [`Dataplane::poll_event`] resets it.
    #[must_use]
    pub fn event_descriptor(&self) -> BorrowedFd<'_> {
        self.event_bell.as_fd()
    }

    /// MACs learned behind static VTEPs of segment `vni`, with the seconds since each was seen.
    #[must_use]
    pub fn learned(&self, vni: Vni) -> Vec<(MacAddr, SocketAddr, u32)> {
        let engine = self.engine.load();
        engine.segment(vni).map(|segment| segment.learned(self.now())).unwrap_or_default()
    }

    /// What was counted for each peer, in the order of their tunnel ends.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerTotals> {
        self.engine.load().peers().totals(self.now())
    }

    /// Everything counted so far, over all workers.
    #[must_use]
    pub fn stats(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.workers {
            totals.add(&worker.counters);
        }
        let full = self.inbound.iter().map(|sockets| udp::drops(sockets)).sum();
        totals.add_dropped(DropReason::ReceiveBufferFull, full);
        totals.add_dropped(DropReason::TapQueueFull, self.queue_drops().total());
        totals
    }

    fn queue_drops(&self) -> MutexGuard<'_, QueueDrops> {
        self.queue_drops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Seconds {
        Seconds(self.start.elapsed().as_secs() as u32)
    }

    /// Stops the workers and waits for them; TAPs still attached go away.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.tell(Command::Stop);
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane")
            .field("address", &self.address)
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// A worker that has ended takes no commands and needs none; whoever waits for it sees its sender dropped.
    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
        let _ = self.bell.write(1);
    }
}

/// Waits for `expected` workers; one that ended without a word is an error too.
fn acknowledged(results: &Receiver<io::Result<()>>, expected: usize) -> io::Result<()> {
    let mut taken = 0;
    for result in results {
        result?;
        taken += 1;
    }
    if taken == expected { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

fn spawn(number: usize, worker: Worker, commands: Sender<Command>) -> io::Result<Handle> {
    let (bell, counters) = (Arc::clone(&worker.bell), Arc::clone(&worker.shared.counters));
    let epoll = worker::wait_set(&worker)?;
    let thread = std::thread::Builder::new()
        .name(format!("weft-worker-{number}"))
        .spawn(move || worker::run(worker, epoll))?;
    Ok(Handle { commands, bell, counters, thread: Some(thread) })
}

fn bell() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
}
