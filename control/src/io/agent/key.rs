//! The cluster's key of an agent that was given none: made once, kept in the state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::AgentError;
use crate::gossip::ClusterKey;
use crate::io::holding::failed;

/// Name of the key file.
const FILE: &str = "cluster.key";
/// Longest key file read, octets.
const MAX_LEN: u64 = 1024;

/// Reads the key of `directory`, or makes one there.
///
/// # Errors
/// The file cannot be read or made, or what is there is no key.
pub(super) fn own(directory: &Path) -> Result<(ClusterKey, PathBuf), AgentError> {
    let path = directory.join(FILE);
    let key = match File::open(&path) {
        Ok(file) => read(&path, file)?,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => make(directory, &path)?,
        Err(fault) => return Err(failed(format!("read {}", path.display()))(fault)),
    };
    Ok((key, path))
}

fn read(path: &Path, file: File) -> Result<ClusterKey, AgentError> {
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_LEN).read_to_string(&mut text).map_err(failed(format!("read {}", path.display())))?;
    text.parse().map_err(|fault| AgentError::Start(format!("{}: {fault}", path.display())))
}

/// Written beside and moved into place, so that a crash leaves a whole key or none.
fn make(directory: &Path, path: &Path) -> Result<ClusterKey, AgentError> {
    let mut octets = Zeroizing::new([0; 32]);
    getrandom::fill(&mut octets[..])
        .map_err(|fault| AgentError::Start(format!("cannot make a key: {fault}")))?;
    let key = ClusterKey::from_bytes(*octets).map_err(|fault| AgentError::Start(fault.to_string()))?;
    let draft = directory.join("cluster.key.new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(key.to_text().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed(format!("write {}", path.display())))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_to_ourselves() {
        let directory = tempfile::tempdir().expect("a directory");
        let (first, path) = own(directory.path()).expect("made");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        let (second, _) = own(directory.path()).expect("read");
        assert!(first == second, "the same key");
        std::fs::write(&path, "not a key\n").expect("written");
        let refused = own(directory.path()).expect_err("it is no key").to_string();
        assert!(refused.contains("cluster.key") && !refused.contains("not a key"), "{refused}");
    }
}
