//! What is kept for a query whose rows are fetched slowly: what it reads, and nothing else.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use rustydb_engine::{RecordStream, Session, StatementResult};

use crate::helpers::*;

/// A query of which the first rows were fetched, and no more yet.
struct Stalled {
    first: Vec<String>,
    rows: RecordStream,
}

impl Stalled {
    async fn begin(session: &Session, sql: &str) -> Stalled {
        match session.execute(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")) {
            StatementResult::Rows(mut rows) => {
                let first = rows.next().await.unwrap_or_else(|| panic!("{sql}: no rows"));
                Stalled { first: batch_lines(&first.unwrap_or_else(|error| panic!("{sql}: {error:?}"))), rows }
            }
            StatementResult::Done(completion) => panic!("{sql}: no rows, but {}", completion.tag),
        }
    }

    /// All rows, in the order of their text.
    async fn end(self) -> Vec<String> {
        let mut all = self.first;
        let rest = lines(self.rows).await.unwrap();
        assert!(rest.len() > all.len(), "the query had ended before its rows were fetched");
        all.extend(rest);
        sorted(all)
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

/// Each row of a query thirty times, in batches of 4 rows: of so many hardly any are made before they are asked for.
fn slowly(query: &str) -> String {
    format!("SELECT q.*, g.copy FROM ({query}) AS q CROSS JOIN generate_series(1, 30) AS g(copy)")
}

/// The bytes of rows in memory, those that are there for readers only included.
async fn bytes_in_memory(session: &Session) -> usize {
    query(session, "SELECT bytes FROM rustydb_memory WHERE part = 'memtable'").await[0].parse().unwrap()
}

/// Waits until `is_so`: threads of the store may look at what there was for a moment longer.
async fn comes_true(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_query_whose_rows_are_not_fetched_keeps_nothing_of_tables_it_does_not_read() {
    let session = memory().await;
    run(&session, "SET batch_size = 4").await;
    for table in ["small", "few", "large"] {
        run(&session, &format!("CREATE TABLE {table} (id int PRIMARY KEY, s text)")).await;
    }
    run(&session, "INSERT INTO small SELECT n, 'x' FROM generate_series(1, 30) g(n)").await;
    run(&session, "INSERT INTO few VALUES (1, 'x'), (2, 'x')").await;
    run(&session, "INSERT INTO large SELECT n, repeat('y', 1000) FROM generate_series(1, 1000) g(n)").await;
    run(
        &session,
        "CREATE VIEW seen AS SELECT a.id, count(*) AS c FROM small a JOIN few b ON a.id > b.id GROUP BY a.id",
    )
    .await;
    let applied = "(SELECT max(b.id) FROM few b WHERE b.id <= a.id)";
    let applied_twice =
        "(SELECT max(b.id) FROM seen b WHERE b.id <= a.id AND b.id >= (SELECT count(*) FROM few c WHERE c.id <= b.id))";
    let queries = [
        "SELECT * FROM small".to_owned(),
        "SELECT a.id FROM small a JOIN small b ON a.id = b.id + 1 WHERE a.id > (SELECT max(id) FROM few)".to_owned(),
        "WITH RECURSIVE r AS (SELECT 1 AS id UNION ALL SELECT s.id FROM small s JOIN r ON s.id = r.id + 1) SELECT id FROM r"
            .to_owned(),
        "SELECT id FROM small WHERE EXISTS (SELECT 1 FROM small b WHERE b.id = small.id + 1)".to_owned(),
        "SELECT id, id IN (SELECT id FROM few) FROM small UNION ALL SELECT id, true FROM few".to_owned(),
        "SELECT id, sum(id) OVER (ORDER BY id) FROM small ORDER BY id DESC LIMIT 20".to_owned(),
        "SELECT * FROM seen".to_owned(),
        format!("SELECT a.id, {applied} FROM small a"),
        format!("SELECT a.id, {applied_twice} FROM small a"),
        "SELECT a.id, t.table_name FROM small a CROSS JOIN information_schema.tables t".to_owned(),
    ];
    for (sql, operators) in [(&queries[7], 1), (&queries[8], 1)] {
        let plan = query(&session, &format!("EXPLAIN {sql}")).await.join("\n");
        assert_eq!(plan.matches("ApplyExec").count(), operators, "{plan}");
    }
    let (serializable, transaction) = (session.database().connect(), session.database().connect());
    for other in [&serializable, &transaction] {
        run(other, "SET batch_size = 4").await;
    }
    run(&serializable, "SET default_transaction_isolation = 'serializable'").await;
    for sql in queries.iter().map(|sql| slowly(sql)) {
        for reader in [&session, &serializable, &transaction] {
            for table in ["small", "few", "large"] {
                run(&session, &format!("UPDATE {table} SET s = s")).await;
            }
            let expected = sorted(query(&session, &sql).await);
            let in_transaction = std::ptr::eq(reader, &transaction);
            if in_transaction {
                run(reader, "BEGIN").await;
            }
            let stalled = Stalled::begin(reader, &sql).await;
            if in_transaction {
                // The rows outlive it.
                run(reader, "COMMIT").await;
            }
            let before = bytes_in_memory(&session).await;
            assert!(before > 1_000_000, "{before}");
            session.database().flush().await.unwrap();
            let what = format!("what is kept for {sql} is more than it reads");
            comes_true(&what, async || bytes_in_memory(&session).await < before / 20).await;
            assert!(bytes_in_memory(&session).await > 0, "{sql} has ended");
            assert_eq!(stalled.end().await, expected, "{sql}");
            comes_true("what was kept for readers goes with them", async || bytes_in_memory(&session).await == 0).await;
        }
    }
}

/// How many files each table has, in the order in which the tables were made.
fn segment_files(directory: &Path) -> Vec<usize> {
    let entries =
        |path: &Path| -> Vec<_> { std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let number = |path: &Path| path.file_name().unwrap().to_string_lossy().parse::<u64>().unwrap();
    let mut tables = entries(&directory.join("segments"));
    tables.sort_unstable_by_key(|path| number(path));
    tables.iter().map(|table| entries(table).len()).collect()
}

#[tokio::test]
async fn files_and_memory_of_a_table_do_not_grow_while_many_read_another_one_slowly() {
    const ROUNDS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    let session = open(directory.path()).await.connect();
    run(&session, "SET batch_size = 4").await;
    for (table, rows) in [("read", 30), ("other", 10_000)] {
        run(&session, &format!("CREATE TABLE {table} (id int PRIMARY KEY, v int, s text)")).await;
        let row = "n, 0, md5(n::text)";
        run(&session, &format!("INSERT INTO {table} SELECT {row} FROM generate_series(1, {rows}) g(n)")).await;
    }
    let change = async || {
        for table in ["read", "other"] {
            run(&session, &format!("UPDATE {table} SET v = v + 1")).await;
        }
        run(&session, "VACUUM").await;
    };
    let memory = async || -> usize {
        let parts = "'memtable', 'column cache', 'key indexes', 'delete sets'";
        let sql = format!("SELECT CAST(sum(bytes) AS bigint) FROM rustydb_memory WHERE part IN ({parts})");
        query(&session, &sql).await[0].parse().unwrap()
    };
    change().await;
    comes_true("each table is one file", async || segment_files(directory.path()) == [1, 1]).await;
    let before = memory().await;
    assert!(before > 500_000, "{before}");

    let mut readers = Vec::new();
    for round in 1..=ROUNDS {
        readers.push(Stalled::begin(&session, &slowly("SELECT id, v FROM read")).await);
        // Also what is only in memory yet.
        run(&session, "UPDATE read SET v = v + 1 WHERE id <= 10").await;
        run(&session, "UPDATE other SET v = v + 1 WHERE id <= 1000").await;
        readers.push(Stalled::begin(&session, &slowly("SELECT id, v FROM read")).await);
        change().await;
        let files = || segment_files(directory.path());
        comes_true("the table nobody reads is one file", async || files()[1] == 1).await;
        assert!(files()[0] > round, "{:?} in round {round}: who reads it keeps its files", files());
        // What a reader keeps are a few rows in a memtable and three columns of a segment.
        comes_true("memory does not grow", async || memory().await < before * 5 / 4 + readers.len() * 15_000).await;
    }
    for (place, reader) in readers.into_iter().enumerate() {
        let (round, later) = (place / 2, place % 2);
        // A round adds one to all rows, and one to the first ten.
        let value = |id: usize| 1 + round + if id <= 10 { round + later } else { 0 };
        let expected = (1..=30).flat_map(|id| (1..=30).map(move |copy| format!("{id}|{}|{copy}", value(id))));
        assert_eq!(reader.end().await, sorted(expected.collect()), "reader {place}");
    }
    comes_true("files go with their last reader", async || segment_files(directory.path()) == [1, 1]).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_copy_into_a_pipe_that_nobody_empties_keeps_nothing_of_other_tables() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("rows.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let session = memory().await;
    run(&session, "CREATE TABLE small (id int PRIMARY KEY, s text)").await;
    run(&session, "CREATE TABLE large (id int PRIMARY KEY, s text)").await;
    run(&session, "INSERT INTO small SELECT n, 'x' FROM generate_series(1, 30) g(n)").await;
    run(&session, "INSERT INTO large SELECT n, repeat('y', 1000) FROM generate_series(1, 1000) g(n)").await;
    let before = bytes_in_memory(&session).await;

    // More than the writer and the system buffer.
    let rows = "SELECT id, repeat(s, 1000), copy FROM small CROSS JOIN generate_series(1, 100) AS g(copy)";
    let copy = format!("COPY ({rows}) TO '{}'", pipe.display());
    let other = session.database().connect();
    other.set("batch_size", "4").await.unwrap();
    let copying = tokio::spawn(async move { affected(&other, &copy).await });
    let reader = tokio::task::spawn_blocking(move || std::fs::File::open(pipe)).await.unwrap().unwrap();
    session.database().flush().await.unwrap();
    comes_true("rows of another table go", async || bytes_in_memory(&session).await < before / 20).await;
    assert!(bytes_in_memory(&session).await > 0, "the query has ended");
    let text = tokio::task::spawn_blocking(move || std::io::read_to_string(reader)).await.unwrap().unwrap();
    assert_eq!((text.lines().count(), copying.await.unwrap()), (3000, 3000));
}
