//! `weft agent`: settings, logs, signals, and the agent itself.

use std::future::Future;
use std::path::Path;

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weft_control::io::agent::{self, ReadyReport};

use crate::args::AgentArgs;
use crate::config;
use crate::failure::Outcome;
use crate::hardening;
use crate::output::{Screen, escape};

/// Runs the agent until it is told to stop.
pub(crate) fn perform(args: &AgentArgs, socket: Option<&Path>, screen: &mut Screen) -> Outcome {
    hardening::give_up_privileges()?;
    start_logging(&args.log)?;
    let mut config = config::compose(args, std::env::var_os("CREDENTIALS_DIRECTORY"))?;
    config.socket = socket.map(Path::to_owned);
    let alone = config.join.is_empty();
    // Control needs little: packets have threads of their own.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        agent::run(config, |report| announce(report, alone, screen), stop).await.map_err(anyhow::Error::from)
    })?;
    Ok(())
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
fn announce(report: &ReadyReport, alone: bool, screen: &mut Screen) {
    for line in ready_lines(report, alone) {
        let _ = screen.line(&escape(&line));
    }
    notify(NotifyState::Ready);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

fn ready_lines(report: &ReadyReport, alone: bool) -> Vec<String> {
    let ReadyReport { name, advertise, data_port, gossip_port, socket, own_key, .. } = report;
    let mut lines = vec![format!(
        "ready: node {name} at {advertise}, data {data_port}/udp, gossip {gossip_port}/udp+tcp, socket {}",
        socket.display()
    )];
    if let (true, Some(key)) = (alone, own_key) {
        let port = if *gossip_port == agent::DEFAULT_GOSSIP_PORT {
            String::new()
        } else {
            format!(":{gossip_port}")
        };
        let host = if advertise.is_ipv6() && !port.is_empty() {
            format!("[{advertise}]")
        } else {
            advertise.to_string()
        };
        lines.push("This is a cluster of one. To join another host, copy the key to it (it is a secret), then there:".to_owned());
        lines.push(format!("    scp {} OTHER:cluster.key", key.display()));
        lines.push(format!("    weft agent --cluster-key cluster.key --join {host}{port}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use weft_control::model::NodeId;

    use super::*;

    fn report() -> ReadyReport {
        ReadyReport {
            name: "a".parse().expect("name"),
            node_id: NodeId([7; 16]),
            advertise: [192, 0, 2, 1].into(),
            data_port: 4789,
            gossip_port: 7946,
            socket: "/run/weft/weft.sock".into(),
            own_key: Some("/var/lib/weft/cluster.key".into()),
        }
    }

    #[test]
    fn an_agent_alone_says_how_another_host_joins() {
        let text = ready_lines(&report(), true).join("\n");
        assert!(text.contains("ready: node a at 192.0.2.1"), "{text}");
        assert!(
            text.contains("weft agent --cluster-key cluster.key --join 192.0.2.1\n")
                || text.ends_with("192.0.2.1")
        );
        let other =
            ReadyReport { gossip_port: 8000, advertise: "2001:db8::1".parse().expect("ip"), ..report() };
        assert!(ready_lines(&other, true).join("\n").ends_with("--join [2001:db8::1]:8000"));
    }

    #[test]
    fn an_agent_that_was_given_a_key_or_a_member_says_only_that_it_is_ready() {
        assert_eq!(ready_lines(&ReadyReport { own_key: None, ..report() }, true).len(), 1);
        assert_eq!(ready_lines(&report(), false).len(), 1);
    }
}
