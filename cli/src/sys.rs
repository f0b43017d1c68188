//! The few system calls that no safe crate wraps. The only file of this crate with `unsafe`.
#![expect(unsafe_code, reason = "descriptors received by SCM_RIGHTS, and work between fork and exec")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{Pid, getppid};

/// Takes ownership of a descriptor the kernel just made for us in a `SCM_RIGHTS` message.
///
/// Must be called once per descriptor of a message, before anything else can close it.
pub(crate) fn own_received(raw: RawFd) -> OwnedFd {
    // SAFETY: the kernel installed this descriptor in our table during the `recvmsg` that reported it, nobody
    // else knows its number, and the only caller passes each on once.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Makes the command die with the thread that starts it, and start with this signal mask.
pub(crate) fn bind_to_parent(command: &mut Command, parent: Pid, mask: SigSet) {
    let in_child = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            // The parent died between fork and prctl, so no signal will come.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        Ok(())
    };
    // SAFETY: the closure makes three system calls (prctl, getppid, sigprocmask), all async-signal-safe, and
    // allocates nothing: an error code converts to `io::Error` in place.
    unsafe {
        command.pre_exec(in_child);
    }
}
