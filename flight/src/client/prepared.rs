//! Prepared statements and bulk ingest from a client: what a program that runs the same statements many times needs.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandStatementIngest;
use arrow_flight::sql::client::PreparedStatement;
use arrow_flight::sql::{TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::{Stream, StreamExt};
use tonic::transport::Channel;

use super::{RemoteClient, RemoteError, RemoteResult, Result, fetch};

/// A statement that a server has prepared in the session of a [`RemoteClient`]. The server forgets it with the session.
#[derive(Debug, Clone)]
pub struct RemoteStatement {
    statement: PreparedStatement<Channel>,
    parameters: SchemaRef,
    returns_rows: bool,
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
        let statement = self.client.clone().prepare(sql.to_owned(), None).await?;
        let parameters = SchemaRef::new(statement.parameter_schema()?.clone());
        // A statement without result columns is an update, by the convention that JDBC set.
        let returns_rows = !statement.dataset_schema()?.fields().is_empty();
        Ok(RemoteStatement { statement, parameters, returns_rows })
    }

    /// Runs a prepared statement with the values of its parameters: one row, or `None` if there are none.
    pub async fn execute_prepared(
        &self,
        statement: &RemoteStatement,
        parameters: Option<RecordBatch>,
    ) -> Result<RemoteResult> {
        // The parameters are kept with the statement, and two executions must not share them.
        let mut bound = statement.statement.clone();
        if let Some(parameters) = parameters {
            bound.set_parameters(parameters)?;
        }
        if !statement.returns_rows {
            let rows = bound.execute_update().await?;
            return Ok(RemoteResult::Done { rows: u64::try_from(rows).unwrap_or(0) });
        }
        let info = bound.execute().await?;
        fetch(&mut self.client.clone(), &info).await.map(RemoteResult::Rows)
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
