//! `weft bench …`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `weft bench`.
#[derive(Debug, Args)]
#[command(
    override_usage = "\
weft bench [OPTIONS] FROM TO
       weft bench --serve SANDBOX
       weft bench [OPTIONS] --self",
    after_help = "\
Measures TCP throughput and what it costs the processors, UDP packet rates, and round trips, idle and under load;
nothing else need be installed. Figures are medians of interleaved repeats. Needs root.

TO may be a sandbox of another host, where 'weft bench --serve TO' has to run meanwhile. Anybody in its networks can
measure to it then. Processors are counted on the host of FROM alone.

With --self, two hosts of network namespaces are made on this machine, with agents of their own, and weft is measured
beside the kernel's VXLAN on the same underlay, by turns; ratios are to the latter. It leaves nothing behind.
Programs of others are run there too if --only names them: iperf3, redis with its own benchmark, nginx with wrk.

Examples:
  weft bench web db                              between two sandboxes of this host, in the network they share
  weft bench web db --only tcp --streams 8
  b# weft bench --serve api                      on another host: be the far end, until Ctrl-C
  a# weft bench web api
  weft bench --self --quick                      a minute on a rig of its own, to see that all of it works
  weft bench --self --plot speed.svg             what docs/performance.md shows
  weft bench --self --underlay veth --contender weft-sealed,kernel-vxlan,wireguard-go --only tcp,latency --json
  weft bench --self --only iperf3,redis,http     traffic of programs that others made"
)]
pub(crate) struct BenchArgs {
    /// Two sandboxes: one of this host, where traffic starts, and one where it goes
    #[arg(
        num_args = 2,
        value_names = ["FROM", "TO"],
        required_unless_present_any = ["own_rig", "serve"],
        conflicts_with_all = ["own_rig", "serve"]
    )]
    pub(crate) sandboxes: Vec<String>,
    /// Measure weft itself, between two hosts made for it, beside what it is compared with
    #[arg(long = "self")]
    pub(crate) own_rig: bool,
    /// Be the far end in a sandbox of this host for a 'weft bench' on another one, until Ctrl-C
    #[arg(long, value_name = "SANDBOX", conflicts_with = "own_rig")]
    pub(crate) serve: Option<String>,
    /// Network to measure in, where both sandboxes are in several
    #[arg(long, value_name = "NETWORK", conflicts_with_all = ["own_rig", "serve"])]
    pub(crate) network: Option<String>,
    /// What joins the two hosts: a veth pair as it is, one that offloads no more than a plain NIC, or one after the other
    #[arg(long, value_enum, default_value_t = UnderlayChoice::All, conflicts_with = "sandboxes")]
    pub(crate) underlay: UnderlayChoice,
    /// What is measured by turns
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values = ["weft-clear", "weft-sealed", "kernel-vxlan", "raw"],
        conflicts_with = "sandboxes"
    )]
    pub(crate) contender: Vec<ContenderName>,
    #[command(flatten)]
    pub(crate) measures: MeasureArgs,
    /// Print JSON (docs/performance.md describes it)
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the result as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// What is measured, how often and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct MeasureArgs {
    /// Only these measures; without it all that need no program of others
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// TCP streams at once, measured after a single one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) streams: u16,
    /// Sizes of the UDP load's IP packets, octets
    #[arg(
        long,
        value_name = "OCTETS",
        value_delimiter = ',',
        default_values = ["64", "256", "1400"],
        value_parser = clap::value_parser!(u16).range(56..=9000)
    )]
    pub(crate) sizes: Vec<u16>,
    /// Turns of each measure
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) repeats: u8,
    /// Length of one measurement of TCP; of datagrams and round trips it is shorter
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// One short turn of each, to see that all of it works
    #[arg(long)]
    pub(crate) quick: bool,
}

/// A measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// TCP, one stream and several, and core-seconds per gigabyte
    Tcp,
    /// UDP by offered rates: the best delivered, and the highest at no more than 0.5 % loss
    Udp,
    /// UDP, as many as go
    Flood,
    /// Round trips, idle
    Latency,
    /// Round trips while TCP streams run
    Load,
    /// With --self, one TCP stream of iperf3
    Iperf3,
    /// With --self, redis by redis-benchmark: requests per second and how long they take
    Redis,
    /// With --self, nginx by wrk: requests for a small file per second, and throughput of a large one
    Http,
}

/// What joins the two hosts of a rig.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnderlayChoice {
    /// A veth pair with its offloads: packets of 64 KB pass uncut
    Veth,
    /// Segmentation and checksum offloads of sending off, GRO on
    WireLike,
    /// Both
    All,
}

/// What can be measured on a rig.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContenderName {
    /// An overlay network of weft, in clear
    WeftClear,
    /// One made with '-o encrypted' (AES-256-GCM)
    WeftSealed,
    /// The kernel's VXLAN with the same bridges (in clear)
    KernelVxlan,
    /// The underlay itself, from host to host
    Raw,
    /// WireGuard in userspace, if 'wireguard-go' and 'wg' are installed (ChaCha20-Poly1305)
    WireguardGo,
    /// The same by 'boringtun-cli'
    Boringtun,
    /// The same by 'gotatun'
    Gotatun,
}

/// A length of time that makes sense.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is no number of seconds"))?;
    if (0.05..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.05 to 3600 seconds".to_owned()) }
}
