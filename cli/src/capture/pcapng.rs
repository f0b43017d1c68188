//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, Ethernet interfaces, times in nanoseconds.
//!
//! Every block is written with one call and is whole, so that a file is good whenever writing ends.

use std::io::{self, Write};
use std::time::Duration;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Readers tell the byte order by this.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINK_ETHERNET: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_APPLICATION: u16 = 4;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
/// Times count 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// A file under way.
pub(super) struct Writer<W> {
    out: W,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a file written by `application`.
    ///
    /// # Errors
    /// As of `out`.
    pub(super) fn new(out: W, application: &str) -> io::Result<Self> {
        let mut writer = Self { out, interfaces: 0 };
        let mut body = Vec::new();
        body.extend_from_slice(&BYTE_ORDER.to_le_bytes());
        body.extend_from_slice(&1u16.to_le_bytes());
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&u64::MAX.to_le_bytes()); // of unknown length
        option(&mut body, OPTION_APPLICATION, application.as_bytes());
        option(&mut body, OPTION_END, &[]);
        writer.block(SECTION_HEADER, &body)?;
        Ok(writer)
    }

    /// Adds an interface; gives its number.
    ///
    /// # Errors
    /// As of `out`.
    pub(super) fn interface(&mut self, name: &str) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend_from_slice(&LINK_ETHERNET.to_le_bytes());
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&0u32.to_le_bytes()); // frames are not cut
        option(&mut body, OPTION_NAME, name.as_bytes());
        option(&mut body, OPTION_RESOLUTION, &[NANOSECONDS]);
        option(&mut body, OPTION_END, &[]);
        self.block(INTERFACE_DESCRIPTION, &body)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Adds a frame of `original` octets, of which `frame` is the beginning; `time` since 1970.
    ///
    /// # Errors
    /// As of `out`.
    pub(super) fn frame(
        &mut self,
        interface: u32,
        time: Duration,
        frame: &[u8],
        original: usize,
    ) -> io::Result<()> {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut body = Vec::with_capacity(20 + frame.len() + 3);
        body.extend_from_slice(&interface.to_le_bytes());
        body.extend_from_slice(&((time >> 32) as u32).to_le_bytes());
        body.extend_from_slice(&(time as u32).to_le_bytes());
        body.extend_from_slice(&length(frame.len()).to_le_bytes());
        body.extend_from_slice(&length(original).to_le_bytes());
        body.extend_from_slice(frame);
        pad(&mut body);
        self.block(ENHANCED_PACKET, &body)
    }

    /// `body` is of a multiple of 4 octets.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let total = length(body.len() + 12).to_le_bytes();
        self.out.write_all(&[&kind.to_le_bytes()[..], &total, body, &total].concat())?;
        self.out.flush()
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn length(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), "weft capture").expect("written");
        let (one, two) =
            (writer.interface("p1").expect("written"), writer.interface("weft0").expect("written"));
        let frame = |length: u8| -> Vec<u8> {
            let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
            header.into_iter().chain(0..length).collect()
        };
        let time = Duration::new(1_700_000_000, 123_456_789);
        writer.frame(one, time, &frame(46), 60).expect("written");
        writer.frame(two, time + Duration::from_secs(1), &frame(47), 9000).expect("written");
        writer.out
    }

    #[test]
    fn blocks_are_whole_and_tell_their_length_at_both_ends() {
        let file = sample();
        let (mut at, mut kinds) = (0, Vec::new());
        while at < file.len() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("4 octets"));
            let total = word(at + 4) as usize;
            assert!(total.is_multiple_of(4));
            assert_eq!(word(at + total - 4) as usize, total);
            kinds.push(word(at));
            at += total;
        }
        let expected = [SECTION_HEADER, INTERFACE_DESCRIPTION, INTERFACE_DESCRIPTION, ENHANCED_PACKET];
        assert_eq!((&kinds[..4], kinds.len()), (&expected[..], 5));
    }

    #[test]
    fn another_program_reads_frames_times_and_interfaces() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sample.pcapng");
        std::fs::write(&path, sample()).expect("written");
        let fields = ["frame.time_epoch", "frame.interface_name", "frame.len", "frame.cap_len", "eth.src"];
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&path).args(["-T", "fields"]);
        fields.iter().for_each(|field| {
            tshark.args(["-e", field]);
        });
        let output = tshark.output().expect("tshark is there: make setup-test");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{output:?}");
        assert!(lines[0].ends_with("p1\t60\t60\t02:00:00:00:00:01"), "{text}");
        assert!(lines[0].contains("123456789"), "{text}");
        assert!(lines[1].ends_with("weft0\t9000\t61\t02:00:00:00:00:01"), "{text}");
    }
}
