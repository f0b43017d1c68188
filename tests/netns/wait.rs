//! Waiting for what must come true, with deadlines generous enough for a starved machine.

use std::time::{Duration, Instant};

/// Longest time the cluster may take to agree.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tries until `attempt` succeeds and gives its value; fails with the last complaint.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(10);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(complaint) if Instant::now() > deadline => panic!("{what}: {complaint}"),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// Waits until `holds`.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || if holds() { Ok(()) } else { Err("it never came true".to_owned()) });
}
