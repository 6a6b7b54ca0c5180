//! What the engine's tests share: databases to try things on, and results as text.

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rustydb_engine::{Completion, Database, DatabaseOptions, Error, RecordStream, Session, StatementResult, Value};

/// A database in memory and a session on it.
pub(crate) async fn memory() -> Session {
    let options = DatabaseOptions { query_threads: Some(2), memory_limit: Some(1 << 30), ..DatabaseOptions::memory() };
    Database::open(options).await.unwrap().connect()
}

/// A database in a directory.
pub(crate) async fn open(directory: &std::path::Path) -> Database {
    let options = DatabaseOptions {
        query_threads: Some(2),
        memory_limit: Some(1 << 30),
        ..DatabaseOptions::directory(directory)
    };
    Database::open(options).await.unwrap()
}

/// Runs a statement for its completion.
pub(crate) async fn run(session: &Session, sql: &str) -> Completion {
    run_with(session, sql, &[]).await
}

pub(crate) async fn run_with(session: &Session, sql: &str, parameters: &[Value]) -> Completion {
    match session.execute(sql, parameters).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")) {
        StatementResult::Done(completion) => completion,
        StatementResult::Rows(_) => panic!("{sql}: returned rows"),
    }
}

/// The number of rows a statement touched.
pub(crate) async fn affected(session: &Session, sql: &str) -> u64 {
    run(session, sql).await.rows.unwrap_or_else(|| panic!("{sql}: no count"))
}

/// Runs a query and prints its rows: `1|abc|NULL`, one a line, in the order they come.
pub(crate) async fn query(session: &Session, sql: &str) -> Vec<String> {
    query_with(session, sql, &[]).await
}

pub(crate) async fn query_with(session: &Session, sql: &str, parameters: &[Value]) -> Vec<String> {
    try_query_with(session, sql, parameters).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

pub(crate) async fn try_query_with(session: &Session, sql: &str, parameters: &[Value]) -> Result<Vec<String>, Error> {
    match session.execute(sql, parameters).await? {
        StatementResult::Rows(rows) => lines(rows).await,
        StatementResult::Done(completion) => panic!("{sql}: no rows, but {}", completion.tag),
    }
}

pub(crate) async fn lines(rows: RecordStream) -> Result<Vec<String>, Error> {
    Ok(rows.collect().await?.iter().flat_map(batch_lines).collect())
}

pub(crate) fn batch_lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let line = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(line).collect()
}

/// Runs a statement that must fail, at once or while its rows are read.
pub(crate) async fn error(session: &Session, sql: &str) -> Error {
    error_with(session, sql, &[]).await
}

pub(crate) async fn error_with(session: &Session, sql: &str, parameters: &[Value]) -> Error {
    match session.execute(sql, parameters).await {
        Err(error) => error,
        Ok(StatementResult::Done(completion)) => panic!("{sql}: succeeded ({completion:?})"),
        Ok(StatementResult::Rows(rows)) => match rows.collect().await {
            Err(error) => error,
            Ok(batches) => panic!("{sql}: succeeded with {batches:?}"),
        },
    }
}

/// Checks the SQLSTATE of each statement's failure.
pub(crate) async fn assert_errors(session: &Session, cases: &[(&str, &str)]) {
    for (sql, sqlstate) in cases {
        let error = error(session, sql).await;
        assert_eq!(error.sqlstate(), *sqlstate, "{sql}: {error:?}");
    }
}
