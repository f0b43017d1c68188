//! `weft init` and `weft join`: this host becomes a member, before any agent runs.

use std::io::{self, Read as _};

use anyhow::{Context, Result};
use weft_control::io::agent::DEFAULT_GOSSIP_PORT;
use weft_control::io::joining::{self, Membership};
use weft_control::model::NodeId;
use weft_control::trust::Token;

use crate::args::{InitArgs, JoinArgs};
use crate::config;
use crate::failure::Outcome;
use crate::hardening;
use crate::output::{Colour, Screen, escape};

/// Longest token read from standard input, octets.
const MAX_INPUT: u64 = 4096;

/// Makes a cluster.
pub(crate) fn init(args: &InitArgs, screen: &mut Screen) -> Outcome {
    hardening::forbid_dumps()?;
    let host = config::host(&args.host)?;
    let store = joining::open(&host.state_dir).map_err(anyhow::Error::from)?;
    let made = runtime()?.block_on(joining::init(&store, host.settings));
    let (member, token) = made.map_err(anyhow::Error::from)?;
    screen.line(&format!(
        "This host is the first node of a new cluster ({}), as node {}.",
        NodeId(member.cluster).short(),
        escape(member.settings.name.as_str())
    ))?;
    if let Some(file) = &args.token_file {
        joining::write_token(file, &token).map_err(anyhow::Error::from)?;
        return Ok(screen.line(&format!("The join token is in {}; it is good for a day.", file.display()))?);
    }
    screen.line("")?;
    screen.line("Start its agent (as root):")?;
    screen.line("    weft agent")?;
    screen.line("")?;
    screen.line("On every other host, within a day (the token is a secret until then):")?;
    screen
        .line(&format!("    {}", screen.paint(Colour::Bold, &format!("weft join {}", *token.to_text()))))?;
    Ok(screen.line("    weft agent")?)
}

/// Joins a cluster.
pub(crate) fn join(args: &JoinArgs, screen: &mut Screen) -> Outcome {
    hardening::forbid_dumps()?;
    let host = config::host(&args.host)?;
    let token = token_of(args)?;
    let store = joining::open(&host.state_dir).map_err(anyhow::Error::from)?;
    let mut progress = |text: String| screen.complain(&escape(&text));
    let joined = runtime()?.block_on(joining::join(&store, &token, host.settings, &mut progress));
    let Membership { cluster, settings, .. } = joined.map_err(anyhow::Error::from)?;
    let port = match settings.gossip_port {
        DEFAULT_GOSSIP_PORT => String::new(),
        port => format!(", gossip on port {port}"),
    };
    screen.line(&format!(
        "This host is a member of cluster {} now, as node {}{port}. Start its agent (as root):",
        NodeId(cluster).short(),
        escape(settings.name.as_str())
    ))?;
    Ok(screen.line("    weft agent")?)
}

fn token_of(args: &JoinArgs) -> Result<Token> {
    match (&args.token_file, args.token.as_deref()) {
        (Some(file), _) => Ok(joining::read_token(file)?),
        (None, Some("-")) => {
            let mut text = String::new();
            io::stdin().take(MAX_INPUT).read_to_string(&mut text).context("read the token")?;
            Ok(text.parse()?)
        }
        (None, text) => Ok(text.unwrap_or_default().parse()?),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}
