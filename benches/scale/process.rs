//! What a process takes of the machine.

use std::fs;

use anyhow::{Context, Result};

/// Processor time and memory of a process so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Seconds of all threads on processors.
    pub(crate) processor: f64,
    /// Resident memory, octets.
    pub(crate) memory: u64,
}

impl Usage {
    /// That of process `pid`; time by `schedstat` of its threads, which counts nanoseconds where `stat` counts ticks.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).context("list threads")?.flatten() {
            // One that ends meanwhile is not counted.
            let line = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanoseconds += line.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kilobytes = line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
        Ok(Self { processor: nanoseconds as f64 / 1e9, memory: kilobytes.unwrap_or(0) << 10 })
    }
}
