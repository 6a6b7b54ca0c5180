//! What a database must be able to do to run TPC-C: load batches, prepare statements, run transactions.
//!
//! The driver is written once over these traits. RustyDB in the process is [`super::Embedded`]; the `rustydb` binary adds a
//! server over Flight SQL, and the side-by-side run in `benches` adds PostgreSQL and SQLite, so that all of them meet the
//! same statements with the same inputs.

use std::fmt;
use std::future::Future;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;

use super::schema::KEYS;

/// A database.
pub trait Client: Send + Sync + 'static {
    /// A connection to it.
    type Connection: Connection;

    /// Opens a connection, with nothing prepared.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Adds rows to a table, all or none, by the fastest way the database has. Returns their number.
    fn load(
        &self,
        table: &'static str,
        columns: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch, ArrowError>>,
    ) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// The script that makes the indexes and foreign keys, for databases that write it in another way.
    fn keys(&self) -> &'static str {
        KEYS
    }
}

/// A connection, on which statements run one after the other.
pub trait Connection: Send + 'static {
    /// A prepared statement.
    type Statement: Send + Sync;
    /// The rows of a result.
    type Rows: Rows + Send;

    /// Prepares a statement with parameters `$1`, `$2`, …
    fn prepare(&mut self, sql: &str) -> impl Future<Output = Result<Self::Statement, Failure>> + Send;

    /// Runs a statement that returns rows.
    fn query(
        &mut self,
        statement: &Self::Statement,
        parameters: &[Parameter<'_>],
    ) -> impl Future<Output = Result<Self::Rows, Failure>> + Send;

    /// Runs a statement that returns none, and tells how many rows it touched.
    fn execute(
        &mut self,
        statement: &Self::Statement,
        parameters: &[Parameter<'_>],
    ) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// Begins a transaction.
    fn begin(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Commits it.
    fn commit(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes it back; it may have ended by itself, which is no error.
    fn roll_back(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Runs the statements of a script, one after the other.
    fn script(&mut self, sql: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Runs a query, reads its rows to the last one, and tells how many there were.
    fn drain(&mut self, sql: &str) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// The rows of a query as text; `None` is NULL.
    fn texts(&mut self, sql: &str) -> impl Future<Output = Result<Vec<Vec<Option<String>>>, Failure>> + Send;
}

/// A result's rows.
pub trait Rows {
    /// How many there are.
    fn count(&self) -> usize;

    /// A whole number; `None` is NULL. Rows and columns are counted from 0.
    fn integer(&self, row: usize, column: usize) -> Result<Option<i64>, Failure>;

    /// An exact number in units of `10^-scale`; digits beyond are cut off.
    fn decimal(&self, row: usize, column: usize, scale: u8) -> Result<Option<i64>, Failure>;

    /// A text, appended to `text`; whether there is one.
    fn text(&self, row: usize, column: usize, text: &mut String) -> Result<bool, Failure>;
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy)]
pub enum Parameter<'a> {
    /// NULL.
    Null,
    /// A whole number, of whatever width the statement asks for.
    Integer(i32),
    /// A whole number of 64 bits.
    Long(i64),
    /// An amount of money, in cents.
    Cents(i64),
    /// A text.
    Text(&'a str),
    /// A time in microseconds since 1970.
    Timestamp(i64),
    /// An array of whole numbers.
    Integers(&'a [i32]),
}

/// A failed call.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The SQLSTATE, or what comes nearest.
    pub sqlstate: String,
    /// What went wrong.
    pub message: String,
}

impl Failure {
    /// A failure with an SQLSTATE.
    pub fn new(sqlstate: impl Into<String>, message: impl Into<String>) -> Self {
        Failure { sqlstate: sqlstate.into(), message: message.into() }
    }

    /// A result that is not what the statement promises.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Failure::new("XX000", message)
    }

    /// Whether the same transaction may succeed when it is simply run again: another one was first, or a deadlock.
    pub fn is_retryable(&self) -> bool {
        matches!(self.sqlstate.as_str(), "40001" | "40P01")
    }

    /// Whether a procedure found that the item does not exist (`procedures.sql`).
    pub(crate) fn is_unused_item(&self) -> bool {
        self.sqlstate == "P0002"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

impl std::error::Error for Failure {}
