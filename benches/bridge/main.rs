//! A bridge network of weft beside one of Docker's, on one machine: TCP, round trips, and how long it takes to connect
//! and disconnect.
//!
//! Both are kernel bridges with veth pairs, so traffic should cost the same; what differs are the rules beside them and
//! who makes the pairs. Measured by turns, medians compared. Needs root, an engine that answers and a static
//! `busybox`; the containers' image is made from the latter.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use weft::rig::{Blueprint, Rig, Wiring};
use weft::traffic::{Station, median};
use weft_control::api::NetworkCreate;

use environment::say;

mod docker;
#[path = "../environment.rs"]
mod environment;
mod post;

/// Options of the benchmark.
#[derive(Debug, Parser)]
#[command(name = "bridge")]
struct Options {
    /// Turns of each measurement of traffic
    #[arg(long, default_value_t = 7)]
    repeats: usize,
    /// Length of one measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections to time
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const ENDS: [&str; 2] = ["near", "far"];
const START_LIMIT: Duration = Duration::from_secs(10);
/// The network whose connections are timed.
const SECOND: &str = "second";

fn main() -> ExitCode {
    let options = Options::parse();
    environment::outcome("bridge", options.bench, || run(&options))
}

fn run(options: &Options) -> Result<()> {
    environment::print()?;
    let program = env!("CARGO_BIN_EXE_weft").into();
    let mut rig = Rig::build(&Blueprint { purpose: "bench", hosts: 1, wiring: Wiring::Switch, program })?;
    rig.start_all()?;
    let stack = docker::Stack::up(&[docker::FIRST, SECOND], &ENDS)?;
    for name in [docker::FIRST, SECOND] {
        let driver = "bridge".to_owned();
        rig.create_network(0, &NetworkCreate { name: name.to_owned(), driver, ..NetworkCreate::default() })?;
    }
    let ours = [rig.station(0, docker::FIRST, ENDS[0])?, rig.station(0, docker::FIRST, ENDS[1])?];
    let theirs = [stack.station(ENDS[0])?, stack.station(ENDS[1])?];
    // The second network has an end already: its bridge is there.
    rig.connect(0, SECOND, ENDS[1], None)?;
    stack.connect(SECOND, ENDS[1])?;
    for [near, far] in [&ours, &theirs] {
        rig.ends(near, far).ping(START_LIMIT)?.context("the far end does not answer")?;
    }
    traffic(&rig, &[ours, theirs], options)?;
    connections(&[&rig.hosts()[0].socket(), &stack.socket()], &stack.names(), options)
}

/// Figures of weft and of Docker, one per turn.
type Turns = [Vec<f64>; 2];

fn traffic(rig: &Rig, contenders: &[[Station; 2]; 2], options: &Options) -> Result<()> {
    let time = Duration::try_from_secs_f64(options.seconds).context("--seconds")?;
    let (mut tcp, mut middle, mut tail) = <(Turns, Turns, Turns)>::default();
    for _ in 0..options.repeats.max(1) {
        for (contender, [near, far]) in contenders.iter().enumerate() {
            tcp[contender].push(rig.ends(near, far).tcp(1, time)?.bits_per_second / 1e9);
            let trips = rig.ends(near, far).round_trips(time)?;
            middle[contender].push(trips.p50 / 2.0);
            tail[contender].push(trips.p99 / 2.0);
        }
    }
    say(&format!("\n{:<36}{:>10}{:>10}{:>8}", "median", "weft", "docker", ""))?;
    line("TCP, 1 stream, Gbit/s", &mut tcp)?;
    line("half round trip p50, µs", &mut middle)?;
    line("half round trip p99, µs", &mut tail)
}

/// Connects one end to a second network and takes it off again, by turns, through either API.
fn connections(sockets: &[&Path; 2], names: &[String; 2], options: &Options) -> Result<()> {
    let (mut on, mut off) = <(Turns, Turns)>::default();
    let networks = [SECOND, &names[0]];
    let ends = [ENDS[0], &names[1]];
    for _ in 0..options.connections.max(1) {
        for contender in 0..2 {
            let body = format!(r#"{{"Container":"{}"}}"#, ends[contender]);
            let ask = |verb| {
                post::timed(sockets[contender], &format!("/networks/{}/{verb}", networks[contender]), &body)
            };
            on[contender].push(ask("connect")?.as_secs_f64() * 1e3);
            off[contender].push(ask("disconnect")?.as_secs_f64() * 1e3);
        }
    }
    say(&format!("\n{} connections of one end to a second network, through the API", options.connections))?;
    line("connect, median, ms", &mut on)?;
    line("connect, 99th percentile, ms", &mut on.each_mut().map(|figures| tail_of(figures)))?;
    line("disconnect, median, ms", &mut off)
}

fn tail_of(figures: &mut [f64]) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() * 99).div_ceil(100);
    vec![figures[rank.saturating_sub(1)]]
}

fn line(what: &str, turns: &mut Turns) -> Result<()> {
    let [ours, theirs] = turns.each_mut().map(|figures| median(figures));
    Ok(say(&format!("{what:<36}{ours:>10.2}{theirs:>10.2}{:>8.2}", ours / theirs))?)
}
