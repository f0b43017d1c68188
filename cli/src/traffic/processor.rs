//! Which processor an end of a measurement runs on, and what all processors together spend on it.

use std::fs;
use std::io;
use std::ops::Sub;
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Who sends a datagram and waits for its echo.
pub(super) const PING: usize = 0;
/// Who sends it back: ends on different hosts never share a processor, and a wake-up on the spot would flatter
/// whoever needs only that.
pub(super) const ECHO: usize = 1;

/// An end of a load of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Who makes it.
    Source,
    /// Who counts it.
    Sink,
}

/// Keeps the calling thread on one processor; where that is not to be had it stays free.
pub(super) fn stay_on(processor: usize) {
    let mut only = CpuSet::new();
    let _ = only.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
}

/// Keeps the calling thread on a processor of its own where more than two are there: the last ones, since agents begin
/// with the first.
pub(super) fn stay_on_one_of_many(role: Role) {
    let count = thread::available_parallelism().map_or(1, usize::from);
    if let Some(processor) = of_many(role, count) {
        stay_on(processor);
    }
}

fn of_many(role: Role, count: usize) -> Option<usize> {
    let from_the_last = match role {
        Role::Source => 1,
        Role::Sink => 2,
    };
    (count > 2).then(|| count - from_the_last)
}

/// Processor time of the whole machine since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessorTime {
    /// Core-seconds in programs, the kernel and its interrupts.
    pub busy: f64,
    /// Of these in softirqs, where the kernel forwards.
    pub softirq: f64,
}

impl ProcessorTime {
    /// Until now.
    ///
    /// # Errors
    /// `/proc/stat` is not there or not as expected.
    pub fn now() -> io::Result<Self> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
        parse(&fs::read_to_string("/proc/stat")?, f64::from(ticks))
            .ok_or_else(|| io::Error::other("/proc/stat is not as expected"))
    }
}

impl Sub for ProcessorTime {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { busy: self.busy - before.busy, softirq: self.softirq - before.softirq }
    }
}

/// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, in ticks; guests are in user.
fn parse(stat: &str, ticks_per_second: f64) -> Option<ProcessorTime> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    let seconds = |ticks: f64| ticks / ticks_per_second;
    Some(ProcessorTime { busy: seconds(user + nice + system + irq + softirq), softirq: seconds(softirq) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_programs_kernel_and_interrupts_counts_and_waiting_does_not() {
        let stat = "cpu  100 10 50 9999 888 5 35 7 6 0\ncpu0 1 1 1 1 1 1 1\n";
        assert_eq!(parse(stat, 100.0), Some(ProcessorTime { busy: 2.0, softirq: 0.35 }));
        assert_eq!(parse("cpu  100 10\n", 100.0), None);
        assert_eq!(parse("", 100.0), None);
    }

    #[test]
    fn the_machines_processor_time_only_grows() {
        let before = ProcessorTime::now().expect("/proc/stat");
        let spent = ProcessorTime::now().expect("/proc/stat") - before;
        assert!(spent.busy >= 0.0 && spent.softirq >= 0.0, "{spent:?}");
    }

    #[test]
    fn both_ends_of_a_load_have_a_processor_each_where_there_are_more_than_two() {
        assert_eq!((of_many(Role::Source, 2), of_many(Role::Sink, 2)), (None, None));
        assert_eq!((of_many(Role::Source, 8), of_many(Role::Sink, 8)), (Some(7), Some(6)));
    }
}
