//! The messages of short answers, without making their metadata anew.
//!
//! A row found by its key is a few hundred bytes. To convert its text to what clients know, and then to build the metadata of
//! its Arrow message, takes several times as long as to copy it. But the metadata of two batches of one schema differ in numbers
//! only, which stand at the same places:
//!
//! ```text
//! Message      …, bodyLength
//! RecordBatch  length, nodes [length, nulls; per column], buffers [offset, length; per buffer]
//! ```
//!
//! So the first message, which Arrow's encoder makes, is kept as a form for those that follow ([`ShortRows`]).
//!
//! Invariant: a message made here is the one that Arrow's encoder would have made of the converted batch (of what lies under a
//! NULL nothing is sent). What this does not know, nested types for instance, or what is long, is left to that encoder.

use std::sync::OnceLock;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema};
use arrow::downcast_primitive_array;
use arrow::ipc::{self, root_as_message};
use arrow::record_batch::RecordBatch;

use crate::stream::Message;

/// Rows beyond this are not short, whatever their bytes.
const ROWS_MAX: usize = 256;
/// Bytes beyond these are not.
const BYTES_MAX: usize = 8 << 10;
/// What arrow's encoder pads buffers to.
const ALIGNMENT_BYTES: usize = 64;

/// The form of the messages of one schema, once there is one.
#[derive(Default)]
pub(crate) struct ShortRows(OnceLock<Option<Form>>);

impl ShortRows {
    /// The message of a batch, if it is short and a message of this schema has been seen. It need not be converted: text
    /// may be in views.
    pub(crate) fn encode(&self, schema: &Schema, batch: &RecordBatch) -> Option<Message> {
        let (rows, columns) = (batch.num_rows(), batch.columns());
        let form = self.0.get()?.as_ref().filter(|form| form.layouts.len() == columns.len())?;
        if rows == 0 || rows > ROWS_MAX {
            return None;
        }
        let mut filled = Filled::new(form);
        for ((column, field), layout) in columns.iter().zip(schema.fields()).zip(&form.layouts) {
            // Of a value that may not be NULL and is one, the encoder tells.
            if column.null_count() > 0 && !field.is_nullable() {
                return None;
            }
            filled.put_column(column, field.data_type(), *layout)?;
        }
        Some(filled.finish(form, rows))
    }

    /// Looks at the metadata of a message of rows that arrow's encoder made.
    pub(crate) fn learn(&self, schema: &Schema, metadata: &[u8]) {
        self.0.get_or_init(|| Form::of(schema, metadata));
    }
}

/// How a column is sent.
#[derive(Clone, Copy)]
enum Layout {
    /// Which are NULL, values of a fixed number of bytes.
    Values,
    /// Which are NULL, a bit for each value.
    Bits,
    /// Which are NULL, where each ends, all of them together.
    Text,
}

impl Layout {
    fn of(announced: &DataType) -> Option<Self> {
        match announced {
            DataType::Utf8 | DataType::Binary => Some(Self::Text),
            DataType::Boolean => Some(Self::Bits),
            primitive if primitive.is_primitive() => Some(Self::Values),
            _ => None,
        }
    }

    fn buffers(self) -> usize {
        match self {
            Self::Values | Self::Bits => 2,
            Self::Text => 3,
        }
    }
}

/// Metadata to be filled in, and where its numbers stand.
struct Form {
    layouts: Vec<Layout>,
    metadata: Vec<u8>,
    body_length_at: usize,
    length_at: usize,
    nodes_at: usize,
    buffers_at: usize,
}

impl Form {
    /// `None`: there is a column that is not known here, or a number that is not written out.
    fn of(schema: &Schema, metadata: &[u8]) -> Option<Self> {
        let layouts: Vec<Layout> =
            schema.fields().iter().map(|field| Layout::of(field.data_type())).collect::<Option<_>>()?;
        let message = root_as_message(metadata).ok()?;
        let batch = message.header_as_record_batch()?;
        let (nodes, buffers) = (batch.nodes()?, batch.buffers()?);
        let counts = (nodes.len(), buffers.len());
        if layouts.is_empty() || counts != (layouts.len(), layouts.iter().map(|layout| layout.buffers()).sum()) {
            return None;
        }
        let place = |inside: &[u8]| (inside.as_ptr() as usize).checked_sub(metadata.as_ptr() as usize);
        // A table's field stands nowhere if it has its default.
        let number = |table: usize, field: u16| (field != 0).then_some(table + usize::from(field));
        let body_length = message._tab.vtable().get(ipc::Message::VT_BODYLENGTH);
        let length = batch._tab.vtable().get(ipc::RecordBatch::VT_LENGTH);
        Some(Self {
            body_length_at: number(message._tab.loc(), body_length)?,
            length_at: number(batch._tab.loc(), length)?,
            nodes_at: place(nodes.bytes())?,
            buffers_at: place(buffers.bytes())?,
            layouts,
            metadata: metadata.to_vec(),
        })
    }
}

/// Metadata and body of a message in the making.
struct Filled {
    metadata: Vec<u8>,
    body: Vec<u8>,
    next_node_at: usize,
    next_buffer_at: usize,
}

impl Filled {
    fn new(form: &Form) -> Self {
        Self {
            metadata: form.metadata.clone(),
            body: Vec::with_capacity(
                form.layouts.iter().map(|layout| layout.buffers()).sum::<usize>() * ALIGNMENT_BYTES,
            ),
            next_node_at: form.nodes_at,
            next_buffer_at: form.buffers_at,
        }
    }

    fn finish(mut self, form: &Form, rows: usize) -> Message {
        self.put_number(form.length_at, rows);
        self.put_number(form.body_length_at, self.body.len());
        Message::new(self.metadata.into(), vec![Buffer::from_vec(self.body)])
    }

    /// `None`: it is of another type, or long.
    fn put_column(&mut self, column: &ArrayRef, announced: &DataType, layout: Layout) -> Option<()> {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        self.put_number(self.next_node_at, column.len());
        self.put_number(self.next_node_at + 8, nulls.map_or(0, |nulls| nulls.null_count()));
        self.next_node_at += 16;
        match nulls {
            Some(nulls) => self.put_buffer(&nulls.inner().sliced())?,
            None => self.put_buffer(&[])?,
        }
        match (layout, column.data_type()) {
            (Layout::Values, sent) if sent == announced => self.put_buffer(values_of(column)?),
            (Layout::Bits, DataType::Boolean) => self.put_buffer(&column.as_boolean().values().sliced()),
            (Layout::Text, DataType::Utf8View) if *announced == DataType::Utf8 => {
                let column = column.as_string_view();
                self.put_texts(column, |row| column.value(row).as_bytes())
            }
            (Layout::Text, DataType::BinaryView) if *announced == DataType::Binary => {
                let column = column.as_binary_view();
                self.put_texts(column, |row| column.value(row))
            }
            (Layout::Text, DataType::Utf8) if *announced == DataType::Utf8 => {
                let column = column.as_string::<i32>();
                self.put_texts(column, |row| column.value(row).as_bytes())
            }
            (Layout::Text, DataType::Binary) if *announced == DataType::Binary => {
                let column = column.as_binary::<i32>();
                self.put_texts(column, |row| column.value(row))
            }
            _ => None,
        }
    }

    /// Where each text ends, and the texts.
    fn put_texts<'a>(&mut self, column: &dyn Array, text: impl Fn(usize) -> &'a [u8]) -> Option<()> {
        let texts = || (0..column.len()).map(|row| if column.is_null(row) { &b""[..] } else { text(row) });
        let (start, mut end) = (self.body.len(), 0_usize);
        self.body.extend_from_slice(&0_i32.to_le_bytes());
        for text in texts() {
            end += text.len();
            self.body.extend_from_slice(&i32::try_from(end).ok()?.to_le_bytes());
        }
        self.end_buffer(start)?;
        let start = self.body.len();
        if start + end > BYTES_MAX {
            return None;
        }
        texts().for_each(|text| self.body.extend_from_slice(text));
        self.end_buffer(start)
    }

    fn put_buffer(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.body.len();
        if start + bytes.len() > BYTES_MAX {
            return None;
        }
        self.body.extend_from_slice(bytes);
        self.end_buffer(start)
    }

    /// Notes the buffer that begins at `start`, and pads it.
    fn end_buffer(&mut self, start: usize) -> Option<()> {
        let end = self.body.len();
        self.put_number(self.next_buffer_at, start);
        self.put_number(self.next_buffer_at + 8, end - start);
        self.next_buffer_at += 16;
        self.body.resize(end.next_multiple_of(ALIGNMENT_BYTES), 0);
        (self.body.len() <= BYTES_MAX).then_some(())
    }

    fn put_number(&mut self, at: usize, number: usize) {
        // The form was looked at when it was made: the places are there.
        if let Some(place) = self.metadata.get_mut(at..at + 8) {
            place.copy_from_slice(&(number as u64).to_le_bytes());
        }
    }
}

/// The bytes of the rows of a column of numbers, times and the like.
fn values_of(column: &ArrayRef) -> Option<&[u8]> {
    downcast_primitive_array!(
        column => Some(column.values().inner().as_slice()),
        _ => None,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Int16Array, Int64Array, StringArray,
        StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, SchemaRef};
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

    use super::*;
    use crate::wire::{convert, wire_schema};

    /// As the encoder does it.
    fn encoded(schema: &SchemaRef, batch: &RecordBatch) -> (Vec<u8>, Vec<u8>) {
        let converted = convert(batch, schema).expect("it fits");
        let (mut dictionaries, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
        let options = IpcWriteOptions::default();
        let encoded = IpcDataGenerator::default().encode(&converted, &mut dictionaries, &options, &mut context);
        let (before, encoded) = encoded.expect("it has an IPC form");
        assert!(before.is_empty());
        (encoded.ipc_message, encoded.arrow_data)
    }

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let columns = columns.into_iter().enumerate().map(|(number, column)| (format!("c{number}"), column, true));
        RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
    }

    fn learned(first: &RecordBatch) -> (SchemaRef, ShortRows) {
        let (schema, short) = (wire_schema(&first.schema()), ShortRows::default());
        assert!(short.encode(&schema, first).is_none(), "there is no form yet");
        short.learn(&schema, &encoded(&schema, first).0);
        (schema, short)
    }

    fn of_all_kinds(texts: &[Option<&str>], numbers: &[Option<i64>]) -> RecordBatch {
        let bytes = || texts.iter().map(|text| text.map(str::as_bytes));
        let flags: BooleanArray = numbers.iter().map(|number| number.map(|number| number % 2 == 0)).collect();
        let decimals = Decimal128Array::from_iter(numbers.iter().map(|number| number.map(i128::from)));
        let times = TimestampMicrosecondArray::from(numbers.to_vec()).with_timezone("UTC");
        batch(vec![
            Arc::new(StringViewArray::from_iter(texts.iter().copied())),
            Arc::new(Int64Array::from(numbers.to_vec())),
            Arc::new(BinaryViewArray::from_iter(bytes())),
            Arc::new(flags),
            Arc::new(StringArray::from_iter(texts.iter().copied())),
            Arc::new(decimals.with_precision_and_scale(12, 2).expect("it fits")),
            Arc::new(BinaryArray::from_iter(bytes())),
            Arc::new(times),
            Arc::new(Date32Array::from_iter(numbers.iter().map(|number| number.map(|number| number as i32)))),
            Arc::new(Int16Array::from_iter(numbers.iter().map(|number| number.map(|number| number as i16)))),
        ])
    }

    #[test]
    fn messages_are_those_of_the_encoder() {
        let first = of_all_kinds(&[Some("ann")], &[Some(1)]);
        let (schema, short) = learned(&first);
        let long = "of more than twelve bytes, so that its view refers to a buffer".repeat(10);
        for rows in [
            first,
            of_all_kinds(&[None], &[None]),
            of_all_kinds(&[Some("")], &[Some(i64::MAX)]),
            of_all_kinds(&[Some(&long)], &[Some(-1)]),
            of_all_kinds(&[Some("a"), None, Some(&long), Some("d")], &[None, Some(2), Some(3), None]),
            of_all_kinds(&[Some("row"); 30], &(0..30).map(Some).collect::<Vec<_>>()),
            of_all_kinds(&[None, None, Some("c"), None, Some("e")], &[Some(1), None, Some(3), None, None]).slice(1, 3),
        ] {
            let message = short.encode(&schema, &rows).expect("it is short");
            let (metadata, body) = encoded(&schema, &rows);
            assert_eq!(message.header, metadata);
            assert_eq!(message.body[0].as_slice(), body);
        }
    }

    #[test]
    fn what_is_not_short_or_not_known_is_left_to_the_encoder() {
        let texts = |texts: &[&str]| batch(vec![Arc::new(StringViewArray::from_iter_values(texts)) as ArrayRef]);
        let (schema, short) = learned(&texts(&["a"]));
        assert!(short.encode(&schema, &texts(&["b", "c"])).is_some());
        let long = "x".repeat(BYTES_MAX);
        for other in [
            texts(&[]),
            texts(&[&long]),
            texts(&["x"; ROWS_MAX + 1]),
            batch(vec![Arc::new(Int64Array::from(vec![1])) as ArrayRef]),
            batch(vec![Arc::new(BinaryViewArray::from_iter_values([b"x"])) as ArrayRef]),
            batch(vec![Arc::new(StringArray::from(vec!["a"])) as ArrayRef, Arc::new(Int64Array::from(vec![1]))]),
        ] {
            assert!(short.encode(&schema, &other).is_none(), "{other:?}");
        }
        let nested =
            arrow::array::new_null_array(&DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), 1);
        let nested = batch(vec![nested]);
        let (schema, short) = learned(&nested);
        assert!(short.encode(&schema, &nested).is_none(), "a list");
    }

    #[test]
    fn a_null_that_was_announced_not_to_be_is_left_to_the_encoder() {
        let present = batch(vec![Arc::new(Int64Array::from(vec![1])) as ArrayRef]);
        let (_, short) = learned(&present);
        let strict = Schema::new(vec![Field::new("c0", DataType::Int64, false)]);
        assert!(short.encode(&strict, &present).is_some());
        assert!(short.encode(&strict, &batch(vec![Arc::new(Int64Array::from(vec![None])) as ArrayRef])).is_none());
    }
}
