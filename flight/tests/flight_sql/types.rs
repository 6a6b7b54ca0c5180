//! Types on their way out, through queries, and in, through ingest.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    DurationSecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    LargeStringArray, ListArray, StringArray, StringViewArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, IntervalUnit, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::stream;
use tonic::Code;

use crate::support::{TestServer, assert_refused, fetch, query, row_count, update};

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
async fn a_parameter_of_any_type_is_returned_as_it_was_sent() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let small: ArrayRef =
        Arc::new(Decimal128Array::from(vec![Some(150), None]).with_precision_and_scale(5, 2).unwrap());
    let narrow = |to| arrow::compute::cast(&small, &to).unwrap();
    let structure = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec![None, Some("x")]))),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int8Array::from(vec![Some(-8), None])),
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
        Arc::new(Float32Array::from(vec![Some(0.5), None])),
        Arc::clone(&small),
        narrow(DataType::Decimal32(5, 2)),
        narrow(DataType::Decimal256(50, 2)),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(StringArray::from(vec![Some("text"), None])),
        Arc::new(LargeStringArray::from(vec![Some("large"), None])),
        Arc::new(BinaryArray::from(vec![Some(b"ab".as_slice()), None])),
        Arc::new(Date32Array::from(vec![Some(1), None])),
        Arc::new(TimestampNanosecondArray::from(vec![Some(1), None]).with_timezone("Europe/Berlin")),
        Arc::new(DurationSecondArray::from(vec![Some(1), None])),
        Arc::new(list),
        Arc::new(structure),
    ];
    let mut statement = client.prepare("SELECT $1 AS v".to_owned(), None).await.unwrap();
    assert_eq!(*statement.dataset_schema().unwrap().field(0).data_type(), DataType::Utf8, "as the parameter is");
    for column in columns {
        let sent = RecordBatch::try_from_iter_with_nullable([("$1", Arc::clone(&column), true)]).unwrap();
        statement.set_parameters(sent).unwrap();
        let info = statement.execute().await.unwrap();
        let announced: Schema = info.clone().try_into().unwrap();
        assert_eq!(announced.field(0).data_type(), column.data_type());
        let received = fetch(&mut client, info).await.unwrap();
        let received: Vec<&dyn Array> = received.iter().map(|batch| batch.column(0).as_ref()).collect();
        assert_eq!(arrow::compute::concat(&received).unwrap().to_data(), column.to_data(), "{}", column.data_type());
    }
}

#[tokio::test]
async fn the_type_of_a_result_follows_its_parameters() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1)").await.unwrap();
    let mut statement = client.prepare("SELECT id + $1 AS v FROM t".to_owned(), None).await.unwrap();
    for (value, expected) in [
        (Arc::new(Int32Array::from(vec![1])) as ArrayRef, "2"),
        (Arc::new(Float64Array::from(vec![0.25])), "1.25"),
        (Arc::new(UInt64Array::from(vec![1 << 40])), "1099511627777"),
    ] {
        statement.set_parameters(RecordBatch::try_from_iter([("$1", value)]).unwrap()).unwrap();
        let info = statement.execute().await.unwrap();
        let batches = fetch(&mut client, info).await.unwrap();
        assert_eq!(arrow::util::display::array_value_to_string(batches[0].column(0), 0).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_uuid_stays_a_uuid_and_json_stays_json() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let note = |name: &str| [("ARROW:extension:name".to_owned(), name.to_owned())].into();
    let uuid = Field::new("u", DataType::FixedSizeBinary(16), true).with_metadata(note("arrow.uuid"));
    let json = Field::new("j", DataType::Utf8, true).with_metadata(note("arrow.json"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter([[7u8; 16]].iter()).unwrap()),
        Arc::new(StringArray::from(vec!["{}"])),
    ];
    let sent = RecordBatch::try_new(Arc::new(Schema::new(vec![uuid, json])), columns).unwrap();
    client.execute_ingest(create("t"), stream::iter([Ok(sent.clone())])).await.unwrap();
    let received = query(&mut client, "SELECT * FROM t").await.unwrap();
    assert_eq!(received[0].schema(), sent.schema());
    assert_eq!(received[0].columns(), sent.columns());
}

#[tokio::test]
async fn what_a_table_cannot_hold_is_refused_by_name() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    for (data_type, name) in [
        (DataType::List(item), "List"),
        (DataType::Duration(TimeUnit::Second), "Duration"),
        (DataType::Decimal256(50, 2), "numeric(50,2)"),
        (DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into()), "Struct"),
    ] {
        let column = arrow::array::new_null_array(&data_type, 1);
        let sent = RecordBatch::try_from_iter_with_nullable([("v", column, true)]).unwrap();
        let refused = client.execute_ingest(create("t"), stream::iter([Ok(sent)])).await;
        let status = assert_refused(refused, Code::Unimplemented, "0A000");
        assert!(status.message().contains(name) && status.message().contains("\"v\""), "{status:?}");
    }
}

fn create(table: &str) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: TableExistsOption::Fail.into(),
        }),
        table: table.to_owned(),
        ..Default::default()
    }
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
    client.execute_ingest(create("t"), stream::iter([Ok(sent.clone())])).await.unwrap();
    let received = query(&mut client, "SELECT * FROM t").await.unwrap();
    let text = |batches: &[RecordBatch]| pretty_format_batches(batches).unwrap().to_string();
    assert_eq!(text(&received), text(&[sent]));
}
