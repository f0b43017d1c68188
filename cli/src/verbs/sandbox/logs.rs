//! `weft logs`: what a command in the background has printed.

use std::time::Duration;

use weft_control::api::Sandbox;
use weft_control::io::commands::{Directory, is_supervised};

use super::path;
use crate::args::LogsArgs;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::Screen;
use crate::supervise::log::{Line, Reader};

/// Between two looks for more.
const LOOK: Duration = Duration::from_millis(100);

/// Shows the log of a command.
pub(crate) fn logs(args: &LogsArgs, client: &Client, screen: &mut Screen) -> Outcome {
    let sandbox: Sandbox = client.read(&path(&args.name))?;
    if !sandbox.command.as_ref().is_some_and(|command| command.detached) {
        let message =
            format!("{} has no log: only commands that 'weft run -d' started have one", sandbox.name);
        return Err(Failure::Refused { status: 404, message });
    }
    let directory = Directory::at(sandbox.directory.as_ref());
    let mut reader = Reader::open(&directory.log());
    let lines = reader.all()?;
    let skipped = args.tail.0.map_or(0, |most| lines.len().saturating_sub(most));
    show(&lines[skipped..], args.timestamps, screen)?;
    if args.follow { follow(&mut reader, &directory, args.timestamps, screen) } else { Ok(()) }
}

/// Shows what comes until the command has ended.
fn follow(reader: &mut Reader, directory: &Directory, timestamps: bool, screen: &mut Screen) -> Outcome {
    loop {
        let life = directory.life();
        // What it printed last is there before its end is written down.
        show(&reader.more()?, timestamps, screen)?;
        if life.is_none_or(|life| life.has_ended(is_supervised(&life))) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

fn show(lines: &[Line], timestamps: bool, screen: &mut Screen) -> Outcome {
    for line in lines {
        let time = if timestamps { format!("{} ", line.time) } else { String::new() };
        screen.raw(&format!("{time}{}", line.log), line.stream == "stderr")?;
    }
    Ok(())
}
