//! TPC-H through the engine: loaded with its keys, answered, verified, and guarded against a store of something else.
//!
//! Everything runs at scale 0.01 on a database in memory: 86,805 rows, every operator of the 22 queries.

use std::sync::{Arc, Mutex};

use rustydb_engine::{Database, DatabaseOptions, Session, StatementResult};
use rustydb_tpch::Error;
use rustydb_tpch::tpch::{self, LoadReport, Observer, Options, QUERIES, Query, QueryReport, ScaleFactor, Table};

/// All rows of the eight tables at scale 0.01.
const ALL_ROWS: u64 = 86_805;
const LINEITEM_ROWS: u64 = 60_175;

fn scale(text: &str) -> ScaleFactor {
    text.parse().expect("a valid scale")
}

async fn empty_database() -> Database {
    Database::open(DatabaseOptions::memory()).await.expect("a database in memory")
}

async fn load(session: &Session, at: &str) -> Result<LoadReport, Error> {
    let observer: Arc<dyn Observer> = Arc::new(());
    tpch::load(session, scale(at), 2, &observer).await
}

async fn execute(session: &Session, sql: &str) {
    session.execute(sql, &[]).await.map(drop).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Remembers what it was told.
#[derive(Default)]
struct Witness {
    loading: Mutex<Vec<(Table, u64, u64)>>,
    queries: Mutex<Vec<u8>>,
}

impl Observer for Witness {
    fn loading(&self, table: Table, done: u64, total: u64) {
        self.loading.lock().expect("no panic while held").push((table, done, total));
    }

    fn query_finished(&self, query: &Query, _: &QueryReport) {
        self.queries.lock().expect("no panic while held").push(query.number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_22_answers_are_right_in_every_run() {
    let database = empty_database().await;
    let witness = Arc::new(Witness::default());
    let options = Options { runs: 2, ..Options::new(scale("0.01")) };
    let report = tpch::run(&database, &options, Arc::clone(&witness) as Arc<dyn Observer>).await.expect("a whole run");

    let wrong: Vec<String> = report
        .queries
        .iter()
        .filter(|query| query.verified != Some(true))
        .map(|query| format!("q{}: {}", query.query, query.failure.as_deref().unwrap_or("not verified")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(report.verified());
    assert_eq!(report.queries.len(), 22);
    assert!(report.queries.iter().all(|query| query.times_ms.len() == 2 && query.plan_ms.len() == 2));
    assert!(
        report.queries.iter().all(|query| query.times_ms.iter().zip(&query.plan_ms).all(|(all, plan)| all >= plan))
    );
    assert_eq!((report.load.rows, report.load.reused_rows), (ALL_ROWS, 0));

    // The observer saw each table from nothing to its last row, and each query once.
    let loading = witness.loading.lock().expect("no panic while held");
    for table in Table::ALL {
        let seen: Vec<_> = loading.iter().filter(|(seen, ..)| *seen == table).collect();
        assert_eq!(seen.first().map(|(_, done, _)| *done), Some(0), "{table}");
        assert!(seen.last().is_some_and(|(_, done, total)| done == total), "{table}");
    }
    assert_eq!(*witness.queries.lock().expect("no panic while held"), QUERIES.map(|query| query.number));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_disk_gives_the_same_22_answers_after_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options { runs: 1, ..Options::new(scale("0.01")) };
    for (start, reused_rows) in [0, ALL_ROWS].into_iter().enumerate() {
        let database =
            Database::open(DatabaseOptions::directory(directory.path())).await.expect("the directory is ours");
        let report = tpch::run(&database, &options, Arc::new(())).await.expect("a whole run");
        assert_eq!(report.load.reused_rows, reused_rows, "start {start}");
        assert!(report.queries.iter().all(|query| query.verified == Some(true)), "start {start}: {:?}", report.queries);
        database.close().await.expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_load_is_reused_an_interrupted_one_continued_and_another_scale_refused() {
    let database = empty_database().await;
    let session = database.connect();
    let first = load(&session, "0.01").await.expect("a load");
    assert_eq!((first.rows, first.reused_rows), (ALL_ROWS, 0));

    let second = load(&session, "0.01").await.expect("nothing to do");
    assert_eq!((second.rows, second.reused_rows), (0, ALL_ROWS));
    assert!(second.tables.iter().all(|table| table.reused));

    let error = load(&session, "0.02").await.expect_err("another scale");
    assert!(matches!(error, Error::OtherScale { .. }), "{error}");
    assert!(error.to_string().contains("scale 0.01"), "{error}");

    // What a crash leaves behind: the last table is missing, or was created and is empty.
    execute(&session, "DROP TABLE lineitem").await;
    let third = load(&session, "0.01").await.expect("the missing table");
    assert_eq!((third.rows, third.reused_rows), (LINEITEM_ROWS, ALL_ROWS - LINEITEM_ROWS));
    execute(&session, "DROP TABLE lineitem").await;
    execute(&session, Table::LineItem.create_statement()).await;
    let fourth = load(&session, "0.01").await.expect("the empty table");
    assert_eq!((fourth.rows, fourth.reused_rows), (LINEITEM_ROWS, ALL_ROWS - LINEITEM_ROWS));

    execute(&session, "DELETE FROM lineitem WHERE l_orderkey = 1 AND l_linenumber = 1").await;
    let error = load(&session, "0.01").await.expect_err("a changed table");
    assert!(matches!(error, Error::ChangedTable { table: "lineitem", .. }), "{error}");
}

#[tokio::test]
async fn somebody_else_s_table_of_the_same_name_is_left_alone() {
    let database = empty_database().await;
    let session = database.connect();
    execute(&session, "CREATE TABLE part (id BIGINT PRIMARY KEY, label TEXT)").await;
    let error = load(&session, "0.01").await.expect_err("a foreign table");
    assert!(matches!(error, Error::OtherTable { table: "part", .. }), "{error}");
    assert!(error.to_string().contains("id, label"), "the columns are not named: {error}");
    let tables = session.catalog().tables().count();
    assert_eq!(tables, 1, "a refused load created tables");
}

#[tokio::test]
async fn a_query_that_fails_is_reported_and_fails_the_run() {
    let database = empty_database().await;
    let report = tpch::run_query(&database.connect(), &QUERIES[5], scale("0.01"), 3).await.expect("a report");
    assert_eq!(report.verified, Some(false));
    assert!(report.failure.as_deref().is_some_and(|failure| failure.contains("lineitem")), "{:?}", report.failure);
    assert!(report.times_ms.is_empty() && report.best_ms().is_none());
}

/// The tables of a plan in the order in which EXPLAIN names them: of a join, the build side first.
async fn tables_in_order(session: &Session, sql: &str) -> String {
    let sql = format!("EXPLAIN {sql}");
    let Ok(StatementResult::Rows(rows)) = session.execute(&sql, &[]).await else { panic!("{sql}: no plan") };
    let batches = rows.collect().await.expect("a plan");
    let plan = arrow::util::pretty::pretty_format_batches(&batches).expect("text").to_string();
    let physical = plan.split("physical_plan").nth(1).unwrap_or_default();
    let tables = physical.split("ColumnScanExec: table=public.").skip(1);
    let names: Vec<&str> = tables.map(|rest| rest.split(',').next().unwrap_or_default()).collect();
    names.join(" ")
}

/// The join orders of all queries, as `tests/it/join_orders.txt` records them. A change there is a decision: look at the
/// times of the queries whose lines change, and write the file anew with `RECORD_JOIN_ORDERS=1`.
#[tokio::test(flavor = "multi_thread")]
async fn joins_run_in_the_recorded_order() {
    let session = empty_database().await.connect();
    load(&session, "0.01").await.expect("a load");
    session.database().flush().await.expect("a flush");
    let mut orders = String::new();
    for query in &QUERIES {
        orders += &format!("q{}: {}\n", query.number, tables_in_order(&session, &query.sql(scale("0.01"))).await);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/join_orders.txt");
    if std::env::var_os("RECORD_JOIN_ORDERS").is_some() {
        std::fs::write(path, &orders).expect("the file can be written");
    }
    assert_eq!(orders, std::fs::read_to_string(path).expect("the recorded orders"));
}
