//! The `nft` command: batches in, counters out. Nothing else it prints is read.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::namespace::{Namespace, NamespaceError};

/// Where Debian has it, for agents whose PATH lacks `/usr/sbin`.
const USUAL_PLACE: &str = "/usr/sbin/nft";
/// Longest a batch may take; usual are some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_micros(500);
/// Most octets of a complaint that are passed on.
const COMPLAINT_MAX: usize = 300;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// No such program.
    #[error("there is no nft here; install nftables")]
    Missing,
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// It could not be run.
    #[error("cannot run nft: {0}")]
    Run(#[from] io::Error),
    /// It refused.
    #[error("nft: {0}")]
    Refused(String),
    /// It took too long.
    #[error("nft gave no answer in {} s", PATIENCE.as_secs())]
    Late,
    /// It does not list counters as documented in libnftables-json(5).
    #[error("nft lists counters in an unknown form")]
    Form,
}

/// Carries `batch` out in `namespace`, whole or not at all.
///
/// # Errors
/// Nothing was changed.
pub(crate) fn apply(namespace: &Namespace, batch: &str) -> Result<(), NftError> {
    apply_known(namespace, batch, |_| ())
}

/// As [`apply`]; `started` gets to know the process that changes the tables before it can.
///
/// # Errors
/// Nothing was changed.
pub(crate) fn apply_known(
    namespace: &Namespace,
    batch: &str,
    started: impl Fn(u32) + Sync,
) -> Result<(), NftError> {
    run(namespace, &["-f", "-"], batch, &started).map(drop)
}

/// Packets counted by the named counters of `table` (`FAMILY NAME`).
///
/// # Errors
/// There is no such table, or `nft` fails.
pub(crate) fn counters(namespace: &Namespace, table: &str) -> Result<BTreeMap<String, u64>, NftError> {
    let words: Vec<_> = ["-j", "list", "counters", "table"].into_iter().chain(table.split(' ')).collect();
    parse(&run(namespace, &words, "", &|_| ())?).ok_or(NftError::Form)
}

/// What it calls itself, such as `nftables v1.0.6`.
///
/// # Errors
/// There is none, or it fails.
pub(crate) fn version() -> Result<String, NftError> {
    let said = run_here(&["--version"], "", &|_| ())?;
    Ok(said.split(" (").next().unwrap_or_default().trim().chars().take(COMPLAINT_MAX).collect())
}

/// `{"nftables": [{"counter": {"name": …, "packets": …, …}}, …]}`.
fn parse(listed: &str) -> Option<BTreeMap<String, u64>> {
    let listed: serde_json::Value = serde_json::from_str(listed).ok()?;
    let counters = listed["nftables"].as_array()?.iter().map(|item| &item["counter"]);
    let counters = counters.filter(|counter| counter.is_object());
    counters.map(|c| Some((c["name"].as_str()?.to_owned(), c["packets"].as_u64()?))).collect()
}

fn run(
    namespace: &Namespace,
    words: &[&str],
    input: &str,
    started: &(dyn Fn(u32) + Sync),
) -> Result<String, NftError> {
    namespace.run(|| run_here(words, input, started))?
}

/// Runs it in the calling thread's namespace.
fn run_here(words: &[&str], input: &str, started: &(dyn Fn(u32) + Sync)) -> Result<String, NftError> {
    let mut child = start("nft", words).or_else(|fault| match fault.kind() {
        io::ErrorKind::NotFound => start(USUAL_PLACE, words),
        _ => Err(fault),
    });
    match &mut child {
        Ok(child) => {
            started(child.id());
            finish(child, input)
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Err(NftError::Missing),
        Err(fault) => Err(io::Error::from(fault.kind()).into()),
    }
}

/// Starts it with nothing of ours open but its three streams: descriptors of this process are close-on-exec.
fn start(program: &str, words: &[&str]) -> io::Result<Child> {
    Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish(child: &mut Child, input: &str) -> Result<String, NftError> {
    // It may refuse before it has read everything; its complaint says more than the broken pipe.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(NftError::Late);
            }
            None => std::thread::sleep(LOOK),
        }
    };
    let (mut said, mut complaint) = (String::new(), String::new());
    child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut said)).transpose()?;
    child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut complaint)).transpose()?;
    if status.success() { Ok(said) } else { Err(NftError::Refused(shorten(&complaint))) }
}

/// The lines that name an error, in one.
fn shorten(complaint: &str) -> String {
    let errors: Vec<_> = complaint.lines().filter(|line| line.contains("Error")).map(str::trim).collect();
    let text = if errors.is_empty() { complaint.trim().to_owned() } else { errors.join("; ") };
    text.chars().take(COMPLAINT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_nothing_else_is_taken_for_one() {
        let listed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "bridge", "name": "a", "table": "weft", "handle": 1, "packets": 3, "bytes": 9}}]}"#;
        assert_eq!(parse(listed), Some(BTreeMap::from([("a".to_owned(), 3)])));
        for bad in ["", "[]", r#"{"nftables": [{"counter": {"name": "a"}}]}"#] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_complaint_is_cut_to_what_is_wrong() {
        let said =
            "/dev/stdin:1:1-2: Error: Could not process rule: Operation not supported\nadd table\n^^^\n";
        assert_eq!(shorten(said), "/dev/stdin:1:1-2: Error: Could not process rule: Operation not supported");
        assert_eq!(shorten("no\n"), "no");
    }
}
