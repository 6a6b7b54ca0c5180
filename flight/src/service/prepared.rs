//! Prepared statements: a handle for a planned statement and the parameters bound to it.
//!
//! Invariants: a ticket takes the parameters that were bound when it was handed out, so binding again or closing the
//! handle does not change a query that is under way. Its result is announced as the tables are at that moment: drivers
//! (ADBC's) keep a statement prepared as long as its text is executed again, whatever becomes of the tables. A statement
//! prepared under a session token can be executed as long as the session lasts; one prepared in a transaction as long as the
//! transaction, and then in the one that the same connection has open in its place
//! ([`Sessions::home_now`](crate::sessions::Sessions::home_now)).

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, ProstMessageExt,
};
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use prost::Message;
use rustydb_engine::Surroundings;
use tonic::{Code, Status};

use super::SqlService;
use super::execution::{Job, Parameters, Plan, reserve};
use crate::auth::Caller;
use crate::handles::Lease;
use crate::sessions::Home;
use crate::status::{from_engine, refuse};
use crate::stream::FlightStream;
use crate::upload::{KnownSchema, Upload};
use crate::wire::Announced;

/// A statement kept by its handle.
pub(super) struct PreparedStatement {
    home: Home,
    plan: Arc<Plan>,
    bound: Mutex<Option<Bound>>,
    /// The result's schema as it was found out last, if not when the statement was prepared.
    described: Mutex<Option<Described>>,
}

/// Types of parameters, and the schema of the result they lead to with the tables there were.
struct Described {
    types: Vec<DataType>,
    surroundings: Surroundings,
    schema: Option<Arc<Announced>>,
}

/// Parameters that were sent.
#[derive(Clone)]
struct Bound {
    parameters: Arc<Parameters>,
    /// The parameters' own schema, as the client sent it: most likely the next ones have the same.
    sent: KnownSchema,
}

/// The specification's ActionCreatePreparedStatementResult, whose last field arrow-flight does not have yet: it tells
/// JDBC to send the statement as an update.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PreparedResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    pub(super) is_update: Option<bool>,
}

impl SqlService {
    /// Answers the action CreatePreparedStatement.
    pub(crate) async fn prepare_action(&self, caller: &Caller, body: &[u8]) -> Result<arrow_flight::Result, Status> {
        let malformed = |reason: String| Status::from(refuse("08P01", format!("malformed message: {reason}")));
        let message = Any::decode(body).map_err(|error| malformed(error.to_string()))?;
        let request = message.unpack::<ActionCreatePreparedStatementRequest>();
        let request = request.map_err(|error| malformed(error.to_string()))?;
        let request = request.ok_or_else(|| malformed("it is no ActionCreatePreparedStatementRequest".to_owned()))?;
        let prepared = self.prepare(caller, &request.query, request.transaction_id.as_deref()).await;
        let prepared = prepared.map_err(|status| of_statement(&request.query, status))?;
        let type_url = ActionCreatePreparedStatementResult::type_url().to_owned();
        let answer = Any { type_url, value: prepared.encode_to_vec().into() };
        Ok(arrow_flight::Result::new(answer.encode_to_vec()))
    }

    pub(super) async fn prepare(
        &self,
        caller: &Caller,
        sql: &str,
        transaction_id: Option<&[u8]>,
    ) -> Result<PreparedResult, Status> {
        let Job { home, plan, schema, .. } = self.plan_statement(caller, sql, transaction_id).await?;
        let parameter_schema = plan.parameter_message()?;
        let statement = PreparedStatement { home, plan, bound: Mutex::new(None), described: Mutex::new(None) };
        let handle = self.prepared.insert(&caller.principal, statement)?;
        Ok(PreparedResult {
            prepared_statement_handle: handle.to_bytes(),
            // No schema at all, rather than one without fields, is how older drivers are told that this is an update.
            dataset_schema: schema.as_ref().map(|schema| schema.message()).unwrap_or_default(),
            parameter_schema,
            is_update: Some(schema.is_none()),
        })
    }

    /// Closing a handle that is gone already is no error: clients close after errors and after expiry, too.
    pub(super) fn close_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<(), Status> {
        let handle = self.prepared.parse(handle)?;
        drop(self.prepared.take(&caller.principal, handle));
        Ok(())
    }

    pub(super) async fn bind_parameters(
        &self,
        caller: &Caller,
        handle: &[u8],
        messages: impl Stream<Item = Result<FlightData, Status>> + Unpin,
    ) -> Result<(), Status> {
        let statement = self.prepared_statement(caller, handle)?;
        let known = statement.bound.lock().as_ref().map(|bound| bound.sent.clone());
        let bound = match self.read_parameters(messages, known).await? {
            None => None,
            Some((parameters, sent)) => {
                // What these types cannot lead to is an error now, and not when the statement is executed.
                if !types_of(&statement.plan.parameter_schema).eq(types_of(&sent.schema)) {
                    self.schema_for(caller, &statement, &sent.schema).await?;
                }
                Some(Bound { parameters, sent })
            }
        };
        *statement.bound.lock() = bound;
        Ok(())
    }

    /// The statement as it is bound now, with what was announced when it was prepared.
    pub(super) fn prepared_job(&self, caller: &Caller, handle: &[u8]) -> Result<Job, Status> {
        let statement = self.prepared_statement(caller, handle)?;
        let home = self.sessions.home_now(caller, &statement.home)?;
        let mut job = Job::new(home, Arc::clone(&statement.plan));
        job.parameters = statement.bound.lock().as_ref().map(|bound| Arc::clone(&bound.parameters));
        Ok(job)
    }

    /// The same, with what is to be announced now.
    pub(super) async fn prepared_job_now(&self, caller: &Caller, handle: &[u8]) -> Result<Job, Status> {
        let mut job = self.prepared_job(caller, handle)?;
        let statement = self.prepared_statement(caller, handle)?;
        let bound = statement.bound.lock().as_ref().map(|bound| (Arc::clone(&bound.parameters), bound.sent.clone()));
        let (parameters, sent) = bound.unzip();
        let types = sent.as_ref().map_or(&statement.plan.parameter_schema, |sent| &sent.schema);
        job.schema = self.schema_for(caller, &statement, types).await?;
        job.parameters = parameters;
        Ok(job)
    }

    /// The schema of its result.
    pub(super) async fn prepared_schema(&self, caller: &Caller, handle: &[u8]) -> Result<SchemaRef, Status> {
        let job = self.prepared_job_now(caller, handle).await?;
        Ok(job.schema.map_or_else(|| Arc::new(Schema::empty()), |announced| Arc::clone(&announced.schema)))
    }

    /// The schema of the result for these parameters (`SELECT $1` returns what it is given), as the tables are now.
    pub(super) async fn schema_for(
        &self,
        caller: &Caller,
        statement: &PreparedStatement,
        parameters: &Schema,
    ) -> Result<Option<Arc<Announced>>, Status> {
        let plan = &statement.plan;
        let wanted = &plan.parameter_schema;
        // A wrong number of them is for the execution to complain about.
        if plan.schema.is_none() || wanted.fields().len() != parameters.fields().len() {
            return Ok(plan.schema.clone());
        }
        let scope = self.sessions.enter(&caller.principal, &self.sessions.home_now(caller, &statement.home)?)?;
        let session = scope.turn().await?;
        if types_of(wanted).eq(types_of(parameters)) && session.is_in(&plan.surroundings) {
            return Ok(plan.schema.clone());
        }
        let is_known =
            |known: &&Described| known.types.iter().eq(types_of(parameters)) && session.is_in(&known.surroundings);
        if let Some(known) = statement.described.lock().as_ref().filter(is_known) {
            return Ok(known.schema.clone());
        }
        let types: Vec<DataType> = types_of(parameters).cloned().collect();
        let surroundings = session.surroundings();
        let schema = session.result_schema_for(&plan.prepared, types.clone()).await;
        let schema = schema.map_err(|error| from_engine(&error))?;
        let schema = schema.map(|schema| Announced::new_in(&schema, &surroundings)).transpose()?;
        *statement.described.lock() = Some(Described { types, surroundings, schema: schema.clone() });
        Ok(schema)
    }

    /// Executes without a ticket: the protocol lets the command itself be one.
    pub(super) async fn fetch_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<FlightStream, Status> {
        let job = self.prepared_job_now(caller, handle).await?;
        self.fetch_now(caller, &job).await
    }

    /// Executes as an update, with the parameters sent along or those bound before.
    pub(super) async fn update_prepared(
        &self,
        caller: &Caller,
        handle: &[u8],
        messages: impl Stream<Item = Result<FlightData, Status>> + Unpin,
    ) -> Result<i64, Status> {
        let mut job = self.prepared_job(caller, handle)?;
        if let Some((parameters, _)) = self.read_parameters(messages, None).await? {
            job.parameters = Some(parameters);
        }
        self.update(caller, &job).await
    }

    pub(super) fn prepared_statement(
        &self,
        caller: &Caller,
        handle: &[u8],
    ) -> Result<Lease<PreparedStatement>, Status> {
        self.prepared.get(&caller.principal, self.prepared.parse(handle)?)
    }

    /// `known`: a schema they may have.
    async fn read_parameters(
        &self,
        messages: impl Stream<Item = Result<FlightData, Status>> + Unpin,
        known: Option<KnownSchema>,
    ) -> Result<Option<(Arc<Parameters>, KnownSchema)>, Status> {
        let Some(upload) = Upload::open(messages, known, self.limits.message_bytes).await? else { return Ok(None) };
        // Some clients send an empty schema for "no parameters".
        if upload.sent.schema.fields().is_empty() {
            return Ok(None);
        }
        let sent = upload.sent.clone();
        let rows =
            upload.into_one_batch(self.limits.parameter_bytes, |bytes| reserve(&self.waiting_kib, bytes)).await?;
        let parameters = Parameters::new(rows, sent.message.len(), &self.waiting_kib)?;
        Ok(Some((Arc::new(parameters), sent)))
    }
}

/// Why a statement cannot be prepared. ADBC's DB-API takes Unimplemented for a server on which none can be: with parameters it
/// goes on in a way that its driver does not have, and shows the error of that.
fn of_statement(sql: &str, status: Status) -> Status {
    match status.code() == Code::Unimplemented && sql.contains(['?', '$']) {
        true => Status::with_metadata(Code::InvalidArgument, status.message(), status.metadata().clone()),
        false => status,
    }
}

fn types_of(schema: &Schema) -> impl Iterator<Item = &DataType> {
    schema.fields().iter().map(|field| field.data_type())
}
