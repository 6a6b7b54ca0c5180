//! The store alone, on one core: reading rows of a segment by key, writing the memtable out, and merging segments.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustydb_storage::{Durability, NewTable, Store, StoreOptions, TableId};
use tokio::runtime::Runtime;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("day", DataType::Date32, false),
        Field::new("price", DataType::Decimal128(15, 2), false),
        Field::new("status", DataType::Utf8View, true),
        Field::new("comment", DataType::Utf8View, true),
    ]))
}

/// Rows like those of an order, with the keys `first`, `first + step`, and so on.
fn rows(first: i64, step: i64, count: usize) -> RecordBatch {
    let ids: Vec<i64> = (0..count as i64).map(|row| first + row * step).collect();
    let scattered = |id: &i64| (*id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let price = Decimal128Array::from_iter_values(ids.iter().map(|id| i128::from(scattered(id) % 10_000_000)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(Date32Array::from_iter_values(ids.iter().map(|id| 8036 + (scattered(id) % 2526) as i32))),
        Arc::new(price.with_precision_and_scale(15, 2).expect("a valid precision")),
        Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| ["O", "F", "P"][scattered(id) as usize % 3]))),
        Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| format!("comment {:024}", scattered(id))))),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns of one length")
}

struct Bench {
    runtime: Runtime,
    store: Store,
    table: TableId,
}

impl Bench {
    /// An empty table in memory, which is not written out before it is asked to be.
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (store, table) = runtime.block_on(async {
            let options = StoreOptions { memtable_bytes: 4 << 30, ..StoreOptions::in_memory() };
            let store = Store::open(options).await.expect("a store in memory");
            let mut transaction = store.begin();
            let (schema_name, name, schema) = ("public".into(), "t".into(), schema());
            let definition =
                NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
            let table = transaction.create_table(definition).expect("a table").id;
            transaction.commit(Durability::Sync).await.expect("a commit");
            (store, table)
        });
        Bench { runtime, store, table }
    }

    fn load(&self, batches: impl Iterator<Item = RecordBatch>) {
        self.runtime.block_on(async {
            let mut transaction = self.store.begin();
            let mut bulk = transaction.bulk_insert(self.table).expect("a load");
            for batch in batches {
                bulk.write(batch).await.expect("rows");
            }
            bulk.finish(&mut transaction).await.expect("the end of the load");
            transaction.commit(Durability::Sync).await.expect("a commit");
        });
    }

    fn insert(&self, batches: impl Iterator<Item = RecordBatch>) {
        self.runtime.block_on(async {
            for batch in batches {
                let mut transaction = self.store.begin();
                transaction.insert(self.table, &batch).await.expect("new keys");
                transaction.commit(Durability::Async).await.expect("a commit");
            }
        });
    }

    fn flush(&self) {
        self.runtime.block_on(self.store.flush()).expect("a flush");
    }

    fn compact(&self) {
        self.runtime.block_on(self.store.compact()).expect("a compaction");
    }
}

/// Single rows of a segment of a million, in the cache: two columns, and all five; and keys that are not there.
fn point_reads(criterion: &mut Criterion) {
    let bench = Bench::new();
    let segment = 1 << 20;
    bench.load((0..segment / BATCH_ROWS).map(|batch| rows((batch * BATCH_ROWS * 2) as i64, 2, BATCH_ROWS)));
    let key_schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let key = |id: i64| {
        RecordBatch::try_new(Arc::clone(&key_schema), vec![Arc::new(Int64Array::from(vec![id]))]).expect("a key")
    };
    let view = bench.store.snapshot();
    let mut next = 0_u64;
    let mut random = move |limit: u64| {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (next >> 33) % limit
    };
    let mut group = criterion.benchmark_group("a row of a segment");
    for (name, odd, projection) in
        [("two columns", 0, vec![0, 2]), ("five columns", 0, vec![0, 1, 2, 3, 4]), ("no such key", 1, vec![0, 2])]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || key((random(segment as u64) * 2 + odd) as i64),
                |key| bench.runtime.block_on(view.get(bench.table, &key, &projection)).expect("a read").num_rows(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Rows a second from the memtable to a segment, and from segments that overlap to one.
fn writing(criterion: &mut Criterion) {
    let count = 32 * BATCH_ROWS;
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(count as u64)).sample_size(10);
    group.bench_function("flush", |bencher| {
        bencher.iter_batched(
            || {
                let bench = Bench::new();
                bench.insert((0..32).map(|batch| rows(batch * BATCH_ROWS as i64, 1, BATCH_ROWS)));
                bench
            },
            |bench| {
                bench.flush();
                bench
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("compaction of four", |bencher| {
        bencher.iter_batched(
            || {
                let bench = Bench::new();
                for first in 0..3 {
                    bench.load((0..8).map(|batch| rows(batch * 4 * BATCH_ROWS as i64 + first, 4, BATCH_ROWS)));
                }
                bench.flush();
                bench.load((0..8).map(|batch| rows(batch * 4 * BATCH_ROWS as i64 + 3, 4, BATCH_ROWS)));
                bench
            },
            |bench| {
                // The flush lists the fourth segment in a manifest, which makes them worth merging.
                bench.flush();
                bench.compact();
                bench
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, point_reads, writing);
criterion_main!(benches);
