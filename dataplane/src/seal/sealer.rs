//! A send session at work: draws counters, seals in place, and knows when it has sealed enough.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{Aad, LessSafeKey};

use super::header::{HEADER_LEN, Header, InnerChecksum, TAG_LEN, associated, nonce};
use super::{Key, SendSession};
use crate::wire::Vni;

/// Most queues of a session: the counter has 8 bits for them.
pub const QUEUES_MAX: usize = 256;
/// Packets after which a session should be replaced.
pub const WORN_AT: u64 = 1 << 26;
/// Packets after which it seals no more.
const SPENT_AT: u64 = 1 << 30;
/// Packets a queue is granted at once, so that queues share a counter only once in so many packets.
const GRANT: u64 = 1 << 16;

/// Digest of index and key.
pub(super) type Fingerprint = [u8; 32];

/// The session has sealed all it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has sealed all it may")]
pub struct Spent;

/// A send session: its key, and how far each queue has counted.
#[derive(Debug)]
pub struct Sealer {
    index: u32,
    key: Key,
    fingerprint: Fingerprint,
    aead: LessSafeKey,
    queues: Box<[Queue]>,
    /// Packets granted to all queues together.
    granted: AtomicU64,
}

/// One worker's count; the alignment keeps two workers off one cache line pair.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Queue {
    next: AtomicU64,
    /// First number this queue was not granted.
    end: AtomicU64,
}

/// Counters drawn for the datagrams of one frame. Those not used are lost, never drawn again.
#[derive(Debug)]
pub struct Reserved<'s> {
    sealer: &'s Sealer,
    next: u64,
    left: u32,
    worn: bool,
}

impl Sealer {
    /// A session nothing was sealed with yet, for workers 0 to `queues` − 1, at most [`QUEUES_MAX`]. `None`
    /// where there is no memory for the key schedule.
    #[must_use]
    pub fn new(session: SendSession, queues: usize) -> Option<Self> {
        let SendSession { index, key } = session;
        let queues = (0..queues.min(QUEUES_MAX)).map(|_| Queue::default()).collect();
        let (fingerprint, aead) = (key.fingerprint(index), key.expand()?);
        Some(Self { index, key, fingerprint, aead, queues, granted: AtomicU64::new(0) })
    }

    /// The receiver's index of the session.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Tells the session from all others after its key is gone.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn is(&self, session: &SendSession) -> bool {
        self.index == session.index && self.key == session.key
    }

    /// Draws `count` counters of `queue`, which one worker alone uses: then nobody waits for anybody.
    ///
    /// # Errors
    /// The session is spent, or has no such queue.
    #[inline]
    pub fn reserve(&self, queue: u8, count: u32) -> Result<Reserved<'_>, Spent> {
        let cell = self.queues.get(usize::from(queue)).ok_or(Spent)?;
        let wanted = cell.next.load(Ordering::Relaxed) + u64::from(count);
        let worn = wanted > cell.end.load(Ordering::Relaxed) && self.grant(cell, wanted)?;
        // Not a load and a store: were a queue ever used twice at once, no counter must come out twice.
        let number = cell.next.fetch_add(count.into(), Ordering::Relaxed);
        Ok(Reserved { sealer: self, next: u64::from(queue) << 56 | number, left: count, worn })
    }

    /// Grants `cell` numbers up to `wanted`; returns whether the session is worn.
    #[cold]
    fn grant(&self, cell: &Queue, wanted: u64) -> Result<bool, Spent> {
        loop {
            let granted = self.granted.fetch_add(GRANT, Ordering::Relaxed) + GRANT;
            if granted > SPENT_AT {
                self.granted.fetch_sub(GRANT, Ordering::Relaxed);
                return Err(Spent);
            }
            if cell.end.fetch_add(GRANT, Ordering::Relaxed) + GRANT >= wanted {
                return Ok(granted > WORN_AT);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn wear(&self, queue: u8, packets: u64) {
        let cell = &self.queues[usize::from(queue)];
        for value in [&cell.next, &cell.end, &self.granted] {
            value.store(packets, Ordering::Relaxed);
        }
    }
}

impl Reserved<'_> {
    /// Whether the session should be replaced; said once in a while only.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.worn
    }

    /// Seals a frame into `datagram` for network `network`, which the receiver knows as `vni`: the first [`HEADER_LEN`]
    /// octets become the header, the last [`TAG_LEN`] the tag, what lies between is encrypted. The frame's first octets
    /// stand there already; `rest`, which may be empty, is the others, which are sealed from where they are.
    ///
    /// # Errors
    /// The counters drawn are used up, or the datagram has no room for header, `rest` and tag, or is longer than AES-GCM
    /// allows: it is not sealed and must not be sent.
    #[inline]
    pub fn seal(
        &mut self,
        vni: Vni,
        checksum: InnerChecksum,
        network: &[u8; 16],
        datagram: &mut [u8],
        rest: &[u8],
    ) -> Result<(), Spent> {
        let counter = self.draw()?;
        let (octets, sealed) = datagram.split_first_chunk_mut::<HEADER_LEN>().ok_or(Spent)?;
        let front = sealed.len().checked_sub(rest.len() + TAG_LEN).ok_or(Spent)?;
        let (front, sealed) = sealed.split_at_mut(front);
        let header = Header { checksum, vni, session: self.sealer.index, counter }.emit();
        let associated = Aad::from(associated(&header, network));
        let done = self.sealer.aead.seal_in_place_scatter(nonce(counter), associated, front, rest, sealed);
        *octets = header;
        done.map_err(|_| Spent)
    }

    fn draw(&mut self) -> Result<u64, Spent> {
        self.left = self.left.checked_sub(1).ok_or(Spent)?;
        let counter = self.next;
        self.next += 1;
        Ok(counter)
    }
}
