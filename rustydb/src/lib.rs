//! RustyDB inside your process: an SQL database for transactions and analytics over one copy of the data, with Apache
//! Arrow at both ends.
//!
//! This crate is the library face of the `rustydb` binary: open a directory, and the same database that
//! `rustydb serve` offers over the network is yours without one. There is nothing to configure that has no default.
//!
//! ```
//! use futures::StreamExt;
//! use rustydb::{Database, DatabaseOptions, StatementResult, Value};
//!
//! # async fn run() -> rustydb::Result<()> {
//! // `DatabaseOptions::directory("./data")` keeps what it is told; this one lives and dies with the process.
//! let database = Database::open(DatabaseOptions::memory()).await?;
//! let session = database.connect();
//!
//! session.execute("CREATE TABLE city (id BIGINT PRIMARY KEY, name TEXT NOT NULL, people BIGINT)", &[]).await?;
//! session
//!     .execute(
//!         "INSERT INTO city VALUES ($1, $2, $3), (2, 'Quito', NULL)",
//!         &[Value::from(1i64), Value::from("Oslo"), Value::from(717_710i64)],
//!     )
//!     .await?;
//!
//! // A result is a stream of Arrow batches: it starts before the query has ended, and dropping it ends the query.
//! match session.execute("SELECT name FROM city WHERE people > $1", &[Value::from(500_000i64)]).await? {
//!     StatementResult::Rows(mut rows) => {
//!         assert_eq!(rows.schema().field(0).name(), "name");
//!         while let Some(batch) = rows.next().await {
//!             assert_eq!(batch?.num_rows(), 1);
//!         }
//!     }
//!     StatementResult::Done(completion) => unreachable!("a query answers with rows, not with {}", completion.tag),
//! }
//!
//! database.close().await
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```
//!
//! # What to know
//!
//! - **A [`Database`] owns its directory.** One process at a time: a second one gets an error that names the lock.
//!   Cloning the handle is cheap; all clones are the same database.
//! - **A [`Session`] is a connection**: it holds the open transaction and the settings. Sessions are light, so take one
//!   per task. Statements of one session run one after the other, those of different sessions side by side.
//! - **What was acknowledged stays.** When `execute` of a change returns, or `COMMIT` does, the change is on disk; a
//!   crash at any moment loses nothing acknowledged and leaves nothing half done. [`Database::close`] makes the next
//!   start quick, it is not needed for safety.
//! - **Errors are [`Error`]s with an SQLSTATE.** [`Error::is_retryable`] says when trying the transaction again can
//!   help; [`Error::position`] points into the statement.
//! - **A tokio runtime must be running**, of the multi-threaded kind. Queries compute on the database's own threads.
//!
//! `examples/embedded.rs` shows the same at more leisure, with a directory, batches of parameters and a transaction.

use std::sync::Arc;

pub use rustydb_engine::routine::{Language, Notice, Severity};
pub use rustydb_engine::{
    BatchStream, Catalog, CheckReport, Completion, Database, DatabaseLocation, DatabaseOptions, Durability, Error,
    Finding, ForeignKey, IngestMode, IngestTarget, MemoryUsage, Position, Prepared, RecordStream, Result,
    ScriptStatement, Session, StatementResult, TableDef, TableId, TransactionStatus, Value, random_password,
    split_statements, statement_is_complete,
};

/// The languages that functions and procedures can be written in: PL/pgSQL and SQL.
pub fn languages() -> Vec<Arc<dyn Language>> {
    rustydb_udf::languages()
}

/// Opens a database like [`Database::open`], with [`languages`] for functions and procedures.
///
/// ```
/// # async fn run() -> rustydb::Result<()> {
/// let database = rustydb::open(rustydb::DatabaseOptions::memory()).await?;
/// let session = database.connect();
/// session.execute("CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * n'", &[]).await?;
/// session.execute("SELECT twice(21)", &[]).await?;
/// # database.close().await
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
///
/// # Errors
/// Those of [`Database::open`].
pub async fn open(options: DatabaseOptions) -> Result<Database> {
    Database::open(DatabaseOptions { languages: languages(), ..options }).await
}
