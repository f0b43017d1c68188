//! Octets both ways at once between sandboxes of two hosts, as fast as they go, with a running hash at each end; once
//! as the interfaces are made, or with each combination of the sandboxes' offloads.
//!
//! `cargo bench -p weft --bench integrity -- --octets 100000000` runs a short form. Needs root, and `ethtool` for
//! combinations and for a wire-like underlay. The exit status is 1 where anything arrived otherwise than it was sent.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use weft::rig::{Blueprint, Rig, Wiring};
use weft::traffic::Station;
use weft_control::api::Sandbox;

use environment::say;
use offloads::Offloads;

#[path = "../environment.rs"]
mod environment;
mod offloads;
mod stream;

/// Options of the benchmark.
#[derive(Debug, Parser)]
#[command(name = "integrity")]
struct Options {
    /// Octets each way
    #[arg(long, default_value_t = 10 << 30)]
    octets: u64,
    /// What joins the two hosts; both, one after the other, unless one is named
    #[arg(long, value_enum)]
    underlay: Option<Underlay>,
    /// What the sandboxes are in; both, one after the other, unless one is named
    #[arg(long, value_enum)]
    network: Option<Network>,
    /// Every combination of the sandboxes' offloads, not only what they are made with
    #[arg(long)]
    combinations: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Underlay {
    Veth,
    WireLike,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    Clear,
    Sealed,
}

/// Two sandboxes, and the names of their interfaces.
struct Pair {
    ends: [Station; 2],
    interfaces: [String; 2],
}

const START_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

fn main() -> ExitCode {
    let options = Options::parse();
    environment::outcome("integrity", options.bench, || run(&options))
}

fn run(options: &Options) -> Result<()> {
    environment::print()?;
    say(&format!("{} octets each way, both ways at once, hashed by SHA-256 at each end\n", options.octets))?;
    say(&format!(
        "{:<11}{:<9}{:<40}{:>9}{:>16}  hash",
        "underlay", "network", "offloads", "seconds", "Gbit/s →, ←"
    ))?;
    let mut wrong = 0;
    for underlay in chosen(options.underlay) {
        wrong += on(underlay, options)?;
    }
    ensure!(wrong == 0, "{wrong} passages were not whole");
    Ok(())
}

/// The one that was named, or all.
fn chosen<T: ValueEnum + Copy>(named: Option<T>) -> Vec<T> {
    named.map_or_else(|| T::value_variants().to_vec(), |one| vec![one])
}

/// Passes through both networks on one underlay; tells how many passages were not whole.
fn on(underlay: Underlay, options: &Options) -> Result<usize> {
    let program = env!("CARGO_BIN_EXE_weft").into();
    let mut rig = Rig::build(&Blueprint { purpose: "bench", hosts: 2, wiring: Wiring::Cable, program })?;
    if underlay == Underlay::WireLike {
        rig.make_wire_like()?;
    }
    rig.start_all()?;
    let mut wrong = 0;
    for network in chosen(options.network) {
        let pair = pair(&rig, network)?;
        let combinations = if options.combinations { Offloads::all().map(Some).to_vec() } else { vec![None] };
        for offloads in combinations {
            let has = pair.with(offloads)?;
            let row = format!("{:<11}{:<9}{has:<40}", name(underlay), name(network));
            wrong += usize::from(!passes(&pair, &row, options.octets, &rig)?);
        }
    }
    Ok(wrong)
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Sends both ways and prints a line; tells whether all arrived as it was sent.
fn passes(pair: &Pair, row: &str, octets: u64, rig: &Rig) -> Result<bool> {
    let passages = stream::both_ways(&pair.ends, octets, rig.interrupt())?;
    let [there, back] = &passages;
    let whole = passages.iter().all(|passage| passage.is_whole(octets));
    say(&format!(
        "{row}{:>9.1}{:>16}  {}",
        there.seconds.max(back.seconds),
        format!("{:.2}, {:.2}", there.gigabits(), back.gigabits()),
        if whole { "right".to_owned() } else { format!("WRONG: {passages:?}") }
    ))?;
    Ok(whole)
}

/// A network and a sandbox in it on either host.
fn pair(rig: &Rig, network: Network) -> Result<Pair> {
    let name = name(network);
    rig.create_overlay(&name, network == Network::Sealed, START_LIMIT)?;
    let sandboxes = [format!("{name}-near"), format!("{name}-far")];
    let ends = [rig.station(0, &name, &sandboxes[0])?, rig.station(1, &name, &sandboxes[1])?];
    rig.ends(&ends[0], &ends[1]).ping(START_LIMIT)?.context("the far end does not answer")?;
    let interfaces = [interface(rig, 0, &name, &sandboxes[0])?, interface(rig, 1, &name, &sandboxes[1])?];
    Ok(Pair { ends, interfaces })
}

fn interface(rig: &Rig, host: usize, network: &str, sandbox: &str) -> Result<String> {
    let shown: Sandbox = rig.hosts()[host].read(&format!("/sandboxes/{sandbox}"))?;
    Ok(shown.networks.get(network).context("the sandbox is not attached")?.interface.clone())
}

impl Pair {
    /// Gives both interfaces these offloads; tells which they have then.
    fn with(&self, offloads: Option<Offloads>) -> Result<String> {
        let Some(offloads) = offloads else { return Ok("as made".to_owned()) };
        let both = self.ends.iter().zip(&self.interfaces);
        let has = both.map(|(end, interface)| offloads.choose(&end.namespace, interface));
        let has: Vec<_> = has.collect::<Result<_>>()?;
        ensure!(has[0] == has[1], "the ends differ: {} here, {} there", has[0], has[1]);
        Ok(has[0].clone())
    }
}
