//! Named points at which a test can have the agent killed, to prove that a restart finds everything again.
//!
//! In debug builds the environment variable `WEFT_KILL_AT=<point>[:before|:after][:<n>]` makes the process send
//! itself SIGKILL when it comes to that point for the `n`th time; `before` and 1 are the defaults. Release builds
//! have no such points.

/// Promises made durable: the steps of [`Storage::commit`](crate::storage::Storage::commit).
const PROMISES: [&str; 26] = [
    "boot",
    "network-create",
    "network-learn",
    "network-remove",
    "endpoint-attach",
    "endpoint-detach",
    "range-gain",
    "range-grant",
    "range-leave",
    "range-wake",
    "peers",
    "local-network-create",
    "local-network-remove",
    "local-endpoint-attach",
    "local-endpoint-detach",
    "ports-publish",
    "ports-give-up",
    "sandbox-create",
    "sandbox-interface",
    "sandbox-remove",
    "address-hold",
    "address-release",
    "docker-network",
    "docker-endpoint-create",
    "docker-endpoint-join",
    "docker-endpoint-leave",
];

/// Every point, as `WEFT_KILL_AT` takes it: both sides of every durable promise and of every kind of kernel step.
#[must_use]
pub fn points() -> Vec<String> {
    let names = PROMISES.iter().chain(&crate::plan::Step::NAMES);
    names.flat_map(|name| [format!("{name}:before"), format!("{name}:after")]).collect()
}

/// A side of a named point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The step has not begun.
    Before,
    /// The step is done and nobody has been told.
    After,
}

/// Where the environment says that the process dies.
#[cfg(debug_assertions)]
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    point: String,
    side: Side,
    /// From 1.
    time: u32,
}

/// Passes a point, unless the environment says that the process dies here.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str, side: Side) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| parse(&std::env::var("WEFT_KILL_AT").ok()?));
    let Some(wanted) = wanted.as_ref().filter(|wanted| wanted.point == name && wanted.side == side) else {
        return;
    };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == wanted.time {
        // SIGKILL cannot fail against oneself, and nothing after it runs.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Passes a point.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &str, _side: Side) {}

#[cfg(debug_assertions)]
fn parse(text: &str) -> Option<Wanted> {
    let (text, time) = match text.rsplit_once(':').map(|(rest, last)| (rest, last.parse())) {
        Some((rest, Ok(time))) => (rest, time),
        _ => (text, 1),
    };
    let (point, side) = match text.rsplit_once(':') {
        Some((point, "after")) => (point, Side::After),
        Some((point, "before")) => (point, Side::Before),
        _ => (text, Side::Before),
    };
    (!point.is_empty()).then(|| Wanted { point: point.to_owned(), side, time })
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_or_without_its_side_and_its_turn() {
        let at = |point: &str, side, time| Some(Wanted { point: point.to_owned(), side, time });
        assert_eq!(parse("grant"), at("grant", Side::Before, 1));
        assert_eq!(parse("grant:after"), at("grant", Side::After, 1));
        assert_eq!(parse("grant:after:3"), at("grant", Side::After, 3));
        assert_eq!(parse("grant:2"), at("grant", Side::Before, 2));
        assert_eq!(parse("a:b:before"), at("a:b", Side::Before, 1));
        assert_eq!(parse(""), None);
    }
}
