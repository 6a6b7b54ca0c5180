//! JSON files with one object per line.
//!
//! Arrow's decoder does the work, a thousand lines at a time. It does not say where a mistake is, so the lines of a failed
//! piece are tried one by one to name the first bad one.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;

use super::csv::{BYTE_ORDER_MARK, parse_column};
use super::{Decoded, file_error, malformed};
use crate::sql::nul;
use crate::{Error, Result};

/// Lines decoded together: enough to forget the overhead, few enough to search for a mistake.
const LINES: usize = 1024;

/// Reads batches of typed columns.
pub(super) struct JsonReader<R> {
    input: R,
    path: Arc<Path>,
    /// What the file's values become.
    schema: SchemaRef,
    /// What the decoder reads them as.
    decoded: SchemaRef,
    line: u64,
}

impl<R: BufRead> JsonReader<R> {
    pub(super) fn new(input: R, path: Arc<Path>, fields: Vec<Field>) -> Self {
        let as_text = |field: &Field| match field.data_type() {
            DataType::Utf8View | DataType::BinaryView | DataType::Interval(_) => {
                Field::new(field.name(), DataType::Utf8, true)
            }
            other => Field::new(field.name(), other.clone(), true),
        };
        let decoded = Arc::new(Schema::new(fields.iter().map(as_text).collect::<Vec<_>>()));
        JsonReader { input, path, schema: Arc::new(Schema::new(fields)), decoded, line: 0 }
    }

    pub(super) fn next_batch(&mut self) -> Result<Option<Decoded>> {
        // Each line with its number; blank lines are none.
        let mut lines: Vec<(u64, Vec<u8>)> = Vec::with_capacity(LINES);
        while lines.len() < LINES {
            let mut line = Vec::new();
            let read = self
                .input
                .read_until(b'\n', &mut line)
                .map_err(|error| Error::io(format!("cannot read {}", self.path.display()), &error))?;
            if read == 0 {
                break;
            }
            self.line += 1;
            if self.line == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            if !line.trim_ascii().is_empty() {
                lines.push((self.line, line));
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let batch = match self.decode(&lines) {
            Ok(batch) => batch,
            Err(error) => return Err(self.locate(&lines, error)),
        };
        let numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
        let columns = self
            .schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| self.convert(field, column, &numbers));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Some(Decoded { batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?, lines: numbers }))
    }

    fn convert(&self, field: &Field, column: &ArrayRef, lines: &[u64]) -> Result<ArrayRef> {
        // An escape says the character, so it cannot be looked for in the line.
        if let Err(error) = nul::check_column(field.name(), column) {
            let has_it = |row: &usize| nul::check_column(field.name(), &column.slice(*row, 1)).is_err();
            let line = (0..column.len()).find(has_it).and_then(|row| lines.get(row).copied());
            return Err(file_error(&self.path, line, error));
        }
        match (field.data_type(), column.data_type()) {
            (wanted, found) if wanted == found => Ok(Arc::clone(column)),
            (DataType::Utf8View, _) => Ok(cast_with_options(column, &DataType::Utf8View, &CastOptions::default())?),
            _ => parse_column(column.as_string::<i32>(), field, lines, &self.path),
        }
    }

    fn decoder(&self) -> Result<Decoder> {
        // Strict: a name that is no column is a mistake, not something to drop.
        Ok(ReaderBuilder::new(Arc::clone(&self.decoded))
            .with_strict_mode(true)
            .with_batch_size(LINES)
            .build_decoder()?)
    }

    fn decode(&self, lines: &[(u64, Vec<u8>)]) -> Result<RecordBatch> {
        let mut decoder = self.decoder()?;
        for (_, line) in lines {
            // A line must hold exactly one object; a decoder is content with objects that span lines.
            if decoder.decode(line)? < line.len() || decoder.has_partial_record() {
                return Err(malformed(&self.path, None, "not one object per line"));
            }
        }
        match decoder.flush()? {
            Some(batch) if batch.num_rows() == lines.len() => Ok(batch),
            _ => Err(malformed(&self.path, None, "not one object per line")),
        }
    }

    /// The error of the first line that fails on its own.
    fn locate(&self, lines: &[(u64, Vec<u8>)], error: Error) -> Error {
        for line in lines {
            if let Err(error) = self.decode(std::slice::from_ref(line)) {
                let shown = error.message().strip_prefix(&format!("{}: ", self.path.display())).map(str::to_owned);
                let shown = shown.unwrap_or_else(|| error.message().to_owned());
                return malformed(&self.path, Some(line.0), shown);
            }
        }
        file_error(&self.path, None, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<RecordBatch>> {
        let fields = vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8View, true)];
        let decoded = JsonReader::new(text.as_bytes(), Path::new("t.json").into(), fields).next_batch()?;
        Ok(decoded.map(|decoded| decoded.batch))
    }

    #[test]
    fn objects_are_matched_by_name_and_blank_lines_skipped() {
        let batch = read("\u{feff}{\"b\": \"x\", \"a\": 1}\n\n{\"a\": null}\n").unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.column(0).null_count(), batch.column(1).null_count()), (2, 1, 1));
    }

    #[test]
    fn mistakes_are_found_by_line() {
        for (text, line) in [
            ("{\"a\": 1}\n{\"a\": \"one\"}\n", 2),
            ("{\"a\": 1}\n\n{\"a\": 1\n", 3),
            ("{\"a\": 1}\n{\"a\": 2} {\"a\": 3}\n", 2),
            ("[1, 2]\n", 1),
            ("{\"a\": 1, \"c\": 2}\n", 1),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.sqlstate(), "22P04", "{text}");
            assert!(error.message().starts_with(&format!("t.json, line {line}: ")), "{text}: {error}");
        }
    }
}
