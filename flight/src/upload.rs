//! What a client sends in a DoPut or a DoExchange: parameters of prepared statements, and rows to ingest.
//!
//! Clients execute a prepared statement again and again, and send the schema of its parameters each time. Decoding it takes
//! longer than decoding a row, so who has seen one says so ([`KnownSchema`]), and the same bytes are not decoded again.
//!
//! Invariant: nothing a client can put into these bytes makes the server panic, take memory that was not sent, or answer
//! anything but InvalidArgument and ResourceExhausted, and Unimplemented for numbers in another byte order. What a message
//! claims is looked at first ([`claims`]). The IPC decoder checks most of its input, but asserts on some (a buffer that
//! reaches beyond its message, for instance), so it runs where a panic is caught. It checks no numbers: those that their
//! types cannot have are refused here ([`values`]).

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{Array as _, ArrayRef};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow::ipc::{MessageHeader, root_as_message};
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use tonic::Status;

use crate::status::refuse;
use crate::{claims, values};

/// Arrow wants buffers to be aligned like this; a message's body lies where the network put it.
const ALIGNMENT_BYTES: usize = 64;
/// What is shorter is copied: it would keep all that was read with it in memory, which nobody counts.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// A schema together with the Arrow message it was decoded from.
#[derive(Clone)]
pub(crate) struct KnownSchema {
    pub(crate) message: Bytes,
    pub(crate) schema: SchemaRef,
}

/// Batches from a client, all of one schema.
pub(crate) struct Upload<S> {
    pub(crate) sent: KnownSchema,
    messages: S,
    dictionaries: HashMap<i64, ArrayRef>,
    /// How many arrays the schema's rows consist of.
    arrays: usize,
    /// What a message may stand for.
    message_bytes: usize,
}

impl<S: Stream<Item = Result<FlightData, Status>> + Unpin> Upload<S> {
    /// Reads up to the schema. `None`: the client sent a command and no data. A message may be `message_bytes` long, and
    /// stand for no more.
    pub(crate) async fn open(
        mut messages: S,
        known: Option<KnownSchema>,
        message_bytes: usize,
    ) -> Result<Option<Self>, Status> {
        while let Some(message) = messages.try_next().await? {
            if has_data(&message)? {
                let sent = match known {
                    Some(known) if known.message == message.data_header => known,
                    _ => decode_schema(message.data_header)?,
                };
                let arrays = claims::arrays_of(&sent.schema);
                return Ok(Some(Self { sent, messages, dictionaries: HashMap::new(), arrays, message_bytes }));
            }
        }
        Ok(None)
    }

    /// All rows as one batch, up to `bytes_max` of memory. What has come is reserved until all has: many clients, each of which
    /// sends nearly as much and never the end, would take any amount otherwise.
    pub(crate) async fn into_one_batch<P>(
        mut self,
        bytes_max: usize,
        reserve: impl Fn(usize) -> Result<P, Status>,
    ) -> Result<RecordBatch, Status> {
        let mut batches = Vec::with_capacity(1);
        let mut reserved = Vec::with_capacity(1);
        let mut bytes = 0;
        while let Some(batch) = self.try_next().await? {
            // One without rows takes memory that nobody counts, and there is no end of them.
            if batch.num_rows() == 0 {
                continue;
            }
            let more_bytes = row_bytes(&batch);
            bytes += more_bytes;
            if bytes > bytes_max {
                return Err(refuse("54000", format!("the parameters take more than {bytes_max} bytes"))
                    .hint("send fewer rows at a time, or use bulk ingest")
                    .into());
            }
            reserved.push(reserve(more_bytes)?);
            batches.push(batch);
        }
        match batches.len() {
            1 => Ok(batches.remove(0)),
            _ => concat_batches(&self.sent.schema, &batches).map_err(|error| malformed(&error)),
        }
    }
}

impl<S: Stream<Item = Result<FlightData, Status>> + Unpin> Stream for Upload<S> {
    type Item = Result<RecordBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { sent, messages, dictionaries, arrays, message_bytes } = &mut *self;
        loop {
            let Some(message) = ready!(messages.try_poll_next_unpin(context)?) else { return Poll::Ready(None) };
            if has_data(&message)?
                && let Some(batch) = decode_rows(&sent.schema, *arrays, dictionaries, &message, *message_bytes)?
            {
                return Poll::Ready(Some(Ok(batch)));
            }
        }
    }
}

/// Whether there is anything to decode: the first message may carry nothing but the command.
fn has_data(message: &FlightData) -> Result<bool, Status> {
    match (message.data_header.is_empty(), message.data_body.is_empty()) {
        (false, _) => Ok(true),
        (true, true) => Ok(false),
        // Of a body that nothing describes the rows would be missing, and nobody told.
        (true, false) => Err(malformed("a message has a body and no header")),
    }
}

fn decode_schema(message: Bytes) -> Result<KnownSchema, Status> {
    contained(|| {
        let root = root_as_message(&message).map_err(malformed)?;
        let schema = root.header_as_schema().ok_or_else(|| malformed("the schema must come first"))?;
        // The decoder reads numbers as this machine writes them, whatever the schema says: all would be others.
        if !schema.endianness().equals_to_target_endianness() {
            return Err(refuse("0A000", "Arrow data in another byte order than the server's is not supported")
                .hint("send it in little-endian byte order")
                .into());
        }
        let schema = Arc::new(fb_to_schema(schema));
        // A copy, since the original is a part of all that was read with it.
        Ok(KnownSchema { message: Bytes::copy_from_slice(&message), schema })
    })
}

/// The rows of a message, if it has any: dictionaries are kept for those that come later.
fn decode_rows(
    schema: &SchemaRef,
    arrays: usize,
    dictionaries: &mut HashMap<i64, ArrayRef>,
    message: &FlightData,
    bytes_max: usize,
) -> Result<Option<RecordBatch>, Status> {
    contained(|| {
        let root = root_as_message(&message.data_header).map_err(malformed)?;
        match root.header_type() {
            MessageHeader::NONE => Ok(None),
            MessageHeader::RecordBatch => {
                let batch = root.header_as_record_batch().ok_or_else(|| malformed("a batch has no header"))?;
                claims::check(batch, Some(arrays), &message.data_body, bytes_max)?;
                let (body, version) = (aligned(&message.data_body), root.version());
                let decoder = RecordBatchDecoder::try_new(&body, batch, Arc::clone(schema), dictionaries, &version);
                let rows = decoder.and_then(RecordBatchDecoder::read_record_batch).map_err(malformed)?;
                values::check(&rows)?;
                Ok(Some(rows))
            }
            MessageHeader::DictionaryBatch => {
                let batch = root.header_as_dictionary_batch().ok_or_else(|| malformed("a dictionary has no header"))?;
                let values = batch.data().ok_or_else(|| malformed("a dictionary has no values"))?;
                claims::check(values, None, &message.data_body, bytes_max)?;
                let body = aligned(&message.data_body);
                read_dictionary(&body, batch, schema, dictionaries, &root.version()).map_err(malformed)?;
                claims::check_dictionaries(dictionaries.values(), bytes_max)?;
                Ok(None)
            }
            MessageHeader::Schema => Err(malformed("there is a second schema")),
            other => Err(malformed(format!("a message is a {}", other.variant_name().unwrap_or("thing unknown")))),
        }
    })
}

/// The body as it lies, if it lies well and is long.
fn aligned(body: &Bytes) -> Buffer {
    match body.len() > COPIED_BYTES_MAX && (body.as_ptr() as usize).is_multiple_of(ALIGNMENT_BYTES) {
        true => Buffer::from(body.clone()),
        false => Buffer::from(body.as_ref()),
    }
}

thread_local! {
    static IS_DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread decodes what a client has sent. A panic is the client's fault then: it is told, and there is nothing for
/// the server's log.
pub fn is_decoding() -> bool {
    IS_DECODING.get()
}

/// Decodes so that a panic is the client's fault.
fn contained<T>(decode: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    IS_DECODING.set(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    IS_DECODING.set(false);
    decoded.unwrap_or_else(|_panic| Err(malformed("it contradicts itself")))
}

/// The memory of rows that were sent. Not what their buffers say: those of a message share its bytes, and each would count all of them.
pub(crate) fn row_bytes(rows: &RecordBatch) -> usize {
    let bytes =
        |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    rows.columns().iter().map(bytes).sum()
}

pub(crate) fn malformed(reason: impl std::fmt::Display) -> Status {
    refuse("08P01", format!("malformed Arrow data: {reason}")).into()
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::ipc::convert::IpcSchemaEncoder;
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow::ipc::{Endianness, MessageBuilder, MetadataVersion, SchemaBuilder};
    use arrow_flight::SchemaAsIpc;
    use arrow_flight::utils::batches_to_flight_data;
    use futures::stream;

    use super::*;

    fn messages(values: &[i64]) -> Vec<FlightData> {
        let batch = RecordBatch::try_from_iter([("p", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]);
        let batch = batch.expect("one column");
        batches_to_flight_data(&batch.schema(), vec![batch]).expect("it has an IPC form")
    }

    /// Memory that nobody counts.
    fn free(_bytes: usize) -> Result<(), Status> {
        Ok(())
    }

    async fn open(
        messages: Vec<FlightData>,
        known: Option<KnownSchema>,
    ) -> Result<Option<Upload<impl Stream<Item = Result<FlightData, Status>> + Unpin>>, Status> {
        Upload::open(stream::iter(messages.into_iter().map(Ok)), known, 1 << 20).await
    }

    #[tokio::test]
    async fn a_schema_that_is_known_is_not_decoded_again() {
        let first = open(messages(&[1]), None).await.expect("ok").expect("data");
        let known = first.sent.clone();
        let second = open(messages(&[2]), Some(known.clone())).await.expect("ok").expect("data");
        assert!(Arc::ptr_eq(&second.sent.schema, &known.schema));
        let rows = second.into_one_batch(1_000, free).await.expect("rows");
        assert_eq!(rows.column(0).to_data(), Int64Array::from(vec![2]).to_data());
        let other = Schema::new(vec![Field::new("q", DataType::Int64, false)]);
        let other = FlightData::from(SchemaAsIpc::new(&other, &IpcWriteOptions::default()));
        let third = open(vec![other], Some(known)).await.expect("ok").expect("data");
        assert_eq!(third.sent.schema.field(0).name(), "q");
        assert_eq!(third.into_one_batch(1_000, free).await.expect("no rows").num_rows(), 0);
    }

    #[tokio::test]
    async fn messages_without_data_are_passed_over_and_the_limit_is_of_all_rows() {
        let [schema, rows]: [FlightData; 2] = messages(&[1, 2, 3]).try_into().expect("a schema and a batch");
        let nothing = FlightData::new;
        assert!(open(vec![nothing(), nothing()], None).await.expect("ok").is_none());
        let sent = vec![nothing(), schema, nothing(), rows.clone(), nothing(), rows];
        let upload = open(sent.clone(), None).await.expect("ok").expect("data");
        assert_eq!(upload.into_one_batch(48, free).await.expect("6 numbers").num_rows(), 6);
        let upload = open(sent.clone(), None).await.expect("ok").expect("data");
        let refused = upload.into_one_batch(47, free).await.expect_err("6 numbers");
        assert!(refused.message().starts_with("[54000]"), "{refused:?}");

        // The second message finds no memory that nobody has.
        let left = Cell::new(40_usize);
        let take = |bytes: usize| -> Result<(), Status> {
            let rest = left.get().checked_sub(bytes).ok_or_else(|| refuse("53200", "all is taken"))?;
            left.set(rest);
            Ok(())
        };
        let upload = open(sent, None).await.expect("ok").expect("data");
        let refused = upload.into_one_batch(48, take).await.expect_err("6 numbers");
        assert!(refused.message().starts_with("[53200]"), "{refused:?}");
        assert_eq!(left.get(), 16);
    }

    #[tokio::test]
    async fn batches_without_rows_are_not_kept() {
        let [schema, row, nothing]: [FlightData; 3] = {
            let row = RecordBatch::try_from_iter([("p", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
            let row = row.expect("one column");
            let batches = vec![row.clone(), row.slice(0, 0)];
            let messages = batches_to_flight_data(&row.schema(), batches).expect("it has an IPC form");
            messages.try_into().expect("a schema and two batches")
        };
        let taken = Cell::new(0);
        let take = |_bytes: usize| -> Result<(), Status> {
            taken.set(taken.get() + 1);
            Ok(())
        };
        let sent = [vec![schema], vec![nothing.clone(); 100], vec![row], vec![nothing]].concat();
        let upload = open(sent, None).await.expect("ok").expect("data");
        assert_eq!(upload.into_one_batch(1_000, take).await.expect("one row").num_rows(), 1);
        assert_eq!(taken.get(), 1);
    }

    #[test]
    fn a_panic_of_the_decoder_is_known_to_be_the_clients() {
        let was_decoding = Cell::new(false);
        let refused = contained(|| -> Result<(), Status> {
            was_decoding.set(is_decoding());
            std::panic::resume_unwind(Box::new("as the decoder does"))
        });
        assert!(refused.expect_err("refused").message().starts_with("[08P01]"));
        assert!(was_decoding.get() && !is_decoding());
    }

    /// The message of a schema as a machine writes it whose numbers begin with their highest byte.
    fn big_endian_schema() -> FlightData {
        let mut builder = IpcSchemaEncoder::new().schema_to_fb(&Schema::empty());
        builder.reset();
        let mut schema = SchemaBuilder::new(&mut builder);
        schema.add_endianness(Endianness::Big);
        let schema = schema.finish();
        let mut message = MessageBuilder::new(&mut builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(MessageHeader::Schema);
        message.add_header(schema.as_union_value());
        let message = message.finish();
        builder.finish(message, None);
        FlightData::new().with_data_header(Bytes::copy_from_slice(builder.finished_data()))
    }

    #[tokio::test]
    async fn numbers_in_another_byte_order_are_refused_and_not_read_as_others() {
        let refused = open(vec![big_endian_schema()], None).await.err().expect("refused");
        assert!(refused.message().starts_with("[0A000]"), "{refused:?}");
    }
}
