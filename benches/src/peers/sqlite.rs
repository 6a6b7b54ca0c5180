//! SQLite as a database for TPC-C: statement mode only, in the process, in write-ahead mode with a sync per commit.
//!
//! It has one writer at a time, so a transaction takes that right when it begins; none of its calls pauses, so the terminals
//! of a thread take turns between transactions. Money is what SQLite makes of it: floating point.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use rusqlite::types::Value;
use rusqlite::{ErrorCode, params_from_iter};
use rustydb_tpch::tpcc::{Client, Connection, Failure, Parameter, Rows};

/// How long a transaction waits for the writer before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    path: Arc<PathBuf>,
}

impl Sqlite {
    /// The database in a file, made if there is none.
    pub fn new(path: PathBuf) -> Sqlite {
        Sqlite { path: Arc::new(path) }
    }
}

impl Client for Sqlite {
    type Connection = SqliteConnection;

    async fn connect(&self) -> Result<SqliteConnection, Failure> {
        let connection = rusqlite::Connection::open(self.path.as_path()).map_err(failure)?;
        connection.busy_timeout(PATIENCE).map_err(failure)?;
        connection.set_prepared_statement_cache_capacity(100);
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -262144; \
                 PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 10000;",
            )
            .map_err(failure)?;
        Ok(SqliteConnection { connection })
    }

    async fn load(
        &self,
        table: &'static str,
        columns: SchemaRef,
        mut rows: BoxStream<'static, Result<RecordBatch, ArrowError>>,
    ) -> Result<u64, Failure> {
        let mut connection = self.connect().await?;
        let places: Vec<&str> = columns.fields().iter().map(|_| "?").collect();
        let insert = format!("INSERT INTO {table} VALUES ({})", places.join(", "));
        let mut count = 0;
        connection.begin().await?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| Failure::unexpected(error.to_string()))?;
            let mut statement = connection.connection.prepare_cached(&insert).map_err(failure)?;
            for row in 0..batch.num_rows() {
                let values = batch.columns().iter().map(|column| value_at(column.as_ref(), row));
                statement.execute(params_from_iter(values)).map_err(failure)?;
            }
            count += batch.num_rows() as u64;
        }
        connection.commit().await?;
        Ok(count)
    }

    fn keys(&self) -> &'static str {
        // SQLite declares foreign keys with the table or never, and does not check them by default: without.
        "CREATE INDEX customer_by_name ON customer (c_w_id, c_d_id, c_last, c_first);
         CREATE INDEX orders_by_customer ON orders (o_w_id, o_d_id, o_c_id, o_id);"
    }
}

/// A connection.
#[derive(Debug)]
pub struct SqliteConnection {
    connection: rusqlite::Connection,
}

impl SqliteConnection {
    fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Vec<Value>>, Failure> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failure)?;
        let columns = statement.column_count();
        let mut found = statement.query(params_from_iter(parameters.iter().map(value_of))).map_err(failure)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(failure)? {
            let cells = (0..columns).map(|column| row.get_ref(column).map(Value::from));
            rows.push(cells.collect::<Result<Vec<_>, _>>().map_err(failure)?);
        }
        Ok(rows)
    }
}

impl Connection for SqliteConnection {
    /// Its text: the connection caches what it stands for.
    type Statement = String;
    type Rows = SqliteRows;

    async fn prepare(&mut self, sql: &str) -> Result<String, Failure> {
        // `?1` instead of `$1`, whose numbers would be names.
        let sql = sql.replace('$', "?");
        self.connection.prepare_cached(&sql).map_err(failure)?;
        Ok(sql)
    }

    async fn query(&mut self, statement: &String, parameters: &[Parameter<'_>]) -> Result<SqliteRows, Failure> {
        self.rows(statement, parameters).map(SqliteRows)
    }

    async fn execute(&mut self, statement: &String, parameters: &[Parameter<'_>]) -> Result<u64, Failure> {
        let mut prepared = self.connection.prepare_cached(statement).map_err(failure)?;
        let count = prepared.execute(params_from_iter(parameters.iter().map(value_of))).map_err(failure)?;
        Ok(count as u64)
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])).map_err(failure)?;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).map_err(failure)?;
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), Failure> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection.execute_batch("ROLLBACK").map_err(failure)
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        self.connection.execute_batch(sql).map_err(failure)
    }

    async fn drain(&mut self, sql: &str) -> Result<u64, Failure> {
        self.rows(sql, &[]).map(|rows| rows.len() as u64)
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let text = |value: Value| match value {
            Value::Null => None,
            Value::Integer(number) => Some(number.to_string()),
            Value::Real(number) => Some(number.to_string()),
            Value::Text(text) => Some(text),
            Value::Blob(bytes) => Some(format!("{bytes:?}")),
        };
        let rows = self.rows(sql, &[])?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect())
    }
}

/// The rows of a result.
#[derive(Debug)]
pub struct SqliteRows(Vec<Vec<Value>>);

impl SqliteRows {
    fn cell(&self, row: usize, column: usize) -> Result<&Value, Failure> {
        let cell = self.0.get(row).and_then(|row| row.get(column));
        cell.ok_or_else(|| Failure::unexpected(format!("there is no cell {row}, {column}")))
    }
}

impl Rows for SqliteRows {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn integer(&self, row: usize, column: usize) -> Result<Option<i64>, Failure> {
        match self.cell(row, column)? {
            Value::Null => Ok(None),
            Value::Integer(number) => Ok(Some(*number)),
            other => Err(Failure::unexpected(format!("{other:?} is no whole number"))),
        }
    }

    fn decimal(&self, row: usize, column: usize, scale: u8) -> Result<Option<i64>, Failure> {
        let factor = 10_i64.pow(u32::from(scale));
        match self.cell(row, column)? {
            Value::Null => Ok(None),
            Value::Integer(number) => Ok(Some(number * factor)),
            Value::Real(number) => Ok(Some((number * factor as f64).round() as i64)),
            other => Err(Failure::unexpected(format!("{other:?} is no number"))),
        }
    }

    fn text(&self, row: usize, column: usize, text: &mut String) -> Result<bool, Failure> {
        match self.cell(row, column)? {
            Value::Null => Ok(false),
            Value::Text(found) => {
                text.push_str(found);
                Ok(true)
            }
            other => Err(Failure::unexpected(format!("{other:?} is no text"))),
        }
    }
}

fn value_of(parameter: &Parameter<'_>) -> Value {
    match parameter {
        Parameter::Integer(number) => Value::Integer(i64::from(*number)),
        Parameter::Long(number) | Parameter::Timestamp(number) => Value::Integer(*number),
        Parameter::Cents(cents) => Value::Real(*cents as f64 / 100.0),
        Parameter::Text(text) => Value::Text((*text).to_owned()),
        // Arrays are for procedures, which SQLite does not have.
        Parameter::Null | Parameter::Integers(_) => Value::Null,
    }
}

/// A cell of a batch of the load.
fn value_at(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int32 => Value::Integer(i64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Decimal128(_, scale) => {
            let unscaled = column.as_primitive::<Decimal128Type>().value(row);
            Value::Real(unscaled as f64 / 10_f64.powi(i32::from(*scale)))
        }
        DataType::Timestamp(..) => Value::Integer(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        _ => Value::Text(column.as_string_opt::<i32>().map(|texts| texts.value(row).to_owned()).unwrap_or_default()),
    }
}

fn failure(error: rusqlite::Error) -> Failure {
    let sqlstate = match &error {
        // Somebody else wrote, or was writing for longer than the patience lasts.
        rusqlite::Error::SqliteFailure(cause, _) if cause.code == ErrorCode::DatabaseBusy => "40001",
        rusqlite::Error::SqliteFailure(_, Some(message)) if message.starts_with("no such table") => "42P01",
        rusqlite::Error::SqlInputError { msg, .. } if msg.starts_with("no such table") => "42P01",
        _ => "XX000",
    };
    Failure::new(sqlstate, error.to_string())
}
