//! Tables laid out as Docker's: columns at least 10 wide, 3 spaces between, the last column as it comes.

use super::escape;

/// Least width of a column, padding included (docker/cli `formatter.go`: `tabwriter` 10, 1, 3).
const MIN_WIDTH: usize = 10;
/// Spaces after the widest cell of a column.
const PADDING: usize = 3;

/// A header and rows of equally many cells.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this header and no rows.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    /// A table with this header, of as many columns as it happens to have.
    pub(crate) fn of(header: Vec<String>) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.add(header);
        table
    }

    /// Adds a row of any number of cells; control characters in cells are made visible.
    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| escape(cell)).collect());
    }

    /// Adds a row; control characters in cells are made visible.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(escape).to_vec());
    }

    /// Paints the last cell of the last row, which nothing is aligned to.
    pub(crate) fn paint_last(&mut self, paint: impl FnOnce(&str) -> String) {
        if let Some(cell) = self.rows.last_mut().and_then(|row| row.last_mut()) {
            *cell = paint(cell);
        }
    }

    /// The table as lines.
    pub(crate) fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let (last, cells) =
                row.split_last().map_or(("", &row[..]), |(last, cells)| (last.as_str(), cells));
            for (cell, width) in cells.iter().zip(&widths) {
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
            text.push_str(last);
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest =
            |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        (0..columns).map(|column| (widest(column).unwrap_or(0) + PADDING).max(MIN_WIDTH)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_laid_out_as_docker_lays_them_out() {
        let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
        table.row(["0123456789ab", "blue", "overlay", "global"]);
        table.row(["ba9876543210", "a-longer-name", "overlay", "global"]);
        assert_eq!(
            table.render(),
            "NETWORK ID     NAME            DRIVER    SCOPE\n\
             0123456789ab   blue            overlay   global\n\
             ba9876543210   a-longer-name   overlay   global\n"
        );
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(
            Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]).render(),
            "NETWORK ID   NAME      DRIVER    SCOPE\n"
        );
    }

    #[test]
    fn widths_count_characters_and_cells_are_escaped() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["réseau-é", "alive"]);
        table.row(["x\u{7}", "dead"]);
        assert_eq!(table.render(), "NAME       STATE\nréseau-é   alive\nx\\x07      dead\n");
    }
}
