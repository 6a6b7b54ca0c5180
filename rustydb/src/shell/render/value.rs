//! The text of single values, shared by the formats people read and by CSV.
//!
//! Exactness is the rule: decimals keep their digits, timestamps are ISO 8601, floating point numbers print the
//! shortest text that reads back as the same number.

use super::RenderError;
use arrow::array::{Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

/// What a NULL looks like to people.
pub(crate) const NULL_TEXT: &str = "NULL";

/// The columns of one batch, ready to be printed cell by cell.
pub(crate) struct Cells<'a> {
    columns: Vec<(Option<NullBuffer>, ArrayFormatter<'a>)>,
}

impl<'a> Cells<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Cells<'a>, RenderError> {
        // The NULL text here is for NULLs inside lists and structs; a NULL cell is each format's own affair.
        let options = FormatOptions::new().with_display_error(false).with_null(NULL_TEXT);
        let columns = batch
            .columns()
            .iter()
            // The logical nulls: a dictionary's or a NullArray's NULLs are not in its own validity mask.
            .map(|array| Ok((array.logical_nulls(), ArrayFormatter::try_new(array.as_ref(), &options)?)))
            .collect::<Result<_, RenderError>>()?;
        Ok(Cells { columns })
    }

    /// Appends the text of one cell; false, and nothing appended, if it is NULL.
    pub(crate) fn append(&self, row: usize, column: usize, text: &mut String) -> Result<bool, RenderError> {
        let (nulls, formatter) = &self.columns[column];
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(false);
        }
        // Not `Display`: that one hides why a value cannot be shown.
        formatter.value(row).write(text)?;
        Ok(true)
    }

    /// The cell as people read it: NULL spelled out, control characters escaped, line breaks kept.
    pub(crate) fn readable(&self, row: usize, column: usize) -> Result<String, RenderError> {
        let mut text = String::new();
        if !self.append(row, column, &mut text)? {
            return Ok(NULL_TEXT.to_owned());
        }
        Ok(escape_controls(text))
    }
}

/// The names of the columns, fit for a terminal.
pub(crate) fn column_names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| escape_controls(field.name().clone())).collect()
}

/// Whether values of the type are aligned to the right.
pub(crate) fn is_numeric(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// Columns of the terminal that the text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Makes stored text harmless to a terminal: all control characters but the line break become escapes, so that a row
/// cannot move the cursor, change colours or hide other rows.
pub(crate) fn escape_controls(text: String) -> String {
    let is_harmful = |c: char| c.is_control() && c != '\n';
    if !text.contains(is_harmful) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            c if is_harmful(c) => {
                write!(escaped, "\\x{:02x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{Cells, escape_controls};
    use arrow::array::{ArrayRef, DictionaryArray, Float64Array, NullArray, RecordBatch};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;

    #[test]
    fn text_from_a_row_cannot_drive_the_terminal() {
        assert_eq!(escape_controls("a\u{1b}[2Jb\tc\r\nd".to_owned()), "a\\x1b[2Jb\\tc\\r\nd");
    }

    #[test]
    fn nulls_that_hide_from_the_validity_mask_are_seen() {
        let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![("n", Arc::new(NullArray::new(2))), ("d", Arc::new(dictionary))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        let cells = Cells::of(&batch).unwrap();
        assert_eq!(cells.readable(0, 0).unwrap(), "NULL");
        assert_eq!(cells.readable(0, 1).unwrap(), "x");
        assert_eq!(cells.readable(1, 1).unwrap(), "NULL");
    }

    #[test]
    fn floats_print_the_shortest_text_that_reads_back() {
        let array: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 1e300, -0.0]));
        let batch = RecordBatch::try_from_iter([("f", array)]).unwrap();
        let cells = Cells::of(&batch).unwrap();
        let texts: Vec<String> = (0..3).map(|row| cells.readable(row, 0).unwrap()).collect();
        assert_eq!(texts, ["0.1", "1e300", "-0.0"]);
    }
}
