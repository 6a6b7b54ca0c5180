//! A connection of the SQL corpus: statements in, rows as text out.
//!
//! How values are written in the scripts, and nowhere else:
//!
//! | value | text |
//! |---|---|
//! | NULL | `NULL` |
//! | the empty string | `(empty)` |
//! | a line break in a string | `\n` |
//! | all others | as Arrow prints them: `1.50`, `2026-11-20`, `2026-11-20T13:14:15`, `true` |

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use futures::TryStreamExt;
use rustydb_engine::{Error, Session, StatementResult};
use rustydb_flight::{RemoteClient, RemoteError, RemoteResult};
use sqllogictest::{AsyncDB, ColumnType, DBOutput};

use crate::restart::RestartingSession;

/// A session under the `sqllogictest` runner.
pub struct Connection {
    way: Way,
}

/// How statements get to the database.
#[expect(clippy::large_enum_variant, reason = "one for each connection")]
enum Way {
    Embedded(Session),
    Restarting(RestartingSession),
    Remote(RemoteClient),
}

impl Connection {
    /// Wraps a session.
    pub fn new(session: Session) -> Connection {
        Connection { way: Way::Embedded(session) }
    }

    /// A session whose database is closed and opened again between statements.
    pub fn restarting(session: RestartingSession) -> Connection {
        Connection { way: Way::Restarting(session) }
    }

    /// A session on a server.
    pub fn remote(client: RemoteClient) -> Connection {
        Connection { way: Way::Remote(client) }
    }
}

async fn run_embedded(session: &Session, sql: &str) -> Result<DBOutput<ColumnKind>, ScriptError> {
    match session.execute(sql, &[]).await? {
        StatementResult::Done(completion) => Ok(DBOutput::StatementComplete(completion.rows.unwrap_or(0))),
        StatementResult::Rows(stream) => {
            let schema = stream.schema();
            output(&schema, &stream.collect().await?)
        }
    }
}

fn output(schema: &Schema, batches: &[RecordBatch]) -> Result<DBOutput<ColumnKind>, ScriptError> {
    let types = schema.fields().iter().map(|field| ColumnKind::of(field.data_type())).collect();
    Ok(DBOutput::Rows { types, rows: rows_as_text(batches)? })
}

#[async_trait]
impl AsyncDB for Connection {
    type Error = ScriptError;
    type ColumnType = ColumnKind;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<ColumnKind>, ScriptError> {
        match &mut self.way {
            Way::Embedded(session) => run_embedded(session, sql).await,
            Way::Restarting(session) => run_embedded(session.next(sql).await?, sql).await,
            Way::Remote(client) => match client.execute(sql).await? {
                RemoteResult::Done { rows } => Ok(DBOutput::StatementComplete(rows)),
                RemoteResult::Rows(stream) => {
                    let schema = stream.schema();
                    output(&schema, &stream.try_collect::<Vec<_>>().await?)
                }
            },
        }
    }

    async fn shutdown(&mut self) {
        if let Way::Remote(client) = &self.way {
            // The server ends the session by itself, too.
            let _ = client.clone().close().await;
        }
    }

    fn engine_name(&self) -> &str {
        "rustydb"
    }

    fn error_sql_state(error: &ScriptError) -> Option<String> {
        Some(error.sqlstate.clone())
    }
}

/// An error as the scripts see it: `statement error (42P01)` compares the SQLSTATE, `statement error TEXT` searches in
/// `[SQLSTATE] message`, followed by the position, detail and hint if there are any.
#[derive(Debug)]
pub struct ScriptError {
    sqlstate: String,
    text: String,
}

impl ScriptError {
    pub(crate) fn sqlstate(&self) -> &str {
        &self.sqlstate
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for ScriptError {}

impl From<Error> for ScriptError {
    fn from(error: Error) -> ScriptError {
        let mut text = format!("[{}] {}", error.sqlstate(), error.message());
        if let Some(position) = error.position() {
            text.push_str(&format!(" at {}:{}", position.line, position.column));
        }
        for (label, addition) in [("detail", error.detail()), ("hint", error.hint())] {
            if let Some(addition) = addition {
                text.push_str(&format!("; {label}: {addition}"));
            }
        }
        ScriptError { sqlstate: error.sqlstate().to_owned(), text }
    }
}

impl From<RemoteError> for ScriptError {
    fn from(error: RemoteError) -> ScriptError {
        let mut text = format!("[{}] {}", error.sqlstate(), error.message());
        if let Some(position) = error.position() {
            text.push_str(&format!(" at {}:{}", position.line, position.column));
        }
        for (label, addition) in [("detail", error.detail()), ("hint", error.hint())] {
            if let Some(addition) = addition {
                text.push_str(&format!("; {label}: {addition}"));
            }
        }
        ScriptError { sqlstate: error.sqlstate().to_owned(), text }
    }
}

impl From<ArrowError> for ScriptError {
    fn from(error: ArrowError) -> ScriptError {
        ScriptError { sqlstate: "XX000".to_owned(), text: format!("a value cannot be printed: {error}") }
    }
}

/// The letter that stands for a column's type in `query` lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// `B`
    Boolean,
    /// `I`: any integer
    Integer,
    /// `R`: floating point and decimals
    Number,
    /// `T`: strings
    Text,
    /// `D`
    Date,
    /// `P`: a point in time
    Timestamp,
    /// `?`: everything else
    Other,
}

impl ColumnKind {
    fn of(data_type: &DataType) -> ColumnKind {
        match data_type {
            DataType::Boolean => ColumnKind::Boolean,
            integer if integer.is_integer() => ColumnKind::Integer,
            number if number.is_floating() || number.is_decimal() => ColumnKind::Number,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnKind::Text,
            DataType::Date32 | DataType::Date64 => ColumnKind::Date,
            DataType::Timestamp(_, _) => ColumnKind::Timestamp,
            _ => ColumnKind::Other,
        }
    }
}

impl ColumnType for ColumnKind {
    fn from_char(letter: char) -> Option<ColumnKind> {
        match letter {
            'B' => Some(ColumnKind::Boolean),
            'I' => Some(ColumnKind::Integer),
            'R' => Some(ColumnKind::Number),
            'T' => Some(ColumnKind::Text),
            'D' => Some(ColumnKind::Date),
            'P' => Some(ColumnKind::Timestamp),
            '?' => Some(ColumnKind::Other),
            _ => None,
        }
    }

    fn to_char(&self) -> char {
        match self {
            ColumnKind::Boolean => 'B',
            ColumnKind::Integer => 'I',
            ColumnKind::Number => 'R',
            ColumnKind::Text => 'T',
            ColumnKind::Date => 'D',
            ColumnKind::Timestamp => 'P',
            ColumnKind::Other => '?',
        }
    }
}

pub(crate) fn rows_as_text(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let mut texts = Vec::with_capacity(formatters.len());
            for formatter in &formatters {
                let text = formatter.value(row).try_to_string()?;
                texts.push(if text.is_empty() { "(empty)".to_owned() } else { text.replace('\n', "\\n") });
            }
            rows.push(texts);
        }
    }
    Ok(rows)
}
