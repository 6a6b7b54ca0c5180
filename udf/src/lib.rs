//! # Functions and procedures of the users' own
//!
//! The languages that routines can be written in: SQL ([`Sql`]) and PL/pgSQL ([`PlPgSql`]). WebAssembly is to come.
//!
//! ```text
//!   engine: CREATE FUNCTION, catalog, CALL, SELECT f() ──▶ trait Language, trait Program
//!                                                              ▲ implemented here
//!   engine: Execution ◀── pieces of SQL, savepoints, COMMIT ── a running body
//! ```
//! - **The way in is the engine's.** It parses CREATE FUNCTION, keeps the definition in the catalog, finds the routine that
//!   a call means, and runs it in the transaction of who called. A language turns a body into a `Program`, once per routine
//!   and process; the binary hands the languages over when a database is opened.
//! - **SQL is the engine's, too.** A body is compiled around pieces of SQL, which the engine compiles: expressions to the
//!   row path's, statements to its programs or to plans. A language decides which names are variables.
//! - **Looked up once.** What a body finds in the catalog (types of columns, meaning of names) is kept for as long as the
//!   catalog is the same object ([`linked`]), for all sessions.
//! - **Nothing runs without limits.** Calls nest 64 deep, blocks 100; loops ask at each turn whether the statement was
//!   cancelled or its time is up; rows to be returned count against the memory of queries. A failing routine fails its
//!   statement and never the process, and its error names the line.

mod linked;
mod plpgsql;
mod sql;

use std::sync::Arc;

use rustydb_engine::routine::Language;

pub use plpgsql::PlPgSql;
pub use sql::Sql;

/// All languages.
pub fn languages() -> Vec<Arc<dyn Language>> {
    vec![Arc::new(PlPgSql), Arc::new(Sql)]
}
