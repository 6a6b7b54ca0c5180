//! SqlInfo is true: what it claims is done.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, UInt32Type};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::SqlInfo;
use rustydb_flight::FlightOptions;

use crate::support::{Client, TestServer, fetch, query, update};

async fn all(client: &mut Client) -> RecordBatch {
    let info = client.get_sql_info(vec![]).await.unwrap();
    fetch(client, info).await.unwrap().remove(0)
}

fn value(info: &RecordBatch, name: SqlInfo) -> std::sync::Arc<dyn Array> {
    let names = info.column(0).as_primitive::<UInt32Type>();
    let row = names.values().iter().position(|known| *known == name as u32).unwrap();
    info.column(1).as_union().value(row)
}

fn words(info: &RecordBatch, name: SqlInfo) -> Vec<String> {
    let list = value(info, name).as_list::<i32>().value(0);
    list.as_string::<i32>().iter().map(|word| word.unwrap().to_owned()).collect()
}

/// A call of each function.
const CALLS: &[(&str, &str)] = &[
    ("ABS", "abs(-1)"),
    ("ACOS", "acos(1)"),
    ("ASCII", "ascii('x')"),
    ("ASIN", "asin(1)"),
    ("ATAN", "atan(1)"),
    ("ATAN2", "atan2(1, 2)"),
    ("BIT_LENGTH", "bit_length('x')"),
    ("BTRIM", "btrim(' x ')"),
    ("CAST", "CAST('1' AS INTEGER)"),
    ("CEIL", "ceil(1.5)"),
    ("CHARACTER_LENGTH", "character_length('x')"),
    ("CHAR_LENGTH", "char_length('x')"),
    ("CHR", "chr(65)"),
    ("COALESCE", "coalesce(NULL, 1)"),
    ("CONCAT", "concat('a', 'b')"),
    ("CONCAT_WS", "concat_ws('-', 'a', 'b')"),
    ("COS", "cos(1)"),
    ("COT", "cot(1)"),
    ("CURRENT_DATE", "current_date"),
    ("CURRENT_TIME", "current_time"),
    ("CURRENT_TIMESTAMP", "current_timestamp"),
    ("DATE_BIN", "date_bin(INTERVAL '1 hour', TIMESTAMP '2026-01-01 01:30:00', TIMESTAMP '2026-01-01 00:00:00')"),
    ("DATE_PART", "date_part('year', DATE '2026-01-01')"),
    ("DATE_TRUNC", "date_trunc('month', TIMESTAMP '2026-01-02 00:00:00')"),
    ("DEGREES", "degrees(1)"),
    ("EXP", "exp(1)"),
    ("EXTRACT", "extract(year FROM DATE '2026-01-01')"),
    ("FACTORIAL", "factorial(3)"),
    ("FLOOR", "floor(1.5)"),
    ("FROM_UNIXTIME", "from_unixtime(1)"),
    ("GCD", "gcd(4, 6)"),
    ("GREATEST", "greatest(1, 2)"),
    ("INITCAP", "initcap('x')"),
    ("LCM", "lcm(4, 6)"),
    ("LEAST", "least(1, 2)"),
    ("LEFT", "left('abc', 1)"),
    ("LENGTH", "length('abc')"),
    ("LEVENSHTEIN", "levenshtein('a', 'b')"),
    ("LN", "ln(1)"),
    ("LOG", "log(10)"),
    ("LOG10", "log10(10)"),
    ("LOWER", "lower('X')"),
    ("LPAD", "lpad('x', 3)"),
    ("LTRIM", "ltrim(' x')"),
    ("MAKE_DATE", "make_date(2026, 1, 1)"),
    ("NOW", "now()"),
    ("NULLIF", "nullif(1, 2)"),
    ("NVL", "nvl(NULL, 1)"),
    ("OCTET_LENGTH", "octet_length('x')"),
    ("OVERLAY", "overlay('abc' PLACING 'x' FROM 2)"),
    ("PI", "pi()"),
    ("POSITION", "position('b' IN 'abc')"),
    ("POWER", "power(2, 3)"),
    ("RADIANS", "radians(1)"),
    ("RANDOM", "random()"),
    ("REPEAT", "repeat('x', 3)"),
    ("REPLACE", "replace('abc', 'b', 'x')"),
    ("REVERSE", "reverse('abc')"),
    ("RIGHT", "right('abc', 1)"),
    ("ROUND", "round(1.5)"),
    ("RPAD", "rpad('x', 3)"),
    ("RTRIM", "rtrim('x ')"),
    ("SIGNUM", "signum(-2)"),
    ("SIN", "sin(1)"),
    ("SPLIT_PART", "split_part('a,b', ',', 2)"),
    ("SQRT", "sqrt(4)"),
    ("STARTS_WITH", "starts_with('abc', 'a')"),
    ("STRPOS", "strpos('abc', 'b')"),
    ("SUBSTR", "substr('abc', 2)"),
    ("SUBSTRING", "substring('abc' FROM 2 FOR 1)"),
    ("TAN", "tan(1)"),
    ("TO_CHAR", "to_char(TIMESTAMP '2026-01-02 00:00:00', 'YYYY')"),
    ("TO_DATE", "to_date('2026-01-01')"),
    ("TO_HEX", "to_hex(255)"),
    ("TO_TIMESTAMP", "to_timestamp('2026-01-01')"),
    ("TO_UNIXTIME", "to_unixtime('2026-01-01')"),
    ("TRANSLATE", "translate('abc', 'b', 'x')"),
    ("TRIM", "trim(' x ')"),
    ("TRUNC", "trunc(1.5)"),
    ("UPPER", "upper('x')"),
    ("VERSION", "version()"),
];

#[tokio::test]
async fn every_function_listed_can_be_called() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = all(&mut client).await;
    for list in [
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlSystemFunctions,
        SqlInfo::SqlDatetimeFunctions,
    ] {
        for name in words(&info, list) {
            let call = CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call);
            let call = call.unwrap_or_else(|| panic!("{name} is listed and not tested"));
            query(&mut client, &format!("SELECT {call}")).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
        }
    }
}

/// What SQL calls the protocol's types, by their numbers.
const TYPES: [&str; 20] = [
    "bigint",
    "bytea",
    "boolean",
    "char(10)",
    "date",
    "decimal",
    "double precision",
    "integer",
    "interval",
    "interval",
    "bytea",
    "text",
    "numeric",
    "real",
    "smallint",
    "time",
    "timestamp",
    "tinyint",
    "bytea",
    "varchar",
];

#[tokio::test]
async fn every_conversion_listed_can_be_written() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = all(&mut client).await;
    let map = value(&info, SqlInfo::SqlSupportsConvert);
    let entries = map.as_map().value(0);
    let (from, to) = (entries.column(0).as_primitive::<Int32Type>(), entries.column(1).as_list::<i32>());
    assert_eq!(entries.len(), TYPES.len());
    let mut casts = Vec::new();
    for row in 0..entries.len() {
        let from = TYPES[usize::try_from(from.value(row)).unwrap()];
        let targets = to.value(row);
        assert!(!targets.is_empty(), "{from} converts into itself at least");
        for target in targets.as_primitive::<Int32Type>().values() {
            let target = TYPES[usize::try_from(*target).unwrap()];
            casts.push(format!("CAST(CAST(NULL AS {from}) AS {target})"));
        }
    }
    for some in casts.chunks(16) {
        let sql = format!("SELECT {}", some.join(", "));
        query(&mut client, &sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

#[tokio::test]
async fn what_is_said_of_the_language_is_so() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for sql in [
        "CREATE SCHEMA s",
        "CREATE TABLE s.t (id INTEGER PRIMARY KEY CHECK (id > 0), name TEXT NOT NULL UNIQUE, \
         parent INTEGER DEFAULT 1 REFERENCES s.t (id))",
        "CREATE INDEX i ON rustydb.s.t (parent)",
        "INSERT INTO s.t VALUES (1, 'a%', 1), (2, 'b', 1)",
    ] {
        update(&mut client, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for sql in [
        "SELECT id FROM s.t WHERE id = ANY (SELECT parent FROM s.t)",
        "SELECT id FROM s.t WHERE id <= ALL (SELECT parent FROM s.t)",
        "SELECT id FROM s.t AS o WHERE EXISTS (SELECT 1 FROM s.t AS i WHERE i.parent = o.id)",
        "SELECT id FROM s.t WHERE parent IN (SELECT id FROM s.t) AND id = (SELECT max(id) FROM s.t)",
        "SELECT max(id) FROM s.t GROUP BY parent ORDER BY -min(id)",
        "SELECT name FROM s.t ORDER BY id + 1",
        "SELECT t.name, u.name FROM s.t FULL OUTER JOIN s.t AS u ON t.id = u.parent",
        "SELECT 1 UNION SELECT 1",
        "SELECT 1 UNION ALL SELECT 1",
        "SELECT id FROM rustydb.s.t FOR UPDATE",
        "SELECT coalesce('a' || NULL, 'NULL')",
        "SELECT name FROM s.t WHERE name LIKE 'a!%' ESCAPE '!'",
    ] {
        query(&mut client, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    let mut session = server.session().await;
    for level in ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        update(&mut session, &format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
        update(&mut session, "ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn the_limits_are_those_in_force() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.statement_bytes = 1234;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    let info = all(&mut client).await;
    for (name, limit) in [
        (SqlInfo::SqlMaxStatementLength, 1234),
        (SqlInfo::SqlMaxColumnsInSelect, 1664),
        (SqlInfo::SqlMaxColumnsInTable, 1600),
    ] {
        assert_eq!(value(&info, name).as_primitive::<arrow::datatypes::Int64Type>().value(0), limit, "{name:?}");
    }
}
