//! A template as a tree.

use serde_json::Value;

use super::lexer::At;

/// A piece of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    /// Printed as it is.
    Text(String),
    /// Printed unless it sets a variable.
    Print(Pipe),
    /// The first body where the pipe's value is true, else the second.
    If(Pipe, Vec<Node>, Vec<Node>),
    /// As [`Node::If`], with the value as dot.
    With(Pipe, Vec<Node>, Vec<Node>),
    /// The first body for each element, the second where there is none.
    Range(Pipe, Vec<Node>, Vec<Node>),
    /// Ends the innermost range.
    Break,
    /// Goes on with the next element of the innermost range.
    Continue,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug, PartialEq)]
pub(super) struct Pipe {
    /// Variables it sets, dollar included; of a range up to two.
    pub(super) variables: Vec<String>,
    /// Whether the variables are new (`:=`), or those of before (`=`).
    pub(super) declares: bool,
    /// At least one.
    pub(super) commands: Vec<Command>,
}

/// An operand with arguments.
#[derive(Debug, PartialEq)]
pub(super) struct Command {
    /// At least one.
    pub(super) operands: Vec<Operand>,
    /// As typed, for messages.
    pub(super) text: String,
}

/// Something that has a value.
#[derive(Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// Fields of the base, outermost first.
    pub(super) fields: Vec<String>,
    /// Of the last field, if there are any.
    pub(super) at: At,
    /// As typed, for messages.
    pub(super) text: String,
}

/// What an operand begins with.
#[derive(Debug, PartialEq)]
pub(super) enum Base {
    Dot,
    /// Dollar included.
    Variable(String),
    Function(String),
    Literal(Value),
    Nil,
    Pipe(Pipe),
}
