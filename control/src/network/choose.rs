//! Which network a user means.

use super::NetworkError;
use crate::model::NetworkId;

/// The network a user means: a whole id wins over a name, a name over the beginning of an id.
pub(crate) fn choose<T: Copy>(all: &[(T, NetworkId, &str)], text: &str) -> Result<T, NetworkError> {
    if let Some((reach, ..)) = all.iter().find(|(_, id, _)| id.long() == text || id.to_string() == text) {
        return Ok(*reach);
    }
    let shown = || text.chars().take(80).collect();
    let pick = |found: Vec<T>, by| match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(NetworkError::Ambiguous { name: shown(), matches: found.len(), by }),
    };
    let named = all.iter().filter(|(.., name)| *name == text).map(|(reach, ..)| *reach).collect();
    if let Some(one) = pick(named, "on name")? {
        return Ok(one);
    }
    let hex = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let begins = |id: &NetworkId| hex && id.long().starts_with(&text.to_ascii_lowercase());
    let begun = all.iter().filter(|(_, id, _)| begins(id)).map(|(reach, ..)| *reach).collect();
    pick(begun, "based on ID prefix")?.ok_or_else(|| NetworkError::NoNetwork(shown()))
}
