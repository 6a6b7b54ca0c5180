//! CREATE TABLE, CREATE TABLE AS, DROP TABLE.

use crate::helpers::*;

#[tokio::test]
async fn declarations_are_kept_as_written() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a bigint, b varchar(25) DEFAULT 'x' || 'y' NOT NULL, c numeric(15,2) NULL, CONSTRAINT pk PRIMARY KEY (b, a))").await;
    assert_eq!(
        query(&session, "DESCRIBE t").await,
        ["a|bigint|NO|YES|", "b|character varying(25)|NO|YES|'x' || 'y'", "c|numeric(15,2)|YES|NO|"]
    );
    assert_eq!(query(&session, "SHOW TABLES").await, ["public|t"]);
}

#[tokio::test]
async fn existing_tables_are_left_alone() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int)").await;
    assert_eq!(run(&session, "CREATE TABLE IF NOT EXISTS t (b text)").await.tag, "CREATE TABLE");
    assert_eq!(query(&session, "DESCRIBE t").await, ["a|integer|YES|NO|"]);
    assert_eq!(error(&session, "CREATE TABLE t (b text)").await.sqlstate(), "42P07");
    assert_eq!(run(&session, "DROP TABLE t").await.tag, "DROP TABLE");
    run(&session, "DROP TABLE IF EXISTS t, s").await;
    assert_eq!(error(&session, "SELECT * FROM t").await.sqlstate(), "42P01");
}

#[tokio::test]
async fn tables_can_be_made_of_queries() {
    let session = memory().await;
    let made = run(
        &session,
        "CREATE TABLE t AS SELECT n AS id, n * 1.5 AS x, 'a' AS s, NULL AS z FROM generate_series(1, 3) s(n)",
    )
    .await;
    assert_eq!((made.tag.as_str(), made.rows), ("CREATE TABLE", Some(3)));
    assert_eq!(query(&session, "SELECT * FROM t ORDER BY id").await, ["1|1.5|a|NULL", "2|3.0|a|NULL", "3|4.5|a|NULL"]);
    assert_errors(
        &session,
        &[
            ("CREATE TABLE v AS SELECT 1 AS a, 2 AS a", "42701"),
            ("CREATE TABLE v AS SELECT [1, 2] AS a", "0A000"),
            ("CREATE TABLE v (a int) AS SELECT 1", "0A000"),
            ("CREATE TABLE v AS SELECT nope FROM t", "42703"),
            ("CREATE TABLE v AS SELECT 1 / (id - 3) FROM t", "22012"),
        ],
    )
    .await;
    assert_eq!(query(&session, "SHOW TABLES").await, ["public|t"]);
}

#[tokio::test]
async fn declarations_that_make_no_sense_are_refused() {
    let session = memory().await;
    assert_errors(
        &session,
        &[
            ("CREATE TABLE x (a int, a text)", "42701"),
            ("CREATE TABLE x (a int, PRIMARY KEY (b))", "42703"),
            ("CREATE TABLE x (a int PRIMARY KEY, b int PRIMARY KEY)", "42P16"),
            ("CREATE TABLE x (a int NULL NOT NULL)", "42601"),
            ("CREATE TABLE x (a int NULL PRIMARY KEY)", "42601"),
            ("CREATE TABLE x (a strange)", "42704"),
            ("CREATE TABLE x (a numeric(50, 2))", "22023"),
            ("CREATE TABLE x (a uuid)", "0A000"),
            ("CREATE TABLE x (a int[])", "0A000"),
            ("CREATE TABLE x (a serial DEFAULT 1)", "42601"),
            ("CREATE TABLE x ()", "0A000"),
            ("CREATE TABLE s.x (a int)", "3F000"),
            ("CREATE TABLE x (a int DEFAULT b)", "0A000"),
            ("CREATE TABLE x (a int DEFAULT (SELECT 1))", "0A000"),
            ("CREATE TABLE x (a int DEFAULT sum(1))", "0A000"),
            ("CREATE TABLE x (a int DEFAULT 'abc')", "22P02"),
            ("CREATE TABLE x (a int DEFAULT nope())", "42883"),
            ("CREATE TABLE x (a int PRIMARY KEY NOT DEFERRABLE INITIALLY DEFERRED)", "42601"),
            ("CREATE TABLE x (__row_id int)", "0A000"),
        ],
    )
    .await;
    assert!(query(&session, "SHOW TABLES").await.is_empty());
}

#[tokio::test]
async fn quoted_names_keep_their_case() {
    let session = memory().await;
    run(&session, "CREATE TABLE \"Order\" (\"Group\" int PRIMARY KEY, Plain int)").await;
    run(&session, "INSERT INTO \"Order\" (\"Group\", PLAIN) VALUES (1, 2)").await;
    run(&session, "UPDATE \"Order\" SET \"Group\" = \"Group\" + 1, plain = \"Order\".plain + 1").await;
    assert_eq!(query(&session, "SELECT \"Group\", plain FROM \"Order\"").await, ["2|3"]);
    assert_eq!(affected(&session, "DELETE FROM \"Order\" WHERE \"Group\" = 2").await, 1);
    assert_eq!(error(&session, "SELECT * FROM Order").await.sqlstate(), "42P01");
}
