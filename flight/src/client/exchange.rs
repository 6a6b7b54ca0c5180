//! A prepared statement's stream to the server (DoExchange): parameters out, rows back, one execution after the other.
//!
//! Invariant: an exchange is used by one execution at a time, and given back only when that has been read to its end; one
//! that failed or was left in the middle is closed, which stops the work on the server.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandPreparedStatementQuery, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Streaming};

use super::{RemoteClient, RemoteError, Result};

/// Where a statement's exchange waits between two executions.
pub(super) type Waiting = Arc<Mutex<Option<Exchange>>>;

/// An open exchange.
pub(super) struct Exchange {
    /// The parameters it was opened for.
    parameters: SchemaRef,
    requests: mpsc::UnboundedSender<FlightData>,
    answers: Answers,
    encoder: ParameterEncoder,
    /// `None`: there are too many, and it is closed after one execution.
    permit: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

enum Answers {
    Rows(FlightDataDecoder),
    /// Messages without rows, which the decoder does not know.
    Counts(Box<Streaming<FlightData>>),
}

struct ParameterEncoder {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
}

impl Exchange {
    /// Opens an exchange and has the statement executed with its first parameters.
    pub(super) async fn open(
        client: &RemoteClient,
        handle: Bytes,
        rows: &RecordBatch,
        returns_rows: bool,
    ) -> Result<Self> {
        let mut encoder = ParameterEncoder {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            options: IpcWriteOptions::default(),
        };
        let (requests, receiver) = mpsc::unbounded();
        let command = CommandPreparedStatementQuery { prepared_statement_handle: handle };
        let first = encoder.schema(&rows.schema());
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        send(&requests, first.with_descriptor(descriptor))?;
        encoder.send(rows, &requests)?;
        let mut request = Request::new(receiver);
        request.metadata_mut().insert("authorization", client.authorization.clone());
        let answers = client.client.inner().clone().do_exchange(request).await?.into_inner();
        let permit = Arc::clone(&client.exchanges).try_acquire_owned().ok();
        let answers = match returns_rows {
            true => Answers::Rows(FlightDataDecoder::new(answers.map_err(FlightError::from))),
            false => Answers::Counts(Box::new(answers)),
        };
        Ok(Self { parameters: rows.schema(), requests, answers, encoder, permit })
    }

    /// Whether it takes these parameters.
    pub(super) fn suits(&self, rows: &RecordBatch) -> bool {
        self.parameters == rows.schema()
    }

    /// Has the statement executed with these parameters.
    pub(super) fn execute(&mut self, rows: &RecordBatch) -> Result<()> {
        self.encoder.send(rows, &self.requests)
    }

    /// The schema of the rows, which comes before the first of them.
    pub(super) async fn schema(&mut self) -> Result<SchemaRef> {
        let Answers::Rows(answers) = &mut self.answers else { return Err(unannounced()) };
        loop {
            if let Some(schema) = answers.schema() {
                return Ok(Arc::clone(schema));
            }
            answers.next().await.unwrap_or_else(|| Err(broken_off().into()))?;
        }
    }

    /// Waits for the end of an execution without rows, and gives the exchange back.
    pub(super) async fn count(mut self, waiting: &Waiting) -> Result<u64> {
        let Answers::Counts(answers) = &mut self.answers else { return Err(unannounced()) };
        loop {
            let message = answers.message().await?.ok_or_else(broken_off)?;
            if let Some(count) = end(&message.app_metadata)? {
                self.give_back(waiting);
                return Ok(count);
            }
        }
    }

    /// The rows of the execution.
    pub(super) fn rows(self, waiting: &Waiting) -> ExchangeRows {
        ExchangeRows { exchange: Some(self), waiting: Arc::clone(waiting) }
    }

    fn give_back(self, waiting: &Waiting) {
        if self.permit.is_some() {
            *waiting.lock() = Some(self);
        }
    }
}

impl ParameterEncoder {
    fn schema(&mut self, schema: &SchemaRef) -> FlightData {
        let encoded =
            self.generator.schema_to_bytes_with_dictionary_tracker(schema, &mut self.dictionaries, &self.options);
        FlightData::from(encoded)
    }

    fn send(&mut self, rows: &RecordBatch, requests: &mpsc::UnboundedSender<FlightData>) -> Result<()> {
        let encoded = self.generator.encode(rows, &mut self.dictionaries, &self.options, &mut self.context);
        let (dictionaries, data) = encoded.map_err(FlightError::from)?;
        for dictionary in dictionaries {
            send(requests, dictionary.into())?;
        }
        send(requests, data.into())
    }
}

fn send(requests: &mpsc::UnboundedSender<FlightData>, data: FlightData) -> Result<()> {
    // The other end is gone when the server has ended the exchange.
    requests.unbounded_send(data).map_err(|_| RemoteError::from(broken_off()))
}

fn broken_off() -> tonic::Status {
    tonic::Status::unavailable("the server has ended the exchange")
}

fn unannounced() -> RemoteError {
    RemoteError::local("08P01", "the server answered with something else than it had announced")
}

/// The count of an execution, if this comes with its last message.
fn end(metadata: &Bytes) -> Result<Option<u64>> {
    if metadata.is_empty() {
        return Ok(None);
    }
    let result = DoPutUpdateResult::decode(metadata.clone());
    let count = result.map_err(|error| FlightError::DecodeError(error.to_string()))?.record_count;
    Ok(Some(u64::try_from(count).unwrap_or(0)))
}

/// The rows of one execution.
#[derive(Debug)]
pub(super) struct ExchangeRows {
    /// `None` once they have ended.
    exchange: Option<Exchange>,
    waiting: Waiting,
}

impl Stream for ExchangeRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
            let message = match &mut exchange.answers {
                Answers::Rows(answers) => ready!(answers.poll_next_unpin(context)),
                Answers::Counts(_) => None,
            };
            let message = message.unwrap_or_else(|| Err(broken_off().into())).map_err(RemoteError::from);
            let read = |message: DecodedFlightData| {
                Ok::<_, RemoteError>((end(&message.inner.app_metadata)?.is_some(), message))
            };
            let (message, is_end) = match message.and_then(read) {
                Ok((is_end, message)) => (message, is_end),
                Err(error) => {
                    self.exchange = None;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            if is_end && let Some(exchange) = self.exchange.take() {
                exchange.give_back(&self.waiting);
            }
            if let DecodedPayload::RecordBatch(batch) = message.payload {
                return Poll::Ready(Some(Ok(batch)));
            }
        }
    }
}
