//! What is measured, how it is summed up, and the two forms that programs read: JSON and SVG.

use clap::Parser;
use serde_json::{Value, json};

use super::environment::Environment;
use super::figures::{Better, Figures, Metric};
use super::programs::{Program, ProgramShown};
use super::report::{ContenderShown, Place, Report, Settings, Sweep};
use super::steps::{Step, Steps, Summit};
use super::{plot, table};
use crate::args::{BenchArgs, Cli, Verb};
use crate::output::Screen;

fn arguments(line: &str) -> BenchArgs {
    match Cli::try_parse_from(line.split_whitespace()).expect(line).verb {
        Verb::Bench(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn steps(line: &str) -> Steps {
    Steps::new(&arguments(line).measures)
}

#[test]
fn everything_is_measured_unless_parts_are_named() {
    let all = steps("weft bench a b").list;
    assert_eq!(all[..2], [Step::Tcp(1), Step::Tcp(4)]);
    assert_eq!(all[2..5], [Step::Sweep(64), Step::Sweep(256), Step::Sweep(1400)]);
    assert_eq!(all[8..], [Step::Latency, Step::Load(4)]);
    let some = steps("weft bench --self --only load,tcp,flood --streams 1 --sizes 56,9000").list;
    assert_eq!(some, [Step::Tcp(1), Step::Flood(56), Step::Flood(9000), Step::Load(1)]);
}

#[test]
fn programs_of_others_run_where_they_are_named_alone() {
    assert!(steps("weft bench --self").programs().is_empty());
    let named = steps("weft bench --self --only http,tcp,iperf3 --streams 1");
    let programs = [Program::Iperf3, Program::Http];
    assert_eq!(named.list, [Step::Tcp(1), Step::Program(programs[0]), Step::Program(programs[1])]);
    assert_eq!(named.programs(), programs);
}

#[test]
fn a_quick_run_is_one_short_turn() {
    let (quick, whole) = (steps("weft bench --self --quick"), steps("weft bench --self"));
    assert_eq!((quick.repeats, whole.repeats), (1, 5));
    assert!(quick.estimate(4) * 10 < whole.estimate(4), "{:?}", quick.estimate(4));
}

#[test]
fn a_rate_counts_as_carried_up_to_half_a_per_cent_of_loss() {
    let mut summit = Summit::default();
    assert!(summit.add(50.0, 0.0));
    assert!(summit.add(100.0, 0.005));
    assert!(summit.add(140.0, 0.05), "more arrives");
    assert!(!summit.add(90.0, 0.5), "less arrives than before");
    let values: Vec<_> = summit.figures(64).into_iter().map(|(metric, value)| (metric.name, value)).collect();
    assert_eq!(values, [("udp-64-best".to_owned(), 140.0), ("udp-64-carried".to_owned(), 100.0)]);
}

#[test]
fn json_has_the_documented_shape() {
    let value = serde_json::to_value(report(&["weft-sealed", "kernel-vxlan", "wireguard-go"])).expect("JSON");
    assert_eq!(value["Format"], 1);
    assert_eq!(value["Environment"]["Cores"], 2);
    assert_eq!(value["Settings"], json!({ "Repeats": 5, "Seconds": 2.0, "Quick": false }));
    let place = &value["Places"][0];
    assert_eq!(place["Name"], "veth");
    assert_eq!(place["Contenders"][0], json!({ "Name": "weft-sealed", "Cipher": "AES-256-GCM" }));
    assert_eq!(place["Contenders"][1], json!({ "Name": "kernel-vxlan" }));
    assert_eq!(place["Contenders"][2]["Version"], "v1");
    let measure = &place["Measures"][0];
    for (key, expected) in
        [("Name", "tcp-1"), ("Label", "TCP, 1 stream"), ("Unit", "Gbit/s"), ("Better", "more")]
    {
        assert_eq!(measure[key], expected);
    }
    assert_eq!(
        measure["Results"][0],
        json!({
            "Contender": "weft-sealed",
            "Median": 2.0,
            "Least": 1.0,
            "Most": 3.0,
            "Turns": [1.0, 3.0, 2.0],
            "Ratios": { "kernel-vxlan": 0.5, "wireguard-go": 0.25 },
        })
    );
    assert_eq!(measure["Results"][1]["Ratios"], json!({}), "in clear beside what encrypts says nothing");
    assert_eq!(
        place["Sweeps"],
        json!([{ "Size": 64, "Rates": [
            { "Offered": 50, "Delivered": [49.0, null, null], "Lost": [2.0, null, null] },
        ] }])
    );
    assert_eq!(value["Faults"], Value::Array(Vec::new()));
    assert!(value.get("Programs").is_none(), "none carried anything");
}

#[test]
fn programs_of_others_are_named_with_their_versions_in_every_form() {
    let mut report = report(&["kernel-vxlan"]);
    report.programs = vec![ProgramShown { name: "wrk", version: "4.1.0".to_owned() }];
    let value = serde_json::to_value(&report).expect("JSON");
    assert_eq!(value["Programs"], json!([{ "Name": "wrk", "Version": "4.1.0" }]));
    assert!(plot::draw(&report).contains("wrk 4.1.0"));
    assert!(printed(&report).contains("wrk 4.1.0"));
}

#[test]
fn a_contender_that_gave_nothing_is_missing_and_not_zero() {
    let mut figures = Figures::new(2);
    figures.add(1, vec![(tcp(), 4.0)]);
    let contenders = vec![shown("weft-clear"), shown("kernel-vxlan")];
    let place = Place::new("veth", contenders, figures, Vec::new());
    let names: Vec<_> = place.measures[0].results.iter().map(|result| result.contender.as_str()).collect();
    assert_eq!(names, ["kernel-vxlan"]);
}

#[test]
fn the_plot_is_well_formed_whatever_things_are_called() {
    let drawn = plot::draw(&report(&["</svg><script>\"&'\x1b\u{0}", "kernel-vxlan"]));
    assert!(!drawn.contains("<script>") && !drawn.contains('\x1b') && !drawn.contains('\0'), "{drawn}");
    assert_well_formed(&drawn);
    assert!(drawn.contains("0.50×"), "the ratio is shown: {drawn}");
    assert_well_formed(&plot::draw(&report(&[])));
}

#[test]
fn the_table_shows_medians_their_spread_and_the_ratio_to_the_kernel() {
    let text = printed(&report(&["weft-sealed", "kernel-vxlan", "wireguard-go"]));
    for part in [
        "2.00 (1.00–3.00) 0.50×",
        "weft-sealed (AES-256-GCM)",
        "wireguard-go v1 (ChaCha20-Poly1305)",
        "weft-sealed / wireguard-go",
        "49.0, 2.0 % lost",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

fn printed(report: &Report) -> String {
    let printed = Captured::default();
    let mut screen = Screen::plain(Box::new(printed.clone()), Box::new(std::io::sink()));
    table::print(report, &mut screen).expect("printed");
    printed.text()
}

fn tcp() -> Metric {
    Metric::new("tcp-1".to_owned(), "TCP, 1 stream".to_owned(), "Gbit/s", Better::More)
}

fn shown(name: &str) -> ContenderShown {
    let cipher = match name {
        "weft-sealed" => Some("AES-256-GCM"),
        "wireguard-go" => Some("ChaCha20-Poly1305"),
        _ => None,
    };
    ContenderShown {
        name: name.to_owned(),
        cipher,
        version: (name == "wireguard-go").then(|| "v1".to_owned()),
    }
}

/// Three turns, each contender twice as fast as the one before.
fn report(contenders: &[&str]) -> Report {
    let mut figures = Figures::new(contenders.len());
    for turn in [1.0, 3.0, 2.0] {
        for contender in 0..contenders.len() {
            figures.add(contender, vec![(tcp(), turn * f64::from(1u32 << contender))]);
        }
    }
    let mut sweep = Sweep::new(64, contenders.len());
    if !contenders.is_empty() {
        sweep.add(50, 0, 49.0, 2.0);
    }
    let environment = Environment {
        date: "2026-01-02T03:04:05Z".to_owned(),
        weft: "1.2.3".to_owned(),
        profile: "release",
        kernel: "6.18".to_owned(),
        architecture: "x86_64".to_owned(),
        processor: "A <quick> one & only".to_owned(),
        cores: 2,
        congestion: "cubic".into(),
        load: "0.00 0.01 0.05".to_owned(),
    };
    let settings = Settings::new(&arguments("weft bench a b").measures);
    let mut report = Report::new(environment, settings);
    let contenders = contenders.iter().map(|name| shown(name)).collect();
    report.places.push(Place::new("veth", contenders, figures, vec![sweep]));
    report
}

/// Every element ends in the order it began, every attribute is quoted, and no `<` or `&` stands alone.
fn assert_well_formed(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml;
    while let Some((text, after)) = rest.split_once('<') {
        assert_text(text);
        let (tag, after) = after.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "ends what began last");
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("a name"));
        }
        rest = after;
    }
    assert_text(rest);
    assert!(open.is_empty(), "{open:?} never end");
}

fn assert_text(text: &str) {
    for (at, _) in text.match_indices('&') {
        assert!(
            ["&lt;", "&gt;", "&amp;", "&quot;"].iter().any(|entity| text[at..].starts_with(entity)),
            "{text}"
        );
    }
}

/// What was printed.
#[derive(Clone, Default)]
struct Captured(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("UTF-8")
    }
}

impl std::io::Write for Captured {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
