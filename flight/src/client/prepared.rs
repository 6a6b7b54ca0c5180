//! Prepared statements and bulk ingest from a client: what a program that runs the same statements many times needs.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandStatementIngest,
    ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{Action, IpcMessage};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;

use super::exchange::{Exchange, Waiting};
use super::{RemoteClient, RemoteError, RemoteResult, RemoteStream, Result};

/// A statement that a server has prepared in the session of a [`RemoteClient`]. The server forgets it with the session.
///
/// Its executions share one stream to the server, so that each takes one message there and, if its answer is short, one
/// back. Clones may run at the same time; all but one of them open a stream of their own then.
#[derive(Debug, Clone)]
pub struct RemoteStatement {
    handle: Bytes,
    parameters: SchemaRef,
    returns_rows: bool,
    waiting: Waiting,
}

impl RemoteStatement {
    /// The parameters in order, with the types that the statement gives them.
    pub fn parameter_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.parameters)
    }
}

impl RemoteClient {
    /// Prepares a statement.
    pub async fn prepare(&self, sql: &str) -> Result<RemoteStatement> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let unexpected = || RemoteError::local("08P01", "the server's answer to a preparation has an unexpected form");
        let answer = self.client.clone().do_action(action).await?.message().await?.ok_or_else(unexpected)?;
        let answer = Any::decode(answer.body).ok().and_then(|any| any.unpack().ok().flatten());
        let answer: ActionCreatePreparedStatementResult = answer.ok_or_else(unexpected)?;
        // A statement without result columns is an update, by the convention that JDBC set.
        let returns_rows = !schema_of(answer.dataset_schema)?.fields().is_empty();
        Ok(RemoteStatement {
            handle: answer.prepared_statement_handle,
            parameters: schema_of(answer.parameter_schema)?,
            returns_rows,
            waiting: Waiting::default(),
        })
    }

    /// Runs a prepared statement with the values of its parameters: one row, or `None` if there are none.
    pub async fn execute_prepared(
        &self,
        statement: &RemoteStatement,
        parameters: Option<RecordBatch>,
    ) -> Result<RemoteResult> {
        let parameters = parameters.map_or_else(one_row_without_columns, Ok)?;
        // Taken: another execution at the same time opens one of its own.
        let waiting = statement.waiting.lock().take().filter(|exchange| exchange.suits(&parameters));
        let mut exchange = match waiting {
            Some(mut exchange) => {
                exchange.execute(&parameters)?;
                exchange
            }
            None => Exchange::open(self, statement.handle.clone(), &parameters, statement.returns_rows).await?,
        };
        if !statement.returns_rows {
            let rows = exchange.count(&statement.waiting).await?;
            return Ok(RemoteResult::Done { rows });
        }
        let schema = exchange.schema().await?;
        Ok(RemoteResult::Rows(RemoteStream::of_exchange(schema, exchange.rows(&statement.waiting))))
    }

    /// Adds rows to a table that exists, all or none. Returns their number.
    pub async fn ingest(
        &self,
        schema: &str,
        table: &str,
        rows: impl Stream<Item = std::result::Result<RecordBatch, arrow::error::ArrowError>> + Send + 'static,
    ) -> Result<u64> {
        let command = CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: TableNotExistOption::Fail.into(),
                if_exists: TableExistsOption::Append.into(),
            }),
            table: table.to_owned(),
            schema: Some(schema.to_owned()),
            catalog: None,
            temporary: false,
            transaction_id: None,
            options: Default::default(),
        };
        let rows = rows.map(|batch| batch.map_err(FlightError::from));
        let count = self.client.clone().execute_ingest(command, rows).await?;
        u64::try_from(count).map_err(|_| RemoteError::local("08P01", "the server did not say how many rows it took"))
    }
}

/// No schema at all is one without fields.
fn schema_of(message: Bytes) -> Result<SchemaRef> {
    if message.is_empty() {
        return Ok(Arc::new(Schema::empty()));
    }
    Ok(Arc::new(Schema::try_from(IpcMessage(message)).map_err(FlightError::from)?))
}

fn one_row_without_columns() -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
    Ok(batch.map_err(FlightError::from)?)
}
