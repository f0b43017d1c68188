//! A receive session at work: opens trains of datagrams in place and accepts each packet once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use aws_lc_rs::aead::{Aad, LessSafeKey};

use super::header::{HEADER_LEN, Header, associated, nonce};
use super::sealer::{Fingerprint, QUEUES_MAX};
use super::{Key, ReceiveSession, Window};

/// Most datagrams opened at once.
pub const TRAIN_MAX: usize = 64;

/// A receive session: its key, and what was seen of each of the sender's queues.
#[derive(Debug)]
pub struct Opener {
    index: u32,
    key: Key,
    aead: LessSafeKey,
    /// Made when a queue's first authentic packet comes: nobody without the key can make us use memory.
    windows: Box<[OnceLock<Box<Mutex<Window>>>]>,
    confirmed: AtomicBool,
}

/// What became of a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// Bit `i` is set where datagram `i` was opened, and for the first time: its frame stands between header
    /// and tag. Of all others the octets are to be forgotten.
    pub accepted: u64,
    /// Datagrams that are not authentic.
    pub forged: u32,
    /// Authentic ones that were opened before, or are too old to tell.
    pub replayed: u32,
}

impl Opener {
    /// A session nothing was opened with yet; `None` where there is no memory for the key schedule.
    #[must_use]
    pub fn new(session: ReceiveSession) -> Option<Self> {
        let ReceiveSession { index, key } = session;
        let windows = (0..QUEUES_MAX).map(|_| OnceLock::new()).collect();
        Some(Self { index, aead: key.expand()?, key, windows, confirmed: AtomicBool::new(false) })
    }

    /// This node's index of the session.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Tells the session from all others after its key is gone.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint(self.index)
    }

    pub(super) fn is(&self, session: &ReceiveSession) -> bool {
        self.index == session.index && self.key == session.key
    }

    /// Opens the datagrams of `train`, each of `stride` octets but for a shorter last one, in place. All must be
    /// of this session and of one queue and at most [`TRAIN_MAX`]; others count as forged. Any number of workers
    /// may open trains of one session at once; a replay is accepted by one of them.
    pub fn open_train(&self, network: &[u8; 16], train: &mut [u8], stride: usize) -> Opened {
        let mut numbers = [0; TRAIN_MAX];
        let mut opened = Opened::default();
        let Some(queue) = train.first_chunk().and_then(Header::parse).map(|header| header.queue()) else {
            return opened;
        };
        for (at, datagram) in train.chunks_mut(stride.max(1)).enumerate() {
            match self.open(network, queue, datagram) {
                Some(number) if at < TRAIN_MAX => {
                    numbers[at] = number;
                    opened.accepted |= 1 << at;
                }
                _ => opened.forged += 1,
            }
        }
        if opened.accepted != 0 {
            self.accept(queue, &numbers, &mut opened);
        }
        opened
    }

    /// Opens one datagram in place; its number in `queue`, if it is authentic and of this queue.
    #[inline]
    fn open(&self, network: &[u8; 16], queue: u8, datagram: &mut [u8]) -> Option<u64> {
        let (octets, sealed) = datagram.split_first_chunk_mut::<HEADER_LEN>()?;
        let header = Header::parse(octets).filter(|header| header.queue() == queue)?;
        let associated = Aad::from(associated(octets, network));
        self.aead.open_in_place(nonce(header.counter), associated, sealed).ok()?;
        Some(header.number())
    }

    /// Strikes out what was seen before. Workers meet here only, once per train.
    #[inline]
    fn accept(&self, queue: u8, numbers: &[u64; TRAIN_MAX], opened: &mut Opened) {
        let window = self.windows[usize::from(queue)].get_or_init(Box::default);
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, &number) in numbers.iter().enumerate().take(64 - opened.accepted.leading_zeros() as usize) {
            if opened.accepted & 1 << at != 0 && !window.accept(number) {
                opened.accepted &= !(1 << at);
                opened.replayed += 1;
            }
        }
    }

    /// True for the first caller only: to be asked when a datagram was opened.
    pub fn confirm(&self) -> bool {
        !self.confirmed.load(Ordering::Relaxed) && !self.confirmed.swap(true, Ordering::Relaxed)
    }

    /// Takes a confirmation back that could not be told; the next caller of [`Opener::confirm`] has another try.
    pub fn unconfirm(&self) {
        self.confirmed.store(false, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn windows_made(&self) -> usize {
        self.windows.iter().filter(|window| window.get().is_some()).count()
    }
}
