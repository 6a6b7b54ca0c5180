//! TPC-C-derived transactions: nine tables, five kinds of transactions, twelve conditions that must hold after every run.
//!
//! ```no_run
//! # async fn example() -> rustydb_tpch::Result<()> {
//! use std::sync::Arc;
//!
//! use rustydb_engine::{Database, DatabaseOptions};
//! use rustydb_tpch::tpcc::{self, Embedded, Options, Stop};
//!
//! let database = Database::open(DatabaseOptions::directory("tpcc-data")).await?;
//! let options = Options { warehouses: Some(1), ..Options::default() };
//! let client = Embedded::new(database, options.settings());
//! let report = tpcc::run(&client, "embedded", &options, Arc::new(()), &Stop::default()).await?;
//! assert!(report.is_consistent());
//! # Ok(())
//! # }
//! ```
//!
//! Derived, because it takes the schema, the data, the inputs and the mix from the specification, but neither its think
//! times nor its terminals' screens nor its audit: the figures are no TPC-C results.
//!
//! Transactions run under snapshot isolation, RustyDB's default, under which TPC-C's are serializable (Fekete et al. 2005,
//! "Making snapshot isolation serializable"): two that change the same row never both succeed. The one that comes second
//! fails with 40001 and is run again with the same input; retries are counted, and bounded. Procedures are run again by
//! the database itself. Statements had better run at READ COMMITTED, where an UPDATE that has waited for a row goes on with
//! what it has become: the statements are written so that nothing is lost then (values are changed in place and returned,
//! and no row is read twice), as applications for PostgreSQL are.

mod client;
mod consistency;
mod driver;
mod embedded;
mod executor;
mod generate;
mod histogram;
mod input;
mod load;
mod random;
mod report;
mod scale;
mod schema;
mod statements;

use serde::Serialize;

pub use client::{Client, Connection, Failure, Parameter, Rows};
pub use consistency::{CONDITIONS, Condition, Violation};
pub use driver::{
    DEFAULT_WAREHOUSES, Observer, Options, RunProgress, Stop, check, check_only, prepare, run, run_transactions,
};
pub use embedded::{Batches, Embedded, EmbeddedConnection, EmbeddedRows, texts_of, value_of};
pub use executor::{Mode, RETRIES_MAX};
pub use generate::Generator;
pub use histogram::Histogram;
pub use input::{Customer, Delivery, Input, Kind, NewOrder, OrderStatus, Payment, StockLevel, Terminal};
pub use load::{LoadReport, Loaded};
pub use random::{Random, last_name};
pub use report::{ConsistencyReport, KindReport, LatencyReport, Measured, Report, Transactions};
pub use scale::{Constants, DISTRICTS, REDUCTION_MAX, Scale};
pub use schema::{KEYS, PROCEDURES, TABLES, Table};

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When it is on disk.
    Sync,
    /// Earlier: a crash may lose the last moments.
    Async,
}

/// What a transaction sees of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Each statement what was committed before it.
    ReadCommitted,
    /// One state throughout.
    Snapshot,
    /// As if all ran one after the other.
    Serializable,
}
