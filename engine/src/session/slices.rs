//! Batches in pieces that take little memory as rows of a table, whatever they take as they come.
//!
//! A row of NULLs takes no byte in Arrow, a row of a dictionary one, and each of their values a view or the whole text in
//! a table. A message of a megabyte could stand for a hundred gigabytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};

use crate::Result;
use crate::dml::rows::viewed;

/// So many rows of a batch are converted at once, at most.
const ROWS_MAX: usize = 1 << 17;

/// So many bytes of them, unless one row is more: as many as that many rows of sixteen columns take.
const BYTES_MAX: usize = ROWS_MAX * 16 * VALUE_BYTES;

/// What a value takes in a column, at most: a view, a decimal, an interval.
const VALUE_BYTES: usize = 16;

/// The same batch, the words of its dictionaries and runs as views: of a piece all of them would be made anew, however few it
/// has rows.
pub(super) fn with_views(batch: RecordBatch) -> Result<RecordBatch> {
    let is_packed =
        |column: &ArrayRef| matches!(column.data_type(), DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _));
    if !batch.columns().iter().any(is_packed) {
        return Ok(batch);
    }
    let columns = batch.columns().iter().map(with_viewed_words).collect::<Result<Vec<ArrayRef>>>()?;
    let fields = batch.schema_ref().fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| Field::clone(field).with_data_type(column.data_type().clone()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn with_viewed_words(column: &ArrayRef) -> Result<ArrayRef> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        return Ok(dictionary.with_values(viewed(dictionary.values())?));
    }
    if let Some(runs) = column.as_any_ree_opt() {
        return Ok(runs.with_values(viewed(runs.values())?));
    }
    Ok(Arc::clone(column))
}

/// The pieces of a batch whose rows will have so many columns.
pub(super) fn slices(batch: RecordBatch, columns: usize) -> impl Iterator<Item = RecordBatch> {
    let shared = batch.columns().iter().map(longest_shared).fold(0, usize::saturating_add);
    let row_bytes = columns.saturating_mul(VALUE_BYTES).saturating_add(shared).max(1);
    let step = (BYTES_MAX / row_bytes).clamp(1, ROWS_MAX);
    let rows = batch.num_rows();
    (0..rows).step_by(step).map(move |start| batch.slice(start, step.min(rows - start)))
}

/// How long a value may be that several rows have in common.
fn longest_shared(column: &ArrayRef) -> usize {
    let values = column.as_any_dictionary_opt().map(|dictionary| dictionary.values());
    let values = values.or_else(|| column.as_any_ree_opt().map(|runs| runs.values()));
    values.map_or(0, longest)
}

fn longest(values: &ArrayRef) -> usize {
    let of = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    match values.data_type() {
        DataType::Utf8 => of(&mut values.as_string::<i32>().offsets().lengths()),
        DataType::LargeUtf8 => of(&mut values.as_string::<i64>().offsets().lengths()),
        DataType::Utf8View => of(&mut values.as_string_view().lengths().map(|length| length as usize)),
        DataType::Binary => of(&mut values.as_binary::<i32>().offsets().lengths()),
        DataType::LargeBinary => of(&mut values.as_binary::<i64>().offsets().lengths()),
        DataType::BinaryView => of(&mut values.as_binary_view().lengths().map(|length| length as usize)),
        DataType::FixedSizeBinary(length) => usize::try_from(*length).unwrap_or(0),
        other if other.is_primitive() || *other == DataType::Boolean => VALUE_BYTES,
        // Of what is nested no value is longer than all together.
        _ => values.get_buffer_memory_size(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int8Array, Int32Array, LargeStringArray, NullArray, RunArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn pieces(column: ArrayRef, columns: usize) -> Vec<usize> {
        let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
        slices(batch, columns).map(|slice| slice.num_rows()).collect()
    }

    #[test]
    fn words_that_rows_share_become_views_and_are_the_same_words() {
        let words: ArrayRef = Arc::new(LargeStringArray::from(vec![Some("one"), None]));
        let columns: [ArrayRef; 3] = [
            Arc::new(DictionaryArray::new(Int8Array::from(vec![0, 1, 0]), Arc::clone(&words))),
            Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 3]), &words).unwrap()),
            Arc::new(Int8Array::from(vec![1, 2, 3])),
        ];
        let batch = RecordBatch::try_from_iter(["d", "r", "n"].into_iter().zip(columns)).unwrap();
        let shared = with_views(batch.clone()).unwrap();
        let [dictionary, runs, numbers] = shared.columns() else { panic!("three columns") };
        assert_eq!(*dictionary.as_any_dictionary_opt().unwrap().values().data_type(), DataType::Utf8View);
        assert_eq!(*runs.as_any_ree_opt().unwrap().values().data_type(), DataType::Utf8View);
        assert_eq!(numbers.data_type(), batch.column(2).data_type());
        for (column, found) in
            [(dictionary, [Some("one"), None, Some("one")]), (runs, [Some("one"), Some("one"), None])]
        {
            assert!(viewed(column).unwrap().as_string_view().iter().eq(found));
        }
    }

    #[test]
    fn a_piece_has_few_rows_where_a_row_takes_much() {
        let nothing = |rows| -> ArrayRef { Arc::new(NullArray::new(rows)) };
        assert_eq!(pieces(nothing(2 * ROWS_MAX + 1), 16), [ROWS_MAX, ROWS_MAX, 1]);
        assert_eq!(pieces(nothing(3_000), 1_600), [1_310, 1_310, 380]);
        assert!(pieces(nothing(0), 1).is_empty());

        let dictionary = |length: usize| -> ArrayRef {
            let words = LargeStringArray::from(vec!["x".repeat(length), String::new()]);
            Arc::new(DictionaryArray::new(Int8Array::from(vec![1; 100]), Arc::new(words)))
        };
        assert_eq!(pieces(dictionary(1), 1), [100]);
        assert_eq!(pieces(dictionary(1 << 20), 1), [31, 31, 31, 7]);
        assert_eq!(pieces(dictionary(BYTES_MAX), 1).len(), 100);
    }
}
