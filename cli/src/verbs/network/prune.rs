//! `weft network prune`.

use std::io::{BufRead, Read};

use anyhow::Context;
use weft_control::api::Network;

use super::list::{natural, retain_dangling};
use super::path;
use crate::args::PruneArgs;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::filter::Filter;
use crate::moment::until;
use crate::output::{Screen, escape};
use crate::verbs::now;

/// Keys of `network prune --filter`.
const PRUNED_BY: [&str; 3] = ["label", "label!", "until"];
/// What `network prune` says before it asks.
const PRUNES: &str = "WARNING! This will remove all custom networks not used by at least one container.";
/// Longest answer read, octets.
const MAX_ANSWER: u64 = 1_024;

/// Removes networks that nothing is attached to.
pub(super) fn prune(args: &PruneArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let filter = Filter::new(&args.filter, &PRUNED_BY)?;
    let now = now();
    let limits = filter.values("until").iter().map(|text| {
        until(text, now).ok_or_else(|| {
            Failure::Usage(format!(
                "until={text} is no time: say 24h, 2026-11-20T10:00:00Z or seconds since 1970"
            ))
        })
    });
    let limits = limits.collect::<Outcome<Vec<_>>>()?;
    if !args.force {
        confirm(PRUNES, screen)?;
    }
    let mut networks: Vec<Network> = client.read("/networks")?;
    let old = |network: &Network| limits.iter().all(|limit| network.created.as_str() < limit.as_str());
    networks.retain(|network| filter.admits_labels(&network.labels) && old(network));
    retain_dangling(&mut networks, true, client)?;
    networks.sort_by_key(|network| natural(&network.name));
    remove_unused(&networks, client, screen)
}

/// Removes what nothing is attached to; something may be by now, which is no fault.
fn remove_unused(networks: &[Network], client: &Client, screen: &mut Screen) -> Outcome {
    let mut first = true;
    for network in networks {
        match client.remove(&path(&network.id)) {
            Ok(()) => {
                if std::mem::take(&mut first) {
                    screen.line("Deleted Networks:")?;
                }
                screen.line(&escape(&network.name))?;
            }
            Err(failure) if failure.is_not_found() => {}
            Err(failure @ Failure::Refused { .. }) => screen.complain(&escape(&failure.message())),
            Err(failure) => return Err(failure),
        }
    }
    if first { Ok(()) } else { Ok(screen.line("")?) }
}

/// Asks a person; anything but yes is no.
fn confirm(warning: &str, screen: &mut Screen) -> Outcome {
    screen.complain(warning);
    screen.ask("Are you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer).context("read the answer")?;
    if answer.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    screen.complain("network prune has been cancelled");
    Err(Failure::Exit(1))
}
