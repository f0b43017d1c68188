//! TCP, small datagrams and round trips, by turns over weft and over the kernel's VXLAN.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft::rig::{Blueprint, Rig, Station, UDP_SIZE, UPLINK, Wiring};
use weft::traffic::{UdpLoad, median};
use weft_control::api::NetworkCreate;

use crate::{Options, Part, Underlay, say};

/// Datagrams per second offered, thousands.
const OFFERED: [u64; 9] = [50, 100, 150, 200, 250, 300, 350, 400, 450];
/// Loss up to which a rate counts as carried.
const CARRIED: f64 = 0.005;
const NETWORK: &str = "bench";
const START_LIMIT: Duration = Duration::from_secs(10);

/// Figures of both, one per turn.
#[derive(Default)]
struct Turns {
    weft: Vec<f64>,
    kernel: Vec<f64>,
}

impl Turns {
    fn line(&mut self, what: &str) -> String {
        let (weft, kernel) = (median(&mut self.weft), median(&mut self.kernel));
        // Sorted by now.
        let range = |figures: &[f64]| match figures {
            [least, .., most] => format!("({least:.1}–{most:.1})"),
            _ => String::new(),
        };
        let (ours, theirs) = (range(&self.weft), range(&self.kernel));
        format!("{what:<34}{weft:>9.2} {ours:<18}{kernel:>9.2} {theirs:<18}{:>6.2}", weft / kernel)
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
    rig.create_network(0, &NetworkCreate { name: NETWORK.to_owned(), ..NetworkCreate::default() })?;
    rig.await_network(1, NETWORK, START_LIMIT)?;
    let weft = [rig.station(0, NETWORK, "near")?, rig.station(1, NETWORK, "far")?];
    let kernel = rig.kernel_stations(0, 1)?;
    for [near, far] in [&weft, &kernel] {
        rig.ping(near, far.address, START_LIMIT)?.context("the far sandbox does not answer")?;
    }
    let name = if underlay == Underlay::Veth {
        "veth, offloads on"
    } else {
        "wire-like: no TX segmentation or checksum offload, GRO on"
    };
    say(&format!("\nUnderlay: {name}"))?;
    say(&format!(
        "{:<34}{:>9} {:<18}{:>9} {:<18}{:>6}",
        "median (least–most)", "weft", "", "kernel", "", "ratio"
    ))?;
    Bench { rig: &rig, weft, kernel, options }.measure()
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
    weft: [Station; 2],
    kernel: [Station; 2],
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
            let (mut weft, mut kernel) = (Summit::default(), Summit::default());
            for (rate, (delivered, lost)) in OFFERED.iter().zip(&mut by_rate) {
                for (stations, summit, turn, loss) in [
                    (&self.weft, &mut weft, &mut delivered.weft, &mut lost.weft),
                    (&self.kernel, &mut kernel, &mut delivered.kernel, &mut lost.kernel),
                ] {
                    let load = UdpLoad { size: UDP_SIZE, rate: rate * 1000, time: self.options.short() };
                    let delivery = self.rig.udp(&stations[0], &stations[1], load)?;
                    summit.add(delivery.rate() / 1e3, delivery.loss());
                    turn.push(delivery.rate() / 1e3);
                    loss.push(delivery.loss() * 100.0);
                }
            }
            best.weft.push(weft.best);
            best.kernel.push(kernel.best);
            carried.weft.push(weft.carried);
            carried.kernel.push(kernel.carried);
        }
        for (rate, (delivered, lost)) in OFFERED.iter().zip(&mut by_rate) {
            let (ours, theirs) = (median(&mut lost.weft), median(&mut lost.kernel));
            let line = delivered.line(&format!("UDP 64 B, {rate} kpps offered"));
            say(&format!("{line}   loss {ours:.1} % / {theirs:.1} %"))?;
        }
        say(&best.line("UDP 64 B, best delivered, kpps"))?;
        Ok(say(&carried.line("UDP 64 B, most at ≤ 0.5 % loss"))?)
    }

    fn latency(&self) -> Result<()> {
        let (mut median_trip, mut tail) = (Turns::default(), Turns::default());
        for _ in 0..self.options.repeats() {
            for (stations, p50, p99) in [
                (&self.weft, &mut median_trip.weft, &mut tail.weft),
                (&self.kernel, &mut median_trip.kernel, &mut tail.kernel),
            ] {
                let trips = self.rig.round_trips(&stations[0], &stations[1], self.options.short())?;
                p50.push(trips.p50 / 2.0);
                p99.push(trips.p99 / 2.0);
            }
        }
        say(&median_trip.line("half round trip p50, µs"))?;
        Ok(say(&tail.line("half round trip p99, µs"))?)
    }

    fn by_turns(&self, measure: impl Fn([&Station; 2]) -> Result<f64>) -> Result<Turns> {
        let mut turns = Turns::default();
        for _ in 0..self.options.repeats() {
            turns.weft.push(measure(self.weft.each_ref())?);
            turns.kernel.push(measure(self.kernel.each_ref())?);
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
