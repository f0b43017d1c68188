//! Reads a template's tokens into a tree. Faults are worded as Go's `text/template` words them.

use super::functions;
use super::lexer::{At, Fault, Kind, Token, tokens};
use super::tree::{Base, Command, Node, Operand, Pipe};

/// How deep actions and parentheses may nest.
const MAX_DEPTH: usize = 64;

/// What ended a list of nodes.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Input,
    End,
    Else,
}

/// Reads a template.
///
/// # Errors
/// The first fault, with its line.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Fault> {
    let mut parser =
        Parser { text, tokens: tokens(text)?, next: 0, depth: 0, ranges: 0, variables: vec!["$".to_owned()] };
    match parser.nodes()? {
        (nodes, Stop::Input) => Ok(nodes),
        (_, Stop::End) => parser.fault("unexpected {{end}}"),
        (_, Stop::Else) => parser.fault("unexpected {{else}}"),
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    /// Ranges around what is being read.
    ranges: usize,
    /// Variables that are there, dollar included.
    variables: Vec<String>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn take(&mut self) -> Option<Kind> {
        let token = self.tokens.get(self.next).map(|token| token.kind.clone());
        self.next += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&Kind::Space) {
            self.next += 1;
        }
    }

    /// Where the next token begins, or the last one did.
    fn at(&self) -> At {
        let token = self.tokens.get(self.next).or(self.tokens.last());
        token.map_or(At { line: 1, column: 0, octet: 0 }, |token| token.at)
    }

    fn fault<T>(&self, why: impl Into<String>) -> Result<T, Fault> {
        Err(Fault(self.at().line, why.into()))
    }

    fn unexpected<T>(&self, place: &str) -> Result<T, Fault> {
        let what = match self.peek() {
            None => return self.fault("unexpected EOF"),
            Some(Kind::Close) => "\"}}\"".to_owned(),
            Some(Kind::Pipe) => "\"|\"".to_owned(),
            Some(Kind::Left) => "\"(\"".to_owned(),
            Some(Kind::Right) => "right paren".to_owned(),
            Some(Kind::Comma) => "\",\"".to_owned(),
            Some(Kind::Declare) => "\":=\"".to_owned(),
            Some(Kind::Assign) => "\"=\"".to_owned(),
            Some(Kind::Word(word)) => format!("<{word}>"),
            Some(_) => format!("{:?}", self.typed(self.at().octet, self.next + 1)),
        };
        self.fault(format!("unexpected {what} in {place}"))
    }

    /// The text from `octet` up to token number `end`.
    fn typed(&self, octet: usize, end: usize) -> String {
        let end = self.tokens.get(end).map_or(self.text.len(), |token| token.at.octet);
        self.text[octet..end].trim().to_owned()
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault(format!("nested more than {MAX_DEPTH} deep"));
        }
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        while let Some(kind) = self.take() {
            match kind {
                Kind::Text(text) if text.is_empty() => {}
                Kind::Text(text) => nodes.push(Node::Text(text)),
                _ => {
                    self.skip_space();
                    match self.action()? {
                        Ok(node) => nodes.push(node),
                        Err(end) => return Ok((nodes, end)),
                    }
                }
            }
        }
        Ok((nodes, Stop::Input))
    }

    /// What is between `{{` and `}}`: a node, or the end of a list of nodes.
    fn action(&mut self) -> Result<Result<Node, Stop>, Fault> {
        let Some(Kind::Word(word)) = self.peek().cloned() else { return self.print().map(Ok) };
        if !matches!(
            word.as_str(),
            "if" | "with" | "range" | "break" | "continue" | "end" | "else" | "define" | "template" | "block"
        ) {
            return self.print().map(Ok);
        }
        self.next += 1;
        match word.as_str() {
            "end" => self.close("end").map(|()| Err(Stop::End)),
            // What follows an `else` is for whoever it belongs to.
            "else" => Ok(Err(Stop::Else)),
            "if" => self.nested(|parser| parser.branch("if", Node::If)).map(Ok),
            "with" => self.nested(|parser| parser.branch("with", Node::With)).map(Ok),
            "range" => self.nested(|parser| parser.branch("range", Node::Range)).map(Ok),
            "break" | "continue" if self.ranges == 0 => {
                self.fault(format!("{{{{{word}}}}} outside {{{{range}}}}"))
            }
            "break" => self.close("break").map(|()| Ok(Node::Break)),
            "continue" => self.close("continue").map(|()| Ok(Node::Continue)),
            other => self.fault(format!("{other} is not supported")),
        }
    }

    fn close(&mut self, place: &str) -> Result<(), Fault> {
        self.skip_space();
        if self.peek() != Some(&Kind::Close) {
            return self.unexpected(place);
        }
        self.next += 1;
        Ok(())
    }

    fn print(&mut self) -> Result<Node, Fault> {
        let pipe = self.pipe("command", 1)?;
        self.close("command")?;
        Ok(Node::Print(pipe))
    }

    /// `if`, `with` and `range`, up to their `end`.
    fn branch(
        &mut self,
        word: &'static str,
        node: impl FnOnce(Pipe, Vec<Node>, Vec<Node>) -> Node,
    ) -> Result<Node, Fault> {
        let known = self.variables.len();
        let ranges = usize::from(word == "range");
        let pipe = self.pipe(word, 1 + ranges)?;
        self.close(word)?;
        self.ranges += ranges;
        let (body, end) = self.nodes()?;
        self.ranges -= ranges;
        let otherwise = match end {
            Stop::Input => return self.fault("unexpected EOF"),
            Stop::End => Vec::new(),
            Stop::Else => self.otherwise(word)?,
        };
        self.variables.truncate(known);
        Ok(node(pipe, body, otherwise))
    }

    /// What stands after `else`, up to the end of the whole.
    fn otherwise(&mut self, word: &'static str) -> Result<Vec<Node>, Fault> {
        self.skip_space();
        if self.peek() == Some(&Kind::Word(word.to_owned())) && word != "range" {
            self.next += 1;
            let node = if word == "if" { Node::If } else { Node::With };
            return Ok(vec![self.nested(|parser| parser.branch(word, node))?]);
        }
        self.close("else")?;
        match self.nodes()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::Else) => self.fault("expected end; found {{else}}"),
            (_, Stop::Input) => self.fault("unexpected EOF"),
        }
    }

    /// Commands joined by `|`, perhaps with at most `most` variables in front.
    fn pipe(&mut self, place: &str, most: usize) -> Result<Pipe, Fault> {
        self.skip_space();
        let (variables, declares) = self.assigned(most)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.peek(), Some(Kind::Close | Kind::Right)) {
                let missing =
                    if commands.is_empty() { "missing value for" } else { "missing value after | in" };
                return self.fault(format!("{missing} {place}"));
            }
            commands.push(self.command()?);
            self.skip_space();
            if self.peek() != Some(&Kind::Pipe) {
                break;
            }
            self.next += 1;
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipe { variables, declares, commands })
    }

    /// `$x :=`, `$x =`, `$k, $v :=`.
    fn assigned(&mut self, most: usize) -> Result<(Vec<String>, bool), Fault> {
        let (begin, mut names) = (self.next, Vec::new());
        while let Some(Kind::Variable(name)) = self.peek().cloned() {
            self.next += 1;
            self.skip_space();
            names.push(name);
            match self.take() {
                Some(Kind::Comma) if names.len() < most => self.skip_space(),
                Some(Kind::Declare) => return Ok((names, true)),
                Some(Kind::Assign) => {
                    names.iter().try_for_each(|name| self.known(name))?;
                    return Ok((names, false));
                }
                _ => break,
            }
        }
        self.next = begin;
        Ok((Vec::new(), false))
    }

    fn known(&self, name: &str) -> Result<(), Fault> {
        let known = self.variables.iter().any(|known| known == name);
        if known { Ok(()) } else { self.fault(format!("undefined variable {name:?}")) }
    }

    fn command(&mut self) -> Result<Command, Fault> {
        let (at, mut operands) = (self.at(), Vec::new());
        loop {
            self.skip_space();
            if matches!(self.peek(), Some(Kind::Close | Kind::Pipe | Kind::Right)) {
                break;
            }
            operands.push(self.operand()?);
        }
        if operands.is_empty() {
            return self.unexpected("command");
        }
        Ok(Command { operands, text: self.typed(at.octet, self.next) })
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let mut at = self.at();
        let begin = at.octet;
        let mut fields = Vec::new();
        let base = match self.peek().cloned() {
            Some(Kind::Dot) => Base::Dot,
            Some(Kind::Field(name)) => {
                fields.push(name);
                Base::Dot
            }
            Some(Kind::Variable(name)) => {
                self.known(&name)?;
                Base::Variable(name)
            }
            Some(Kind::Word(word)) if functions::exists(&word) => Base::Function(word),
            Some(Kind::Word(word)) => return self.fault(format!("function {word:?} not defined")),
            Some(Kind::Literal(value)) => Base::Literal(value),
            Some(Kind::Nil) => Base::Nil,
            Some(Kind::Left) => {
                self.next += 1;
                let pipe = self.nested(|parser| parser.pipe("parenthesized pipeline", 0))?;
                self.skip_space();
                if self.peek() != Some(&Kind::Right) {
                    return self.fault("unclosed left paren");
                }
                Base::Pipe(pipe)
            }
            _ => return self.unexpected("operand"),
        };
        self.next += 1;
        while let Some(Kind::Field(name)) = self.peek().cloned() {
            at = self.at();
            self.next += 1;
            fields.push(name);
        }
        Ok(Operand { base, fields, at, text: self.typed(begin, self.next) })
    }
}
