//! DoExchange: a prepared statement that is executed again and again on one stream.
//!
//! ```text
//! client                                                server
//! descriptor: CommandPreparedStatementQuery or …Update
//! schema of the parameters                    ──────>
//! parameters: a batch                         ──────>   executed once per row
//!                                             <──────   schema, rows, app_metadata: that was all of it
//! parameters                                  ──────>
//!                                             <──────   rows, app_metadata
//! ```
//!
//! Flight SQL has two calls for a prepared query with parameters, and drivers make three: parameters, ticket, rows. Of a row
//! by its key, HTTP/2 is then most of the work. Here an execution is a message each way. What is sent back, and how a client
//! knows where an execution ends, is in [`crate::answers`].
//!
//! Invariants: executions come one after the other, in the order of their parameters, and the next one starts when the
//! client has taken the rows of the one before; one that has begun goes on whatever the client does. Each finds rights, session
//! and transaction as a call of its own would: none runs for a user who has been dropped since. The first error ends the
//! exchange.

use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::sql::Command;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tonic::Status;

use super::SqlService;
use super::dispatch::not_supported;
use super::execution::{Begun, Parameters};
use super::poll::decode_command;
use crate::answers::{Piece, answers};
use crate::auth::Caller;
use crate::onward::onward;
use crate::running::{Batches, shutting_down};
use crate::status::refuse;
use crate::stream::FlightStream;
use crate::upload::Upload;
use crate::wire::Announced;

/// What is executed.
struct Exchange {
    service: Arc<SqlService>,
    caller: Caller,
    handle: Vec<u8>,
    /// The schema of its rows, as announced; `None`: it returns none.
    announced: Option<Arc<Announced>>,
}

impl SqlService {
    /// Answers DoExchange. Nothing is waited for before the answer begins: a client may want to see it before it sends.
    pub(crate) fn exchange(
        self: &Arc<Self>,
        caller: &Caller,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> FlightStream {
        let (service, caller) = (Arc::clone(self), caller.clone());
        stream::once(onward(open(service, caller, messages.boxed()))).try_flatten().boxed()
    }
}

async fn open(
    service: Arc<SqlService>,
    caller: Caller,
    mut messages: BoxStream<'static, Result<FlightData, Status>>,
) -> Result<FlightStream, Status> {
    let malformed = |what: &str| Status::from(refuse("08P01", format!("malformed DoExchange: {what}")));
    let first = messages.try_next().await?.ok_or_else(|| malformed("there is no message"))?;
    let descriptor =
        first.flight_descriptor.as_ref().ok_or_else(|| malformed("the first message has no descriptor"))?;
    let (handle, is_update) = match decode_command(&descriptor.cmd)? {
        Command::CommandPreparedStatementQuery(command) => (command.prepared_statement_handle, false),
        Command::CommandPreparedStatementUpdate(command) => (command.prepared_statement_handle, true),
        other => return Err(not_supported("DoExchange", other.type_url())),
    };
    let messages = stream::iter([Ok(first)]).chain(messages);
    let upload = Upload::open(messages, None, service.limits.message_bytes).await?;
    let upload = upload.ok_or_else(|| malformed("the schema of the parameters is missing"))?;
    let columns = Arc::clone(&upload.sent.schema);
    let announced = service.exchange_schema(&caller, &handle, &columns).await?;
    if is_update && announced.is_some() {
        return Err(refuse("07003", "this statement returns rows, and was sent as an update")
            .hint("execute it as a query (CommandPreparedStatementQuery)")
            .into());
    }
    let exchange = Arc::new(Exchange { service, caller, handle: handle.to_vec(), announced: announced.clone() });
    let compression = exchange.caller.compression;
    let parameters = until_shutdown(upload, exchange.service.draining.subscribe());
    let pieces = parameters.and_then(move |rows| onward(Arc::clone(&exchange).execute(rows))).try_flatten();
    answers(announced.as_deref(), compression, pieces)
}

impl SqlService {
    async fn exchange_schema(
        &self,
        caller: &Caller,
        handle: &[u8],
        columns: &Schema,
    ) -> Result<Option<Arc<Announced>>, Status> {
        let statement = self.prepared_statement(caller, handle)?;
        self.schema_for(caller, &statement, columns).await
    }
}

impl Exchange {
    /// Executes the statement once for each of these rows.
    async fn execute(self: Arc<Self>, rows: RecordBatch) -> Result<BoxStream<'static, Result<Piece, Status>>, Status> {
        let Self { service, caller, handle, announced } = &*self;
        service.admit_again(caller)?;
        let mut job = service.prepared_job(caller, handle)?;
        job.parameters = Some(Arc::new(Parameters::new(rows, 0, &service.waiting_kib)?));
        job.schema.clone_from(announced);
        if announced.is_none() {
            let changed = service.update(caller, &job).await?;
            return Ok(stream::iter([Ok(Piece::End(u64::try_from(changed).ok()))]).boxed());
        }
        let running = service.running.register_unlisted(&caller.principal)?;
        let rows: Batches = match service.begin(caller, running, &job, |_| {}).await? {
            Begun::Rows(rows) => rows,
            Begun::Done => stream::empty().boxed(),
        };
        Ok(rows.map_ok(Piece::Rows).chain(stream::iter([Ok(Piece::End(None))])).boxed())
    }
}

/// The same batches; when the server is about to end, an error in the place of the next one that is waited for.
fn until_shutdown(
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + Unpin,
    draining: watch::Receiver<bool>,
) -> impl Stream<Item = Result<RecordBatch, Status>> + Send {
    stream::unfold((batches, draining), |(mut batches, mut draining)| async move {
        let next = tokio::select! {
            biased;
            next = batches.next() => next?,
            // The sender lives in the service, which this stream holds.
            _ = draining.wait_for(|draining| *draining) => Err(shutting_down()),
        };
        Some((next, (batches, draining)))
    })
}
