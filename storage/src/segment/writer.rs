//! Turns sorted rows into a segment file.
//!
//! A segment is one Parquet file with one row group of at most [`SEGMENT_ROWS_MAX`] rows, page index on, readable by
//! any tool. Pages hold a quarter of a block's rows ([`PAGE_ROWS`]).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::file_type::{file_field, file_schema, is_file_type, to_file};
use super::meta::{Base64, ChunkRef, ColumnMeta, SegmentMeta};
use super::pages::checksums_entry;
use crate::BLOCK_ROWS;
use crate::catalog::TableDef;
use crate::encoding::{Keys, RowLayout};
use crate::error::{Error, Result};
use crate::sketch::DistinctSketch;

/// Most rows of a segment: row numbers fit a `u32` with room, a segment is a sensible unit of compaction and caching.
pub(crate) const SEGMENT_ROWS_MAX: usize = 1_048_576;

/// Rows of a page, if they take less than a megabyte. A look-up in a store that is larger than memory reads and decodes a page of
/// each column, so that pages of a whole block cost it four times as much; smaller ones make the file larger (these by 3 %).
pub(super) const PAGE_ROWS: usize = BLOCK_ROWS / 4;

/// So many rows tell whether a column's values repeat, in groups of neighbours, since equal values often lie together.
const SAMPLED_ROWS: usize = 4096;
const SAMPLED_TOGETHER: usize = 64;

/// A segment file in memory, ready to be put.
pub(crate) struct EncodedSegment {
    pub(crate) meta: SegmentMeta,
    pub(crate) file: Bytes,
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("writing a segment: {error}"))
}

fn properties(table: &TableDef) -> WriterPropertiesBuilder {
    let sorting = table.key_columns().iter().map(|column| SortingColumn {
        column_idx: *column as i32,
        descending: false,
        nulls_first: false,
    });
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("rustydb ", env!("CARGO_PKG_VERSION")).to_string())
        .set_writer_version(WriterVersion::PARQUET_2_0)
        // LZ4 costs the load and the first scan a third of what zstd does and gives up a quarter of the size.
        .set_compression(Compression::LZ4_RAW)
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.collect()));
    for (column, field) in table.storage_schema().fields().iter().enumerate() {
        let path = ColumnPath::from(field.name().clone());
        properties = match field.data_type() {
            // Strings that are in no dictionary: their lengths, and then all their bytes, which readers take as they lie.
            DataType::Utf8View | DataType::BinaryView => {
                properties.set_column_encoding(path, Encoding::DELTA_LENGTH_BYTE_ARRAY)
            }
            // Sorted integers are nearly free as deltas; a dictionary of distinct keys is wasted work.
            integer if integer.is_integer() && table.key_columns().contains(&column) => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            _ => properties,
        };
    }
    properties
}

/// Encodes rows that are in key order. `keys` are their keys, `id` becomes the segment's.
pub(crate) fn encode_segment(table: &TableDef, id: u64, rows: &[RecordBatch], keys: &Keys) -> Result<EncodedSegment> {
    let mut encoder = SegmentEncoder::new(table)?;
    for column in 0..table.storage_schema().fields().len() {
        encoder.add_column(rows.iter().map(|batch| batch.column(column)))?;
    }
    encoder.finish(id, keys)
}

/// Two writers of one column, of which one is used.
struct ColumnWriters {
    with_dictionary: ArrowColumnWriter,
    plain: ArrowColumnWriter,
}

/// A column that is being encoded.
pub(crate) struct OpenColumn {
    in_file: FieldRef,
    writer: ArrowColumnWriter,
    /// Of its distinct values, if its type can be counted.
    sketch: Option<DistinctSketch>,
}

impl OpenColumn {
    /// Encodes its next values.
    pub(crate) fn write(&mut self, piece: &ArrayRef) -> Result<()> {
        if let Some(sketch) = &mut self.sketch {
            sketch.add(piece);
        }
        for leaf in compute_leaves(&self.in_file, &to_file(piece)?).map_err(internal)? {
            self.writer.write(&leaf).map_err(internal)?;
        }
        Ok(())
    }
}

/// Encodes a segment: one column after the other, so that only one has to be in memory unencoded, or all at the same time, a piece
/// of each after the other, so that only pieces have to be.
pub(crate) struct SegmentEncoder<'a> {
    table: &'a TableDef,
    writer: SerializedFileWriter<Vec<u8>>,
    columns: std::iter::Enumerate<std::vec::IntoIter<ColumnWriters>>,
    chunks: Vec<ArrowColumnChunk>,
    sketches: Vec<Option<DistinctSketch>>,
}

impl<'a> SegmentEncoder<'a> {
    pub(crate) fn new(table: &'a TableDef) -> Result<Self> {
        let schema = file_schema(table.storage_schema());
        let open = |properties: WriterPropertiesBuilder| {
            let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties.build()));
            let (writer, factory) = writer.and_then(ArrowWriter::into_serialized_writer).map_err(internal)?;
            let columns = factory.create_column_writers(0).map_err(internal)?;
            Ok::<_, Error>((writer, columns))
        };
        let (writer, with_dictionary) = open(properties(table))?;
        let (_, plain) = open(properties(table).set_dictionary_enabled(false))?;
        let pairs = with_dictionary.into_iter().zip(plain);
        let columns: Vec<_> = pairs.map(|(with_dictionary, plain)| ColumnWriters { with_dictionary, plain }).collect();
        let columns = columns.into_iter().enumerate();
        Ok(SegmentEncoder { table, writer, columns, chunks: Vec::new(), sketches: Vec::new() })
    }

    /// Begins the next column of the storage schema. `repeats`: its values are worth a dictionary.
    pub(crate) fn open_column(&mut self, repeats: bool) -> Result<OpenColumn> {
        let (column, writers) = self.columns.next().ok_or_else(|| internal("more columns than the table has"))?;
        let field = self.table.storage_schema().field(column);
        let writer = if repeats { writers.with_dictionary } else { writers.plain };
        let sketch = DistinctSketch::counts(field.data_type()).then(DistinctSketch::new);
        Ok(OpenColumn { in_file: Arc::new(file_field(field)), writer, sketch })
    }

    /// Ends a column. They must be ended in the order in which they were begun.
    pub(crate) fn close_column(&mut self, column: OpenColumn) -> Result<()> {
        self.chunks.push(column.writer.close().map_err(internal)?);
        self.sketches.push(column.sketch);
        Ok(())
    }

    /// Encodes the next column, given in pieces.
    pub(crate) fn add_column<'b>(&mut self, pieces: impl IntoIterator<Item = &'b ArrayRef>) -> Result<()> {
        let pieces: Vec<&ArrayRef> = pieces.into_iter().collect();
        let mut column = self.open_column(pieces_repeat(&pieces))?;
        pieces.into_iter().try_for_each(|piece| column.write(piece))?;
        self.close_column(column)
    }

    /// Encoded bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.close().bytes_written).sum()
    }

    /// Ends the file. `keys` are the keys of its rows, which ascend.
    pub(crate) fn finish(mut self, id: u64, keys: &Keys) -> Result<EncodedSegment> {
        let pages: Vec<Vec<usize>> = self.chunks.iter().map(page_bytes).collect::<Result<_>>()?;
        // All at once: a vector that grows takes the memory of the file three times. What comes behind the columns is little.
        let bytes = self.bytes() as usize;
        self.writer.inner_mut().reserve_exact(bytes + bytes / 16);
        let mut group = self.writer.next_row_group().map_err(internal)?;
        for chunk in self.chunks {
            chunk.append_to_row_group(&mut group).map_err(internal)?;
        }
        let group = group.close().map_err(internal)?;
        self.writer.flush().map_err(internal)?;
        let parts = group.columns().iter().zip(&pages).flat_map(|(chunk, pages)| {
            let (offset, bytes) = chunk.byte_range();
            let mut rest = &self.writer.inner()[offset as usize..(offset + bytes) as usize];
            let dictionary = rest.split_off(..rest.len() - pages.iter().sum::<usize>());
            let pages = pages.iter().map(move |bytes| rest.split_off(..*bytes));
            dictionary.into_iter().filter(|dictionary| !dictionary.is_empty()).chain(pages.flatten())
        });
        let checksums = checksums_entry(parts);
        self.writer.append_key_value_metadata(checksums);
        let parquet = self.writer.finish().map_err(internal)?;
        // `finish` has written everything behind its buffer, and `into_inner` would write it again.
        let file = Bytes::from(std::mem::take(self.writer.inner_mut()));
        describe(self.table, id, &parquet, file, keys, &self.sketches)
    }
}

/// Whether values of a column come so often that a dictionary of them is worth its place. Numbers get one in any case, which
/// ends where it grows too large. Strings do not: the first pages of a column of distinct ones would need a dictionary of a
/// megabyte, to be read with each of these pages. `value` gives the bytes of the string in a row, asked for in ascending order.
pub(super) fn repeats<'v>(data_type: &DataType, rows: usize, value: impl FnMut(usize) -> Option<&'v [u8]>) -> bool {
    if !matches!(data_type, DataType::Utf8View | DataType::BinaryView) {
        return true;
    }
    let group_every = rows.div_ceil(SAMPLED_ROWS / SAMPLED_TOGETHER).max(SAMPLED_TOGETHER);
    let groups = (0..rows).step_by(group_every).flat_map(|group| group..(group + SAMPLED_TOGETHER).min(rows));
    let (mut seen, mut sampled) = (HashSet::with_capacity(SAMPLED_ROWS), 0);
    for value in groups.filter_map(value) {
        sampled += 1;
        seen.insert(value);
    }
    // Of forty thousand values that are equally frequent, one in twenty rows of the sample has one for the second time.
    sampled == 0 || seen.len() <= sampled / 20 * 19
}

fn pieces_repeat(pieces: &[&ArrayRef]) -> bool {
    let Some(data_type) = pieces.first().map(|piece| piece.data_type()) else { return true };
    let rows = pieces.iter().map(|piece| piece.len()).sum();
    let (mut at, mut first) = (0, 0);
    repeats(data_type, rows, |row| {
        while row >= first + pieces[at].len() {
            first += pieces[at].len();
            at += 1;
        }
        let (piece, row) = (pieces[at], row - first);
        match data_type {
            _ if piece.is_null(row) => None,
            DataType::Utf8View => Some(piece.as_string_view().value(row).as_bytes()),
            _ => Some(piece.as_binary_view().value(row)),
        }
    })
}

/// The bytes of each page of a column, in their order. Before them may be a dictionary.
fn page_bytes(chunk: &ArrowColumnChunk) -> Result<Vec<usize>> {
    let offsets = chunk.close().offset_index.as_ref().ok_or_else(|| internal("a column without an offset index"))?;
    let bytes = |page: &PageLocation| usize::try_from(page.compressed_page_size).map_err(internal);
    offsets.page_locations().iter().map(bytes).collect()
}

/// What the manifest has to know about an encoded file.
fn describe(
    table: &TableDef,
    id: u64,
    parquet: &ParquetMetaData,
    file: Bytes,
    keys: &Keys,
    sketches: &[Option<DistinctSketch>],
) -> Result<EncodedSegment> {
    let schema = table.storage_schema();
    let count = keys.len();
    let rows = parquet.file_metadata().num_rows();
    assert!(rows == count as i64 && count > 0 && count <= SEGMENT_ROWS_MAX, "{rows} rows, {count} keys");
    let [group] = parquet.row_groups() else {
        return Err(internal(format!("{} row groups", parquet.num_row_groups())));
    };
    let chunk = |offset: u64, bytes: u64| {
        let data = &file[offset as usize..(offset + bytes) as usize];
        ChunkRef { offset, bytes, crc32c: crc32c::crc32c(data) }
    };
    let bounds = Bounds::read(schema, parquet)?;
    let mut columns = Vec::with_capacity(group.num_columns());
    let mut tail_start = 0;
    for (index, column) in group.columns().iter().enumerate() {
        let (offset, bytes) = column.byte_range();
        tail_start = tail_start.max(offset + bytes);
        let (null_count, bounds_exact) = (bounds.null_counts[index], bounds.exact[index]);
        let distinct = sketches[index].as_ref().map(DistinctSketch::encode);
        columns.push(ColumnMeta { chunk: chunk(offset, bytes), null_count, bounds_exact, distinct });
    }
    let key = |key: Option<&[u8]>| Base64(key.unwrap_or_default().to_vec());
    let meta = SegmentMeta {
        id,
        table: table.id,
        rows: count as u32,
        file_bytes: file.len() as u64,
        tail: chunk(tail_start, file.len() as u64 - tail_start),
        columns,
        minimums: bounds.minimums,
        maximums: bounds.maximums,
        first_key: key(keys.first()),
        last_key: key(keys.last()),
    };
    Ok(EncodedSegment { meta, file })
}

/// The schema of a row of bounds: any of them may be unknown.
pub(crate) fn bounds_layout(schema: &SchemaRef) -> Result<RowLayout> {
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    RowLayout::new(&Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>())))
}

/// Column statistics, taken from what the Parquet writer found anyway.
struct Bounds {
    minimums: Base64,
    maximums: Base64,
    null_counts: Vec<u64>,
    exact: Vec<bool>,
}

impl Bounds {
    fn read(schema: &SchemaRef, parquet: &ParquetMetaData) -> Result<Bounds> {
        let layout = bounds_layout(schema)?;
        let (mut minimums, mut maximums): (Vec<ArrayRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        let (mut null_counts, mut exact) = (Vec::new(), Vec::new());
        let groups = || parquet.row_groups().iter();
        for field in schema.fields() {
            let converter = StatisticsConverter::try_new(field.name(), schema, parquet.file_metadata().schema_descr())
                .map_err(internal)?;
            // The bounds of what lies there as something else are not its own.
            let (minimum, maximum) = match is_file_type(field.data_type()) {
                true => (converter.row_group_mins(groups()), converter.row_group_maxes(groups())),
                false => (Ok(new_null_array(field.data_type(), 1)), Ok(new_null_array(field.data_type(), 1))),
            };
            minimums.push(minimum.map_err(internal)?);
            maximums.push(maximum.map_err(internal)?);
            null_counts.push(converter.row_group_null_counts(groups()).map_err(internal)?.value(0));
            let minimum_exact = converter.row_group_is_min_value_exact(groups()).map_err(internal)?;
            let maximum_exact = converter.row_group_is_max_value_exact(groups()).map_err(internal)?;
            exact.push(minimum_exact.value(0) && maximum_exact.value(0));
        }
        let row = |columns: Vec<ArrayRef>| -> Result<Base64> {
            let batch = RecordBatch::try_new(Arc::clone(layout.schema()), columns)?;
            Ok(Base64(layout.encode(&batch)?.remove(0).to_vec()))
        };
        Ok(Bounds { minimums: row(minimums)?, maximums: row(maximums)?, null_counts, exact })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn strings_that_hardly_repeat_get_no_dictionary() {
        let strings = |rows: usize, distinct: usize| -> Vec<ArrayRef> {
            let text = |row: usize| {
                (!row.is_multiple_of(10)).then(|| (row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % distinct)
            };
            let all: StringViewArray = (0..rows).map(|row| Some(text(row)?.to_string())).collect();
            (0..rows).step_by(1000).map(|at| Arc::new(all.slice(at, 1000.min(rows - at))) as ArrayRef).collect()
        };
        let repeat = |pieces: Vec<ArrayRef>| pieces_repeat(&pieces.iter().collect::<Vec<_>>());
        for rows in [3_000, 300_000] {
            assert!(repeat(strings(rows, 2)) && repeat(strings(rows, 100)));
            assert!(!repeat(strings(rows, usize::MAX)));
        }
        assert!(repeat(strings(300_000, 10_000)) && !repeat(strings(300_000, 200_000)));
        let runs: StringViewArray = (0..300_000).map(|row| Some((row / 50).to_string())).collect();
        assert!(repeat(vec![Arc::new(runs)]), "what comes fifty times in a row");
        assert!(repeat(vec![]) && repeat(vec![Arc::new(StringViewArray::new_null(10))]));
        assert!(repeat(vec![Arc::new(Int64Array::from_iter_values(0..5000))]), "numbers are another matter");
    }
}
