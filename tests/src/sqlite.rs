//! SQLite's public corpus, as a second opinion: thousands of generated queries with the answers of another engine.
//!
//! The files lie outside of the repository and take minutes, so they are a job of their own (`cargo xtask sqlite`) and no
//! part of the tests. RustyDB follows PostgreSQL, so some records cannot pass; each of those is covered by a line of
//! `sqlite/differences.txt` that says why ([`Differences`]).
//!
//! SQLite prints a value by the type the script asks for, not by the type it has: under `I` a float loses its
//! fraction, under `R` an integer gets three digits of one. [`SqliteConnection`] does the same.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use async_trait::async_trait;
use rustydb_engine::{Database, DatabaseOptions, Session, StatementResult};
use sqllogictest::{
    AsyncDB, Control, DBOutput, DefaultColumnType, QueryExpect, Record, ResultMode, Runner, parse_with_name,
};

use crate::differences::{Comparison, Differences, Tally};
use crate::{Configuration, ScriptError};

/// SQLite's test program hashes results of more values than this unless a file says otherwise.
const HASH_THRESHOLD_DEFAULT: usize = 8;

/// Some queries join dozens of tables in the worst order; without a limit one of them would be the end of the job.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs one file; the error lists what is not explained, and explanations of nothing.
pub async fn run_sqlite_file(path: &Path, differences: &Differences) -> Result<Tally, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("a file without a name")?;
    let script = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let records =
        parse_with_name::<DefaultColumnType>(&plain_dialect(&script), name).map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().map_err(|error| format!("no scratch directory: {error}"))?;
    let options = DatabaseOptions {
        statement_timeout: Some(STATEMENT_TIMEOUT),
        ..Configuration::Default.options(directory.path())
    };
    let database = Database::open(options).await.map_err(|error| error.to_string())?;
    let expected_types = Arc::new(Mutex::new(Vec::new()));
    let mut runner = Runner::new(|| async {
        Ok(SqliteConnection { session: database.connect(), expected_types: Arc::clone(&expected_types) })
    });
    runner.add_label("postgresql");
    runner.with_hash_threshold(HASH_THRESHOLD_DEFAULT);
    let one_value_per_line = Record::Control(Control::ResultMode(ResultMode::ValueWise));
    runner.run_async(one_value_per_line).await.map_err(|error| error.to_string())?;

    let mut comparison = Comparison::new(differences, name);
    for record in records {
        let is_statement = match &record {
            Record::Halt { .. } => break,
            Record::Statement { .. } | Record::Query { .. } => true,
            _ => false,
        };
        if let Record::Query { expected: QueryExpect::Results { types, .. }, .. } = &record {
            types.clone_into(&mut expected_types.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match runner.run_async(record).await {
            Ok(_) if is_statement => comparison.tally.same += 1,
            Ok(_) => {}
            Err(error) => comparison.note(&error),
        }
    }
    runner.shutdown_async().await;
    drop(runner);
    database.close().await.map_err(|error| error.to_string())?;
    comparison.finish_alone()
}

/// Takes out what the parser does not know of SQLite's dialect: comments behind a keyword, and `halt` under a condition.
fn plain_dialect(script: &str) -> String {
    const KEYWORDS: [&str; 5] = ["statement", "query", "skipif", "onlyif", "hash-threshold"];
    let mut lines: Vec<String> = Vec::new();
    for line in script.lines() {
        let line = line.trim_end();
        if line == "halt" {
            match lines.last().map(String::as_str) {
                // Other systems stop here.
                Some(last) if last.starts_with("onlyif ") => {
                    lines.pop();
                    continue;
                }
                // Everybody but one stops here, so we do.
                Some(last) if last.starts_with("skipif ") => {
                    lines.pop();
                }
                _ => {}
            }
        }
        let is_keyword_line = KEYWORDS.iter().any(|keyword| line.starts_with(keyword));
        let end = if is_keyword_line { line.find(" #").unwrap_or(line.len()) } else { line.len() };
        lines.push(line[..end].trim_end().to_owned());
    }
    lines.join("\n")
}

/// A session that prints values as SQLite's test program does.
struct SqliteConnection {
    session: Session,
    /// The types that the record being run asks for.
    expected_types: Arc<Mutex<Vec<DefaultColumnType>>>,
}

#[async_trait]
impl AsyncDB for SqliteConnection {
    type Error = ScriptError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, ScriptError> {
        let stream = match self.session.execute(sql, &[]).await? {
            StatementResult::Done(completion) => return Ok(DBOutput::StatementComplete(completion.rows.unwrap_or(0))),
            StatementResult::Rows(stream) => stream,
        };
        let types = vec![DefaultColumnType::Any; stream.schema().fields().len()];
        let expected = self.expected_types.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut rows = Vec::new();
        for batch in stream.collect().await? {
            append_rows(&batch, &expected, &mut rows)?;
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "rustydb"
    }

    fn error_sql_state(error: &ScriptError) -> Option<String> {
        Some(error.sqlstate().to_owned())
    }
}

fn append_rows(
    batch: &RecordBatch,
    expected: &[DefaultColumnType],
    rows: &mut Vec<Vec<String>>,
) -> Result<(), ScriptError> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (index, column) in batch.columns().iter().enumerate() {
        columns.push(column_as_text(column, expected.get(index).unwrap_or(&DefaultColumnType::Any))?);
    }
    rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    Ok(())
}

fn column_as_text(column: &dyn Array, expected: &DefaultColumnType) -> Result<Vec<String>, ScriptError> {
    let rows = 0..column.len();
    // Text asked for as a number is zero, as `sqlite3_column_int` has it; the cast gives NULL for it.
    let null_or = |row: usize, number: String| if column.is_null(row) { "NULL".to_owned() } else { number };
    Ok(match expected {
        DefaultColumnType::Integer => {
            let integers = cast(column, &DataType::Int64)?;
            let integers = integers.as_primitive::<Int64Type>();
            rows.map(|row| null_or(row, if integers.is_null(row) { 0 } else { integers.value(row) }.to_string()))
                .collect()
        }
        DefaultColumnType::FloatingPoint => {
            let floats = cast(column, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>();
            rows.map(|row| null_or(row, format!("{:.3}", if floats.is_null(row) { 0.0 } else { floats.value(row) })))
                .collect()
        }
        DefaultColumnType::Text | DefaultColumnType::Any => {
            let texts = cast(column, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            rows.map(|row| null_or(row, printable(if texts.is_null(row) { "" } else { texts.value(row) }))).collect()
        }
    })
}

fn printable(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    text.chars().map(|character| if (' '..='~').contains(&character) { character } else { '@' }).collect()
}
