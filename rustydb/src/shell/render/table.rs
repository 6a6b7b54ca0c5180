//! Aligned columns, as `psql` prints them.
//!
//! The first rows (at most [`SAMPLE_ROWS`], at most [`SAMPLE_BYTES`]) are held back to decide the column widths; from
//! then on rows go out as they come, and a longer value pushes its own line out of alignment rather than memory out
//! of bounds.
//!
//! ```text
//!  id | name
//! ----+------
//!   1 | Ada
//!   2 | two  +
//!     | lines
//! (2 rows)
//! ```

use super::value::{Cells, column_names, is_numeric, width};
use super::{RenderError, Renderer};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

/// Rows that decide the widths: a screenful many times over, and about a megabyte for ordinary rows.
const SAMPLE_ROWS: usize = 1_000;
/// The same bound for rows that are not ordinary.
const SAMPLE_BYTES: usize = 4 << 20;

pub(crate) struct TableRenderer {
    names: Vec<String>,
    right_aligned: Vec<bool>,
    widths: Vec<usize>,
    sample: Vec<Vec<String>>,
    sample_bytes: usize,
    header_written: bool,
    rows: u64,
}

impl TableRenderer {
    pub(crate) fn new(schema: &SchemaRef) -> TableRenderer {
        let names = column_names(schema);
        TableRenderer {
            right_aligned: schema.fields().iter().map(|field| is_numeric(field.data_type())).collect(),
            widths: names.iter().map(|name| cell_width(name)).collect(),
            names,
            sample: Vec::new(),
            sample_bytes: 0,
            header_written: false,
            rows: 0,
        }
    }

    /// Ends the sampling: writes the header and the rows held back.
    fn write_sample(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        self.header_written = true;
        self.write_row(&self.names, out)?;
        let rule: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(out, "{}", if rule.is_empty() { "--".to_owned() } else { rule.join("+") })?;
        for row in std::mem::take(&mut self.sample) {
            self.write_row(&row, out)?;
        }
        Ok(())
    }

    /// One row, over as many lines as its tallest cell has.
    fn write_row(&self, row: &[String], out: &mut dyn Write) -> Result<(), RenderError> {
        let mut cells: Vec<_> = row.iter().map(|text| text.split('\n').peekable()).collect();
        loop {
            let mut line = String::new();
            let mut more = false;
            for (column, lines) in cells.iter_mut().enumerate() {
                let text = lines.next().unwrap_or("");
                // A `+` marks a cell that goes on in the next line.
                let mark = if lines.peek().is_some() { '+' } else { ' ' };
                more |= mark == '+';
                let padding = " ".repeat(self.widths[column].saturating_sub(width(text)));
                line.push_str(if column == 0 { " " } else { "| " });
                if self.right_aligned[column] {
                    line.extend([padding.as_str(), text]);
                } else {
                    line.extend([text, padding.as_str()]);
                }
                line.push(mark);
            }
            writeln!(out, "{}", line.trim_end_matches(' '))?;
            if !more {
                return Ok(());
            }
        }
    }
}

impl Renderer for TableRenderer {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), RenderError> {
        let cells = Cells::of(batch)?;
        self.rows += batch.num_rows() as u64;
        for row in 0..batch.num_rows() {
            let texts = (0..batch.num_columns()).map(|column| cells.readable(row, column));
            let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
            if self.header_written {
                self.write_row(&texts, out)?;
                continue;
            }
            for (widest, text) in self.widths.iter_mut().zip(&texts) {
                *widest = (*widest).max(cell_width(text));
                self.sample_bytes += text.len();
            }
            self.sample.push(texts);
            if self.sample.len() >= SAMPLE_ROWS || self.sample_bytes >= SAMPLE_BYTES {
                self.write_sample(out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        if !self.header_written {
            self.write_sample(out)?;
        }
        let rows = self.rows;
        writeln!(out, "({rows} row{})", if rows == 1 { "" } else { "s" })?;
        Ok(())
    }
}

/// The width of the widest line of a cell.
fn cell_width(text: &str) -> usize {
    text.split('\n').map(width).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{render, sample, text};
    use super::super::{Format, Renderer};
    use super::{SAMPLE_ROWS, TableRenderer};

    #[test]
    fn columns_are_aligned_and_counted() {
        assert_eq!(
            render(Format::Table, &[sample()]),
            "   id | name |  price | paid  | day        | at
------+------+--------+-------+------------+-------------------------
    1 | Ada  | 123.45 | true  | 1970-01-01 | 1970-01-01T00:00:00
   20 |      |  -0.05 | false | 2022-01-08 | 1970-01-01T00:00:01.500
 NULL | NULL |   NULL | NULL  | NULL       | NULL
(3 rows)
"
        );
    }

    #[test]
    fn a_cell_of_several_lines_keeps_its_column() {
        assert_eq!(
            render(Format::Table, &[text("note", &["two\nlines", "ж宽"])]),
            " note\n-------\n two  +\n lines\n ж宽\n(2 rows)\n"
        );
    }

    #[test]
    fn rows_beyond_the_sample_are_written_at_once() {
        let rows = vec!["x"; SAMPLE_ROWS];
        let mut out = Vec::new();
        let batch = text("c", &rows);
        let mut renderer = TableRenderer::new(&batch.schema());
        renderer.batch(&batch.slice(0, SAMPLE_ROWS - 1), &mut out).unwrap();
        assert!(out.is_empty(), "nothing is written before the widths are known");
        renderer.batch(&batch.slice(0, 2), &mut out).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), SAMPLE_ROWS + 3);
        assert!(renderer.sample.is_empty());
    }

    #[test]
    fn an_empty_result_still_shows_its_columns() {
        assert_eq!(render(Format::Table, &[text("a", &[])]), " a\n---\n(0 rows)\n");
    }
}
