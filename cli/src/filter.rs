//! `network ls --filter`: Docker's keys, applied to what the agent lists.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use weft_control::api::Network;

use crate::args::KeyValue;

/// What a network has to be to be listed.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Wanted values by key; within a key one must match, except labels, of which all must.
    wanted: BTreeMap<String, Vec<String>>,
    dangling: Option<bool>,
}

impl Filter {
    /// Reads the flags.
    ///
    /// # Errors
    /// An unknown key or value, with Docker's words.
    pub(crate) fn new(flags: &[KeyValue]) -> Result<Self> {
        let mut filter = Self::default();
        for KeyValue { key, value } in flags {
            match (key.as_str(), value.as_str()) {
                ("dangling", "true" | "1") => filter.dangling = Some(true),
                ("dangling", "false" | "0") => filter.dangling = Some(false),
                ("dangling", _) => {
                    bail!(
                        r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#
                    )
                }
                ("type", "builtin" | "custom") | ("driver" | "id" | "label" | "name" | "scope", _) => {
                    filter.wanted.entry(key.clone()).or_default().push(value.clone());
                }
                ("type", _) => bail!("invalid filter: 'type'='{value}'"),
                _ => bail!("invalid filter '{key}'"),
            }
        }
        Ok(filter)
    }

    /// Whether only networks without (true) or with (false) endpoints are wanted.
    pub(crate) fn dangling(&self) -> Option<bool> {
        self.dangling
    }

    /// Whether the network is wanted, as far as its own fields tell.
    pub(crate) fn admits(&self, network: &Network) -> bool {
        self.wanted.iter().all(|(key, values)| match key.as_str() {
            "driver" => values.contains(&network.driver),
            "scope" => values.contains(&network.scope),
            "id" => values.iter().any(|prefix| network.id.starts_with(prefix.as_str())),
            "name" => values.iter().any(|part| network.name.contains(part.as_str())),
            "label" => values.iter().all(|label| has_label(network, label)),
            // Every network of this version was made by a user.
            _ => values.iter().any(|kind| kind == "custom"),
        })
    }
}

/// `key` asks for presence, `key=value` for the value.
fn has_label(network: &Network, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => network.labels.get(key).is_some_and(|v| v == value),
        None => network.labels.contains_key(label),
    }
}
