//! What benchmarks have in common: what the figures were measured on, how they are printed, how it ends.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

/// Prints it.
pub(crate) fn print() -> io::Result<()> {
    let system = nix::sys::utsname::uname()?;
    let processors = thread::available_parallelism()?;
    say(&format!("weft {}, Linux {}", env!("CARGO_PKG_VERSION"), system.release().to_string_lossy()))?;
    say(&format!("{processors} processors: {}", field("/proc/cpuinfo", "model name")))?;
    say(&format!("load before: {}", first_words("/proc/loadavg", 3)))?;
    if cfg!(debug_assertions) {
        say("this is a debug build: its figures mean nothing")?;
    }
    Ok(())
}

/// Runs the benchmark `name`, where `cargo bench` asks for it.
pub(crate) fn outcome(name: &str, asked: bool, run: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    if !asked {
        // `cargo test --all-targets` starts benchmarks too; only `cargo bench` says so.
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line at once.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    line.map_or("unknown", |(_, value)| value.trim()).to_owned()
}

fn first_words(path: &str, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}
