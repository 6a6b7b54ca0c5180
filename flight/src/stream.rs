//! From the engine's batches to Flight messages, which hold the batches' buffers as they are.
//!
//! Invariants: a batch is pulled from the engine only when the network has taken everything before it, so a client that
//! stops reading stops the query. A stream ends with its first error; a panic on the way is one.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::CompressionType;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

use crate::encoder::Encoder;
use crate::status::internal;
use crate::wire::Announced;

/// What DoGet answers with.
pub(crate) type FlightStream = BoxStream<'static, Result<Message, Status>>;

/// A Flight message whose body has not been copied together.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The Arrow message's metadata.
    pub(crate) header: Bytes,
    /// Its buffers, with the padding between them.
    pub(crate) body: Vec<Buffer>,
    /// What is said beside the rows.
    pub(crate) metadata: Bytes,
}

impl Message {
    pub(crate) fn new(header: Bytes, body: Vec<Buffer>) -> Self {
        Self { header, body, metadata: Bytes::new() }
    }
}

impl From<Message> for FlightData {
    fn from(message: Message) -> Self {
        let body: Vec<u8> = message.body.iter().flat_map(|buffer| buffer.as_slice()).copied().collect();
        let data = FlightData::new().with_data_header(message.header).with_data_body(body);
        data.with_app_metadata(message.metadata)
    }
}

/// How messages are compressed; `None`: not at all, which is fastest on one machine or a fast network.
pub(crate) type Compression = Option<CompressionType>;

/// Encodes batches of any equivalent schema as messages of the schema that was announced.
pub(crate) fn encode(
    announced: &Announced,
    compression: Compression,
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + Unpin + 'static,
) -> FlightStream {
    let encoder = match Encoder::new(announced, compression) {
        Ok(encoder) => encoder,
        Err(status) => return stream::iter([Err(status)]).boxed(),
    };
    let first = Message::new(announced.first(), Vec::new());
    Messages { queued: VecDeque::from([first]), encoder, batches: Some(batches) }.boxed()
}

/// A result set without rows and columns: what a statement answers that returns no rows, sent when it is done.
pub(crate) fn encode_nothing() -> FlightStream {
    match Announced::new(&Schema::empty()) {
        Ok(nothing) => encode(&nothing, None, stream::empty()),
        Err(status) => stream::iter([Err(status)]).boxed(),
    }
}

/// A result set that is there already.
pub(crate) fn encode_batch(batch: RecordBatch) -> Result<FlightStream, Status> {
    let announced = Announced::new(&batch.schema())?;
    Ok(encode(&announced, None, stream::iter([Ok(batch)])))
}

/// The messages of a result.
struct Messages<S> {
    queued: VecDeque<Message>,
    encoder: Encoder,
    /// `None` once they have ended.
    batches: Option<S>,
}

impl<S: Stream<Item = Result<RecordBatch, Status>> + Unpin> Messages<S> {
    /// Encodes the next batch, if there is one. `Ready(Ok(false))`: that was the last.
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        let Some(batches) = &mut self.batches else { return Poll::Ready(Ok(false)) };
        match batches.poll_next_unpin(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(false)),
            Poll::Ready(Some(batch)) => {
                Poll::Ready(batch.and_then(|batch| self.encoder.encode(batch, &mut self.queued)).map(|()| true))
            }
        }
    }
}

impl<S: Stream<Item = Result<RecordBatch, Status>> + Unpin> Stream for Messages<S> {
    type Item = Result<Message, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.queued.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            match contained(|| self.poll_batch(context)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.batches = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Err(status)) => {
                    self.batches = None;
                    self.queued.clear();
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}

/// Polls so that a panic is an error: one broken query must not take its connection, and with it the other requests of the
/// client, down.
pub(crate) fn contained<T>(poll: impl FnOnce() -> Poll<Result<T, Status>>) -> Poll<Result<T, Status>> {
    let polled = catch_unwind(AssertUnwindSafe(poll));
    polled.unwrap_or_else(|panic| Poll::Ready(Err(internal(panic_text(panic.as_ref())))))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{
        Array as _, ArrayRef, AsArray as _, BinaryViewArray, DictionaryArray, Int64Array, StringArray, StringViewArray,
        new_empty_array,
    };
    use arrow::datatypes::{DataType, Field, Int8Type, SchemaRef};
    use arrow::record_batch::RecordBatchOptions;
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::TryStreamExt;

    use crate::encoder::MESSAGE_BYTES_TARGET;
    use crate::wire::wire_schema;

    fn announce(schema: &Schema) -> Arc<Announced> {
        Announced::new(schema).expect("it has an IPC form")
    }

    fn nested(leaf: DataType) -> DataType {
        let item = Arc::new(Field::new("item", leaf, true));
        DataType::Struct(vec![Field::new("list", DataType::List(item), true)].into())
    }

    async fn round_trip(schema: SchemaRef, batches: Vec<RecordBatch>) -> (SchemaRef, Vec<RecordBatch>, usize) {
        let messages: Vec<_> = encode(&announce(&schema), None, stream::iter(batches.into_iter().map(Ok)))
            .try_collect()
            .await
            .expect("ok");
        let count = messages.len();
        let mut decoded = FlightRecordBatchStream::new_from_flight_data(stream::iter(
            messages.into_iter().map(|message| Ok(FlightData::from(message))),
        ));
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
            let messages: Vec<_> = encode(&announce(&schema), None, stream::iter([Ok(batch(sent))])).collect().await;
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
        let messages: Vec<_> = encode(&announce(&schema), None, panicking).collect().await;
        assert_eq!(messages.len(), 2);
        let status = messages[1].as_ref().expect_err("a status");
        assert_eq!(status.message(), "[XX000] internal error: broken operator");
    }
}
