//! Where statements and prepared statements end: executed once, as a stream of rows or as a count.
//!
//! A planned statement is a [`Job`]. GetFlightInfo puts it into the ticket table and tells the client the schema of its
//! result. A statement that has none (INSERT, CREATE TABLE …) is announced *without* a schema, not with an empty one:
//! clients then wait for the schema that DoGet sends when the statement is done, so that ADBC's
//! `cursor.execute("INSERT …")` returns after the insert and raises its error.
//!
//! Invariant: whatever a job's execution holds (session, permit, bound parameters, entry among the running
//! statements) lives exactly as long as its result stream.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rustydb_engine::{
    Completion, Prepared, Progress, RecordStream, Session, StatementResult, Surroundings, Value, parameter_at,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::SqlService;
use super::parallel::Part;
use super::poll::Started;
use crate::auth::Caller;
use crate::first_word::first_word;
use crate::handles::Handle;
use crate::onward::onward;
use crate::running::{Batches, RunningGuard};
use crate::sessions::{Home, Scope, rolled_back};
use crate::status::{from_engine, refuse};
use crate::stream::{Compression, FlightStream, encode, encode_nothing};
use crate::upload::row_bytes;
use crate::wire::{Announced, changed, schema_message, wire_schema};
use crate::wrapper::caller;

/// A parsed and planned statement takes about this many times the memory of its text.
const STATEMENT_MEMORY_FACTOR: usize = 8;

/// A statement ready to be executed, or being executed already because its client polls for it.
pub(super) struct Job {
    pub(super) home: Home,
    pub(super) plan: Arc<Plan>,
    pub(super) parameters: Option<Arc<Parameters>>,
    /// The schema of its result as announced; `None`: no result set. The plan's, unless the parameters' types give
    /// another.
    pub(super) schema: Option<Arc<Announced>>,
    pub(super) started: Option<Arc<Started>>,
    /// The endpoint of a shared result that it is.
    pub(super) shared: Option<Part>,
}

impl Job {
    pub(super) fn new(home: Home, plan: Arc<Plan>) -> Self {
        let schema = plan.schema.clone();
        Self { home, plan, parameters: None, schema, started: None, shared: None }
    }
}

/// A job that has begun.
pub(super) enum Begun {
    /// It has no result set, and is done.
    Done,
    /// Its rows are on their way.
    Rows(Batches),
}

impl Begun {
    /// What DoGet sends; `schema` is what was announced.
    pub(super) fn encode(self, schema: Option<&Arc<Announced>>, compression: Compression) -> FlightStream {
        match (self, schema) {
            (Self::Rows(batches), Some(schema)) => encode(schema, compression, batches),
            _ => encode_nothing(),
        }
    }
}

/// A planned statement, and what its client was told.
pub(super) struct Plan {
    pub(super) prepared: Prepared,
    /// The schema of its result for parameters of the types it asks for; `None`: no result set.
    pub(super) schema: Option<Arc<Announced>>,
    /// The parameters it takes, as clients see them.
    pub(super) parameter_schema: SchemaRef,
    /// What its session found around it.
    pub(super) surroundings: Surroundings,
    _memory: OwnedSemaphorePermit,
}

impl Plan {
    /// `surroundings`: as they were before it was prepared, at the latest.
    pub(super) fn new(
        prepared: Prepared,
        surroundings: Surroundings,
        budget_kib: &Arc<Semaphore>,
    ) -> Result<Self, Status> {
        let memory = reserve(budget_kib, prepared.sql().len().saturating_mul(STATEMENT_MEMORY_FACTOR))?;
        let schema = prepared.result_schema().map(|schema| Announced::new_in(&schema, &surroundings)).transpose()?;
        let parameter_schema = wire_schema(&prepared.parameter_schema());
        Ok(Self { prepared, schema, parameter_schema, surroundings, _memory: memory })
    }

    /// The schema of its parameters as the answer to CreatePreparedStatement has it.
    pub(super) fn parameter_message(&self) -> Result<Bytes, Status> {
        schema_message(&self.parameter_schema)
    }
}

/// Bound parameters, a row per execution.
pub(super) struct Parameters {
    rows: RecordBatch,
    _memory: OwnedSemaphorePermit,
}

/// Accounts for memory that is kept until a client comes back.
pub(super) fn reserve(budget_kib: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    Arc::clone(budget_kib).try_acquire_many_owned(kib).map_err(|_| {
        refuse("53200", "the statements and parameters that clients have waiting take too much memory")
            .hint("close prepared statements that are no longer needed, bind fewer rows at a time, or try again later")
            .into()
    })
}

impl Parameters {
    /// `more_bytes`: of memory that is kept with them.
    pub(super) fn new(rows: RecordBatch, more_bytes: usize, budget_kib: &Arc<Semaphore>) -> Result<Self, Status> {
        let memory = reserve(budget_kib, row_bytes(&rows).saturating_add(more_bytes))?;
        Ok(Self { rows, _memory: memory })
    }

    fn row(&self, row: usize) -> Result<Vec<Value>, Status> {
        let values = self.rows.columns().iter().map(|column| parameter_at(column, row));
        values.collect::<Result<_, _>>().map_err(|error| {
            refuse("0A000", format!("a parameter has a type that is not supported: {}", error.strip_backtrace())).into()
        })
    }
}

impl SqlService {
    /// Answers GetFlightInfo: keeps the job for the DoGet that fetches it.
    pub(super) fn hand_out_ticket(
        &self,
        job: Job,
        request: &Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        check_parameters(&job)?;
        let job = match self.hand_out_tickets(caller(request)?, request.get_ref(), job)? {
            Ok(info) => return Ok(Response::new(info)),
            Err(job) => job,
        };
        let schema = job.schema.clone();
        let handle = self.tickets.insert(&caller(request)?.principal, job)?;
        Ok(Response::new(ticket_info(request.get_ref(), handle, schema.as_ref())))
    }

    /// Executes the job of a ticket, and forgets the ticket.
    pub(super) async fn redeem_ticket(&self, caller: &Caller, handle: &[u8]) -> Result<FlightStream, Status> {
        let handle = self.tickets.parse(handle)?;
        let waiting = self.tickets.get(&caller.principal, handle)?;
        if let Some(part) = waiting.shared.clone() {
            return self.fetch_part(caller, handle, part).await;
        }
        if let Some(started) = waiting.started.clone() {
            let job = self.tickets.take(&caller.principal, handle)?;
            self.running.fetched(handle);
            return Ok(started.finish().await?.encode(job.schema.as_ref(), caller.compression));
        }
        // Among the running ones first, so that a cancellation finds it in one place or the other at any moment.
        let running = self.running.register(&caller.principal, handle).ok_or_else(|| self.tickets.unknown())?;
        let job = self.tickets.take(&caller.principal, handle)?;
        self.fetch(caller, running, &job).await
    }

    /// Executes a job that no ticket stands for.
    pub(super) async fn fetch_now(&self, caller: &Caller, job: &Job) -> Result<FlightStream, Status> {
        let running = self.running.register_unlisted(&caller.principal)?;
        self.fetch(caller, running, job).await
    }

    /// Executes a job and streams its rows; a statement without result set is done when this returns.
    pub(super) async fn fetch(
        &self,
        caller: &Caller,
        running: RunningGuard,
        job: &Job,
    ) -> Result<FlightStream, Status> {
        let begun = self.begin(caller, running, job, |_| {}).await?;
        Ok(begun.encode(job.schema.as_ref(), caller.compression))
    }

    /// Begins to execute a job. `observe` is told how to ask how far it is.
    pub(super) async fn begin(
        &self,
        caller: &Caller,
        running: RunningGuard,
        job: &Job,
        observe: impl FnOnce(Progress) + Send,
    ) -> Result<Begun, Status> {
        check_parameters(job)?;
        let permit = Arc::clone(&self.result_streams).try_acquire_owned().map_err(|_| {
            refuse("53300", format!("{} results are being sent already", self.limits.result_streams))
                .hint("read or close results that are open, then try again")
        })?;
        let scope = self.sessions.enter(&caller.principal, &job.home)?;
        if job.schema.is_none() {
            running.unless_cancelled(self.change(caller, &scope, job)).await?;
            return Ok(Begun::Done);
        }
        let batches = running.unless_cancelled(query(InUse { scope, _permit: permit }, job, observe)).await?;
        Ok(Begun::Rows(running.stream(batches).boxed()))
    }

    /// Executes a job for the number of rows it changes.
    pub(super) async fn update(&self, caller: &Caller, job: &Job) -> Result<i64, Status> {
        if job.schema.is_some() {
            return Err(refuse("07003", "this statement returns rows, and was sent as an update")
                .hint("execute it as a query (executeQuery, CommandStatementQuery)")
                .into());
        }
        check_parameters(job)?;
        let scope = self.sessions.enter(&caller.principal, &job.home)?;
        let rows = self.change(caller, &scope, job).await?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    async fn change(&self, caller: &Caller, scope: &Scope, job: &Job) -> Result<u64, Status> {
        let session = scope.turn().await?;
        let completion = match &job.parameters {
            Some(parameters) if parameters.rows.num_rows() != 1 => {
                let rows = session.execute_batch(&job.plan.prepared, &parameters.rows).await;
                Completion { tag: String::new(), rows: Some(rows.map_err(|error| from_engine(&error))?) }
            }
            parameters => {
                let values = parameters.as_ref().map(|parameters| parameters.row(0)).transpose()?.unwrap_or_default();
                let result = session.execute_prepared(&job.plan.prepared, &values).await;
                match result.map_err(|error| from_engine(&error))? {
                    StatementResult::Done(completion) => completion,
                    StatementResult::Rows(_) => {
                        return Err(refuse("0A000", "the statement returned rows that were not announced")
                            .hint("prepare it again: a table it names has changed")
                            .into());
                    }
                }
            }
        };
        self.sessions.after(&caller.principal, scope, &completion).await?;
        if completion.tag == "ROLLBACK" && asks_to_commit(job.plan.prepared.sql()) {
            return Err(rolled_back());
        }
        Ok(completion.rows.unwrap_or(0))
    }
}

/// One execution per row of parameters, their results one after the other. The first starts now, so that its errors
/// are the answer to the request; each further one starts when the client has read so far.
async fn query(in_use: InUse, job: &Job, observe: impl FnOnce(Progress)) -> Result<Batches, Status> {
    let Some(parameters) = &job.parameters else {
        let rows = query_once(&in_use.scope, &job.plan, job.schema.as_ref(), &[]).await?;
        observe(rows.progress());
        return Ok(rows.map(move |batch| in_use.keeping(batch)).boxed());
    };
    let row_count = parameters.rows.num_rows();
    if row_count == 0 {
        return Ok(stream::empty().boxed());
    }
    let first = query_once(&in_use.scope, &job.plan, job.schema.as_ref(), &parameters.row(0)?).await?;
    if row_count == 1 {
        return Ok(first.map(move |batch| in_use.keeping(batch)).boxed());
    }
    let in_use = Arc::new(in_use);
    let further = (Arc::clone(&in_use), Arc::clone(&job.plan), job.schema.clone(), Arc::clone(parameters));
    let rest = stream::iter((1..row_count).map(Ok::<usize, Status>)).and_then(move |row| {
        let (in_use, plan, announced, parameters) = further.clone();
        onward(async move {
            let values = parameters.row(row)?;
            let rows = query_once(&in_use.scope, &plan, announced.as_ref(), &values).await?;
            Ok(rows.map(move |batch| in_use.keeping(batch)))
        })
    });
    Ok(first.map(move |batch| in_use.keeping(batch)).chain(rest.try_flatten()).boxed())
}

/// What a result holds until its last batch is sent: the session, so that it counts as in use, and one of the permits to
/// send results.
struct InUse {
    scope: Scope,
    _permit: OwnedSemaphorePermit,
}

impl InUse {
    fn keeping(&self, batch: rustydb_engine::Result<RecordBatch>) -> Result<RecordBatch, Status> {
        batch.map_err(|error| from_engine(&error))
    }
}

async fn query_once(
    scope: &Scope,
    plan: &Plan,
    announced: Option<&Arc<Announced>>,
    values: &[Value],
) -> Result<RecordStream, Status> {
    let session = scope.turn().await?;
    if let Some(announced) = announced.filter(|_| plan.prepared.is_write()) {
        require_same_before(&session, plan, announced, values).await?;
    }
    match session.execute_prepared(&plan.prepared, values).await.map_err(|error| from_engine(&error))? {
        StatementResult::Rows(rows) => {
            let schema = rows.schema();
            if let Some(announced) = announced.filter(|announced| !announced.is_of(&schema)) {
                require_unchanged(&session, plan, announced, &schema, values).await?;
                announced.accept(schema);
            }
            Ok(rows)
        }
        StatementResult::Done(_) => {
            Err(refuse("0A000", "the statement returned no rows, although some were announced")
                .hint("prepare it again: a table it names has changed")
                .into())
        }
    }
}

/// A statement that changes rows and returns them in other columns than were announced must not have been executed when its
/// client is told so: it would execute it once more.
async fn require_same_before(
    session: &Session,
    plan: &Plan,
    announced: &Arc<Announced>,
    values: &[Value],
) -> Result<(), Status> {
    if announced.is_as_found(session) {
        return Ok(());
    }
    let types = values.iter().map(Value::data_type).collect();
    match session.result_schema_for(&plan.prepared, types).await {
        Ok(Some(schema)) if !announced.is_of(&schema) => Err(changed()),
        // What else is wrong its execution tells.
        _ => Ok(()),
    }
}

/// The rows of a result that has other columns than were announced become those, which is an error if a table has changed
/// in between: its columns are different ones then.
async fn require_unchanged(
    session: &Session,
    plan: &Plan,
    announced: &Arc<Announced>,
    schema: &Schema,
    values: &[Value],
) -> Result<(), Status> {
    let is_first = plan.schema.as_ref().is_some_and(|first| Arc::ptr_eq(first, announced));
    // Other names: what EXECUTE names may have been prepared anew, of which the surroundings know nothing.
    if is_first && announced.has_names_of(schema) && session.is_in(&plan.surroundings) {
        return Ok(());
    }
    let types = values.iter().map(Value::data_type).collect();
    match session.result_schema_for(&plan.prepared, types).await {
        Ok(Some(schema)) if announced.is_of(&schema) => Ok(()),
        _ => Err(changed()),
    }
}

/// The engine answers COMMIT of a failed transaction as PostgreSQL does, with success and the tag ROLLBACK. Flight SQL
/// has no tags, so the client would take it for committed.
fn asks_to_commit(sql: &str) -> bool {
    let first = first_word(sql);
    first.eq_ignore_ascii_case("COMMIT") || first.eq_ignore_ascii_case("END")
}

pub(super) fn check_parameters(job: &Job) -> Result<(), Status> {
    let wanted = job.plan.parameter_schema.fields().len();
    let bound = job.parameters.as_ref().map_or(0, |parameters| parameters.rows.num_columns());
    match wanted == bound {
        true => Ok(()),
        false => Err(refuse("07001", format!("the statement has {wanted} parameters, and {bound} are bound"))
            .hint("bind one column per parameter, in the order $1, $2, …")
            .into()),
    }
}

/// The FlightInfo of a statement that waits under `handle`.
pub(super) fn ticket_info(
    descriptor: &FlightDescriptor,
    handle: Handle,
    schema: Option<&Arc<Announced>>,
) -> FlightInfo {
    let ticket = TicketStatementQuery { statement_handle: handle.to_bytes() };
    let mut info = flight_info(descriptor, &ticket);
    info.schema = schema.map(|schema| schema.message()).unwrap_or_default();
    info
}

/// A FlightInfo with one endpoint: this server, and a ticket.
pub(super) fn flight_info(descriptor: &FlightDescriptor, ticket: &impl ProstMessageExt) -> FlightInfo {
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    FlightInfo::new().with_descriptor(descriptor.clone()).with_endpoint(FlightEndpoint::new().with_ticket(ticket))
}
