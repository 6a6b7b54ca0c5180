//! The write path of the store by itself, without SQL: point reads and scans of the memtable, commits, the replay of the
//! log, and the flush. The table is TPC-C's order line: a key of four integers, about sixty bytes a row.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Decimal128Array, Int32Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustydb_storage::{
    Durability, Location, MemoryFiles, NewTable, ScanRequest, Store, StoreOptions, TableId, Transaction,
};
use tokio::runtime::Runtime;

/// Rows in the memtable.
const ROWS: u64 = 500_000;

/// Rows of a transaction: those of a TPC-C order.
const TRANSACTION_ROWS: usize = 25;

fn schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int32, false);
    Arc::new(Schema::new(vec![
        number("warehouse"),
        number("district"),
        number("order"),
        number("line"),
        number("item"),
        Field::new("amount", DataType::Decimal128(12, 2), false),
        Field::new("delivered", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("info", DataType::Utf8View, false),
    ]))
}

fn rows(numbers: &[u64]) -> RecordBatch {
    let integers = |of: fn(u64) -> u64| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(numbers.iter().map(|number| of(*number) as i32)))
    };
    let amounts = Decimal128Array::from_iter_values(numbers.iter().map(|number| i128::from(*number)));
    let times = numbers.iter().map(|number| *number as i64);
    let columns: Vec<ArrayRef> = vec![
        integers(|number| number % 10),
        integers(|number| number / 10 % 10),
        integers(|number| number / 1000),
        integers(|number| number / 100 % 10),
        integers(|number| number * 7 % 100_000),
        Arc::new(amounts.with_precision_and_scale(12, 2).expect("12 digits are enough")),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
        Arc::new(StringViewArray::from_iter_values(numbers.iter().map(|number| format!("district info {number:010}")))),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are the schema's")
}

fn keys(numbers: &[u64]) -> RecordBatch {
    rows(numbers).project(&[0, 1, 2, 3]).expect("there are four key columns")
}

/// Numbers in an order that has nothing to do with the keys'.
fn shuffled() -> Vec<u64> {
    (0..ROWS).map(|number| number.wrapping_mul(7_368_787) % ROWS).collect()
}

struct Bench {
    runtime: Runtime,
    files: MemoryFiles,
    store: Store,
    table: TableId,
    order: Vec<u64>,
}

fn options(files: &MemoryFiles) -> StoreOptions {
    let memtable_bytes = 4 << 30;
    StoreOptions { memtable_bytes, ..StoreOptions::at(Location::Memory(files.clone())) }
}

impl Bench {
    fn new() -> Bench {
        let runtime = Runtime::new().expect("threads can be started");
        let files = MemoryFiles::new();
        let (store, table) = runtime.block_on(async {
            let store = Store::open(options(&files)).await.expect("the place is empty");
            let mut transaction = store.begin();
            let table = NewTable {
                schema_name: "public".into(),
                name: "order_line".into(),
                schema: schema(),
                primary_key: vec![0, 1, 2, 3],
                foreign_keys: vec![],
                indexes: vec![],
            };
            let table = transaction.create_table(table).expect("the name is free").id;
            commit(transaction, Durability::Sync).await;
            (store, table)
        });
        let bench = Bench { runtime, files, store, table, order: shuffled() };
        for some in bench.order.chunks(1000) {
            bench.runtime.block_on(async {
                let mut transaction = bench.store.begin();
                transaction.insert(bench.table, &rows(some)).await.expect("the keys are new");
                commit(transaction, Durability::Async).await;
            });
        }
        bench
    }
}

async fn commit(transaction: Transaction, durability: Durability) {
    transaction.commit(durability).await.expect("nobody is in the way");
}

fn read(criterion: &mut Criterion) {
    let bench = Bench::new();
    let view = bench.store.snapshot();
    let mut group = criterion.benchmark_group("memtable");
    let probes: Vec<RecordBatch> = bench.order.chunks(1000).take(64).map(keys).collect();
    group.throughput(Throughput::Elements(1000));
    let mut next = 0;
    group.bench_function("look up 1,000 keys", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % probes.len();
            let found = bench.runtime.block_on(view.lookup(bench.table, &probes[next])).expect("the key has its types");
            assert!(found.iter().all(|found| *found));
        });
    });
    group.throughput(Throughput::Elements(ROWS));
    group.sample_size(10);
    group.bench_function("scan of three columns", |bencher| {
        bencher.iter(|| {
            let units = view.scan(ScanRequest::new(bench.table, vec![0, 5, 7])).expect("the table exists");
            let count: usize = bench.runtime.block_on(async {
                let mut count = 0;
                for unit in units {
                    let mut reader = unit.open();
                    while let Some(batch) = reader.next_batch().await.expect("rows can be decoded") {
                        count += black_box(batch).num_rows();
                    }
                }
                count
            });
            assert_eq!(count as u64, ROWS);
        });
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(TRANSACTION_ROWS as u64));
    let mut next = 0;
    group.bench_function("25 updated rows, not waiting for the disk", |bencher| {
        bencher.iter_batched(
            || {
                let some = &bench.order[next..next + TRANSACTION_ROWS];
                next = (next + TRANSACTION_ROWS) % (ROWS as usize - TRANSACTION_ROWS);
                let mut transaction = bench.store.begin();
                let (keys, rows) = (keys(some), rows(some));
                let updated = transaction.update(bench.table, &keys, &rows);
                assert_eq!(bench.runtime.block_on(updated).expect("nobody is in the way"), TRANSACTION_ROWS as u64);
                transaction
            },
            |transaction| bench.runtime.block_on(commit(transaction, Durability::Async)),
            // A transaction that is prepared before another one of the same rows commits would lose.
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn replay_and_flush(criterion: &mut Criterion) {
    let bench = Bench::new();
    bench.runtime.block_on(async {
        // A synchronous commit makes the others durable.
        let mut transaction = bench.store.begin();
        transaction.insert(bench.table, &rows(&[ROWS])).await.expect("the key is new");
        commit(transaction, Durability::Sync).await;
    });
    let log_bytes: u64 =
        bench.files.paths().iter().filter(|(path, _)| path.starts_with("log/")).map(|(_, bytes)| bytes).sum();
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(log_bytes));
    group.bench_function("replay of the log", |bencher| {
        bencher.iter_batched(
            || bench.files.after_power_cut(),
            |files| {
                let store = bench.runtime.block_on(Store::open(options(&files))).expect("the log is sound");
                let rows = store.snapshot().rows(bench.table).expect("the table exists");
                assert_eq!(rows as u64, ROWS + 1);
                store
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("flush", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let files = bench.files.after_power_cut();
                let store = bench.runtime.block_on(Store::open(options(&files))).expect("the log is sound");
                let started = Instant::now();
                bench.runtime.block_on(store.flush()).expect("memory does not fail");
                elapsed += started.elapsed();
            }
            elapsed
        });
    });
    group.finish();
}

criterion_group!(benches, read, write, replay_and_flush);
criterion_main!(benches);
