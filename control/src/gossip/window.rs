//! Replay window: which of a sender's counters were seen.

use std::collections::VecDeque;

/// Counters behind the newest that are still told apart.
const SPAN: u64 = 8192;
const WORDS: usize = (SPAN / 64) as usize;

/// Remembers the last [`SPAN`] counters, in as little memory as their spread needs, at most 1 KiB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// Bitmap words from counter `first_word * 64` on.
    words: VecDeque<u64>,
    first_word: u64,
}

impl Window {
    /// Whether `counter` is new; does not note it, as its message may yet turn out forged.
    pub(crate) fn is_new(&self, counter: u64) -> bool {
        let word = counter / 64;
        if word < self.lowest() {
            return false;
        }
        self.offset(word).and_then(|at| self.words.get(at)).is_none_or(|bits| bits >> (counter % 64) & 1 == 0)
    }

    /// Notes `counter`, whose message was authentic. Call only if [`Window::is_new`].
    pub(crate) fn note(&mut self, counter: u64) {
        let word = counter / 64;
        if self.words.is_empty() {
            self.first_word = word;
        }
        self.reach(word);
        if let Some(bits) = self.offset(word).and_then(|at| self.words.get_mut(at)) {
            *bits |= 1 << (counter % 64);
        }
    }

    fn reach(&mut self, word: u64) {
        let end = self.first_word.saturating_add(self.words.len() as u64);
        if word >= end.saturating_add(SPAN / 64) {
            self.words.clear();
            self.first_word = word;
        }
        while self.first_word > word {
            self.words.push_front(0);
            self.first_word -= 1;
        }
        while self.offset(word).is_some_and(|at| at >= self.words.len()) {
            self.words.push_back(0);
            if self.words.len() > WORDS {
                self.words.pop_front();
                self.first_word += 1;
            }
        }
    }

    fn offset(&self, word: u64) -> Option<usize> {
        word.checked_sub(self.first_word).and_then(|at| usize::try_from(at).ok())
    }

    /// First word that is still inside of the span.
    fn lowest(&self) -> u64 {
        let end = self.first_word.saturating_add(self.words.len() as u64);
        end.saturating_sub(SPAN / 64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn accept(window: &mut Window, counter: u64) -> bool {
        let new = window.is_new(counter);
        if new {
            window.note(counter);
        }
        new
    }

    #[test]
    fn edges_of_the_window_are_told_apart() {
        let mut window = Window::default();
        let top = 1 << 40;
        assert!(accept(&mut window, top));
        assert!(!accept(&mut window, top));
        assert!(accept(&mut window, top - SPAN + 64), "oldest word inside");
        assert!(!accept(&mut window, top - SPAN - 64), "too old to tell");
        assert!(accept(&mut window, u64::MAX));
        assert!(!accept(&mut window, u64::MAX));
        assert!(!accept(&mut window, top));
        assert!(window.words.len() <= WORDS);
    }

    proptest! {
        #[test]
        fn no_counter_is_accepted_twice_and_recent_ones_once(counters in prop::collection::vec(0u64..40_000, 1..400)) {
            let (mut window, mut seen, mut top) = (Window::default(), BTreeSet::new(), 0);
            for counter in counters {
                top = top.max(counter);
                let accepted = accept(&mut window, counter);
                prop_assert!(!(accepted && seen.contains(&counter)));
                if top - counter < SPAN - 64 {
                    prop_assert_eq!(accepted, !seen.contains(&counter));
                }
                if accepted {
                    seen.insert(counter);
                }
                prop_assert!(window.words.len() <= WORDS);
            }
        }
    }
}
