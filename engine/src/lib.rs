//! The engine: SQL in, record batches out.
//!
//! A [`Database`] opens a store and owns the threads its statements run on. A [`Session`] is one connection: light, with
//! its settings and at most one open transaction. A statement goes
//!
//! ```text
//! text ─► sql::parse ─► sql::route ─┬─ query ──► sql::context + sql::plan ─► RecordStream (on the database's threads)
//!                                   ├─ INSERT, UPDATE, DELETE ─► dml   ┐
//!                                   ├─ CREATE, DROP ───────────► ddl   ├─► one storage transaction
//!                                   ├─ COPY ───────────────────► copy  ┘
//!                                   └─ BEGIN, SET, SHOW … ─────► session
//! ```
//!
//! What reads goes through DataFusion: our [`scan`] operator at the bottom, its operators above. What writes is a query
//! for the new rows or the keys of the old, and then calls on a `rustydb_storage::Transaction`; foreign keys and column
//! types are checked in between. DataFusion's own DML is never used: it loses predicates.
//!
//! Rules that hold everywhere: no clause of a statement is silently ignored ([`sql::route`], [`sql::check`]); every error
//! has an SQLSTATE and says what to do ([`error`]); a statement that fails leaves nothing behind.

mod apply;
mod catalog;
mod common_rows;
mod constraints;
mod copy;
mod database;
mod ddl;
mod dml;
mod error;
mod functions;
mod governor;
mod interrupt;
mod lending;
mod opaque;
mod operators;
mod optimizer;
mod options;
mod prepared;
pub mod routine;
mod row_path;
mod runtime;
mod scan;
mod sequences;
mod session;
mod sql;
mod stream;
mod users;

pub use catalog::{is_shown_schema, shown_schema, shown_tables};
pub use database::Database;
pub use datafusion::scalar::ScalarValue as Value;
pub use ddl::comment::view_comments;
pub use error::{Error, Position, Result};
pub use options::{DatabaseLocation, DatabaseOptions};
pub use prepared::{Prepared, parameter_at};
pub use row_path::{DataRows, Datum, Expression, ProgramCacheUsage, Type, Undecided};
pub use rustydb_storage::{
    Catalog, CheckReport, Durability, Finding, ForeignKey, MemoryUsage, ObjectDef, ObjectKind, ReferenceAction,
    TableDef, TableId,
};
pub use session::{
    BatchStream, Completion, IngestMode, IngestTarget, Session, StatementResult, Surroundings, TransactionStatus,
};
pub use sql::rules::strict_types::can_cast;
pub use sql::text::split::{ScriptStatement, split_statements, statement_is_complete};
pub use sql::widths::{RESULT_COLUMNS_MAX, TABLE_COLUMNS_MAX};
pub use stream::{Progress, RecordStream};
pub use users::{Identity, random_password};

/// The name of the one database a server has, as catalogs show it.
pub const CATALOG_NAME: &str = "rustydb";

/// The schema of tables named without one.
pub const DEFAULT_SCHEMA: &str = "public";
