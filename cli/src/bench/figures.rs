//! What is counted: kinds of figures, and all figures of a run by kind and contender.

use crate::traffic::median;

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

impl Better {
    /// As JSON says it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::More => "more",
            Self::Less => "less",
        }
    }
}

/// A kind of figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metric {
    /// As JSON says it, without spaces.
    pub(super) name: String,
    /// As people read it.
    pub(super) label: String,
    pub(super) unit: &'static str,
    pub(super) better: Better,
}

impl Metric {
    pub(super) fn new(name: String, label: String, unit: &'static str, better: Better) -> Self {
        Self { name, label, unit, better }
    }
}

/// A figure of a kind.
pub(super) type Figure = (Metric, f64);

/// All figures of a run.
#[derive(Debug)]
pub(super) struct Figures {
    contenders: usize,
    rows: Vec<(Metric, Vec<Vec<f64>>)>,
}

impl Figures {
    /// None yet, of so many contenders.
    pub(super) fn new(contenders: usize) -> Self {
        Self { contenders, rows: Vec::new() }
    }

    /// Adds what a contender's turn gave.
    pub(super) fn add(&mut self, contender: usize, figures: Vec<Figure>) {
        for (metric, value) in figures {
            let row = self.row(metric);
            self.rows[row].1[contender].push(value);
        }
    }

    fn row(&mut self, metric: Metric) -> usize {
        if let Some(row) = self.rows.iter().position(|(known, _)| *known == metric) {
            return row;
        }
        self.rows.push((metric, vec![Vec::new(); self.contenders]));
        self.rows.len() - 1
    }

    /// Kinds in the order they came, each with the turns of every contender.
    pub(super) fn rows(self) -> Vec<(Metric, Vec<Vec<f64>>)> {
        self.rows
    }
}

/// The middle of some figures and how far they go; `None` of none.
pub(super) fn spread(turns: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = turns.to_vec();
    let middle = median(&mut sorted);
    Some((*sorted.first()?, middle, *sorted.last()?))
}
