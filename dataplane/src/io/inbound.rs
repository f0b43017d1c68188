//! From the underlay to the ports: batches of datagrams are received, as large as what comes asks for.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use socket2::Socket;

use super::batch::Batch;
use super::sys::{Inbox, kernel_version};
use super::turns::{MOST, Turns};
use super::worker::{Ports, Shared};
use crate::engine::Engine;
use crate::fdb::Seconds;
use crate::offload::{Coalescer, UdpSegmentation};

/// Largest message received, octets: UDP_GRO joins up to 64 KiB, and a kernel VTEP on the same machine sends as
/// much in one datagram.
const MESSAGE_MAX: usize = 65_536;
/// Most messages per batch. Small ones come by the dozen; of large ones few fill the processor's cache. Between
/// bursts a batch is short, because each slot costs a little to prepare even if nothing comes.
const MESSAGES: usize = 64;
const MESSAGES_LARGE: usize = 4;
const MESSAGES_IDLE: usize = 8;
/// Errors of one socket after which it waits for a packet.
const STUMBLES_MAX: u8 = 16;
/// Mean octets per message from which a batch counts as large.
const LARGE: usize = 16 << 10;

/// The receiving half of a worker.
pub(crate) struct Inbound {
    sockets: Arc<[Socket]>,
    turns: Turns,
    /// Messages to ask each socket for next.
    batches: [usize; MOST],
    inbox: Inbox,
    coalescer: Coalescer,
    /// Errors, modulo [`STUMBLES_MAX`].
    stumbled: u8,
}

impl Inbound {
    /// `sockets` are 1 to [`MOST`]; there may be something to receive from each.
    pub(crate) fn new(sockets: Arc<[Socket]>) -> Self {
        Self::with_inbox(sockets, Inbox::new(MESSAGES, MESSAGE_MAX))
    }

    /// As [`Inbound::new`], with memory of another size.
    pub(crate) fn with_inbox(sockets: Arc<[Socket]>, inbox: Inbox) -> Self {
        // Linux 6.2 brought TUN_F_USO4; before, a UDP super-frame written to a TAP is an error.
        let udp =
            if kernel_version() >= (6, 2) { UdpSegmentation::Supported } else { UdpSegmentation::Missing };
        let (turns, batches) = (Turns::new(sockets.len()), [MESSAGES_IDLE; MOST]);
        Self { sockets, turns, batches, inbox, coalescer: Coalescer::new(udp), stumbled: 0 }
    }

    /// Whether there may be something to receive.
    pub(crate) fn is_due(&self) -> bool {
        self.turns.are_due()
    }

    /// There is something to receive from socket `index`.
    pub(crate) fn wake(&mut self, index: usize) {
        self.turns.wake(index);
    }

    /// Whether to read on after an error: an error that stays waits for the next packet after some tries.
    fn stumbles(&mut self, error: &io::Error) -> bool {
        self.stumbled = (self.stumbled + 1) % STUMBLES_MAX;
        error.kind() != io::ErrorKind::WouldBlock && self.stumbled > 0
    }

    /// Receives one batch from the socket whose turn it is and writes it to the ports.
    pub(crate) fn turn(&mut self, engine: &Engine, now: Seconds, ports: &Ports, shared: &Shared) {
        let Some(current) = self.turns.current() else { return };
        let batch = self.batches[current];
        let received = self.inbox.receive(self.sockets[current].as_fd(), batch);
        let count = *received.as_ref().unwrap_or(&0);
        // An error on an unconnected socket is about nobody in particular, and reading it has cleared it. What waits
        // behind it raised its edge before.
        let more = match received {
            Ok(count) => count == batch,
            Err(error) => self.stumbles(&error),
        };
        if more {
            self.turns.pass();
        } else {
            self.turns.empty();
        }
        let mut octets = 0;
        for index in 0..count {
            let Some(message) = self.inbox.message(index) else { continue };
            octets += message.range.len();
            let memory = self.inbox.memory();
            Batch { engine, now, ports, shared, memory, coalescer: &mut self.coalescer }.take(&message);
        }
        let memory = self.inbox.memory();
        Batch { engine, now, ports, shared, memory, coalescer: &mut self.coalescer }.flush();
        self.batches[current] = match count {
            _ if octets >= count.max(1) * LARGE => MESSAGES_LARGE,
            _ if more => MESSAGES,
            _ => MESSAGES_IDLE,
        };
    }
}
