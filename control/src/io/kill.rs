//! Named points at which a test can have the agent killed, to prove that a restart finds everything again.
//!
//! In debug builds the environment variable `WEFT_KILL_AT=<point>[:before|:after]` makes the process send itself
//! SIGKILL when it comes to that point for the first time; `before` is the default. Release builds have no such
//! points.

/// Promises made durable: the steps of [`Storage::commit`](crate::storage::Storage::commit).
const PROMISES: [&str; 14] = [
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
    "sandbox-create",
    "sandbox-interface",
    "sandbox-remove",
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

/// Passes a point, unless the environment says that the process dies here.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str, side: Side) {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<(String, Side)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| parse(&std::env::var("WEFT_KILL_AT").ok()?));
    if wanted.as_ref().is_some_and(|(point, at)| point == name && *at == side) {
        // SIGKILL cannot fail against oneself, and nothing after it runs.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Passes a point.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &str, _side: Side) {}

#[cfg(debug_assertions)]
fn parse(text: &str) -> Option<(String, Side)> {
    match text.rsplit_once(':') {
        Some((point, "after")) => Some((point.to_owned(), Side::After)),
        Some((point, "before")) => Some((point.to_owned(), Side::Before)),
        _ if text.is_empty() => None,
        _ => Some((text.to_owned(), Side::Before)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_or_without_its_side() {
        assert_eq!(parse("grant"), Some(("grant".to_owned(), Side::Before)));
        assert_eq!(parse("grant:after"), Some(("grant".to_owned(), Side::After)));
        assert_eq!(parse("a:b:before"), Some(("a:b".to_owned(), Side::Before)));
        assert_eq!(parse(""), None);
    }
}
