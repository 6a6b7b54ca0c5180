//! One connection: its settings, its transaction, and the way of each statement through the engine.
//!
//! Statements of a session run one after the other, on the database's own threads. A result stream holds what it needs and
//! outlives the statement: the next one may start while it is still being read.

mod beside;
mod calls;
mod control;
mod describe;
mod discard;
mod execute;
mod idle;
mod ingest;
mod live_settings;
mod lock_targets;
mod locking;
mod named;
mod routine;
mod row;
mod settings;
mod slices;
mod statement;
mod streaming;
mod surroundings;
mod taken_settings;
mod transaction;
mod write;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use futures::Stream;
use parking_lot::Mutex;
use rustydb_storage::Catalog;

use beside::Beside;
pub(crate) use calls::{calls_first, describe_calls};
pub(crate) use describe::{describe_schema, text_table};
pub(crate) use execute::note_reads;
pub(crate) use live_settings::LiveSettings;
pub(crate) use locking::lock_and_read;
use named::NamedStatements;
pub(crate) use routine::{Changing, describe_call};
pub(crate) use row::{Begun, Left, decided};
use settings::Settings;
pub(crate) use statement::Statement;
use statement::Text;
use streaming::StreamFailures;
pub use surroundings::Surroundings;
use transaction::TransactionState;
pub use transaction::TransactionStatus;
pub(crate) use write::write_name;

use crate::ddl::temporary::{self, TemporarySchema};
use crate::dml::foreign_key::DeferredChecks;
use crate::opaque::Opaque;
use crate::prepared::Prepared;
use crate::routine::Notice;
use crate::runtime::Task;
use crate::sequences::SessionSequences;
use crate::sql::text::places::place_subject;
use crate::sql::text::split::split_statements;
use crate::stream::RecordStream;
use crate::{Database, Expression, Identity, Result, Value};

/// A connection to a database. Dropping it rolls back what it has not committed.
#[derive(Debug)]
pub struct Session {
    shared: Opaque<Shared>,
}

/// The session itself; a running statement holds it too.
#[derive(Debug)]
pub(crate) struct Shared {
    database: Database,
    /// `None`: the program that embeds the database, or somebody nobody asked for a name.
    identity: Option<Identity>,
    defaults: Arc<Settings>,
    /// Held while a statement runs: this is what makes them run one after the other.
    transaction: Arc<tokio::sync::Mutex<TransactionState>>,
    /// What can be asked at any time, also while a statement runs.
    visible: Arc<Mutex<Visible>>,
    /// Ends an open transaction whose client says nothing any more; replaced when it does.
    idle: Mutex<Option<Task<()>>>,
    /// What currval and lastval know.
    sequences: Arc<SessionSequences>,
    deferred: Arc<Mutex<DeferredChecks>>,
    /// What routines have said and nobody has read.
    notices: Mutex<VecDeque<Notice>>,
    /// Where its temporary tables, views and sequences are.
    temporary: Arc<TemporarySchema>,
    /// What PREPARE has made.
    named: Arc<Mutex<NamedStatements>>,
    /// The session that this one is beside.
    beside: Option<Beside>,
    /// Transactions in which a query failed while its rows were read.
    stream_failures: StreamFailures,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.temporary.leave() {
            temporary::drop_behind(&self.database, &self.temporary);
        }
    }
}

#[derive(Debug)]
struct Visible {
    status: TransactionStatus,
    /// The tables as the open transaction sees them.
    catalog: Option<Arc<Catalog>>,
    settings: Arc<Settings>,
    /// What SET LOCAL has changed, and what it was before: the oldest first.
    local: Vec<(String, String)>,
    /// How the open transaction has begun.
    begun: Option<Opening>,
}

#[derive(Debug)]
struct Opening {
    settings: Arc<Settings>,
    /// When its first statement came: a client may open a transaction long before it needs one.
    first: Option<DateTime<Utc>>,
}

impl Visible {
    /// A transaction begins.
    fn begin(&mut self) {
        self.begun = Some(Opening { settings: Arc::clone(&self.settings), first: None });
    }

    /// What `now()` is to a statement that has come: the same to all of a transaction.
    fn now(&mut self) -> DateTime<Utc> {
        let now = Utc::now();
        self.begun.as_mut().map_or(now, |begun| *begun.first.get_or_insert(now))
    }

    /// At the end of a transaction: what SET has changed stays if it is committed.
    fn end(&mut self, committed: bool, defaults: &Settings) {
        match self.begun.take() {
            Some(Opening { settings, first: _ }) if !committed => {
                self.settings = settings;
                self.local.clear();
            }
            _ => self.end_local(defaults),
        }
    }

    /// At the end of a transaction: settings that were changed for it only are what they were.
    fn end_local(&mut self, defaults: &Settings) {
        for (name, value) in std::mem::take(&mut self.local).into_iter().rev() {
            if let Err(error) = Arc::make_mut(&mut self.settings).set(&name, Some(&value), defaults) {
                tracing::warn!(name, error = error.message(), "a setting did not go back");
            }
        }
    }
}

/// What a session may have in common with others of the same client.
#[derive(Default)]
struct Kept {
    temporary: Arc<TemporarySchema>,
    sequences: Arc<SessionSequences>,
    named: Arc<Mutex<NamedStatements>>,
    beside: Option<Beside>,
}

/// The outcome of a statement.
#[derive(Debug)]
pub enum StatementResult {
    /// It returns rows.
    Rows(RecordStream),
    /// It is done.
    Done(Completion),
}

/// What a statement without rows did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The statement's kind: "CREATE TABLE", "INSERT", "BEGIN".
    pub tag: String,
    /// The number of rows it touched, where it touches rows.
    pub rows: Option<u64>,
}

impl Completion {
    pub(crate) fn new(tag: &str) -> Self {
        Completion { tag: tag.to_owned(), rows: None }
    }

    pub(crate) fn of_rows(tag: &str, rows: u64) -> Self {
        Completion { tag: tag.to_owned(), rows: Some(rows) }
    }
}

/// Batches on their way into a table.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// Where [`Session::ingest`] puts rows.
#[derive(Debug, Clone)]
pub struct IngestTarget {
    /// The schema; `None` is the default one.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// Whether it is one of the session's own temporary tables.
    pub temporary: bool,
    /// What to do if the table exists or does not.
    pub mode: IngestMode,
    /// The columns of the batches. They are matched by name; a table's other columns get their default.
    pub columns: SchemaRef,
}

/// What an ingest does about the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Creates it; fails if it exists.
    Create,
    /// Adds to it; fails if it does not exist.
    Append,
    /// Drops it if it exists, and creates it.
    Replace,
    /// Adds to it, creating it if it does not exist.
    CreateAppend,
}

impl Session {
    pub(crate) fn new(database: Database, identity: Option<Identity>) -> Self {
        Session::with_kept(database, identity, Kept::default())
    }

    fn with_kept(database: Database, identity: Option<Identity>, kept: Kept) -> Self {
        let Kept { temporary, sequences, named, beside } = kept;
        let defaults = Settings::new(database.default_config().clone(), database.statement_timeout());
        let defaults = Arc::new(defaults);
        let visible = Visible {
            status: TransactionStatus::Idle,
            catalog: None,
            settings: Arc::clone(&defaults),
            local: Vec::new(),
            begun: None,
        };
        let shared = Shared {
            database,
            identity,
            defaults,
            transaction: Arc::default(),
            visible: Arc::new(Mutex::new(visible)),
            idle: Mutex::default(),
            sequences,
            deferred: Arc::default(),
            notices: Mutex::default(),
            temporary,
            named,
            beside,
            stream_failures: StreamFailures::default(),
        };
        Session { shared: Opaque::new(shared) }
    }

    /// Runs exactly one statement with the values of its parameters (`$1` … or `?` in order).
    pub async fn execute(&self, sql: &str, parameters: &[Value]) -> Result<StatementResult> {
        let arrived = Instant::now();
        if let Some(result) = self.shared.run_known(Text::Unparsed(sql), parameters, arrived).await {
            return result.map_err(|error| place_subject(error, sql));
        }
        let (shared, sql, parameters) = (self.shared.clone(), sql.to_owned(), parameters.to_vec());
        let work = async move {
            let result = shared.execute(Text::Unparsed(&sql), &parameters, arrived).await;
            result.map_err(|error| place_subject(error, &sql))
        };
        self.shared.database.runtimes().run(work).await
    }

    /// Parses a statement and finds out its parameters and result.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let (shared, sql, text) = (self.shared.clone(), sql.to_owned(), sql.to_owned());
        self.shared
            .database
            .runtimes()
            .run(async move { shared.prepare(sql).await.map_err(|error| place_subject(error, &text)) })
            .await
    }

    /// The columns a prepared statement returns when its parameters have these types, or `None` if it returns no rows.
    /// [`Prepared::result_schema`] answers for the types the statement asks for, and for the tables as they were when it
    /// was prepared; a client may bind others, and they may have changed ([`Surroundings`]).
    pub async fn result_schema_for(&self, prepared: &Prepared, types: Vec<DataType>) -> Result<Option<SchemaRef>> {
        let (shared, prepared) = (self.shared.clone(), prepared.clone());
        let work = async move { shared.result_schema_for(&prepared, &types).await };
        self.shared.database.runtimes().run(work).await
    }

    /// The columns of a query, or `None` if it returns no rows. Whatever comes of it, an open transaction stays as it is. While
    /// a statement runs in that, the query is planned on what is committed.
    pub async fn describe(&self, query: &str) -> Result<Option<SchemaRef>> {
        let (shared, query) = (self.shared.clone(), query.to_owned());
        self.shared.database.runtimes().run(async move { shared.describe(query).await }).await
    }

    /// Runs a prepared statement.
    pub async fn execute_prepared(&self, prepared: &Prepared, parameters: &[Value]) -> Result<StatementResult> {
        let arrived = Instant::now();
        if let Some(result) = self.shared.run_known(Text::Prepared(prepared), parameters, arrived).await {
            return result.map_err(|error| place_subject(error, prepared.sql()));
        }
        let (shared, prepared, parameters) = (self.shared.clone(), prepared.clone(), parameters.to_vec());
        let work = async move {
            let result = shared.execute(Text::Prepared(&prepared), &parameters, arrived).await;
            result.map_err(|error| place_subject(error, prepared.sql()))
        };
        self.shared.database.runtimes().run(work).await
    }

    /// Runs a prepared INSERT, UPDATE or DELETE once for each row of `parameters`, whose columns are the statement's
    /// parameters in order. All or nothing; returns the number of rows touched.
    pub async fn execute_batch(&self, prepared: &Prepared, parameters: &RecordBatch) -> Result<u64> {
        let (shared, prepared, parameters) = (self.shared.clone(), prepared.clone(), parameters.clone());
        let work = async move { shared.execute_batch(&prepared, parameters).await };
        self.shared.database.runtimes().run(work).await
    }

    /// Compiles an expression in which `$1`, `$2`, … have these types; see [`Expression`]. `None`: only `SELECT` of it can
    /// tell its value.
    pub async fn compile_expression(&self, expression: &str, types: Vec<DataType>) -> Result<Option<Expression>> {
        let (shared, text) = (self.shared.clone(), expression.to_owned());
        let work = async move { shared.compile_expression(&text, &types).await };
        self.shared.database.runtimes().run(work).await
    }

    /// Puts batches into a table, all or nothing; large loads are written to segment files directly. Returns the number
    /// of rows.
    pub async fn ingest(&self, target: IngestTarget, rows: BatchStream) -> Result<u64> {
        let shared = self.shared.clone();
        self.shared.database.runtimes().run(async move { shared.ingest(target, rows).await }).await
    }

    /// The tables as this session sees them now.
    pub fn catalog(&self) -> Arc<Catalog> {
        let own = self.shared.visible.lock().catalog.clone();
        own.unwrap_or_else(|| Arc::clone(self.shared.database.store().snapshot().catalog()))
    }

    /// What routines have said (RAISE NOTICE) since this was last asked; only the latest, if it is much.
    pub fn take_notices(&self) -> Vec<Notice> {
        self.shared.notices.lock().drain(..).collect()
    }

    /// The database this session belongs to.
    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// Whether a transaction is open, failed or not.
    pub fn in_transaction(&self) -> bool {
        self.transaction_status() != TransactionStatus::Idle
    }

    /// Whether temporary tables, views or sequences have been made in it, which end with it.
    pub fn has_temporary_relations(&self) -> bool {
        self.shared.temporary.is_used()
    }

    /// The schema in which its temporary tables, views and sequences are, if some have been made.
    pub fn temporary_schema(&self) -> Option<String> {
        let own = &self.shared.temporary;
        own.is_used().then(|| own.name().to_owned())
    }

    /// The state of the session's transaction.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.shared.visible.lock().status
    }

    /// The value of a setting, as SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.shared.visible.lock().settings.get(&name.to_ascii_lowercase())
    }

    /// Changes a setting of this session, as SET does.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        self.shared.set(&name.to_ascii_lowercase(), Some(value))
    }

    /// Gives a setting of this session back its default, as RESET does.
    pub async fn reset(&self, name: &str) -> Result<()> {
        self.shared.set(&name.to_ascii_lowercase(), None)
    }

    /// The settings of this session by name, as SHOW ALL lists them.
    pub fn settings(&self) -> Vec<(String, String)> {
        let visible = self.shared.visible.lock();
        visible.settings.all().map(|(name, value, _)| (name.to_owned(), value)).collect()
    }

    /// Runs the statements of a script one after the other and throws their rows away; for set-up code and tests.
    pub async fn execute_script(&self, script: &str) -> Result<()> {
        for statement in split_statements(script)? {
            if let StatementResult::Rows(rows) = self.execute(&statement.sql, &[]).await? {
                rows.collect().await?;
            }
        }
        Ok(())
    }
}
