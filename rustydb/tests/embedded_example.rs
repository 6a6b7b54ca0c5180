//! The documented example runs, and what it wrote is there the second time.

#[expect(dead_code, reason = "the example's main is its command line; the test calls what is below it")]
#[path = "../examples/embedded.rs"]
mod embedded;

use rustydb::{Database, DatabaseOptions, StatementResult};

/// Rows that one run leaves behind: one and three inserted, one of them deleted.
const ROWS_PER_RUN: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_runs_twice_on_the_same_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    for run in 1..=2 {
        embedded::run(path).await.unwrap();
        let database = Database::open(DatabaseOptions::directory(path)).await.unwrap();
        let result = database.connect().execute("SELECT id FROM measurement", &[]).await.unwrap();
        let StatementResult::Rows(rows) = result else { panic!("a query answers with rows") };
        let batches = rows.collect().await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), run * ROWS_PER_RUN);
        database.close().await.unwrap();
    }
}
