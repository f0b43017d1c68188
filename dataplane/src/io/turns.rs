//! Whose turn it is among a worker's queues of one kind.
//!
//! The kernel spreads flows over queues by their hash: over those of a TAP, and over sockets that share a port. With more
//! queues than workers, served by turns, a flow waits behind little but its own packets, however many others send
//! (stochastic fair queueing, McKenney 1990): a ping passes streams that fill their queues.

/// Most queues of one kind that a worker has. Each costs a descriptor, and memory in the kernel as it fills.
pub(crate) const MOST: usize = 8;
/// Queues that are enough for all workers together.
const ENOUGH: usize = 32;

const _: () = assert!(MOST <= u8::BITS as usize);

/// Queues that each of `workers` workers has.
pub(crate) fn per_worker(workers: usize) -> usize {
    (ENOUGH / workers.max(1)).clamp(1, MOST)
}

/// Which of up to [`MOST`] queues there may be something in, and whose turn it is.
pub(crate) struct Turns {
    /// Bit `i`: there may be something in queue `i`.
    ready: u8,
    count: usize,
    current: usize,
}

impl Turns {
    /// For `count` queues, 1 to [`MOST`]; there may be something in each.
    pub(crate) fn new(count: usize) -> Self {
        debug_assert!((1..=MOST).contains(&count));
        let count = count.clamp(1, MOST);
        Self { ready: u8::MAX >> (MOST - count), count, current: 0 }
    }

    /// Whether there may be something in any.
    pub(crate) fn are_due(&self) -> bool {
        self.ready != 0
    }

    /// There is something in queue `index`.
    pub(crate) fn wake(&mut self, index: usize) {
        if index < self.count {
            self.ready |= 1 << index;
        }
    }

    /// The queue whose turn it is, until it [passes](Self::pass) or is [empty](Self::empty).
    pub(crate) fn current(&mut self) -> Option<usize> {
        if !self.are_due() {
            return None;
        }
        while self.ready & (1 << self.current) == 0 {
            self.pass();
        }
        Some(self.current)
    }

    /// It is the next one's turn.
    pub(crate) fn pass(&mut self) {
        self.current = (self.current + 1) % self.count;
    }

    /// There is nothing more in the queue whose turn it is, until it [wakes](Self::wake).
    pub(crate) fn empty(&mut self) {
        self.ready &= !(1 << self.current);
        self.pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_out_some_dozen_queues_and_have_one_at_least() {
        let shares = [1, 2, 4, 8, 16, 32, 64, 256].map(per_worker);
        assert_eq!(shares, [8, 8, 8, 4, 2, 1, 1, 1]);
    }

    #[test]
    fn turns_go_round_those_that_are_not_empty() {
        let mut turns = Turns::new(3);
        assert_eq!(turns.current(), Some(0));
        assert_eq!(turns.current(), Some(0), "its turn lasts until it passes");
        turns.pass();
        assert_eq!(turns.current(), Some(1));
        turns.empty();
        assert_eq!(turns.current(), Some(2));
        turns.pass();
        turns.pass();
        assert_eq!(turns.current(), Some(2), "the one between is empty");
    }

    #[test]
    fn an_empty_queue_has_no_turn_until_it_wakes() {
        let mut turns = Turns::new(2);
        for _ in 0..2 {
            assert!(turns.current().is_some());
            turns.empty();
        }
        assert_eq!((turns.current(), turns.are_due()), (None, false));
        turns.wake(1);
        assert_eq!(turns.current(), Some(1));
        turns.empty();
        turns.wake(2);
        assert_eq!(turns.current(), None, "there is no third");
    }
}
