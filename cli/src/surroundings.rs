//! What a command in a sandbox finds in `/etc`, and what its host is called: in mount and UTS namespaces of its own,
//! as `ip netns exec` does it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use weft_control::api::{Sandbox, SandboxFiles};

/// Where files are put for a moment that are nowhere to be seen from here; what is there is covered meanwhile.
const STAGES: [&str; 3] = ["/tmp", "/mnt", "/var"];

/// What a sandbox's commands find.
#[derive(Debug)]
pub(crate) struct Surroundings {
    files: SandboxFiles,
    /// Directory of the pins that keep namespaces alive.
    pins: Option<PathBuf>,
}

impl Surroundings {
    /// Those of a sandbox; none if weft did not make it.
    pub(crate) fn new(sandbox: &Sandbox, files: SandboxFiles) -> Option<Self> {
        let pins = Path::new(&sandbox.namespace).parent().map(Path::to_owned);
        (!files.hostname.is_empty()).then_some(Self { files, pins })
    }

    /// Moves the calling thread to mount and UTS namespaces of its own where everything is as the sandbox has it. It
    /// stays there: the way back would need `CAP_SYS_CHROOT` (`man 2 setns`), which containers are rarely given.
    ///
    /// # Errors
    /// The kernel refuses: this needs root. The thread may be moved by then.
    pub(crate) fn enter(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
            .context("make mount and UTS namespaces for the command (this needs root)")?;
        // What the host mounts and unmounts is still seen; what is mounted here is seen by nobody else.
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).context("make mounts our own")?;
        self.let_go();
        self.put_files()?;
        sethostname(&self.files.hostname).context("set the host name")
    }

    /// Unmounts our copies of pins: they would keep other sandboxes' namespaces for as long as the command runs.
    fn let_go(&self) {
        for pin in self.pins.iter().flat_map(fs::read_dir).flatten().flatten() {
            // What is no mount is no pin.
            let _ = umount2(&pin.path(), MntFlags::MNT_DETACH);
        }
    }

    fn put_files(&self) -> Result<()> {
        let SandboxFiles { resolv_conf, hosts, hostname, .. } = &self.files;
        let SandboxFiles { resolv_conf_path, hosts_path, hostname_path, .. } = &self.files;
        let files = [
            ("/etc/resolv.conf", resolv_conf_path, resolv_conf.clone()),
            ("/etc/hosts", hosts_path, hosts.clone()),
            ("/etc/hostname", hostname_path, format!("{hostname}\n")),
        ];
        for (target, source, text) in files {
            // The target may be a link to somewhere that is covered for the moment; a host may lack the file.
            let Ok(target) = fs::canonicalize(target) else { continue };
            put(&target, Path::new(source), &text)
                .with_context(|| format!("put {} in place", target.display()))?;
        }
        Ok(())
    }
}

const NONE: Option<&str> = None;

/// Mounts the agent's file, which changes with the sandbox; where this is another mount namespace than the agent's, a
/// copy of it.
fn put(target: &Path, source: &Path, text: &str) -> Result<()> {
    if fs::read(source).is_ok_and(|octets| octets == text.as_bytes()) {
        return Ok(bind(source, target)?);
    }
    let stage = STAGES.iter().map(Path::new).find(|stage| stage.is_dir()).context("there is no /tmp")?;
    mount(Some("tmpfs"), stage, Some("tmpfs"), MsFlags::empty(), Some("size=1m,mode=755"))?;
    let copy = stage.join("file");
    let put = fs::write(&copy, text)
        .and_then(|()| fs::set_permissions(&copy, Permissions::from_mode(0o644)))
        .and_then(|()| bind(&copy, target));
    // The file stays where it is mounted.
    umount2(stage, MntFlags::MNT_DETACH)?;
    Ok(put?)
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?)
}
