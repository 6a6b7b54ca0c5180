//! The character NUL, which no text has, as in PostgreSQL: files and libraries of C take it for a text's end.
//!
//! | a text comes as | NUL in it |
//! |---|---|
//! | part of a statement | 42601, also if an escape of `E'…'` or `U&'…'` says it |
//! | parameter, row of an ingest, field of a file | 22021, found here |
//! | `chr(0)` | 54000 |
//! | bytes in `convert_from` | 22021 |
//!
//! So no expression can make one, and nothing has to be looked through that is in the database already.

use arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait, RecordBatch, RunArray,
};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type};

use crate::error::sqlstate;
use crate::{Error, Result, Value};

/// PostgreSQL's words for it.
pub(crate) const INVALID: &str = "invalid byte sequence for encoding \"UTF8\": 0x00";

/// Fails with 22021 if a text in the rows for a table has one.
pub(crate) fn check_rows(rows: &RecordBatch) -> Result<()> {
    match rows.columns().iter().position(|column| is_in(column)) {
        Some(place) => Err(refused(&format!("column \"{}\"", rows.schema_ref().field(place).name()))),
        None => Ok(()),
    }
}

/// The same for the texts of one column, which were bytes.
pub(crate) fn check_column(name: &str, texts: &dyn Array) -> Result<()> {
    if is_in(texts) { Err(refused(&format!("column \"{name}\""))) } else { Ok(()) }
}

/// The same for the values of parameters.
pub(crate) fn check_parameters(values: &[Value]) -> Result<()> {
    match values.iter().position(is_in_value) {
        Some(place) => Err(refused(&format!("parameter ${}", place + 1))),
        None => Ok(()),
    }
}

/// The same for rows of parameters.
pub(crate) fn check_parameter_rows(rows: &RecordBatch) -> Result<()> {
    match rows.columns().iter().position(|column| is_in(column)) {
        Some(place) => Err(refused(&format!("parameter ${}", place + 1))),
        None => Ok(()),
    }
}

fn refused(place: &str) -> Error {
    Error::new(sqlstate::INVALID_CHARACTER, format!("{place}: {INVALID}"))
        .with_hint("No text has the character NUL; bytes may be kept in a column of type bytea.")
}

/// Whether a text among the values has one; what lies under a NULL, or around a slice, is none of them.
fn is_in(column: &dyn Array) -> bool {
    match column.data_type() {
        DataType::Utf8 => is_in_texts(column.as_string::<i32>()),
        DataType::LargeUtf8 => is_in_texts(column.as_string::<i64>()),
        DataType::Utf8View => column.as_string_view().iter().flatten().any(is_in_text),
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            is_in(lists.values()) && lists.iter().flatten().any(|list| is_in(&list))
        }
        DataType::LargeList(_) => {
            let lists = column.as_list::<i64>();
            is_in(lists.values()) && lists.iter().flatten().any(|list| is_in(&list))
        }
        DataType::FixedSizeList(_, _) => {
            let lists = column.as_fixed_size_list();
            is_in(lists.values()) && lists.iter().flatten().any(|list| is_in(&list))
        }
        DataType::Dictionary(_, _) => column.as_any_dictionary_opt().is_some_and(is_in_words),
        DataType::RunEndEncoded(_, _) => runs_of(column).is_some_and(|runs| is_in(&runs)),
        _ => false,
    }
}

/// Whether one is in a word that a dictionary's rows have. They are not unpacked: a word may be long, and be in many rows.
fn is_in_words(dictionary: &dyn AnyDictionaryArray) -> bool {
    let words = dictionary.values();
    if !is_in(words) {
        return false;
    }
    let has_it: Vec<bool> = (0..words.len()).map(|word| is_in(&words.slice(word, 1))).collect();
    let rows = dictionary.normalized_keys().into_iter().enumerate();
    rows.filter(|(row, _)| dictionary.keys().is_valid(*row)).any(|(_, word)| has_it[word])
}

/// The values that the rows of runs have.
fn runs_of(column: &dyn Array) -> Option<ArrayRef> {
    let short = column.as_run_opt::<Int16Type>().map(RunArray::values_slice);
    let usual = || column.as_run_opt::<Int32Type>().map(RunArray::values_slice);
    short.or_else(usual).or_else(|| column.as_run_opt::<Int64Type>().map(RunArray::values_slice))
}

fn is_in_texts<O: OffsetSizeTrait>(texts: &GenericStringArray<O>) -> bool {
    let offsets = texts.value_offsets();
    let (start, end) = match (offsets.first(), offsets.last()) {
        (Some(start), Some(end)) => (start.as_usize(), end.as_usize()),
        _ => return false,
    };
    // One search through all bytes takes a fraction of one for each text.
    texts.value_data()[start..end].contains(&0) && texts.iter().flatten().any(is_in_text)
}

fn is_in_text(text: &str) -> bool {
    text.as_bytes().contains(&0)
}

fn is_in_value(value: &Value) -> bool {
    match value {
        Value::Utf8(Some(text)) | Value::LargeUtf8(Some(text)) | Value::Utf8View(Some(text)) => is_in_text(text),
        Value::Dictionary(_, value) | Value::RunEndEncoded(_, _, value) => is_in_value(value),
        Value::List(list) => is_in(list.as_ref()),
        Value::LargeList(list) => is_in(list.as_ref()),
        Value::FixedSizeList(list) => is_in(list.as_ref()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, Int8Array, Int32Array, LargeStringArray, ListArray, StringArray, StringViewArray,
    };
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn it_is_found_in_texts_of_any_form_and_nowhere_else() {
        let texts = vec![Some("plain"), Some("a\0"), None];
        let plain = StringArray::from(texts.clone());
        assert!(is_in(&plain) && !is_in(&plain.slice(0, 1)) && !is_in(&plain.slice(2, 1)));
        assert!(is_in(&LargeStringArray::from(texts.clone())) && is_in(&StringViewArray::from(texts)));
        assert!(!is_in(&StringViewArray::from(vec!["", "as long as is kept elsewhere"])));

        let hidden = NullBuffer::from(vec![true, false, true]);
        let (offsets, bytes, _) = plain.clone().into_parts();
        assert!(!is_in(&StringArray::new(offsets, bytes, Some(hidden))));

        let words: ArrayRef = Arc::new(plain);
        let dictionary = |key| DictionaryArray::new(Int8Array::from(vec![key]), Arc::clone(&words));
        assert!(is_in(&dictionary(1)) && !is_in(&dictionary(0)));
        let runs = RunArray::try_new(&Int32Array::from(vec![2, 3, 5]), &words).unwrap();
        assert!(is_in(&runs) && is_in(&runs.slice(2, 1)) && !is_in(&runs.slice(0, 2)) && !is_in(&runs.slice(3, 2)));

        let element = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let lists = ListArray::new(element, OffsetBuffer::from_lengths([1, 2]), words, None);
        assert!(is_in(&lists) && !is_in(&lists.slice(0, 1)));
        assert!(!is_in(&Int8Array::from(vec![0])));
    }

    #[test]
    fn a_parameter_with_it_is_named() {
        let error = check_parameters(&[Value::Int64(Some(0)), Value::Utf8(Some("\0".to_owned()))]).unwrap_err();
        assert_eq!(error.sqlstate(), "22021");
        assert!(error.message().starts_with("parameter $2: "), "{}", error.message());
        assert!(check_parameters(&[Value::Binary(Some(vec![0])), Value::Utf8(None)]).is_ok());
    }
}
