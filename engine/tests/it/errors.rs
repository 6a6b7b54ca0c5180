//! What people get wrong, and what they are told.

use rustydb_engine::Position;

use crate::helpers::*;

async fn with_table() -> rustydb_engine::Session {
    let session = memory().await;
    run(
        &session,
        "CREATE TABLE customer (id int PRIMARY KEY, name varchar(5) NOT NULL, balance numeric(5,2), age smallint)",
    )
    .await;
    session
}

#[tokio::test]
async fn unknown_names_come_with_their_place_and_the_nearest_name() {
    let session = with_table().await;
    for (sql, sqlstate, place, hint) in [
        ("SELECT nam FROM customer", "42703", (1, 8), "\"name\""),
        ("SELECT id\nFROM   custmer", "42P01", (2, 8), "\"customer\""),
        ("SELECT id FROM customer WHERE\n balanse > 1", "42703", (2, 2), "\"balance\""),
        ("INSERT INTO custmer VALUES (1)", "42P01", (1, 13), "\"customer\""),
        ("INSERT INTO customer (id, nme) VALUES (1, 'x')", "42703", (1, 27), "\"name\""),
        ("UPDATE customer SET nme = 'x'", "42703", (1, 21), "\"name\""),
        ("UPDATE customer SET name = nme", "42703", (1, 28), "\"name\""),
        ("DELETE FROM customer WHERE idd = 1", "42703", (1, 28), "\"id\""),
        ("DELETE FROM custmer", "42P01", (1, 13), "\"customer\""),
        ("DROP TABLE custmer", "42P01", (1, 12), "\"customer\""),
    ] {
        let error = error(&session, sql).await;
        assert_eq!(error.sqlstate(), sqlstate, "{sql}: {error:?}");
        assert_eq!(error.position(), Some(Position { line: place.0, column: place.1 }), "{sql}: {error:?}");
        assert!(error.hint().is_some_and(|text| text.contains(hint)), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn functions_and_columns_that_are_not_right_are_named() {
    let session = with_table().await;
    assert_errors(
        &session,
        &[
            ("SELECT lenght(name) FROM customer", "42883"),
            ("SELECT id FROM customer a, customer b", "42702"),
            ("SELECT * FROM no_such_function(1)", "42883"),
            ("SELECT name, count(*) FROM customer GROUP BY age", "42803"),
            ("SELECT id + date '2024-01-01' + true FROM customer", "42883"),
            ("SELECT id FROM customer WHERE name = date '2024-01-01' + interval '1 day' AND id = true", "42883"),
            ("SELECT id BETWEEN 1 AND 2 BETWEEN 3 AND 4 FROM customer", "42804"),
            ("SELECT other.public.customer.id FROM other.public.customer", "0A000"),
        ],
    )
    .await;
}

#[tokio::test]
async fn syntax_errors_have_a_place() {
    let session = with_table().await;
    for (sql, place) in [
        ("SELEC 1", (1, 1)),
        ("SELECT id FROM customer WHERE", (1, 30)),
        ("SELECT 'abc", (1, 8)),
        ("SELECT 1 1", (1, 10)),
    ] {
        let error = error(&session, sql).await;
        assert_eq!(error.sqlstate(), "42601", "{sql}: {error:?}");
        if sql != "SELECT id FROM customer WHERE" {
            assert_eq!(error.position(), Some(Position { line: place.0, column: place.1 }), "{sql}: {error:?}");
        }
    }
    assert_errors(&session, &[("", "42601"), ("SELECT 1; SELECT 2", "42601"), (";;", "42601")]).await;
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_and_nothing_is_kept() {
    let session = with_table().await;
    assert_errors(
        &session,
        &[
            ("INSERT INTO customer VALUES (1, 'toolong', 1, 1)", "22001"),
            ("INSERT INTO customer VALUES (1, NULL, 1, 1)", "23502"),
            ("INSERT INTO customer (id) VALUES (1)", "23502"),
            ("INSERT INTO customer VALUES (1, 'a', 1234.5, 1)", "22003"),
            ("INSERT INTO customer VALUES (3000000000, 'a', 1, 1)", "22003"),
            ("INSERT INTO customer VALUES (1, 'a', 1, 40000)", "22003"),
            ("INSERT INTO customer VALUES ('one', 'a', 1, 1)", "22P02"),
            ("INSERT INTO customer SELECT 1, 'a', 1, n FROM generate_series(32767, 32768) s(n)", "22003"),
            ("INSERT INTO customer VALUES (1, 'a', 1, 1), (1, 'b', 1, 1)", "23505"),
            ("INSERT INTO customer (id, name, age) VALUES (1, 'a')", "42601"),
            ("INSERT INTO customer (id, name) VALUES (1, 'a', 2)", "42601"),
            ("INSERT INTO customer (id, id) VALUES (1, 1)", "42701"),
            ("SELECT 1 / 0", "22012"),
            ("SELECT 'x'::int", "22P02"),
            ("SELECT '2024-13-01'::date", "22008"),
            ("SELECT 3000000000::int", "22003"),
        ],
    )
    .await;
    assert_eq!(query(&session, "SELECT count(*) FROM customer").await, ["0"]);
}

#[tokio::test]
async fn a_duplicate_key_names_constraint_and_key() {
    let session = with_table().await;
    run(&session, "INSERT INTO customer VALUES (7, 'a', 1, 1)").await;
    let error = error(&session, "INSERT INTO customer VALUES (7, 'b', 1, 1)").await;
    assert_eq!(error.sqlstate(), "23505");
    assert!(error.message().contains("\"customer_pkey\""), "{error:?}");
    assert_eq!(error.detail(), Some("Key (id) = (7) already exists."));
}

#[tokio::test]
async fn messages_do_not_show_the_machinery() {
    let session = with_table().await;
    for sql in [
        "SELECT 1/0",
        "SELECT nope",
        "SELECT 'x'::int",
        "SELECT id + 'a'::bytea FROM customer",
        "SELECT count(*) FROM customer GROUP BY nope",
        "SELECT (SELECT id FROM (VALUES (1), (2)) v(id))",
    ] {
        let message = error(&session, sql).await.to_string();
        for inner in [
            "Execution error",
            "Error during planning",
            "Internal error",
            "Arrow error",
            "backtrace",
            "caused by",
            "datafusion",
        ] {
            assert!(!message.to_lowercase().contains(&inner.to_lowercase()), "{sql}: {message}");
        }
    }
}

#[tokio::test]
async fn unsupported_statements_are_refused_by_name() {
    let session = with_table().await;
    for (sql, name) in [
        ("CREATE VIEW x AS SELECT * FROM customer FOR UPDATE", "FOR UPDATE"),
        ("SELECT DISTINCT * FROM customer FOR SHARE", "FOR UPDATE or SHARE with DISTINCT"),
        ("CREATE OR REPLACE TABLE x (a int)", "OR REPLACE"),
        ("CREATE TABLE x (a int) PARTITION BY RANGE (a)", "PARTITION"),
        ("CREATE TABLE x (a int) INHERITS (customer)", "INHERITS"),
        ("CREATE TABLE x (a text COLLATE \"de_DE\")", "COLLATE"),
        ("DROP ROLE r", "DROP ROLE"),
        ("GRANT SELECT ON customer TO bob", "GRANT"),
        ("COMMENT ON ROLE r IS 'x'", "COMMENT ON ROLE"),
        ("PREPARE p AS COMMIT", "PREPARE"),
        ("LISTEN p", "LISTEN"),
        ("SELECT * FROM customer TABLESAMPLE SYSTEM (10)", "TABLESAMPLE"),
        ("SET SESSION AUTHORIZATION r", "SESSION AUTHORIZATION"),
        ("EXPLAIN ANALYZE DELETE FROM customer", "EXPLAIN ANALYZE"),
        ("COPY customer FROM STDIN", "STDIN"),
    ] {
        let error = error(&session, sql).await;
        assert_eq!(error.sqlstate(), "0A000", "{sql}: {error:?}");
        assert!(error.message().contains(name), "{sql}: {error:?}");
    }
    assert_eq!(query(&session, "SELECT count(*) FROM customer").await, ["0"]);
}

#[tokio::test]
async fn the_wrong_number_of_parameters_is_refused() {
    let session = with_table().await;
    let error = error_with(&session, "SELECT $2", &[rustydb_engine::Value::Int64(Some(1))]).await;
    assert_eq!(error.sqlstate(), "08P01");
    assert_eq!(error.message(), "the statement takes 2 parameters, but 1 was given");
}

#[tokio::test]
async fn type_errors_speak_sql_and_have_a_place() {
    let session = with_table().await;
    for (sql, sqlstate, message, place) in [
        ("SELECT sum(name) FROM customer", "42883", "function sum(text) does not exist", None),
        ("SELECT abs('x'::text)", "42883", "function abs(text) does not exist", None),
        ("SELECT substr(1, 2)", "42883", "function substr(bigint, bigint) does not exist", None),
        ("SELECT foo(1)", "42883", "function \"foo\" does not exist", Some((1, 8))),
        ("SELECT 1, 99999999999::int", "22003", "value 99999999999 is out of range for type integer", Some((1, 11))),
        ("SELECT\n12345.6::numeric(5,2)", "22003", "value 12345.60 is out of range", Some((2, 1))),
        ("SELECT 'x1'::int", "22P02", "invalid input syntax for type integer: \"x1\"", Some((1, 8))),
        ("SELECT name + 1 FROM customer", "42883", "operator does not exist: text + bigint", Some((1, 8))),
        ("SELECT id FROM customer WHERE id = true", "42883", "operator does not exist: integer = boolean", None),
        ("SELECT id FROM customer WHERE name", "42804", "a condition must be boolean, not text", None),
        ("SELECT true::date", "42804", "cannot cast type boolean to date", None),
        ("SELECT name, count(*) FROM customer", "42803", "must appear in the GROUP BY clause", Some((1, 8))),
        ("SELECT id FROM customer WHERE sum(id) > 1", "42803", "not allowed in WHERE", None),
        ("SELECT id FROM customer ORDER BY 5", "42P10", "ORDER BY position 5", None),
        ("SELECT 1 UNION SELECT 1, 2", "42601", "same number of columns", Some((1, 1))),
        ("SELECT (SELECT id, name FROM customer)", "42601", "only one column", None),
        ("SELECT 1 LIMIT -1", "2201W", "must not be negative", None),
        ("INSERT INTO customer VALUES (99999999999, 'a', 1, 1)", "22003", "99999999999", None),
        ("SELECT FROM WHERE", "42601", "syntax error at \"WHERE\"", Some((1, 13))),
    ] {
        let error = error(&session, sql).await;
        assert_eq!(error.sqlstate(), sqlstate, "{sql}: {error:?}");
        assert!(error.message().contains(message), "{sql}: {error:?}");
        let place = place.map(|(line, column)| Position { line, column });
        assert!(place.is_none() || error.position() == place, "{sql}: {error:?}");
        let whole = format!("{error:?}");
        for inner in ["Int32", "Int64", "Utf8", "Decimal128", "Boolean", "DataFusion", "wildcard", "\\t"] {
            assert!(!whole.contains(inner), "{sql}: {error:?}");
        }
    }
}
