//! What a client sends in a DoPut: parameters of prepared statements, and rows to ingest.
//!
//! Invariant: nothing a client can put into these bytes makes the server panic or answer anything but InvalidArgument.
//! The IPC decoder checks most of its input, but asserts on some (a buffer that reaches beyond its message, for
//! instance), so it runs where a panic is caught.

use std::panic::AssertUnwindSafe;

use arrow::array::{Array as _, ArrayRef};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future};
use tonic::Status;

use crate::status::refuse;

/// Batches from a client, all of one schema.
pub(crate) struct Upload {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, Status>>,
}

impl Upload {
    /// Reads up to the schema. `None`: the client sent a command and no data.
    pub(crate) async fn open(
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<Option<Self>, Status> {
        let messages = messages
            // The first message may carry nothing but the command.
            .try_filter(|message| future::ready(!message.data_header.is_empty() || !message.data_body.is_empty()))
            .map_err(FlightError::from)
            .and_then(|message| {
                // Of a body that nothing describes the rows would be missing, and nobody told.
                future::ready(match message.data_header.is_empty() {
                    true => Err(FlightError::from(malformed("a message has a body and no header"))),
                    false => Ok(message),
                })
            });
        let mut decoded = AssertUnwindSafe(FlightDataDecoder::new(messages)).catch_unwind().map(|item| match item {
            Ok(item) => item.map_err(to_status),
            Err(_panic) => Err(malformed("it contradicts itself")),
        });

        let schema = match decoded.try_next().await? {
            Some(DecodedFlightData { payload: DecodedPayload::Schema(schema), .. }) => schema,
            Some(_) => return Err(malformed("the schema must come first")),
            None => return Ok(None),
        };
        let batches = decoded.try_filter_map(|item| {
            future::ready(match item.payload {
                DecodedPayload::RecordBatch(batch) => Ok(Some(batch)),
                DecodedPayload::None => Ok(None),
                DecodedPayload::Schema(_) => Err(malformed("there is a second schema")),
            })
        });
        Ok(Some(Self { schema, batches: batches.boxed() }))
    }

    /// All rows as one batch, up to `bytes_max` of memory.
    pub(crate) async fn into_one_batch(mut self, bytes_max: usize) -> Result<RecordBatch, Status> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = self.batches.try_next().await? {
            // Not the buffers behind it: the columns of a message share one.
            bytes += batch.columns().iter().map(slice_bytes).sum::<usize>();
            if bytes > bytes_max {
                return Err(refuse("54000", format!("the parameters take more than {bytes_max} bytes"))
                    .hint("send fewer rows at a time, or use bulk ingest")
                    .into());
            }
            batches.push(batch);
        }
        concat_batches(&self.schema, &batches).map_err(|error| malformed(&error.to_string()))
    }
}

fn slice_bytes(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}

fn to_status(error: FlightError) -> Status {
    match error {
        // The connection broke or the client cancelled: not a matter of what it sent.
        FlightError::Tonic(status) => *status,
        other => malformed(&other.to_string()),
    }
}

fn malformed(reason: &str) -> Status {
    refuse("08P01", format!("malformed Arrow data: {reason}")).into()
}
