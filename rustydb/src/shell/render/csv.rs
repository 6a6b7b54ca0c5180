//! Comma-separated values: RFC 4180, except that lines end in a single line feed, as every Unix tool expects.
//!
//! NULL is an empty field and an empty string is `""`, the convention of PostgreSQL's COPY, so that the two can be
//! told apart by `COPY … FROM` and by any reader that cares.

use super::value::Cells;
use super::{RenderError, Renderer};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

pub(crate) struct CsvRenderer {
    /// The header line, until it is written.
    header: Option<String>,
}

impl CsvRenderer {
    pub(crate) fn new(schema: &SchemaRef) -> CsvRenderer {
        let mut header = String::new();
        for (column, field) in schema.fields().iter().enumerate() {
            if column > 0 {
                header.push(',');
            }
            push_field(field.name(), &mut header);
        }
        header.push('\n');
        CsvRenderer { header: Some(header) }
    }
}

impl Renderer for CsvRenderer {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), RenderError> {
        let mut lines = self.header.take().unwrap_or_default();
        let cells = Cells::of(batch)?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for column in 0..batch.num_columns() {
                if column > 0 {
                    lines.push(',');
                }
                text.clear();
                if cells.append(row, column, &mut text)? {
                    push_field(&text, &mut lines);
                }
            }
            lines.push('\n');
        }
        out.write_all(lines.as_bytes())?;
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        out.write_all(self.header.take().unwrap_or_default().as_bytes())?;
        Ok(())
    }
}

fn push_field(text: &str, line: &mut String) {
    let needs_quotes = text.is_empty() || text.contains([',', '"', '\n', '\r']);
    if !needs_quotes {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        if c == '"' {
            line.push('"');
        }
        line.push(c);
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::{render, sample, text};

    #[test]
    fn null_and_the_empty_string_differ() {
        assert_eq!(
            render(Format::Csv, &[sample()]),
            "id,name,price,paid,day,at\n\
             1,Ada,123.45,true,1970-01-01,1970-01-01T00:00:00\n\
             20,\"\",-0.05,false,2022-01-08,1970-01-01T00:00:01.500\n\
             ,,,,,\n"
        );
    }

    #[test]
    fn separators_quotes_and_line_breaks_are_quoted() {
        assert_eq!(
            render(Format::Csv, &[text("a,b", &["1,2", "say \"hi\"", "two\nlines", "plain"])]),
            "\"a,b\"\n\"1,2\"\n\"say \"\"hi\"\"\"\n\"two\nlines\"\nplain\n"
        );
    }

    #[test]
    fn the_header_appears_once_even_without_rows() {
        let batch = text("a", &["x"]);
        assert_eq!(render(Format::Csv, &[batch.clone(), batch.clone()]), "a\nx\nx\n");
        assert_eq!(render(Format::Csv, &[batch.slice(0, 0)]), "a\n");
    }
}
