//! The few system calls that no safe crate wraps. The only file of this crate with `unsafe`.
#![expect(unsafe_code, reason = "work between fork and exec, and the kernel's clock")]

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{Pid, dup2_raw, getppid};
use weft_control::io::namespace::Namespace;

use crate::process::FIRST_DESCRIPTOR;

/// What a child does between fork and exec.
pub(crate) struct Birth {
    /// This process: the child dies with the thread of it that starts the child.
    pub(crate) parent: Pid,
    /// Signals the child starts with held back.
    pub(crate) mask: SigSet,
    /// Network namespace it starts in, if another than ours.
    pub(crate) namespace: Option<Namespace>,
    /// What it has as descriptor 3 and after; the numbers of these here are higher, and those are taken.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Makes the command start as the leader of a session of its own, which no terminal's end concerns.
pub(crate) fn in_session_of_its_own(command: &mut Command) {
    // SAFETY: the closure makes one system call, setsid, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}

/// Makes the command start so.
pub(crate) fn prepare(command: &mut Command, birth: Birth) {
    let in_child = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != birth.parent {
            // The parent died between fork and prctl, so no signal will come.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&birth.mask), None)?;
        if let Some(namespace) = &birth.namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
        }
        for (number, descriptor) in (FIRST_DESCRIPTOR..).zip(&birth.descriptors) {
            // SAFETY: whatever has this number in the child is close-on-exec and of no use to it.
            let placed = unsafe { dup2_raw(descriptor, number) }?;
            // It is the command's from here on.
            let _ = placed.into_raw_fd();
        }
        Ok(())
    };
    // SAFETY: the closure makes a few system calls (prctl, getppid, sigprocmask, setns, dup2), all async-signal-safe,
    // and allocates nothing: an error code converts to `io::Error` in place.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// Whether the kernel takes its clock for synchronised (adjtimex(2)); absent where it does not say.
pub(crate) fn clock_is_kept() -> Option<bool> {
    // SAFETY: `timex` is plain C data for which all-zero octets are a valid value; no modes asks and sets nothing.
    let mut clock: nix::libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex reads and writes one timex at the pointer, which is valid for both.
    let state = unsafe { nix::libc::adjtimex(&raw mut clock) };
    (state >= 0).then_some(state != nix::libc::TIME_ERROR)
}
