//! Between an engine and its plugin: passes on what they say to each other, and ends processes at a named moment of a
//! call, which is where an engine's own death can be told from outside.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// When during a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The plugin has not heard of it.
    Asked,
    /// The plugin has done it, and nobody was told.
    Done,
    /// The engine was told.
    Answered,
}

/// Who dies, and when.
#[derive(Debug, Clone)]
pub(crate) struct Death {
    /// Name of the call, as `NetworkDriver.Join`.
    pub(crate) call: &'static str,
    pub(crate) moment: Moment,
    pub(crate) doomed: Vec<u32>,
}

type Plan = Arc<Mutex<Option<Death>>>;

/// Passes on until dropped.
pub(crate) struct Relay {
    plan: Plan,
    front: PathBuf,
}

impl Relay {
    /// Listens at `front` for an engine whose plugin is at `behind`.
    pub(crate) fn start(front: PathBuf, behind: PathBuf) -> Self {
        let listener = UnixListener::bind(&front).expect("the relay's socket");
        let plan = Plan::default();
        let seen = plan.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (plan, behind) = (seen.clone(), behind.clone());
                std::thread::spawn(move || while pass(&stream, &behind, &plan).is_some() {});
            }
        });
        Self { plan, front }
    }

    /// Has a death happen at the next such call.
    pub(crate) fn plan(&self, death: Death) {
        *lock(&self.plan) = Some(death);
    }

    /// Whether the planned death has not happened.
    pub(crate) fn is_awaited(&self) -> bool {
        lock(&self.plan).is_some()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.front);
    }
}

fn lock(plan: &Plan) -> MutexGuard<'_, Option<Death>> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on a call and its answer; nothing once somebody has hung up.
fn pass(engine: &UnixStream, behind: &Path, plan: &Plan) -> Option<()> {
    let request = message(engine)?;
    strike(plan, &request, Moment::Asked)?;
    let mut plugin = UnixStream::connect(behind).ok()?;
    plugin.write_all(&request).ok()?;
    let answer = message(&plugin)?;
    strike(plan, &request, Moment::Done)?;
    let mut engine = engine;
    engine.write_all(&answer).ok()?;
    strike(plan, &request, Moment::Answered)
}

/// Ends whoever is to die now; nothing when somebody did.
fn strike(plan: &Plan, request: &[u8], moment: Moment) -> Option<()> {
    let mut plan = lock(plan);
    let is_now = |death: &Death| {
        death.moment == moment && request.starts_with(format!("POST /{} ", death.call).as_bytes())
    };
    let Some(death) = plan.take_if(|death| is_now(death)) else { return Some(()) };
    for pid in death.doomed.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    None
}

/// A whole message of HTTP whose body's length is said in its head.
fn message(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut part = [0; 4_096];
    loop {
        let head = octets.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head.filter(|head| octets.len() >= head + length(&octets[..*head])) {
            octets.truncate(head + length(&octets[..head]));
            return Some(octets);
        }
        let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
        octets.extend(&part[..count]);
    }
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let said = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    said.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
