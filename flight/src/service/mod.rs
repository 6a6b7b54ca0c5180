//! The Flight SQL service: what all requests share, and the map of where each command is written out.
//!
//! ```text
//! dispatch   one method per command, a line or two each: the protocol's table of contents
//! ├─ login        credentials become a session              ├─ cancel     stop a statement
//! ├─ statement    SQL text: plan, hand out a ticket         ├─ metadata   catalogs, schemas, tables
//! ├─ prepared     the same with a handle and parameters     ├─ keys       primary and foreign keys
//! ├─ execution    where both end: once, as rows or count    ├─ sql_info   what the server can do
//! ├─ poll         the same, started before it is fetched    ├─ type_info  the types it has
//! ├─ transaction  begin, end, savepoints                    ├─ vocabulary its functions and keywords
//! ├─ parallel     a result over several endpoints           ├─ flights    tables and tickets as plain Flight sees them
//! ├─ ingest       bulk load                                 └─ session_options  settings without SQL
//! └─ exchange     prepared statements on one stream
//! ```
//!
//! Invariant: a statement runs once per request to run it. GetFlightInfo plans only; its ticket works for one DoGet.

mod cancel;
mod dispatch;
mod exchange;
mod execution;
mod flights;
mod ingest;
mod keys;
mod login;
mod metadata;
mod parallel;
mod poll;
mod prepared;
mod session_options;
mod sql_info;
mod statement;
mod transaction;
mod type_info;
mod vocabulary;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::Command;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use rustydb_engine::Database;
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use crate::auth::Caller;
use crate::authenticator::Authenticator;
use crate::handles::{HandleTable, PREPARED, TICKET};
use crate::options::Limits;
use crate::running::RunningQueries;
use crate::sessions::Sessions;
use dispatch::not_supported;
use execution::Job;
pub(crate) use flights::as_command;
use metadata::MetadataCommand;
pub(crate) use poll::decode_command;
use prepared::PreparedStatement;

/// What all requests share.
pub(crate) struct SqlService {
    limits: Limits,
    authenticator: Authenticator,
    sessions: Sessions,
    tickets: HandleTable<Job>,
    prepared: HandleTable<PreparedStatement>,
    running: RunningQueries,
    /// Whether the server is about to end: nobody is waited for any more.
    draining: watch::Sender<bool>,
    /// One permit per result set being sent.
    result_streams: Arc<Semaphore>,
    /// One permit per KiB of statements and parameters that wait for their client to come back.
    waiting_kib: Arc<Semaphore>,
    sql_info: SqlInfoData,
    type_info: XdbcTypeInfoData,
}

impl SqlService {
    /// The actions there are, with what they do.
    pub(crate) const ACTIONS: [(&str, &str); 12] = [
        ("CreatePreparedStatement", "Prepares a statement (ActionCreatePreparedStatementRequest)"),
        ("ClosePreparedStatement", "Forgets a prepared statement (ActionClosePreparedStatementRequest)"),
        ("BeginTransaction", "Begins a transaction (ActionBeginTransactionRequest)"),
        ("EndTransaction", "Commits or rolls back a transaction (ActionEndTransactionRequest)"),
        ("BeginSavepoint", "Sets a savepoint in a transaction (ActionBeginSavepointRequest)"),
        ("EndSavepoint", "Releases a savepoint or rolls back to it (ActionEndSavepointRequest)"),
        ("CancelQuery", "Stops a statement (ActionCancelQueryRequest)"),
        ("CancelFlightInfo", "Stops a statement (CancelFlightInfoRequest)"),
        ("RenewFlightEndpoint", "Keeps a ticket from expiring (RenewFlightEndpointRequest)"),
        ("SetSessionOptions", "Changes settings of the session (SetSessionOptionsRequest)"),
        ("GetSessionOptions", "Lists the settings of the session (GetSessionOptionsRequest)"),
        ("CloseSession", "Ends the session of the token this is sent with (CloseSessionRequest)"),
    ];

    pub(crate) fn new(database: Database, authenticator: Authenticator, limits: Limits) -> Self {
        Self {
            sessions: Sessions::new(database, &limits),
            tickets: HandleTable::new(&TICKET, limits.tickets, limits.ticket_idle),
            prepared: HandleTable::new(&PREPARED, limits.prepared_statements, limits.prepared_statement_idle),
            running: RunningQueries::default(),
            draining: watch::Sender::new(false),
            result_streams: permits(limits.result_streams),
            waiting_kib: permits(limits.parameter_bytes_total >> 10),
            sql_info: sql_info::sql_info(&limits),
            type_info: type_info::type_info(),
            authenticator,
            limits,
        }
    }

    /// Forgets handles that have been idle for too long, and stops statements whose rows nobody reads.
    pub(crate) fn sweep(&self) {
        self.tickets.sweep();
        self.prepared.sweep();
        self.sessions.sweep();
        self.running.sweep(self.limits.transfer_idle);
    }

    /// Ends exchanges whose clients have nothing to be executed.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Stops the statements that run, telling their clients that the server ends.
    pub(crate) fn stop_running(&self) {
        self.running.shut_down();
    }

    /// Forgets all handles.
    pub(crate) fn clear(&self) {
        self.tickets.clear();
        self.prepared.clear();
        self.sessions.clear();
    }

    /// The schema of what a command returns, without executing it.
    pub(crate) async fn describe(&self, caller: &Caller, command: Command) -> Result<SchemaRef, Status> {
        Ok(match command {
            Command::CommandStatementQuery(query) => {
                let job = self.plan_statement(caller, &query.query, query.transaction_id.as_deref()).await?;
                // A statement without result set has no columns.
                job.schema.map_or_else(|| Arc::new(Schema::empty()), |announced| Arc::clone(&announced.schema))
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.prepared_schema(caller, &query.prepared_statement_handle).await?
            }
            Command::CommandGetCatalogs(command) => command.schema(self),
            Command::CommandGetDbSchemas(command) => command.schema(self),
            Command::CommandGetTables(command) => command.schema(self),
            Command::CommandGetTableTypes(command) => command.schema(self),
            Command::CommandGetPrimaryKeys(command) => command.schema(self),
            Command::CommandGetExportedKeys(command) => command.schema(self),
            Command::CommandGetImportedKeys(command) => command.schema(self),
            Command::CommandGetCrossReference(command) => command.schema(self),
            Command::CommandGetSqlInfo(command) => command.schema(self),
            Command::CommandGetXdbcTypeInfo(command) => command.schema(self),
            other => return Err(not_supported("GetSchema", other.type_url())),
        })
    }
}

/// A semaphore with as many permits as a limit says; a limit beyond what it can count is none.
fn permits(limit: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))
}
