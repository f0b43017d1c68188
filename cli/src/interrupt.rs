//! Ctrl-C, SIGTERM and SIGHUP as something to look at, so that there is always a chance to clean up.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// How often work on another thread is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The user asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Holds back the signals that ask for the end.
#[derive(Debug)]
pub struct Interrupt {
    source: SignalFd,
    before: SigSet,
}

impl Interrupt {
    /// Starts holding them back, for this thread and those it makes.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn watch() -> io::Result<Self> {
        let held: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before))?;
        Ok(Self { source: SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC)?, before })
    }

    /// The signal mask that children are to start with.
    pub(crate) fn mask_before(&self) -> SigSet {
        self.before
    }

    /// Waits so long.
    ///
    /// # Errors
    /// [`Interrupted`], at once when it happens; it stays so.
    pub fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        let until = Instant::now() + time;
        loop {
            let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now()));
            let mut ready = [PollFd::new(self.source.as_fd(), PollFlags::POLLIN)];
            // The signal is left unread: whoever looks next is interrupted too, until the rig is gone.
            match poll(&mut ready, left.unwrap_or(PollTimeout::MAX)) {
                Ok(0) if Instant::now() < until => {}
                Ok(0) => return Ok(()),
                Err(Errno::EINTR) => {}
                _ => return Err(Interrupted),
            }
        }
    }

    /// Waits until interrupted.
    pub fn wait(&self) {
        while self.pause(Duration::from_secs(3600)).is_ok() {}
    }

    /// Does work on another thread; left to itself when interrupted.
    ///
    /// # Errors
    /// [`Interrupted`], or the thread panicked.
    pub fn unless_interrupted<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (done, result) = mpsc::channel();
        thread::Builder::new()
            .name("weft-measure".into())
            .spawn(move || done.send(work()))
            .context("start a thread")?;
        loop {
            match result.recv_timeout(LOOK) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => self.pause(Duration::ZERO)?,
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("a measurement panicked"),
            }
        }
    }

    /// Looks every 5 ms until there is an answer; `None` where there was none within `limit`.
    ///
    /// # Errors
    /// [`Interrupted`], or what `look` fails with.
    pub fn until<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let start = Instant::now();
        loop {
            if let Some(value) = look()? {
                return Ok(Some(value));
            }
            if start.elapsed() >= limit {
                return Ok(None);
            }
            self.pause(Duration::from_millis(5))?;
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // A signal that was only looked at would end us as soon as it is let through; it has had its effect.
        while self.pause(Duration::ZERO).is_err() && self.source.read_signal().is_ok() {}
        // Fails only for a wrong argument.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
