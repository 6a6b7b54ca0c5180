//! Types on their way out, through queries, and in, through ingest.

use std::sync::Arc;

use arrow::array::Int64Builder;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    DictionaryArray, DurationMicrosecondArray, DurationMillisecondArray, DurationNanosecondArray, DurationSecondArray,
    FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, IntervalDayTimeArray, IntervalMonthDayNanoArray, IntervalYearMonthArray, LargeBinaryArray,
    LargeListArray, LargeStringArray, ListArray, MapBuilder, NullArray, PrimitiveRunBuilder, StringArray,
    StringBuilder, StringViewArray, StructArray, Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray,
    Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Field, Fields, Float64Type, Int32Type, IntervalDayTime, IntervalMonthDayNano, IntervalUnit, Schema,
    TimeUnit,
};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::client::PreparedStatement;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::stream;
use tonic::Code;
use tonic::transport::Channel;

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

/// Two rows of every type that comes back as it was sent: a value, and NULL.
fn plain_columns() -> Vec<ArrayRef> {
    let decimal: ArrayRef =
        Arc::new(Decimal128Array::from(vec![Some(150), None]).with_precision_and_scale(5, 2).unwrap());
    let narrow = |to| arrow::compute::cast(&decimal, &to).unwrap();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None], 2);
    let structure = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec![None, Some("x")]))),
    ]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
        Arc::new(UInt8Array::from(vec![Some(u8::MAX), None])),
        Arc::new(UInt16Array::from(vec![Some(u16::MAX), None])),
        Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
        Arc::new(Float16Array::from(vec![Some(half(1.5)), None])),
        Arc::new(Float32Array::from(vec![Some(0.5), None])),
        Arc::new(Float64Array::from(vec![Some(f64::MAX), None])),
        narrow(DataType::Decimal32(5, 2)),
        narrow(DataType::Decimal64(5, 2)),
        Arc::clone(&decimal),
        narrow(DataType::Decimal256(50, 2)),
        Arc::new(StringArray::from(vec![Some("text"), None])),
        Arc::new(LargeStringArray::from(vec![Some("large"), None])),
        Arc::new(BinaryArray::from(vec![Some(b"ab".as_slice()), None])),
        Arc::new(LargeBinaryArray::from(vec![Some(b"ab".as_slice()), None])),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1, 2, 3]), None].into_iter(), 3).unwrap()),
        Arc::new(Date32Array::from(vec![Some(1), None])),
        Arc::new(Date64Array::from(vec![Some(86_400_000), None])),
        Arc::new(Time32SecondArray::from(vec![Some(1), None])),
        Arc::new(Time32MillisecondArray::from(vec![Some(1), None])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None])),
        Arc::new(Time64NanosecondArray::from(vec![Some(1), None])),
        Arc::new(TimestampSecondArray::from(vec![Some(1), None])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(1), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("+02:00")),
        Arc::new(TimestampNanosecondArray::from(vec![Some(1), None]).with_timezone("Europe/Berlin")),
        Arc::new(DurationSecondArray::from(vec![Some(1), None])),
        Arc::new(DurationNanosecondArray::from(vec![Some(1), None])),
        Arc::new(IntervalYearMonthArray::from(vec![Some(14), None])),
        Arc::new(IntervalDayTimeArray::from(vec![Some(IntervalDayTime::new(1, 2)), None])),
        Arc::new(IntervalMonthDayNanoArray::from(vec![Some(IntervalMonthDayNano::new(1, 2, 3)), None])),
        Arc::new(list),
        Arc::new(pairs),
        Arc::new(structure),
        Arc::new(map.finish()),
        Arc::new(NullArray::new(2)),
    ]
}

/// A half float, which arrow has no literals of.
fn half(value: f32) -> <arrow::datatypes::Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native {
    let single = Float32Array::from(vec![value]);
    let half = arrow::compute::cast(&single, &DataType::Float16).unwrap();
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Float16Type>(&half).value(0)
}

async fn returned(
    client: &mut crate::support::Client,
    statement: &mut PreparedStatement<Channel>,
    column: &ArrayRef,
) -> (DataType, ArrayRef) {
    let sent = RecordBatch::try_from_iter_with_nullable([("$1", Arc::clone(column), true)]).unwrap();
    statement.set_parameters(sent).unwrap();
    let info = statement.execute().await.unwrap_or_else(|error| panic!("{}: {error:?}", column.data_type()));
    let announced: Schema = info.clone().try_into().unwrap();
    let received = fetch(client, info).await.unwrap_or_else(|error| panic!("{}: {error:?}", column.data_type()));
    let received: Vec<&dyn Array> = received.iter().map(|batch| batch.column(0).as_ref()).collect();
    (announced.field(0).data_type().clone(), arrow::compute::concat(&received).unwrap())
}

#[tokio::test]
async fn a_parameter_of_any_type_is_returned_as_it_was_sent() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut statement = client.prepare("SELECT $1 AS v".to_owned(), None).await.unwrap();
    assert_eq!(*statement.dataset_schema().unwrap().field(0).data_type(), DataType::Utf8, "as the parameter is");
    for column in plain_columns() {
        let (announced, received) = returned(&mut client, &mut statement, &column).await;
        assert_eq!(announced, *column.data_type());
        assert_eq!(received.to_data(), column.to_data(), "{}", column.data_type());
    }
}

#[tokio::test]
async fn types_that_travel_in_another_form_keep_their_values() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut statement = client.prepare("SELECT $1 AS v".to_owned(), None).await.unwrap();
    let dictionary: DictionaryArray<Int32Type> = vec![Some("red"), None].into_iter().collect();
    let mut runs = PrimitiveRunBuilder::<Int32Type, Float64Type>::new();
    runs.append_value(2.5);
    runs.append_null();
    let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
    let large = LargeListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let columns: Vec<(ArrayRef, DataType)> = vec![
        (Arc::new(StringViewArray::from(vec![Some("view"), None])), DataType::Utf8),
        (Arc::new(BinaryViewArray::from(vec![Some(b"ab".as_slice()), None])), DataType::Binary),
        (Arc::new(dictionary), DataType::Utf8),
        (Arc::new(runs.finish()), DataType::Float64),
        (Arc::new(large), DataType::List(item(DataType::Int32))),
    ];
    for (column, expected) in columns {
        let (announced, received) = returned(&mut client, &mut statement, &column).await;
        assert_eq!(announced, expected);
        let text = |column: &ArrayRef| {
            let batch = RecordBatch::try_from_iter_with_nullable([("v", Arc::clone(column), true)]).unwrap();
            pretty_format_batches(&[batch]).unwrap().to_string()
        };
        assert_eq!(text(&received), text(&column));
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
    let entries = Fields::from(vec![Field::new("k", DataType::Utf8, false), Field::new("v", DataType::Int32, true)]);
    let entries = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    for (data_type, name) in [
        (DataType::List(Arc::clone(&item)), "List"),
        (DataType::LargeList(Arc::clone(&item)), "List"),
        (DataType::FixedSizeList(item, 2), "FixedSizeList"),
        (DataType::Map(entries, false), "Map"),
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

fn append(table: &str) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail.into(),
            if_exists: TableExistsOption::Append.into(),
        }),
        ..create(table)
    }
}

/// Columns that a table holds, with what a query of it returns if that is another type.
fn stored_columns() -> Vec<(&'static str, ArrayRef, Option<DataType>)> {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("red"), None, Some("red")].into_iter().collect();
    let decimal: ArrayRef =
        Arc::new(Decimal128Array::from(vec![Some(1234), None, Some(-1)]).with_precision_and_scale(12, 2).unwrap());
    let narrow = |to| arrow::compute::cast(&decimal, &to).unwrap();
    let mut runs = PrimitiveRunBuilder::<Int32Type, Float64Type>::new();
    runs.extend([Some(2.5), None, Some(2.5)]);
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1, 2]), None, Some([3, 4])].into_iter(), 2);
    let interval = |days| IntervalMonthDayNano::new(1, days, 3);
    vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), None),
        ("int8", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])), None),
        ("int16", Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)])), None),
        ("int32", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])), None),
        ("int64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])), None),
        ("uint8", Arc::new(UInt8Array::from(vec![Some(u8::MAX), None, Some(0)])), None),
        ("uint16", Arc::new(UInt16Array::from(vec![Some(u16::MAX), None, Some(0)])), None),
        ("uint32", Arc::new(UInt32Array::from(vec![Some(u32::MAX), None, Some(0)])), None),
        ("uint64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)])), None),
        (
            "float16",
            Arc::new(Float16Array::from(vec![Some(half(1.5)), None, Some(half(-0.25))])),
            Some(DataType::Float32),
        ),
        ("float32", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(-0.5)])), None),
        ("float64", Arc::new(Float64Array::from(vec![Some(f64::MAX), None, Some(0.1)])), None),
        ("decimal32", narrow(DataType::Decimal32(9, 2)), Some(DataType::Decimal128(9, 2))),
        ("decimal64", narrow(DataType::Decimal64(12, 2)), Some(DataType::Decimal128(12, 2))),
        ("decimal256", narrow(DataType::Decimal256(38, 2)), Some(DataType::Decimal128(38, 2))),
        ("decimal128", decimal, None),
        ("utf8", Arc::new(StringArray::from(vec![Some("text"), None, Some("")])), None),
        ("large", Arc::new(LargeStringArray::from(vec![Some("large"), None, Some("")])), Some(DataType::Utf8)),
        (
            "view",
            Arc::new(StringViewArray::from(vec![Some("view"), None, Some("a view longer than twelve")])),
            Some(DataType::Utf8),
        ),
        ("dictionary", Arc::new(dictionary), Some(DataType::Utf8)),
        ("runs", Arc::new(runs.finish()), Some(DataType::Float64)),
        ("binary", Arc::new(BinaryArray::from(vec![Some(b"ab".as_slice()), None, Some(b"")])), None),
        (
            "large_binary",
            Arc::new(LargeBinaryArray::from(vec![Some(b"ab".as_slice()), None, Some(b"")])),
            Some(DataType::Binary),
        ),
        (
            "binary_view",
            Arc::new(BinaryViewArray::from(vec![Some(b"ab".as_slice()), None, Some(b"")])),
            Some(DataType::Binary),
        ),
        ("fixed", Arc::new(fixed.unwrap()), None),
        ("date32", Arc::new(Date32Array::from(vec![Some(20_000), None, Some(-1)])), None),
        ("date64", Arc::new(Date64Array::from(vec![Some(86_400_000), None, Some(0)])), Some(DataType::Date32)),
        (
            "time32s",
            Arc::new(Time32SecondArray::from(vec![Some(1), None, Some(86_399)])),
            Some(DataType::Time64(TimeUnit::Microsecond)),
        ),
        (
            "time32ms",
            Arc::new(Time32MillisecondArray::from(vec![Some(1), None, Some(86_399_999)])),
            Some(DataType::Time64(TimeUnit::Microsecond)),
        ),
        (
            "hundreds",
            Arc::new(Decimal128Array::from(vec![Some(12), None, Some(-7)]).with_precision_and_scale(5, -2).unwrap()),
            Some(DataType::Decimal128(7, 0)),
        ),
        ("time64us", Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(86_399_999_999)])), None),
        ("time64ns", Arc::new(Time64NanosecondArray::from(vec![Some(1), None, Some(86_399_999_999_999)])), None),
        ("seconds", Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(-1)])), None),
        ("millis", Arc::new(TimestampMillisecondArray::from(vec![Some(1), None, Some(-1)])), None),
        ("micros", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(-1)])), None),
        ("nanos", Arc::new(TimestampNanosecondArray::from(vec![Some(1), None, Some(-1)]).with_timezone("UTC")), None),
        ("zoned", Arc::new(TimestampMillisecondArray::from(vec![Some(1), None, Some(-1)]).with_timezone("UTC")), None),
        ("duration_s", Arc::new(DurationSecondArray::from(vec![Some(1), None, Some(-1)])), Some(INTERVAL)),
        ("duration_ms", Arc::new(DurationMillisecondArray::from(vec![Some(1), None, Some(-1)])), Some(INTERVAL)),
        ("duration_us", Arc::new(DurationMicrosecondArray::from(vec![Some(1), None, Some(-1)])), Some(INTERVAL)),
        ("duration_ns", Arc::new(DurationNanosecondArray::from(vec![Some(1), None, Some(-1)])), Some(INTERVAL)),
        ("months", Arc::new(IntervalYearMonthArray::from(vec![Some(14), None, Some(-1)])), Some(INTERVAL)),
        (
            "days",
            Arc::new(IntervalDayTimeArray::from(vec![Some(IntervalDayTime::new(1, 2)), None, None])),
            Some(INTERVAL),
        ),
        (
            "interval",
            Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval(2)), None, Some(interval(-2))])),
            None,
        ),
    ]
}

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

#[tokio::test]
async fn what_clients_ingest_comes_back_with_the_same_values() {
    let directory = tempfile::tempdir().unwrap();
    let columns = stored_columns();
    let batch = |columns: Vec<(&str, ArrayRef)>| {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    };
    let sent = batch(columns.iter().map(|(name, column, _)| (*name, Arc::clone(column))).collect());
    let expected: Vec<ArrayRef> = columns
        .iter()
        .map(|(_, column, becomes)| match becomes {
            Some(data_type) => arrow::compute::cast(column, data_type).unwrap(),
            None => Arc::clone(column),
        })
        .collect();
    let check = async |client: &mut crate::support::Client, when: &str| {
        let received = query(client, "SELECT * FROM t ORDER BY number").await.unwrap();
        let received = arrow::compute::concat_batches(&received[0].schema(), &received).unwrap();
        for ((expected, received), (name, ..)) in expected.iter().zip(received.columns()).zip(&columns) {
            assert_eq!(received.data_type(), expected.data_type(), "{name} {when}");
            assert_eq!(received, expected, "{name} {when}");
        }
    };
    let numbered = {
        let mut columns: Vec<(&str, ArrayRef)> = sent
            .schema_ref()
            .fields()
            .iter()
            .zip(sent.columns())
            .map(|(f, c)| (f.name().as_str(), Arc::clone(c)))
            .collect();
        columns.push(("number", Arc::new(Int32Array::from(vec![1, 2, 3]))));
        batch(columns)
    };
    let server = TestServer::on_disk(directory.path()).await;
    let mut client = server.client().await;
    client.execute_ingest(create("t"), stream::iter([Ok(numbered)])).await.unwrap();
    check(&mut client, "in memory").await;
    update(&mut client, "CHECKPOINT").await.unwrap();
    check(&mut client, "in a segment").await;
}

#[tokio::test]
async fn times_and_durations_can_be_keys_and_conditions() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (at TIME(9) PRIMARY KEY)").await.unwrap();
    let times = Time64NanosecondArray::from(vec![3, 1, 2]);
    let sent = RecordBatch::try_from_iter([("at", Arc::new(times) as ArrayRef)]).unwrap();
    client.execute_ingest(append("t"), stream::iter([Ok(sent.clone())])).await.unwrap();
    assert_refused(client.execute_ingest(append("t"), stream::iter([Ok(sent)])).await, Code::AlreadyExists, "23505");
    let found = query(&mut client, "SELECT at FROM t WHERE at > CAST('00:00:00.000000001' AS TIME(9)) ORDER BY at")
        .await
        .unwrap();
    assert_eq!(row_count(&found), 2, "{found:?}");
}
