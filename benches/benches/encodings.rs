//! Scans of one segment of a million rows in the column cache, on one core: filters on each encoding, decoding of each
//! encoding, and what deleted rows cost. Throughput is in bytes of decoded (Arrow) data.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustydb_storage::{CompareOp, Durability, Filter, NewTable, ScanRequest, Store, StoreOptions, TableId};
use tokio::runtime::Runtime;

const ROWS: usize = 1_048_576;

/// Numbers without a pattern.
fn scattered(row: usize) -> u64 {
    let mixed = (row as u64 ^ 0x5851_F42D_4C95_7F2D).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 17
}

struct Bench {
    runtime: Runtime,
    store: Store,
    table: TableId,
    names: Vec<&'static str>,
    /// Bytes of a decoded value.
    widths: Vec<u64>,
}

impl Bench {
    fn new() -> Bench {
        let below = |limit: u64| (0..ROWS).map(move |row| scattered(row) % limit);
        let decimal = |values: Decimal128Array, precision: u8| -> ArrayRef {
            Arc::new(values.with_precision_and_scale(precision, 2).expect("a valid precision"))
        };
        let few = ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"];
        let columns: Vec<(&str, ArrayRef, u64)> = vec![
            ("key, 13 bits", Arc::new(Int64Array::from_iter_values(0..ROWS as i64)), 8),
            ("constant", Arc::new(Int64Array::from_value(7, ROWS)), 8),
            ("runs", Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|row| row / 300 % 5))), 8),
            ("date, 12 bits", Arc::new(Date32Array::from_iter_values(below(2526).map(|day| 8036 + day as i32))), 4),
            ("decimal, 24 bits", decimal(Decimal128Array::from_iter_values(below(10_000_000).map(i128::from)), 15), 16),
            ("decimal, 47 bits", decimal(Decimal128Array::from_iter_values(below(1 << 46).map(i128::from)), 18), 16),
            ("integer, plain", Arc::new(Int64Array::from_iter_values(below(1 << 46).map(|value| value as i64))), 8),
            ("double, plain", Arc::new(Float64Array::from_iter_values(below(1 << 30).map(|value| value as f64))), 8),
            (
                "text, 7 values",
                Arc::new(StringViewArray::from_iter_values(below(7).map(|value| few[value as usize]))),
                16,
            ),
            (
                "text, 1000 values",
                Arc::new(StringViewArray::from_iter_values(below(1000).map(|value| format!("Clerk#{value:09}")))),
                16 + 15,
            ),
            (
                "text, plain",
                Arc::new(StringViewArray::from_iter_values(below(1 << 40).map(|value| format!("{value:027}")))),
                16 + 27,
            ),
        ];
        let fields: Vec<Field> =
            columns.iter().map(|(name, array, _)| Field::new(*name, array.data_type().clone(), false)).collect();
        let names = columns.iter().map(|(name, ..)| *name).collect();
        let widths = columns.iter().map(|(.., width)| *width).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
        let rows = RecordBatch::try_new(Arc::clone(&schema), arrays).expect("columns of one length");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (store, table) = runtime.block_on(async {
            let store = Store::open(StoreOptions::in_memory()).await.expect("a store in memory");
            let mut transaction = store.begin();
            let definition = NewTable {
                schema_name: "public".into(),
                name: "t".into(),
                schema,
                primary_key: vec![0],
                foreign_keys: vec![],
                indexes: vec![],
            };
            let table = transaction.create_table(definition).expect("a table").id;
            let mut bulk = transaction.bulk_insert(table).expect("a load");
            bulk.write(rows).await.expect("rows");
            bulk.finish(&mut transaction).await.expect("the end of the load");
            transaction.commit(Durability::Sync).await.expect("a commit");
            (store, table)
        });
        Bench { runtime, store, table, names, widths }
    }

    fn scan(&self, projection: &[usize], filters: &[Filter]) -> usize {
        let request = ScanRequest::new(self.table, projection.to_vec()).with_filters(filters.to_vec());
        self.runtime.block_on(async {
            let mut rows = 0;
            for unit in self.store.snapshot().scan(request).expect("a scan") {
                let mut reader = unit.open();
                while let Some(batch) = reader.next_batch().await.expect("a batch") {
                    rows += std::hint::black_box(batch).num_rows();
                }
            }
            rows
        })
    }

    /// Deletes one row in `every`.
    fn delete(&self, every: usize) {
        let keys = Schema::new(vec![Field::new("key, 13 bits", DataType::Int64, false)]);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS as i64).step_by(every)));
        assert_eq!(ids.as_primitive::<Int64Type>().len(), ROWS.div_ceil(every));
        let keys = RecordBatch::try_new(Arc::new(keys), vec![ids]).expect("keys");
        self.runtime.block_on(async {
            let mut transaction = self.store.begin();
            transaction.delete(self.table, &keys).await.expect("deletes");
            transaction.commit(Durability::Sync).await.expect("a commit");
        });
    }
}

/// A filter that about one row in a hundred passes, or none.
fn selective(bench: &Bench, column: usize) -> Vec<Filter> {
    let compare = |op, value: ArrayRef| Filter::Compare { column, op, value };
    let below = |value: ArrayRef| vec![compare(CompareOp::Lt, value)];
    let decimal = |value: i128, precision| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, 2).expect("a valid precision"))
    };
    match bench.names[column] {
        "key, 13 bits" => below(Arc::new(Int64Array::from(vec![10_000]))),
        "constant" => vec![compare(CompareOp::NotEq, Arc::new(Int64Array::from(vec![8])))],
        "runs" => vec![compare(CompareOp::Eq, Arc::new(Int64Array::from(vec![3])))],
        "date, 12 bits" => below(Arc::new(Date32Array::from(vec![8036 + 25]))),
        "decimal, 24 bits" => below(decimal(100_000, 15)),
        "decimal, 47 bits" => below(decimal((1 << 46) / 100, 18)),
        "integer, plain" => below(Arc::new(Int64Array::from(vec![(1 << 46) / 100]))),
        "double, plain" => below(Arc::new(Float64Array::from(vec![(1 << 30) as f64 / 100.0]))),
        "text, 7 values" => vec![compare(CompareOp::Eq, Arc::new(StringViewArray::from(vec!["MAIL"])))],
        "text, 1000 values" => below(Arc::new(StringViewArray::from(vec!["Clerk#000000010"]))),
        _ => below(Arc::new(StringViewArray::from(vec!["000000000000001"]))),
    }
}

fn encodings(criterion: &mut Criterion) {
    let bench = Bench::new();
    let columns = 0..bench.names.len();
    let mut group = criterion.benchmark_group("filter");
    for column in columns.clone() {
        let filters = selective(&bench, column);
        group.throughput(Throughput::Bytes(ROWS as u64 * bench.widths[column]));
        group.bench_function(bench.names[column], |bencher| bencher.iter(|| bench.scan(&[], &filters)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("decode");
    for column in columns {
        group.throughput(Throughput::Bytes(ROWS as u64 * bench.widths[column]));
        group.bench_function(bench.names[column], |bencher| bencher.iter(|| bench.scan(&[column], &[])));
    }
    group.finish();
    let mut group = criterion.benchmark_group("five columns, rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, every) in [("clean", None), ("1 % deleted", Some(100)), ("10 % deleted", Some(10))] {
        if let Some(every) = every {
            bench.delete(every);
        }
        group.bench_function(name, |bencher| bencher.iter(|| bench.scan(&[0, 3, 4, 8, 10], &[])));
    }
    group.finish();
    let memory = bench.store.memory().column_cache_bytes;
    println!(
        "column cache: {:.1} bytes per row, decoded {}",
        memory as f64 / ROWS as f64,
        bench.widths.iter().sum::<u64>()
    );
}

criterion_group!(benches, encodings);
criterion_main!(benches);
