//! Go templates, as far as people use them with `docker … --format`.
//!
//! Fields, `range`, `with`, `if`, variables, pipes, trim markers, comments, and the functions of `functions.rs`;
//! no `define`, `template` and `block`. The data is JSON: maps are walked in the order of their keys. Faults have the
//! words of Go's `text/template`, whose behaviour this follows (package documentation of Go 1.24).

use std::collections::BTreeMap;

use serde_json::Value;

mod eval;
mod functions;
mod lexer;
mod listing;
mod parser;
mod printf;
mod tree;

pub(crate) use listing::{Listing, Row};

/// A template that can be printed.
#[derive(Debug)]
pub(crate) struct Template(Vec<tree::Node>);

/// Why a template cannot be printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// The text is no template.
    #[error("template parsing error: {0}")]
    Parse(String),
    /// The data has not what the template asks for.
    #[error("template parsing error: {0}")]
    Run(String),
}

/// What a template is printed with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Data {
    /// `.` and `$`.
    pub(crate) value: Value,
    /// Fields that take a key: `.Label "k"`.
    pub(crate) lookups: BTreeMap<&'static str, Lookup>,
}

/// What a field that takes a key answers.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// The value, or nothing.
    Table(BTreeMap<String, String>),
    /// The key itself.
    Echo,
}

impl From<Value> for Data {
    fn from(value: Value) -> Self {
        Self { value, lookups: BTreeMap::new() }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`FormatError::Parse`].
    pub(crate) fn parse(text: &str) -> Result<Self, FormatError> {
        let parsed = parser::parse(text);
        parsed
            .map(Self)
            .map_err(|lexer::Fault(line, why)| FormatError::Parse(format!("template: :{line}: {why}")))
    }

    /// Prints data.
    ///
    /// # Errors
    /// [`FormatError::Run`].
    pub(crate) fn print(&self, data: &Data) -> Result<String, FormatError> {
        eval::run(&self.0, data).map_err(FormatError::Run)
    }
}

#[cfg(test)]
mod tests;
