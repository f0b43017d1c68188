//! From attaching a sandbox on one host to its first answer from the others, on three hosts of one machine.
//!
//! `cargo bench -p weft --bench attach -- --attachments 10` runs a short form. Needs root.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use weft::rig::{Blueprint, Rig, Wiring};
use weft::traffic::{Pinger, Station};
use weft_control::api::{Ipam, IpamConfig, NetworkCreate, Sandbox};
use weft_control::io::namespace::set_sysctl;

use environment::say;

mod environment;

/// Options of the benchmark.
#[derive(Debug, Parser)]
#[command(name = "attach")]
struct Options {
    /// Attachments to time
    #[arg(long, default_value_t = 50)]
    attachments: u8,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const NETWORK: &str = "attach";
/// The sandboxes that ask, on the second and the third host.
const OBSERVER: &str = "observer";
/// How often an observer asks.
const INTERVAL: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let options = Options::parse();
    environment::outcome("attach", options.bench, || run(&options))
}

/// Times all attachments and prints percentiles.
fn run(options: &Options) -> Result<()> {
    environment::print()?;
    let program = env!("CARGO_BIN_EXE_weft").into();
    let mut rig = Rig::build(&Blueprint { purpose: "bench", hosts: 3, wiring: Wiring::Switch, program })?;
    rig.start_all()?;
    let config = vec![IpamConfig { subnet: "10.77.0.0/16".to_owned(), ..IpamConfig::default() }];
    let ipam = Ipam { driver: "default".to_owned(), options: None, config };
    rig.create_network(
        0,
        &NetworkCreate {
            name: NETWORK.to_owned(),
            driver: "overlay".to_owned(),
            ipam,
            ..NetworkCreate::default()
        },
    )?;
    let observers = [observer(&rig, 1)?, observer(&rig, 2)?];
    // The network's first sandbox on a host also makes its bridge and TAP there; that is timed apart.
    let first = attach(&rig, &observers, 0)?;
    let mut later = Vec::new();
    for number in 1..=options.attachments {
        later.extend(attach(&rig, &observers, number)?);
    }
    say(&format!(
        "\nAttach on one host → answers from two others, {} attachments, 3 hosts, ms",
        options.attachments
    ))?;
    say(&format!("{:<34}{:>9}{:>9}{:>9}", "", "p50", "p99", "most"))?;
    print("request to first answer", later.iter().map(|times| times.from_request).collect())?;
    print("end of the request to first answer", later.iter().map(|times| times.from_return).collect())?;
    print("first in a network on its host", first.iter().map(|times| times.from_request).collect())
}

/// What one observer saw of one attachment.
struct Times {
    from_request: Duration,
    from_return: Duration,
}

fn observer(rig: &Rig, host: usize) -> Result<Station> {
    rig.await_network(host, NETWORK, LIMIT)?;
    let station = rig.station(host, NETWORK, OBSERVER)?;
    let sandbox: Sandbox = rig.hosts()[host].read(&format!("/sandboxes/{OBSERVER}"))?;
    let end = sandbox.networks.get(NETWORK).context("the observer is not attached")?;
    // A neighbour that is asked for too early is asked for again only after a second; the observer wants to know
    // the moment it could be had.
    let key = format!("net/ipv4/neigh/{}/retrans_time_ms", end.interface);
    set_sysctl(&station.namespace, &key, "1")?;
    Ok(station)
}

fn attach(rig: &Rig, observers: &[Station], number: u8) -> Result<Vec<Times>> {
    let sandbox = format!("s{number}");
    let address = Ipv4Addr::new(10, 77, 9, number);
    rig.create_sandbox(0, &sandbox)?;
    let start = Instant::now();
    let watching =
        observers.iter().map(|station| watch(station, address, start)).collect::<Result<Vec<_>>>()?;
    rig.connect(0, NETWORK, &sandbox, Some(address))?;
    let returned = start.elapsed();
    watching
        .into_iter()
        .map(|watch| {
            let answered = watch.join().map_err(|_| anyhow!("an observer panicked"))??;
            Ok(Times { from_request: answered, from_return: answered.saturating_sub(returned) })
        })
        .collect()
}

fn watch(
    station: &Station,
    address: Ipv4Addr,
    start: Instant,
) -> Result<thread::JoinHandle<Result<Duration>>> {
    let mut pinger: Pinger = station.pinger(IpAddr::V4(address))?;
    Ok(thread::spawn(move || {
        pinger.until_answered(INTERVAL, LIMIT)?.context("the new sandbox does not answer")?;
        Ok(start.elapsed())
    }))
}

fn print(what: &str, mut times: Vec<Duration>) -> Result<()> {
    times.sort_unstable();
    let at = |per_cent: usize| {
        let rank = (times.len() * per_cent).div_ceil(100);
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    Ok(say(&format!("{what:<34}{:>9.1}{:>9.1}{:>9.1}", at(50), at(99), at(100)))?)
}
