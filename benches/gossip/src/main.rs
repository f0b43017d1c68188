//! Our gossip beside chitchat 0.13: the same cluster in one thread and in virtual time, no packet lost.
//!
//! Each node owns some records of 72 octets that nobody can compress, about as large as an endpoint's with its names, which
//! chitchat has to write as 96 characters; everybody holds everything.
//! Measured are octets per node and second at rest, and time and octets until all hold one change and 1,000 changes.
//! Ours are sealed and every record is signed, and the octets are those after sealing; chitchat's are neither.
//!
//! `cargo run --release --manifest-path benches/gossip/Cargo.toml -- --nodes 10,100,500`; everybody holding
//! everything, 500 nodes of weft's with 50 records each take about 5 GB, of chitchat's twice that or more.

#![allow(dead_code, reason = "the simulated network has more than is needed here")]

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

#[path = "../../../tests/sim/gossip_node.rs"]
mod gossip_node;
#[path = "../../../tests/sim/network.rs"]
mod network;
mod ours;
mod theirs;

/// What a record holds, octets: about what an endpoint with its names takes.
const RECORD: usize = 72;
/// Changes that are made at once.
const MANY: usize = 1_000;
/// How long a cluster rests before and while its rest is measured.
const REST: Duration = Duration::from_secs(30);
/// After so long views that differ are taken not to become equal.
const PATIENCE: Duration = Duration::from_secs(300);

/// Options of the benchmark.
#[derive(Debug, Parser)]
#[command(name = "gossip")]
struct Options {
    /// Sizes of clusters
    #[arg(long, value_delimiter = ',', default_value = "10,100,200")]
    nodes: Vec<usize>,
    /// Records of each node
    #[arg(long, default_value_t = 50)]
    records: usize,
    /// Only these
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Contender>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Contender {
    /// weft's.
    Weft,
    /// chitchat, a round a second.
    Chitchat,
    /// The same, and who changes something begins a round with three others at once.
    ChitchatPushed,
}

/// A cluster that is there.
trait Cluster {
    /// Lets virtual time pass.
    fn run_for(&mut self, span: Duration);
    /// Octets all nodes together have sent.
    fn octets(&self) -> u64;
    /// Changes `count` records, each node as many as the others, and passes on which.
    fn change(&mut self, count: usize);
    /// Lets time pass until all hold the last changes, or [`PATIENCE`] is over.
    fn agree(&mut self) -> Option<Duration>;
}

/// What was seen of one cluster.
struct Figures {
    rest: f64,
    rest_cpu: f64,
    one: Spread,
    many: Spread,
}

/// How changes spread.
struct Spread {
    time: Option<Duration>,
    octets: f64,
    cpu: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    say(
        "| nodes × records | | at rest, octets/s per node | at rest, CPU µs/s per node | one change, ms | octets per node | 1,000 changes, ms | octets per node | CPU ms per node |",
    )?;
    say("|---|---|---|---|---|---|---|---|---|")?;
    for &nodes in &options.nodes {
        for contender in [Contender::Weft, Contender::Chitchat, Contender::ChitchatPushed] {
            if options.only.is_empty() || options.only.contains(&contender) {
                row(contender, nodes, options.records)?;
            }
        }
    }
    Ok(())
}

fn row(contender: Contender, nodes: usize, records: usize) -> Result<()> {
    let (name, figures) = match contender {
        Contender::Weft => ("weft", measure(&mut ours::Ours::start(nodes, records), nodes)),
        Contender::Chitchat => {
            ("chitchat", measure(&mut theirs::Theirs::start(nodes, records, false)?, nodes))
        }
        Contender::ChitchatPushed => {
            ("chitchat, pushed", measure(&mut theirs::Theirs::start(nodes, records, true)?, nodes))
        }
    };
    let Figures { rest, rest_cpu, one, many } = figures;
    say(&format!(
        "| {nodes} × {records} | {name} | {rest:.0} | {rest_cpu:.0} | {} | {:.0} | {} | {:.0} | {:.2} |",
        shown(one.time),
        one.octets,
        shown(many.time),
        many.octets,
        many.cpu
    ))
}

fn shown(time: Option<Duration>) -> String {
    time.map_or("never".to_owned(), |time| time.as_millis().to_string())
}

fn measure(cluster: &mut impl Cluster, nodes: usize) -> Figures {
    let nodes = nodes as f64;
    cluster.run_for(REST);
    let (before, cpu) = (cluster.octets(), cpu_time());
    cluster.run_for(REST);
    let seconds = REST.as_secs_f64();
    let rest = (cluster.octets() - before) as f64 / seconds / nodes;
    let rest_cpu = (cpu_time() - cpu).as_secs_f64() * 1e6 / seconds / nodes;
    let one = spread(cluster, 1, nodes, rest);
    cluster.run_for(REST);
    let many = spread(cluster, MANY, nodes, rest);
    Figures { rest, rest_cpu, one, many }
}

/// What changes cost beyond what rest costs meanwhile.
fn spread(cluster: &mut impl Cluster, count: usize, nodes: f64, rest: f64) -> Spread {
    /// By then whatever was under way has come.
    const AFTER: Duration = Duration::from_secs(5);
    let (before, cpu) = (cluster.octets(), cpu_time());
    cluster.change(count);
    let time = cluster.agree();
    cluster.run_for(AFTER);
    let whole = (time.unwrap_or(PATIENCE) + AFTER).as_secs_f64();
    let octets = (cluster.octets() - before) as f64 / nodes - rest * whole;
    Spread { time, octets, cpu: (cpu_time() - cpu).as_secs_f64() * 1e3 / nodes }
}

/// What is written in a record at a round of changes.
fn content(round: u8, record: usize) -> [u8; RECORD] {
    let mut content = [0; RECORD];
    StdRng::seed_from_u64((record as u64) << 8 | u64::from(round)).fill(&mut content);
    content
}

/// Processor time of this process, all of which is the cluster's.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let spent = usage.map(|usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    });
    spent.unwrap_or_default()
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
