//! `weft keys …`.

use weft_control::api::{KeyEpoch, KeyRotated};

use super::node::duration;
use crate::args::KeysVerb;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Screen, Table, escape};

/// Does what was asked.
pub(crate) fn perform(verb: &KeysVerb, client: &Client, screen: &mut Screen) -> Outcome {
    match verb {
        KeysVerb::Ls(args) => list(&client.read::<Vec<KeyEpoch>>("/keys")?, args.json, screen),
        KeysVerb::Rotate => {
            let rotated: KeyRotated = client.change("/keys/rotate", &())?;
            Ok(screen.line(&escape(&rotated.epoch))?)
        }
    }
}

fn list(keys: &[KeyEpoch], json: bool, screen: &mut Screen) -> Outcome {
    if json {
        return Ok(screen.json(&keys)?);
    }
    let mut table = Table::new(["EPOCH", "AGE", "MEMBERS", "REASON", "STATE"]);
    for key in keys {
        table.row([
            &key.epoch,
            &duration(key.age_seconds),
            &format!("{}/{}", key.members, key.of),
            if key.urgent { "revocation" } else { "rotation" },
            if key.active { "active" } else { "known" },
        ]);
    }
    Ok(screen.table(&table)?)
}
