//! Traffic between two sandboxes of the demo, by turns over weft and over the kernel's VXLAN.

use std::time::Duration;

use anyhow::Result;

use super::Story;
use crate::output::{Colour, Table};
use crate::traffic::{Ends, UDP_SIZE, UdpLoad, median};

/// Turns of each; medians are shown.
const TURNS: usize = 3;
/// Length of one measurement.
const TIME: Duration = Duration::from_secs(1);
/// Datagrams per second offered, by turns; the best delivered is shown.
const OFFERED: [u64; 3] = [100_000, 200_000, 350_000];

/// One figure of both.
struct Figure {
    what: &'static str,
    unit: &'static str,
    weft: f64,
    kernel: f64,
}

impl Story<'_> {
    pub(super) fn traffic_beside_the_kernel(&mut self) -> Result<()> {
        self.chapter("Traffic from host a to host b, by turns over weft and over the kernel's VXLAN")?;
        self.say(
            "the underlay is a veth: the kernel's packets of 64 KB pass it uncut, as they would not on a wire",
        )?;
        let kernel = self.rig.kernel_stations(0, 1)?;
        let [near, far, ..] = self.stations.as_slice() else { anyhow::bail!("the demo needs two hosts") };
        let (weft, kernel) = (self.rig.ends(near, far), self.rig.ends(&kernel[0], &kernel[1]));
        warm_up(&kernel)?;
        let mut figures = Vec::new();
        for (what, unit, measure) in [
            ("TCP, one stream", "Gbit/s", tcp as fn(&Ends<'_>) -> Result<f64>),
            ("UDP, 64 bytes", "kpps", packet_rate),
            ("round trip, median", "µs", round_trip),
        ] {
            let (weft, kernel) = by_turns(&weft, &kernel, measure)?;
            figures.push(Figure { what, unit, weft, kernel });
        }
        self.show(&figures)
    }

    fn show(&mut self, figures: &[Figure]) -> Result<()> {
        let mut table = Table::new(["  WHAT", "WEFT", "KERNEL", "WEFT / KERNEL"]);
        for Figure { what, unit, weft, kernel } in figures {
            let cell = |value: f64| format!("{value:.*} {unit}", usize::from(value < 100.0));
            table.row([&format!("  {what}"), &cell(*weft), &cell(*kernel), &format!("{:.2}", weft / kernel)]);
        }
        self.screen.table(&table)?;
        let text = self.screen.paint(Colour::Dim, "of rates more is better, of round trips less");
        self.say(&text)
    }
}

/// The first packet resolves addresses.
fn warm_up(ends: &Ends<'_>) -> Result<()> {
    ends.ping(super::ANSWER_LIMIT).map(drop)
}

fn tcp(ends: &Ends<'_>) -> Result<f64> {
    Ok(ends.tcp(1, TIME)?.bits_per_second / 1e9)
}

fn packet_rate(ends: &Ends<'_>) -> Result<f64> {
    let mut best: f64 = 0.0;
    for rate in OFFERED {
        let load = UdpLoad { size: UDP_SIZE, rate, time: TIME / 2 };
        best = best.max(ends.udp(load)?.rate() / 1e3);
    }
    Ok(best)
}

fn round_trip(ends: &Ends<'_>) -> Result<f64> {
    Ok(ends.round_trips(TIME / 2)?.p50)
}

fn by_turns(weft: &Ends<'_>, kernel: &Ends<'_>, measure: fn(&Ends<'_>) -> Result<f64>) -> Result<(f64, f64)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(measure(weft)?);
        theirs.push(measure(kernel)?);
    }
    Ok((median(&mut ours), median(&mut theirs)))
}
