//! Whether cost grows as it should: many networks between two hosts, and agents at rest that know of many endpoints.
//!
//! `cargo bench -p weft --bench scale -- networks` runs one part. Needs root. What a node costs that joins a large
//! cluster is measured in virtual time, by the example `gossip-scale`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

mod balance;
mod crowd;
mod datagrams;
#[path = "../environment.rs"]
mod environment;
mod networks;
mod process;
mod rest;

/// Options of the benchmark.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Options {
    /// What to measure; without it, all
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Networks that have traffic at the same time
    #[arg(long, default_value_t = 10)]
    networks: usize,
    /// Pairs of sandboxes in each, one sandbox of a pair on either host
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Turns of each measurement of TCP
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Length of one measurement of traffic
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Datagrams per second of each pair
    #[arg(long, value_delimiter = ',', default_value = "300,1000")]
    rates: Vec<u32>,
    /// Endpoints elsewhere that agents at rest know of
    #[arg(long, value_delimiter = ',', default_value = "0,500,2000,50000")]
    endpoints: Vec<usize>,
    /// How long rest is measured, seconds; agents audit themselves every 30
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// The program that agents are started from, if not the one built with this benchmark
    #[arg(long, default_value = env!("CARGO_BIN_EXE_weft"))]
    program: PathBuf,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Many networks at once, in clear
    Networks,
    /// The same, sealed
    Sealed,
    /// Agents at rest
    Rest,
}

fn main() -> ExitCode {
    let options = Options::parse();
    environment::outcome("scale", options.bench, || run(&options))
}

fn run(options: &Options) -> Result<()> {
    environment::print()?;
    for part in [Part::Networks, Part::Sealed, Part::Rest] {
        if !options.parts.is_empty() && !options.parts.contains(&part) {
            continue;
        }
        match part {
            Part::Networks => networks::measure(options, false)?,
            Part::Sealed => networks::measure(options, true)?,
            Part::Rest => rest::measure(options)?,
        }
    }
    Ok(())
}
