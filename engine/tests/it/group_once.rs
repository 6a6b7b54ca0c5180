//! Rows are grouped and redistributed no more often than they must be, and the answers are those of one thread.

use rustydb_engine::Session;

use crate::helpers::*;

/// 120,000 rows: `id` differs in all of them, `a` and `b` have 6,000 and 7 values, `x` about 40,000, and all but `id` are NULL at times.
async fn rows() -> Session {
    let session = memory().await;
    run(&session, "CREATE TABLE r (id int PRIMARY KEY, a text, b int, x bigint, y numeric(12, 2))").await;
    run(
        &session,
        "INSERT INTO r SELECT v, CASE WHEN v % 11 > 0 THEN 'a' || v::bigint * 7919 % 6000 END, CASE WHEN v % 15 > 0 THEN v % 7 END, \
         CASE WHEN v % 17 > 0 THEN v::bigint * 104729 % 40009 END, (v % 1000 - 300) / 8.0 FROM generate_series(1, 120000) AS g(v)",
    )
    .await;
    session.database().flush().await.unwrap();
    session
}

/// The answer of four partitions, which has to be that of one, and how often their plan redistributes and aggregates.
async fn check(session: &Session, sql: &str, redistributions: usize, aggregations: usize) {
    session.set("target_partitions", "1").await.unwrap();
    let mut expected = query(session, sql).await;
    session.set("target_partitions", "4").await.unwrap();
    let mut answer = query(session, sql).await;
    expected.sort();
    answer.sort();
    assert!(answer == expected && !answer.is_empty(), "{sql}: {} rows, {} expected", answer.len(), expected.len());
    let plan = query(session, &format!("EXPLAIN {sql}")).await.join("\n");
    let plan = plan.split("physical_plan").nth(1).unwrap();
    let found = (plan.matches("RepartitionExec").count(), plan.matches("AggregateExec").count());
    assert_eq!(found, (redistributions, aggregations), "{sql}\n{plan}");
}

#[tokio::test]
async fn different_values_within_groups_are_counted_after_one_redistribution() {
    let session = rows().await;
    // Three aggregations: those of (a, b) in two stages, and of a in one.
    check(&session, "SELECT a, count(DISTINCT b) FROM r GROUP BY a", 1, 3).await;
    check(&session, "SELECT a, sum(n) FROM (SELECT a, b, max(x) AS n FROM r GROUP BY a, b) s GROUP BY a", 1, 3).await;
    check(&session, "SELECT count(*), s.a FROM (SELECT b, a, min(y) FROM r GROUP BY 1, 2) s GROUP BY s.a", 1, 3).await;
    // Both at once: what differs in nearly all rows is grouped in one stage, too.
    check(&session, "SELECT a, count(DISTINCT x) FROM r GROUP BY a", 1, 2).await;
    check(&session, "SELECT a || '!', b, count(DISTINCT x) FROM r GROUP BY a || '!', b", 1, 2).await;
    // Seven groups may all be one partition's.
    check(&session, "SELECT b::float8, count(DISTINCT a) FROM r GROUP BY b::float8", 2, 4).await;
    // Groups by what was aggregated lie elsewhere.
    check(&session, "SELECT n, count(*) FROM (SELECT a, b, max(x) AS n FROM r GROUP BY a, b) s GROUP BY n", 2, 4).await;
}

#[tokio::test]
async fn groups_of_about_one_row_are_made_in_one_stage() {
    let session = rows().await;
    check(&session, "SELECT id, a, sum(y), count(*), avg(y) FROM r GROUP BY id, a", 1, 1).await;
    check(&session, "SELECT id, a, sum(y) FROM r WHERE b = 3 GROUP BY a, id HAVING sum(y) > 10", 1, 1).await;
    check(&session, "SELECT DISTINCT id, a, b FROM r", 1, 1).await;
    // And groups within them.
    check(&session, "SELECT a, count(DISTINCT id) FROM r GROUP BY a", 1, 2).await;
    // Groups of several rows are made before they are redistributed.
    check(&session, "SELECT a, b, max(y), count(*) FROM r GROUP BY a, b", 1, 2).await;
}

#[tokio::test]
async fn unions_of_groups_and_values_in_an_order_of_their_own_stay_right() {
    let session = rows().await;
    run(&session, "CREATE TABLE u (id int PRIMARY KEY, a text, b int, f boolean, w int)").await;
    run(
        &session,
        "INSERT INTO u SELECT v, 'u' || v % 7000, v % 9000, v * 7919 % 3 = 0, v % 40 FROM generate_series(1, 90000) AS g(v)",
    )
    .await;
    session.database().flush().await.unwrap();
    for sql in [
        "SELECT id, a, count(*) FROM r GROUP BY id, a UNION ALL SELECT b, a, count(*) FROM u GROUP BY b, a",
        "SELECT b, a, count(*) FROM u GROUP BY b, a UNION ALL SELECT id, a, count(*) FROM r GROUP BY id, a",
        "SELECT x, y FROM (SELECT id AS x, count(DISTINCT a) AS y FROM r GROUP BY id, b) s UNION ALL \
         SELECT b, count(DISTINCT a) FROM u GROUP BY b",
        "SELECT b, a, first_value(f ORDER BY w, id) AS v, max(n) FROM \
         (SELECT b, a, f, w, id, row_number() OVER (PARTITION BY w ORDER BY id) AS n FROM u) s GROUP BY b, a",
        "SELECT s.id, s.a, t.n FROM (SELECT id, a, max(y) AS m FROM r GROUP BY id, a) s \
         JOIN (SELECT id, a, count(*) AS n FROM u GROUP BY id, a) t ON s.id = t.id AND s.a = t.a",
    ] {
        session.set("target_partitions", "1").await.unwrap();
        let mut expected = query(&session, sql).await;
        session.set("target_partitions", "4").await.unwrap();
        let mut answer = query(&session, sql).await;
        expected.sort();
        answer.sort();
        assert!(answer == expected, "{sql}: {} rows, {} expected", answer.len(), expected.len());
    }
}
