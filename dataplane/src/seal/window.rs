//! The replay window of one queue: which packet numbers were seen (after RFC 6479).
//!
//! A ring of words holds one bit per number. Moving on clears whole words and shifts nothing, so a packet costs
//! the same wherever in the window it falls.

/// 8 KiB: a sender's numbers come by several sockets, which are read by turns, and what waits in one with a thousand others
/// must not be too old when theirs have passed.
const WORDS: u64 = 1024;
const BITS: u64 = u64::BITS as u64;

/// Numbers seen, for the newest [`Window::LEN`] of them.
#[derive(Debug, Clone)]
pub struct Window {
    /// One more than the highest number seen.
    next: u64,
    seen: [u64; WORDS as usize],
}

impl Default for Window {
    fn default() -> Self {
        Self { next: 0, seen: [0; _] }
    }
}

impl Window {
    /// How far behind the newest a number may come: 65,472. One word of the ring is always partly ahead.
    pub const LEN: u64 = (WORDS - 1) * BITS;

    /// Notes `number`, which must be authentic; false where it was seen before or is too old to tell.
    #[inline]
    pub fn accept(&mut self, number: u64) -> bool {
        if number >= self.next {
            self.advance(number);
        } else if self.next - number > Self::LEN {
            return false;
        }
        let word = &mut self.seen[(number / BITS % WORDS) as usize];
        let bit = 1 << (number % BITS);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Makes `number` the newest: what lies between was not seen.
    #[inline]
    fn advance(&mut self, number: u64) {
        let newest = self.next.saturating_sub(1) / BITS;
        let skipped = (number / BITS - newest).min(WORDS);
        for word in 1..=skipped {
            self.seen[((newest + word) % WORDS) as usize] = 0;
        }
        self.next = number.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_holds_at_least_8192_numbers_and_its_edges_are_exact() {
        const { assert!(Window::LEN >= 8192) };
        let mut window = Window::default();
        let newest = 100_000;
        assert!(window.accept(newest));
        assert!(window.accept(newest + 1 - Window::LEN), "the oldest that can be told");
        assert!(!window.accept(newest - Window::LEN), "one older");
        assert!(!window.accept(newest));
        assert!(window.accept(newest + 1));
        assert!(!window.accept(newest + 1 - Window::LEN), "the edge moved on");
    }

    #[test]
    fn the_first_number_may_be_zero_and_the_last_ends_the_sequence() {
        let mut window = Window::default();
        assert!(window.accept(0));
        assert!(!window.accept(0));
        assert!(window.accept(u64::MAX >> 8));
        assert!(!window.accept(u64::MAX >> 8));
        assert!(!window.accept(0));
    }

    #[test]
    fn a_leap_forgets_nothing_it_must_remember_and_nothing_it_must_forget() {
        for leap in [63, 64, 65, Window::LEN - 1, Window::LEN, Window::LEN + 64, 1 << 40] {
            let mut window = Window::default();
            for number in 0..200 {
                assert!(window.accept(number));
            }
            assert!(window.accept(200 + leap), "{leap}");
            for number in (200..200 + leap).rev().take(20_000) {
                let in_window = 201 + leap - number <= Window::LEN;
                assert_eq!(window.accept(number), in_window, "{number} after a leap of {leap}");
            }
            for number in 0..200 {
                assert!(!window.accept(number), "{number} a second time, after a leap of {leap}");
            }
        }
    }

    proptest! {
        #[test]
        fn each_number_is_accepted_once_while_the_window_reaches_it(
            steps in vec((any::<bool>(), 0u64..40_000), 1..400),
        ) {
            let mut window = Window::default();
            let mut seen = HashSet::new();
            let mut next = 0u64;
            for (ahead, step) in steps {
                let number = if ahead { next + step } else { next.saturating_sub(step) };
                let wanted = (number >= next || next - number <= Window::LEN) && seen.insert(number);
                prop_assert_eq!(window.accept(number), wanted, "{} of {}", number, next);
                next = next.max(number + 1);
            }
        }
    }
}
