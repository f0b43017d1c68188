//! What each verb does: ask the agent, show the answer.

use std::time::{SystemTime, UNIX_EPOCH};

use weft_control::timestamp::UnixMillis;

pub(crate) mod cluster;
mod each;
pub(crate) mod host;
pub(crate) mod keys;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod sandbox;

/// Short form of an id, as tables show it.
pub(crate) const SHORT_ID: usize = 12;

/// An id as tables show it.
fn id_cell(id: &str, whole: bool) -> String {
    if whole { id.to_owned() } else { id.chars().take(SHORT_ID).collect() }
}

/// A cell for what may be missing.
fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// The present.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
