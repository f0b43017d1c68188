//! Cuts a template into tokens: text outside `{{…}}`, and words inside.

use serde_json::Value;

/// Where something is in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// From 1.
    pub(super) line: usize,
    /// Octets from the line's start, from 0.
    pub(super) column: usize,
    /// Octets from the template's start.
    pub(super) octet: usize,
}

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: At,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// White space within an action; it ends an operand.
    Space,
    /// `.` alone.
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`, the dollar included.
    Variable(String),
    /// A keyword or the name of a function.
    Word(String),
    /// A string, number or truth value.
    Literal(Value),
    /// `nil`
    Nil,
    /// `|`
    Pipe,
    /// `(`
    Left,
    /// `)`
    Right,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// A template that is none: line, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) usize, pub(super) String);

/// Cuts `text` up.
///
/// # Errors
/// The first fault.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { text, octet: 0, line: 1, line_start: 0, tokens: Vec::new() };
    while lexer.text_then_action()? {}
    Ok(lexer.tokens)
}

struct Lexer<'t> {
    text: &'t str,
    octet: usize,
    /// Of `octet`, from 1.
    line: usize,
    /// Where that line begins, in octets.
    line_start: usize,
    tokens: Vec<Token>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.octet..]
    }

    fn at(&self) -> At {
        At { line: self.line, column: self.octet - self.line_start, octet: self.octet }
    }

    /// Goes on by so many octets.
    fn pass(&mut self, octets: usize) {
        let passed = &self.text[self.octet..self.octet + octets];
        self.line += passed.matches('\n').count();
        if let Some(newline) = passed.rfind('\n') {
            self.line_start = self.octet + newline + 1;
        }
        self.octet += octets;
    }

    fn fault<T>(&self, why: impl Into<String>) -> Result<T, Fault> {
        Err(Fault(self.at().line, why.into()))
    }

    /// Takes `octets` as a token.
    fn push(&mut self, octets: usize, kind: Kind) {
        let at = self.at();
        self.pass(octets);
        self.tokens.push(Token { kind, at });
    }

    fn after_trim(&self) -> bool {
        self.text[..self.octet].ends_with("-}}")
    }

    /// Whether there is more.
    fn text_then_action(&mut self) -> Result<bool, Fault> {
        let rest = self.rest();
        let open = rest.find("{{").unwrap_or(rest.len());
        let trims = |text: &str| text.starts_with("{{-") && text[3..].starts_with(char::is_whitespace);
        let mut text = &rest[..open];
        if self.after_trim() {
            text = text.trim_start();
        }
        if trims(&rest[open..]) {
            text = text.trim_end();
        }
        self.push(open, Kind::Text(text.to_owned()));
        if self.rest().is_empty() {
            return Ok(false);
        }
        let opened = if trims(self.rest()) { 3 } else { 2 };
        let inner = self.rest()[opened..].trim_start();
        if inner.starts_with("/*") {
            return self.comment();
        }
        self.push(opened, Kind::Open);
        while self.inside()? {}
        Ok(true)
    }

    fn comment(&mut self) -> Result<bool, Fault> {
        let Some(end) = self.rest().find("*/") else { return self.fault("unclosed comment") };
        let tail = &self.rest()[end + 2..];
        let closing = tail.trim_start().strip_prefix('-').unwrap_or(tail.trim_start());
        if !closing.starts_with("}}") {
            return self.fault("comment ends before closing delimiter");
        }
        self.pass(self.rest().len() - closing.len() + 2);
        Ok(true)
    }

    /// One token of an action; whether the action goes on.
    fn inside(&mut self) -> Result<bool, Fault> {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start().len();
        let tail = &rest[spaces..];
        if tail.starts_with("}}") || (spaces > 0 && tail.starts_with("-}}")) {
            self.pass(spaces);
            self.push(if tail.starts_with('-') { 3 } else { 2 }, Kind::Close);
            return Ok(false);
        }
        if spaces > 0 {
            self.push(spaces, Kind::Space);
            return Ok(true);
        }
        let Some(first) = rest.chars().next() else { return self.fault("unclosed action") };
        match first {
            '|' => self.push(1, Kind::Pipe),
            '(' => self.push(1, Kind::Left),
            ')' => self.push(1, Kind::Right),
            ',' => self.push(1, Kind::Comma),
            '=' => self.push(1, Kind::Assign),
            ':' if rest.starts_with(":=") => self.push(2, Kind::Declare),
            '.' => self.field(),
            '$' => self.variable(),
            '"' => self.quoted()?,
            '`' => self.raw()?,
            '0'..='9' | '-' | '+' => self.number()?,
            _ if first.is_alphabetic() || first == '_' => self.word(),
            other => return self.fault(format!("unexpected \"{other}\" in command")),
        }
        Ok(true)
    }

    fn field(&mut self) {
        let name = name(&self.rest()[1..]).to_owned();
        let kind = if name.is_empty() { Kind::Dot } else { Kind::Field(name.clone()) };
        self.push(1 + name.len(), kind);
    }

    fn variable(&mut self) {
        let octets = 1 + name(&self.rest()[1..]).len();
        self.push(octets, Kind::Variable(self.rest()[..octets].to_owned()));
    }

    fn word(&mut self) {
        let word = name(self.rest());
        let kind = match word {
            "true" => Kind::Literal(Value::Bool(true)),
            "false" => Kind::Literal(Value::Bool(false)),
            "nil" => Kind::Nil,
            other => Kind::Word(other.to_owned()),
        };
        self.push(word.len(), kind);
    }

    fn number(&mut self) -> Result<(), Fault> {
        let part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let rest = self.rest();
        let text = &rest[..rest.find(|c| !part(c)).unwrap_or(rest.len())];
        let whole = text.parse::<i64>().ok().map(Value::from);
        let Some(number) = whole.or_else(|| text.parse::<f64>().ok().map(Value::from)) else {
            return self.fault(format!("bad number syntax: {text:?}"));
        };
        self.push(text.len(), Kind::Literal(number));
        Ok(())
    }

    fn raw(&mut self) -> Result<(), Fault> {
        let Some(end) = self.rest()[1..].find('`') else {
            return self.fault("unterminated raw quoted string");
        };
        let text = self.rest()[1..=end].to_owned();
        self.push(end + 2, Kind::Literal(text.into()));
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), Fault> {
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((octet, character)) = characters.next() {
            match character {
                '"' => {
                    self.push(octet + 1, Kind::Literal(text.into()));
                    return Ok(());
                }
                '\n' => break,
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(same @ ('\\' | '"' | '\'')) => text.push(same),
                    Some(other) => return self.fault(format!("unknown escape \\{other} in a string")),
                    None => break,
                },
                other => text.push(other),
            }
        }
        self.fault("unterminated quoted string")
    }
}

/// The name `text` begins with.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}
