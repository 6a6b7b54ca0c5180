//! Aggregates before a join and after it are the same, and are made where few keys have many rows.

use rustydb_engine::Session;

use crate::helpers::*;

/// A table of 60,000 facts with a few hundred keys, and dimensions in which keys come never, once and several times.
async fn facts() -> Session {
    let session = memory().await;
    run(
        &session,
        "CREATE TABLE fact (id int PRIMARY KEY, k int, l bigint, x numeric(12, 2), y int, w numeric(38, 2), t text)",
    )
    .await;
    run(
        &session,
        "INSERT INTO fact SELECT v, CASE WHEN v % 13 > 0 THEN v % 301 END, v % 4, (v % 1000 - 300) / 8.0, \
         CASE WHEN v % 7 > 1 THEN v % 97 END, v * 1000000000000, 't' || v % 577 FROM generate_series(1, 60000) AS g(v)",
    )
    .await;
    run(&session, "CREATE TABLE dimension (a int, b bigint, name text, size int)").await;
    run(
        &session,
        "INSERT INTO dimension SELECT CASE WHEN v % 50 > 0 THEN v % 280 END, v % 5, 'n' || v % 9, v % 11 \
         FROM generate_series(1, 400) AS g(v)",
    )
    .await;
    session.database().flush().await.unwrap();
    session
}

/// How many aggregations a plan has, once through, whatever operators they are made of.
async fn aggregations(session: &Session, sql: &str) -> usize {
    let plan = query(session, &format!("EXPLAIN {sql}")).await.join("\n");
    let physical = plan.split("physical_plan").nth(1).unwrap().to_owned();
    physical.matches("DirectAggregateExec").count() + physical.matches("AggregateExec: mode=Partial").count()
}

async fn check(session: &Session, sql: &str, early: bool) {
    session.set("datafusion.optimizer.join_reordering", "false").await.unwrap();
    let (mut expected, late) = (query(session, sql).await, aggregations(session, sql).await);
    session.set("datafusion.optimizer.join_reordering", "true").await.unwrap();
    let mut answer = query(session, sql).await;
    expected.sort();
    answer.sort();
    assert_eq!(answer, expected, "{sql}");
    assert!(!answer.is_empty(), "{sql}");
    assert_eq!(aggregations(session, sql).await, late + usize::from(early), "{sql}");
}

#[tokio::test]
async fn aggregates_before_a_join_add_up_to_those_after_it() {
    let session = facts().await;
    let all = "sum(x), count(*), count(y), min(y), max(t), sum(y), sum(w), min(x)";
    for sql in [
        format!("SELECT name, {all} FROM fact JOIN dimension ON k = a GROUP BY name"),
        format!("SELECT name, l, {all} FROM dimension JOIN fact ON k = a GROUP BY name, l HAVING count(*) > 3"),
        format!("SELECT l, k, {all} FROM fact, dimension WHERE k = a GROUP BY l, k"),
        format!("SELECT name, {all} FROM fact JOIN dimension ON k = a WHERE size < 9 GROUP BY name"),
        format!("SELECT k, {all} FROM fact JOIN dimension ON k = a GROUP BY k"),
        "SELECT size, sum(x * y - 1) AS a, count(x) + count(*) AS b FROM fact JOIN dimension ON k = a GROUP BY size"
            .into(),
        "SELECT name, count(*) FROM fact JOIN dimension ON k = a GROUP BY name ORDER BY name DESC LIMIT 4".into(),
    ] {
        check(&session, &sql, true).await;
    }
}

#[tokio::test]
async fn what_cannot_be_put_together_or_does_not_pay_stays_after_the_join() {
    let session = facts().await;
    for sql in [
        // Of both sides; not the sum of parts; each row once.
        "SELECT name, sum(x + size) FROM fact JOIN dimension ON k = a GROUP BY name",
        "SELECT name, count(DISTINCT y) FROM fact JOIN dimension ON k = a GROUP BY name",
        "SELECT name, sum(x) FILTER (WHERE y > 5) FROM fact JOIN dimension ON k = a GROUP BY name",
        "SELECT t, sum(x) FROM fact JOIN dimension ON id = a GROUP BY t",
        // The join keeps few rows.
        "SELECT l, sum(x), count(*) FROM fact, dimension WHERE k = a AND l = b GROUP BY l",
        "SELECT name, sum(x) FROM fact JOIN dimension ON k = a WHERE name = 'n3' AND a = 12 GROUP BY name",
        // Rows without a partner count.
        "SELECT name, count(y) FROM fact LEFT JOIN dimension ON k = a GROUP BY name",
    ] {
        check(&session, sql, false).await;
    }
}

#[tokio::test]
async fn a_total_that_does_not_fit_is_an_error_as_it_is_after_the_join() {
    let session = facts().await;
    let sql = "SELECT name, sum(w * 10000000000000000) FROM fact JOIN dimension ON k = a GROUP BY name";
    for reordering in ["false", "true"] {
        session.set("datafusion.optimizer.join_reordering", reordering).await.unwrap();
        let error = try_query_with(&session, sql, &[]).await.unwrap_err();
        assert_eq!(error.sqlstate(), "22003", "{error}");
    }
}
