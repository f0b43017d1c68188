//! From the underlay to the ports: batches of datagrams are received, as large as what comes asks for.

use std::os::fd::AsFd;

use socket2::Socket;

use super::batch::Batch;
use super::sys::{Inbox, kernel_version};
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
/// Mean octets per message from which a batch counts as large.
const LARGE: usize = 16 << 10;

/// The receiving half of a worker.
pub(crate) struct Inbound {
    socket: Socket,
    inbox: Inbox,
    coalescer: Coalescer,
    /// Messages to ask for next.
    batch: usize,
    /// There may be something to receive.
    pub(crate) ready: bool,
}

impl Inbound {
    pub(crate) fn new(socket: Socket) -> Self {
        Self::with_inbox(socket, Inbox::new(MESSAGES, MESSAGE_MAX))
    }

    /// As [`Inbound::new`], with memory of another size.
    pub(crate) fn with_inbox(socket: Socket, inbox: Inbox) -> Self {
        // Linux 6.2 brought TUN_F_USO4; before, a UDP super-frame written to a TAP is an error.
        let udp =
            if kernel_version() >= (6, 2) { UdpSegmentation::Supported } else { UdpSegmentation::Missing };
        Self { socket, inbox, coalescer: Coalescer::new(udp), batch: MESSAGES_IDLE, ready: true }
    }

    /// Receives one batch and writes it to the ports.
    pub(crate) fn turn(&mut self, engine: &Engine, now: Seconds, ports: &Ports, shared: &Shared) {
        // An error on an unconnected socket is about nobody in particular; the next packet raises an edge.
        let count = self.inbox.receive(self.socket.as_fd(), self.batch).unwrap_or(0);
        self.ready = count == self.batch;
        let mut octets = 0;
        for index in 0..count {
            let Some(message) = self.inbox.message(index) else { continue };
            octets += message.range.len();
            let memory = self.inbox.memory();
            Batch { engine, now, ports, shared, memory, coalescer: &mut self.coalescer }.take(&message);
        }
        let memory = self.inbox.memory();
        Batch { engine, now, ports, shared, memory, coalescer: &mut self.coalescer }.flush();
        self.batch = match count {
            _ if octets >= count.max(1) * LARGE => MESSAGES_LARGE,
            _ if self.ready => MESSAGES,
            _ => MESSAGES_IDLE,
        };
    }
}
