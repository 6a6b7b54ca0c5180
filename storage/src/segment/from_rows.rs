//! A segment of rows that lie in memory as rows: what a flush writes.
//!
//! ```text
//!   rows ──▶ a block of all columns, decoded ─┬─▶ writers of the file's columns
//!     ▲                │                      └─▶ encoders of the columns that the cache will keep
//!     └── next block ◀─┘
//! ```
//! A block is decoded, goes both ways while the processor's cache has it, and makes room for the next one. Decoding a table as a
//! whole first takes as much memory again as its rows, in pages that the system has to clear: that was half of a flush's time.

use std::sync::Arc;

use bytes::Bytes;

use super::writer::{EncodedSegment, SegmentEncoder, repeats};
use crate::BLOCK_ROWS;
use crate::block::{Column, ColumnEncoder};
use crate::catalog::TableDef;
use crate::encoding::{Keys, Physical, RowLayout};
use crate::error::Result;

/// Encodes rows that are in the order of their `keys`; `id` becomes the segment's. Beside the file come the columns for which
/// `keep` has said that so many bytes more may be kept in memory.
pub(crate) fn encode_rows(
    table: &TableDef,
    id: u64,
    rows: &[Bytes],
    keys: &Keys,
    mut keep: impl FnMut(usize) -> bool,
) -> Result<(EncodedSegment, Vec<Option<Column>>)> {
    let (layout, fields) = (&table.codec()?.rows, table.storage_schema().fields());
    let all: Vec<usize> = (0..fields.len()).collect();
    let bytes_each = bytes_of_columns(layout, fields.len(), rows);
    let mut encoder = SegmentEncoder::new(table)?;
    let mut columns = Vec::with_capacity(fields.len());
    for (column, field) in fields.iter().enumerate() {
        let repeats = repeats(field.data_type(), rows.len(), |row| layout.value(&rows[row], column));
        let kept = keep(bytes_each[column]).then(|| ColumnEncoder::new(field.data_type(), rows.len()));
        columns.push((encoder.open_column(repeats)?, kept));
    }
    for block in rows.chunks(BLOCK_ROWS) {
        let block: Vec<&[u8]> = block.iter().map(Bytes::as_ref).collect();
        let decoded = layout.decode(&block, &all)?;
        for ((in_file, kept), values) in columns.iter_mut().zip(decoded.columns()) {
            in_file.write(values)?;
            if let Some(kept) = kept {
                kept.push(Arc::clone(values))?;
            }
        }
    }
    let mut in_memory = Vec::with_capacity(columns.len());
    for (in_file, kept) in columns {
        encoder.close_column(in_file)?;
        in_memory.push(kept.map(ColumnEncoder::finish).transpose()?);
    }
    Ok((encoder.finish(id, keys)?, in_memory))
}

/// What each column takes of the rows. Encoded, it will hardly be more. What strings take is divided among them evenly.
fn bytes_of_columns(layout: &RowLayout, columns: usize, rows: &[Bytes]) -> Vec<usize> {
    let width = |column| layout.physical(column).width() * rows.len();
    let is_variable = |column: &usize| layout.physical(*column) == Physical::Variable;
    let total: usize = rows.iter().map(Bytes::len).sum();
    let (fixed, variables): (usize, usize) = ((0..columns).map(width).sum(), (0..columns).filter(is_variable).count());
    let of_strings = total.saturating_sub(fixed) / variables.max(1);
    (0..columns).map(|column| width(column) + if is_variable(&column) { of_strings } else { 0 }).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::encode_segment;
    use super::*;
    use crate::catalog::{IndexId, NewTable, TableId};

    fn batch(rows: usize) -> RecordBatch {
        let fields = [
            Field::new("id", DataType::Int64, false),
            Field::new("group", DataType::Int32, true),
            Field::new("city", DataType::Utf8View, true),
            Field::new("code", DataType::Utf8View, false),
            Field::new("note", DataType::Utf8View, true),
            Field::new("price", DataType::Decimal128(12, 2), true),
            Field::new("weight", DataType::Float64, true),
        ];
        let numbers = 0..rows as i64;
        let price = Decimal128Array::from_iter(numbers.clone().map(|row| (row % 7 != 0).then_some(i128::from(row))));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(numbers.clone().map(|row| row * 3 - 1000))),
            Arc::new(Int32Array::from_iter(numbers.clone().map(|row| (row % 5 != 0).then_some(row as i32 / 100)))),
            Arc::new(StringViewArray::from_iter(
                numbers.clone().map(|row| (row % 9 != 1).then(|| format!("a city of many: {}", row % 40))),
            )),
            Arc::new(StringViewArray::from_iter_values(numbers.clone().map(|row| format!("{row:024}")))),
            Arc::new(StringViewArray::from_iter(
                numbers.clone().map(|row| (row % 3 != 0).then(|| "n".repeat(row as usize % 50))),
            )),
            Arc::new(price.with_precision_and_scale(12, 2).unwrap()),
            Arc::new(Float64Array::from_iter_values(numbers.map(|row| row as f64 / 3.0))),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "several full blocks take Miri minutes")]
    fn rows_make_the_file_and_the_columns_that_their_batches_make() {
        for count in [1, 100, BLOCK_ROWS, 2 * BLOCK_ROWS + 5] {
            let batch = batch(count);
            let (schema_name, name, schema) = ("public".to_owned(), "t".to_owned(), batch.schema());
            let new =
                NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
            let table = TableDef::new(TableId(1), IndexId(2), new).unwrap();
            let codec = table.codec().unwrap();
            let rows = codec.rows.encode(&batch).unwrap();
            let mut keys = codec.keys.no_keys();
            rows.iter().for_each(|row| keys.push(&table.stored_key(row).unwrap()).unwrap());
            let blocks: Vec<RecordBatch> =
                (0..count).step_by(BLOCK_ROWS).map(|start| batch.slice(start, BLOCK_ROWS.min(count - start))).collect();
            let expected = encode_segment(&table, 7, &blocks, &keys).unwrap();

            let (made, columns) = encode_rows(&table, 7, &rows, &keys, |_| true).unwrap();
            assert!(made.file == expected.file, "{count} rows");
            assert_eq!(format!("{:?}", made.meta), format!("{:?}", expected.meta));
            for (column, values) in columns.into_iter().zip(batch.columns()) {
                assert_eq!(&column.expect("kept").to_array().unwrap(), values);
            }

            // As long as there is room, in the order of the columns.
            let mut room = rows.iter().map(Bytes::len).sum::<usize>() / 2;
            let keep = |bytes: usize| {
                let fits = bytes <= room;
                room -= if fits { bytes } else { 0 };
                fits
            };
            let (made, columns) = encode_rows(&table, 7, &rows, &keys, keep).unwrap();
            assert!(made.file == expected.file && columns.iter().any(Option::is_some));
            let all: usize = columns.iter().flatten().map(Column::memory_bytes).sum();
            assert!(count < 100 || columns.iter().any(Option::is_none), "{all} bytes kept of {count} rows");
        }
    }
}
