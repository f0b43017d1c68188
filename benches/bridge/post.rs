//! One request over a unix socket, timed: the same for both, whatever their command lines cost.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Posts `body` and waits for the whole answer.
///
/// # Errors
/// No connection, or a status that is not 2xx.
pub(crate) fn timed(socket: &Path, path: &str, body: &str) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).with_context(|| format!("reach {}", socket.display()))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let taken = start.elapsed();
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{path}: {}", answer.trim());
    Ok(taken)
}
