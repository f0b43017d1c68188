//! The result as people read it.

use anyhow::Result;

use super::contender::KERNEL;
use super::report::{ContenderShown, Measured, Place, Report, Sweep, middle};
use crate::output::{Colour, Screen, Table, escape};

/// Prints everything.
pub(super) fn print(report: &Report, screen: &mut Screen) -> Result<()> {
    for line in report.heading() {
        screen.line(&escape(&line))?;
    }
    for place in &report.places {
        print_place(place, screen)?;
    }
    let text = if has_kernel(report) {
        "medians (least–most), and of others than the kernel's VXLAN the ratio to it"
    } else {
        "medians (least–most)"
    };
    let text = screen.paint(Colour::Dim, text);
    Ok(screen.line(&text)?)
}

fn has_kernel(report: &Report) -> bool {
    report.places.iter().flat_map(|place| &place.contenders).any(|contender| contender.name == KERNEL)
}

fn print_place(place: &Place, screen: &mut Screen) -> Result<()> {
    screen.line("")?;
    screen.table(&measures(place))?;
    for sweep in &place.sweeps {
        screen.line("")?;
        screen.table(&rates(sweep, place))?;
    }
    if let Some(table) = encrypted(place) {
        screen.line("")?;
        screen.table(&table)?;
    }
    screen.line("").map_err(Into::into)
}

fn names(place: &Place) -> impl Iterator<Item = String> + '_ {
    place.contenders.iter().map(ContenderShown::title)
}

fn measures(place: &Place) -> Table {
    let mut table = Table::of(std::iter::once(place.name.to_uppercase()).chain(names(place)).collect());
    for measure in &place.measures {
        let result = |name: &str| measure.results.iter().find(|result| result.contender == name);
        let cells = place.contenders.iter().map(|contender| result(&contender.name).map_or("-".into(), cell));
        let label = format!("{}, {}", measure.label, measure.unit);
        table.add(std::iter::once(label).chain(cells).collect());
    }
    table
}

fn cell(result: &Measured) -> String {
    let mut text = number(result.median);
    if result.turns.len() > 1 {
        text += &format!(" ({}–{})", number(result.least), number(result.most));
    }
    if let Some(ratio) = result.ratios.get(KERNEL) {
        text += &format!(" {ratio:.2}×");
    }
    text
}

/// What was delivered of each offered rate, and what was lost.
fn rates(sweep: &Sweep, place: &Place) -> Table {
    let title = format!("UDP {} B, KPPS OFFERED", sweep.size);
    let mut table = Table::of(std::iter::once(title).chain(names(place)).collect());
    for rate in &sweep.rates {
        let cells = rate.delivered.iter().zip(&rate.lost).map(|(delivered, lost)| {
            let figures = middle(delivered).zip(middle(lost));
            figures.map_or("-".into(), |(delivered, lost)| format!("{}, {lost:.1} % lost", number(delivered)))
        });
        table.add(std::iter::once(rate.offered.to_string()).chain(cells).collect());
    }
    table
}

/// What encrypts beside what encrypts; `None` where there is one alone.
fn encrypted(place: &Place) -> Option<Table> {
    let mut ciphers = place.contenders.iter().filter(|contender| contender.cipher.is_some());
    let first = ciphers.next()?;
    let others: Vec<_> = ciphers.map(|contender| contender.name.as_str()).collect();
    if others.is_empty() {
        return None;
    }
    let titles = others.iter().map(|other| format!("{} / {other}", first.name));
    let mut table = Table::of(std::iter::once("ENCRYPTED".to_owned()).chain(titles).collect());
    for measure in &place.measures {
        let Some(result) = measure.results.iter().find(|result| result.contender == first.name) else {
            continue;
        };
        let ratio =
            |other: &&str| result.ratios.get(*other).map_or("-".into(), |ratio| format!("{ratio:.2}×"));
        table.add(std::iter::once(measure.label.clone()).chain(others.iter().map(ratio)).collect());
    }
    Some(table)
}

/// A figure with three digits or so.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}
