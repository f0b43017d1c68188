//! What benchmarks have in common: what the figures were measured on, how they are printed, how it ends.

use std::io::{self, Write};
use std::process::ExitCode;

use weft::bench::Environment;

/// Prints it.
pub(crate) fn print() -> io::Result<()> {
    Environment::read()?.lines().iter().try_for_each(|line| say(line))
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
