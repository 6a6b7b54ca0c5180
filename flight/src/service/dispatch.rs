//! The protocol's table of contents: every command, and the one place that answers it.
//!
//! DoGet and DoPut are dispatched here and not by arrow-flight: their messages come and go without its codec
//! ([`crate::frames`]).
//!
//! Invariant: nothing here does any work. A command that is not supported says so by name and says what to do instead;
//! there is no method that pretends.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest, ActionEndTransactionRequest, Command,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementSubstraitPlan, DoPutPreparedStatementResult,
    DoPutUpdateResult, SqlInfo,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, PutResult, Ticket};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Request, Response, Status};

use super::SqlService;
use super::poll::decode_command;
use super::prepared::PreparedResult;
use crate::auth::Caller;
use crate::status::refuse;
use crate::stream::FlightStream;
use crate::wrapper::caller;

type Described = Result<Response<FlightInfo>, Status>;
type Acted = Result<Response<<SqlService as FlightService>::DoActionStream>, Status>;

#[tonic::async_trait]
impl FlightSqlService for SqlService {
    type FlightService = Self;

    // Statements

    async fn get_flight_info_statement(
        &self,
        command: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Described {
        let job = self.plan_statement(caller(&request)?, &command.query, command.transaction_id.as_deref()).await?;
        self.hand_out_ticket(job, &request)
    }

    // Prepared statements

    async fn do_action_create_prepared_statement(
        &self,
        command: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        // Not called: the wrapper hands CreatePreparedStatement to `prepare_action`, whose answer has one field more.
        let PreparedResult { prepared_statement_handle, dataset_schema, parameter_schema, .. } =
            self.prepare(caller(&request)?, &command.query, command.transaction_id.as_deref()).await?;
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
    }

    async fn do_action_close_prepared_statement(
        &self,
        command: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.close_prepared(caller(&request)?, &command.prepared_statement_handle)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Described {
        let job = self.prepared_job_now(caller(&request)?, &command.prepared_statement_handle).await?;
        self.hand_out_ticket(job, &request)
    }

    // Transactions

    async fn do_action_begin_transaction(
        &self,
        _command: ActionBeginTransactionRequest,
        request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        self.begin_transaction(caller(&request)?)
    }

    async fn do_action_end_transaction(
        &self,
        command: ActionEndTransactionRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.end_transaction(caller(&request)?, &command).await
    }

    async fn do_action_begin_savepoint(
        &self,
        command: ActionBeginSavepointRequest,
        request: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        self.begin_savepoint(caller(&request)?, &command).await
    }

    async fn do_action_end_savepoint(
        &self,
        command: ActionEndSavepointRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.end_savepoint(caller(&request)?, &command).await
    }

    // Stopping

    async fn do_action_cancel_query(
        &self,
        command: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        self.cancel_query(caller(&request)?, &command.info)
    }

    async fn do_action_fallback(&self, request: Request<Action>) -> Acted {
        // Flight's own actions: their messages are not wrapped in Any.
        let (caller, body) = (caller(&request)?, &request.get_ref().body);
        let result = match request.get_ref().r#type.as_str() {
            "CancelFlightInfo" => self.cancel_flight_info(caller, body)?,
            "RenewFlightEndpoint" => self.renew_endpoint(caller, body)?,
            "SetSessionOptions" => self.set_session_options(caller, body).await?,
            "GetSessionOptions" => self.session_options(caller).await?,
            "CloseSession" => self.close_session(caller),
            other => return Err(self.unknown_action(other)),
        };
        Ok(Response::new(futures::stream::iter([Ok(result)]).boxed()))
    }

    // Metadata

    async fn get_flight_info_catalogs(
        &self,
        command: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_tables(&self, command: CommandGetTables, request: Request<FlightDescriptor>) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        command: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        command: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        command: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        command: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_sql_info(
        &self,
        command: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Described {
        self.announce_metadata(&command, request)
    }

    // What is not supported

    async fn get_flight_info_substrait_plan(
        &self,
        _command: CommandStatementSubstraitPlan,
        _request: Request<FlightDescriptor>,
    ) -> Described {
        Err(no_substrait())
    }

    async fn do_action_create_prepared_substrait_plan(
        &self,
        _command: ActionCreatePreparedSubstraitPlanRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        Err(no_substrait())
    }

    async fn get_flight_info_fallback(&self, command: Command, _request: Request<FlightDescriptor>) -> Described {
        Err(not_supported("GetFlightInfo", command.type_url()))
    }

    /// The values are the server's own; no one else can add any.
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

impl SqlService {
    /// Answers DoPut: parameters for a prepared statement, an update, rows to ingest. The first message has the command, and
    /// may be data as well.
    pub(crate) async fn put<S>(&self, caller: &Caller, mut messages: S) -> Result<PutResult, Status>
    where
        S: Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static,
    {
        let malformed = |what: &str| refuse("08P01", format!("malformed DoPut: {what}"));
        let Some(first) = messages.try_next().await? else {
            // What arrow-go, and with it ADBC, makes of data without record batches.
            let hint = "to ingest no rows, send one record batch without rows";
            return Err(malformed("there is no message").hint(hint).into());
        };
        let descriptor = first.flight_descriptor.as_ref();
        let descriptor = descriptor.ok_or_else(|| malformed("the first message has no descriptor"))?;
        let command = decode_command(&descriptor.cmd)?;
        let messages = stream::iter([Ok(first)]).chain(messages);
        let record_count = match command {
            Command::CommandPreparedStatementQuery(command) => {
                let handle = command.prepared_statement_handle;
                self.bind_parameters(caller, &handle, messages).await?;
                // The state is here, so the handle stays the same.
                let bound = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                return Ok(PutResult { app_metadata: bound.encode_to_vec().into() });
            }
            Command::CommandPreparedStatementUpdate(command) => {
                self.update_prepared(caller, &command.prepared_statement_handle, messages).await?
            }
            Command::CommandStatementUpdate(command) => {
                let job = self.plan_statement(caller, &command.query, command.transaction_id.as_deref()).await?;
                self.update(caller, &job).await?
            }
            Command::CommandStatementIngest(command) => self.ingest(caller, command, messages).await?,
            Command::CommandStatementSubstraitPlan(_) => return Err(no_substrait()),
            other => return Err(not_supported("DoPut", other.type_url())),
        };
        Ok(PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() })
    }

    /// Answers DoGet: a ticket is a command, or stands for a statement that waits.
    pub(crate) async fn fetch_ticket(&self, caller: &Caller, ticket: &Ticket) -> Result<FlightStream, Status> {
        match decode_command(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => self.redeem_ticket(caller, &ticket.statement_handle).await,
            Command::CommandPreparedStatementQuery(command) => {
                self.fetch_prepared(caller, &command.prepared_statement_handle).await
            }
            // A query may be its own ticket, which saves the round trip of GetFlightInfo.
            Command::CommandStatementQuery(command) => self.fetch_statement(caller, command).await,
            Command::CommandGetCatalogs(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetDbSchemas(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetTables(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetTableTypes(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetPrimaryKeys(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetExportedKeys(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetImportedKeys(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetCrossReference(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetSqlInfo(command) => self.fetch_metadata(command, caller).await,
            Command::CommandGetXdbcTypeInfo(command) => self.fetch_metadata(command, caller).await,
            other => Err(not_supported("DoGet", other.type_url())),
        }
    }
}

/// A refusal that names the command, which may be any text.
pub(super) fn not_supported(call: &str, type_url: &str) -> Status {
    let name = type_url.rsplit(['.', '/']).next().unwrap_or(type_url);
    let name: String = name.chars().take(80).collect();
    refuse("0A000", format!("{call} does not support the command \"{name}\"")).into()
}

/// A plan names functions and types by Substrait's catalogue, whose meaning (overflow, decimals, NULLs) is not that of
/// the SQL here: the same query would answer differently by how it was sent.
fn no_substrait() -> Status {
    refuse("0A000", "Substrait plans are not supported").hint("send the query as SQL").into()
}
