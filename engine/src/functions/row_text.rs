//! Rows as text, in PostgreSQL's words, which RAISE shows a record in; Arrow has no cast for them.
//!
//! | row | text |
//! |---|---|
//! | `ROW(1, NULL, true)` | `(1,,t)` |
//! | `ROW('a b', '')` | `("a b","")` |
//! | `ROW('"', '\')` | `("""","\\")` |
//! | `ROW(1, ROW(2, 3))` | `(1,"(2,3)")` |

use arrow::array::{Array, AsArray, StringViewArray, StringViewBuilder, StructArray};
use arrow::datatypes::DataType;

use super::array_text::output_texts;
use crate::Result;

/// Whether a value has a text, its elements and fields included.
pub(crate) fn has_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => has_text(element.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| has_text(field.data_type())),
        other => !other.is_nested(),
    }
}

/// The texts of rows whose type [has one](has_text); times by the clock of a zone.
pub(super) fn print_rows(rows: &StructArray, zone: &str) -> Result<StringViewArray> {
    let columns = rows.columns().iter().map(|column| output_texts(column, zone)).collect::<Result<Vec<_>>>()?;
    let mut texts = StringViewBuilder::with_capacity(rows.len());
    let mut text = String::new();
    for row in 0..rows.len() {
        if rows.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        text.push('(');
        for (place, column) in columns.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            let column = column.as_string_view();
            if column.is_valid(row) {
                write_field(&mut text, column.value(row));
            }
        }
        text.push(')');
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// Writes a field, in quotes where it would be read as something else: what is not there is NULL.
fn write_field(text: &mut String, field: &str) {
    let special =
        |letter: char| matches!(letter, '"' | '\\' | '(' | ')' | ',' | ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    if !field.is_empty() && !field.contains(special) {
        return text.push_str(field);
    }
    text.push('"');
    for letter in field.chars() {
        if matches!(letter, '"' | '\\') {
            text.push(letter);
        }
        text.push(letter);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int32Array, StringArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Field, Fields};

    use super::*;

    fn rows(columns: Vec<ArrayRef>, nulls: Option<NullBuffer>) -> StructArray {
        let field = |column: &ArrayRef| Field::new("c", column.data_type().clone(), true);
        let fields: Fields = columns.iter().map(field).collect();
        StructArray::new(fields, columns, nulls)
    }

    #[test]
    fn fields_are_quoted_where_they_must() {
        let words: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None, Some("a b"), Some("x\"y\\"), Some("hidden")]));
        let truths: ArrayRef =
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None, Some(true), Some(true)]));
        let nulls = NullBuffer::from(vec![true, true, true, true, true, false]);
        let texts = print_rows(&rows(vec![words, truths], Some(nulls)), "UTC").unwrap();
        let expected =
            [Some("(a,t)"), Some("(\"\",f)"), Some("(,)"), Some("(\"a b\",)"), Some(r#"("x""y\\",t)"#), None];
        assert_eq!(texts.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rows_in_rows_are_fields_like_others() {
        let numbers = || -> ArrayRef { Arc::new(Int32Array::from(vec![Some(1), None])) };
        let inner: ArrayRef = Arc::new(rows(vec![numbers(), numbers()], None));
        let outer = rows(vec![numbers(), inner], None);
        assert!(has_text(outer.data_type()));
        let texts = print_rows(&outer, "UTC").unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("(1,\"(1,1)\")"), Some("(,\"(,)\")")]);
    }
}
