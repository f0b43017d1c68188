//! What a person or a script sees: tables as Docker's, JSON as Docker's, no byte that could steer a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::ser::PrettyFormatter;

mod ports;
mod table;

pub(crate) use ports::ports_cell;
pub(crate) use table::Table;

/// The two streams of a program, and whether the first may carry colours.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    colour: bool,
}

impl Screen {
    /// Standard output and standard error; colours only on a terminal, and not with `NO_COLOR` (no-color.org).
    pub(crate) fn terminal() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), colour }
    }

    /// Any two streams, without colours.
    #[cfg(test)]
    pub(crate) fn plain(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self { out, err, colour: false }
    }

    /// Writes one line of data.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes what a template printed: lines and tabs are meant, other control characters are made visible.
    pub(crate) fn formatted(&mut self, text: &str) -> io::Result<()> {
        let keep = |part: &str| escape(part);
        let lines: Vec<_> =
            text.split('\n').map(|line| line.split('\t').map(keep).collect::<Vec<_>>().join("\t")).collect();
        write!(self.out, "{}", lines.join("\n"))?;
        self.out.flush()
    }

    /// Writes without ending the line, for a person who is asked something.
    pub(crate) fn ask(&mut self, text: &str) {
        let _ = write!(self.err, "{text}");
        let _ = self.err.flush();
    }

    /// Writes a table with its header.
    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        write!(self.out, "{}", table.render())?;
        self.out.flush()
    }

    /// Writes a value as JSON the way `docker inspect` does: 4 spaces, and a newline at the end.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        self.line(&json(value)?)
    }

    /// Passes on what a command has printed, as it is, to standard output or standard error.
    pub(crate) fn raw(&mut self, text: &str, to_err: bool) -> io::Result<()> {
        let stream = if to_err { &mut self.err } else { &mut self.out };
        stream.write_all(text.as_bytes())?;
        stream.flush()
    }

    /// Writes one line for a person to standard error; a standard error that is gone is no reason to stop.
    pub(crate) fn complain(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
        let _ = self.err.flush();
    }

    /// The text in a colour where colours are wanted.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// Colours with a meaning (ECMA-48 SGR codes).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    /// Titles.
    Bold = 1,
    /// Less important.
    Dim = 2,
    /// Bad.
    Red = 31,
    /// Good.
    Green = 32,
    /// Doubtful.
    Yellow = 33,
    /// Numbers to look at.
    Cyan = 36,
}

/// The text with every control character (C0, DEL, C1) made visible, so that a name can't steer a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            let _ = write!(safe, "\\x{:02x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// JSON with 4 spaces of indentation, without a final newline.
///
/// serde escapes only C0; DEL and C1 can occur inside strings only, where `\u` is always allowed.
fn json<T: Serialize>(value: &T) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(escape("a\x1b[2Jb\u{9b}31m\x7f\r\n"), "a\\x1b[2Jb\\x9b31m\\x7f\\x0d\\x0a");
        assert_eq!(escape("réseau"), "réseau");
    }

    #[test]
    fn json_is_indented_by_four_and_holds_no_control_character() {
        let value =
            serde_json::json!([{ "Name": "a\x1b\u{9b}\x7f", "Options": {}, "List": [], "None": null }]);
        let text = json(&value).expect("json");
        assert_eq!(
            text,
            "[\n    {\n        \"List\": [],\n        \"Name\": \"a\\u001b\\u009b\\u007f\",\n        \"None\": null,\n        \
             \"Options\": {}\n    }\n]"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("parses"), value);
    }
}
