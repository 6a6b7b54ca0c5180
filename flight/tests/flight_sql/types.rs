//! Types on their way out, through queries, and in, through ingest.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, LargeStringArray, StringViewArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Int32Type, IntervalUnit, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::stream;

use crate::support::{TestServer, fetch, query, row_count, update};

#[tokio::test]
async fn every_column_type_can_be_read() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let columns = [
        ("BOOLEAN", "true", DataType::Boolean),
        ("SMALLINT", "1", DataType::Int16),
        ("INTEGER", "2", DataType::Int32),
        ("BIGINT", "3", DataType::Int64),
        ("REAL", "1.5", DataType::Float32),
        ("DOUBLE PRECISION", "2.5", DataType::Float64),
        ("NUMERIC(10, 2)", "12.34", DataType::Decimal128(10, 2)),
        ("VARCHAR(20)", "'text'", DataType::Utf8),
        ("TEXT", "'a text longer than twelve bytes'", DataType::Utf8),
        ("BYTEA", "X'00ff'", DataType::Binary),
        ("DATE", "DATE '2026-11-20'", DataType::Date32),
        ("TIME", "TIME '12:34:56'", DataType::Time64(TimeUnit::Microsecond)),
        ("TIMESTAMP", "TIMESTAMP '2026-11-20 12:34:56'", DataType::Timestamp(TimeUnit::Microsecond, None)),
        (
            "TIMESTAMP WITH TIME ZONE",
            "TIMESTAMP '2026-11-20 12:34:56Z'",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
        ("INTERVAL", "INTERVAL '1 day'", DataType::Interval(IntervalUnit::MonthDayNano)),
    ];
    let (mut definitions, mut values, mut nulls) = (vec![], vec![], vec![]);
    for (index, (name, value, _)) in columns.iter().enumerate() {
        definitions.push(format!("c{index} {name}"));
        values.push(*value);
        nulls.push("NULL");
    }
    update(&mut client, &format!("CREATE TABLE t ({})", definitions.join(", "))).await.unwrap();
    let rows = format!("INSERT INTO t VALUES ({}), ({})", values.join(", "), nulls.join(", "));
    assert_eq!(update(&mut client, &rows).await.unwrap(), 2);

    let info = client.execute("SELECT * FROM t".to_owned(), None).await.unwrap();
    let announced: Schema = info.clone().try_into().unwrap();
    for (field, (name, _, expected)) in announced.fields().iter().zip(&columns) {
        assert_eq!(field.data_type(), expected, "{name}");
        assert!(field.metadata().is_empty(), "{name}: {:?}", field.metadata());
    }
    let batches = fetch(&mut client, info).await.unwrap();
    assert_eq!(row_count(&batches), 2);
    assert!(batches.iter().all(|batch| *batch.schema() == announced));
}

#[tokio::test]
async fn what_clients_ingest_comes_back_with_the_same_values() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let dictionary: DictionaryArray<Int32Type> = vec![Some("red"), None, Some("red")].into_iter().collect();
    let decimal = Decimal128Array::from(vec![Some(1234), None, Some(-1)]).with_precision_and_scale(12, 2).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("tiny", Arc::new(Int8Array::from(vec![Some(-8), None, Some(8)]))),
        ("small", Arc::new(Int16Array::from(vec![Some(-16), None, Some(16)]))),
        ("int", Arc::new(Int32Array::from(vec![Some(-32), None, Some(32)]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)]))),
        ("single", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(-0.5)]))),
        ("double", Arc::new(Float64Array::from(vec![Some(f64::MAX), None, Some(0.1)]))),
        ("decimal", Arc::new(decimal)),
        ("large", Arc::new(LargeStringArray::from(vec![Some("large"), None, Some("")]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("view"), None, Some("a view longer than twelve")]))),
        ("dictionary", Arc::new(dictionary)),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(b"ab".as_slice()), None, Some(b"")]))),
        ("byteview", Arc::new(BinaryViewArray::from(vec![Some(b"ab".as_slice()), None, Some(b"")]))),
        ("date", Arc::new(Date32Array::from(vec![Some(20_000), None, Some(-1)]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(86_399_999_999)]))),
        ("micros", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(-1)]))),
        ("nanos", Arc::new(TimestampNanosecondArray::from(vec![Some(1), None, Some(-1)]).with_timezone("UTC"))),
    ];
    let sent = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: TableExistsOption::Fail.into(),
        }),
        table: "t".to_owned(),
        ..Default::default()
    };
    client.execute_ingest(command, stream::iter([Ok(sent.clone())])).await.unwrap();
    let received = query(&mut client, "SELECT * FROM t").await.unwrap();
    let text = |batches: &[RecordBatch]| pretty_format_batches(batches).unwrap().to_string();
    assert_eq!(text(&received), text(&[sent]));
}
