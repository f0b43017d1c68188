//! What a person sees on standard error while it runs: one moving line on a terminal, one line per measure elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::output::escape;

/// How far it is.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    start: Instant,
    whole: Duration,
    done: Duration,
    /// What was last said where no line moves.
    said: String,
}

impl Progress {
    /// At the start of what takes about so long.
    pub(super) fn new(whole: Duration) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { terminal, start: Instant::now(), whole, done: Duration::ZERO, said: String::new() }
    }

    /// Says what is done now, once; at first how long it takes.
    pub(super) fn say(&mut self, text: &str) {
        if self.said.is_empty() {
            self.write(&format!("this takes about {}; Ctrl-C ends it\n", words(self.whole)));
        }
        if self.terminal {
            self.write(&format!("\r\x1b[K{}", escape(text)));
        } else if self.said != text {
            self.write(&format!("{}\n", escape(text)));
        }
        text.clone_into(&mut self.said);
    }

    /// Says which measurement runs now.
    pub(super) fn show(&mut self, step: &str, detail: &str) {
        if self.terminal {
            let left = words(left(self.whole, self.done, self.start.elapsed()));
            self.say(&format!("{step}, {detail} ({left} left)"));
        } else {
            self.say(step);
        }
    }

    /// So much of the whole is done.
    pub(super) fn done(&mut self, part: Duration) {
        self.done += part;
    }

    fn write(&self, text: &str) {
        let mut err = io::stderr();
        // A standard error that is gone is no reason to stop.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            self.write("\r\x1b[K");
        }
    }
}

/// What is left, judged by how long the part that is done took.
fn left(whole: Duration, done: Duration, elapsed: Duration) -> Duration {
    let rest = whole.saturating_sub(done);
    if done.is_zero() { rest } else { rest.mul_f64(elapsed.as_secs_f64() / done.as_secs_f64()) }
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..90 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_judged_by_what_the_rest_took() {
        let minute = Duration::from_secs(60);
        assert_eq!(left(minute * 4, Duration::ZERO, Duration::ZERO), minute * 4);
        assert_eq!(left(minute * 4, minute, minute * 2), minute * 6);
        assert_eq!(left(minute, minute * 2, minute), Duration::ZERO, "more was done than thought");
        assert_eq!((words(Duration::from_millis(5)), words(minute * 2)), ("1 s".into(), "2 min".into()));
    }
}
