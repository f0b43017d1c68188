//! What figures were measured on.

use std::fs;
use std::io;
use std::thread;

use serde::Serialize;

use crate::traffic;
use crate::verbs::now;

/// A machine at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Environment {
    /// RFC 3339, UTC, to the second.
    pub date: String,
    /// Version of weft.
    pub weft: String,
    /// `release` or `debug`.
    pub profile: &'static str,
    /// Release of Linux.
    pub kernel: String,
    /// Machine of `uname`, as `x86_64`.
    pub architecture: String,
    /// Model of the processor.
    pub processor: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Congestion control of TCP streams.
    pub congestion: String,
    /// Load averages of 1, 5 and 15 minutes before.
    pub load: String,
}

impl Environment {
    /// This one, now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read() -> io::Result<Self> {
        let system = nix::sys::utsname::uname()?;
        Ok(Self {
            date: now().to_seconds_text(),
            weft: env!("CARGO_PKG_VERSION").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            kernel: system.release().to_string_lossy().into_owned(),
            architecture: system.machine().to_string_lossy().into_owned(),
            processor: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism()?.get(),
            congestion: traffic::congestion(),
            load: first_words("/proc/loadavg", 3),
        })
    }

    /// It in words.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Self { date, weft, profile, kernel, architecture, processor, cores, congestion, load } = self;
        let mut lines = vec![
            format!("weft {weft} ({profile}), Linux {kernel} {architecture}, {date}"),
            format!("{cores} processors: {processor}; load before: {load}; TCP by {congestion}"),
        ];
        if *profile == "debug" {
            lines.push("this is a debug build: its figures mean nothing".to_owned());
        }
        lines
    }
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
