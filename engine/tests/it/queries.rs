//! SELECT: what DataFusion plans, with our tables and our reading of SQL.

use std::time::Duration;

use futures::StreamExt;
use rustydb_engine::{StatementResult, Value};

use crate::helpers::*;

#[tokio::test]
async fn rows_put_in_come_out_with_their_types() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int PRIMARY KEY, b text, c numeric(10,2), d date, e timestamp, f boolean, g bytea, h double precision)").await;
    run(&session, "INSERT INTO t VALUES (1, 'one', 1.5, '2024-02-29', '2024-02-29 12:30:00', true, 'ab', 0.5), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL)").await;
    assert_eq!(
        query(&session, "SELECT * FROM t ORDER BY a").await,
        ["1|one|1.50|2024-02-29|2024-02-29T12:30:00|true|6162|0.5", "2|NULL|NULL|NULL|NULL|NULL|NULL|NULL"]
    );
}

#[tokio::test]
async fn decimal_literals_are_exact() {
    let session = memory().await;
    assert_eq!(query(&session, "SELECT 0.1 + 0.2 = 0.3, 0.06 - 0.01").await, ["true|0.05"]);
}

#[tokio::test]
async fn the_analytical_vocabulary_is_there() {
    let session = memory().await;
    run(&session, "CREATE TABLE s (k int PRIMARY KEY, region text, amount numeric(10,2))").await;
    run(&session, "INSERT INTO s VALUES (1,'n',10),(2,'n',30),(3,'s',5),(4,'s',NULL)").await;
    assert_eq!(
        query(&session, "SELECT region, sum(amount), count(amount) FILTER (WHERE amount > 8) FROM s GROUP BY region HAVING count(*) > 1 ORDER BY 1").await,
        ["n|40.00|2", "s|5.00|0"]
    );
    assert_eq!(
        query(
            &session,
            "SELECT k, rank() OVER (PARTITION BY region ORDER BY amount DESC NULLS LAST) FROM s ORDER BY k"
        )
        .await,
        ["1|2", "2|1", "3|1", "4|2"]
    );
    assert_eq!(
        query(
            &session,
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 4) SELECT sum(n) FROM c"
        )
        .await,
        ["10"]
    );
    assert_eq!(query(&session, "SELECT extract(year FROM date '1995-03-15'), substring('abcdef' FROM 2 FOR 3), date '1998-12-01' - interval '90' day").await, ["1995|bcd|1998-09-02T00:00:00"]);
    assert_eq!(
        query(
            &session,
            "SELECT k FROM s WHERE region IN (SELECT region FROM s WHERE amount > 20) ORDER BY k FETCH FIRST 1 ROW ONLY"
        )
        .await,
        ["1"]
    );
    assert_eq!(
        query(&session, "SELECT DISTINCT ON (region) region, k FROM s ORDER BY region, k DESC").await,
        ["n|2", "s|4"]
    );
    assert_eq!(query(&session, "SELECT * EXCLUDE (amount) FROM s WHERE k = 1").await, ["1|n"]);
    assert_eq!(query(&session, "SELECT count(*) FROM generate_series(1, 10) g(i), range(0, 3)").await, ["30"]);
    assert_eq!(
        query(&session, "SELECT a.k FROM s a LEFT JOIN s b ON a.k = b.k + 3 WHERE b.k IS NOT NULL").await,
        ["4"]
    );
}

#[tokio::test]
async fn recursive_queries_may_read_tables_in_each_step() {
    let session = memory().await;
    run(&session, "CREATE TABLE edge (a int, b int)").await;
    run(&session, "INSERT INTO edge VALUES (1,2),(2,3),(3,4),(9,10)").await;
    let reach =
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT b FROM r JOIN edge ON a = n) SELECT n FROM r ORDER BY n";
    assert_eq!(query(&session, reach).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn integers_do_not_wrap_around() {
    let session = memory().await;
    run(&session, "CREATE TABLE i (a int PRIMARY KEY, b bigint)").await;
    run(&session, "INSERT INTO i VALUES (2147483647, 9223372036854775807)").await;
    assert_errors(
        &session,
        &[
            ("SELECT 9223372036854775807 + 1", "22003"),
            ("SELECT b + a FROM i", "22003"),
            ("SELECT -b - 2 FROM i", "22003"),
            ("SELECT b * 2 FROM i", "22003"),
            ("SELECT a FROM i WHERE b + 1 > 0", "22003"),
            ("SELECT (SELECT b + 1 FROM i)", "22003"),
            ("SELECT sum(b * 2) FROM i GROUP BY a * 2", "22003"),
            ("UPDATE i SET b = b + 1", "22003"),
            ("UPDATE i SET a = a + 1", "22003"),
        ],
    )
    .await;
    assert_eq!(
        query(&session, "SELECT a + 1, a * 2 + a, sum(a + 1) FROM i GROUP BY a + 1, a").await,
        ["2147483648|6442450941|2147483648"]
    );
    assert_eq!(query(&session, "SELECT a + 1 FROM i ORDER BY a + 1").await, ["2147483648"]);
}

#[tokio::test]
async fn fractions_are_rounded_when_cast_to_integers() {
    let session = memory().await;
    assert_eq!(
        query(&session, "SELECT 2.5::int, (-2.5)::int, 1.4::bigint, 2.6::double precision::int").await,
        ["3|-3|1|3"]
    );
    run(&session, "CREATE TABLE i (a int)").await;
    run(&session, "INSERT INTO i VALUES (1.5), (2.4)").await;
    run_with(&session, "INSERT INTO i VALUES ($1)", &[Value::Float64(Some(6.7))]).await;
    run(&session, "UPDATE i SET a = 4.5 WHERE a = 2 AND a <> 7").await;
    assert_eq!(query(&session, "SELECT a FROM i ORDER BY a").await, ["5", "5", "7"]);
}

#[tokio::test]
async fn columns_may_come_twice() {
    let session = memory().await;
    assert_eq!(query(&session, "SELECT n, n, (SELECT 1), (SELECT 2) FROM (VALUES (7)) v(n)").await, ["7|7|1|2"]);
}

#[tokio::test]
async fn statement_time_stands_still_within_a_statement() {
    let session = memory().await;
    assert_eq!(query(&session, "SELECT now() = now(), current_date = now()::date").await, ["true|true"]);
}

#[tokio::test]
async fn casts_and_columns_share_their_type_names() {
    let session = memory().await;
    assert_eq!(
        query(&session, "SELECT arrow_typeof('1'::float), arrow_typeof(CAST(1 AS character varying(3))), arrow_typeof(now()::timestamp)").await,
        ["Float64|Utf8View|Timestamp(µs)"]
    );
}

#[tokio::test]
async fn parameters_take_values_of_both_spellings() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int PRIMARY KEY, d date)").await;
    run_with(
        &session,
        "INSERT INTO t VALUES ($1, $2), (?, ?)".replace("?, ?", "$3, $4").as_str(),
        &[Value::Int64(Some(1)), Value::from("2024-01-01"), Value::Int32(Some(2)), Value::Null],
    )
    .await;
    assert_eq!(query_with(&session, "SELECT a FROM t WHERE d = ?", &[Value::from("2024-01-01")]).await, ["1"]);
    assert_eq!(
        query_with(
            &session,
            "SELECT a FROM t WHERE a > $1 LIMIT $2",
            &[Value::Float64(Some(1.5)), Value::Int64(Some(5))]
        )
        .await,
        ["2"]
    );
    assert_eq!(query_with(&session, "SELECT $1 || 'x'", &[Value::from("y")]).await, ["yx"]);
}

#[tokio::test]
async fn dangerous_functions_are_bounded() {
    let session = memory().await;
    assert_errors(
        &session,
        &[
            ("SELECT range(10, 5000000011)", "54000"),
            ("SELECT generate_series(1, 100000000000, 2)", "54000"),
            (
                "SELECT generate_series(timestamp '2000-01-01', timestamp '2100-01-01', interval '1 millisecond')",
                "54000",
            ),
            ("SELECT length(repeat('abcdefgh', 2000000000))", "54000"),
            ("SELECT lpad('x', 2000000000)", "54000"),
            ("SELECT array_repeat(1, 4000000000)", "54000"),
            ("SELECT repeat('x', n) FROM (VALUES (1), (900000000)) v(n)", "54000"),
        ],
    )
    .await;
    assert_eq!(
        query(&session, "SELECT repeat('ab', 3), array_length(range(0, 10, 2)), lpad('x', 3, '.')").await,
        ["ababab|5|..x"]
    );
}

#[tokio::test]
async fn a_memory_limit_below_the_least_is_refused() {
    let options = |limit| rustydb_engine::DatabaseOptions {
        memory_limit: Some(limit),
        ..rustydb_engine::DatabaseOptions::memory()
    };
    let least = rustydb_engine::DatabaseOptions::MEMORY_LIMIT_MIN;
    let error = rustydb_engine::Database::open(options(least - 1)).await.expect_err("too little");
    assert!(error.sqlstate() == "22023" && error.message().contains(&least.to_string()), "{error:?}");
    rustydb_engine::Database::open(options(least)).await.expect("enough");
}

#[tokio::test]
async fn queries_too_large_for_memory_fail_and_leave_the_rest_alone() {
    let options = rustydb_engine::DatabaseOptions {
        query_threads: Some(2),
        memory_limit: Some(64 << 20),
        ..rustydb_engine::DatabaseOptions::memory()
    };
    let session = rustydb_engine::Database::open(options).await.unwrap().connect();
    // A hash join cannot spill; its build side of 5 million numbers does not fit into 32 MiB.
    let join = "SELECT count(*) FROM generate_series(1, 5000000) a(n) JOIN generate_series(1, 5000000) b(n) USING (n)";
    let error = error(&session, join).await;
    assert_eq!(error.sqlstate(), "53200", "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("memory_limit")));
    assert!(error.detail().is_some_and(|detail| detail.contains("consumed") && !detail.ends_with("as:")), "{error:?}");
    // A function makes no result that the limit has no room for.
    let strings = "SELECT sum(length(repeat('x', 20000000 + n::INTEGER))) FROM generate_series(1, 3) s(n)";
    assert_eq!(self::error(&session, strings).await.sqlstate(), "54000");
    // The rows of a common table expression are kept for all who read them.
    let common = "WITH x AS (SELECT n, random() AS r FROM generate_series(1, 10000000) s(n)) \
                  SELECT (SELECT max(r) FROM x) - (SELECT min(r) FROM x)";
    assert_eq!(self::error(&session, common).await.sqlstate(), "53200");
    // A sort spills instead.
    let sort = "SELECT n, repeat('x', 20) FROM generate_series(1, 2000000) s(n) ORDER BY n DESC";
    let StatementResult::Rows(mut rows) = session.execute(sort, &[]).await.unwrap() else { panic!("rows") };
    let (mut count, mut last) = (0, None);
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap();
        count += batch.num_rows();
        last = batch_lines(&batch.slice(batch.num_rows() - 1, 1)).pop().or(last);
    }
    assert_eq!((count, last.as_deref()), (2_000_000, Some("1|xxxxxxxxxxxxxxxxxxxx")));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled() {
    let session = memory().await;
    run(&session, "SET statement_timeout = 50").await;
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    assert_eq!(error(&session, endless).await.sqlstate(), "57014");
    run(&session, "RESET statement_timeout").await;
    assert_eq!(query(&session, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn dropping_a_stream_stops_its_query() {
    let session = memory().await;
    let StatementResult::Rows(mut rows) =
        session.execute("SELECT * FROM generate_series(1, 1000000000000)", &[]).await.unwrap()
    else {
        panic!("rows")
    };
    assert!(rows.planning_time() < Duration::from_secs(5));
    assert!(rows.next().await.unwrap().unwrap().num_rows() > 0);
    drop(rows);
    // Both query threads are free again: a query that needs them ends.
    assert_eq!(query(&session, "SELECT count(*) FROM generate_series(1, 100000)").await, ["100000"]);
}

#[tokio::test]
async fn deeply_nested_and_very_long_expressions_do_no_harm() {
    let session = memory().await;
    let nested = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(error(&session, &nested).await.sqlstate(), "54001");
    let sum = format!("SELECT {}", vec!["1"; 300].join(" + "));
    assert_eq!(query(&session, &sum).await, ["300"]);
}

#[tokio::test]
async fn the_difference_of_timestamps_is_an_interval() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a timestamp, b timestamp)").await;
    run(&session, "INSERT INTO t VALUES ('2024-03-01 12:00:00', '2024-02-28'), ('2024-01-01', '2024-01-01 06:00:00')")
        .await;
    let sql = "SELECT a - b AS d, extract(day FROM a - b) AS n FROM t ORDER BY a - b";
    assert_eq!(query(&session, sql).await, ["-6 hours|0", "2 days 12 hours|2"]);
    assert_eq!(query(&session, "SELECT arrow_typeof(max(d)) FROM (SELECT a - b AS d FROM t) s").await.len(), 1);
    let prepared = session.prepare(sql).await.unwrap();
    let schema = prepared.result_schema().unwrap();
    assert!(schema.field(0).data_type().to_string().starts_with("Interval"), "{schema:?}");
    run(&session, "CREATE TABLE kept AS SELECT a - b AS d FROM t").await;
    assert_eq!(query(&session, "SELECT d FROM kept ORDER BY d").await, ["-6 hours", "2 days 12 hours"]);
}
