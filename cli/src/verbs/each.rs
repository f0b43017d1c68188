//! Verbs that are given several names.

use anyhow::Context;

use crate::failure::{Failure, Outcome};
use crate::format::Template;
use crate::output::{Screen, escape};

/// Does something about each name and prints it; goes on after a refusal. Of what is not there a forgiving verb says
/// nothing.
pub(super) fn each(
    names: &[String],
    forgiving: bool,
    screen: &mut Screen,
    mut act: impl FnMut(&str) -> Outcome,
) -> Outcome {
    let mut refused = false;
    for name in names {
        match act(name) {
            Ok(()) => screen.line(&escape(name))?,
            Err(failure) if forgiving && failure.is_not_found() => {}
            Err(failure @ (Failure::Unreachable { .. } | Failure::Usage(_))) => return Err(failure),
            Err(failure) => {
                failure.message().lines().for_each(|line| screen.complain(&escape(line)));
                refused = true;
            }
        }
    }
    if refused { Err(Failure::Exit(1)) } else { Ok(()) }
}

/// Prints what is found, as one JSON array or each by a template, and an error for each that is not.
pub(super) fn inspect_each<T: serde::Serialize>(
    names: &[String],
    format: Option<&str>,
    fetch: impl Fn(&str) -> Outcome<T>,
    screen: &mut Screen,
) -> Outcome {
    let template = format.filter(|format| *format != "json").map(Template::parse).transpose()?;
    let (mut found, mut refusals) = (Vec::new(), Vec::new());
    for name in names {
        match fetch(name) {
            Ok(value) => found.push(value),
            Err(failure @ Failure::Refused { .. }) => refusals.push(failure.message()),
            Err(failure) => return Err(failure),
        }
    }
    match template {
        None if format.is_none() => screen.json(&found)?,
        None => screen.line(&escape(&serde_json::to_string(&found).context("show it as JSON")?))?,
        Some(template) => screen.formatted(&print_each(&template, &found, &mut refusals)?)?,
    }
    refusals.iter().for_each(|refusal| screen.complain(&escape(refusal)));
    if refusals.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn print_each<T: serde::Serialize>(
    template: &Template,
    found: &[T],
    refusals: &mut Vec<String>,
) -> Outcome<String> {
    let mut text = String::new();
    for value in found {
        let value = serde_json::to_value(value).context("show it as JSON")?;
        match template.print(&value.into()) {
            Ok(printed) => text = text + &printed + "\n",
            Err(fault) => refusals.push(fault.to_string()),
        }
    }
    // As Docker's client does, so that scripts read a line in any case.
    Ok(if text.is_empty() { "\n".to_owned() } else { text })
}
