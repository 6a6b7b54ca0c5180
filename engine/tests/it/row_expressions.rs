//! Expressions of the row path against the same expressions as queries: the same type, the same value, and nothing
//! decided that a query would refuse.

use arrow::datatypes::DataType;
use rustydb_engine::{Datum, Session, StatementResult, Value};

use crate::helpers::*;

/// When the statement is said to have begun; none of the expressions here asks.
const NOW: i64 = 0;

/// The value and type a query gives, or its error's SQLSTATE. The parameters have their types before it is planned.
async fn by_query(session: &Session, expression: &str, parameters: &[Value]) -> Result<(DataType, Value), String> {
    let columns = parameters.iter().enumerate().map(|(place, value)| {
        let number = place + 1;
        format!("CAST(${number} AS {}) AS p{number}", sql_type(value))
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {} FROM (SELECT {columns}) AS p", expression.replace('$', "p"));
    let rows = match session.execute(&sql, parameters).await {
        Ok(StatementResult::Rows(rows)) => rows.collect().await,
        Ok(StatementResult::Done(_)) => panic!("{sql}: no rows"),
        Err(error) => Err(error),
    };
    let rows = rows.map_err(|error| error.sqlstate().to_owned())?;
    let column = rows[0].column(0);
    Ok((column.data_type().clone(), Value::try_from_array(column, 0).unwrap()))
}

fn sql_type(value: &Value) -> String {
    match value.data_type() {
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        _ => "text".to_owned(),
    }
}

fn text(value: &str) -> Value {
    Value::Utf8(Some(value.to_owned()))
}

fn decimal(digits: i128, precision: u8, scale: i8) -> Value {
    Value::Decimal128(Some(digits), precision, scale)
}

fn integers() -> Vec<Value> {
    vec![
        Value::Int64(None),
        Value::Int32(Some(0)),
        Value::Int32(Some(7)),
        Value::Int32(Some(i32::MAX)),
        Value::Int64(Some(-1)),
        Value::Int64(Some(i64::MIN)),
        Value::Int16(Some(-3)),
    ]
}

fn decimals() -> Vec<Value> {
    vec![
        decimal(0, 12, 2),
        decimal(12_345, 12, 2),
        decimal(-5, 4, 4),
        decimal(999_999_999_999, 12, 2),
        decimal(i128::from(i64::MAX), 38, 6),
        Value::Decimal128(None, 5, 1),
        Value::Int32(Some(3)),
    ]
}

/// Compares both ways for all pairs of values; returns how many the row path decided.
async fn compare(session: &Session, expressions: &[&str], left: &[Value], right: &[Value]) -> usize {
    let mut decided = 0;
    for expression in expressions {
        for (left, right) in left.iter().flat_map(|left| right.iter().map(move |right| (left, right))) {
            let parameters = [left.clone(), right.clone()];
            let types = parameters.iter().map(Value::data_type).collect();
            let case = format!("{expression} with {parameters:?}");
            let expected = by_query(session, expression, &parameters).await;
            let Ok(Some(compiled)) = session.compile_expression(expression, types).await else { continue };
            let data: Vec<Datum> = parameters.iter().map(Datum::of).collect();
            let Ok(value) = compiled.evaluate(&data, NOW) else { continue };
            decided += 1;
            let (data_type, expected) = expected.unwrap_or_else(|error| panic!("{case}: {value:?}, not {error}"));
            if compiled.data_type() != &data_type {
                // The optimiser may have put a constant in the place of the text.
                assert!(compiled.data_type().is_string() && data_type.is_string(), "{case}: {data_type}");
            }
            // As text, in which a NaN equals itself.
            assert_eq!(format!("{value:?}"), format!("{:?}", Datum::of(&expected)), "{case}");
        }
    }
    decided
}

#[tokio::test]
async fn integers_are_computed_as_in_queries() {
    let session = memory().await;
    let expressions = [
        "$1 + $2",
        "$1 - $2",
        "$1 * $2",
        "$1 / $2",
        "$1 % $2",
        "-$1",
        "$1 + $2 - 3 * $1",
        "abs($1)",
        "$1 = $2",
        "$1 <> $2",
        "$1 < $2",
        "$1 <= $2",
        "$1 > $2",
        "$1 >= $2",
        "$1 IS DISTINCT FROM $2",
        "$1 BETWEEN 0 AND $2",
        "$1 NOT BETWEEN $2 AND 5",
        "$1 IN (1, 7, $2)",
        "$1 NOT IN ($2, 7)",
        "CAST($1 AS smallint)",
        "CAST($1 AS numeric(10,2))",
        "CAST($1 AS double precision)",
        "CAST($1 AS text)",
        "coalesce($1, $2, 9)",
        "nullif($1, $2)",
        "greatest($1, $2)",
        "least($1, $2)",
        "CASE WHEN $1 > $2 THEN 'more' WHEN $1 = $2 THEN 'same' ELSE NULL END",
        "CASE $1 WHEN $2 THEN 1 END",
        "$1 IS NULL OR $2 > 0",
        "$1 > 0 AND $2 > 0",
        "NOT ($1 > $2)",
        "($1 > $2) IS NOT TRUE",
        "($1 > 0) IS UNKNOWN",
    ];
    assert!(compare(&session, &expressions, &integers(), &integers()).await > 50);
}

#[tokio::test]
async fn decimals_are_computed_as_in_queries() {
    let session = memory().await;
    let expressions = [
        "$1 + $2",
        "$1 - $2",
        "$1 * $2",
        "$1 / $2",
        "$1 % $2",
        "-$1",
        "abs($1)",
        "round($1, 1)",
        "ceil($1)",
        "floor($1)",
        "$1 = $2",
        "$1 < $2",
        "$1 >= $2",
        "CAST($1 AS int)",
        "CAST($1 AS numeric(10,1))",
        "CAST($1 + $2 AS numeric(12,2))",
        "CAST($1 AS text)",
        "$1 || ' ' || $2",
        "CAST($1 AS double precision)",
        "CAST($1 AS text)",
        "coalesce($1, $2)",
        "$1 * (1 + $2) * (1 - 0.05)",
        "$1 + 0.5",
        "$1 > 1",
        "$1 BETWEEN -1.5 AND $2",
        "$1 IN (0, 123.45, $2)",
    ];
    assert!(compare(&session, &expressions, &decimals(), &decimals()).await > 50);
}

#[tokio::test]
async fn texts_dates_and_floats_are_computed_as_in_queries() {
    let session = memory().await;
    let texts =
        [text(""), text("abc"), text("Straße"), text("a b"), Value::Utf8(None), Value::Utf8View(Some("abc".into()))];
    let expressions = [
        "$1 || $2",
        "concat($1, '-', $2)",
        "$1 = $2",
        "$1 < $2",
        "lower($1)",
        "upper($2)",
        "length($1)",
        "substring($1, 2, 2)",
        "substr($1, 2)",
        "substr($1, 1, 100)",
        "substr($1, 4, 2)",
        "substr($1, 3, 0)",
        "substr($1, 0, 2)",
        "substr($1 || $2, 100, 5)",
        "left($1, 2)",
        "right($2, 1)",
        "trim($1)",
        "$1 LIKE 'a%'",
        "replace($1, 'a', $2)",
        "$1 IN ('abc', $2)",
        "coalesce($1, $2)",
        "nullif($1, $2)",
        "CASE WHEN $1 = '' THEN $2 ELSE $1 END",
        "$1 || 5",
        "position('b' IN $1)",
        "CAST($1 AS varchar(2))",
    ];
    assert!(compare(&session, &expressions, &texts, &texts).await > 50);
    let dates = [Value::Date32(Some(0)), Value::Date32(Some(20_000)), Value::Date32(None)];
    let expressions = ["$1 = $2", "$1 < $2", "$1 + 1", "$1 - $2", "extract(year FROM $1)", "CAST($1 AS timestamp)"];
    assert!(compare(&session, &expressions, &dates, &dates).await > 10);
    let floats = [0.0, -0.0, 1.5, -2.25, 1e300, f64::NAN, f64::INFINITY].map(|value| Value::Float64(Some(value)));
    let expressions = [
        "$1 + $2",
        "$1 - $2",
        "$1 * $2",
        "$1 / $2",
        "$1 = $2",
        "$1 < $2",
        "CAST($1 AS int)",
        "sqrt($1)",
        "round($1)",
        "$1 > 1",
        "$1 + 1",
    ];
    assert!(compare(&session, &expressions, &floats, &floats).await > 50);
}

#[tokio::test]
async fn what_only_a_statement_can_tell_is_not_compiled() {
    let session = memory().await;
    for expression in ["(SELECT 1)", "random()", "nextval('s')", "EXISTS (SELECT 1)"] {
        let compiled = session.compile_expression(expression, Vec::new()).await;
        assert!(!matches!(compiled, Ok(Some(_))), "{expression}: {compiled:?}");
    }
    let error = session.compile_expression("no_such_function(1)", Vec::new()).await.unwrap_err();
    assert_eq!(error.sqlstate(), "42883");
    let now = session.compile_expression("now()", Vec::new()).await.unwrap().unwrap();
    assert_eq!(now.evaluate(&[], 42), Ok(Datum::Int(42)));
}
