//! The result of a run. Its JSON form is described in docs/performance.md and only ever grows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::KERNEL;
use super::environment::Environment;
use super::figures::{Figures, Metric, spread};
use super::programs::ProgramShown;
use crate::args::MeasureArgs;
use crate::traffic::median;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Report {
    /// Of this shape; grows only when something in it changes its meaning.
    pub(super) format: u32,
    pub(super) environment: Environment,
    pub(super) settings: Settings,
    /// Programs of others that carried traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) programs: Vec<ProgramShown>,
    pub(super) places: Vec<Place>,
    /// What could not be measured, and why.
    pub(super) faults: Vec<String>,
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Settings {
    pub(super) repeats: u8,
    pub(super) seconds: f64,
    pub(super) quick: bool,
}

/// One place: an underlay of a rig, or a network between two sandboxes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) contenders: Vec<ContenderShown>,
    pub(super) measures: Vec<Measure>,
    pub(super) sweeps: Vec<Sweep>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContenderShown {
    pub(super) name: String,
    /// Absent in clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cipher: Option<&'static str>,
    /// Of a program of somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
}

impl ContenderShown {
    /// Name, version and cipher, as far as there are.
    pub(super) fn title(&self) -> String {
        let version = self.version.iter().map(|version| format!(" {version}"));
        let cipher = self.cipher.iter().map(|cipher| format!(" ({cipher})"));
        std::iter::once(self.name.clone()).chain(version).chain(cipher).collect()
    }
}

/// One kind of figures.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) unit: &'static str,
    /// `more` or `less`.
    pub(super) better: &'static str,
    pub(super) results: Vec<Measured>,
}

/// One kind of figures of one contender.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Measured {
    pub(super) contender: String,
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) turns: Vec<f64>,
    /// The median divided by that of others, by their names: the kernel's VXLAN, and what is encrypted by what is.
    pub(super) ratios: BTreeMap<String, f64>,
}

/// Medians of delivered rates and losses of one size by offered rate.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Sweep {
    pub(super) size: usize,
    pub(super) rates: Vec<Rate>,
    #[serde(skip)]
    contenders: usize,
}

/// What became of one offered rate; lists are in the order of contenders, `null` where nothing was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Rate {
    /// Thousands of datagrams per second.
    pub(super) offered: u64,
    /// Thousands of datagrams per second.
    #[serde(serialize_with = "medians")]
    pub(super) delivered: Vec<Vec<f64>>,
    /// Per cent.
    #[serde(serialize_with = "medians")]
    pub(super) lost: Vec<Vec<f64>>,
}

impl Report {
    pub(super) fn new(environment: Environment, settings: Settings) -> Self {
        let (programs, places, faults) = (Vec::new(), Vec::new(), Vec::new());
        Self { format: 1, environment, settings, programs, places, faults }
    }

    /// What it was measured on and with, in words.
    pub(super) fn heading(&self) -> Vec<String> {
        let programs: Vec<_> =
            self.programs.iter().map(|program| format!("{} {}", program.name, program.version)).collect();
        let line = (!programs.is_empty()).then(|| format!("by programs of others: {}", programs.join(", ")));
        self.environment.lines().into_iter().chain(line).collect()
    }
}

impl Settings {
    pub(super) fn new(args: &MeasureArgs) -> Self {
        Self { repeats: args.repeats, seconds: args.seconds, quick: args.quick }
    }
}

impl Place {
    pub(super) fn new(
        name: &str,
        contenders: Vec<ContenderShown>,
        figures: Figures,
        sweeps: Vec<Sweep>,
    ) -> Self {
        let rows = figures.rows().into_iter();
        let measures = rows.map(|(metric, turns)| Measure::new(metric, turns, &contenders)).collect();
        Self { name: name.to_owned(), contenders, measures, sweeps }
    }
}

impl Measure {
    fn new(metric: Metric, turns: Vec<Vec<f64>>, contenders: &[ContenderShown]) -> Self {
        let mut results: Vec<_> = contenders
            .iter()
            .zip(turns)
            .filter_map(|(contender, turns)| Measured::new(&contender.name, turns))
            .collect();
        let medians: Vec<_> =
            results.iter().map(|result| (result.contender.clone(), result.median)).collect();
        for result in &mut results {
            result.ratios = ratios(result, &medians, contenders);
        }
        let Metric { name, label, unit, better } = metric;
        Self { name, label, unit, better: better.word(), results }
    }
}

impl Measured {
    fn new(contender: &str, turns: Vec<f64>) -> Option<Self> {
        let (least, median, most) = spread(&turns)?;
        Some(Self { contender: contender.to_owned(), median, least, most, turns, ratios: BTreeMap::new() })
    }
}

/// To the kernel's VXLAN; and of weft sealed to others that encrypt.
fn ratios(of: &Measured, medians: &[(String, f64)], contenders: &[ContenderShown]) -> BTreeMap<String, f64> {
    let encrypts = |name: &str| contenders.iter().any(|other| other.name == name && other.cipher.is_some());
    medians
        .iter()
        .filter(|(name, median)| *name != of.contender && *median != 0.0)
        .filter(|(name, _)| name == KERNEL || encrypts(name) && encrypts(&of.contender))
        .map(|(name, median)| (name.clone(), of.median / median))
        .collect()
}

impl Sweep {
    pub(super) fn new(size: usize, contenders: usize) -> Self {
        Self { size, rates: Vec::new(), contenders }
    }

    /// Notes what was delivered of an offered rate (thousands per second), and the loss in per cent.
    pub(super) fn add(&mut self, offered: u64, contender: usize, delivered: f64, lost: f64) {
        let place = self.rates.iter().position(|rate| rate.offered == offered).unwrap_or_else(|| {
            let none = vec![Vec::new(); self.contenders];
            self.rates.push(Rate { offered, delivered: none.clone(), lost: none });
            self.rates.len() - 1
        });
        self.rates[place].delivered[contender].push(delivered);
        self.rates[place].lost[contender].push(lost);
    }
}

fn medians<S: serde::Serializer>(turns: &[Vec<f64>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(turns.iter().map(|turns| middle(turns)))
}

/// The middle, if there is one.
pub(super) fn middle(turns: &[f64]) -> Option<f64> {
    (!turns.is_empty()).then(|| median(&mut turns.to_vec()))
}
