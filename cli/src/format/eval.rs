//! Prints a template with data.

use serde_json::Value;

use super::functions::{self, text, truth};
use super::lexer::At;
use super::tree::{Base, Command, Node, Operand, Pipe};
use super::{Data, Lookup};

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// Prints `nodes`.
///
/// # Errors
/// A field or function that the data does not allow, worded as Go's `text/template` words it.
pub(super) fn run(nodes: &[Node], data: &Data) -> Result<String, String> {
    let root = data.value.clone();
    let mut run = Run { data, out: String::new(), variables: vec![("$".to_owned(), root.clone())] };
    run.nodes(nodes, &root)?;
    Ok(run.out)
}

struct Run<'d> {
    data: &'d Data,
    out: String,
    variables: Vec<(String, Value)>,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&text(&value));
                }
                self.set(pipe, vec![value]);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::If(..) | Node::With(..) | Node::Range(..) => {
                let known = self.variables.len();
                let flow = self.branch(node, dot);
                self.variables.truncate(known);
                return flow;
            }
        }
        Ok(Flow::On)
    }

    fn branch(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        let (Node::If(pipe, body, otherwise)
        | Node::With(pipe, body, otherwise)
        | Node::Range(pipe, body, otherwise)) = node
        else {
            return Ok(Flow::On);
        };
        let value = self.pipe(pipe, dot)?;
        if matches!(node, Node::Range(..)) {
            return self.range(pipe, value, (body, otherwise), dot);
        }
        let holds = truth(&value);
        self.set(pipe, vec![value.clone()]);
        match (holds, node) {
            (true, Node::With(..)) => self.nodes(body, &value),
            (true, _) => self.nodes(body, dot),
            (false, _) => self.nodes(otherwise, dot),
        }
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        value: Value,
        (body, otherwise): (&[Node], &[Node]),
        dot: &Value,
    ) -> Result<Flow, String> {
        let elements = match elements(value) {
            Ok(elements) => elements,
            Err(value) => {
                let typed = pipe.commands.first().map_or("", |command| &command.text);
                let at = pipe.commands.first().and_then(|command| command.operands.first()).map(|o| o.at);
                return Err(fault(at, typed, &format!("range can't iterate over {}", text(&value))));
            }
        };
        if elements.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let known = self.variables.len();
        for (key, element) in elements {
            self.variables.truncate(known);
            let both =
                if pipe.variables.len() == 1 { vec![element.clone()] } else { vec![key, element.clone()] };
            self.set(pipe, both);
            if self.nodes(body, &element)? == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// Gives the variables of a pipe their values.
    fn set(&mut self, pipe: &Pipe, values: Vec<Value>) {
        for (name, value) in pipe.variables.iter().zip(values) {
            let before = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match before {
                Some((_, before)) if !pipe.declares => *before = value,
                _ => self.variables.push((name.clone(), value)),
            }
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &Command, dot: &Value, last: Option<Value>) -> Result<Value, String> {
        let Some((first, arguments)) = command.operands.split_first() else { return Ok(Value::Null) };
        let wrong = |why: &str| Err(fault(Some(first.at), &first.text, why));
        match &first.base {
            Base::Function(name) if first.fields.is_empty() => {
                let call = (name.as_str(), arguments);
                let outcome = self.call(call, dot, last)?;
                let why = |why: String| {
                    fault(Some(first.at), &command.text, &format!("error calling {name}: {why}"))
                };
                outcome.map_err(why)
            }
            Base::Nil => wrong("nil is not a command"),
            Base::Dot if first.fields.len() == 1 && (!arguments.is_empty() || last.is_some()) => {
                self.look_up(first, arguments, dot, last)
            }
            _ if arguments.is_empty() && last.is_none() => self.operand(first, dot),
            _ => wrong(&format!("can't give argument to non-function {}", first.text)),
        }
    }

    /// Calls a function; `and` and `or` look at no more arguments than they need.
    fn call(
        &mut self,
        (name, arguments): (&str, &[Operand]),
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Result<Value, String>, String> {
        let mut values = Vec::new();
        for argument in arguments {
            let value = self.operand(argument, dot)?;
            let decided = matches!((name, truth(&value)), ("and", false) | ("or", true));
            values.push(value);
            if decided {
                return Ok(functions::call(name, &values));
            }
        }
        values.extend(last);
        Ok(functions::call(name, &values))
    }

    /// `.Label "k"`: a field that takes an argument.
    fn look_up(
        &mut self,
        first: &Operand,
        arguments: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, String> {
        let name = first.fields.first().map_or("", String::as_str);
        let Some(lookup) = self.data.lookups.get(name) else {
            let why = format!("{name} has arguments but cannot be invoked as function");
            return Err(fault(Some(first.at), &first.text, &why));
        };
        let mut keys = Vec::new();
        for argument in arguments {
            keys.push(self.operand(argument, dot)?);
        }
        keys.extend(last);
        match (keys.as_slice(), lookup) {
            ([Value::String(key)], Lookup::Echo) => Ok(key.clone().into()),
            ([Value::String(key)], Lookup::Table(table)) => {
                Ok(table.get(key).cloned().unwrap_or_default().into())
            }
            _ => Err(fault(Some(first.at), &first.text, &format!("{name} takes one string"))),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Literal(value) => value.clone(),
            Base::Nil => Value::Null,
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map_or(Value::Null, |(_, value)| value.clone())
            }
            Base::Pipe(pipe) => self.pipe(pipe, dot)?,
            Base::Function(name) => {
                let why =
                    |why| fault(Some(operand.at), &operand.text, &format!("error calling {name}: {why}"));
                self.call((name, &[]), dot, None)?.map_err(why)?
            }
        };
        operand.fields.iter().try_fold(base, |value, name| {
            field(value, name).map_err(|why| fault(Some(operand.at), &operand.text, &why))
        })
    }
}

/// A field of a value. Keys of Docker's objects begin with a capital letter, so that a small one asks for a key that
/// a user chose, which may be missing.
fn field(value: Value, name: &str) -> Result<Value, String> {
    match value {
        Value::Object(mut fields) => match fields.remove(name) {
            Some(value) => Ok(value),
            None if name.starts_with(char::is_lowercase) => Ok(Value::Null),
            None => Err(format!("map has no entry for key {name:?}")),
        },
        Value::Null => Err(format!("nil data; no entry for key {name:?}")),
        other => Err(format!("can't evaluate field {name} in type {}", functions::kind(&other))),
    }
}

/// Keys and elements in the order of a range; the value itself where it has none.
fn elements(value: Value) -> Result<Vec<(Value, Value)>, Value> {
    match value {
        Value::Array(elements) => {
            Ok(elements.into_iter().enumerate().map(|(index, element)| (index.into(), element)).collect())
        }
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
        }
        Value::Null => Ok(Vec::new()),
        other => Err(other),
    }
}

fn fault(at: Option<At>, typed: &str, why: &str) -> String {
    let (line, column) = at.map_or((1, 0), |at| (at.line, at.column));
    format!("template: :{line}:{column}: executing \"\" at <{typed}>: {why}")
}
