//! EXPLAIN shows the scan with what it prunes by.

use crate::helpers::*;

async fn with_table() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, d date, s text)").await;
    run(&session, "INSERT INTO t VALUES (1, '2024-01-01', 'a'), (2, '2024-06-01', 'b')").await;
    session
}

#[tokio::test]
async fn the_scan_names_table_columns_and_filters_and_leaves_none_above() {
    let session = with_table().await;
    let plan = query(&session, "EXPLAIN SELECT s FROM t WHERE d >= date '2024-03-01' AND id < 10 AND s LIKE '%b'")
        .await
        .join("\n");
    assert!(
        plan.contains(
            "ColumnScanExec: table=public.t, projection=[s], filters=[d >= 2024-03-01 AND id < 10 AND s LIKE %b]"
        ),
        "{plan}"
    );
    assert!(!plan.contains("FilterExec"), "{plan}");
    assert_eq!(
        query(&session, "SELECT s FROM t WHERE d >= date '2024-03-01' AND id < 10 AND s LIKE '%b'").await,
        ["b"]
    );
}

#[tokio::test]
async fn statements_that_change_rows_are_explained_but_not_run() {
    let session = with_table().await;
    for statement in
        ["INSERT INTO t VALUES (3, NULL, NULL)", "UPDATE t SET s = 'x' WHERE id = 1", "DELETE FROM t WHERE id = 1"]
    {
        let plan = query(&session, &format!("EXPLAIN {statement}")).await.join("\n");
        assert!(plan.contains("physical_plan"), "{plan}");
    }
    assert_eq!(query(&session, "SELECT count(*) FROM t WHERE s <> 'x'").await, ["2"]);
}

#[tokio::test]
async fn analyze_shows_what_each_operator_did() {
    let session = with_table().await;
    let plan = query(&session, "EXPLAIN ANALYZE SELECT * FROM t").await.join("\n");
    assert!(plan.contains("ColumnScanExec") && plan.contains("output_rows=2"), "{plan}");
    for format in ["EXPLAIN (FORMAT tree)", "EXPLAIN (FORMAT json)", "EXPLAIN VERBOSE", "EXPLAIN (ANALYZE, VERBOSE)"] {
        assert!(!query(&session, &format!("{format} SELECT * FROM t WHERE id = 1")).await.is_empty(), "{format}");
    }
    assert_errors(
        &session,
        &[("EXPLAIN (BUFFERS) SELECT 1", "0A000"), ("EXPLAIN SELECT nope FROM t", "42703"), ("EXPLAIN t", "42601")],
    )
    .await;
}

#[tokio::test]
async fn estimates_are_shown_with_every_operator_and_beside_what_came() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    run(&session, "INSERT INTO t SELECT v, v % 4 FROM generate_series(1, 1000) AS g(v)").await;
    session.database().flush().await.unwrap();
    let sql = "SELECT x.a, count(*) FROM t x JOIN t y ON x.id = y.id WHERE x.id <= 500 GROUP BY x.a";
    let operators = |plan: Vec<String>| -> Vec<String> {
        let plan = plan.join("\n");
        let physical = plan.split("physical_plan|").nth(1).or_else(|| plan.split("Plan with Metrics|").nth(1)).unwrap();
        physical.lines().filter(|line| line.contains("Exec")).map(str::to_owned).collect()
    };
    let plan = operators(query(&session, &format!("EXPLAIN {sql}")).await);
    assert!(plan.len() > 3 && plan.iter().all(|line| line.contains("estimated_rows=")), "{plan:#?}");
    let scan = |plan: &[String], what: &str| {
        plan.iter()
            .any(|line| line.contains("ColumnScanExec") && line.contains("filters=[id <= 500]") && line.contains(what))
    };
    assert!(scan(&plan, "estimated_rows=499") || scan(&plan, "estimated_rows=500"), "{plan:#?}");
    let plan = operators(query(&session, &format!("EXPLAIN ANALYZE {sql}")).await);
    assert!(plan.iter().all(|line| line.contains("estimated_rows=") && line.contains("metrics=[")), "{plan:#?}");
    assert!(scan(&plan, "output_rows=500"), "{plan:#?}");
    let tree = query(&session, &format!("EXPLAIN (FORMAT tree) {sql}")).await.join("\n");
    assert!(tree.contains("estimated_rows"), "{tree}");
}

#[tokio::test]
async fn row_counts_are_answered_without_reading() {
    let session = with_table().await;
    session.database().flush().await.unwrap();
    let plan = query(&session, "EXPLAIN SELECT count(*) FROM t").await.join("\n");
    assert!(!plan.contains("ColumnScanExec"), "{plan}");
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["2"]);
    run(&session, "BEGIN").await;
    run(&session, "DELETE FROM t WHERE id = 1").await;
    run(&session, "INSERT INTO t VALUES (5, NULL, NULL), (6, NULL, NULL)").await;
    assert_eq!(query(&session, "SELECT count(*), count(d) FROM t").await, ["3|1"]);
}
