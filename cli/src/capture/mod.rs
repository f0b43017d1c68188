//! `weft capture`: the frames of a network on this host, as any network analyser reads them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use weft_control::driver::overlay::{BRIDGE, UPLINK};

use crate::args::CaptureArgs;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output::{Screen, escape};

mod pcapng;
mod socket;

use pcapng::Writer;
use socket::{Frames, Seen};

/// An uplink that is missing for so long will not come back: the network is gone. An agent's restart is shorter.
const GONE_AFTER: Duration = Duration::from_secs(15);
const LOOPBACK: &str = "lo";

/// Captures until interrupted, or until there are as many frames as asked for.
pub(crate) fn perform(args: &CaptureArgs, client: Client, screen: &mut Screen) -> Outcome {
    let to_stdout = args.write == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        let text = "frames are no text for a terminal; name a file with -w, or pipe into 'tshark -r -'";
        return Err(Failure::Usage(text.to_owned()));
    }
    let namespace = client.hidden_namespace(&args.network)?;
    // This thread enters the namespace, so nothing else may run on it.
    drop(client);
    let out: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(&args.write).with_context(|| format!("write {}", args.write.display()))?)
    };
    let interrupt = Interrupt::watch().context("watch for Ctrl-C")?;
    let frames = Frames::open(namespace)?;
    let mut capture = Capture::new(Writer::new(out, "weft capture")?);
    let ended = capture.run(&frames, &interrupt, args.count);
    screen.complain(&capture.summary(&args.network));
    ended
}

struct Capture<W> {
    writer: Writer<W>,
    /// Numbers of interfaces in the file, by index and name in the namespace.
    interfaces: BTreeMap<(usize, String), u32>,
    written: u64,
    missed: u32,
}

impl<W: Write> Capture<W> {
    fn new(writer: Writer<W>) -> Self {
        Self { writer, interfaces: BTreeMap::new(), written: 0, missed: 0 }
    }

    fn run(&mut self, frames: &Frames, interrupt: &Interrupt, count: Option<u64>) -> Outcome {
        let mut buffer = vec![0; socket::LONGEST];
        let mut there = Instant::now();
        while count.is_none_or(|count| self.written < count) && interrupt.pause(Duration::ZERO).is_ok() {
            match frames.next(&mut buffer)? {
                Some(seen) => self.take(&seen, &buffer)?,
                None if frames.has(UPLINK) => there = Instant::now(),
                None if there.elapsed() >= GONE_AFTER => {
                    return Err(anyhow::anyhow!("the network is gone from this host").into());
                }
                None => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, seen: &Seen, buffer: &[u8]) -> io::Result<()> {
        self.missed = self.missed.max(seen.missed);
        // What the bridge itself sees was seen at a port already.
        if seen.is_outgoing || [BRIDGE, LOOPBACK].contains(&seen.interface.as_str()) {
            return Ok(());
        }
        let interface = self.interface(seen)?;
        let frame = &buffer[..seen.length.min(buffer.len())];
        self.writer.frame(interface, seen.time, frame, seen.length)?;
        self.written += 1;
        Ok(())
    }

    fn interface(&mut self, seen: &Seen) -> io::Result<u32> {
        let key = (seen.index, seen.interface.clone());
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let number = self.writer.interface(&seen.interface)?;
        self.interfaces.insert(key, number);
        Ok(number)
    }

    fn summary(&self, network: &str) -> String {
        let missed = match self.missed {
            0 => String::new(),
            missed => format!(", {missed} missed because writing was too slow"),
        };
        format!("{} frames of {}{missed}", self.written, escape(network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(interface: &str, index: usize, is_outgoing: bool) -> Seen {
        let time = Duration::from_secs(1);
        Seen { interface: interface.to_owned(), index, is_outgoing, time, length: 60, missed: 0 }
    }

    #[test]
    fn each_frame_is_written_once_where_it_enters() {
        let mut capture = Capture::new(Writer::new(Vec::new(), "test").expect("written"));
        let buffer = [0; 100];
        for seen in [
            seen("p1", 3, false),
            seen(BRIDGE, 2, false),
            seen("weft0", 4, true),
            seen("weft0", 4, false),
            seen("lo", 1, false),
            seen("p1", 3, false),
        ] {
            capture.take(&seen, &buffer).expect("written");
        }
        assert_eq!(capture.written, 3);
        assert_eq!(capture.interfaces.len(), 2);
        assert_eq!(capture.summary("blue"), "3 frames of blue");
    }

    #[test]
    fn frames_that_were_missed_are_told() {
        let mut capture = Capture::new(Writer::new(Vec::new(), "test").expect("written"));
        capture.take(&Seen { missed: 7, ..seen("p1", 3, false) }, &[0; 100]).expect("written");
        assert_eq!(capture.summary("a\x1b"), "1 frames of a\\x1b, 7 missed because writing was too slow");
    }
}
