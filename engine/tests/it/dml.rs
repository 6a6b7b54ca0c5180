//! INSERT, UPDATE and DELETE: exact counts, whole statements or nothing.

use rustydb_engine::Value;

use crate::helpers::*;

async fn with_rows() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, v int, note text DEFAULT 'none', at timestamp DEFAULT now())")
        .await;
    assert_eq!(affected(&session, "INSERT INTO t (id, v) VALUES (1, 10), (2, 20), (3, 30), (4, NULL)").await, 4);
    session
}

#[tokio::test]
async fn defaults_fill_what_is_left_out() {
    let session = with_rows().await;
    run(&session, "INSERT INTO t VALUES (5, DEFAULT, DEFAULT, '2020-01-01'), (6, 1, 'x', DEFAULT)").await;
    assert_eq!(
        query(&session, "SELECT id, v, note, at IS NULL FROM t WHERE id > 3 ORDER BY id").await,
        ["4|NULL|none|false", "5|NULL|none|false", "6|1|x|false"]
    );
    run(&session, "CREATE TABLE d (a int DEFAULT 7, b text)").await;
    assert_eq!(affected(&session, "INSERT INTO d DEFAULT VALUES").await, 1);
    run(&session, "UPDATE t SET note = DEFAULT, v = DEFAULT WHERE id = 6").await;
    assert_eq!(query(&session, "SELECT a, b FROM d").await, ["7|NULL"]);
    assert_eq!(query(&session, "SELECT v, note FROM t WHERE id = 6").await, ["NULL|none"]);
}

#[tokio::test]
async fn columns_are_taken_in_the_order_given() {
    let session = with_rows().await;
    run(&session, "INSERT INTO t (note, id) SELECT 'n' || id, id + 10 FROM t WHERE v > 15").await;
    assert_eq!(
        query(&session, "SELECT id, v, note FROM t WHERE id > 10 ORDER BY id").await,
        ["12|NULL|n2", "13|NULL|n3"]
    );
}

#[tokio::test]
async fn updates_and_deletes_hit_exactly_the_rows_of_their_predicate() {
    let session = with_rows().await;
    assert_eq!(affected(&session, "UPDATE t SET v = v + 1 WHERE v >= 20").await, 2);
    assert_eq!(query(&session, "SELECT v FROM t ORDER BY id").await, ["10", "21", "31", "NULL"]);
    // The predicates DataFusion's own DML loses.
    assert_eq!(affected(&session, "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE v > 100)").await, 0);
    assert_eq!(
        affected(&session, "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t b WHERE b.id = t.id AND b.v = 21)").await,
        1
    );
    assert_eq!(affected(&session, "DELETE FROM t WHERE false").await, 0);
    assert_eq!(affected(&session, "DELETE FROM t WHERE v = NULL").await, 0);
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1", "3", "4"]);
    assert_eq!(affected(&session, "DELETE FROM t").await, 3);
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn an_update_sees_the_state_before_it_and_keys_may_trade_places() {
    let session = with_rows().await;
    assert_eq!(affected(&session, "UPDATE t SET id = id + 1").await, 4);
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["2", "3", "4", "5"]);
    assert_eq!(affected(&session, "UPDATE t SET id = 7 - id WHERE id BETWEEN 2 AND 5").await, 4);
    assert_eq!(query(&session, "SELECT id, v FROM t ORDER BY id").await, ["2|NULL", "3|30", "4|20", "5|10"]);
    assert_eq!(
        affected(&session, "UPDATE t SET v = (SELECT max(v) FROM t b), note = t.note || '!' WHERE t.id < 4").await,
        2
    );
    assert_eq!(
        query(&session, "SELECT id, v, note FROM t ORDER BY id").await,
        ["2|30|none!", "3|30|none!", "4|20|none", "5|10|none"]
    );
    assert_eq!(error(&session, "UPDATE t SET id = 1").await.sqlstate(), "23505");
    assert_eq!(query(&session, "SELECT count(DISTINCT id) FROM t").await, ["4"]);
}

#[tokio::test]
async fn tables_without_a_key_are_changed_row_by_row_and_hide_their_row_ids() {
    let session = memory().await;
    run(&session, "CREATE TABLE k (a int, b text)").await;
    run(&session, "INSERT INTO k VALUES (1, 'x'), (1, 'x'), (2, 'y')").await;
    assert_eq!(query(&session, "SELECT * FROM k ORDER BY a").await, ["1|x", "1|x", "2|y"]);
    assert_eq!(affected(&session, "UPDATE k SET a = a + 1 WHERE b = 'x'").await, 2);
    assert_eq!(affected(&session, "DELETE FROM k WHERE b = 'y'").await, 1);
    assert_eq!(query(&session, "SELECT * FROM k").await, ["2|x", "2|x"]);
    assert_eq!(error(&session, "SELECT __row_id FROM k").await.sqlstate(), "42703");
    assert_eq!(error(&session, "UPDATE k SET a = 1 WHERE b IN (SELECT * FROM k)").await.sqlstate(), "42601");
}

#[tokio::test]
async fn an_alias_and_tuples_work_in_updates() {
    let session = with_rows().await;
    assert_eq!(affected(&session, "UPDATE t AS x SET (v, note) = (x.v * 2, 'double') WHERE x.id = 2").await, 1);
    assert_eq!(affected(&session, "DELETE FROM t x WHERE x.id = 1").await, 1);
    assert_eq!(query(&session, "SELECT id, v, note FROM t WHERE id = 2").await, ["2|40|double"]);
    assert_errors(
        &session,
        &[
            ("UPDATE t SET v = 1, v = 2", "42601"),
            ("UPDATE t SET (v, note) = (1)", "42601"),
            ("UPDATE t SET (v, note) = (SELECT 1)", "42601"),
            ("UPDATE t SET v = max(v)", "42803"),
            ("UPDATE t SET v = 'x'", "22P02"),
            ("UPDATE t SET id = NULL", "23502"),
            ("UPDATE t SET v = 3000000000", "22003"),
        ],
    )
    .await;
}

#[tokio::test]
async fn parameters_reach_updates_and_deletes() {
    let session = with_rows().await;
    let parameters = [Value::Int64(Some(99)), Value::Int64(Some(2))];
    assert_eq!(run_with(&session, "UPDATE t SET v = $1 WHERE id = $2", &parameters).await.rows, Some(1));
    assert_eq!(query(&session, "SELECT v FROM t WHERE id = 2").await, ["99"]);
    assert_eq!(run_with(&session, "DELETE FROM t WHERE v = ?", &[Value::Int64(Some(99))]).await.rows, Some(1));
}

#[tokio::test]
async fn text_is_limited_to_its_length_in_characters() {
    let session = memory().await;
    run(&session, "CREATE TABLE v (a varchar(3), b char(2))").await;
    run(&session, "INSERT INTO v VALUES ('äöü', 'xy'), ('abc   ', 'z')").await;
    assert_eq!(query(&session, "SELECT a || '.', b || '.' FROM v ORDER BY b").await, ["äöü.|xy.", "abc.|z."]);
    let error = error(&session, "INSERT INTO v VALUES ('abcd', 'x')").await;
    assert_eq!((error.sqlstate(), error.detail()), ("22001", Some("The value has 4 characters.")));
    assert_eq!(crate::helpers::error(&session, "UPDATE v SET b = 'xyz'").await.sqlstate(), "22001");
}

#[tokio::test]
async fn numerics_are_rounded_to_their_scale() {
    let session = memory().await;
    run(&session, "CREATE TABLE n (a numeric(5,2))").await;
    run(&session, "INSERT INTO n VALUES (1.005), (-1.005), (999.994)").await;
    assert_eq!(query(&session, "SELECT a FROM n ORDER BY a").await, ["-1.01", "1.01", "999.99"]);
    assert_eq!(error(&session, "INSERT INTO n VALUES (999.995)").await.sqlstate(), "22003");
}

#[tokio::test]
async fn large_inserts_go_through_segments_and_are_all_or_nothing() {
    let session = memory().await;
    run(&session, "CREATE TABLE big (id bigint PRIMARY KEY, v bigint)").await;
    assert_eq!(
        affected(&session, "INSERT INTO big SELECT n, n % 7 FROM generate_series(1, 200000) s(n)").await,
        200_000
    );
    assert_eq!(query(&session, "SELECT count(*), sum(v), min(id), max(id) FROM big").await, ["200000|599997|1|200000"]);
    // The last row repeats a key.
    let clash =
        "INSERT INTO big SELECT CASE WHEN n = 400000 THEN 5 ELSE n END, 0 FROM generate_series(200001, 400000) s(n)";
    assert_eq!(error(&session, clash).await.sqlstate(), "23505");
    assert_eq!(query(&session, "SELECT count(*) FROM big").await, ["200000"]);
    assert_eq!(affected(&session, "DELETE FROM big WHERE id % 2 = 0 AND id <= 1000").await, 500);
    assert_eq!(query(&session, "SELECT count(*) FROM big WHERE id <= 1000").await, ["500"]);
}
