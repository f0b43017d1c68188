//! `weft network ls`.

use std::collections::BTreeMap;

use weft_control::api::Network;

use super::path;
use crate::args::ListArgs;
use crate::client::Client;
use crate::failure::Outcome;
use crate::filter::{Filter, is_built_in};
use crate::format::{Listing, Row};
use crate::output::Screen;
use crate::verbs::id_cell;

/// Keys of `network ls --filter`.
const LISTED_BY: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
/// Columns of `network ls`.
const TITLES: [(&str, &str); 9] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// Lists networks.
pub(super) fn list(args: &ListArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let filter = Filter::new(&args.filter, &LISTED_BY)?;
    let mut networks: Vec<Network> = client.read("/networks")?;
    networks.retain(|network| filter.admits_network(network));
    if let Some(dangling) = filter.dangling() {
        retain_dangling(&mut networks, dangling, client)?;
    }
    networks.sort_by_key(|network| natural(&network.name));
    if args.json {
        return Ok(screen.json(&networks)?);
    }
    let rows = networks.into_iter().map(|network| row(network, args.no_trunc)).collect();
    let listing =
        Listing { titles: &TITLES, table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", quiet: "ID", rows };
    Ok(screen.formatted(&listing.show(args.format.as_deref(), args.quiet)?)?)
}

fn row(network: Network, whole: bool) -> Row {
    let labels: Vec<_> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let cells = BTreeMap::from([
        ("ID", id_cell(&network.id, whole)),
        ("Name", network.name),
        ("Driver", network.driver),
        ("Scope", network.scope),
        ("IPv4", network.enable_ipv4.to_string()),
        ("IPv6", network.enable_ipv6.to_string()),
        ("Internal", network.internal.to_string()),
        ("Labels", labels.join(",")),
        ("CreatedAt", network.created),
    ]);
    Row { cells, labels: network.labels }
}

/// Keeps the networks with (or without) endpoints; the list has none, so each is asked for. What every agent has by
/// itself is never dangling.
pub(super) fn retain_dangling(networks: &mut Vec<Network>, dangling: bool, client: &Client) -> Outcome {
    let mut kept = Vec::new();
    for network in networks.drain(..) {
        match client.read::<Network>(&path(&network.id)) {
            Ok(whole) => {
                let unused = whole.containers.is_empty() && !is_built_in(&network);
                if unused == dangling {
                    kept.push(network);
                }
            }
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    *networks = kept;
    Ok(())
}

/// A key that sorts names as people do: `net2` before `net10`.
pub(super) fn natural(name: &str) -> Vec<(u128, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(text_end);
        let number_end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(number_end);
        parts.push((text.to_owned(), number.parse::<u128>().unwrap_or(0)));
        rest = tail;
    }
    parts.into_iter().flat_map(|(text, number)| [(0, text), (number, String::new())]).collect()
}
