//! `weft agent`: settings, logs, signals, and the agent itself.

use std::future::Future;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weft_control::io::agent::{self, ReadyReport};

use crate::args::AgentArgs;
use crate::config;
use crate::failure::Outcome;
use crate::hardening;
use crate::output::{Screen, escape};
use crate::watchdog;

/// Runs the agent until it is told to stop.
pub(crate) fn perform(args: &AgentArgs, socket: Option<&Path>, screen: &mut Screen) -> Outcome {
    hardening::give_up_privileges()?;
    allow_descriptors()?;
    start_logging(&args.log)?;
    let mut config = config::compose(args, std::env::var_os("CREDENTIALS_DIRECTORY"))?;
    config.socket = socket.map(Path::to_owned);
    // Control needs little: packets have threads of their own.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        agent::run(config, |report| announce(report, screen), stop).await.map_err(anyhow::Error::from)
    })?;
    Ok(())
}

/// Allows as many open descriptors as the system does: each sandbox takes some.
fn allow_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open descriptors")
}

fn start_logging(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("'{filter}' is not a log filter"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    Ok(())
}

/// Resolves on SIGTERM or SIGINT, and then tells systemd.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify(NotifyState::Stopping);
    })
}

/// Says that the agent serves, to the operator and to systemd; a standard output that is gone is no reason to stop.
fn announce(report: &ReadyReport, screen: &mut Screen) {
    let _ = screen.line(&escape(&ready_line(report)));
    notify(NotifyState::Ready);
    if let Err(error) = watchdog::feed(&report.socket) {
        tracing::warn!(%error, "cannot feed systemd's watchdog");
    }
}

pub(crate) fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

fn ready_line(report: &ReadyReport) -> String {
    let ReadyReport { name, advertise, data_port, gossip_port, socket, .. } = report;
    format!(
        "ready: node {name} at {advertise}, data {data_port}/udp, gossip {gossip_port}/udp+tcp, socket {}",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use weft_control::model::NodeId;

    use super::*;

    #[test]
    fn a_ready_agent_says_where_it_is() {
        let report = ReadyReport {
            name: "a".parse().expect("name"),
            node_id: NodeId([7; 16]),
            advertise: [192, 0, 2, 1].into(),
            data_port: 4789,
            gossip_port: 7946,
            socket: "/run/weft/weft.sock".into(),
        };
        assert!(ready_line(&report).starts_with("ready: node a at 192.0.2.1, data 4789/udp"));
    }
}
