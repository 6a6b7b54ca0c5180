//! Statements that are too deep, too large or too slow to plan: refused or stopped, and never more than that.

use crate::helpers::*;

/// A link of a chain, and whether a long chain of it means something.
const LINKS: [(&str, bool); 24] = [
    ("+ a", true),
    ("- 1", true),
    ("* 1", true),
    ("* 1 / 1", true),
    ("+ 1.5", true),
    ("& 1", true),
    ("|| 'a'", true),
    ("::int", true),
    ("AND c", true),
    ("OR a = 2", true),
    ("IS NULL", true),
    ("UNION ALL SELECT 1", true),
    ("+ CASE WHEN c THEN 1 ELSE 2 END", true),
    ("+ abs(a)", true),
    ("IN (1)", false),
    ("= 1", false),
    ("^ 1", false),
    ("-> 'a'", false),
    ("LIKE 'a'", false),
    ("AT TIME ZONE 'UTC'", false),
    ("BETWEEN 1 AND 2", false),
    ("NOT NULL", false),
    ("[1]", false),
    ("COLLATE \"C\"", false),
];

#[tokio::test]
async fn chains_are_planned_or_refused_and_never_fatal() {
    let session = memory().await;
    session.execute_script("CREATE TABLE t (a INT, c BOOLEAN); INSERT INTO t VALUES (1, true)").await.unwrap();
    for (link, works) in LINKS {
        for count in [10, 45, 12_000] {
            let chain = vec![link; count].join(" ");
            let sql = match link {
                "AND c" | "OR a = 2" => format!("SELECT a FROM t WHERE c {chain}"),
                "UNION ALL SELECT 1" => format!("SELECT count(*) FROM (SELECT 1 {chain}) s"),
                "|| 'a'" => format!("SELECT length('a' {chain}) FROM t"),
                _ => format!("SELECT 1 {chain} FROM t"),
            };
            match try_query_with(&session, &sql, &[]).await {
                Ok(_) => assert!(count < 12_000, "{link}"),
                Err(error) if count == 12_000 => assert_eq!(error.sqlstate(), "54001", "{link}: {error:?}"),
                Err(error) => {
                    assert!(!works, "{count} of {link}: {error:?}");
                    assert_ne!(error.sqlstate(), "XX000", "{count} of {link}: {error:?}");
                }
            }
        }
    }
    assert_eq!(query(&session, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn long_filters_are_fine() {
    let session = memory().await;
    session.execute_script("CREATE TABLE t (a INT PRIMARY KEY, b INT)").await.unwrap();
    session.execute_script("INSERT INTO t SELECT n, n FROM generate_series(1, 100) s(n)").await.unwrap();
    let any: Vec<String> = (0..1_000).map(|number| format!("a = {} AND b > 0", number * 2)).collect();
    assert_eq!(query(&session, &format!("SELECT count(*) FROM t WHERE {}", any.join(" OR "))).await, ["50"]);
    let all: Vec<String> = (0..1_000).map(|number| format!("a <> {}", number * 2)).collect();
    assert_eq!(query(&session, &format!("SELECT count(*) FROM t WHERE {}", all.join(" AND "))).await, ["50"]);
    assert_eq!(affected(&session, &format!("DELETE FROM t WHERE {}", all.join(" AND "))).await, 50);
}

#[tokio::test]
async fn a_query_that_is_too_large_is_refused_before_it_is_planned() {
    let session = memory().await;
    let steps: Vec<String> =
        (1..=25).map(|level| format!("c{level} AS (SELECT x.a FROM c{0} x, c{0} y)", level - 1)).collect();
    let sql = format!("WITH c0 AS (SELECT 1 AS a), {} SELECT count(*) FROM c25", steps.join(", "));
    assert_errors(&session, &[(&sql, "54001"), (&format!("CREATE TABLE t AS {sql}"), "54001")]).await;
}

#[tokio::test]
async fn a_view_is_planned_once_however_often_it_is_asked_for() {
    let session = memory().await;
    session.execute_script("CREATE VIEW v0 (a) AS SELECT 1").await.unwrap();
    // The names of the columns are looked up, and then the view is planned: each asks for it.
    for level in 1..=16 {
        let sql = format!("CREATE VIEW v{level} (a) AS SELECT q.b FROM v{} AS q (b)", level - 1);
        session.execute_script(&sql).await.unwrap();
    }
    assert_eq!(query(&session, "SELECT a FROM v16").await, ["1"]);
}

#[tokio::test]
async fn views_that_are_too_deep_or_too_large_are_refused() {
    let session = memory().await;
    let plain: Vec<String> = (0..=100).map(|number| format!("CREATE VIEW v{number} AS SELECT 1 AS a")).collect();
    session.execute_script(&plain.join(";")).await.unwrap();
    // From the front, so that none is deep when it is made.
    let chained: Vec<String> = (0..100)
        .map(|number| format!("CREATE OR REPLACE VIEW v{number} AS SELECT x.a FROM v{0} x, v{0} y", number + 1))
        .collect();
    session.execute_script(&chained.join(";")).await.unwrap();
    assert_eq!(query(&session, "SELECT a FROM v97").await, ["1"]);
    assert_errors(
        &session,
        &[
            ("SELECT a FROM v0", "54001"),
            ("SELECT a FROM v80", "54001"),
            ("SELECT a FROM v0 FOR UPDATE", "54001"),
            ("SELECT a FROM v80 FOR UPDATE", "54001"),
            ("CREATE VIEW w AS SELECT a FROM v0", "54001"),
            ("CREATE OR REPLACE VIEW v100 AS SELECT a FROM v0", "42P17"),
        ],
    )
    .await;
    // Subqueries inside of each view: the stack is what ends first.
    session.execute_script("CREATE VIEW s0 AS SELECT 1 AS a").await.unwrap();
    let mut refused = None;
    for level in 1..=30 {
        let (open, close) = ("(SELECT a FROM ".repeat(10), ") AS q".repeat(10));
        let sql = format!("CREATE VIEW s{level} AS SELECT a FROM {open}s{}{close}", level - 1);
        refused = session.execute_script(&sql).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.unwrap().sqlstate(), "54001");
    session.execute_script("DROP VIEW v100 CASCADE").await.unwrap();
    assert_errors(&session, &[("SELECT a FROM v0", "42P01")]).await;
}

#[tokio::test]
async fn planning_is_stopped_when_the_time_is_up() {
    let session = memory().await;
    session.set("statement_timeout", "20ms").await.unwrap();
    let tower: Vec<String> =
        (1..=200).map(|level| format!("c{level} AS (SELECT a + {level} AS a FROM c{})", level - 1)).collect();
    let sql = format!("WITH c0 AS (SELECT 1 AS a), {} SELECT a FROM c200", tower.join(", "));
    assert_errors(&session, &[(&sql, "57014"), (&format!("EXPLAIN {sql}"), "57014")]).await;
    assert_eq!(session.prepare(&sql).await.unwrap_err().sqlstate(), "57014");
    session.set("statement_timeout", "0").await.unwrap();
    assert_eq!(query(&session, &sql).await, ["20101"], "without the limit it is fine");
}

#[tokio::test]
async fn more_columns_than_there_may_be_are_refused_before_they_are_planned() {
    let session = memory().await;
    let columns = (0..1_601).map(|place| format!("c{place} INT")).collect::<Vec<_>>().join(", ");
    let ones = vec!["1"; 1_664].join(", ");
    for sql in [
        format!("CREATE TABLE t ({columns})"),
        format!("SELECT 1, {ones}"),
        format!("SELECT (SELECT max(a) FROM (SELECT 1 AS a, {ones}) AS s)"),
        format!("VALUES (1, {ones})"),
    ] {
        assert_eq!(error(&session, &sql).await.sqlstate(), "54011", "{}", &sql[..40]);
    }
}
