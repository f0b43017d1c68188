//! redis by its own benchmark: as many requests as 50 clients make, each waiting for its answer.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Site;
use super::running::Running;
use crate::bench::figures::{Better, Figure, Metric};

/// Its own.
const PORT: u16 = 6379;
/// Requests of a kind for each second that a measurement is to take: the benchmark knows no time.
const REQUESTS_PER_SECOND: f64 = 20_000.0;
/// So many at least.
const REQUESTS_LEAST: f64 = 1_000.0;

/// Answers to one kind of request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answered {
    /// `GET` or `SET`.
    pub(super) request: String,
    pub(super) per_second: f64,
    /// Median and 99th percentile, microseconds, where the benchmark tells (from redis 6.2 on).
    pub(super) latency: Option<[f64; 2]>,
}

/// Sets one key again and again, then reads it, 3 octets each; nothing is kept on disk.
pub(super) fn measure(site: &Site<'_>, time: Duration) -> Result<Vec<Figure>> {
    let (address, port) = (site.far.address.to_string(), PORT.to_string());
    let mut server = Command::new("redis-server");
    server.args(["--bind", &address, "--port", &port, "--protected-mode", "no", "--save", ""]);
    server.args(["--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]);
    let _server = Running::serve(server, PORT, site)?;
    let mut client = Command::new("redis-benchmark");
    let count = (time.as_secs_f64() * REQUESTS_PER_SECOND).max(REQUESTS_LEAST).round().to_string();
    client.args(["-h", &address, "-p", &port, "-t", "set,get", "-n", &count, "--csv"]);
    let answered = answered(&Running::ask(client, time * 2, site)?)?;
    Ok(answered.iter().flat_map(figures).collect())
}

fn figures(answered: &Answered) -> Vec<Figure> {
    let Answered { request, per_second, latency } = answered;
    let (name, label) = (format!("redis-{}", request.to_lowercase()), format!("redis {request}"));
    let rate = Metric::new(name.clone(), label.clone(), "1,000/s", Better::More);
    let percentiles = ["p50", "p99"].into_iter().zip(latency.iter().flatten());
    let latency = percentiles.map(|(percentile, micros)| {
        let (name, label) = (format!("{name}-{percentile}"), format!("{label} {percentile}"));
        (Metric::new(name, label, "µs", Better::Less), *micros)
    });
    std::iter::once((rate, per_second / 1e3)).chain(latency).collect()
}

/// What the benchmark says with `--csv`: `"GET","rate"`, from redis 6.2 on below a line of titles and with latencies.
pub(super) fn answered(csv: &str) -> Result<Vec<Answered>> {
    let mut lines = csv.lines().map(cells).peekable();
    let titles = lines.next_if(|cells| cells.first() == Some(&"test")).unwrap_or_default();
    let latency = |cells: &[&str], title| {
        let column = titles.iter().position(|known| *known == title)?;
        cells.get(column)?.parse::<f64>().ok().map(|millis| millis * 1e3)
    };
    let answered: Vec<_> = lines
        .filter_map(|cells| {
            let per_second = cells.get(1)?.parse().ok().filter(|rate| *rate > 0.0)?;
            let both = latency(&cells, "p50_latency_ms").zip(latency(&cells, "p99_latency_ms"));
            Some(Answered {
                request: (*cells.first()?).to_owned(),
                per_second,
                latency: both.map(Into::into),
            })
        })
        .collect();
    ensure!(
        answered.iter().map(|answered| answered.request.as_str()).eq(["SET", "GET"]),
        "redis-benchmark: {csv}"
    );
    Ok(answered)
}

fn cells(line: &str) -> Vec<&str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"')).collect()
}
