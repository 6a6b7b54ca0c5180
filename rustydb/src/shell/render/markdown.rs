//! A GitHub-flavoured Markdown table. Rows stream: Markdown needs no aligned source to render aligned.

use super::value::{Cells, column_names, is_numeric};
use super::{RenderError, Renderer};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

pub(crate) struct MarkdownRenderer {
    /// The header and the rule below it, until they are written.
    header: Option<String>,
}

impl MarkdownRenderer {
    pub(crate) fn new(schema: &SchemaRef) -> MarkdownRenderer {
        let names: Vec<String> = column_names(schema).iter().map(|name| escape(name)).collect();
        let rules: Vec<&str> =
            schema.fields().iter().map(|field| if is_numeric(field.data_type()) { "---:" } else { "---" }).collect();
        MarkdownRenderer { header: Some(format!("| {} |\n| {} |\n", names.join(" | "), rules.join(" | "))) }
    }
}

impl Renderer for MarkdownRenderer {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), RenderError> {
        let mut lines = self.header.take().unwrap_or_default();
        let cells = Cells::of(batch)?;
        for row in 0..batch.num_rows() {
            lines.push('|');
            for column in 0..batch.num_columns() {
                lines.extend([" ", &escape(&cells.readable(row, column)?), " |"]);
            }
            lines.push('\n');
        }
        out.write_all(lines.as_bytes())?;
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        // The empty line ends the table: what follows it must not be read as one more row.
        writeln!(out, "{}", self.header.take().unwrap_or_default())?;
        Ok(())
    }
}

/// A cell cannot hold a bar or a line break; Markdown's escape and HTML's element stand in for them.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::{render, sample, text};

    #[test]
    fn numbers_are_aligned_right_by_the_rule() {
        assert_eq!(
            render(Format::Markdown, &[sample()]),
            "| id | name | price | paid | day | at |\n\
             | ---: | --- | ---: | --- | --- | --- |\n\
             | 1 | Ada | 123.45 | true | 1970-01-01 | 1970-01-01T00:00:00 |\n\
             | 20 |  | -0.05 | false | 2022-01-08 | 1970-01-01T00:00:01.500 |\n\
             | NULL | NULL | NULL | NULL | NULL | NULL |\n\n"
        );
    }

    #[test]
    fn a_value_cannot_break_out_of_its_cell() {
        assert_eq!(
            render(Format::Markdown, &[text("a|b", &["x|y", "two\nlines", "back\\slash"])]),
            "| a\\|b |\n| --- |\n| x\\|y |\n| two<br>lines |\n| back\\\\slash |\n\n"
        );
    }
}
