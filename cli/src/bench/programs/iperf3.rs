//! One TCP stream of iperf3.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::running::Running;
use super::{Site, whole_seconds};
use crate::bench::figures::{Better, Figure, Metric};
use crate::traffic::congestion;

/// Its own.
const PORT: u16 = 5201;

/// Sends for `time`, in whole seconds; what the far end received.
pub(super) fn measure(site: &Site<'_>, time: Duration) -> Result<Vec<Figure>> {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--bind", &site.far.address.to_string()]);
    let _server = Running::serve(server, PORT, site)?;
    let mut client = Command::new("iperf3");
    client.args(["--client", &site.far.address.to_string(), "--congestion", &congestion()]);
    client.args(["--time", &whole_seconds(time).to_string(), "--json"]);
    let received = received(&Running::ask(client, time, site)?)?;
    let metric = Metric::new("iperf3-1".to_owned(), "iperf3, 1 stream".to_owned(), "Gbit/s", Better::More);
    Ok(vec![(metric, received / 1e9)])
}

/// Bits per second that arrived, from a client's report.
pub(super) fn received(report: &str) -> Result<f64> {
    let report: Value = serde_json::from_str(report).context("what iperf3 says is no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.filter(|rate| *rate > 0.0).context("iperf3 says nothing of what arrived")
}
