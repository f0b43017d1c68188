//! Verbs about the node and the cluster: `status`, `peers`, `fdb`, `stats`.

use std::collections::BTreeMap;

use weft_control::api::{FdbEntry, Peer, Session, Stats, Status};

use super::{id_cell, or_dash};
use crate::args::{FdbArgs, ReadArgs, StatsArgs};
use crate::client::{Client, segment};
use crate::failure::Outcome;
use crate::output::{Colour, Screen, Table, escape};

/// The agent at a glance.
pub(crate) fn status(args: &ReadArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let status: Status = client.read("/status")?;
    if args.json {
        return Ok(screen.json(&status)?);
    }
    for (label, value) in status_lines(&status) {
        screen.line(&format!("{label:<12}{}", escape(&value)))?;
    }
    for warning in &status.warnings {
        let text = format!("warning: {}", escape(warning));
        screen.line(&screen.paint(Colour::Yellow, &text))?;
    }
    Ok(())
}

fn status_lines(status: &Status) -> [(&'static str, String); 8] {
    let Status { node, node_id, version, advertise, data_port, gossip_port, boot_epoch, .. } = status;
    [
        ("node", format!("{node} ({})", id_cell(node_id, false))),
        ("version", version.clone()),
        ("address", format!("{advertise}, data {data_port}/udp, gossip {gossip_port}/udp+tcp")),
        (
            "up",
            format!(
                "{}, start number {boot_epoch}, {} workers",
                duration(status.uptime_seconds),
                status.workers
            ),
        ),
        ("members", format!("{} alive, {} dead", status.members_alive, status.members_dead)),
        ("networks", format!("{}, of these encrypted {}", status.networks, status.networks_encrypted)),
        ("encryption", if status.require_encryption { "required" } else { "per network" }.to_owned()),
        ("endpoints", format!("{} here, {} on other nodes", status.endpoints_local, status.endpoints_remote)),
    ]
}

/// Seconds as a person says them.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The hosts of the cluster.
pub(crate) fn peers(args: &ReadArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let mut peers: Vec<Peer> = client.read("/peers")?;
    if args.json {
        return Ok(screen.json(&peers)?);
    }
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let mut table = Table::new([
        "NODE ID",
        "NAME",
        "ADDRESS",
        "DATA PORT",
        "ENDPOINTS",
        "SEALED WITH",
        "DROPPED",
        "STATE",
    ]);
    for peer in &peers {
        let state = if peer.this_node { format!("{} (this node)", peer.state) } else { peer.state.clone() };
        table.row([
            &id_cell(&peer.node_id, false),
            &peer.name,
            &peer.address.to_string(),
            &peer.data_port.to_string(),
            &peer.endpoints.to_string(),
            &or_dash(peer.session.as_ref().map(sealed_with).unwrap_or_default()),
            &or_dash(peer.session.as_ref().map(dropped).unwrap_or_default()),
            &state,
        ]);
        table.paint_last(|text| screen.paint(colour_of(&peer.state), text));
    }
    Ok(screen.table(&table)?)
}

/// Cipher, epoch of the key, age of the session and of the last packet.
fn sealed_with(session: &Session) -> String {
    let Session { state, cipher, key_epoch, age_seconds, last_sealed_seconds, .. } = session;
    let (Some(epoch), Some(age)) = (key_epoch, age_seconds) else { return state.clone() };
    let last = last_sealed_seconds.map_or("never".to_owned(), |ago| format!("{} ago", duration(ago)));
    format!("{cipher}, key {epoch}, {} old, last {last}", duration(*age))
}

/// What was not let in.
fn dropped(session: &Session) -> String {
    let Session { replayed, forged, clear, .. } = session;
    format!("{replayed} replayed, {forged} forged, {clear} clear")
}

fn colour_of(state: &str) -> Colour {
    match state {
        "alive" => Colour::Green,
        "suspect" => Colour::Yellow,
        _ => Colour::Red,
    }
}

/// Where the addresses of a network are.
pub(crate) fn fdb(args: &FdbArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let entries: Vec<FdbEntry> = client.read(&format!("/networks/{}/fdb", segment(&args.network)))?;
    if args.read.json {
        return Ok(screen.json(&entries)?);
    }
    let mut table = Table::new(["MAC", "ADDRESSES", "VTEP", "VNI", "NODE", "ENDPOINT", "STATE"]);
    for entry in entries {
        let ips: Vec<String> = entry.ips.iter().map(ToString::to_string).collect();
        table.row([
            &entry.mac,
            &or_dash(ips.join(",")),
            &or_dash(entry.vtep.map(|vtep| vtep.to_string()).unwrap_or_default()),
            &entry.vni.to_string(),
            &or_dash(entry.node),
            &or_dash(entry.endpoint),
            &entry.state,
        ]);
    }
    Ok(screen.table(&table)?)
}

/// Counters; those that are zero only where asked for.
pub(crate) fn stats(args: &StatsArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let stats: Stats = client.read("/stats")?;
    if args.read.json {
        return Ok(screen.json(&stats)?);
    }
    let mut table = Table::new(["COUNTER", "VALUE"]);
    let Stats { dataplane, drops, gossip, agent, names, sessions } = &stats;
    let groups = [
        ("", dataplane),
        ("drop.", drops),
        ("gossip.", gossip),
        ("agent.", agent),
        ("names.", names),
        ("session.", sessions),
    ];
    for (prefix, counters) in groups {
        add_counters(&mut table, prefix, counters, args.all);
    }
    Ok(screen.table(&table)?)
}

fn add_counters(table: &mut Table, prefix: &str, counters: &BTreeMap<String, u64>, all: bool) {
    for (name, value) in counters.iter().filter(|(_, value)| all || **value > 0) {
        table.row([&format!("{prefix}{name}"), &value.to_string()]);
    }
}
