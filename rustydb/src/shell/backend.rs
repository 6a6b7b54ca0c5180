//! The two things a shell can talk to, behind one enum: a session of an embedded database, or a server.
//!
//! What the shell needs is little: execute a statement, describe a table, list names for completion. The catalogue
//! questions are asked in SQL over `information_schema`, so that both answer alike.

use super::failure::Failure;
use super::render::value::Cells;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use rustydb::{Session, Severity, StatementResult, TransactionStatus};
use rustydb_flight::{RemoteClient, RemoteResult};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection.
pub(crate) enum Backend {
    /// A session of a database opened by this process.
    Embedded(Box<Session>),
    /// A Flight SQL connection.
    Remote(Box<RemoteSession>),
}

/// A connection to a server, and what its statements did to its transaction: the protocol does not tell.
pub(crate) struct RemoteSession {
    client: RemoteClient,
    in_transaction: AtomicBool,
}

impl RemoteSession {
    pub(crate) fn new(client: RemoteClient) -> Self {
        RemoteSession { client, in_transaction: AtomicBool::new(false) }
    }
}

/// What a statement gave.
pub(crate) enum Outcome {
    Rows(ResultRows),
    /// A command tag such as "INSERT 3".
    Done {
        tag: String,
    },
}

/// A result set on its way. Dropping it cancels the query.
pub(crate) struct ResultRows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, Failure>>,
}

/// What `\d table` shows.
pub(crate) struct TableDescription {
    pub(crate) name: String,
    pub(crate) columns: ResultRows,
    /// Keys, one line each.
    pub(crate) notes: Vec<String>,
}

/// A table's name and columns, for completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableNames {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

/// Columns fetched for completion at most; who has more completes the first ones.
const COMPLETION_COLUMNS_MAX: usize = 20_000;

/// How long to wait for a server to end a session that it would end by itself sooner or later.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

impl Backend {
    /// What routines have said since this was last asked. A server has no way to pass it on.
    pub(crate) fn notices(&self) -> Vec<String> {
        let Backend::Embedded(session) = self else { return Vec::new() };
        let shown = |notice: rustydb::Notice| {
            let severity = match notice.severity {
                Severity::Debug | Severity::Log => return None,
                Severity::Info => "INFO",
                Severity::Notice => "NOTICE",
                Severity::Warning => "WARNING",
            };
            Some(format!("{severity}: {}", notice.message.message()))
        };
        session.take_notices().into_iter().filter_map(shown).collect()
    }

    /// Ends the session, so that a server need not keep it until it has been idle for long.
    pub(crate) async fn close(self) {
        if let Backend::Remote(session) = self
            && let Ok(Err(error)) = tokio::time::timeout(CLOSE_TIME_MAX, session.client.close()).await
        {
            tracing::debug!("closing the session: {error}");
        }
    }

    /// Executes one statement.
    pub(crate) async fn execute(&self, sql: &str) -> Result<Outcome, Failure> {
        match self {
            Backend::Embedded(session) => Ok(match session.execute(sql, &[]).await? {
                StatementResult::Rows(stream) => {
                    let schema = stream.schema();
                    Outcome::Rows(ResultRows { schema, batches: stream.map_err(Failure::from).boxed() })
                }
                StatementResult::Done(completion) => {
                    let rows = completion.rows.map(|rows| format!(" {rows}")).unwrap_or_default();
                    Outcome::Done { tag: format!("{}{rows}", completion.tag) }
                }
            }),
            Backend::Remote(session) => {
                let result = session.client.execute(sql).await;
                match transaction_step(sql) {
                    Some(TransactionStep::Begins) if result.is_ok() => {
                        session.in_transaction.store(true, Ordering::Relaxed);
                    }
                    // A COMMIT that fails ends it, too.
                    Some(TransactionStep::Ends) => session.in_transaction.store(false, Ordering::Relaxed),
                    _ => {}
                }
                Ok(match result? {
                    RemoteResult::Rows(stream) => {
                        let schema = stream.schema();
                        Outcome::Rows(ResultRows { schema, batches: stream.map_err(Failure::from).boxed() })
                    }
                    RemoteResult::Done { rows } => Outcome::Done { tag: command_tag(sql, rows) },
                })
            }
        }
    }

    /// The state of the transaction; of a server's, not whether it has failed.
    pub(crate) fn transaction_status(&self) -> TransactionStatus {
        match self {
            Backend::Embedded(session) => session.transaction_status(),
            Backend::Remote(session) => match session.in_transaction.load(Ordering::Relaxed) {
                true => TransactionStatus::Active,
                false => TransactionStatus::Idle,
            },
        }
    }

    /// Every table with its kind.
    pub(crate) async fn list_tables(&self) -> Result<ResultRows, Failure> {
        self.rows(
            "SELECT table_schema AS schema, table_name AS name, table_type AS type FROM information_schema.tables \
             WHERE table_schema <> 'information_schema' ORDER BY table_schema, table_name",
        )
        .await
    }

    /// Columns and keys of a table, named as in SQL: `table` or `schema.table`.
    pub(crate) async fn describe(&self, name: &str) -> Result<TableDescription, Failure> {
        let (schema, table) = split_name(name);
        let filter = format!(
            "FROM information_schema.columns WHERE table_schema = {} AND table_name = {}",
            literal(&schema),
            literal(&table)
        );
        let found = self.texts(&format!("SELECT column_name {filter}"), 1).await?;
        if found.is_empty() {
            // The engine's own error knows the nearest names.
            self.rows(&format!("SELECT * FROM {}.{} LIMIT 0", quoted(&schema), quoted(&table))).await?;
        }
        let columns = format!(
            "SELECT column_name AS column, \
                    CASE WHEN character_maximum_length IS NOT NULL \
                         THEN concat(data_type, '(', character_maximum_length, ')') \
                         WHEN data_type = 'numeric' AND numeric_precision IS NOT NULL \
                         THEN concat(data_type, '(', numeric_precision, ',', numeric_scale, ')') \
                         ELSE data_type END AS type, \
                    CASE is_nullable WHEN 'NO' THEN 'not null' ELSE '' END AS nullable, \
                    coalesce(column_default, '') AS default \
             {filter} ORDER BY ordinal_position"
        );
        Ok(TableDescription {
            columns: self.rows(&columns).await?,
            notes: self.keys(&schema, &table).await?,
            name: format!("{schema}.{table}"),
        })
    }

    /// The primary key, unique and foreign keys, and checks, as lines of text.
    async fn keys(&self, schema: &str, table: &str) -> Result<Vec<String>, Failure> {
        // One row per key column; a foreign key's row names the parent's key column at the same place.
        let sql = format!(
            "SELECT c.constraint_type, c.constraint_name, k.column_name, p.table_schema, p.table_name, p.column_name \
             FROM information_schema.table_constraints c \
             JOIN information_schema.key_column_usage k \
               ON k.constraint_schema = c.constraint_schema AND k.constraint_name = c.constraint_name \
              AND k.table_name = c.table_name \
             LEFT JOIN information_schema.referential_constraints r \
               ON r.constraint_schema = c.constraint_schema AND r.constraint_name = c.constraint_name \
             LEFT JOIN information_schema.key_column_usage p \
               ON p.constraint_schema = r.unique_constraint_schema AND p.constraint_name = r.unique_constraint_name \
              AND p.ordinal_position = k.position_in_unique_constraint \
             WHERE c.table_schema = {} AND c.table_name = {} \
             ORDER BY CASE c.constraint_type WHEN 'PRIMARY KEY' THEN 1 WHEN 'UNIQUE' THEN 2 ELSE 3 END, \
                      c.constraint_name, k.ordinal_position",
            literal(schema),
            literal(table)
        );
        let mut keys: Vec<Key> = Vec::new();
        for row in self.texts(&sql, 6).await? {
            let [kind, name, column, parent_schema, parent, parent_column] =
                <[String; 6]>::try_from(row).expect("six columns were asked for");
            if keys.last().is_none_or(|last| last.name != name) {
                let kind = match kind.as_str() {
                    "PRIMARY KEY" => KeyKind::Primary,
                    "UNIQUE" => KeyKind::Unique,
                    _ => KeyKind::Foreign { parent: format!("{parent_schema}.{parent}") },
                };
                keys.push(Key { name, kind, columns: Vec::new(), parent_columns: Vec::new() });
            }
            let last = keys.last_mut().expect("one was added if there was none");
            last.columns.push(column);
            last.parent_columns.push(parent_column);
        }
        let checks = format!(
            "SELECT h.constraint_name, h.check_clause FROM information_schema.table_constraints c \
             JOIN information_schema.check_constraints h \
               ON h.constraint_schema = c.constraint_schema AND h.constraint_name = c.constraint_name \
             WHERE c.constraint_type = 'CHECK' AND c.table_schema = {} AND c.table_name = {} ORDER BY 1",
            literal(schema),
            literal(table)
        );
        let checks = self.texts(&checks, 2).await?;
        let checks = checks.iter().map(|row| format!("Check {}: {}", row[0], row[1]));
        Ok(keys.iter().map(Key::describe).chain(checks).collect())
    }

    /// The names that completion offers.
    pub(crate) async fn names(&self) -> Result<Vec<TableNames>, Failure> {
        let sql = format!(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns \
             WHERE table_schema <> 'information_schema' \
             ORDER BY table_schema, table_name, ordinal_position LIMIT {COMPLETION_COLUMNS_MAX}"
        );
        let mut tables: Vec<TableNames> = Vec::new();
        for row in self.texts(&sql, 3).await? {
            let [schema, table, column] = <[String; 3]>::try_from(row).expect("three columns were asked for");
            match tables.last_mut() {
                Some(last) if last.schema == schema && last.table == table => last.columns.push(column),
                _ => tables.push(TableNames { schema, table, columns: vec![column] }),
            }
        }
        Ok(tables)
    }

    async fn rows(&self, sql: &str) -> Result<ResultRows, Failure> {
        match self.execute(sql).await? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Done { tag } => Err(Failure::new("XX000", format!("a query answered {tag} instead of rows"))),
        }
    }

    /// A small result as text, row by row.
    async fn texts(&self, sql: &str, columns: usize) -> Result<Vec<Vec<String>>, Failure> {
        let mut rows = self.rows(sql).await?;
        if rows.schema.fields().len() != columns {
            return Err(Failure::new("XX000", "a catalogue query answered with unexpected columns"));
        }
        let mut texts = Vec::new();
        while let Some(batch) = rows.batches.try_next().await? {
            let unreadable = |error: super::RenderError| Failure::new("XX000", error.to_string());
            let cells = Cells::of(&batch).map_err(unreadable)?;
            for row in 0..batch.num_rows() {
                let row = (0..columns).map(|column| cells.readable(row, column));
                texts.push(row.collect::<Result<Vec<String>, _>>().map_err(unreadable)?);
            }
        }
        Ok(texts)
    }
}

enum KeyKind {
    Primary,
    Unique,
    Foreign { parent: String },
}

/// A key constraint.
struct Key {
    name: String,
    kind: KeyKind,
    columns: Vec<String>,
    parent_columns: Vec<String>,
}

impl Key {
    fn describe(&self) -> String {
        let columns = self.columns.join(", ");
        match &self.kind {
            KeyKind::Primary => format!("Primary key: ({columns})"),
            KeyKind::Unique => format!("Unique {}: ({columns})", self.name),
            KeyKind::Foreign { parent } => {
                format!(
                    "Foreign key {}: ({columns}) references {parent} ({})",
                    self.name,
                    self.parent_columns.join(", ")
                )
            }
        }
    }
}

/// The tag of a statement that a server has run: Flight SQL reports a number of rows only, so the rest is read off the
/// statement.
fn command_tag(sql: &str, rows: u64) -> String {
    let mut words = words(sql);
    let first = words.next().unwrap_or_default();
    match first.as_str() {
        "INSERT" | "UPDATE" | "DELETE" | "COPY" => format!("{first} {rows}"),
        "CREATE" | "DROP" | "ALTER" => format!("{first} {}", words.next().unwrap_or_default()),
        _ => first,
    }
}

/// What a statement does to the transaction.
#[derive(Debug, PartialEq, Eq)]
enum TransactionStep {
    Begins,
    Ends,
}

fn transaction_step(sql: &str) -> Option<TransactionStep> {
    let mut words = words(sql);
    match words.next()?.as_str() {
        "BEGIN" | "START" => Some(TransactionStep::Begins),
        "COMMIT" | "END" | "ROLLBACK" | "ABORT" => {
            let rest: Vec<String> = words.collect();
            // ROLLBACK TO SAVEPOINT goes back inside of it, AND CHAIN begins the next one.
            let goes_on = rest.iter().any(|word| word == "TO")
                || rest.iter().any(|word| word == "CHAIN") && !rest.iter().any(|word| word == "NO");
            (!goes_on).then_some(TransactionStep::Ends)
        }
        _ => None,
    }
}

/// The words of a statement in upper case, without comments and semicolons.
fn words(sql: &str) -> impl Iterator<Item = String> + '_ {
    let is_comment = |line: &&str| !line.trim_start().starts_with("--");
    let words = sql.lines().filter(is_comment).flat_map(str::split_whitespace);
    words.map(|word| word.trim_end_matches(';').to_uppercase()).filter(|word| !word.is_empty())
}

/// Splits `schema.table`, folding to lower case what is not quoted.
fn split_name(name: &str) -> (String, String) {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in name.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c => {
                let last = parts.last_mut().expect("never empty");
                if quoted { last.push(c) } else { last.extend(c.to_lowercase()) }
            }
        }
    }
    let table = parts.pop().expect("never empty");
    (parts.pop().unwrap_or_else(|| "public".to_owned()), table)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::{TransactionStep, command_tag, split_name, transaction_step};

    #[test]
    fn a_servers_answer_gets_the_tag_of_the_statement() {
        assert_eq!(command_tag("insert into t values (1)", 1), "INSERT 1");
        assert_eq!(command_tag("-- first\nCREATE\n TABLE t (a int)", 0), "CREATE TABLE");
        assert_eq!(command_tag("BEGIN", 0), "BEGIN");
    }

    #[test]
    fn statements_that_begin_and_end_transactions_are_known() {
        for (sql, step) in [
            ("begin;", Some(TransactionStep::Begins)),
            ("-- now\nSTART TRANSACTION READ ONLY", Some(TransactionStep::Begins)),
            ("commit;", Some(TransactionStep::Ends)),
            ("ROLLBACK", Some(TransactionStep::Ends)),
            ("ROLLBACK TO SAVEPOINT a", None),
            ("COMMIT AND CHAIN", None),
            ("COMMIT AND NO CHAIN", Some(TransactionStep::Ends)),
            ("SELECT 'begin'", None),
            ("", None),
        ] {
            assert_eq!(transaction_step(sql), step, "{sql}");
        }
    }

    #[test]
    fn names_fold_like_sql_names() {
        let split = |name| {
            let (schema, table) = split_name(name);
            format!("{schema}/{table}")
        };
        assert_eq!(split("Person"), "public/person");
        assert_eq!(split("Sales.\"Odd.Name\""), "sales/Odd.Name");
    }
}
