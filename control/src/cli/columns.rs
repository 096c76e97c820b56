//! Text in columns, for people and for `awk`: no frames, no colours, two spaces between.

/// Rows of cells, each column as wide as its widest cell. Numbers line up on the right.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Columns with these titles.
    pub fn titled(titles: &[&str]) -> Self {
        let mut columns = Self::default();
        columns.row(titles.iter().map(|&title| title.to_owned()));
        columns
    }

    /// Adds a row. An empty cell is shown as `-`, so that every row has as many words.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The text, each line ended.
    pub fn render(&self) -> String {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..count).map(|column| self.cells(column).map(width).max().unwrap_or(0)).collect();
        let numeric: Vec<bool> = (0..count).map(|column| self.is_numeric(column)).collect();
        let lines = self.rows.iter().map(|row| {
            let cells = row.iter().zip(&widths).zip(&numeric).map(|((cell, &width), &numeric)| {
                if numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        });
        lines.collect()
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(column)).map(String::as_str)
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.cells(column).skip(1).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut columns = Columns::titled(&["NAME", "VNI", "PEERS"]);
        columns.row(["blue", "5000", "192.0.2.2"].map(str::to_owned));
        columns.row(["b", "1", ""].map(str::to_owned));
        assert_eq!(columns.render(), "NAME   VNI  PEERS\nblue  5000  192.0.2.2\nb        1  -\n");
    }
}
