//! The log of a command: one JSON object a line, as Docker's `json-file`; bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};
use weft_control::timestamp::UnixMillis;

/// Size at which a log becomes the log of before, octets.
const MAX_LOG: u64 = 10_000_000;
/// Longest line written as one, octets.
const MAX_LINE: usize = 16 << 10;

/// A line of a log, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The text with its newline, if it has one.
    pub(crate) log: String,
    /// `stdout` or `stderr`.
    pub(crate) stream: String,
    /// RFC 3339, UTC.
    pub(crate) time: String,
}

/// Writes a log. A medium that takes no more loses lines, and the command goes on.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Writer {
    /// Appends to the log at this path.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Some(file), size })
    }

    fn write(&mut self, stream: &str, text: &[u8], time: &str) {
        let log = String::from_utf8_lossy(text).into_owned();
        let line = Line { log, stream: stream.to_owned(), time: time.to_owned() };
        let Ok(mut line) = serde_json::to_vec(&line) else { return };
        line.push(b'\n');
        if self.size + line.len() as u64 > MAX_LOG {
            self.turn_over();
        }
        if self.file.as_mut().is_some_and(|file| file.write_all(&line).is_ok()) {
            self.size += line.len() as u64;
        }
    }

    /// The log becomes the log of before, and a new one begins.
    fn turn_over(&mut self) {
        if fs::rename(&self.path, before(&self.path)).is_ok() {
            self.file = append(&self.path).ok();
            self.size = 0;
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn before(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// One stream of a command, cut into lines.
#[derive(Debug)]
struct Source {
    name: &'static str,
    /// Absent once the other end is closed.
    pipe: Option<File>,
    partial: Vec<u8>,
}

/// The output of a command on its way to the log.
#[derive(Debug)]
pub(crate) struct Capture {
    sources: [Source; 2],
    writer: Writer,
}

impl Capture {
    /// Takes over both streams.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(super) fn new(stdout: OwnedFd, stderr: OwnedFd, log: &Path) -> io::Result<Self> {
        let source = |name, pipe: OwnedFd| -> io::Result<Source> {
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Source { name, pipe: Some(pipe.into()), partial: Vec::new() })
        };
        Ok(Self {
            sources: [source("stdout", stdout)?, source("stderr", stderr)?],
            writer: Writer::open(log)?,
        })
    }

    /// What to wait for.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().filter_map(|source| source.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// Writes down what there is now.
    pub(crate) fn take(&mut self) {
        let time = now();
        for source in &mut self.sources {
            source.take(&mut self.writer, &time);
        }
    }

    /// Writes down what is left, and lines that were not ended.
    pub(super) fn finish(mut self) {
        self.take();
        let time = now();
        for source in self.sources.iter().filter(|source| !source.partial.is_empty()) {
            self.writer.write(source.name, &source.partial, &time);
        }
    }
}

impl Source {
    fn take(&mut self, writer: &mut Writer, time: &str) {
        let mut buffer = [0; MAX_LINE];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(octets) => {
                    self.partial.extend_from_slice(&buffer[..octets]);
                    self.write_lines(writer, time);
                }
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) if fault.raw_os_error() == Some(Errno::EAGAIN as i32) => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn write_lines(&mut self, writer: &mut Writer, time: &str) {
        let mut rest = self.partial.as_slice();
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            writer.write(self.name, &rest[..=end], time);
            rest = &rest[end + 1..];
        }
        while rest.len() >= MAX_LINE {
            let (part, tail) = rest.split_at(MAX_LINE);
            writer.write(self.name, part, time);
            rest = tail;
        }
        self.partial = rest.to_vec();
    }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).to_string()
}

/// Reads a log while it is written.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: Option<File>,
    partial: Vec<u8>,
}

impl Reader {
    /// A reader of the log at this path, which need not be there yet.
    pub(crate) fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, partial: Vec::new() }
    }

    /// Every line there is, those of before first.
    ///
    /// # Errors
    /// The file system's fault.
    pub(crate) fn all(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = match File::open(before(&self.path)) {
            Ok(file) => {
                self.file = Some(file);
                self.read()?
            }
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(fault) => return Err(fault),
        };
        self.file = None;
        lines.extend(self.more()?);
        Ok(lines)
    }

    /// Lines that came since the last look.
    ///
    /// # Errors
    /// The file system's fault.
    pub(crate) fn more(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = self.read()?;
        if self.is_another()? {
            self.file = Some(File::open(&self.path)?);
            lines.extend(self.read()?);
        }
        Ok(lines)
    }

    /// Whether the log is another file than the one that is open.
    fn is_another(&self) -> io::Result<bool> {
        let there = match fs::metadata(&self.path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let Some(file) = &self.file else { return Ok(true) };
        Ok(file.metadata()?.ino() != there.ino())
    }

    fn read(&mut self) -> io::Result<Vec<Line>> {
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        file.read_to_end(&mut self.partial)?;
        let whole = self.partial.iter().rposition(|octet| *octet == b'\n').map_or(0, |end| end + 1);
        let rest = self.partial.split_off(whole);
        let text = std::mem::replace(&mut self.partial, rest);
        Ok(text.split(|octet| *octet == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.log.as_str()).collect()
    }

    #[test]
    fn what_is_printed_is_read_in_lines_while_it_is_written() {
        let scratch = tempfile::tempdir().expect("a directory");
        let log = scratch.path().join("log");
        let mut reader = Reader::open(&log);
        assert_eq!(reader.all().expect("no log yet"), Vec::new());
        let (out, mut out_in) = io::pipe().expect("a pipe");
        let (err, mut err_in) = io::pipe().expect("a pipe");
        let mut capture = Capture::new(out.into(), err.into(), &log).expect("captured");
        out_in.write_all(b"one\ntwo").expect("printed");
        err_in.write_all(b"bad \xff\n").expect("printed");
        capture.take();
        let lines = reader.more().expect("read");
        assert_eq!(texts(&lines), ["one\n", "bad \u{fffd}\n"]);
        assert_eq!([&lines[0].stream, &lines[1].stream], ["stdout", "stderr"]);
        out_in.write_all(b" and a half").expect("printed");
        drop((out_in, err_in));
        capture.finish();
        assert_eq!(texts(&reader.more().expect("read")), ["two and a half"]);
    }

    #[test]
    fn a_log_that_is_full_becomes_the_one_before() {
        let scratch = tempfile::tempdir().expect("a directory");
        let log = scratch.path().join("log");
        let mut writer = Writer::open(&log).expect("opened");
        let mut reader = Reader::open(&log);
        writer.write("stdout", b"old\n", "t");
        assert_eq!(texts(&reader.more().expect("read")), ["old\n"]);
        writer.size = MAX_LOG;
        writer.write("stdout", b"new\n", "t");
        assert_eq!(texts(&reader.more().expect("read")), ["new\n"], "a reader follows");
        assert_eq!(texts(&Reader::open(&log).all().expect("read")), ["old\n", "new\n"]);
        writer.size = MAX_LOG;
        writer.write("stdout", b"newest\n", "t");
        assert_eq!(
            texts(&Reader::open(&log).all().expect("read")),
            ["new\n", "newest\n"],
            "two files at most"
        );
    }
}
