//! Measures all contenders of one place by turns.

use std::path::Path;

use anyhow::{Context, Result};

use super::contender::Contender;
use super::figures::{Figure, Figures};
use super::progress::Progress;
use super::report::{Place, Report, Sweep};
use super::steps::{Step, Steps, Summit};
use crate::interrupt::{Interrupt, Interrupted};
use crate::traffic::Delivery;

/// Growth of the offered rate beyond those offered in any case.
const BEYOND: (u64, u64) = (5, 4);
/// No more is offered, thousands of datagrams per second.
const MOST: u64 = 20_000;

/// One place with its contenders.
pub(super) struct Run<'r> {
    pub(super) place: &'r str,
    pub(super) contenders: &'r [Contender],
    pub(super) steps: &'r Steps,
    pub(super) interrupt: &'r Interrupt,
    /// Where programs of others may write; they are measured where there is such a place alone.
    pub(super) directory: Option<&'r Path>,
    pub(super) progress: &'r mut Progress,
}

impl Run<'_> {
    /// Measures everything and adds it to the report. What fails is missing there, and named; the rest goes on.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub(super) fn measure(mut self, report: &mut Report) -> Result<()> {
        let mut figures = Figures::new(self.contenders.len());
        let mut sweeps = Vec::new();
        for step in self.steps.list.clone() {
            match step {
                Step::Sweep(size) => sweeps.push(self.sweep(size, &mut figures, &mut report.faults)?),
                _ => self.by_turns(step, &mut figures, &mut report.faults)?,
            }
        }
        let contenders = self.contenders.iter().map(Contender::shown).collect();
        report.places.push(Place::new(self.place, contenders, figures, sweeps));
        Ok(())
    }

    fn by_turns(&mut self, step: Step, figures: &mut Figures, faults: &mut Vec<String>) -> Result<()> {
        for turn in 1..=self.steps.repeats {
            for (index, contender) in self.contenders.iter().enumerate() {
                self.say(step, &format!("{}, turn {turn}", contender.name));
                let measured = self.turn(step, contender);
                if let Some(measured) = self.passed(measured, step, contender, faults)? {
                    figures.add(index, measured);
                }
                self.progress.done(self.steps.estimate_of(step));
            }
        }
        Ok(())
    }

    fn turn(&self, step: Step, contender: &Contender) -> Result<Vec<Figure>> {
        let ends = contender.ends(self.interrupt);
        let Step::Program(program) = step else { return self.steps.measure(step, &ends) };
        let directory = self.directory.context("programs of others are measured on a rig alone")?;
        program.measure(&ends, directory, self.steps.long())
    }

    /// By turns within each rate, so that all meet the same machine.
    fn sweep(&mut self, size: usize, figures: &mut Figures, faults: &mut Vec<String>) -> Result<Sweep> {
        let mut sweep = Sweep::new(size, self.contenders.len());
        for turn in 1..=self.steps.repeats {
            let mut summits = vec![Summit::default(); self.contenders.len()];
            for rate in rates(self.steps.offered()) {
                let rises = self.offer(size, rate, turn, &mut summits, &mut sweep, faults)?;
                if rate >= self.steps.offered().last().copied().unwrap_or(MOST) && !rises {
                    break;
                }
            }
            for (index, summit) in summits.into_iter().enumerate() {
                figures.add(index, summit.figures(size));
                self.progress.done(self.steps.estimate_of(Step::Sweep(size)));
            }
        }
        Ok(sweep)
    }

    /// Offers one rate to each contender; tells whether to any more was delivered than at all lower rates.
    fn offer(
        &mut self,
        size: usize,
        rate: u64,
        turn: usize,
        summits: &mut [Summit],
        sweep: &mut Sweep,
        faults: &mut Vec<String>,
    ) -> Result<bool> {
        let step = Step::Sweep(size);
        let mut rises = false;
        for (index, contender) in self.contenders.iter().enumerate() {
            self.say(step, &format!("{rate} kpps, {}, turn {turn}", contender.name));
            let measured = self.steps.offer(&contender.ends(self.interrupt), size, rate);
            let Some(delivery) = self.passed(measured, step, contender, faults)? else { continue };
            rises |= summits[index].add(delivery.rate() / 1e3, delivery.loss());
            note(sweep, rate, index, &delivery);
        }
        Ok(rises)
    }

    fn say(&mut self, step: Step, detail: &str) {
        self.progress.show(&format!("{}: {}", self.place, step.label()), detail);
    }

    /// What was measured; a failure is noted and gives nothing.
    fn passed<T>(
        &self,
        measured: Result<T>,
        step: Step,
        contender: &Contender,
        faults: &mut Vec<String>,
    ) -> Result<Option<T>> {
        match measured.with_context(|| format!("{}: {}, {}", self.place, contender.name, step.label())) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                faults.push(format!("{error:#}"));
                Ok(None)
            }
        }
    }
}

fn note(sweep: &mut Sweep, rate: u64, contender: usize, delivery: &Delivery) {
    sweep.add(rate, contender, delivery.rate() / 1e3, delivery.loss() * 100.0);
}

/// Those offered in any case, then ever more.
fn rates(offered: &'static [u64]) -> impl Iterator<Item = u64> {
    let last = offered.last().copied().unwrap_or(MOST);
    let (more, than) = BEYOND;
    let beyond = std::iter::successors(Some(last * more / than), move |rate| Some(rate * more / than))
        .take_while(|rate| *rate <= MOST);
    offered.iter().copied().chain(beyond)
}
