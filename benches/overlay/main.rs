//! weft, in clear and sealed, beside the kernel's VXLAN (in clear), sandbox to sandbox, on two underlays of one
//! machine.
//!
//! All run at the same time on the same two hosts (network namespaces) and are measured by turns, so that whatever
//! else the machine does meets all; medians and their ratio are what counts, not absolute figures.
//!
//! - `veth`: one veth pair with its offloads. The kernel's 64 KB packets pass uncut, so its VXLAN pays neither for
//!   segmentation nor for checksums.
//! - `wire-like`: the same with segmentation and checksum offloads of sending off and GRO on: what a plain NIC offers.
//!
//! Then, on three hosts: how long from attaching a sandbox on one until it answers from the others.
//!
//! `cargo bench -p weft --bench overlay -- --quick` runs a short form; `--help` lists the options. Needs root.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

mod attach;
mod compare;
#[path = "../environment.rs"]
mod environment;

/// Options of the benchmark.
#[derive(Debug, Parser)]
#[command(name = "overlay")]
struct Options {
    /// Few and short measurements, to see that all of it works
    #[arg(long, env = "WEFT_BENCH_QUICK")]
    quick: bool,
    /// Turns of each measurement
    #[arg(long, env = "WEFT_BENCH_REPEATS", default_value_t = 5)]
    repeats: usize,
    /// Length of one TCP measurement
    #[arg(long, env = "WEFT_BENCH_SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Attachments to time
    #[arg(long, default_value_t = 50)]
    attachments: u8,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Only this underlay
    #[arg(long, value_enum)]
    underlay: Option<Underlay>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One TCP stream.
    Tcp,
    /// 64-byte datagrams by offered rate.
    Udp,
    /// Round trips.
    Latency,
    /// Attach to first answer.
    Attach,
}

/// What joins the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Underlay {
    /// A veth pair as it is.
    Veth,
    /// A veth pair that offloads no more than a plain NIC.
    WireLike,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn repeats(&self) -> usize {
        if self.quick { 1 } else { self.repeats.max(1) }
    }

    fn attachments(&self) -> u8 {
        if self.quick { self.attachments.min(10) } else { self.attachments }
    }

    /// Length of one TCP measurement.
    fn long(&self) -> Duration {
        let long = Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::from_secs(3));
        if self.quick { long.min(Duration::from_secs(1)) } else { long }
    }

    /// Length of one measurement of datagrams or round trips.
    fn short(&self) -> Duration {
        if self.quick { Duration::from_millis(300) } else { Duration::from_secs(1) }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    environment::outcome("overlay", options.bench, || run(&options))
}

fn run(options: &Options) -> Result<()> {
    environment::print()?;
    if [Part::Tcp, Part::Udp, Part::Latency].iter().any(|part| options.wants(*part)) {
        for underlay in [Underlay::Veth, Underlay::WireLike] {
            if options.underlay.is_none_or(|only| only == underlay) {
                compare::run(underlay, options)?;
            }
        }
    }
    if options.wants(Part::Attach) {
        attach::run(options)?;
    }
    Ok(())
}
