//! Lists: `--format` of verbs that show one line for each of many things.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Data, FormatError, Lookup, Template};
use crate::output::Table;

/// The field of a row that takes the name of a label.
const LABEL: &str = "Label";

/// A row: its cells by field, and its labels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) cells: BTreeMap<&'static str, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A list as people see it.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Fields of the rows and what their column is called.
    pub(crate) titles: &'static [(&'static str, &'static str)],
    /// Template of the table, cells parted by `\t`.
    pub(crate) table: &'static str,
    /// The field that `--quiet` shows.
    pub(crate) quiet: &'static str,
    pub(crate) rows: Vec<Row>,
}

impl Listing {
    /// The list as text, lines ended: `format` is `table`, `table TEMPLATE`, `json`, a template, or absent.
    ///
    /// # Errors
    /// The template is none, or asks for what rows have not.
    pub(crate) fn show(&self, format: Option<&str>, quiet: bool) -> Result<String, FormatError> {
        let format = format.unwrap_or("table");
        let table = format.strip_prefix("table").filter(|rest| rest.is_empty() || rest.starts_with(' '));
        match (table.map(str::trim), format) {
            (Some(_), _) if quiet => self.lines(&format!("{{{{.{}}}}}", self.quiet)),
            (Some(""), _) => self.table(self.table),
            (Some(template), _) => self.table(template),
            (None, "json") => self.lines("{{json .}}"),
            (None, template) => self.lines(template),
        }
    }

    fn lines(&self, template: &str) -> Result<String, FormatError> {
        let template = Template::parse(&unescape(template))?;
        self.rows.iter().map(|row| Ok(template.print(&row.data())? + "\n")).collect()
    }

    fn table(&self, template: &str) -> Result<String, FormatError> {
        let template = Template::parse(&unescape(template))?;
        let titles = self.titles.iter().map(|(field, title)| ((*field).to_owned(), Value::from(*title)));
        let header =
            Data { value: Value::Object(titles.collect()), lookups: BTreeMap::from([(LABEL, Lookup::Echo)]) };
        let cells = |data: &Data| -> Result<Vec<String>, FormatError> {
            Ok(template.print(data)?.split('\t').map(str::to_owned).collect())
        };
        let mut table = Table::of(cells(&header)?);
        for row in &self.rows {
            table.add(cells(&row.data())?);
        }
        Ok(table.render())
    }
}

impl Row {
    fn data(&self) -> Data {
        let cells: Map<String, Value> =
            self.cells.iter().map(|(field, cell)| ((*field).to_owned(), cell.clone().into())).collect();
        Data {
            value: Value::Object(cells),
            lookups: BTreeMap::from([(LABEL, Lookup::Table(self.labels.clone()))]),
        }
    }
}

/// `\t` and `\n` as they are typed in a shell.
fn unescape(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n")
}
