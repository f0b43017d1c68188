//! The cluster's key: made, and read from its file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use weft_control::gossip::ClusterKey;

use crate::failure::Outcome;
use crate::output::Screen;

/// Longest file read as a key, octets; a key has 45.
const MAX_FILE: u64 = 4096;
/// Permission bits of everybody but the owner and the group.
const OTHERS: u32 = 0o007;

/// Prints a new key.
pub(crate) fn print(screen: &mut Screen) -> Outcome {
    Ok(screen.line(&generate()?.to_text())?)
}

/// Makes a key of the operating system's randomness.
pub(crate) fn generate() -> Result<ClusterKey> {
    let mut octets = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut octets))
        .context("draw a random key")?;
    Ok(ClusterKey::from_bytes(octets)?)
}

/// Reads a key file.
pub(crate) fn read(path: &Path) -> Result<ClusterKey> {
    let context = || format!("read the cluster's key from {}", path.display());
    let file = File::open(path).with_context(context)?;
    if file.metadata().is_ok_and(|meta| meta.mode() & OTHERS != 0) {
        tracing::warn!(file = %path.display(), "everybody on this host may read the cluster's key; chmod 600 it");
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).with_context(context)?;
    text.parse().with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_reads_back_from_its_file() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("cluster.key");
        let key = generate().expect("key");
        std::fs::write(&path, format!("{}\n", *key.to_text())).expect("write");
        assert!(read(&path).expect("reads") == key);
        assert!(generate().expect("another") != key, "each key is new");
    }

    #[test]
    fn a_bad_key_file_is_named_without_its_content() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("cluster.key");
        std::fs::write(&path, "hunter2").expect("write");
        let error = format!("{:#}", read(&path).expect_err("no key"));
        assert!(error.contains("cluster.key") && error.contains("44 characters"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
