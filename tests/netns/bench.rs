//! `weft bench`: that it measures, what it refuses, and that nothing is left of it. No figure is judged.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::audit::{mounts_under, processes_with};
use crate::rig::{Host, Rig, needs_root};
use crate::wait::until;
use crate::weft;

#[test]
fn weft_is_measured_beside_the_kernel_on_a_rig_of_its_own_and_nothing_is_left_behind() {
    needs_root!();
    let plot = tempfile::NamedTempFile::new().expect("a file");
    let mut command = weft::weft();
    command.args(["bench", "--self", "--underlay", "wire-like", "--contender", "weft-sealed,kernel-vxlan"]);
    command.args([
        "--sizes",
        "64",
        "--streams",
        "2",
        "--repeats",
        "1",
        "--seconds",
        "0.1",
        "--quick",
        "--json",
    ]);
    command.arg("--plot").arg(plot.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("started");
    let directory = directory_of(&child);
    let answer: weft::Answer = child.wait_with_output().expect("ended").into();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_gone(&directory);

    let report = answer.json();
    let place = &report["Places"][0];
    assert_eq!(place["Name"], "wire-like");
    let median = |measure: &str, contender: usize| median(place, measure, contender);
    for measure in [
        "tcp-1",
        "tcp-2",
        "tcp-1-cpu",
        "udp-64-best",
        "udp-64-flood",
        "latency-idle-p50",
        "latency-load-p99.9",
    ] {
        assert!(median(measure, 0) > 0.0 && median(measure, 1) > 0.0, "{measure}: {place}");
    }
    let ratio = place["Measures"][0]["Results"][0]["Ratios"]["kernel-vxlan"].as_f64().expect("a ratio");
    assert!((ratio - median("tcp-1", 0) / median("tcp-1", 1)).abs() < 1e-9, "{ratio}");
    assert!(
        answer.stderr.contains("wire-like: TCP, 2 streams\n"),
        "it says how far it is: {}",
        answer.stderr
    );
    assert!(!answer.stderr.contains('\x1b'), "no line moves where no terminal is: {}", answer.stderr);
    let drawn = std::fs::read_to_string(plot.path()).expect("a plot");
    assert!(drawn.starts_with("<svg") && drawn.contains("weft-sealed"), "{drawn}");
}

#[test]
fn programs_of_others_are_measured_where_they_are_installed_and_end_with_the_bench() {
    needs_root!();
    let installed = PROGRAMS.iter().filter(|(_, needs, _)| needs.iter().all(|program| is_installed(program)));
    let (names, measures): (Vec<_>, Vec<_>) = installed.map(|(name, _, measures)| (*name, *measures)).unzip();
    assert!(names.contains(&"iperf3"), "the setup for tests installs it");
    let mut command = weft::weft();
    command.args(["bench", "--self", "--underlay", "veth", "--contender", "weft-clear,kernel-vxlan"]);
    command.args(["--quick", "--seconds", "0.1", "--json", "--only", &names.join(",")]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let directory = directory_of(&child);
    let answer: weft::Answer = child.wait_with_output().expect("ended").into();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_gone(&directory);
    let report = answer.json();
    assert_eq!(report["Programs"][0]["Name"], "iperf3");
    let place = &report["Places"][0];
    for measure in measures.concat() {
        assert!(median(place, measure, 0) > 0.0 && median(place, measure, 1) > 0.0, "{measure}: {place}");
    }
}

#[test]
fn programs_of_others_that_are_missing_or_go_with_a_rig_alone_are_refused_with_a_way_out() {
    needs_root!();
    let refusal = |arguments: &[&str], path: &str| {
        let answer: weft::Answer =
            weft::weft().args(arguments).env("PATH", path).output().expect("ran").into();
        (answer.code, answer.stderr)
    };
    let (code, said) = refusal(&["bench", "--self", "--only", "redis"], "/nowhere");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("'redis-server', 'redis-benchmark'") && said.contains("install"), "{said}");
    let rig = Rig::cluster(1);
    let host = &rig.hosts[0];
    let said = host.refused(2, &["bench", "web", "db", "--only", "iperf3"]);
    assert!(said.contains("--self") && said.contains("weft exec"), "{said}");
}

/// What can be named, what it needs, and some of its figures.
const PROGRAMS: [(&str, &[&str], &[&str]); 3] = [
    ("iperf3", &["iperf3"], &["iperf3-1"]),
    ("redis", &["redis-server", "redis-benchmark"], &["redis-get", "redis-set"]),
    ("http", &["nginx", "wrk"], &["http-small", "http-small-p99", "http-large"]),
];

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[test]
fn a_bench_that_is_interrupted_leaves_nothing_behind() {
    needs_root!();
    let mut command = weft::weft();
    command.args(["bench", "--self", "--contender", "weft-clear", "--only", "tcp", "--seconds", "60"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let directory = directory_of(&child);
    let said = BufReader::new(child.stderr.take().expect("piped")).lines();
    let begun = said.map_while(Result::ok).any(|line| line == "veth: TCP, 1 stream");
    assert!(begun, "it ended before it measured");
    assert!(directory.exists(), "the rig is there");
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGINT)
        .expect("signal sent");
    let answer: weft::Answer = child.wait_with_output().expect("ended").into();
    assert_eq!(answer.code, 130, "{answer:?}");
    assert_gone(&directory);
}

#[test]
fn two_sandboxes_are_measured_in_the_network_they_share_and_others_are_refused_with_a_way_out() {
    needs_root!();
    let rig = Rig::cluster(2);
    let [a, b] = rig.hosts.as_slice() else { panic!("two hosts") };
    a.ok(&["network", "create", "-d", "overlay", "-o", "encrypted", "blue"]);
    a.ok(&["network", "create", "red"]);
    let (_web, _db) = (a.sandbox("web", "blue", &[]), a.sandbox("db", "blue", &[]));
    a.ok(&["sandbox", "create", "lone"]);
    let report = a.json(&[&["bench", "web", "db"][..], &QUICK].concat());
    let place = &report["Places"][0];
    assert_eq!(place["Name"], "web to db");
    assert_eq!(place["Contenders"][0], serde_json::json!({ "Name": "blue", "Cipher": "AES-256-GCM" }));
    assert!(median(place, "tcp-4", 0) > 0.0 && median(place, "latency-idle-p99", 0) > 0.0, "{place}");

    assert!(a.refused(1, &["bench", "web", "lone"]).contains("weft network connect"));
    assert!(a.refused(1, &["bench", "web", "nobody"]).contains("'nobody' share no network"));
    assert!(a.refused(1, &["bench", "nobody", "web"]).contains("nobody"));
    assert!(a.refused(1, &["bench", "web", "db", "--network", "red"]).contains("weft network connect red"));
    assert!(a.refused(2, &["bench", "web", "web"]).contains("two sandboxes"));
    assert!(a.refused(2, &["bench", "web", "db", "--plot", "/nowhere/x.svg"]).contains("/nowhere/x.svg"));
    for name in ["web", "db"] {
        a.ok(&["network", "connect", "red", name]);
    }
    assert!(a.refused(1, &["bench", "web", "db"]).contains("(blue, red): choose one with --network"));

    until("b learns of blue", || b.weft(&["network", "inspect", "blue"]).code == 0);
    let _api = b.sandbox("api", "blue", &[]);
    until("a learns of api", || {
        a.refused(1, &["bench", "web", "api"]).contains("on host b and does not listen")
    });
    assert!(a.refused(1, &["bench", "web", "api"]).contains("run 'weft bench --serve api' there"));
    let far_end = FarEnd::start(b, "api");
    let report = a.json(&[&["bench", "web", "api"][..], &QUICK].concat());
    let place = &report["Places"][0];
    for measure in ["tcp-1", "tcp-4", "udp-64-flood", "latency-idle-p50", "latency-load-p50"] {
        assert!(median(place, measure, 0) > 0.0, "{measure}: {place}");
    }
    far_end.ends_on_a_signal();
}

const QUICK: [&str; 7] = ["--quick", "--seconds", "0.1", "--only", "tcp,flood,latency,load", "--sizes", "64"];

/// A `weft bench --serve` that listens.
struct FarEnd(Child);

impl FarEnd {
    fn start(host: &Host, sandbox: &str) -> Self {
        let mut command = host.command(&["bench", "--serve", sandbox]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut said).expect("UTF-8");
        assert!(said.contains("far end"), "{said}");
        Self(child)
    }

    fn ends_on_a_signal(mut self) {
        interrupt(&self.0);
        assert_eq!(self.0.wait().expect("ended").code(), Some(0));
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        // of no consequence for one that has ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("signal sent");
}

fn median(place: &Value, measure: &str, contender: usize) -> f64 {
    let measures = place["Measures"].as_array().expect("measures");
    let found = measures.iter().find(|known| known["Name"] == measure);
    let found = found.unwrap_or_else(|| panic!("no {measure} in {place}"));
    found["Results"][contender]["Median"].as_f64().unwrap_or_else(|| panic!("{found}"))
}

fn directory_of(child: &Child) -> PathBuf {
    format!("/run/weft-bench-{}", child.id()).into()
}

fn assert_gone(directory: &Path) {
    assert!(!directory.exists(), "{} is left", directory.display());
    assert_eq!(mounts_under(directory), Vec::<String>::new());
    assert!(processes_with(directory).is_empty(), "{:?}", processes_with(directory));
}
