//! A server over Flight SQL as a database for TPC-C. Each terminal is a connection, and a session, of its own.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use rustydb::split_statements;
use rustydb_flight::{RemoteClient, RemoteError, RemoteOptions, RemoteResult, RemoteStatement};
use rustydb_tpch::tpcc::{Batches, Client, Connection, Failure, Parameter, texts_of, value_of};
use std::sync::Arc;

/// What a rollback without a transaction fails with.
const NO_ACTIVE_TRANSACTION: &str = "25P01";

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    options: RemoteOptions,
    /// What each session runs first.
    settings: String,
}

impl Remote {
    pub(crate) fn new(options: RemoteOptions, settings: String) -> Remote {
        Remote { options, settings }
    }
}

impl Client for Remote {
    type Connection = RemoteConnection;

    async fn connect(&self) -> Result<RemoteConnection, Failure> {
        let client = RemoteClient::connect(self.options.clone()).await.map_err(failure)?;
        run_script(&client, &self.settings).await?;
        let begin = client.prepare("BEGIN").await.map_err(failure)?;
        let commit = client.prepare("COMMIT").await.map_err(failure)?;
        let roll_back = client.prepare("ROLLBACK").await.map_err(failure)?;
        Ok(RemoteConnection { client, begin, commit, roll_back })
    }

    async fn load(
        &self,
        table: &'static str,
        _columns: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch, ArrowError>>,
    ) -> Result<u64, Failure> {
        let connection = self.connect().await?;
        connection.client.ingest("public", table, rows).await.map_err(failure)
    }
}

/// A session on the server.
pub(crate) struct RemoteConnection {
    client: RemoteClient,
    begin: RemoteStatement,
    commit: RemoteStatement,
    roll_back: RemoteStatement,
}

impl RemoteConnection {
    async fn run(&self, statement: &RemoteStatement, parameters: &[Parameter<'_>]) -> Result<RemoteResult, Failure> {
        let bound = if parameters.is_empty() { None } else { Some(one_row(statement, parameters)?) };
        self.client.execute_prepared(statement, bound).await.map_err(failure)
    }
}

impl Connection for RemoteConnection {
    type Statement = RemoteStatement;
    type Rows = Batches;

    async fn prepare(&mut self, sql: &str) -> Result<RemoteStatement, Failure> {
        self.client.prepare(sql).await.map_err(failure)
    }

    async fn query(&mut self, statement: &RemoteStatement, parameters: &[Parameter<'_>]) -> Result<Batches, Failure> {
        match self.run(statement, parameters).await? {
            RemoteResult::Rows(rows) => Ok(Batches::new(rows.try_collect().await.map_err(failure)?)),
            RemoteResult::Done { .. } => Err(Failure::unexpected("a statement answered without rows")),
        }
    }

    async fn execute(&mut self, statement: &RemoteStatement, parameters: &[Parameter<'_>]) -> Result<u64, Failure> {
        match self.run(statement, parameters).await? {
            RemoteResult::Rows(_) => Err(Failure::unexpected("a statement answered with rows that nobody asked for")),
            RemoteResult::Done { rows } => Ok(rows),
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.run(&self.begin, &[]).await.map(drop)
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.run(&self.commit, &[]).await.map(drop)
    }

    async fn roll_back(&mut self) -> Result<(), Failure> {
        match self.run(&self.roll_back, &[]).await {
            Err(failure) if failure.sqlstate != NO_ACTIVE_TRANSACTION => Err(failure),
            _ => Ok(()),
        }
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        run_script(&self.client, sql).await
    }

    async fn drain(&mut self, sql: &str) -> Result<u64, Failure> {
        let RemoteResult::Rows(mut rows) = self.client.execute(sql).await.map_err(failure)? else {
            return Err(Failure::unexpected("a query answered without rows"));
        };
        let mut count = 0;
        while let Some(batch) = rows.try_next().await.map_err(failure)? {
            count += batch.num_rows() as u64;
        }
        Ok(count)
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        match self.client.execute(sql).await.map_err(failure)? {
            RemoteResult::Rows(rows) => texts_of(&rows.try_collect::<Vec<_>>().await.map_err(failure)?),
            RemoteResult::Done { .. } => Err(Failure::unexpected("a query answered without rows")),
        }
    }
}

async fn run_script(client: &RemoteClient, sql: &str) -> Result<(), Failure> {
    let statements = split_statements(sql).map_err(Failure::from)?;
    for statement in statements {
        if let RemoteResult::Rows(rows) = client.execute(&statement.sql).await.map_err(failure)? {
            rows.try_collect::<Vec<_>>().await.map_err(failure)?;
        }
    }
    Ok(())
}

/// Parameters as the batch of one row that the protocol wants.
fn one_row(statement: &RemoteStatement, parameters: &[Parameter<'_>]) -> Result<RecordBatch, Failure> {
    let schema = statement.parameter_schema();
    let mut fields = Vec::with_capacity(parameters.len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(parameters.len());
    for (parameter, field) in parameters.iter().zip(schema.fields()) {
        let column = value_of(parameter, field.data_type()).to_array();
        let column = column.map_err(|error| Failure::unexpected(error.to_string()))?;
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Failure::unexpected(error.to_string()))
}

fn failure(error: RemoteError) -> Failure {
    let mut message = error.message().to_owned();
    if let Some(detail) = error.detail() {
        message.push_str(&format!("; {detail}"));
    }
    Failure::new(error.sqlstate(), message)
}
