//! Takes a rig's directory away, with what agents pinned in it.

use std::fs;
use std::path::{Path, PathBuf};

use weft_control::io::namespace::Pins;

/// Where rigs live.
const BASE: &str = "/run";

/// The directory of a rig.
pub(super) fn directory(purpose: &str, pid: u32) -> PathBuf {
    Path::new(BASE).join(format!("weft-{purpose}-{pid}"))
}

/// Removes what rigs of this purpose left whose process was killed.
pub(super) fn sweep(purpose: &str) {
    let prefix = format!("weft-{purpose}-");
    for entry in fs::read_dir(BASE).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a rig's directory; what can't be removed stays for the next sweep.
pub(super) fn remove(directory: &Path) {
    for host in fs::read_dir(directory).into_iter().flatten().flatten() {
        unpin(&host.path().join("run/netns"));
    }
    let _ = fs::remove_dir_all(directory);
}

fn unpin(directory: &Path) {
    if !directory.exists() {
        return;
    }
    let Ok(pins) = Pins::open(directory) else { return };
    for name in pins.list().unwrap_or_default() {
        let _ = pins.remove(&name);
    }
}
