//! What an Arrow message says of itself, looked at before it is believed.
//!
//! A few hundred bytes can stand for more than any machine has: a compressed buffer begins with the length that it has
//! without compression, and whoever decodes it asks for that much memory first; rows of NULLs, of one run, or of binaries
//! of no length take no bytes at all, and their number is one of 64 bits in the header. An allocation that fails ends the
//! process, and no panic handler sees it. So before a batch or a dictionary is decoded:
//! * without compression its buffers together are no longer than a message may be, also where two of them are the same
//!   bytes: what lies badly is copied. LZ4 writes what it finds, whatever was said, so where it could find more than that, it
//!   is counted first;
//! * rows that are many are of bytes: no column has more of them than its message has bits, [`ROWS_FREE`] aside;
//! * its columns are those of the schema, none more: rows would lose them without a word.

use std::io::{self, Read};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Schema};
use arrow::ipc::{CompressionType, RecordBatch};
use tonic::Status;

use crate::status::refuse;
use crate::upload::malformed;

/// So many rows may come without a byte each.
const ROWS_FREE: u64 = 1 << 20;

/// A compressed buffer begins with its length: so many bytes, or one of these values.
const PREFIX_BYTES: usize = size_of::<i64>();
const NOT_COMPRESSED: i64 = -1;

/// No byte of LZ4 becomes more bytes than this.
const LZ4_RATIO_MAX: usize = 255;

/// How many arrays the rows of a schema consist of, children included.
pub(crate) fn arrays_of(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| arrays_of_type(field.data_type())).sum()
}

/// The same for the values of a type. A dictionary's are in a message of their own.
pub(crate) fn arrays_of_type(data_type: &DataType) -> usize {
    let children = match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => arrays_of_type(field.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| arrays_of_type(field.data_type())).sum(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| arrays_of_type(field.data_type())).sum(),
        DataType::RunEndEncoded(run_ends, values) => {
            arrays_of_type(run_ends.data_type()) + arrays_of_type(values.data_type())
        }
        _ => 0,
    };
    1 + children
}

/// Refuses a batch that stands for more than `bytes_max` bytes, or for more rows than it may. `arrays`: those that its
/// schema has, if they are known.
pub(crate) fn check(
    batch: RecordBatch<'_>,
    arrays: Option<usize>,
    body: &[u8],
    bytes_max: usize,
) -> Result<(), Status> {
    let nodes = batch.nodes().ok_or_else(|| malformed("a batch has no arrays"))?;
    if arrays.is_some_and(|arrays| arrays != nodes.len()) {
        return Err(malformed("a batch has other columns than the schema"));
    }
    let codec = batch.compression().map(|compression| compression.codec());
    let mut plain_bytes: usize = 0;
    for buffer in batch.buffers().into_iter().flatten().filter(|buffer| buffer.length() != 0) {
        let bytes = part_of(body, buffer.offset(), buffer.length())?;
        let length = codec.map_or(Ok(bytes.len()), |codec| plain_length(bytes, codec, bytes_max))?;
        plain_bytes = plain_bytes.saturating_add(length);
        if plain_bytes > bytes_max {
            return Err(too_long(bytes_max));
        }
    }
    let rows_max = ROWS_FREE.max(8 * plain_bytes as u64);
    let lengths = nodes.iter().map(|node| node.length()).chain([batch.length()]);
    match lengths.map(|length| u64::try_from(length).unwrap_or(u64::MAX)).max() {
        Some(rows) if rows > rows_max => {
            let message = format!("a batch has {rows} rows that take no bytes; the limit is {ROWS_FREE}");
            Err(refuse("54000", message).hint("send fewer rows at a time").into())
        }
        _ => Ok(()),
    }
}

fn part_of(body: &[u8], offset: i64, length: i64) -> Result<&[u8], Status> {
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    let part = range.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
    part.ok_or_else(|| malformed("a buffer lies outside its message"))
}

/// How long a compressed buffer is without compression.
fn plain_length(buffer: &[u8], codec: CompressionType, bytes_max: usize) -> Result<usize, Status> {
    let Some((prefix, compressed)) = buffer.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed("a compressed buffer is shorter than its length"));
    };
    let claimed = match i64::from_le_bytes(*prefix) {
        NOT_COMPRESSED => return Ok(compressed.len()),
        claimed => usize::try_from(claimed).map_err(|_| malformed(format!("a buffer of {claimed} bytes")))?,
    };
    let may_be_longer = codec == CompressionType::LZ4_FRAME && compressed.len() > bytes_max / LZ4_RATIO_MAX;
    if claimed <= bytes_max && may_be_longer {
        let mut plain = lz4_flex::frame::FrameDecoder::new(compressed).take(claimed as u64 + 1);
        if io::copy(&mut plain, &mut io::sink()).map_err(malformed)? > claimed as u64 {
            return Err(malformed(format!("a buffer has more than its {claimed} bytes")));
        }
    }
    Ok(claimed)
}

/// Refuses dictionaries that take more than `bytes_max` bytes together: they stay until the last row has come.
pub(crate) fn check_dictionaries<'a>(
    dictionaries: impl Iterator<Item = &'a ArrayRef>,
    bytes_max: usize,
) -> Result<(), Status> {
    match dictionaries.map(|values| values.get_buffer_memory_size()).sum::<usize>() > bytes_max {
        true => Err(too_long(bytes_max)),
        false => Ok(()),
    }
}

fn too_long(bytes_max: usize) -> Status {
    let message =
        format!("uncompressed, rows or dictionaries take more than {bytes_max} bytes, as much as a message may have");
    refuse("54000", message).hint("send fewer rows at a time").into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Fields, UnionFields};
    use arrow::ipc::root_as_message;
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
    use arrow::record_batch::RecordBatch as Rows;

    use super::*;

    /// The message of one column of zeros, compressed.
    fn zeros(codec: CompressionType, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&vec![0; bytes]]));
        let rows = Rows::try_from_iter([("v", column)]).expect("one column");
        let options = IpcWriteOptions::default().try_with_compression(Some(codec)).expect("a codec");
        let (generator, mut tracker) = (IpcDataGenerator::default(), DictionaryTracker::new(false));
        let encoded = generator.encode(&rows, &mut tracker, &options, &mut IpcWriteContext::default());
        let (_, encoded) = encoded.expect("it has an IPC form");
        (encoded.ipc_message, encoded.arrow_data)
    }

    fn checked(header: &[u8], body: &[u8], bytes_max: usize) -> Result<(), Status> {
        let batch = root_as_message(header).expect("a message").header_as_record_batch().expect("a batch");
        check(batch, None, body, bytes_max)
    }

    #[test]
    fn buffers_count_by_their_lengths_however_they_lie() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let columns = (0..3).map(|column| (format!("c{column}"), Arc::clone(&numbers)));
        let rows = Rows::try_from_iter(columns).expect("columns");
        let (generator, mut tracker) = (IpcDataGenerator::default(), DictionaryTracker::new(false));
        let encoded =
            generator.encode(&rows, &mut tracker, &IpcWriteOptions::default(), &mut IpcWriteContext::default());
        let (_, encoded) = encoded.expect("it has an IPC form");
        let (header, body) = (&encoded.ipc_message, &encoded.arrow_data);
        let batch = root_as_message(header).expect("a message").header_as_record_batch().expect("a batch");
        let lengths: i64 = batch.buffers().expect("buffers").iter().map(|buffer| buffer.length()).sum();
        let lengths = usize::try_from(lengths).expect("a length");
        assert!(checked(header, body, lengths).is_ok());
        let refused = checked(header, body, lengths - 1).expect_err("a byte too much");
        assert!(refused.message().starts_with("[54000]"), "{refused:?}");
        let refused = checked(header, &body[..100], lengths).expect_err("buffers beyond the body");
        assert!(refused.message().starts_with("[08P01]"), "{refused:?}");
    }

    #[test]
    fn dictionaries_are_counted_together() {
        let words: ArrayRef = Arc::new(StringArray::from(vec!["a word"; 1000]));
        let of_one = words.get_buffer_memory_size();
        assert!(check_dictionaries([&words, &words].into_iter(), 2 * of_one).is_ok());
        assert!(check_dictionaries([&words, &words, &words].into_iter(), 2 * of_one).is_err());
    }

    #[test]
    fn lz4_that_becomes_more_than_it_says_is_not_decoded() {
        const PLAIN: usize = 4 << 20;
        let (header, mut body) = zeros(CompressionType::LZ4_FRAME, PLAIN);
        assert!(checked(&header, &body, PLAIN + 64).is_ok());
        let refused = checked(&header, &body, PLAIN - 1).expect_err("too long");
        assert!(refused.message().starts_with("[54000]"), "{refused:?}");
        let at = body.windows(8).rposition(|bytes| bytes == (PLAIN as u64).to_le_bytes()).expect("its length");
        body[at..at + 8].copy_from_slice(&1000_u64.to_le_bytes());
        let refused = checked(&header, &body, 100_000).expect_err("it lies");
        assert!(refused.message().starts_with("[08P01]"), "{refused:?}");
    }

    #[test]
    fn arrays_are_counted_with_their_children() {
        let field = |data_type| Arc::new(Field::new("f", data_type, true));
        let (number, text) = (field(DataType::Int64), field(DataType::Utf8));
        let pair = Fields::from(vec![Arc::clone(&number), Arc::clone(&text)]);
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Struct(pair.clone())));
        let union = UnionFields::try_new([0, 1], pair.iter().cloned()).expect("two ids");
        for (data_type, arrays) in [
            (DataType::Null, 1),
            (DataType::Utf8View, 1),
            (DataType::Struct(pair.clone()), 3),
            (DataType::List(field(DataType::Struct(pair.clone()))), 4),
            (DataType::Map(field(DataType::Struct(pair.clone())), false), 4),
            (DataType::FixedSizeList(text, 3), 2),
            (DataType::RunEndEncoded(Arc::clone(&number), number), 3),
            (DataType::Union(union, arrow::datatypes::UnionMode::Dense), 3),
            (dictionary, 1),
        ] {
            assert_eq!(arrays_of_type(&data_type), arrays, "{data_type}");
        }
        assert_eq!(arrays_of(&Schema::new(vec![field(DataType::Int8), field(DataType::Struct(pair))])), 4);
    }
}
