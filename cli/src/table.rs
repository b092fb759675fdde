//! Aligned columns of text. Widths are counted in characters; cells are sanitised by whoever makes
//! them.

/// How a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

pub(crate) struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let header = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self { align: columns.iter().map(|(_, align)| *align).collect(), rows: vec![header] }
    }

    /// Without a header.
    pub(crate) fn bare(align: &[Align]) -> Self {
        Self { align: align.to_vec(), rows: Vec::new() }
    }

    /// Missing cells at the end of a row are empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert!(N <= self.align.len(), "more cells than columns");
        self.rows.push(cells.into());
    }

    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.align.len()).map(width).collect();
        let lines: Vec<_> = self.rows.iter().map(|row| self.line(row, &widths)).collect();
        lines.join("\n")
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, &width), align) in row.iter().zip(widths).zip(&self.align) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            line += &match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// At most `max` characters, the last one "…" where something was left out.
pub(crate) fn clip(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_where_the_text_ends() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("", Align::Left)]);
        table.row(["ü".into(), "1".into(), "x".into()]);
        table.row(["longer".into(), "1,000".into()]);
        assert_eq!(table.render(), "NAME        N\nü           1  x\nlonger  1,000");
    }

    #[test]
    fn clipping_says_so() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcd", 3), "ab…");
    }
}
