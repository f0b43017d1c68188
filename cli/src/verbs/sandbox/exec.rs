//! `weft exec`: another command in a sandbox.

use std::process::{Command as Program, Stdio};

use anyhow::Context;
use weft_control::api::Sandbox;

use super::environment::variables;
use super::{namespace_of, path, surroundings_of};
use crate::args::{ExecArgs, KeyValue};
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::process::{Job, Signals, run_in};
use crate::sys;

/// Runs a command in a sandbox that exists.
pub(crate) fn exec(args: &ExecArgs, client: Client) -> Outcome {
    let sandbox: Sandbox = client.read(&path(&args.sandbox))?;
    if !sandbox.state.running {
        let message = format!("container {} is not running", sandbox.name);
        return Err(Failure::Refused { status: 409, message });
    }
    if args.detach {
        return in_background(&client);
    }
    let namespace = namespace_of(&sandbox, &client)?;
    let around = surroundings_of(&sandbox, &client)?;
    // No thread and no descriptor of ours in the sandbox but the command's.
    drop(client);
    let mut env = own_variables(&sandbox);
    env.extend(variables(&args.env_file, &args.env)?);
    let signals = Signals::hold()?;
    let directory = args.workdir.as_deref();
    let job = Job { env: &env, directory, surroundings: around.as_ref(), ..Job::new(&args.command) };
    run_in(namespace, &job, &signals)
}

/// The variables of the sandbox's own command.
fn own_variables(sandbox: &Sandbox) -> Vec<KeyValue> {
    let command = sandbox.command.as_ref().map_or(&[][..], |command| &command.env);
    command.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Does the same in a process of its own, without `--detach`.
fn in_background(client: &Client) -> Outcome {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some(words) = attached(words) else {
        return Err(Failure::Usage("write -d as a flag of its own".to_owned()));
    };
    let mut program = Program::new("/proc/self/exe");
    program.args(words).env("WEFT_SOCKET", client.socket());
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::in_session_of_its_own(&mut program);
    program.spawn().context("start weft in the background")?;
    Ok(())
}

/// The words of a command line without the first flag that detaches: `-d`, `--detach`, or the `d` of `-dit`.
fn attached(mut words: Vec<String>) -> Option<Vec<String>> {
    let short =
        |word: &str| word.strip_prefix('-').is_some_and(|flags| flags.contains('d') && is_flags(flags));
    let at = words.iter().position(|word| word == "--detach" || short(word))?;
    let rest = if words[at] == "--detach" { "-".to_owned() } else { words[at].replacen('d', "", 1) };
    if rest == "-" {
        words.remove(at);
    } else {
        words[at] = rest;
    }
    Some(words)
}

fn is_flags(letters: &str) -> bool {
    letters.chars().all(|letter| "dit".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_that_detaches_is_left_out_and_the_rest_stays() {
        let cut = |line: &str| {
            attached(line.split_whitespace().map(str::to_owned).collect()).map(|words| words.join(" "))
        };
        for (line, rest) in [
            ("exec -d web -- server -d", "exec web -- server -d"),
            ("exec --detach web true", "exec web true"),
            ("--socket /s sandbox exec -dit -e A=d web sh", "--socket /s sandbox exec -it -e A=d web sh"),
        ] {
            assert_eq!(cut(line).as_deref(), Some(rest));
        }
        assert_eq!(cut("exec -ed=1 web true"), None);
    }
}
