//! `weft sandbox ls`, `weft ps`: the sandboxes of this host.

use std::collections::BTreeMap;

use weft_control::api::Sandbox;
use weft_control::timestamp::UnixMillis;

use crate::args::PsArgs;
use crate::client::Client;
use crate::failure::Outcome;
use crate::filter::{Filter, is_part};
use crate::format::{Listing, Row};
use crate::moment::{length, seconds_since};
use crate::output::{Screen, Table, escape, ports_cell};
use crate::verbs::{id_cell, now, or_dash};

/// Keys of `ps --filter`.
const LISTED_BY: [&str; 6] = ["exited", "id", "label", "name", "network", "status"];
/// Characters of a command that a table shows.
const MAX_COMMAND: usize = 20;
/// Columns of `ps`.
const TITLES: [(&str, &str); 10] = [
    ("ID", "SANDBOX ID"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("CreatedAt", "CREATED AT"),
    ("State", "STATE"),
    ("Networks", "NETWORKS"),
    ("Labels", "LABELS"),
];

/// Networks and addresses.
pub(super) fn list(
    mut sandboxes: Vec<Sandbox>,
    (quiet, whole, json): (bool, bool, bool),
    screen: &mut Screen,
) -> Outcome {
    sandboxes.sort_by(|a, b| a.name.cmp(&b.name));
    if json {
        return Ok(screen.json(&sandboxes)?);
    }
    if quiet {
        return sandboxes.iter().try_for_each(|sandbox| Ok(screen.line(&escape(&sandbox.name))?));
    }
    let mut table = Table::new(["SANDBOX ID", "NAME", "NETWORKS", "ADDRESSES", "PORTS"]);
    for sandbox in &sandboxes {
        let networks: Vec<&str> = sandbox.networks.keys().map(String::as_str).collect();
        table.row([
            &id_cell(&sandbox.id, whole),
            &sandbox.name,
            &or_dash(networks.join(",")),
            &or_dash(addresses(sandbox).join(",")),
            &or_dash(ports_cell(&sandbox.network_settings.ports)),
        ]);
    }
    Ok(screen.table(&table)?)
}

fn addresses(sandbox: &Sandbox) -> Vec<&str> {
    let of =
        sandbox.networks.values().flat_map(|end| [end.ip_address.as_str(), end.global_ipv6_address.as_str()]);
    of.filter(|address| !address.is_empty()).collect()
}

/// Commands and how they go, newest first.
pub(crate) fn ps(args: &PsArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let filter = Filter::new(&args.filter, &LISTED_BY)?;
    let mut sandboxes: Vec<Sandbox> = client.read("/sandboxes")?;
    let by_state = !filter.values("status").is_empty() || !filter.values("exited").is_empty();
    sandboxes.retain(|sandbox| (args.all || by_state || sandbox.state.running) && admits(&filter, sandbox));
    sandboxes.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
    if args.json {
        return Ok(screen.json(&sandboxes)?);
    }
    let now = now();
    let listing = Listing {
        titles: &TITLES,
        table: "{{.ID}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
        quiet: "ID",
        rows: sandboxes.into_iter().map(|sandbox| row(sandbox, args.no_trunc, now)).collect(),
    };
    Ok(screen.formatted(&listing.show(args.format.as_deref(), args.quiet)?)?)
}

fn admits(filter: &Filter, sandbox: &Sandbox) -> bool {
    let none = BTreeMap::new();
    let labels = sandbox.command.as_ref().map_or(&none, |command| &command.labels);
    let code = sandbox.state.exit_code.to_string();
    filter.admits("id", |id| sandbox.id.starts_with(id))
        && filter.admits("name", |part| is_part(part, &sandbox.name))
        && filter.admits("status", |status| sandbox.state.status == status)
        && filter.admits("exited", |exited| sandbox.state.status == "exited" && code == exited)
        && filter.admits("network", |network| {
            sandbox.networks.iter().any(|(name, end)| name == network || end.network_id.starts_with(network))
        })
        && filter.admits_labels(labels)
}

fn row(sandbox: Sandbox, whole: bool, now: UnixMillis) -> Row {
    let labels = sandbox.command.as_ref().map(|command| command.labels.clone()).unwrap_or_default();
    let shown: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let networks: Vec<&str> = sandbox.networks.keys().map(String::as_str).collect();
    let cells = BTreeMap::from([
        ("ID", id_cell(&sandbox.id, whole)),
        ("Command", command(&sandbox, whole)),
        ("RunningFor", format!("{} ago", length(seconds_since(&sandbox.created, now)))),
        ("Status", status(&sandbox, now)),
        ("State", sandbox.state.status.clone()),
        ("Ports", ports_cell(&sandbox.network_settings.ports)),
        ("Networks", networks.join(",")),
        ("Labels", shown.join(",")),
        ("CreatedAt", sandbox.created.clone()),
        ("Names", sandbox.name.clone()),
    ]);
    Row { cells, labels }
}

/// The command in quotes, cut as Docker cuts it.
fn command(sandbox: &Sandbox, whole: bool) -> String {
    let Some(command) = &sandbox.command else { return String::new() };
    let text = command.cmd.join(" ");
    if whole || text.chars().count() <= MAX_COMMAND {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(MAX_COMMAND - 1).collect::<String>())
}

/// `Up 2 hours`, `Exited (1) 3 minutes ago`, `Created`.
fn status(sandbox: &Sandbox, now: UnixMillis) -> String {
    let state = &sandbox.state;
    let since = |time: &str| length(seconds_since(time, now));
    match state.status.as_str() {
        "running" => format!("Up {}", since(&state.started_at)),
        "exited" => format!("Exited ({}) {} ago", state.exit_code, since(&state.finished_at)),
        _ => "Created".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use weft_control::command::{Command, State};

    use super::*;

    /// 2026-11-21T10:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_795_255_200_000);

    fn sandbox() -> Sandbox {
        let ended = State {
            status: "exited".into(),
            exit_code: 3,
            started_at: "2026-11-21T09:00:00Z".into(),
            finished_at: "2026-11-21T09:50:00Z".into(),
            ..State::default()
        };
        let command = Command {
            cmd: vec!["sleep".into(), "1000000000000000".into()],
            labels: BTreeMap::from([("team".into(), "blue".into())]),
            ..Command::default()
        };
        Sandbox {
            name: "web".into(),
            id: "0123456789abcdef".into(),
            created: "2026-11-21T08:00:00Z".into(),
            state: ended,
            command: Some(command),
            ..Sandbox::default()
        }
    }

    #[test]
    fn a_row_says_what_dockers_says() {
        let row = row(sandbox(), false, NOW);
        let cell = |name: &str| row.cells[name].as_str();
        assert_eq!(cell("ID"), "0123456789ab");
        assert_eq!(cell("Command"), "\"sleep 1000000000000…\"");
        assert_eq!(cell("RunningFor"), "2 hours ago");
        assert_eq!(cell("Status"), "Exited (3) 10 minutes ago");
        let running =
            State { status: "running".into(), started_at: "2026-11-21T09:59:58Z".into(), ..State::default() };
        assert_eq!(status(&Sandbox { state: running, ..sandbox() }, NOW), "Up 2 seconds");
        assert_eq!(status(&Sandbox { state: State::default(), ..sandbox() }, NOW), "Created");
    }

    #[test]
    fn filters_look_at_names_states_and_labels() {
        for (flag, admitted) in [
            ("name=we", true),
            ("name=^eb", false),
            ("status=exited", true),
            ("status=running", false),
            ("exited=3", true),
            ("exited=0", false),
            ("label=team=blue", true),
            ("network=blue", false),
            ("id=0123", true),
        ] {
            let filter = Filter::new(&[flag.parse().expect("infallible")], &LISTED_BY).expect("a filter");
            assert_eq!(admits(&filter, &sandbox()), admitted, "{flag}");
        }
    }
}
