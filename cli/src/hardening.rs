//! What the agent gives up before it does anything: privileges it has no use for, and memory dumps.

use std::collections::HashSet;

use anyhow::{Context, Result};
use caps::{CapSet, Capability};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::{Resource, setrlimit};

/// Capabilities an agent uses, each for something that nothing less allows.
const USED: [Capability; 7] = [
    // TAP devices, links, addresses, routes, nftables, sysctls of namespaces.
    Capability::CAP_NET_ADMIN,
    // Entering and making network and mount namespaces, pinning them by a mount.
    Capability::CAP_SYS_ADMIN,
    // `setns` to a mount namespace asks for it besides.
    Capability::CAP_SYS_CHROOT,
    // Namespaces of processes that other users run.
    Capability::CAP_SYS_PTRACE,
    // State and run directories that another user owns.
    Capability::CAP_DAC_OVERRIDE,
    // Captures read a packet socket.
    Capability::CAP_NET_RAW,
    // Ports below 1024, where they are configured.
    Capability::CAP_NET_BIND_SERVICE,
];

/// Switches off core dumps of this process, which would hold keys.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn forbid_dumps() -> Result<()> {
    // A core pattern that pipes to a program ignores the limit, a process that is not dumpable is never dumped.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("switch core dumps off")?;
    set_dumpable(false).context("switch core dumps off")
}

/// Gives up, for this process and all it starts: capabilities but for [`USED`], gaining any by running a program, and
/// core dumps. To be called while the process has one thread.
///
/// # Errors
/// The kernel refuses. Some of it may be given up by then.
pub(crate) fn give_up_privileges() -> Result<()> {
    forbid_dumps()?;
    set_no_new_privs().context("give up gaining privileges")?;
    let held = caps::read(None, CapSet::Permitted).context("read this process's capabilities")?;
    let kept: HashSet<Capability> = held.iter().copied().filter(|cap| USED.contains(cap)).collect();
    if held.contains(&Capability::CAP_SETPCAP) {
        // Only who holds this one may narrow what programs it runs can have.
        for unused in caps::read(None, CapSet::Bounding).context("read the bounding set")?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *unused)
                .with_context(|| format!("give {unused} up for good"))?;
        }
    }
    caps::clear(None, CapSet::Inheritable).context("clear inheritable capabilities")?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context("give capabilities up")?;
    }
    Ok(())
}
