//! CSV as PostgreSQL reads and writes it.
//!
//! A tokenizer of our own, because NULL and the empty text differ only in their quotes (`a,,b` and `a,"",b`), which
//! readers at hand do not report. A record may span lines inside quotes. Values are collected as text by column and cast
//! a batch at a time; only when a cast fails is the offending row looked for.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{CsvFormat, Decoded, Header, file_error, malformed};
use crate::error::sqlstate;
use crate::functions::input::{read_texts, reads};
use crate::sql::nul;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// What some programs begin UTF-8 files with.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A record longer than this is a quote that never closes.
const MAX_RECORD_BYTES: usize = 256 * 1024 * 1024;

/// Reads batches of typed columns.
pub(super) struct CsvReader<R> {
    input: R,
    path: Arc<Path>,
    format: CsvFormat,
    schema: SchemaRef,
    /// The number of the line to be read next, from 1.
    line: u64,
    record: Vec<u8>,
}

impl<R: BufRead> CsvReader<R> {
    /// `fields` are the columns in the file's order.
    pub(super) fn new(input: R, path: Arc<Path>, format: CsvFormat, fields: Vec<Field>) -> Result<Self> {
        let schema = Arc::new(Schema::new(fields));
        let mut reader = CsvReader { input, path, format, schema, line: 1, record: Vec::new() };
        if reader.format.header != Header::None {
            reader.read_header()?;
        }
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<()> {
        let mut names = Vec::new();
        let found = self.read_record(|_, field| names.push(field.unwrap_or_default().to_owned()))?;
        if found.is_none() {
            return Err(malformed(&self.path, None, "the file is empty, but should have a header"));
        }
        let expected: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        if self.format.header == Header::Match && names != expected {
            let message = format!("the header is \"{}\", not \"{}\"", names.join(","), expected.join(","));
            return Err(malformed(&self.path, Some(1), message));
        }
        Ok(())
    }

    /// The next batch, or `None` at the end of the file.
    pub(super) fn next_batch(&mut self) -> Result<Option<Decoded>> {
        let at_start = self.line == 1;
        let mut first = Vec::new();
        self.decode(&mut first).map_err(|error| {
            let fields = self.schema.fields();
            let same = |(name, field): (&String, &Arc<Field>)| name.trim().eq_ignore_ascii_case(field.name());
            let is_header = first.len() == fields.len() && first.iter().zip(fields).all(same);
            match at_start && is_header {
                true => error.with_hint("The first line holds the columns' names: add WITH (HEADER true)."),
                false => error,
            }
        })
    }

    /// Reads a batch, and the fields of its first record into `first`.
    fn decode(&mut self, first: &mut Vec<String>) -> Result<Option<Decoded>> {
        let columns = self.schema.fields().len();
        let mut builders: Vec<StringBuilder> = (0..columns).map(|_| StringBuilder::new()).collect();
        let mut lines = Vec::new();
        while lines.len() < BATCH_ROWS {
            let mut found = 0;
            let is_first = lines.is_empty();
            let line = self.read_record(|index, field| {
                if is_first {
                    first.push(field.unwrap_or_default().to_owned());
                }
                if let Some(builder) = builders.get_mut(index) {
                    builder.append_option(field);
                }
                found = index + 1;
            })?;
            let Some(line) = line else { break };
            if found != columns {
                let few = if found < columns { "only " } else { "" };
                return Err(malformed(
                    &self.path,
                    Some(line),
                    format!("the record has {few}{found} fields instead of {columns}"),
                ));
            }
            lines.push(line);
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let mut arrays = Vec::with_capacity(columns);
        for (mut builder, field) in builders.into_iter().zip(self.schema.fields()) {
            arrays.push(parse_column(&builder.finish(), field, &lines, &self.path)?);
        }
        Ok(Some(Decoded { batch: RecordBatch::try_new(Arc::clone(&self.schema), arrays)?, lines }))
    }

    /// Reads one record and calls `field` with each of its fields' index and text. Returns its first line.
    fn read_record(&mut self, mut field: impl FnMut(usize, Option<&str>)) -> Result<Option<u64>> {
        let first_line = self.line;
        let CsvFormat { delimiter, quote, escape, .. } = self.format;
        self.record.clear();
        // A line break inside quotes does not end the record. Whether one is open follows from the bytes so far.
        let (mut open, mut scanned) = (false, 0);
        loop {
            let read = self
                .input
                .read_until(b'\n', &mut self.record)
                .map_err(|error| Error::io(format!("cannot read {}", self.path.display()), &error))?;
            if read == 0 {
                break;
            }
            self.line += 1;
            while scanned < self.record.len() {
                let byte = self.record[scanned];
                if open && byte == escape && escape != quote && scanned + 1 < self.record.len() {
                    scanned += 1;
                } else if byte == quote {
                    // A doubled quote closes and opens again: the same in the end.
                    open = !open;
                }
                scanned += 1;
            }
            if !open {
                break;
            }
            if self.record.len() > MAX_RECORD_BYTES {
                return Err(malformed(&self.path, Some(first_line), "a quoted field does not end"));
            }
        }
        if self.record.is_empty() {
            return Ok(None);
        }
        if open {
            return Err(malformed(&self.path, Some(first_line), "a quoted field does not end"));
        }
        let mut record = self.record.as_slice();
        record = record.strip_suffix(b"\n").unwrap_or(record);
        record = record.strip_suffix(b"\r").unwrap_or(record);
        if first_line == 1
            && let Some(rest) = record.strip_prefix(BYTE_ORDER_MARK)
        {
            if rest.is_empty() {
                // Nothing but the mark is an empty file.
                return Ok(None);
            }
            record = rest;
        }
        let text = std::str::from_utf8(record)
            .map_err(|_| malformed(&self.path, Some(first_line), "the record is not UTF-8 text"))?;
        if record.contains(&0) {
            let error = Error::new(sqlstate::INVALID_CHARACTER, nul::INVALID);
            return Err(file_error(&self.path, Some(first_line), error));
        }
        split_fields(text, delimiter, quote, escape, &self.format.null, &mut field);
        Ok(Some(first_line))
    }
}

/// Takes a record apart. Delimiter, quote and escape are ASCII, so that cutting at them keeps UTF-8 whole.
fn split_fields(
    record: &str,
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: &str,
    field: &mut impl FnMut(usize, Option<&str>),
) {
    let bytes = record.as_bytes();
    let (mut index, mut start) = (0, 0);
    let mut unescaped = Vec::new();
    loop {
        let rest = &bytes[start..];
        let plain_end = rest.iter().position(|byte| *byte == delimiter || *byte == quote).unwrap_or(rest.len());
        if rest.get(plain_end) != Some(&quote) {
            // No quotes in this field: the text as it stands.
            let value = &record[start..start + plain_end];
            field(index, (value != null).then_some(value));
            start += plain_end;
        } else {
            unescaped.clear();
            unescaped.extend_from_slice(&rest[..plain_end]);
            let (mut position, mut quoted) = (start + plain_end, false);
            while let Some(&byte) = bytes.get(position) {
                match quoted {
                    true if byte == escape
                        && bytes.get(position + 1).is_some_and(|next| *next == quote || *next == escape) =>
                    {
                        position += 1;
                        unescaped.push(bytes[position]);
                    }
                    true if byte == quote => quoted = false,
                    false if byte == quote => quoted = true,
                    false if byte == delimiter => break,
                    _ => unescaped.push(byte),
                }
                position += 1;
            }
            field(index, Some(std::str::from_utf8(&unescaped).unwrap_or_default()));
            start = position;
        }
        if start >= bytes.len() {
            return;
        }
        // Past the delimiter; a record that ends with one has a last empty field.
        start += 1;
        index += 1;
    }
}

/// Turns a column of text into values of the field's type.
pub(super) fn parse_column(texts: &StringArray, field: &Field, lines: &[u64], path: &Path) -> Result<ArrayRef> {
    let invalid = |row: usize, reason: Option<Error>| {
        let value = texts.value(row);
        let shown: String = value.chars().take(60).collect();
        let message =
            format!("column \"{}\": invalid input for type {}: \"{shown}\"", field.name(), name_of(field.data_type()));
        let code = reason.map_or(sqlstate::INVALID_TEXT, |reason| reason.sqlstate());
        file_error(path, lines.get(row).copied(), Error::new(code, message))
    };
    if *field.data_type() == DataType::BinaryView {
        let mut builder = BinaryViewBuilder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            match text.map(decode_bytes) {
                None => builder.append_null(),
                Some(Some(bytes)) => builder.append_value(bytes),
                Some(None) => return Err(invalid(row, None)),
            }
        }
        return Ok(Arc::new(builder.finish()));
    }
    if reads(field.data_type()) {
        let column: ArrayRef = Arc::new(texts.clone());
        let failing = |error: Error| {
            let fails = |row: usize| Some((row, read_texts(&column.slice(row, 1), field.data_type()).err()?));
            match (0..column.len()).find_map(fails) {
                Some((row, reason)) => invalid(row, Some(reason)),
                None => error,
            }
        };
        return read_texts(&column, field.data_type()).map_err(failing);
    }
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let mut values = cast_with_options(texts, field.data_type(), &lenient)?;
    if values.null_count() != texts.null_count() {
        // Spaces around a number are none of it, and rare.
        let trimmed: StringArray = texts.iter().map(|text| text.map(str::trim_ascii)).collect();
        values = cast_with_options(&trimmed, field.data_type(), &lenient)?;
    }
    if values.null_count() != texts.null_count()
        && let Some(row) = (0..texts.len()).find(|row| values.is_null(*row) && texts.is_valid(*row))
    {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let reason = cast_with_options(&texts.slice(row, 1), field.data_type(), &strict).err().map(Error::from);
        return Err(invalid(row, reason));
    }
    Ok(values)
}

/// `\x` and pairs of hexadecimal digits, PostgreSQL's output form of bytea.
fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// Only of times there are values that have no text.
fn not_in_the_calendar(error: ArrowError) -> Error {
    Error::new(sqlstate::DATETIME_OVERFLOW, format!("date or time out of range: {error}"))
}

/// The printed form of a column of bytes; any other column as it is.
pub(super) fn printable(column: &ArrayRef) -> Result<ArrayRef> {
    use std::fmt::Write;
    if !matches!(
        column.data_type(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    ) {
        return Ok(Arc::clone(column));
    }
    let bytes = cast_with_options(column, &DataType::Binary, &CastOptions::default())?;
    let mut builder = StringBuilder::new();
    for value in bytes.as_binary::<i32>() {
        match value {
            None => builder.append_null(),
            Some(value) => {
                let printed = value
                    .iter()
                    .try_fold(String::from("\\x"), |mut text, byte| write!(text, "{byte:02x}").map(|()| text));
                builder.append_value(printed.map_err(|_| Error::internal("bytes cannot be printed"))?);
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// Writes batches.
pub(super) struct CsvWriter<W> {
    output: W,
    format: CsvFormat,
    line: Vec<u8>,
}

impl<W: Write> CsvWriter<W> {
    pub(super) fn new(output: W, format: CsvFormat, schema: &Schema) -> std::io::Result<Self> {
        let mut writer = CsvWriter { output, format, line: Vec::new() };
        if writer.format.header != Header::None {
            for (index, field) in schema.fields().iter().enumerate() {
                writer.push(index, Some(field.name()));
            }
            writer.end_line()?;
        }
        Ok(writer)
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<std::io::Result<()>> {
        let options = FormatOptions::default();
        let columns = batch.columns().iter().map(printable).collect::<Result<Vec<_>>>()?;
        let formatters =
            columns.iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for (index, (column, formatter)) in columns.iter().zip(&formatters).enumerate() {
                text.clear();
                let value = match column.is_null(row) {
                    true => None,
                    false => {
                        // Not `Display`: that one writes the error in the value's place.
                        formatter.value(row).write(&mut text).map_err(not_in_the_calendar)?;
                        Some(text.as_str())
                    }
                };
                self.push(index, value);
            }
            if let Err(error) = self.end_line() {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    pub(super) fn finish(mut self) -> std::io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }

    fn push(&mut self, index: usize, value: Option<&str>) {
        let CsvFormat { delimiter, quote, escape, ref null, .. } = self.format;
        if index > 0 {
            self.line.push(delimiter);
        }
        let Some(value) = value else { return self.line.extend_from_slice(null.as_bytes()) };
        let special = |byte: u8| byte == delimiter || byte == quote || byte == escape || byte == b'\n' || byte == b'\r';
        if value != null && !value.bytes().any(special) {
            return self.line.extend_from_slice(value.as_bytes());
        }
        self.line.push(quote);
        for byte in value.bytes() {
            if byte == quote || byte == escape {
                self.line.push(escape);
            }
            self.line.push(byte);
        }
        self.line.push(quote);
    }

    fn end_line(&mut self) -> std::io::Result<()> {
        self.line.push(b'\n');
        self.output.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> CsvFormat {
        CsvFormat { header: Header::None, delimiter: b',', quote: b'"', escape: b'"', null: String::new() }
    }

    fn fields(record: &str) -> Vec<Option<String>> {
        let mut fields = Vec::new();
        split_fields(record, b',', b'"', b'"', "", &mut |_, field| fields.push(field.map(str::to_owned)));
        fields
    }

    fn read(text: &str, types: &[DataType]) -> Result<Option<RecordBatch>> {
        let columns =
            types.iter().enumerate().map(|(index, data_type)| Field::new(format!("c{index}"), data_type.clone(), true));
        CsvReader::new(text.as_bytes(), Path::new("t.csv").into(), format(), columns.collect())?
            .next_batch()
            .map(|decoded| decoded.map(|decoded| decoded.batch))
    }

    #[test]
    fn null_and_empty_text_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(fields(r#"a,,"""#), [some("a"), None, some("")]);
        assert_eq!(fields(r#""a ""quoted"", b",c,"#), [some(r#"a "quoted", b"#), some("c"), None]);
    }

    #[test]
    fn a_record_may_span_lines_and_errors_name_the_first() {
        let batch = read("1,\"two\nlines\"\n2,x\n", &[DataType::Int32, DataType::Utf8View]).unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.column(1).as_string_view().value(0)), (2, "two\nlines"));
        let error = read("1,\"two\nlines\"\nnope,x\n", &[DataType::Int32, DataType::Utf8View]).unwrap_err();
        assert_eq!(error.message(), "t.csv, line 3: column \"c0\": invalid input for type integer: \"nope\"");
        assert_eq!(error.sqlstate(), "22P02");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_field() {
        let batch = read("\u{feff}1,a\n2,\u{feff}\n", &[DataType::Int32, DataType::Utf8View]).unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.column(1).as_string_view().value(1)), (2, "\u{feff}"));
        assert!(read("\u{feff}", &[DataType::Utf8View]).unwrap().is_none());
        let fields = vec![Field::new("id", DataType::Int32, true)];
        let format = CsvFormat { header: Header::Match, ..format() };
        let mut reader =
            CsvReader::new("\u{feff}\"id\"\n7\n".as_bytes(), Path::new("t.csv").into(), format, fields).unwrap();
        assert_eq!(reader.next_batch().unwrap().unwrap().lines, [2]);
    }

    #[test]
    fn a_header_that_was_not_announced_is_recognised() {
        let hint =
            |text: &str| read(text, &[DataType::Int32, DataType::Utf8View]).unwrap_err().hint().map(str::to_owned);
        assert!(hint("c0,C1\n1,a\n").is_some_and(|hint| hint.contains("HEADER true")));
        assert_eq!(hint("c0,c2\n1,a\n"), None);
        assert_eq!(hint("1,a\nc0,c1\n"), None);
    }

    #[test]
    fn records_of_the_wrong_length_and_open_quotes_are_malformed() {
        let types = [DataType::Int32, DataType::Int32];
        assert_eq!(
            read("1,2\n1,2,3\n", &types).unwrap_err().message(),
            "t.csv, line 2: the record has 3 fields instead of 2"
        );
        assert_eq!(read("1,\"2\n", &types).unwrap_err().sqlstate(), "22P04");
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let batch =
            read("1,\"\",\\x00ff\n,\"a,\"\"b\",\n", &[DataType::Int32, DataType::Utf8View, DataType::BinaryView])
                .unwrap()
                .unwrap();
        let mut writer = CsvWriter::new(Vec::new(), format(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap().unwrap();
        assert_eq!(String::from_utf8(writer.finish().unwrap()).unwrap(), "1,\"\",\\x00ff\n,\"a,\"\"b\",\n");
    }
}
