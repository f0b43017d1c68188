//! Asks Docker's engine, and whoever serves the plugin, by HTTP over their sockets.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::doctor::{Engine, Plugin};
use crate::io::docker::plugin;

/// Longest an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer read, octets.
const MAX_ANSWER: u64 = 1 << 20;

pub(super) fn engine(socket: &Path) -> Engine {
    let path = socket.display().to_string();
    if matches!(socket.try_exists(), Ok(false)) {
        return Engine::Absent(path);
    }
    match ask(socket, "GET", "/version") {
        Err(fault) => Engine::Silent { socket: path, fault: fault.to_string() },
        Ok(version) => {
            let swarm =
                ask(socket, "GET", "/info").ok().map(|info| info["Swarm"]["LocalNodeState"] == "active");
            let version = version["Version"].as_str().unwrap_or("of no version").to_owned();
            Engine::Answers { version, swarm: swarm.unwrap_or(false) }
        }
    }
}

pub(super) fn plugin_of(directory: &Path) -> Plugin {
    let socket = plugin::socket(directory);
    let path = socket.display().to_string();
    if matches!(socket.try_exists(), Ok(false)) {
        return Plugin::Absent(path);
    }
    match ask(&socket, "POST", "/Plugin.Activate") {
        Err(fault) if fault.kind() == io::ErrorKind::PermissionDenied => Plugin::Forbidden(path),
        Err(fault) => Plugin::Silent { socket: path, fault: fault.to_string() },
        Ok(answer) => {
            let drivers = answer["Implements"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Plugin::Answers(drivers.map(str::to_owned).collect())
        }
    }
}

/// One call without a body. HTTP/1.0 has no chunks and ends with the connection.
fn ask(socket: &Path, method: &str, path: &str) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: weft\r\nContent-Length: 0\r\n\r\n")?;
    understand(&read(stream)?)
}

fn read(mut stream: UnixStream) -> io::Result<Vec<u8>> {
    let (deadline, mut answer, mut buffer) = (Instant::now() + PATIENCE, Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = match stream.read(&mut buffer) {
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 3 s"));
            }
            other => other?,
        };
        answer.extend_from_slice(&buffer[..length]);
        if length == 0 || answer.len() as u64 > MAX_ANSWER {
            return Ok(answer);
        }
    }
}

/// The JSON of a good answer.
fn understand(answer: &[u8]) -> io::Result<Value> {
    let strange = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n");
    let end = end.ok_or_else(|| strange("the answer is not HTTP".to_owned()))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    if status != "200" {
        return Err(strange(format!(
            "the answer has status '{}'",
            status.chars().take(3).collect::<String>()
        )));
    }
    serde_json::from_slice(&answer[end + 4..])
        .map_err(|fault| strange(format!("the answer is no JSON: {fault}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_good_answer_is_understood() {
        let good =
            understand(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"Implements\":[\"NetworkDriver\"]}").expect("good");
        assert_eq!(good["Implements"][0], "NetworkDriver");
        for bad in
            [&b""[..], b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 404 No\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n{"]
        {
            assert!(understand(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_socket_that_nobody_serves_is_told_from_none() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(matches!(plugin_of(directory.path()), Plugin::Absent(_)));
        drop(std::os::unix::net::UnixListener::bind(plugin::socket(directory.path())).expect("bound"));
        assert!(matches!(plugin_of(directory.path()), Plugin::Silent { .. }));
    }
}
