//! nginx asked by wrk: a small file again and again, then a large one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::running::Running;
use super::{Site, whole_seconds};
use crate::bench::figures::{Better, Figure, Metric};

const PORT: u16 = 8080;
/// Names of the files, their octets, and how many connections ask for them at once.
const SMALL: (&str, usize, u8) = ("small", 1 << 10, 16);
const LARGE: (&str, usize, u8) = ("large", 1 << 20, 4);
/// What wrk says at its end (its own words are for people, rounded and in units of its choice).
const SUMMARY: &str = r#"done = function(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"octets":%d,"micros":%d,"p50":%.0f,"p99":%.0f,"errors":%d}\n',
        summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
"#;

/// What wrk measured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Summary {
    /// Answers that arrived whole.
    pub(super) requests: u64,
    /// Everything that arrived, headers too.
    pub(super) octets: u64,
    pub(super) micros: u64,
    /// Microseconds from a request to the end of its answer.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) errors: u64,
}

/// Asks for each file for `time`, in whole seconds.
pub(super) fn measure(site: &Site<'_>, time: Duration) -> Result<Vec<Figure>> {
    lay_out(site)?;
    let mut server = Command::new("nginx");
    server.arg("-p").arg(&site.directory).args(["-e", "stderr", "-c", "nginx.conf"]);
    let _server = Running::serve(server, PORT, site)?;
    let (small, large) = (ask(SMALL, time, site)?, ask(LARGE, time, site)?);
    let metric = |name: &str, label: &str, unit, better| {
        Metric::new(format!("http-{name}"), format!("HTTP, {label}"), unit, better)
    };
    Ok(vec![
        (metric("small", "file of 1 KiB", "1,000/s", Better::More), small.per_second(small.requests) / 1e3),
        (metric("small-p50", "file of 1 KiB p50", "µs", Better::Less), small.p50),
        (metric("small-p99", "file of 1 KiB p99", "µs", Better::Less), small.p99),
        (
            metric("large", "file of 1 MiB", "Gbit/s", Better::More),
            large.per_second(large.octets) * 8.0 / 1e9,
        ),
    ])
}

impl Summary {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / (self.micros as f64 / 1e6)
    }
}

fn ask((file, _, connections): (&str, usize, u8), time: Duration, site: &Site<'_>) -> Result<Summary> {
    let mut client = Command::new("wrk");
    client.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{}s", whole_seconds(time))]);
    client.args(["-s", "summary.lua"]).arg(format!("http://{}:{PORT}/{file}", site.far.address));
    summary(&Running::ask(client, time, site)?)
}

/// The summary in what wrk printed.
pub(super) fn summary(said: &str) -> Result<Summary> {
    let line = said.lines().find(|line| line.starts_with('{')).context("wrk says nothing at its end")?;
    let summary: Summary = serde_json::from_str(line).context("wrk says what is not understood")?;
    ensure!(summary.errors == 0, "wrk counts {} errors", summary.errors);
    ensure!(summary.requests > 0 && summary.micros > 0, "wrk got no answer");
    Ok(summary)
}

/// Writes the server's configuration, the files it serves and the client's script.
fn lay_out(site: &Site<'_>) -> Result<()> {
    let write = |name: &str, content: &[u8]| {
        let file = site.directory.join(name);
        fs::write(&file, content).with_context(|| format!("write {}", file.display()))
    };
    write("nginx.conf", configuration(&site.directory, &format!("{}:{PORT}", site.far.address)).as_bytes())?;
    write("summary.lua", SUMMARY.as_bytes())?;
    for (name, octets, _) in [SMALL, LARGE] {
        write(name, &vec![b'w'; octets])?;
    }
    Ok(())
}

/// One process that serves the directory and writes nowhere else. As one it also ends as one: workers outlive a master
/// that is killed.
fn configuration(directory: &Path, at: &str) -> String {
    let directory = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {directory}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log stderr warn;\n\
         events {{}}\nhttp {{\n    access_log off;\n    sendfile on;\n    tcp_nopush on;\n    \
         keepalive_requests 1000000000;\n{temporary}    server {{ listen {at}; root {directory}; }}\n}}\n"
    )
}
