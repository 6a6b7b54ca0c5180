//! A query that comes again is not planned again, and nobody can tell but by the clock.

use futures::StreamExt;
use rustydb_engine::{StatementResult, Value};

use crate::helpers::*;

#[tokio::test]
async fn a_plan_made_before_sees_the_rows_of_now() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    run(&session, "CREATE TABLE u (id int PRIMARY KEY, a int)").await;
    run(&session, "INSERT INTO t VALUES (1, 10), (2, 20)").await;
    run(&session, "INSERT INTO u VALUES (1, 5), (3, 7)").await;
    let sql = "SELECT t.a, u.a FROM t JOIN u ON t.id = u.id ORDER BY t.a LIMIT 5";
    for (change, expected) in [
        ("", vec!["10|5"]),
        ("INSERT INTO t VALUES (3, 1)", vec!["1|7", "10|5"]),
        ("DELETE FROM u WHERE id = 1", vec!["1|7"]),
        ("UPDATE t SET a = 99 WHERE id = 3", vec!["99|7"]),
    ] {
        if !change.is_empty() {
            run(&session, change).await;
        }
        for _ in 0..3 {
            assert_eq!(query(&session, sql).await, expected, "after {change}");
        }
    }
}

#[tokio::test]
async fn parameters_of_every_run_are_its_own() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int, b text)").await;
    run(&session, "INSERT INTO t SELECT v, v % 5, 'b' || v % 3 FROM generate_series(1, 900) AS g(v)").await;
    // Grouped, so that no compiled statement answers it.
    let sql = "SELECT b, count(*) FROM t WHERE a = $1 AND id > $2 GROUP BY b ORDER BY b LIMIT $3";
    for round in 0..3 {
        for (a, id, limit) in [(1, 0, 9), (2, 0, 9), (1, 450, 9), (1, 0, 1), (7, 0, 9)] {
            let values = [Value::Int32(Some(a)), Value::Int32(Some(id)), Value::Int64(Some(limit))];
            let expected =
                format!("SELECT b, count(*) FROM t WHERE a = {a} AND id > {id} GROUP BY b ORDER BY b LIMIT {limit}");
            let expected = query(&session, &expected).await;
            assert_eq!(expected.is_empty(), a == 7);
            assert_eq!(try_query_with(&session, sql, &values).await.unwrap(), expected, "round {round}");
            // As text, which stands for a value of any type, and as NULL, which nothing equals.
            let values = [Value::from(a.to_string().as_str()), Value::Int32(Some(id)), Value::Int64(Some(limit))];
            assert_eq!(try_query_with(&session, sql, &values).await.unwrap(), expected, "round {round}");
            let values = [Value::Int32(None), Value::Int32(Some(id)), Value::Int64(Some(limit))];
            assert!(try_query_with(&session, sql, &values).await.unwrap().is_empty());
        }
        run(&session, "INSERT INTO t SELECT max(id) + 1, 1, 'more' FROM t").await;
    }
}

#[tokio::test]
async fn many_values_of_one_parameter_leave_other_plans_alone() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    run(&session, "INSERT INTO t SELECT v, v % 5 FROM generate_series(1, 900) AS g(v)").await;
    for id in 0..600 {
        let answer =
            try_query_with(&session, "SELECT a FROM t WHERE id > $1 GROUP BY a", &[Value::Int32(Some(id))]).await;
        assert_eq!(answer.unwrap().len(), 5);
    }
    // Told apart by a comment they are one text.
    for comment in ["", " -- one", "\n-- two\n"] {
        assert_eq!(
            query(&session, &format!("SELECT a, count(*) {comment}\n FROM t GROUP BY a ORDER BY a LIMIT 1")).await,
            ["0|180"]
        );
    }
}

#[tokio::test]
async fn exact_counts_are_not_remembered() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&session, "INSERT INTO t VALUES (1), (2)").await;
    session.database().flush().await.unwrap();
    for (change, expected) in [("INSERT INTO t VALUES (3)", "3"), ("DELETE FROM t WHERE id < 3", "1")] {
        query(&session, "SELECT count(*) FROM t").await;
        run(&session, change).await;
        session.database().flush().await.unwrap();
        assert_eq!(query(&session, "SELECT count(*) FROM t").await, [expected]);
    }
}

#[tokio::test]
async fn a_new_table_of_the_same_name_gets_a_new_plan() {
    let session = memory().await;
    for (definition, row, expected) in [
        ("(a int, b text)", "(1, 'x')", "1|x"),
        ("(b date, a text, c int)", "('2024-01-02', 'y', 3)", "2024-01-02|y|3"),
    ] {
        run(&session, &format!("CREATE TABLE t {definition}")).await;
        run(&session, &format!("INSERT INTO t VALUES {row}")).await;
        for _ in 0..2 {
            assert_eq!(query(&session, "SELECT * FROM t").await, [expected]);
        }
        run(&session, "DROP TABLE t").await;
        assert_eq!(error(&session, "SELECT * FROM t").await.sqlstate(), "42P01");
    }
}

#[tokio::test]
async fn settings_and_chance_are_respected() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&session, "INSERT INTO t VALUES (1)").await;
    let sql = "SELECT id, now() FROM t";
    let first = query(&session, sql).await;
    session.set("timezone", "+05:00").await.unwrap();
    let second = query(&session, sql).await;
    assert!(second[0].ends_with("+05:00") && first != second, "{first:?} {second:?}");
    run(&session, "CREATE SCHEMA other").await;
    run(&session, "CREATE TABLE other.t (id int PRIMARY KEY)").await;
    assert_eq!(query(&session, "SELECT id FROM t").await, ["1"]);
    session.set("search_path", "other").await.unwrap();
    assert!(query(&session, "SELECT id FROM t").await.is_empty(), "the other schema's table has no rows");
    session.set("search_path", "public").await.unwrap();
    let random = "SELECT random() FROM t";
    assert_ne!(query(&session, random).await, query(&session, random).await);
}

#[tokio::test]
async fn executions_of_one_plan_do_not_disturb_each_other() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    run(&session, "INSERT INTO t SELECT v, v % 10 FROM generate_series(1, 20000) AS g(v)").await;
    let sql =
        "SELECT count(*), sum(x.id) FROM t x JOIN t y ON x.id = y.id WHERE y.a = 3 AND x.a < (SELECT max(a) FROM t)";
    let expected = query(&session, sql).await;
    let sessions: Vec<_> = (0..8).map(|_| session.database().connect()).collect();
    let answers = futures::future::join_all(sessions.iter().map(|session| query(session, sql))).await;
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");
}

/// An operator that skips rows by what it has seen so far must not skip by what it saw in an earlier run.
#[tokio::test]
async fn what_an_operator_found_out_does_not_hold_in_the_next_run() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    run(&session, "INSERT INTO t SELECT v, v FROM generate_series(1, 20000) AS g(v)").await;
    session.database().flush().await.unwrap();
    for (change, low, high) in [
        ("UPDATE t SET a = a WHERE id = 1", 1, 20_000),
        ("DELETE FROM t WHERE a < 10", 10, 20_000),
        ("UPDATE t SET a = 500 WHERE a > 500", 10, 500),
    ] {
        run(&session, change).await;
        for _ in 0..3 {
            assert_eq!(query(&session, "SELECT min(a), max(a) FROM t").await, [format!("{low}|{high}")]);
            assert_eq!(query(&session, "SELECT min(a) FROM t WHERE id > 0").await, [format!("{low}")]);
            assert_eq!(query(&session, "SELECT a FROM t ORDER BY a DESC, id LIMIT 1").await, [format!("{high}")]);
            let join = "SELECT count(*) FROM t x JOIN t y ON x.id = y.a WHERE x.a <= (SELECT min(a) FROM t)";
            assert_eq!(query(&session, join).await, ["1"]);
        }
    }
}

/// A subquery's value is in a place that copies of a plan share: an execution must neither see another's, nor lose its own.
#[tokio::test]
async fn executions_of_a_plan_with_a_subquery_keep_their_own_values() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    run(&session, "INSERT INTO t SELECT v, v FROM generate_series(1, 200000) AS g(v)").await;
    let sql = "SELECT id FROM t WHERE a <= (SELECT min(a) FROM t) + 100000";
    assert_eq!(query(&session, sql).await.len(), 100_001);
    // A reader that takes its time, while the answer changes under it.
    let StatementResult::Rows(mut slow) = session.execute(sql, &[]).await.unwrap() else { panic!("a query") };
    let mut rows = slow.next().await.unwrap().unwrap().num_rows();
    let other = session.database().connect();
    run(&other, "DELETE FROM t WHERE a < 50000").await;
    for _ in 0..3 {
        assert_eq!(query(&other, sql).await.len(), 100_001);
        run(&other, "INSERT INTO t VALUES (1, 1)").await;
        assert_eq!(query(&other, sql).await.len(), 50_003, "1, and 50000 to 100001");
        run(&other, "DELETE FROM t WHERE id = 1").await;
    }
    while let Some(batch) = slow.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 100_001);
    // One that was given up in the middle leaves nothing behind.
    let StatementResult::Rows(mut given_up) = session.execute(sql, &[]).await.unwrap() else { panic!("a query") };
    given_up.next().await.unwrap().unwrap();
    drop(given_up);
    assert_eq!(query(&session, sql).await.len(), 100_001);
}

#[tokio::test]
async fn a_failed_transaction_stays_failed() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let sql = "SELECT * FROM t";
    query(&session, sql).await;
    run(&session, "BEGIN").await;
    error(&session, "SELECT * FROM nothing").await;
    assert_eq!(error(&session, sql).await.sqlstate(), "25P02");
    run(&session, "ROLLBACK").await;
    assert!(query(&session, sql).await.is_empty());
}
