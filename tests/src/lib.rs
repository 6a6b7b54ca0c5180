//! Tests that see RustyDB as its users do: through SQL, through the wire, through a process that is killed.
//!
//! What tests one crate lies in that crate. Here is what needs several of them, or a client from outside:
//!
//! - `slt/**.slt`: the SQL corpus. Readable scripts of statements and their answers, run by `tests/sql.rs`, once per
//!   [`Configuration`], embedded and through Flight SQL: a script that passes with everything in the memtable and fails when everything
//!   is flushed has found a bug in storage.
//! - `isolation/*.iso`: scripts with several connections, run by the same binary: who waits for whom, and what each
//!   isolation level promises.
//! - `history`: random concurrent histories, recorded over real sessions and checked for what each level promises.
//! - `readers`: queries whose rows are fetched slowly, with functions that read other tables, while all of them change.
//! - `sqlite/`, `datafusion/`: the differences we know of to SQLite's public corpus and to DataFusion's own test files, which
//!   the same runner executes where they are present.
//! - `python/`: pytest with the real binary and real clients (ADBC, pyarrow.flight), kill -9 included, and the test that
//!   runs every code block of the documentation. `cargo xtask python` starts it.
//!
//! This library is the harness of the first two: [`Connection`] lets the `sqllogictest` runner speak to a
//! database, and renders values the way the scripts write them.

mod connection;
mod corpus;
mod datafusion;
mod differences;
mod history;
mod isolation;
mod readers;
mod restart;
mod sqlite;

pub use connection::{ColumnKind, Connection, ScriptError};
pub use corpus::{Configuration, run_script};
pub use datafusion::DatafusionCorpus;
pub use differences::{Differences, Tally};
pub use history::{Promise, check_history, check_references, check_the_checker, check_transfers};
pub use isolation::{Between, IsolationCase};
pub use readers::check_functions_of_slow_readers;
pub use restart::{Place, RestartingSession};
pub use sqlite::run_sqlite_file;
