//! What the figures were measured on, and how they are printed.

use std::fs;
use std::io::{self, Write};
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
