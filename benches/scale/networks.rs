//! Many networks between two hosts: all pairs of sandboxes talk at once, against one pair alone.

use std::time::Duration;

use anyhow::{Context, Result};
use weft::rig::{Blueprint, Rig, Wiring};
use weft::traffic::{Ends, Station, Throughput, median};

use crate::Options;
use crate::balance::Ledger;
use crate::datagrams;
use crate::environment::say;

/// How long a far end may take to answer at first.
const LIMIT: Duration = Duration::from_secs(15);

/// A sandbox on the first host and one on the second, in one network.
pub(crate) type Pair = [Station; 2];

pub(crate) fn measure(options: &Options, sealed: bool) -> Result<()> {
    let program = options.program.clone();
    let mut rig = Rig::build(&Blueprint { purpose: "bench", hosts: 2, wiring: Wiring::Cable, program })?;
    rig.start_all()?;
    let pairs = pairs(&rig, options, sealed)?;
    say(&format!(
        "\n{} networks × {} sandboxes on two hosts, {} pairs, {}",
        options.networks,
        2 * options.pairs,
        pairs.len(),
        if sealed { "sealed" } else { "in clear" }
    ))?;
    streams(&rig, &pairs, options)?;
    options.rates.iter().try_for_each(|rate| balance(&rig, &pairs, *rate, options))
}

/// All pairs, each of which has heard of the other.
fn pairs(rig: &Rig, options: &Options, sealed: bool) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for number in 0..options.networks {
        let name = format!("n{number}");
        rig.create_overlay(&name, sealed, LIMIT)?;
        for pair in 0..options.pairs {
            let end = |host, letter: char| rig.station(host, &name, &format!("{name}-{pair}{letter}"));
            pairs.push([end(0, 'a')?, end(1, 'b')?]);
        }
    }
    for [near, far] in &pairs {
        rig.ends(near, far).ping(LIMIT)?.context("the far end does not answer")?;
    }
    Ok(pairs)
}

/// One stream alone and one of each pair, of weft and between two ends on the kernel's VXLAN, by turns.
fn streams(rig: &Rig, pairs: &[Pair], options: &Options) -> Result<()> {
    let time = Duration::try_from_secs_f64(options.seconds).context("--seconds")?;
    let all: Vec<Ends<'_>> = pairs.iter().map(|[near, far]| rig.ends(near, far)).collect();
    let kernel = rig.kernel_stations(0, 1)?;
    let kernel = rig.ends(&kernel[0], &kernel[1]);
    kernel.ping(LIMIT)?.context("the kernel's VXLAN does not answer")?;
    let (mut ours, mut theirs) = (Turns::default(), Turns::default());
    let before = Ledger::read(rig, pairs)?;
    for turn in 0..options.repeats.max(1) {
        ours.add(all[turn * options.pairs % all.len()], &all, time)?;
        theirs.add(kernel, &vec![kernel; all.len()], time)?;
    }
    let lost = Ledger::read(rig, pairs)?.since(&before);
    ours.print("weft", all.len())?;
    theirs.print("the kernel's VXLAN", all.len())?;
    say("lost meanwhile (TCP fills every queue)")?;
    Ok(lost.lines().iter().try_for_each(|line| say(line))?)
}

/// What one stream alone and many at once carried, turn by turn, Gbit/s.
#[derive(Debug, Default)]
struct Turns {
    alone: Vec<f64>,
    together: Vec<f64>,
    fairness: Vec<f64>,
}

impl Turns {
    fn add(&mut self, one: Ends<'_>, all: &[Ends<'_>], time: Duration) -> Result<()> {
        self.alone.push(sum(&Ends::tcp_at_once(&[one], 1, time)?));
        let streams = Ends::tcp_at_once(all, 1, time)?;
        self.together.push(sum(&streams));
        self.fairness.push(jain(&streams));
        Ok(())
    }

    fn print(&mut self, who: &str, streams: usize) -> Result<()> {
        line(&format!("{who}, TCP, one stream alone, Gbit/s"), &mut self.alone)?;
        line(&format!("{who}, TCP, {streams} streams at once, Gbit/s"), &mut self.together)?;
        let ratio = median(&mut self.together) / median(&mut self.alone);
        say(&format!("{:<54}{ratio:>8.2}", "    ratio of medians"))?;
        line("    fairness between the streams (1: all alike)", &mut self.fairness)
    }
}

/// Octets of all over the time of the one that took longest, Gbit/s.
fn sum(streams: &[Throughput]) -> f64 {
    let octets: u64 = streams.iter().map(|stream| stream.octets).sum();
    let seconds = streams.iter().map(|stream| stream.seconds).fold(f64::MIN_POSITIVE, f64::max);
    octets as f64 * 8.0 / seconds / 1e9
}

/// Jain's index of fairness: 1 where all have the same, 1/n where one has everything.
fn jain(streams: &[Throughput]) -> f64 {
    let octets = || streams.iter().map(|stream| stream.octets as f64);
    let squares: f64 = octets().map(|octets| octets * octets).sum();
    octets().sum::<f64>().powi(2) / squares.max(1.0) / streams.len() as f64
}

fn line(what: &str, figures: &mut [f64]) -> Result<()> {
    let middle = median(figures);
    let (least, most) = (figures[0], figures[figures.len() - 1]);
    Ok(say(&format!("{what:<54}{middle:>8.2}  ({least:.2}–{most:.2})"))?)
}

/// Datagrams of all pairs at once: every one that is lost has to be in somebody's books.
fn balance(rig: &Rig, pairs: &[Pair], rate: u32, options: &Options) -> Result<()> {
    let time = Duration::try_from_secs_f64(options.seconds).context("--seconds")?;
    let before = Ledger::read(rig, pairs)?;
    let delivery = datagrams::send(pairs, rate, time)?;
    let ledger = Ledger::read(rig, pairs)?.since(&before);
    let lost = delivery.sent - delivery.received.min(delivery.sent);
    let counted = ledger.of_datagrams();
    say(&format!(
        "UDP, {rate}/s of each pair: {} sent at {:.0}/s, {} received, {lost} lost, {counted} counted, {} unexplained",
        delivery.sent,
        delivery.sent as f64 / delivery.seconds,
        delivery.received,
        lost.saturating_sub(counted),
    ))?;
    Ok(ledger.lines().iter().try_for_each(|line| say(line))?)
}
