//! Verbs about who belongs to the cluster: `token`, `node`, `leave`.

use weft_control::api::{Leave, Node, NodeRevoke, TokenCreate, TokenCreated, TokenShown};

use super::{id_cell, or_dash};
use crate::args::{LeaveArgs, NodeVerb, ReadArgs, TokenCreateArgs, TokenVerb};
use crate::client::{Client, segment};
use crate::failure::Outcome;
use crate::output::{Colour, Screen, Table, escape};

/// Length of a time as tables show it: date, hours, minutes, UTC.
const TIME: usize = "2026-11-21T10:00".len();

/// Tokens.
pub(crate) fn token(verb: &TokenVerb, client: &Client, screen: &mut Screen) -> Outcome {
    match verb {
        TokenVerb::Create(args) => create(args, client, screen),
        TokenVerb::Ls(args) => list_tokens(args, client, screen),
        TokenVerb::Revoke { id } => client.remove(&format!("/tokens/{}", segment(id))),
    }
}

fn create(args: &TokenCreateArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let request = TokenCreate { ttl_seconds: args.ttl.0, uses: args.uses, role: args.role.clone() };
    let made: TokenCreated = client.change("/tokens/create", &request)?;
    if args.json {
        return Ok(screen.json(&made)?);
    }
    if args.quiet {
        return Ok(screen.line(&escape(&made.token))?);
    }
    let TokenShown { id, role, expires, max_uses, .. } = &made.shown;
    let uses = if *max_uses == 0 { "any number of".to_owned() } else { max_uses.to_string() };
    screen.line(&format!("Token {id} lets {uses} node(s) in as {role} until {} UTC.", time(expires)))?;
    screen.line("On each of them (the token is a secret until then):")?;
    let command = format!("weft join {}", escape(&made.token));
    screen.line(&format!("    {}", screen.paint(Colour::Bold, &command)))?;
    Ok(screen.line("    weft agent")?)
}

fn list_tokens(args: &ReadArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let tokens: Vec<TokenShown> = client.read("/tokens")?;
    if args.json {
        return Ok(screen.json(&tokens)?);
    }
    let mut table = Table::new(["TOKEN ID", "ROLE", "USES", "EXPIRES (UTC)", "MADE BY", "STATE"]);
    for token in tokens {
        let most = if token.max_uses == 0 { String::new() } else { format!("/{}", token.max_uses) };
        table.row([
            &token.id,
            &token.role,
            &format!("{}{most}", token.uses),
            &time(&token.expires),
            &token.made_by,
            &token.state,
        ]);
    }
    Ok(screen.table(&table)?)
}

/// Nodes.
pub(crate) fn node(verb: &NodeVerb, client: &Client, screen: &mut Screen) -> Outcome {
    match verb {
        NodeVerb::Ls(args) => list_nodes(args, client, screen),
        NodeVerb::Remove { node } => client.remove(&format!("/nodes/{}", segment(node))),
        NodeVerb::Revoke { node, reason } => {
            client.order(&format!("/nodes/{}/revoke", segment(node)), &NodeRevoke { reason: reason.clone() })
        }
    }
}

fn list_nodes(args: &ReadArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let nodes: Vec<Node> = client.read("/nodes")?;
    if args.json {
        return Ok(screen.json(&nodes)?);
    }
    let mut table = Table::new(["NODE ID", "NAME", "ROLE", "ADDRESS", "CERTIFIED UNTIL (UTC)", "STATE"]);
    for node in &nodes {
        let state = match (node.this_node, node.note.as_str()) {
            (true, "") => format!("{} (this node)", node.state),
            (_, "") => node.state.clone(),
            (_, note) => note.to_owned(),
        };
        table.row([
            &id_cell(&node.node_id, false),
            &or_dash(node.name.clone()),
            &or_dash(node.role.clone()),
            &or_dash(node.address.map(|address| address.to_string()).unwrap_or_default()),
            &or_dash(time(&node.expires)),
            &state,
        ]);
    }
    Ok(screen.table(&table)?)
}

/// Takes this host out of its cluster.
pub(crate) fn leave(args: &LeaveArgs, client: &Client, screen: &mut Screen) -> Outcome {
    client.order("/leave", &Leave { force: args.force })?;
    Ok(screen.line("This host has left the cluster; its agent ends.")?)
}

fn time(text: &str) -> String {
    text.chars().take(TIME).map(|c| if c == 'T' { ' ' } else { c }).collect()
}
