//! A worker's queues of one TAP, read by turns.

use std::io;

use super::tap::TapQueue;
use super::turns::Turns;

/// Octets that a queue may give before it is the next one's turn: a super-frame.
const TURN: usize = 64 << 10;
/// Octets that a short frame counts as, because reading and deciding costs as much as copying these.
const FRAME_MIN: usize = 512;

/// Some queues of a TAP.
pub(crate) struct Queues {
    queues: Vec<TapQueue>,
    turns: Turns,
    /// Octets that came out of one queue in this turn.
    given: usize,
}

impl Queues {
    /// `queues` are 1 to [`MOST`](super::turns::MOST); there may be something to read in each.
    pub(crate) fn new(queues: Vec<TapQueue>) -> Self {
        Self { turns: Turns::new(queues.len()), queues, given: 0 }
    }

    /// Whether there may be something to read.
    pub(crate) fn are_due(&self) -> bool {
        self.turns.are_due()
    }

    /// There is something to read in queue `index`.
    pub(crate) fn wake(&mut self, index: usize) {
        self.turns.wake(index);
    }

    /// Reads a frame, as [`TapQueue::read`] does, from the queue whose turn it is.
    ///
    /// # Errors
    /// `WouldBlock` when all are empty; any other is that of one queue, which is left alone until it [wakes](Self::wake).
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(current) = self.turns.current() {
            match self.queues[current].read(buffer) {
                Ok(len) => {
                    self.given += len.max(FRAME_MIN);
                    if self.given >= TURN {
                        self.turns.pass();
                        self.given = 0;
                    }
                    return Ok(len);
                }
                Err(error) => {
                    self.turns.empty();
                    self.given = 0;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return Err(error);
                    }
                }
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The queue to write frames of a flow by, which its answers will come from: it goes on in the queue that its packets
    /// are written by (`tun_flow_update`, drivers/net/tun.c).
    pub(crate) fn of_flow(&self, hash: u32) -> &TapQueue {
        &self.queues[hash as usize % self.queues.len()]
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[TapQueue] {
        &self.queues
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_short_queue_is_read_before_a_long_one_is_empty() {
        let (ends, mut queues) = queues(2);
        for _ in 0..5 {
            ends[0].send(&[0; 40_000]).expect("room");
        }
        ends[1].send(&[1; 60]).expect("room");
        assert_eq!(order(&mut queues).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn many_short_frames_end_a_turn_too() {
        let (ends, mut queues) = queues(2);
        // A socket holds fewer frames than a turn takes: all but the last of them one by one.
        for _ in 1..TURN / FRAME_MIN {
            ends[0].send(&[0; 60]).expect("room");
            queues.read(&mut [0; 60]).expect("a frame");
        }
        for (end, octet) in [(0, 0), (0, 0), (1, 1)] {
            ends[end].send(&[octet; 60]).expect("room");
        }
        assert_eq!(order(&mut queues).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn nothing_is_read_from_an_empty_queue_until_it_wakes() {
        let (ends, mut queues) = queues(3);
        assert_eq!(order(&mut queues).count(), 0);
        ends[2].send(&[2; 60]).expect("room");
        assert!(!queues.are_due());
        queues.wake(2);
        assert_eq!(order(&mut queues).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_flow_keeps_its_queue() {
        let (ends, queues) = queues(3);
        queues.of_flow(7).write(&[io::IoSlice::new(b"x")]).expect("room");
        queues.of_flow(7).write(&[io::IoSlice::new(b"y")]).expect("room");
        let mut buffer = [0; 8];
        assert_eq!(ends[1].recv(&mut buffer).expect("a frame"), 1);
        assert_eq!(ends[1].recv(&mut buffer).expect("another"), 1);
    }

    /// First octets of all there is to read, in the order it is read.
    fn order(queues: &mut Queues) -> impl Iterator<Item = u8> {
        let mut buffer = vec![0; 65_536];
        std::iter::from_fn(move || queues.read(&mut buffer).ok().map(|_| buffer[0]))
    }

    fn queues(count: usize) -> (Vec<UnixDatagram>, Queues) {
        let pair = || {
            let (end, queue) = UnixDatagram::pair().expect("a pair");
            queue.set_nonblocking(true).expect("a socket");
            (end, TapQueue::from(File::from(OwnedFd::from(queue))))
        };
        let (ends, queues) = (0..count).map(|_| pair()).unzip();
        (ends, Queues::new(queues))
    }
}
