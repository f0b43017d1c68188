//! The result as a picture: SVG 1.1, drawn with rectangles, lines and text alone.

use std::fmt::Write as _;

use super::contender::KERNEL;
use super::report::{Measure, Measured, Place, Report};
use super::table::number;

/// Lengths are pixels.
const WIDTH: usize = 980;
const MARGIN: usize = 20;
const COLUMNS: usize = 2;
const COLUMN: usize = (WIDTH - 2 * MARGIN) / COLUMNS;
/// Of a column: names of contenders, their bars, and room for figures after the longest bar.
const NAMES: usize = 100;
const BARS: usize = 230;
const BAR: usize = 15;
const TITLE: usize = 20;
const GAP: usize = 12;
const HEADING: usize = 34;

/// What contenders are drawn in, the same in every picture (Okabe and Ito's colours, which colour-blind people can tell
/// apart); a network of the user's has the first.
const COLOURS: [(&str, &str); 7] = [
    ("weft-clear", "#56b4e9"),
    ("weft-sealed", "#0072b2"),
    (KERNEL, "#999999"),
    ("raw", "#d9d9d9"),
    ("wireguard-go", "#e69f00"),
    ("boringtun", "#d55e00"),
    ("gotatun", "#009e73"),
];

/// Draws all places, one under the other.
pub(super) fn draw(report: &Report) -> String {
    let mut drawing = Drawing { text: String::new(), y: MARGIN };
    for line in report.heading() {
        drawing.y += 16;
        drawing.words(MARGIN, drawing.y, "note", &line);
    }
    drawing.y += GAP;
    for place in &report.places {
        drawing.place(place);
    }
    drawing.y += 16;
    drawing.words(
        MARGIN,
        drawing.y,
        "note",
        "bars: medians, lines: least to most; × is the ratio to kernel-vxlan",
    );
    drawing.finish()
}

/// What is worth a picture; the rest is in the table.
fn is_drawn(measure: &Measure) -> bool {
    !["-softirq", "-loss", "p99.9"].iter().any(|end| measure.name.ends_with(end))
}

fn colour_of(contender: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == contender).unwrap_or(&COLOURS[0]).1
}

struct Drawing {
    text: String,
    /// Where the next thing goes.
    y: usize,
}

impl Drawing {
    fn place(&mut self, place: &Place) {
        self.y += HEADING;
        self.words(MARGIN, self.y - 8, "heading", &place.name);
        let drawn: Vec<_> = place.measures.iter().filter(|measure| is_drawn(measure)).collect();
        for row in drawn.chunks(COLUMNS) {
            for (column, measure) in row.iter().enumerate() {
                self.measure(MARGIN + column * COLUMN, measure, place);
            }
            self.y += TITLE + place.contenders.len() * BAR + GAP;
        }
    }

    fn measure(&mut self, x: usize, measure: &Measure, place: &Place) {
        let title = format!("{}, {} ({} is better)", measure.label, measure.unit, measure.better);
        self.words(x, self.y + 14, "title", &title);
        let longest = measure.results.iter().map(|result| result.most).fold(0.0, f64::max);
        for (index, contender) in place.contenders.iter().enumerate() {
            let y = self.y + TITLE + index * BAR;
            self.words(x, y + 11, "name", &contender.name);
            let Some(result) = measure.results.iter().find(|result| result.contender == contender.name)
            else {
                continue;
            };
            self.bar(x + NAMES, y, result, longest, colour_of(&contender.name));
        }
    }

    fn bar(&mut self, x: usize, y: usize, result: &Measured, longest: f64, colour: &str) {
        let length = |value: f64| if longest > 0.0 { value / longest * BARS as f64 } else { 0.0 };
        let (least, median, most) = (length(result.least), length(result.median), length(result.most));
        let (left, middle) = (x as f64, y as f64 + (BAR - 3) as f64 / 2.0);
        let height = BAR - 3;
        let _ = writeln!(
            self.text,
            r#"<rect x="{x}" y="{y}" width="{median:.1}" height="{height}" fill="{colour}"/><line x1="{:.1}" y1="{middle:.1}" x2="{:.1}" y2="{middle:.1}" stroke="{INK}"/>"#,
            left + least,
            left + most
        );
        let figure = number(result.median);
        let ratio = result.ratios.get(KERNEL).map_or(String::new(), |ratio| {
            format!(r#"<tspan dx="8" font-weight="bold">{ratio:.2}×</tspan>"#)
        });
        let (x, y) = (x + most.max(median) as usize + 6, y + 11);
        let _ = writeln!(self.text, r#"<text x="{x}" y="{y}">{figure}{ratio}</text>"#);
    }

    fn words(&mut self, x: usize, y: usize, class: &str, words: &str) {
        let _ = writeln!(self.text, r#"<text x="{x}" y="{y}" class="{class}">{}</text>"#, quoted(words));
    }

    fn finish(self) -> String {
        let height = self.y + MARGIN;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">
<style>text {{ fill: {INK} }} .heading {{ font-size: 18px; font-weight: bold }} .title {{ font-weight: bold; font-size: 12px }} .note {{ fill: #555555 }}</style>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
{}</svg>
"##,
            self.text
        )
    }
}

const INK: &str = "#222222";

/// Text of a user as text of XML: names cannot become markup, and what XML has no way to say is left out.
fn quoted(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {}
            character => safe.push(character),
        }
    }
    safe
}
