//! TCP, small datagrams and round trips, by turns over weft in clear, weft sealed and the kernel's VXLAN.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft::rig::{Blueprint, Rig, Station, UDP_SIZE, UPLINK, Wiring};
use weft::traffic::{UdpLoad, median};
use weft_control::api::NetworkCreate;

use crate::environment::say;
use crate::{Options, Part, Underlay};

/// Datagrams per second offered, thousands.
const OFFERED: [u64; 9] = [50, 100, 150, 200, 250, 300, 350, 400, 450];
/// Loss up to which a rate counts as carried.
const CARRIED: f64 = 0.005;
const START_LIMIT: Duration = Duration::from_secs(10);

/// What is measured, in the order of a turn: weft in clear, weft sealed, the kernel's VXLAN (in clear).
const CONTENDERS: [&str; 3] = ["clear", "sealed", "kernel"];
/// The one the others are compared with.
const KERNEL: usize = 2;

/// Figures of all contenders, one per turn.
#[derive(Default)]
struct Turns([Vec<f64>; CONTENDERS.len()]);

impl Turns {
    fn line(&mut self, what: &str) -> String {
        let medians = self.0.each_mut().map(|figures| median(figures));
        let mut line = format!("{what:<33}");
        for (figures, median) in self.0.iter().zip(medians) {
            // Sorted by now.
            let range = match figures.as_slice() {
                [least, .., most] => format!("({least:.1}–{most:.1})"),
                _ => String::new(),
            };
            line += &format!("{median:>8.2} {range:<15}");
        }
        for median in &medians[..KERNEL] {
            line += &format!("{:>8.2}", median / medians[KERNEL]);
        }
        line
    }

    fn push(&mut self, contender: usize, figure: f64) {
        self.0[contender].push(figure);
    }
}

/// Measures on one underlay.
pub(crate) fn run(underlay: Underlay, options: &Options) -> Result<()> {
    let blueprint = Blueprint {
        purpose: "bench",
        hosts: 2,
        wiring: Wiring::Cable,
        program: env!("CARGO_BIN_EXE_weft").into(),
    };
    let mut rig = Rig::build(&blueprint)?;
    if underlay == Underlay::WireLike {
        make_wire_like(&rig)?;
    }
    rig.start_all()?;
    let clear = weft_stations(&rig, "clear", &[])?;
    let sealed = weft_stations(&rig, "sealed", &[("encrypted", "")])?;
    let contenders = [clear, sealed, rig.kernel_stations(0, 1)?];
    for [near, far] in &contenders {
        rig.ping(near, far.address, START_LIMIT)?.context("the far sandbox does not answer")?;
    }
    let name = if underlay == Underlay::Veth {
        "veth, offloads on"
    } else {
        "wire-like: no TX segmentation or checksum offload, GRO on"
    };
    say(&format!("\nUnderlay: {name}"))?;
    let [clear, sealed, kernel] = CONTENDERS;
    say(&format!(
        "{:<33}{clear:>8} {:<15}{sealed:>8} {:<15}{kernel:>8} {:<15}{clear:>8}{sealed:>8}",
        "median (least–most)", "", "", ""
    ))?;
    Bench { rig: &rig, contenders, options }.measure()
}

/// A network of `options`, and a sandbox in it on either host.
fn weft_stations(rig: &Rig, name: &str, options: &[(&str, &str)]) -> Result<[Station; 2]> {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    rig.create_network(
        0,
        &NetworkCreate {
            name: name.to_owned(),
            driver: "overlay".to_owned(),
            options,
            ..NetworkCreate::default()
        },
    )?;
    rig.await_network(1, name, START_LIMIT)?;
    Ok([rig.station(0, name, &format!("{name}-near"))?, rig.station(1, name, &format!("{name}-far"))?])
}

/// The offloads a plain NIC has not (`ethtool -K`), at both ends of the cable.
fn make_wire_like(rig: &Rig) -> Result<()> {
    let off = [
        "tso",
        "gso",
        "tx",
        "rx",
        "tx-udp-segmentation",
        "tx-udp_tnl-segmentation",
        "tx-udp_tnl-csum-segmentation",
    ];
    for host in rig.hosts() {
        let mut command = Command::new("ethtool");
        command.args(["-K", UPLINK, "gro", "on"]).args(off.iter().flat_map(|feature| [*feature, "off"]));
        let output = host.namespace.run(|| command.output())?.context("run ethtool")?;
        ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

struct Bench<'r> {
    rig: &'r Rig,
    contenders: [[Station; 2]; CONTENDERS.len()],
    options: &'r Options,
}

impl Bench<'_> {
    fn measure(&self) -> Result<()> {
        if self.options.wants(Part::Tcp) {
            self.tcp()?;
        }
        if self.options.wants(Part::Udp) {
            self.udp()?;
        }
        if self.options.wants(Part::Latency) {
            self.latency()?;
        }
        Ok(())
    }

    fn tcp(&self) -> Result<()> {
        let time = self.options.long();
        let gigabits = |[from, to]: [&Station; 2]| Ok(self.rig.tcp(from, to, time)?.bits_per_second / 1e9);
        say(&self.by_turns(gigabits)?.line("TCP, 1 stream, Gbit/s"))?;
        let back = |[from, to]: [&Station; 2]| Ok(self.rig.tcp(to, from, time)?.bits_per_second / 1e9);
        Ok(say(&self.by_turns(back)?.line("TCP, 1 stream, back, Gbit/s"))?)
    }

    /// By turns within each rate, so that both meet the same machine; per turn the best and the highest carried.
    fn udp(&self) -> Result<()> {
        let (mut best, mut carried) = (Turns::default(), Turns::default());
        let mut by_rate: Vec<(Turns, Turns)> = OFFERED.iter().map(|_| Default::default()).collect();
        for _ in 0..self.options.repeats() {
            let mut summits: [Summit; CONTENDERS.len()] = Default::default();
            for (rate, (delivered, lost)) in OFFERED.iter().zip(&mut by_rate) {
                let load = UdpLoad { size: UDP_SIZE, rate: rate * 1000, time: self.options.short() };
                for (contender, [near, far]) in self.contenders.iter().enumerate() {
                    let delivery = self.rig.udp(near, far, load)?;
                    summits[contender].add(delivery.rate() / 1e3, delivery.loss());
                    delivered.push(contender, delivery.rate() / 1e3);
                    lost.push(contender, delivery.loss() * 100.0);
                }
            }
            for (contender, summit) in summits.into_iter().enumerate() {
                best.push(contender, summit.best);
                carried.push(contender, summit.carried);
            }
        }
        for (rate, (delivered, lost)) in OFFERED.iter().zip(&mut by_rate) {
            let [clear, sealed, kernel] = lost.0.each_mut().map(|figures| median(figures));
            let line = delivered.line(&format!("UDP 64 B, {rate} kpps offered"));
            say(&format!("{line}   loss {clear:.1} / {sealed:.1} / {kernel:.1} %"))?;
        }
        say(&best.line("UDP 64 B, best delivered, kpps"))?;
        Ok(say(&carried.line("UDP 64 B, most at ≤ 0.5 % loss"))?)
    }

    fn latency(&self) -> Result<()> {
        let (mut middle, mut tail) = (Turns::default(), Turns::default());
        for _ in 0..self.options.repeats() {
            for (contender, [near, far]) in self.contenders.iter().enumerate() {
                let trips = self.rig.round_trips(near, far, self.options.short())?;
                middle.push(contender, trips.p50 / 2.0);
                tail.push(contender, trips.p99 / 2.0);
            }
        }
        say(&middle.line("half round trip p50, µs"))?;
        Ok(say(&tail.line("half round trip p99, µs"))?)
    }

    fn by_turns(&self, measure: impl Fn([&Station; 2]) -> Result<f64>) -> Result<Turns> {
        let mut turns = Turns::default();
        for _ in 0..self.options.repeats() {
            for (contender, stations) in self.contenders.iter().enumerate() {
                turns.push(contender, measure(stations.each_ref())?);
            }
        }
        Ok(turns)
    }
}

/// The best of one sweep.
#[derive(Default)]
struct Summit {
    best: f64,
    carried: f64,
}

impl Summit {
    fn add(&mut self, delivered: f64, loss: f64) {
        self.best = self.best.max(delivered);
        if loss <= CARRIED {
            self.carried = self.carried.max(delivered);
        }
    }
}
