//! From the engine's batches to Flight messages.
//!
//! The engine uses the Arrow types that are fastest to compute with; many clients know only the older ones. At this
//! edge, and only here, they are exchanged:
//!
//! ```text
//! Utf8View -> Utf8           Dictionary(_, V) -> V         LargeList, ListView, LargeListView -> List
//! BinaryView -> Binary       RunEndEncoded(_, V) -> V                                   (at any depth)
//! ```
//!
//! Invariants: [`wire_schema`] is announced, and exactly that schema is sent. A batch is pulled from the engine only
//! when the network has taken everything before it, so a client that stops reading stops the query. Messages are
//! about [`MESSAGE_BYTES_TARGET`], measured on the rows sent, not on the buffers they are a slice of.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use tonic::Status;

use crate::status::{internal, refuse};

/// What DoGet answers with.
pub(crate) type FlightStream = BoxStream<'static, Result<FlightData, Status>>;

/// Large enough that the cost per message disappears, small enough for the 4 MiB limit that gRPC clients start with.
const MESSAGE_BYTES_TARGET: usize = 2 << 20;

/// Schema and field metadata of the catalog's own, which is nobody else's business.
const PRIVATE_METADATA_PREFIX: &str = "rustydb.";

/// The schema as clients see it.
pub(crate) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(wire_field).collect();
    Arc::new(Schema::new_with_metadata(fields, public(schema.metadata())))
}

fn public(metadata: &HashMap<String, String>) -> HashMap<String, String> {
    let mut metadata = metadata.clone();
    metadata.retain(|key, _| !key.starts_with(PRIVATE_METADATA_PREFIX));
    metadata
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(public(field.metadata())))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        // The encoder announces large lists as lists; so do we.
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(wire_field(item))
        }
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(wire_field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

/// A schema as the protocol embeds it in other messages.
pub(crate) fn schema_message(schema: &Schema) -> Result<Bytes, Status> {
    let IpcMessage(bytes) =
        SchemaAsIpc::new(schema, &Default::default()).try_into().map_err(|error: arrow::error::ArrowError| {
            refuse("0A000", format!("the result's schema has no Arrow IPC form: {error}"))
        })?;
    Ok(bytes)
}

/// How messages are compressed; `None`: not at all, which is fastest on one machine or a fast network.
pub(crate) type Compression = Option<CompressionType>;

/// Encodes batches of any equivalent schema as messages of `schema`, which must be a [`wire_schema`].
pub(crate) fn encode(
    schema: SchemaRef,
    compression: Compression,
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
) -> FlightStream {
    let options = match IpcWriteOptions::default().try_with_compression(compression) {
        Ok(options) => options,
        Err(error) => return stream::iter([Err(internal(error))]).boxed(),
    };
    let target = Arc::clone(&schema);
    let wire_batches = batches
        .map_ok(move |batch| stream::iter(to_wire(batch, &target).map_err(FlightError::from).transpose_each()))
        .map_err(FlightError::from)
        .try_flatten();
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_options(options)
        // Batches arrive here in the right size. The encoder would measure whole buffers and cut a small slice of a
        // large one into single rows.
        .with_max_flight_data_size(usize::MAX)
        .build(wire_batches)
        .map_err(Status::from);
    contain_panics(messages)
}

/// A result set without rows and columns: what a statement answers that returns no rows, sent when it is done.
pub(crate) fn encode_nothing() -> FlightStream {
    encode(Arc::new(Schema::empty()), None, stream::empty())
}

/// A result set that is there already.
pub(crate) fn encode_batch(batch: RecordBatch) -> FlightStream {
    let schema = wire_schema(&batch.schema());
    encode(schema, None, stream::iter([Ok(batch)]))
}

/// Turns one failed conversion into a stream of one error.
trait TransposeEach<T, E> {
    fn transpose_each(self) -> Vec<Result<T, E>>;
}

impl<T, E> TransposeEach<T, E> for Result<Vec<T>, E> {
    fn transpose_each(self) -> Vec<Result<T, E>> {
        match self {
            Ok(items) => items.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    }
}

/// Ends the stream with an internal error if producing it panics: one broken query must not take its connection, and
/// with it the other requests of the client, down.
fn contain_panics(messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> FlightStream {
    AssertUnwindSafe(messages)
        .catch_unwind()
        .map(|message| message.unwrap_or_else(|panic| Err(internal(panic_text(panic.as_ref())))))
        // After an error the gRPC stream is over; nothing must follow it.
        .scan(false, |failed, message| {
            let next = (!*failed).then_some(message);
            *failed |= next.as_ref().is_some_and(Result::is_err);
            future::ready(next)
        })
        .boxed()
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic").to_owned()
}

/// The rows of `batch` with the columns of `schema`, cut into messages of sensible size.
fn to_wire(batch: RecordBatch, schema: &SchemaRef) -> Result<Vec<RecordBatch>, Status> {
    let mut pieces = Vec::with_capacity(1);
    // Cut before converting: a piece is then far from the 2 GiB of text that a Utf8 array can hold.
    split(batch, &mut pieces);
    pieces.into_iter().map(|piece| convert(&piece, schema)).collect()
}

fn split(batch: RecordBatch, pieces: &mut Vec<RecordBatch>) {
    let bytes: usize = batch.columns().iter().map(slice_bytes).sum();
    if bytes <= MESSAGE_BYTES_TARGET || batch.num_rows() <= 1 {
        pieces.push(batch);
        return;
    }
    // As many equal pieces as are needed if rows were alike; where they are not, the large piece is cut again.
    let rows = (batch.num_rows() / bytes.div_ceil(MESSAGE_BYTES_TARGET)).max(1);
    for start in (0..batch.num_rows()).step_by(rows) {
        split(batch.slice(start, rows.min(batch.num_rows() - start)), pieces);
    }
}

/// Bytes of the rows in this slice, on the wire.
fn slice_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().lengths().map(|length| length as usize + 4).sum(),
        DataType::BinaryView => column.as_binary_view().lengths().map(|length| length as usize + 4).sum(),
        // These are written out; their keys say nothing about that size, their values at least something.
        DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _) => column.get_array_memory_size(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    }
}

fn convert(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Status> {
    if batch.num_columns() != schema.fields().len() {
        return Err(internal("a result has other columns than were announced"));
    }
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(match column.data_type() == field.data_type() {
            true => Arc::clone(column),
            false => exchange(column, field)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| internal(format!("a result does not fit its announced schema: {error}")))
}

/// The column in the type that was announced. A value that has no place there is an error, never a NULL.
fn exchange(column: &ArrayRef, field: &Field) -> Result<ArrayRef, Status> {
    let (from, to) = (column.data_type(), field.data_type());
    // No type but NULL itself fits a column announced as nothing but NULL, although some casts pretend to.
    if *to == DataType::Null || !can_cast_types(from, to) {
        let message = format!("column \"{}\" of type {from} was announced as {to}", field.name());
        return Err(refuse("0A000", message).hint("say the type in the statement: CAST(… AS …)").into());
    }
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() }).map_err(|error| {
        let message = format!("a value of column \"{}\" does not fit the announced type {to}: {error}", field.name());
        refuse("22003", message).hint("say the type in the statement: CAST(… AS …)").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryViewArray, DictionaryArray, Int64Array, StringArray, StringViewArray, new_empty_array};
    use arrow::datatypes::Int8Type;
    use arrow_flight::decode::FlightRecordBatchStream;

    fn nested(leaf: DataType) -> DataType {
        let item = Arc::new(Field::new("item", leaf, true));
        DataType::Struct(vec![Field::new("list", DataType::List(item), true)].into())
    }

    async fn round_trip(schema: SchemaRef, batches: Vec<RecordBatch>) -> (SchemaRef, Vec<RecordBatch>, usize) {
        let messages: Vec<_> =
            encode(schema, None, stream::iter(batches.into_iter().map(Ok))).try_collect().await.expect("ok");
        let count = messages.len();
        let mut decoded = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages.into_iter().map(Ok)));
        let mut batches = Vec::new();
        while let Some(batch) = decoded.next().await {
            batches.push(batch.expect("decodes"));
        }
        (Arc::clone(decoded.schema().expect("schema first")), batches, count)
    }

    #[tokio::test]
    async fn what_is_sent_has_the_announced_schema() {
        let dictionary: DictionaryArray<Int8Type> = vec!["a", "b", "a"].into_iter().collect();
        let deep = nested(DataType::Utf8View);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringViewArray::from(vec![Some("short"), None, Some("a text longer than twelve")]))),
            ("bytes", Arc::new(BinaryViewArray::from(vec![Some(b"x".as_slice()), None, Some(b"yy")]))),
            ("dictionary", Arc::new(dictionary)),
            ("deep", arrow::array::new_null_array(&deep, 3)),
            ("number", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).expect("ok");
        let announced = wire_schema(&batch.schema());
        assert_eq!(*announced.field(0).data_type(), DataType::Utf8);
        assert_eq!(*announced.field(3).data_type(), nested(DataType::Utf8));

        let (sent, batches, _) = round_trip(Arc::clone(&announced), vec![batch]).await;
        assert_eq!(sent, announced);
        assert_eq!(batches[0].num_rows(), 3);
        assert_eq!(batches[0].column(0).as_string::<i32>().value(2), "a text longer than twelve");
        assert_eq!(batches[0].column(2).as_string::<i32>().value(1), "b");
    }

    #[tokio::test]
    async fn a_value_that_does_not_fit_is_an_error_and_never_null() {
        let batch = |column: ArrayRef| RecordBatch::try_from_iter([("a", column)]).expect("ok");
        for (announced, sent, sqlstate) in [
            (DataType::Int8, Arc::new(Int64Array::from(vec![1, 300])) as ArrayRef, "22003"),
            (DataType::Null, Arc::new(Int64Array::from(vec![1])), "0A000"),
            (DataType::Boolean, Arc::new(BinaryViewArray::from(vec![Some(b"x".as_slice())])), "0A000"),
        ] {
            let schema = Arc::new(Schema::new(vec![Field::new("a", announced, true)]));
            let messages: Vec<_> = encode(schema, None, stream::iter([Ok(batch(sent))])).collect().await;
            let status = messages[1].as_ref().expect_err("refused");
            assert!(status.message().starts_with(&format!("[{sqlstate}]")), "{status:?}");
        }
    }

    #[tokio::test]
    async fn an_empty_result_still_sends_its_schema() {
        let schema = wire_schema(&Schema::new(vec![Field::new("a", DataType::Utf8View, true)]));
        let (sent, batches, _) = round_trip(Arc::clone(&schema), vec![]).await;
        assert_eq!(sent, schema);
        assert!(batches.is_empty());
        assert_eq!(new_empty_array(sent.field(0).data_type()).len(), 0);
    }

    #[tokio::test]
    async fn large_batches_are_cut_and_small_slices_of_large_ones_are_not() {
        let wide = "x".repeat(10_000);
        let batch = RecordBatch::try_from_iter([(
            "text",
            Arc::new(StringViewArray::from_iter_values((0..1_000).map(|_| wide.as_str()))) as ArrayRef,
        )])
        .expect("ok");
        let schema = wire_schema(&batch.schema());
        let (_, batches, _) = round_trip(Arc::clone(&schema), vec![batch.clone()]).await;
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1_000);
        assert!(batches.len() >= 5);
        assert!(batches.iter().all(|batch| batch.column(0).get_buffer_memory_size() <= 2 * MESSAGE_BYTES_TARGET));

        let plain = RecordBatch::try_from_iter([(
            "text",
            Arc::new(StringArray::from_iter_values((0..1_000).map(|_| wide.as_str()))) as ArrayRef,
        )])
        .expect("ok");
        let (_, batches, messages) = round_trip(wire_schema(&plain.schema()), vec![plain.slice(500, 10)]).await;
        assert_eq!((batches.len(), messages), (1, 2), "one schema, one batch");
    }

    #[tokio::test]
    async fn rows_without_columns_keep_their_number() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).expect("ok");
        let (_, batches, _) = round_trip(schema, vec![batch]).await;
        assert_eq!(batches[0].num_rows(), 7);
    }

    #[tokio::test]
    async fn a_panic_or_error_ends_the_stream_with_one_status() {
        let schema = Arc::new(Schema::empty());
        let panicking = stream::iter([()]).map(|()| -> Result<RecordBatch, Status> { panic!("broken operator") });
        let messages: Vec<_> = encode(schema, None, panicking).collect().await;
        assert_eq!(messages.len(), 2);
        let status = messages[1].as_ref().expect_err("a status");
        assert_eq!(status.message(), "[XX000] internal error: broken operator");
    }

    #[test]
    fn private_field_metadata_stays_at_home() {
        let metadata = [("rustydb.default", "1"), ("public", "yes")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let field = Field::new("a", DataType::Int64, false).with_metadata(metadata.into());
        let wire = wire_schema(&Schema::new(vec![field]));
        assert_eq!(wire.field(0).metadata().len(), 1);
        assert!(!wire.field(0).is_nullable());
    }
}
