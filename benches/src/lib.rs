//! Measurements: micro benchmarks with criterion (`benches/`), and side-by-side runs against other engines
//! (`side_by_side/`).
//!
//! ```text
//! cargo bench -p rustydb-benches                       everything below, a few minutes
//! cargo bench -p rustydb-benches --bench commit        single-row inserts: statements and rows per second
//! cargo bench -p rustydb-benches --bench row_path      statements by key and a transaction of many, with and without
//! cargo bench -p rustydb-benches --bench scan          reading LINEITEM at scale 0.1
//! cargo bench -p rustydb-benches --bench encodings     filters and decoding of each encoding, and what deletes cost
//! cargo bench -p rustydb-benches --bench segments      reads of rows by key, flush and compaction
//! cargo bench -p rustydb-benches --bench tpch          the 22 queries at scale 0.1, one after the other
//! python3 benches/side_by_side/side_by_side.py         RustyDB and DuckDB on the same data, in one run
//! cargo run --release -p rustydb-benches --bin transactions
//!                                                      RustyDB, PostgreSQL and SQLite, TPC-C-derived, in one run
//! ```
//!
//! This crate is no part of the tests: a benchmark says how fast, a test says whether right, and no timing is asserted
//! anywhere. It measures through the engine's public interface only, on the data of `rustydb-tpch`, so that what is
//! measured is what a user gets. Machines differ and are noisy: figures are worth quoting only as ratios of one run.

pub mod peers;

use std::sync::Arc;

use futures::StreamExt;
use rustydb_engine::{Database, DatabaseOptions, Session, StatementResult};
use rustydb_tpch::tpch;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A database in a temporary directory, a session of it, and the runtime that both live on.
pub struct Bench {
    /// Everything asynchronous runs here.
    pub runtime: Runtime,
    /// The session that is measured.
    pub session: Session,
    database: Database,
    // Dropped last, when the database no longer writes into it.
    _directory: TempDir,
}

impl Bench {
    /// An empty database on disk.
    ///
    /// Benchmarks have nobody to report an error to, so this panics where a program would return one.
    pub fn empty() -> Self {
        let runtime = Runtime::new().expect("the machine can run threads");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = DatabaseOptions::directory(directory.path().join("data"));
        let database = runtime.block_on(Database::open(options)).expect("an empty directory becomes a database");
        Self { session: database.connect(), runtime, database, _directory: directory }
    }

    /// A database with TPC-H at `scale`, loaded through the bulk path.
    pub fn tpch(scale: tpch::ScaleFactor) -> Self {
        let bench = Self::empty();
        let observer: Arc<dyn tpch::Observer> = Arc::new(());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        bench
            .runtime
            .block_on(tpch::load(&bench.session, scale, threads, &observer))
            .expect("generated data satisfies its keys");
        bench
    }

    /// Runs a statement to its last row, and returns how many there were.
    pub fn run(&self, sql: &str) -> u64 {
        self.runtime.block_on(async {
            match self.session.execute(sql, &[]).await.expect("the statement is valid") {
                StatementResult::Done(completion) => completion.rows.unwrap_or(0),
                StatementResult::Rows(mut rows) => {
                    let mut count = 0;
                    while let Some(batch) = rows.next().await {
                        count += batch.expect("the query runs").num_rows() as u64;
                    }
                    count
                }
            }
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The directory is thrown away with whatever a failed close leaves in it.
        let _ = self.runtime.block_on(self.database.close());
    }
}
