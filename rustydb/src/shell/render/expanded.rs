//! One line per column and a block per row, for rows too wide to read side by side (`\x`).

use super::value::{Cells, column_names, width};
use super::{RenderError, Renderer};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::fmt::Write as _;
use std::io::Write;

/// Dashes in the line between two records, when the column names do not ask for more.
const RULE_WIDTH: usize = 32;

pub(crate) struct ExpandedRenderer {
    /// Column names padded to one width.
    labels: Vec<String>,
    rows: u64,
}

impl ExpandedRenderer {
    pub(crate) fn new(schema: &SchemaRef) -> ExpandedRenderer {
        let names: Vec<String> = column_names(schema).iter().map(|name| name.replace('\n', "\\n")).collect();
        let widest = names.iter().map(|name| width(name)).max().unwrap_or(0);
        let labels = names.into_iter().map(|name| {
            let padding = " ".repeat(widest - width(&name));
            name + &padding
        });
        ExpandedRenderer { labels: labels.collect(), rows: 0 }
    }
}

impl Renderer for ExpandedRenderer {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), RenderError> {
        let cells = Cells::of(batch)?;
        let mut lines = String::new();
        for row in 0..batch.num_rows() {
            self.rows += 1;
            let title = format!("-[ RECORD {} ]", self.rows);
            writeln!(lines, "{title:-<RULE_WIDTH$}").expect("writing to a String cannot fail");
            for (column, label) in self.labels.iter().enumerate() {
                let text = cells.readable(row, column)?;
                let mut label = label.clone();
                for line in text.split('\n') {
                    lines.extend([format!("{label} | {line}").trim_end_matches(' '), "\n"]);
                    // Only the first line of a value carries the name.
                    label = " ".repeat(width(&label));
                }
            }
        }
        out.write_all(lines.as_bytes())?;
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        let rows = self.rows;
        writeln!(out, "({rows} row{})", if rows == 1 { "" } else { "s" })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::{render, sample, text};

    #[test]
    fn each_row_is_a_block_of_named_values() {
        assert_eq!(
            render(Format::Expanded, &[sample().slice(0, 1)]),
            "-[ RECORD 1 ]-------------------\n\
             id    | 1\n\
             name  | Ada\n\
             price | 123.45\n\
             paid  | true\n\
             day   | 1970-01-01\n\
             at    | 1970-01-01T00:00:00\n\
             (1 row)\n"
        );
    }

    #[test]
    fn records_are_numbered_across_batches_and_lines_stay_in_their_column() {
        let batch = text("note", &["two\nlines"]);
        assert_eq!(
            render(Format::Expanded, &[batch.clone(), batch]),
            "-[ RECORD 1 ]-------------------\nnote | two\n     | lines\n\
             -[ RECORD 2 ]-------------------\nnote | two\n     | lines\n(2 rows)\n"
        );
    }
}
