//! Prepared statements: parameters, results, batches of parameters.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use rustydb_engine::{StatementResult, Value};

use crate::helpers::*;

async fn with_table() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, v numeric(8,2), s text DEFAULT 'd')").await;
    session
}

fn types(prepared: &rustydb_engine::Prepared) -> Vec<DataType> {
    prepared.parameter_schema().fields().iter().map(|field| field.data_type().clone()).collect()
}

#[tokio::test]
async fn parameters_get_the_types_of_their_places() {
    let session = with_table().await;
    for (sql, expected) in [
        ("SELECT * FROM t WHERE id = $1 AND s = $2", vec![DataType::Int32, DataType::Utf8View]),
        ("INSERT INTO t VALUES (?, ?, ?)", vec![DataType::Int32, DataType::Decimal128(8, 2), DataType::Utf8View]),
        ("INSERT INTO t (s, id) VALUES ($2, $1)", vec![DataType::Int32, DataType::Utf8View]),
        (
            "UPDATE t SET v = $1, s = $3 WHERE id = $2",
            vec![DataType::Decimal128(8, 2), DataType::Int32, DataType::Utf8View],
        ),
        ("DELETE FROM t WHERE v BETWEEN $1 AND $2", vec![DataType::Decimal128(8, 2); 2]),
        ("SELECT $1", vec![DataType::Utf8]),
        ("SELECT CAST($1 AS date)", vec![DataType::Date32]),
        ("SELECT 1", vec![]),
    ] {
        let prepared = session.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(types(&prepared), expected, "{sql}");
        assert_eq!(prepared.sql(), sql);
    }
}

#[tokio::test]
async fn statements_with_and_without_rows_are_told_apart() {
    let session = with_table().await;
    for (sql, columns) in [
        ("SELECT id, v * 2 AS w FROM t", Some(vec!["id", "w"])),
        ("EXPLAIN SELECT 1", Some(vec!["plan_type", "plan"])),
        ("EXPLAIN DELETE FROM t WHERE id = $1", Some(vec!["plan_type", "plan"])),
        ("SHOW timezone", Some(vec!["timezone"])),
        ("SHOW TABLES", Some(vec!["table_schema", "table_name"])),
        ("DESCRIBE t", Some(vec!["column_name", "data_type", "is_nullable", "primary_key", "column_default"])),
        ("INSERT INTO t VALUES (1, 2, 'x')", None),
        ("CREATE TABLE u (a int)", None),
        ("BEGIN", None),
        ("SET timezone = 'UTC'", None),
        ("COPY t TO 'x.csv'", None),
    ] {
        let prepared = session.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let names = prepared
            .result_schema()
            .map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>());
        let expected = columns.map(|names| names.into_iter().map(str::to_owned).collect());
        assert_eq!(names, expected, "{sql}");
    }
    assert!(session.database().connect().catalog().find("public", "u").is_none(), "nothing ran");
}

#[tokio::test]
async fn announced_and_delivered_schemas_agree() {
    let session = with_table().await;
    run(&session, "INSERT INTO t VALUES (1, 2.5, 'x')").await;
    let prepared = session
        .prepare("SELECT id, sum(v) AS total, avg(v), count(*), max(s), 1.5 + id FROM t WHERE id = $1 GROUP BY id")
        .await
        .unwrap();
    let StatementResult::Rows(rows) = session.execute_prepared(&prepared, &[Value::Int32(Some(1))]).await.unwrap()
    else {
        panic!("rows")
    };
    let kinds = |schema: arrow::datatypes::SchemaRef| {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>()
    };
    assert_eq!(kinds(prepared.result_schema().unwrap()), kinds(rows.schema()));
}

#[tokio::test]
async fn a_prepared_statement_runs_often_and_outlives_changes() {
    let session = with_table().await;
    let insert = session.prepare("INSERT INTO t (id, v) VALUES ($1, $2)").await.unwrap();
    for id in 0..5 {
        session
            .execute_prepared(&insert, &[Value::Int64(Some(id)), Value::Float64(Some(id as f64 / 4.0))])
            .await
            .unwrap();
    }
    let select = session.prepare("SELECT v, s FROM t WHERE id = $1").await.unwrap();
    let StatementResult::Rows(rows) = session.execute_prepared(&select, &[Value::from("3")]).await.unwrap() else {
        panic!("rows")
    };
    assert_eq!(lines(rows).await.unwrap(), ["0.75|d"]);
    run(&session, "DROP TABLE t").await;
    let gone = session.execute_prepared(&select, &[Value::from("3")]).await.unwrap_err();
    assert_eq!(gone.sqlstate(), "42P01");
    let count = session.execute_prepared(&select, &[]).await.unwrap_err();
    assert_eq!(count.sqlstate(), "08P01");
}

fn batch(ids: Vec<i64>, texts: Vec<Option<&str>>) -> RecordBatch {
    let columns: [(&str, arrow::array::ArrayRef); 2] =
        [("1", Arc::new(Int64Array::from(ids))), ("2", Arc::new(StringArray::from(texts)))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

#[tokio::test]
async fn batches_run_once_per_row_all_or_nothing() {
    let session = with_table().await;
    let insert = session.prepare("INSERT INTO t (id, s) VALUES (?, ?)").await.unwrap();
    assert_eq!(
        session.execute_batch(&insert, &batch(vec![1, 2, 3], vec![Some("a"), None, Some("c")])).await.unwrap(),
        3
    );
    let clash = session.execute_batch(&insert, &batch(vec![4, 1], vec![None, None])).await.unwrap_err();
    assert_eq!(clash.sqlstate(), "23505");
    assert_eq!(query(&session, "SELECT id, v, s FROM t ORDER BY id").await, ["1|NULL|a", "2|NULL|NULL", "3|NULL|c"]);

    let computed = session.prepare("INSERT INTO t (id, s) VALUES ($1 + 10, upper($2))").await.unwrap();
    assert_eq!(session.execute_batch(&computed, &batch(vec![1, 2], vec![Some("x"), Some("y")])).await.unwrap(), 2);
    let update = session.prepare("UPDATE t SET s = $2 WHERE id >= $1").await.unwrap();
    assert_eq!(session.execute_batch(&update, &batch(vec![12, 11], vec![Some("p"), Some("q")])).await.unwrap(), 3);
    assert_eq!(query(&session, "SELECT id, s FROM t WHERE id > 10 ORDER BY id").await, ["11|q", "12|q"]);

    let select = session.prepare("SELECT $1, $2").await.unwrap();
    assert_eq!(session.execute_batch(&select, &batch(vec![1], vec![None])).await.unwrap_err().sqlstate(), "0A000");
}

#[tokio::test]
async fn bad_statements_fail_when_they_are_prepared() {
    let session = with_table().await;
    for (sql, sqlstate) in
        [("SELECT nope FROM t", "42703"), ("SELECT * FROM nope", "42P01"), ("SELEC", "42601"), ("LISTEN p", "0A000")]
    {
        assert_eq!(session.prepare(sql).await.unwrap_err().sqlstate(), sqlstate, "{sql}");
    }
}

#[tokio::test]
async fn returning_has_a_schema_and_parameters_everywhere() {
    let session = with_table().await;
    for (sql, columns, parameters) in [
        ("INSERT INTO t (id, v) VALUES ($1, $2) RETURNING id, v * $3 AS w", vec!["id", "w"], 3),
        ("UPDATE t SET v = $2 WHERE id = $1 RETURNING *", vec!["id", "v", "s"], 2),
        ("DELETE FROM t WHERE id = $1 RETURNING upper(s)", vec!["upper"], 1),
        (
            "INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET v = $2 WHERE t.id = $3 RETURNING v",
            vec!["v"],
            3,
        ),
        ("WITH d AS (DELETE FROM t WHERE id = $1 RETURNING id AS gone) SELECT * FROM d", vec!["gone"], 1),
    ] {
        let prepared = session.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let schema = prepared.result_schema().unwrap_or_else(|| panic!("{sql}: no rows"));
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, columns, "{sql}");
        assert_eq!(prepared.parameter_schema().fields().len(), parameters, "{sql}");
        let values: Vec<Value> = (0..parameters).map(|_| Value::Int32(Some(7))).collect();
        match session.execute_prepared(&prepared, &values).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")) {
            StatementResult::Rows(rows) => assert_eq!(rows.schema().fields().len(), columns.len(), "{sql}"),
            StatementResult::Done(completion) => panic!("{sql}: {completion:?}"),
        }
    }
}
