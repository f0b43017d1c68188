//! `--filter` of lists: Docker's keys and words.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

use anyhow::{Result, bail};
use weft_control::api::Network;
use weft_control::local::GATEWAY_BRIDGE;

/// `key=value` of `--filter`; what comes without `=` is refused when the filter is made, as scripts expect the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterArg(String);

impl FromStr for FilterArg {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// What `--filter` asks for: values by key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Filter(BTreeMap<String, Vec<String>>);

/// Networks that agents make by themselves.
const BUILT_IN: [&str; 4] = ["bridge", "host", "none", GATEWAY_BRIDGE];

impl Filter {
    /// Reads the flags; `known` are the keys the verb has.
    ///
    /// # Errors
    /// An unknown key or value, with Docker's words.
    pub(crate) fn new(flags: &[FilterArg], known: &[&str]) -> Result<Self> {
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for FilterArg(flag) in flags {
            let Some((key, value)) = flag.split_once('=') else {
                bail!(
                    "invalid argument {flag:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"
                );
            };
            // `label!=team=blue` is the key `label!`.
            let key = key.trim().to_lowercase();
            if !known.contains(&key.as_str()) {
                bail!("invalid filter '{key}'; there are: {}", known.join(", "));
            }
            match (key.as_str(), value) {
                ("dangling", value) if truth(value).is_none() => bail!(
                    r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#
                ),
                ("type", value) if !["builtin", "custom"].contains(&value) => {
                    bail!("invalid filter: 'type'='{value}'")
                }
                _ => wanted.entry(key).or_default().push(value.to_owned()),
            }
        }
        Ok(Self(wanted))
    }

    /// Whether only networks without (true) or with (false) endpoints are wanted; both is neither.
    pub(crate) fn dangling(&self) -> Option<bool> {
        let values = self.0.get("dangling")?;
        let first = values.first().and_then(|value| truth(value))?;
        values.iter().all(|value| truth(value) == Some(first)).then_some(first)
    }

    /// The values of a key.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a text is one of the key's values, or the key is not asked for.
    pub(crate) fn admits(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| matches(value))
    }

    /// Whether all labels asked for are there, and none of those not wanted.
    pub(crate) fn admits_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.values("label").iter().all(|label| has(labels, label))
            && !self.values("label!").iter().any(|label| has(labels, label))
    }

    /// Whether the network is wanted, as far as its own fields tell.
    pub(crate) fn admits_network(&self, network: &Network) -> bool {
        let kind = if is_built_in(network) { "builtin" } else { "custom" };
        self.admits("driver", |driver| network.driver == driver)
            && self.admits("scope", |scope| network.scope == scope)
            && self.admits("id", |id| network.id.starts_with(id.trim_start_matches('^')))
            && self.admits("name", |part| is_part(part, &network.name))
            && self.admits("type", |wanted| wanted == kind)
            && self.admits_labels(&network.labels)
    }
}

/// Whether agents make this network by themselves.
pub(crate) fn is_built_in(network: &Network) -> bool {
    BUILT_IN.contains(&network.name.as_str())
}

/// Whether the pattern is found in the text; `^` and `$` tie it to an end.
pub(crate) fn is_part(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('^'), pattern.strip_suffix('$')) {
        (Some(_), Some(_)) => pattern[1..].trim_end_matches('$') == text,
        (Some(beginning), None) => text.starts_with(beginning),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => text.contains(pattern),
    }
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `key` asks for presence, `key=value` for the value.
fn has(labels: &BTreeMap<String, String>, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["dangling", "type", "label", "label!"];

    fn filter(flags: &[&str]) -> Result<Filter> {
        let flags: Vec<FilterArg> = flags.iter().map(|flag| flag.parse().expect("infallible")).collect();
        Filter::new(&flags, &KEYS)
    }

    #[test]
    fn what_docker_refuses_is_refused_with_its_words() {
        for (flag, text) in [
            (
                "dangling=maybe",
                r#"invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"#,
            ),
            ("type=x", "invalid filter: 'type'='x'"),
            ("foo=bar", "invalid filter 'foo'"),
            (
                "foo",
                "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
            ),
        ] {
            let refusal = filter(&[flag]).expect_err(flag).to_string();
            assert!(refusal.starts_with(text), "{refusal}");
        }
    }

    #[test]
    fn of_labels_all_must_be_there_and_of_other_keys_one_must_match() {
        let labels =
            BTreeMap::from([("team".to_owned(), "blue".to_owned()), ("env".to_owned(), String::new())]);
        for (flags, admitted) in [
            (&["label=team"][..], true),
            (&["label=team=blue", "label=env"], true),
            (&["label=team=red"], false),
            (&["label=team", "label=none"], false),
            (&["label!=team=red"], true),
            (&["label!=team"], false),
        ] {
            assert_eq!(filter(flags).expect("a filter").admits_labels(&labels), admitted, "{flags:?}");
        }
        let types = filter(&["type=custom", "type=builtin"]).expect("a filter");
        assert!(types.admits("type", |kind| kind == "builtin") && !types.admits("type", |kind| kind == "x"));
        assert_eq!(filter(&["dangling=1", "dangling=true"]).expect("a filter").dangling(), Some(true));
        assert_eq!(filter(&["dangling=1", "dangling=0"]).expect("a filter").dangling(), None);
    }

    #[test]
    fn a_name_is_found_by_a_part_of_it() {
        for (pattern, text, found) in [
            ("app", "my-app-1", true),
            ("^app", "my-app", false),
            ("app$", "my-app", true),
            ("^app$", "app", true),
            ("^app$", "app1", false),
            ("", "any", true),
        ] {
            assert_eq!(is_part(pattern, text), found, "{pattern} in {text}");
        }
    }
}
