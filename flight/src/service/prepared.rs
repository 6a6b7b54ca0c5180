//! Prepared statements: a handle for a planned statement and the parameters bound to it.
//!
//! Invariants: a ticket takes the parameters that were bound when it was handed out, so binding again or closing the
//! handle does not change a query that is under way. A statement prepared in a transaction can be executed as long as
//! the transaction lasts; one prepared under a session token, as long as the session.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, DoPutPreparedStatementResult};
use bytes::Bytes;
use parking_lot::Mutex;
use tonic::Status;

use super::SqlService;
use super::execution::{Job, Parameters, Plan};
use crate::auth::Caller;
use crate::handles::{Handle, Lease};
use crate::sessions::Home;
use crate::status::internal;
use crate::stream::{FlightStream, schema_message};
use crate::upload::Upload;

/// A statement kept by its handle.
pub(super) struct PreparedStatement {
    home: Home,
    plan: Arc<Plan>,
    bound: Mutex<Option<Arc<Parameters>>>,
}

impl PreparedStatement {
    fn job(&self) -> Job {
        Job { home: self.home.clone(), plan: Arc::clone(&self.plan), parameters: self.bound.lock().clone() }
    }
}

impl SqlService {
    pub(super) async fn prepare(
        &self,
        caller: &Caller,
        sql: &str,
        transaction_id: Option<&[u8]>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let Job { home, plan, .. } = self.plan_statement(caller, sql, transaction_id).await?;
        // No schema at all, rather than one without fields, is how drivers are told that this is an update.
        let dataset_schema = plan.schema.as_ref().map(|schema| schema_message(schema)).transpose()?;
        let parameter_schema = schema_message(&plan.parameter_schema())?;
        let statement = PreparedStatement { home, plan, bound: Mutex::new(None) };
        let handle = self.prepared.insert(&caller.principal, statement)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.to_bytes(),
            dataset_schema: dataset_schema.unwrap_or_default(),
            parameter_schema,
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
        handle: Bytes,
        messages: PeekableFlightDataStream,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = self.prepared_statement(caller, &handle)?;
        let parameters = self.read_parameters(messages).await?;
        *statement.bound.lock() = parameters;
        // The state is here, so the handle stays the same.
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// The statement as it is bound now.
    pub(super) fn prepared_job(&self, caller: &Caller, handle: &[u8]) -> Result<Job, Status> {
        Ok(self.prepared_statement(caller, handle)?.job())
    }

    /// The schema of its result.
    pub(super) fn prepared_schema(&self, caller: &Caller, handle: &[u8]) -> Result<SchemaRef, Status> {
        let statement = self.prepared_statement(caller, handle)?;
        Ok(statement.plan.schema.clone().unwrap_or_else(|| Arc::new(Schema::empty())))
    }

    /// Executes without a ticket: the protocol lets the command itself be one.
    pub(super) async fn fetch_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<FlightStream, Status> {
        let statement = self.prepared_statement(caller, handle)?;
        let running = self.running.register(&caller.principal, Handle::random());
        let running = running.ok_or_else(|| internal("a random handle was not unique"))?;
        self.fetch(caller, running, &statement.job()).await
    }

    /// Executes as an update, with the parameters sent along or those bound before.
    pub(super) async fn update_prepared(
        &self,
        caller: &Caller,
        handle: &[u8],
        messages: PeekableFlightDataStream,
    ) -> Result<i64, Status> {
        let statement = self.prepared_statement(caller, handle)?;
        let mut job = statement.job();
        if let Some(parameters) = self.read_parameters(messages).await? {
            job.parameters = Some(parameters);
        }
        self.update(caller, &job).await
    }

    fn prepared_statement(&self, caller: &Caller, handle: &[u8]) -> Result<Lease<PreparedStatement>, Status> {
        self.prepared.get(&caller.principal, self.prepared.parse(handle)?)
    }

    async fn read_parameters(&self, messages: PeekableFlightDataStream) -> Result<Option<Arc<Parameters>>, Status> {
        let Some(upload) = Upload::open(messages).await? else { return Ok(None) };
        // Some clients send an empty schema for "no parameters".
        if upload.schema.fields().is_empty() {
            return Ok(None);
        }
        let rows = upload.into_one_batch(self.limits.parameter_bytes).await?;
        Ok(Some(Arc::new(Parameters::new(rows, &self.waiting_kib)?)))
    }
}
