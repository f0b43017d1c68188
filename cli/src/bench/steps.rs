//! What is measured, in which order, how long.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::figures::{Better, Figure, Metric};
use super::programs::Program;
use crate::args::{MeasureArgs, Part};
use crate::traffic::{Delivery, Ends, ProcessorTime, RoundTrips, UdpLoad};

/// Datagrams per second offered in any case, thousands; more are offered for as long as more arrive.
const OFFERED: [u64; 9] = [50, 100, 150, 200, 250, 300, 350, 400, 450];
/// The same in a quick run.
const OFFERED_QUICK: [u64; 3] = [50, 150, 300];
/// Loss up to which a rate counts as carried.
const CARRIED: f64 = 0.005;
/// What a measurement takes beside its own time: connecting, and saying that it is over.
const OVERHEAD: Duration = Duration::from_millis(100);
/// What the load takes longer than what is measured beside it.
const LOAD_OVERHEAD: Duration = Duration::from_millis(700);

/// One measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many TCP streams.
    Tcp(usize),
    /// Datagrams of one size by offered rate.
    Sweep(usize),
    /// Datagrams of one size, as many as go.
    Flood(usize),
    /// Round trips.
    Latency,
    /// Round trips while so many TCP streams run.
    Load(usize),
    /// What programs of others carry.
    Program(Program),
}

/// All measures of a run.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    pub(super) list: Vec<Step>,
    pub(super) repeats: usize,
    long: Duration,
    quick: bool,
}

impl Steps {
    pub(super) fn new(args: &MeasureArgs) -> Self {
        let long = Duration::try_from_secs_f64(args.seconds).unwrap_or(Duration::from_secs(2));
        Self {
            list: list(args),
            repeats: if args.quick { 1 } else { args.repeats.into() },
            long: if args.quick { long.min(Duration::from_millis(300)) } else { long },
            quick: args.quick,
        }
    }

    /// Length of a measurement of TCP.
    pub(super) fn long(&self) -> Duration {
        self.long
    }

    /// Length of a measurement of datagrams or round trips.
    fn short(&self) -> Duration {
        self.long / 2
    }

    /// Rates of a sweep that are offered in any case, thousands per second.
    pub(super) fn offered(&self) -> &'static [u64] {
        if self.quick { &OFFERED_QUICK } else { &OFFERED }
    }

    /// Programs of others that measures are carried by.
    pub(super) fn programs(&self) -> Vec<Program> {
        let program = |step: &Step| if let Step::Program(program) = step { Some(*program) } else { None };
        self.list.iter().filter_map(program).collect()
    }

    /// Measures one contender's turn of anything that our own generator carries, but for a sweep.
    pub(super) fn measure(&self, step: Step, ends: &Ends<'_>) -> Result<Vec<Figure>> {
        match step {
            Step::Tcp(streams) => tcp(ends, streams, self.long()),
            Step::Flood(size) => Ok(flood(&self.offer(ends, size, 0)?, size)),
            Step::Latency => Ok(latency(&ends.round_trips(self.short())?, "idle", "")),
            Step::Load(streams) => {
                let trips = ends.round_trips_under_load(streams, self.short())?;
                Ok(latency(&trips, "load", &format!(" beside {streams} TCP streams")))
            }
            Step::Sweep(_) | Step::Program(_) => Ok(Vec::new()),
        }
    }

    /// Offers datagrams at a rate, thousands per second; 0: as many as go.
    pub(super) fn offer(&self, ends: &Ends<'_>, size: usize, rate: u64) -> Result<Delivery> {
        // Long enough to fill every queue on the way: the largest is of some ten thousand datagrams.
        let time = if rate == 0 { self.short() } else { self.short() / 2 };
        ends.udp(UdpLoad { size, rate: rate * 1000, time })
    }

    /// About how long all of it takes with so many contenders.
    pub(super) fn estimate(&self, contenders: usize) -> Duration {
        let turns = u32::try_from(contenders * self.repeats).unwrap_or(u32::MAX);
        self.list.iter().map(|step| self.estimate_of(*step)).sum::<Duration>() * turns
    }

    /// About how long one turn of one contender takes.
    pub(super) fn estimate_of(&self, step: Step) -> Duration {
        let rates = u32::try_from(self.offered().len()).unwrap_or(1);
        match step {
            Step::Tcp(_) => self.long() + OVERHEAD,
            Step::Sweep(_) => (self.short() / 2 + OVERHEAD) * rates,
            Step::Flood(_) => self.short() + OVERHEAD,
            Step::Latency => self.short(),
            Step::Load(_) => self.short() + LOAD_OVERHEAD,
            Step::Program(program) => program.estimate(self.long()),
        }
    }
}

fn list(args: &MeasureArgs) -> Vec<Step> {
    let streams = usize::from(args.streams);
    let sizes = || args.sizes.iter().map(|size| usize::from(*size));
    let mut list = Vec::new();
    for part in Part::value_variants() {
        // Programs of others are there for whoever names them.
        let by_default = args.only.is_empty() && Program::of(*part).is_none();
        if !by_default && !args.only.contains(part) {
            continue;
        }
        match part {
            Part::Tcp => list.push(Step::Tcp(1)),
            Part::Udp => list.extend(sizes().map(Step::Sweep)),
            Part::Flood => list.extend(sizes().map(Step::Flood)),
            Part::Latency => list.push(Step::Latency),
            Part::Load => list.push(Step::Load(streams)),
            Part::Iperf3 | Part::Redis | Part::Http => list.extend(Program::of(*part).map(Step::Program)),
        }
        if *part == Part::Tcp && streams > 1 {
            list.push(Step::Tcp(streams));
        }
    }
    list
}

impl Step {
    /// As people read it.
    pub(super) fn label(self) -> String {
        match self {
            Self::Tcp(1) => "TCP, 1 stream".to_owned(),
            Self::Tcp(streams) => format!("TCP, {streams} streams"),
            Self::Sweep(size) => format!("UDP {size} B by offered rates"),
            Self::Flood(size) => format!("UDP {size} B flood"),
            Self::Latency => "round trips".to_owned(),
            Self::Load(streams) => format!("round trips beside {streams} TCP streams"),
            Self::Program(program) => program.label().to_owned(),
        }
    }
}

fn tcp(ends: &Ends<'_>, streams: usize, time: Duration) -> Result<Vec<Figure>> {
    let before = ProcessorTime::now()?;
    let throughput = ends.tcp(streams, time)?;
    let spent = ProcessorTime::now()? - before;
    ensure!(throughput.octets > 0, "nothing arrived");
    let gigabytes = throughput.octets as f64 / 1e9;
    let (name, label) = (format!("tcp-{streams}"), Step::Tcp(streams).label());
    let metric = |suffix: &str, words: &str, unit, better| {
        Metric::new(format!("{name}{suffix}"), format!("{label}{words}"), unit, better)
    };
    Ok(vec![
        (metric("", "", "Gbit/s", Better::More), throughput.bits_per_second / 1e9),
        (metric("-cpu", ", processors", "core-s/GB", Better::Less), spent.busy / gigabytes),
        (metric("-softirq", ", of these softirq", "core-s/GB", Better::Less), spent.softirq / gigabytes),
    ])
}

fn flood(delivery: &Delivery, size: usize) -> Vec<Figure> {
    let (name, label) = (format!("udp-{size}-flood"), format!("UDP {size} B flood"));
    vec![
        (
            Metric::new(name.clone(), format!("{label}, delivered"), "kpps", Better::More),
            delivery.rate() / 1e3,
        ),
        (
            Metric::new(format!("{name}-loss"), format!("{label}, lost"), "%", Better::Less),
            delivery.loss() * 100.0,
        ),
    ]
}

fn latency(trips: &RoundTrips, name: &str, words: &str) -> Vec<Figure> {
    [("p50", trips.p50), ("p99", trips.p99), ("p99.9", trips.p999)]
        .map(|(percentile, micros)| {
            let label = format!("half round trip {percentile}{words}");
            (Metric::new(format!("latency-{name}-{percentile}"), label, "µs", Better::Less), micros / 2.0)
        })
        .into()
}

/// The best of one sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Summit {
    best: f64,
    carried: f64,
}

impl Summit {
    /// Adds what was delivered of a rate, thousands per second; tells whether it is the most yet.
    pub(super) fn add(&mut self, delivered: f64, loss: f64) -> bool {
        let rises = delivered > self.best;
        self.best = self.best.max(delivered);
        if loss <= CARRIED {
            self.carried = self.carried.max(delivered);
        }
        rises
    }

    pub(super) fn figures(self, size: usize) -> Vec<Figure> {
        vec![
            (
                Metric::new(
                    format!("udp-{size}-best"),
                    format!("UDP {size} B, best delivered"),
                    "kpps",
                    Better::More,
                ),
                self.best,
            ),
            (
                Metric::new(
                    format!("udp-{size}-carried"),
                    format!("UDP {size} B, most at ≤ 0.5 % loss"),
                    "kpps",
                    Better::More,
                ),
                self.carried,
            ),
        ]
    }
}
