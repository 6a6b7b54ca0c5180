//! Filters that the scan applies: the same answers from the memtable and from encoded segments, and what the plan shows.

use crate::helpers::*;

/// Rows with edge values of several types, in the memtable or, after `flush`, in a segment.
async fn with_table(flush: bool) -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, d decimal(12, 2), f double, s text, b boolean, n int)").await;
    run(
        &session,
        "INSERT INTO t VALUES (1, 1.50, 'NaN', 'apple', true, 0), (2, -0.01, -0.0, 'pear', false, NULL), \
         (3, NULL, 0.0, NULL, NULL, 5), (4, 9999999999.99, '-Infinity', '', true, NULL), (5, 0, NULL, 'apple', false, 2)",
    )
    .await;
    if flush {
        session.database().flush().await.unwrap();
    }
    session
}

#[tokio::test]
async fn every_kind_of_filter_gives_the_same_answer_in_memory_and_on_segments() {
    for (filter, expected) in [
        ("d > 0", "1,4"),
        ("d <= 0.00", "2,5"),
        ("d BETWEEN -0.01 AND 1.5", "1,2,5"),
        ("d <> 0", "1,2,4"),
        ("d IN (0, 1.5, NULL)", "1,5"),
        ("d NOT IN (0, 1.5)", "2,4"),
        ("d NOT IN (0, NULL)", ""),
        ("d IS NULL", "3"),
        ("f = 0", "2,3"),
        ("f > 1e300", "1"),
        ("f < 0", "4"),
        ("f = 'NaN'", "1"),
        ("f IN (0, 1)", "2,3"),
        ("s = 'apple'", "1,5"),
        ("s < 'b'", "1,4,5"),
        ("s LIKE '%pp%'", "1,5"),
        ("s NOT LIKE 'a%'", "2,4"),
        ("s LIKE 'a%' OR s IS NULL", "1,3,5"),
        ("length(s) = 4", "2"),
        ("s IN ('pear', '')", "2,4"),
        ("coalesce(s, 'x') = 'x'", "3"),
        ("b", "1,4"),
        ("NOT b", "2,5"),
        ("b IS NOT TRUE", "2,3,5"),
        ("n IS NOT NULL AND id > 1", "3,5"),
        ("id < 3 AND d < 1 OR id = 5", "2,5"),
        ("id + n > 5", "3,5"),
        ("n <> 0 AND 10 / n = 5", "5"),
        ("CASE WHEN id = 1 THEN b ELSE n = 2 END", "1,5"),
        ("id = 3 AND id = 4", ""),
        ("false", ""),
        ("(id = 1 AND s = 'apple') OR (id = 2 AND s = 'pear')", "1,2"),
    ] {
        for flushed in [false, true] {
            let session = with_table(flushed).await;
            let ids = query(&session, &format!("SELECT id FROM t WHERE {filter} ORDER BY id")).await.join(",");
            assert_eq!(ids, expected, "{filter}, flushed: {flushed}");
        }
    }
}

#[tokio::test]
async fn a_row_that_another_filter_excludes_or_that_is_gone_makes_no_filter_fail() {
    let session = with_table(true).await;
    assert_eq!(query(&session, "SELECT id FROM t WHERE n > 0 AND 10 / n > 2 ORDER BY id").await, ["5"]);
    assert_errors(&session, &[("SELECT id FROM t WHERE 10 / n > 2", "22012")]).await;
    run(&session, "DELETE FROM t WHERE n = 0").await;
    assert_eq!(query(&session, "SELECT id FROM t WHERE 10 / n > 2 ORDER BY id").await, ["5"]);

    run(&session, "CREATE TABLE words (id int PRIMARY KEY, word text)").await;
    run(&session, "INSERT INTO words SELECT i, CASE WHEN i = 7 THEN 'seven' ELSE '1' END FROM range(0, 100) AS r(i)")
        .await;
    session.database().flush().await.unwrap();
    assert_errors(&session, &[("SELECT count(*) FROM words WHERE CAST(word AS int) = 1", "22P02")]).await;
    assert_eq!(query(&session, "SELECT count(*) FROM words WHERE id <> 7 AND CAST(word AS int) = 1").await, ["99"]);
    run(&session, "DELETE FROM words WHERE id = 7").await;
    assert_eq!(query(&session, "SELECT count(*) FROM words WHERE CAST(word AS int) = 1").await, ["99"]);
}

/// `fact` with 20,000 rows, `dim` with 100, joined on `fact.d = dim.id`.
async fn with_star() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE dim (id int PRIMARY KEY, name text)").await;
    run(&session, "CREATE TABLE fact (id int PRIMARY KEY, d int, v bigint)").await;
    run(&session, "INSERT INTO dim SELECT i, 'name ' || i FROM range(0, 100) AS r(i)").await;
    run(&session, "INSERT INTO fact SELECT i, i % 100, i * 7919 % 20011 FROM range(0, 20000) AS r(i)").await;
    session.database().flush().await.unwrap();
    session
}

#[tokio::test]
async fn a_join_tells_the_scan_of_its_larger_side_which_keys_can_match() {
    let session = with_star().await;
    let sql = "SELECT count(*), sum(fact.v) FROM fact JOIN dim ON fact.d = dim.id WHERE dim.name = 'name 42'";
    let plan = query(&session, &format!("EXPLAIN {sql}")).await.join("\n");
    assert!(plan.contains("dynamic=[") && !plan.contains("FilterExec"), "{plan}");
    let expected = "SELECT count(*), sum(v) FROM fact WHERE d = 42";
    assert_eq!(query(&session, sql).await, query(&session, expected).await);
    let plan = query(&session, &format!("EXPLAIN ANALYZE {sql}")).await.join("\n");
    let scan = plan.lines().find(|line| line.contains("table=public.fact")).unwrap();
    assert!(scan.contains("output_rows=200"), "only rows that match come out: {scan}");
}

/// 90,000 rows that refer to 3,000 others by keys of several types, a tenth of them by none and a tenth by one that is not
/// there; part of the rows is in segments, part in memory.
async fn with_references() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE parent (id int PRIMARY KEY, b bigint, s smallint, d date, t text, n int)").await;
    run(
        &session,
        "INSERT INTO parent SELECT v * 3, CASE WHEN v % 10 > 0 THEN v * 1000 END, v % 2000, date '2000-01-01' + v, 'k' || v, v % 100 \
         FROM generate_series(1, 3000) AS g(v)",
    )
    .await;
    run(&session, "CREATE TABLE child (k int PRIMARY KEY, id int, b bigint, s smallint, d date, t text)").await;
    for rows in ["1, 80000", "80001, 90000"] {
        run(
            &session,
            &format!(
                "INSERT INTO child SELECT v, CASE WHEN v % 10 > 0 THEN v * 7919 % 10000 END, v % 3300 * 1000, (v % 2500)::smallint, \
                 date '2000-01-01' + v % 4000, 'k' || v % 3500 FROM generate_series({rows}) AS g(v)"
            ),
        )
        .await;
        if rows.starts_with("1,") {
            session.database().flush().await.unwrap();
        }
    }
    run(&session, "DELETE FROM child WHERE k % 13 = 5").await;
    session
}

#[tokio::test]
async fn keys_of_every_type_told_to_the_scan_change_no_answer() {
    let session = with_references().await;
    // No list of few values in place of the keys.
    session.set("datafusion.optimizer.hash_join_inlist_pushdown_max_distinct_values", "0").await.unwrap();
    let queries = [
        ("SELECT count(*), sum(n), min(c.t) FROM child c JOIN parent p ON c.KEY = p.KEY WHERE n < 40", true),
        ("SELECT count(*), sum(n), min(c.t) FROM child c JOIN parent p ON c.KEY = p.KEY WHERE n = 1000", true),
        ("SELECT count(*), sum(k), min(p.t) FROM parent p LEFT JOIN child c ON c.KEY = p.KEY WHERE n < 2", true),
        (
            "SELECT count(*), min(t) FROM child c WHERE EXISTS (SELECT 1 FROM parent p WHERE c.KEY = p.KEY AND n < 40)",
            true,
        ),
        (
            "SELECT count(*), min(t) FROM parent p WHERE n < 40 AND NOT EXISTS (SELECT 1 FROM child c WHERE c.KEY = p.KEY)",
            true,
        ),
        ("SELECT count(*), min(t) FROM parent WHERE KEY NOT IN (SELECT KEY FROM child WHERE KEY > KEY)", false),
        ("SELECT count(*), min(t) FROM parent WHERE KEY NOT IN (SELECT KEY FROM child WHERE k % 2 = 0)", false),
        ("SELECT count(*), sum(n) FROM child c LEFT JOIN parent p ON c.KEY = p.KEY AND n < 40", false),
        ("SELECT count(*), sum(n) FROM child c JOIN parent p ON c.KEY IS NOT DISTINCT FROM p.KEY WHERE n < 40", false),
        ("SELECT count(*), sum(n) FROM child c JOIN parent p ON c.KEY = p.KEY AND c.k = p.n WHERE n < 40", true),
        ("SELECT count(*), min(c.t) FROM child c JOIN parent p ON c.KEY = p.KEY AND c.d = p.d WHERE n < 70", true),
    ];
    let keys = [("id", true), ("b", true), ("s", true), ("d", true), ("t", false)];
    let queries = keys.into_iter().flat_map(|(key, of_bits)| {
        queries.map(move |(sql, of_one)| {
            // The second of two keys has bits, whatever the first one is.
            let bits = of_bits || sql.contains("AND c.");
            (sql.replace("KEY", key), usize::from(bits && of_one))
        })
    });
    let mut told = 0;
    for (sql, times) in queries {
        session.set("datafusion.optimizer.enable_join_dynamic_filter_pushdown", "false").await.unwrap();
        let expected = query(&session, &sql).await;
        session.set("datafusion.optimizer.enable_join_dynamic_filter_pushdown", "true").await.unwrap();
        assert_eq!(query(&session, &sql).await, expected, "{sql}");
        let plan = query(&session, &format!("EXPLAIN {sql}")).await.join("\n");
        // Which side is built is the cost model's business; NULLs that count and other types are none of theirs.
        assert!(plan.matches("JoinKeysExec").count() <= times, "{sql}\n{plan}");
        told += plan.matches("JoinKeysExec").count();
    }
    assert!(told > 15, "{told}");
}

#[tokio::test]
async fn the_bound_of_a_top_k_reaches_the_scan_and_changes_no_answer() {
    let session = with_star().await;
    for order in ["v", "v DESC", "d DESC, v", "d, id"] {
        let sql = format!("SELECT id, v FROM fact ORDER BY {order} LIMIT 5");
        let plan = query(&session, &format!("EXPLAIN {sql}")).await.join("\n");
        assert!(plan.contains("dynamic=["), "{plan}");
        let all = query(&session, &format!("SELECT id, v FROM fact ORDER BY {order}")).await;
        assert_eq!(query(&session, &sql).await, all[..5], "{order}");
    }
}

#[tokio::test]
async fn outer_and_anti_joins_keep_the_rows_that_match_nothing() {
    let session = with_star().await;
    run(&session, "INSERT INTO fact VALUES (20000, NULL, 1), (20001, 777, 1)").await;
    for (sql, expected) in [
        ("SELECT count(*) FROM fact LEFT JOIN dim ON fact.d = dim.id AND dim.name = 'name 1'", "20002"),
        ("SELECT count(*) FROM dim RIGHT JOIN fact ON fact.d = dim.id", "20002"),
        ("SELECT count(*) FROM fact WHERE NOT EXISTS (SELECT * FROM dim WHERE dim.id = fact.d)", "2"),
        ("SELECT count(*) FROM fact WHERE d NOT IN (SELECT id FROM dim)", "1"),
        ("SELECT count(*) FROM fact WHERE d IN (SELECT id FROM dim WHERE name < 'name 2')", "2400"),
        ("SELECT count(*) FROM fact FULL JOIN dim ON fact.d = dim.id AND dim.id < 0", "20102"),
    ] {
        assert_eq!(query(&session, sql).await, [expected], "{sql}");
    }
}

#[tokio::test]
async fn a_recursive_query_runs_its_scan_anew_in_each_round() {
    let session = with_star().await;
    let sql = "WITH RECURSIVE walk(id, depth) AS (SELECT 1, 0 UNION ALL \
               SELECT fact.id % 100 + 1, depth + 1 FROM walk JOIN fact ON fact.id = walk.id WHERE depth < 5) \
               SELECT max(id), count(*) FROM walk";
    assert_eq!(query(&session, sql).await, ["6|6"]);
}
