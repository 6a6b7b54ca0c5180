//! Filtered scans against a slow, obvious twin: every type, NULLs, edge values, every place a row can be in.
//!
//! A table with a column of each type is filled with values that repeat, run, grow or jump, so that every in-memory
//! encoding occurs; some rows are deleted, some replaced, some only pending. Random conjunctions are then scanned and
//! compared with the same conditions evaluated value by value on an unfiltered scan. `RUSTYDB_SEED=n` repeats one case,
//! `RUSTYDB_SEEDS=n` runs more of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use crate::common::options;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray, UInt8Array,
    UInt32Array, UInt64Array,
};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{
    CompareOp, Durability, DynamicFilter, Filter, MemoryFiles, NewTable, ReadView, RowPredicate, ScanRequest, ScanUnit,
    Store, StoreOptions, TableId,
};

/// A value as the twin compares it.
#[derive(Debug, Clone)]
enum Value {
    Null,
    Integer(i128),
    Float(f64),
    Bytes(Vec<u8>),
}

/// The same value to the last bit: NaN equals itself.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Integer(one), Value::Integer(other)) => one == other,
            (Value::Float(one), Value::Float(other)) => one.to_bits() == other.to_bits(),
            (Value::Bytes(one), Value::Bytes(other)) => one == other,
            _ => false,
        }
    }
}

impl Value {
    fn of(array: &dyn Array, row: usize) -> Value {
        if array.is_null(row) {
            return Value::Null;
        }
        match array.data_type() {
            DataType::Boolean => Value::Integer(array.as_boolean().value(row).into()),
            DataType::Int8 => Value::Integer(array.as_primitive::<Int8Type>().value(row).into()),
            DataType::Int16 => Value::Integer(array.as_primitive::<Int16Type>().value(row).into()),
            DataType::Int32 => Value::Integer(array.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Value::Integer(array.as_primitive::<Int64Type>().value(row).into()),
            DataType::UInt8 => Value::Integer(array.as_primitive::<UInt8Type>().value(row).into()),
            DataType::UInt32 => Value::Integer(array.as_primitive::<UInt32Type>().value(row).into()),
            DataType::UInt64 => Value::Integer(array.as_primitive::<UInt64Type>().value(row).into()),
            DataType::Date32 => Value::Integer(array.as_primitive::<Date32Type>().value(row).into()),
            DataType::Timestamp(_, _) => {
                Value::Integer(array.as_primitive::<TimestampMicrosecondType>().value(row).into())
            }
            DataType::Decimal128(_, _) => Value::Integer(array.as_primitive::<Decimal128Type>().value(row)),
            DataType::Float32 => Value::Float(array.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8View => Value::Bytes(array.as_string_view().value(row).as_bytes().to_vec()),
            DataType::BinaryView => Value::Bytes(array.as_binary_view().value(row).to_vec()),
            other => panic!("{other}"),
        }
    }

    fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Integer(one), Value::Integer(other)) => Some(one.cmp(other)),
            (Value::Bytes(one), Value::Bytes(other)) => Some(one.cmp(other)),
            // One zero; NaN equals itself and is above everything.
            (Value::Float(one), Value::Float(other)) if one == other => Some(Ordering::Equal),
            (Value::Float(one), Value::Float(other)) => Some(one.total_cmp(other)),
            _ => None,
        }
    }
}

fn schema() -> SchemaRef {
    let types = [
        DataType::Int64,
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Decimal128(12, 2),
        DataType::Decimal128(38, 4),
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8View,
        DataType::Utf8View,
        DataType::BinaryView,
    ];
    let fields = types.into_iter().enumerate().map(|(at, kind)| Field::new(format!("c{at}"), kind, at > 0));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// How the values of a column follow each other.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Constant,
    Runs,
    Few,
    Narrow,
    Growing,
    Any,
}

const SHAPES: [Shape; 6] = [Shape::Constant, Shape::Runs, Shape::Few, Shape::Narrow, Shape::Growing, Shape::Any];

fn integers(random: &mut StdRng, shape: Shape, rows: usize, edges: &[i128]) -> Vec<i128> {
    let (low, high) = (*edges.iter().min().unwrap(), *edges.iter().max().unwrap());
    let mut value = edges[random.random_range(0..edges.len())];
    let base = value;
    (0..rows)
        .map(|row| {
            match shape {
                Shape::Constant => {}
                Shape::Runs if random.random_range(0..500) == 0 => value = base + random.random_range(-3..4),
                Shape::Runs => {}
                Shape::Few => value = base + 7 * random.random_range(0..5),
                Shape::Narrow => value = base + random.random_range(-100..100),
                Shape::Growing => value = base + row as i128 / 3,
                Shape::Any if random.random_bool(0.3) => value = edges[random.random_range(0..edges.len())],
                Shape::Any => value = random.random::<i128>(),
            }
            let inside = low.wrapping_add_unsigned(value as u128 % high.abs_diff(low));
            if (low..=high).contains(&value) { value } else { inside }
        })
        .collect()
}

fn texts(random: &mut StdRng, shape: Shape, rows: usize) -> Vec<String> {
    let words =
        ["", "a", "ab", "\u{10ffff}", "a longer text than fits into a view", "a longer text than fits in a view"];
    let mut value = words[random.random_range(0..words.len())].to_string();
    (0..rows)
        .map(|row| {
            match shape {
                Shape::Constant => {}
                Shape::Runs if random.random_range(0..500) > 0 => {}
                Shape::Runs | Shape::Few => value = words[random.random_range(0..words.len())].to_string(),
                Shape::Growing => value = format!("{row:08} and so on and on"),
                Shape::Narrow | Shape::Any => value = format!("w{}", random.random_range(0..100_000)),
            }
            value.clone()
        })
        .collect()
}

fn floats(random: &mut StdRng, shape: Shape, rows: usize) -> Vec<f64> {
    let edges = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.5, -1.5, f64::MIN_POSITIVE];
    let mut value = edges[random.random_range(0..edges.len())];
    (0..rows)
        .map(|row| {
            match shape {
                Shape::Constant => {}
                Shape::Growing => value = row as f64,
                Shape::Narrow => value = random.random_range(-1.0..1.0),
                _ => value = edges[random.random_range(0..edges.len())],
            }
            value
        })
        .collect()
}

fn column(random: &mut StdRng, data_type: &DataType, rows: usize) -> ArrayRef {
    let shape = SHAPES[random.random_range(0..SHAPES.len())];
    let null_share = [0.0, 0.0, 0.1, 1.0][random.random_range(0..4)];
    let nulls: Vec<bool> = (0..rows).map(|_| random.random_bool(null_share)).collect();
    macro_rules! integers {
        ($array:ty, $native:ty, $edges:expr) => {{
            let values = integers(random, shape, rows, &$edges);
            let values = values.iter().zip(&nulls).map(|(value, null)| (!null).then_some(*value as $native));
            Arc::new(values.collect::<$array>())
        }};
        ($array:ty, $native:ty) => {
            integers!($array, $native, [<$native>::MIN as i128, <$native>::MAX as i128, 0, 1])
        };
    }
    let decimal = |array: Decimal128Array, precision, scale| {
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap()) as ArrayRef
    };
    match data_type {
        DataType::Boolean => {
            let bits = integers(random, shape, rows, &[0, 1]);
            Arc::new(bits.iter().zip(&nulls).map(|(bit, null)| (!null).then_some(*bit == 1)).collect::<BooleanArray>())
        }
        DataType::Int8 => integers!(Int8Array, i8),
        DataType::Int16 => integers!(Int16Array, i16),
        DataType::Int32 => integers!(Int32Array, i32),
        DataType::Int64 => integers!(Int64Array, i64),
        DataType::UInt8 => integers!(UInt8Array, u8),
        DataType::UInt32 => integers!(UInt32Array, u32),
        DataType::UInt64 => integers!(UInt64Array, u64),
        DataType::Date32 => integers!(Date32Array, i32),
        DataType::Timestamp(_, _) => integers!(TimestampMicrosecondArray, i64),
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            let values = integers(random, shape, rows, &[-most, most, 0, 1]);
            let values = values.iter().zip(&nulls).map(|(value, null)| (!null).then_some(*value));
            decimal(values.collect(), *precision, *scale)
        }
        DataType::Float32 => {
            let values = floats(random, shape, rows);
            let values = values.iter().zip(&nulls).map(|(value, null)| (!null).then_some(*value as f32));
            Arc::new(values.collect::<Float32Array>())
        }
        DataType::Float64 => {
            let values = floats(random, shape, rows);
            let values = values.iter().zip(&nulls).map(|(value, null)| (!null).then_some(*value));
            Arc::new(values.collect::<Float64Array>())
        }
        DataType::Utf8View => {
            let values = texts(random, shape, rows);
            let values = values.iter().zip(&nulls).map(|(value, null)| (!null).then_some(value.as_str()));
            Arc::new(values.collect::<StringViewArray>())
        }
        DataType::BinaryView => {
            let values = texts(random, shape, rows);
            let values = values.iter().zip(&nulls).map(|(value, null)| (!null).then_some(value.as_bytes()));
            Arc::new(values.collect::<BinaryViewArray>())
        }
        other => panic!("{other}"),
    }
}

fn batch(random: &mut StdRng, ids: std::ops::Range<i64>) -> RecordBatch {
    let rows = ids.clone().count();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let others = schema().fields()[1..].iter().map(|field| column(random, field.data_type(), rows)).collect::<Vec<_>>();
    RecordBatch::try_new(schema(), std::iter::once(ids).chain(others).collect()).unwrap()
}

/// Everything a scan returns, by id.
async fn scan(view: &ReadView, request: ScanRequest) -> BTreeMap<i64, Vec<Value>> {
    let mut found = BTreeMap::new();
    let mut units: VecDeque<ScanUnit> = view.scan(request).unwrap().into();
    while let Some(mut unit) = units.pop_front() {
        // However a unit is cut, its rows come once.
        if units.len().is_multiple_of(2) {
            units.extend(unit.cut_after(found.len() % 20_000));
        }
        let mut reader = unit.open();
        while let Some(batch) = reader.next_batch().await.unwrap() {
            assert!((1..=rustydb_storage::BLOCK_ROWS).contains(&batch.num_rows()));
            for row in 0..batch.num_rows() {
                let id = batch.column(0).as_primitive::<Int64Type>().value(row);
                let values = batch.columns().iter().map(|column| Value::of(column, row)).collect();
                assert!(found.insert(id, values).is_none(), "id {id} came twice");
            }
        }
    }
    found
}

/// `length(text) % 2 = 0`, and errors on a text that no visible row has.
#[derive(Debug)]
struct EvenLength {
    columns: [usize; 1],
}

const POISON: &str = "no visible row has this";

impl RowPredicate for EvenLength {
    fn columns(&self) -> &[usize] {
        &self.columns
    }

    fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanArray, ArrowError> {
        assert_eq!((columns.len(), columns[0].len()), (1, rows));
        let texts = columns[0].as_string_view();
        if texts.iter().any(|text| text == Some(POISON)) {
            return Err(ArrowError::ComputeError(POISON.into()));
        }
        Ok(texts.iter().map(|text| text.map(|text| text.len() % 2 == 0)).collect())
    }
}

type Twin = Box<dyn Fn(&[Value]) -> bool>;

/// A random condition and the same for the twin. Constants are often values of the table.
fn condition(random: &mut StdRng, data: &RecordBatch) -> (Filter, Twin) {
    let at = random.random_range(0..data.num_columns());
    let source = data.column(at);
    let constant = |random: &mut StdRng| -> ArrayRef {
        let row = random.random_range(0..source.len());
        match random.random_bool(0.7) {
            true => interleave(&[source.as_ref()], &[(0, row)]).unwrap(),
            false => column(random, source.data_type(), 1),
        }
    };
    match random.random_range(0..10) {
        0 => {
            let negated = random.random_bool(0.5);
            let twin: Twin = Box::new(move |row| (row[at] == Value::Null) != negated);
            (Filter::IsNull { column: at, negated }, twin)
        }
        1..=2 if *source.data_type() != DataType::Boolean => {
            let values: Vec<ArrayRef> = (0..random.random_range(1..6)).map(|_| constant(random)).collect();
            let values: Vec<&dyn Array> = values.iter().map(|value| value.as_ref()).collect();
            let values = arrow::compute::concat(&values).unwrap();
            let negated = random.random_bool(0.3);
            let list: Vec<Value> = (0..values.len()).map(|row| Value::of(&values, row)).collect();
            let twin: Twin = Box::new(move |row| {
                let equal = |item: &Value| row[at].compare(item) == Some(Ordering::Equal);
                match list.iter().any(equal) {
                    true => !negated,
                    false => negated && row[at] != Value::Null && !list.contains(&Value::Null),
                }
            });
            (Filter::In { column: at, values, negated }, twin)
        }
        3 if *source.data_type() == DataType::Utf8View => {
            let twin: Twin = Box::new(move |row| matches!(&row[at], Value::Bytes(bytes) if bytes.len() % 2 == 0));
            (Filter::Rows(Arc::new(EvenLength { columns: [at] })), twin)
        }
        _ => {
            let op = [CompareOp::Eq, CompareOp::NotEq, CompareOp::Lt, CompareOp::LtEq, CompareOp::Gt, CompareOp::GtEq]
                [random.random_range(0..6)];
            let value = constant(random);
            let constant = Value::of(&value, 0);
            let twin: Twin = Box::new(move |row| {
                let Some(order) = row[at].compare(&constant) else { return false };
                match op {
                    CompareOp::Eq => order.is_eq(),
                    CompareOp::NotEq => order.is_ne(),
                    CompareOp::Lt => order.is_lt(),
                    CompareOp::LtEq => order.is_le(),
                    CompareOp::Gt => order.is_gt(),
                    CompareOp::GtEq => order.is_ge(),
                }
            });
            (Filter::Compare { column: at, op, value }, twin)
        }
    }
}

/// A filter that becomes known after it was asked for the first time.
#[derive(Debug)]
struct Late {
    asked: AtomicU64,
    filters: Vec<Filter>,
}

impl DynamicFilter for Late {
    fn generation(&self) -> u64 {
        self.asked.fetch_add(1, Atomic::Relaxed).min(2)
    }

    fn current(&self) -> Vec<Filter> {
        if self.asked.load(Atomic::Relaxed) > 2 { self.filters.clone() } else { vec![] }
    }
}

/// Rows in a bulk-loaded segment, in a flushed one, in the memtable, and pending; some of each deleted or replaced.
async fn filled(random: &mut StdRng) -> (Store, TableId, rustydb_storage::Transaction, RecordBatch) {
    let files = MemoryFiles::new();
    // A cache that holds little, in some cases: columns come and go.
    let column_cache_bytes = if random.random_bool(0.3) { 10_000 } else { 1 << 26 };
    let store = Store::open(StoreOptions { column_cache_bytes, ..options(&files) }).await.unwrap();
    let mut transaction = store.begin();
    let definition = NewTable {
        schema_name: "public".into(),
        name: "t".into(),
        schema: schema(),
        primary_key: vec![0],
        foreign_keys: vec![],
        indexes: vec![],
    };
    let table = transaction.create_table(definition).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();

    let length =
        if random.random_bool(0.3) { random.random_range(8_000..20_000) } else { random.random_range(3..2_000) };
    let loaded = batch(random, 0..length);
    let mut transaction = store.begin();
    let mut bulk = transaction.bulk_insert(table).unwrap();
    bulk.write(loaded.clone()).await.unwrap();
    bulk.finish(&mut transaction).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();

    let mut all = vec![loaded];
    for place in 0..2 {
        let first = 100_000 * (place + 1);
        let count = random.random_range(1..300);
        let rows = batch(random, first..first + count);
        let mut transaction = store.begin();
        transaction.insert(table, &rows).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        if place == 0 {
            store.flush().await.unwrap();
        }
        all.push(rows);
    }
    if random.random_bool(0.7) {
        let gone: Vec<i64> = (0..length).filter(|_| random.random_bool(0.02)).collect();
        crate::common::delete(&store, table, &gone).await.unwrap();
    }
    let mut pending = store.begin();
    let rows = batch(random, 300_000..300_050);
    pending.insert(table, &rows).await.unwrap();
    let replaced = batch(random, 0..3);
    pending.update(table, &crate::common::keys(&[0, 1, 2]), &replaced).await.unwrap();
    all.push(rows);
    all.push(replaced);
    (store, table, pending, concat_batches(&schema(), &all).unwrap())
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (store, table, pending, data) = filled(&mut random).await;
    let all: Vec<usize> = (0..data.num_columns()).collect();
    for view in [store.snapshot(), pending.view()] {
        let everything = scan(&view, ScanRequest::new(table, all.clone())).await;
        for _ in 0..12 {
            let conditions = (0..random.random_range(1..4)).map(|_| condition(&mut random, &data));
            let (filters, twins): (Vec<Filter>, Vec<Twin>) = conditions.unzip();
            let expected: BTreeMap<i64, Vec<Value>> = everything
                .iter()
                .filter(|(_, row)| twins.iter().all(|twin| twin(row)))
                .map(|(id, row)| (*id, row.clone()))
                .collect();
            let found = scan(&view, ScanRequest::new(table, all.clone()).with_filters(filters.clone())).await;
            assert!(found == expected, "{filters:?}: {} rows, not {}", found.len(), expected.len());
            let ids = scan(&view, ScanRequest::new(table, vec![0]).with_filters(filters.clone())).await;
            assert!(ids.keys().eq(expected.keys()), "{filters:?}, without the other columns");

            let late = Arc::new(Late { asked: AtomicU64::new(0), filters: filters.clone() });
            let advised = scan(&view, ScanRequest::new(table, all.clone()).with_dynamic(vec![late])).await;
            assert!(expected.keys().all(|id| advised.contains_key(id)), "{filters:?}, as advice, lost rows");
            assert!(advised.keys().all(|id| everything.contains_key(id)));
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn filtered_scans_agree_with_the_twin() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seeds = match from_environment("RUSTYDB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("RUSTYDB_SEEDS").unwrap_or(16),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed))));
        assert!(outcome.is_ok(), "case {seed} failed; RUSTYDB_SEED={seed} repeats it");
    }
}

fn text_table(name: &str) -> NewTable {
    crate::common::keyed(name)
}

#[tokio::test]
async fn a_value_of_a_deleted_row_never_makes_a_predicate_fail() {
    let (_, store, table) = crate::common::store_with(text_table("t")).await;
    let rows: Vec<(i64, &str)> = (0..100).map(|id| (id, if id % 2 == 0 { "even" } else { POISON })).collect();
    crate::common::insert(&store, table, &rows).await.unwrap();
    store.flush().await.unwrap();
    let odd: Vec<i64> = (0..100).filter(|id| id % 2 == 1).collect();
    crate::common::delete(&store, table, &odd).await.unwrap();
    let filter = || vec![Filter::Rows(Arc::new(EvenLength { columns: [1] }))];
    assert_eq!(crate::common::filtered_contents(&store.snapshot(), table, filter()).await.len(), 50);
    crate::common::insert(&store, table, &[(1001, POISON)]).await.unwrap();
    let request = ScanRequest::new(table, vec![0]).with_filters(filter());
    let mut failed = false;
    for unit in store.snapshot().scan(request).unwrap() {
        failed |= unit.open().next_batch().await.is_err();
    }
    assert!(failed, "a visible row that makes it fail is reported");
}

#[tokio::test]
async fn a_unit_of_a_segment_is_cut_where_a_block_ends() {
    let (_, store, table) = crate::common::store_with(text_table("t")).await;
    let rows: Vec<(i64, &str)> = (0..20_000).map(|id| (id, "a")).collect();
    let mut transaction = store.begin();
    crate::common::load(&mut transaction, table, &rows).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    let mut units = store.snapshot().scan(ScanRequest::new(table, vec![0])).unwrap();
    assert_eq!(units.len(), 1, "one segment of three blocks");
    let mut unit = units.remove(0);
    assert!(unit.cut_after(20_000).is_none() && unit.cut_after(usize::MAX / 2).is_none());
    let rest = unit.cut_after(8_193).unwrap();
    assert_eq!((unit.rows_max(), rest.rows_max()), (16_384, 3_616));
    let rest = unit.cut_after(0).unwrap();
    assert_eq!((unit.rows_max(), rest.rows_max()), (8_192, 8_192));
    assert!(unit.cut_after(1).is_none(), "a block is the least");
}

#[tokio::test]
async fn comparing_with_null_and_other_types_is_never_true_or_an_error() {
    let (_, store, table) = crate::common::store_with(text_table("t")).await;
    crate::common::insert(&store, table, &[(1, "a"), (2, "b")]).await.unwrap();
    let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    let never = Filter::Compare { column: 0, op: CompareOp::NotEq, value: null };
    for filter in [never, Filter::Never] {
        assert!(crate::common::filtered_contents(&store.snapshot(), table, vec![filter]).await.is_empty());
    }
    let text: ArrayRef = Arc::new(StringViewArray::from(vec!["1"]));
    for wrong in [
        Filter::Compare { column: 0, op: CompareOp::Eq, value: text.clone() },
        Filter::In { column: 0, values: text.clone(), negated: false },
        Filter::In { column: 1, values: text.slice(0, 0), negated: false },
        Filter::IsNull { column: 2, negated: false },
    ] {
        assert!(store.snapshot().scan(ScanRequest::new(table, vec![0]).with_filters(vec![wrong])).is_err());
    }
}
