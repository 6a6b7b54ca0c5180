//! Where the engine meets the store: reopening, flushing, directories that are none.

use rustydb_engine::{Database, DatabaseOptions, StatementResult};

use crate::helpers::*;

/// Queries that read rows in different ways.
const QUERIES: [&str; 8] = [
    "SELECT * FROM t ORDER BY id",
    "SELECT count(*), sum(v), min(s), max(d) FROM t",
    "SELECT s, count(*) FROM t WHERE d >= date '2024-01-10' GROUP BY s ORDER BY s",
    "SELECT id FROM t WHERE id = 17",
    "SELECT id FROM t WHERE id IN (3, 99, 5000) ORDER BY id",
    "SELECT a.id FROM t a JOIN t b ON a.id = b.id + 1 WHERE b.v > 90 ORDER BY a.id",
    "SELECT count(*) FROM t WHERE s IS NULL",
    "SELECT v, count(*) FROM t WHERE v < 5 GROUP BY v ORDER BY v",
];

#[tokio::test]
async fn answers_are_the_same_from_memory_and_from_segments() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, v int, s text, d date)").await;
    run(&session, "INSERT INTO t SELECT n, n % 100, CASE WHEN n % 7 = 0 THEN NULL ELSE 's' || (n % 5) END, date '2024-01-01' + (n % 30)::int FROM generate_series(1, 3000) g(n)").await;
    let mut changes = [
        "SELECT 1",
        "DELETE FROM t WHERE id % 3 = 0",
        "UPDATE t SET v = v + 1, s = 'u' WHERE id % 5 = 0",
        "INSERT INTO t VALUES (5000, 1, 'new', '2025-01-01')",
        "UPDATE t SET id = id + 10000 WHERE id BETWEEN 100 AND 200",
        "DELETE FROM t WHERE id = 5000",
    ]
    .into_iter();
    loop {
        let mut answers = Vec::new();
        for sql in QUERIES {
            answers.push(query(&session, sql).await);
        }
        session.database().flush().await.unwrap();
        for (sql, answer) in QUERIES.iter().zip(&answers) {
            assert_eq!(&query(&session, sql).await, answer, "{sql} after a flush");
        }
        let Some(change) = changes.next() else { break };
        if let StatementResult::Rows(rows) = session.execute(change, &[]).await.unwrap() {
            rows.collect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_reopened_database_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path()).await;
    let session = database.connect();
    run(&session, "CREATE TABLE p (id int PRIMARY KEY, s varchar(5) DEFAULT 'd')").await;
    run(&session, "CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p)").await;
    run(&session, "INSERT INTO p (id) SELECT n FROM generate_series(1, 70000) g(n)").await;
    run(&session, "INSERT INTO c VALUES (1, 1), (2, NULL)").await;
    run(&session, "BEGIN").await;
    run(&session, "DELETE FROM c").await;
    drop(session);
    database.close().await.unwrap();
    drop(database);

    let database = open(directory.path()).await;
    let session = database.connect();
    assert_eq!(query(&session, "SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM c)").await, ["70000|2"]);
    run(&session, "INSERT INTO p VALUES (70001, DEFAULT)").await;
    assert_eq!(query(&session, "SELECT s FROM p WHERE id = 70001").await, ["d"]);
    assert_errors(
        &session,
        &[
            ("INSERT INTO p VALUES (1, 'x')", "23505"),
            ("INSERT INTO p VALUES (70002, 'toolong')", "22001"),
            ("INSERT INTO c VALUES (3, 80000)", "23503"),
            ("DELETE FROM p WHERE id = 1", "23503"),
        ],
    )
    .await;
    database.close().await.unwrap();
    let report = Database::check(DatabaseOptions::directory(directory.path())).await;
    drop((session, database));
    let report = match report {
        Ok(report) => report,
        Err(_) => Database::check(DatabaseOptions::directory(directory.path())).await.unwrap(),
    };
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test]
async fn a_second_opening_of_a_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path()).await;
    let error = Database::open(DatabaseOptions::directory(directory.path())).await.unwrap_err();
    assert_eq!(error.sqlstate(), "55006", "{error:?}");
    drop(database);
}

#[tokio::test]
async fn a_directory_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.txt"), "precious").unwrap();
    let error = Database::open(DatabaseOptions::directory(directory.path())).await.unwrap_err();
    assert_eq!(error.sqlstate(), "58030", "{error:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_closed_database_refuses_statements() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int)").await;
    session.database().close().await.unwrap();
    assert_eq!(error(&session, "INSERT INTO t VALUES (1)").await.sqlstate(), "57P01");
}
