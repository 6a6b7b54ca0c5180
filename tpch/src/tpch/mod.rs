//! TPC-H: eight tables, 22 queries, and a verdict on every answer.
//!
//! ```no_run
//! # async fn example() -> rustydb_tpch::Result<()> {
//! use std::sync::Arc;
//!
//! use rustydb_engine::{Database, DatabaseOptions};
//! use rustydb_tpch::tpch::{self, Options};
//!
//! let database = Database::open(DatabaseOptions::memory()).await?;
//! let report = tpch::run(&database, &Options::new("0.01".parse()?), Arc::new(())).await?;
//! assert!(report.verified());
//! # Ok(())
//! # }
//! ```
//!
//! The data is `tpchgen`'s, which reproduces the TPC's own `dbgen`; the reference answers were made by DuckDB on the same
//! rows (`answers/`), and at scale 1 they agree with the answer set that the TPC distributes.

mod answers;
mod driver;
mod generate;
mod load;
mod queries;
mod report;
mod scale;
mod schema;

pub use answers::reference_answer;
pub use driver::{Observer, Options, run, run_query};
pub use generate::TableGenerator;
pub use load::load;
pub use queries::{QUERIES, Query, parse_query_list};
pub use report::{LoadReport, QueryReport, Report, TableLoadReport, Versions};
pub use scale::ScaleFactor;
pub use schema::Table;
