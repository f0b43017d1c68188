//! What agents of this host made and left: found for `weft doctor`, removed by `weft cleanup`.

use std::fs;
use std::io;
use std::path::Path;

use super::agent::AgentError;
use super::firewall;
use super::holding::hold;
use super::namespace::{Namespace, Pins};
use super::netlink::{Link, Links};
use super::nft;
use super::process;
use super::server::explain;
use super::store::Store;
use crate::doctor::Leftovers;
use crate::driver::{self, bridge::mark, macvlan::group};
use crate::firewall::{Family, TABLE};
use crate::local::GATEWAY_BRIDGE;
use crate::model::NodeId;
use crate::trust::Papers;

/// Looks for everything. With `me`, what this node has marked is found too; without, only what its name tells.
pub(crate) async fn find(
    run_dir: &Path,
    state_dir: &Path,
    me: Option<NodeId>,
    tables: Vec<String>,
) -> Leftovers {
    let mut left = Leftovers {
        member: is_member(state_dir),
        held: is_held(run_dir),
        pins: pins(run_dir),
        tables: tables.into_iter().filter(|table| is_ours(table)).collect(),
        ..Leftovers::default()
    };
    if let Ok(links) = Links::here() {
        let found = links.list().await.unwrap_or_default().into_iter();
        left.links = found.filter(|link| was_made_here(link, me)).map(|link| link.name).collect();
        for family in Family::BOTH {
            left.rules += links.rules(family).await.map_or(0, |(ours, _)| ours.len());
        }
    }
    left
}

/// Whether a table, as `FAMILY NAME`, is one of the three in a host's namespace.
fn is_ours(table: &str) -> bool {
    Family::BOTH.iter().any(|family| table == format!("{} {TABLE}", family.name())) || table == driver::TABLE
}

fn was_made_here(link: &Link, me: Option<NodeId>) -> bool {
    let digits = link.name.strip_prefix(['v', 'w']).filter(|digits| digits.len() == 12);
    let of_endpoint = digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let marked = |me| link.mac == mark(me, &link.name) || link.group == group(me);
    (link.kind == "veth" && of_endpoint)
        || (link.kind == "bridge" && link.name == GATEWAY_BRIDGE)
        || me.is_some_and(marked)
}

fn is_member(state_dir: &Path) -> Option<bool> {
    match fs::metadata(state_dir.join("state.redb")) {
        Ok(_) => Some(true),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Whether the process that the lock names runs. The lock itself is not tried: an agent that starts would be refused.
fn is_held(run_dir: &Path) -> bool {
    let pid = fs::read_to_string(run_dir.join("agent.lock")).ok().and_then(|pid| pid.trim().parse().ok());
    pid.is_some_and(|pid| process::identify(pid).is_some())
}

/// Pins, without making their directory.
fn pins(run_dir: &Path) -> Vec<String> {
    let directory = run_dir.join("netns");
    if !directory.is_dir() {
        return Vec::new();
    }
    Pins::open(&directory).and_then(|pins| pins.list()).unwrap_or_default()
}

/// Removes everything an agent made in the kernel and did not take away. Records stay: an agent that starts afterwards
/// makes its networks and sandboxes anew.
///
/// # Errors
/// An agent runs, or the kernel refuses; what was removed by then stays removed.
pub fn remove(run_dir: &Path, state_dir: &Path) -> Result<Leftovers, AgentError> {
    let start = |fault: &dyn std::error::Error| AgentError::Start(explain(fault));
    let existed = run_dir.exists();
    let held = hold(run_dir, 0o750)?;
    let me = node_id(state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| start(&fault))?;
    let left = runtime.block_on(find(run_dir, state_dir, me, firewall::seen(&[]).tables));
    if !left.pins.is_empty() {
        let pins = Pins::open(&run_dir.join("netns")).map_err(|fault| start(&fault))?;
        left.pins.iter().try_for_each(|pin| pins.remove(pin)).map_err(|fault| start(&fault))?;
        pins.close();
    }
    // Files that sandboxes read, which nobody does any more; there need be none.
    let _ = fs::remove_dir_all(run_dir.join("sandboxes"));
    runtime.block_on(remove_from_host(&left)).map_err(AgentError::Start)?;
    drop(held);
    if !existed {
        // Only if it is empty.
        let _ = fs::remove_dir(run_dir);
    }
    Ok(Leftovers { held: false, ..left })
}

/// Whose state it is; nobody's where there is none.
fn node_id(state_dir: &Path) -> Result<Option<NodeId>, AgentError> {
    if is_member(state_dir) != Some(true) {
        return Ok(None);
    }
    let store = Store::open(state_dir).map_err(|fault| AgentError::Start(explain(&fault)))?;
    let papers = Papers::load(&store).map_err(|fault| AgentError::Start(explain(&fault)))?;
    Ok(papers.map(|papers| papers.identity.node_id()))
}

/// Links first: a table that guards them goes last, and rules that let nothing pass between.
async fn remove_from_host(left: &Leftovers) -> Result<(), String> {
    let links = Links::here().map_err(|fault| explain(&fault))?;
    for name in &left.links {
        links.delete(name).await.map_err(|fault| explain(&fault))?;
    }
    for family in Family::BOTH {
        let (ours, _) = links.rules(family).await.map_err(|fault| explain(&fault))?;
        for rule in &ours {
            links.delete_rule(super::netlink::write_rule(rule)).await.map_err(|fault| explain(&fault))?;
        }
    }
    let batch: String = left.tables.iter().map(|table| format!("delete table {table}\n")).collect();
    if batch.is_empty() {
        return Ok(());
    }
    let host = Namespace::current().map_err(|fault| explain(&fault))?;
    nft::apply(&host, &batch).map_err(|fault| explain(&fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_others_are_not_taken_for_ours() {
        for ours in ["ip weft", "ip6 weft", "bridge weft"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["inet weft", "ip nat", "ip weft-dns", "weft", ""] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
