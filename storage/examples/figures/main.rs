//! Figures of the store by itself on a real disk, to be held against its budgets.
//!
//! ```text
//!   cargo run --release -p rustydb-storage --example figures -- replay|points|commits|writes|filters|deletes|starts [directory]
//! ```
//! `replay`: MB of log per second at opening; the logs stay in the directory, for another build to replay.
//! `points`: reads, inserts and updates by key. `starts`: opening a store that was closed in order. `commits`: durable commits
//! per second. `writes`: flush and compaction rate, and bytes written to disk per byte of user rows under random updates.
//! `filters`: filters on each encoding, and decoding it. `deletes`: what 1 % and 10 % deleted rows cost a scan.
//!
//! Other programs make times longer, and processor time only a little; where both are printed, the latter is to be compared.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

mod points;
mod replay;
mod scans;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{Durability, Location, NewTable, Store, StoreOptions, TableId};

/// As the server has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of a transaction: those of a TPC-C order.
const TRANSACTION_ROWS: usize = 25;

/// A table and how its rows are made.
struct Shape {
    name: &'static str,
    schema: SchemaRef,
    key: Vec<usize>,
    rows: fn(&[i64], usize) -> Vec<ArrayRef>,
    text_bytes: usize,
}

/// Two columns; the row is a bitmap, the id, the end of the text, and the text.
fn plain(name: &'static str, row_bytes: usize) -> Shape {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("text", DataType::Utf8View, false)];
    Shape {
        name,
        schema: Arc::new(Schema::new(fields)),
        key: vec![0],
        rows: |ids, text_bytes| {
            let texts = ids.iter().map(|id| format!("{id:0text_bytes$}"));
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringViewArray::from_iter_values(texts))]
        },
        text_bytes: row_bytes - 13,
    }
}

/// TPC-C's order line: eight columns, a key of four.
fn order_line() -> Shape {
    let number = |name: &str| Field::new(name, DataType::Int32, false);
    Shape {
        name: "order line, 71 bytes",
        schema: Arc::new(Schema::new(vec![
            number("warehouse"),
            number("district"),
            number("order"),
            number("line"),
            number("item"),
            Field::new("amount", DataType::Decimal128(12, 2), false),
            Field::new("delivered", DataType::Int64, true),
            Field::new("info", DataType::Utf8View, false),
        ])),
        key: vec![0, 1, 2, 3],
        rows: |ids, text_bytes| {
            let integers = |of: fn(i64) -> i64| -> ArrayRef {
                Arc::new(Int32Array::from_iter_values(ids.iter().map(|id| of(*id) as i32)))
            };
            let amounts = Decimal128Array::from_iter_values(ids.iter().map(|id| i128::from(*id)));
            let texts = ids.iter().map(|id| format!("{id:0text_bytes$}"));
            vec![
                integers(|id| id / 1_000_000),
                integers(|id| id / 100_000 % 10),
                integers(|id| id / 10 % 10_000),
                integers(|id| id % 10),
                integers(|id| id * 7 % 100_000),
                Arc::new(amounts.with_precision_and_scale(12, 2).unwrap()),
                Arc::new(Int64Array::from(ids.to_vec())),
                Arc::new(StringViewArray::from_iter_values(texts)),
            ]
        },
        text_bytes: 30,
    }
}

impl Shape {
    fn batch(&self, ids: &[i64]) -> RecordBatch {
        RecordBatch::try_new(Arc::clone(&self.schema), (self.rows)(ids, self.text_bytes)).unwrap()
    }

    fn keys(&self, ids: &[i64]) -> RecordBatch {
        self.batch(ids).project(&self.key).unwrap()
    }

    async fn create(&self, store: &Store) -> TableId {
        let mut transaction = store.begin();
        let table = NewTable {
            schema_name: "public".into(),
            name: "t".into(),
            schema: Arc::clone(&self.schema),
            primary_key: self.key.clone(),
            foreign_keys: vec![],
            indexes: vec![],
        };
        let table = transaction.create_table(table).unwrap().id;
        transaction.commit(Durability::Sync).await.unwrap();
        table
    }
}

fn options(directory: &Path, memtable_bytes: usize) -> StoreOptions {
    StoreOptions { memtable_bytes, ..StoreOptions::at(Location::Directory(directory.to_path_buf())) }
}

fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes this process has caused to be written to disk.
fn written_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

/// Processor time of this process, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, behind_name) = text.rsplit_once(')').unwrap();
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

/// Durable commits of one row each by so many clients at once.
async fn commits(directory: &Path) {
    for clients in [1, 8, 64] {
        let directory = directory.join("commits");
        let _ = std::fs::remove_dir_all(&directory);
        let store = Store::open(options(&directory, 1 << 30)).await.unwrap();
        let shape = Arc::new(plain("plain, 200 bytes", 200));
        let table = shape.create(&store).await;
        let (started, until) = (Instant::now(), Duration::from_secs(3));
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let (store, shape) = (store.clone(), Arc::clone(&shape));
                tokio::spawn(async move {
                    let mut waited = Vec::new();
                    for next in 0.. {
                        if started.elapsed() > until {
                            break;
                        }
                        let mut transaction = store.begin();
                        let id = client + next * clients;
                        transaction.insert(table, &shape.batch(&[id])).await.unwrap();
                        let begun = Instant::now();
                        transaction.commit(Durability::Sync).await.unwrap();
                        waited.push(begun.elapsed());
                    }
                    waited
                })
            })
            .collect();
        let mut waited = Vec::new();
        for task in tasks {
            waited.extend(task.await.unwrap());
        }
        waited.sort_unstable();
        println!(
            "{clients:3} clients: {:7.0} commits/s, half within {:?}, 99 % within {:?}",
            waited.len() as f64 / started.elapsed().as_secs_f64(),
            waited[waited.len() / 2],
            waited[waited.len() * 99 / 100],
        );
        drop(store);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// Random updates of a table that is a few times larger than the memtable.
async fn writes(directory: &Path) {
    const ROWS: i64 = 2_000_000;
    const UPDATES: i64 = 4_000_000;
    let directory = directory.join("writes");
    let _ = std::fs::remove_dir_all(&directory);
    let store = Store::open(options(&directory, 64 << 20)).await.unwrap();
    let shape = plain("plain, 200 bytes", 200);
    let table = shape.create(&store).await;
    let mut transaction = store.begin();
    let mut bulk = transaction.bulk_insert(table).unwrap();
    let ids: Vec<i64> = (0..ROWS).collect();
    for ids in ids.chunks(100_000) {
        bulk.write(shape.batch(ids)).await.unwrap();
    }
    bulk.finish(&mut transaction).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();

    let mut random = StdRng::seed_from_u64(2);
    let (before, started) = (written_bytes(), Instant::now());
    for _ in 0..UPDATES / 100 {
        let mut some: Vec<i64> = (0..100).map(|_| random.random_range(0..ROWS)).collect();
        some.sort_unstable();
        some.dedup();
        let mut transaction = store.begin();
        transaction.update(table, &shape.keys(&some), &shape.batch(&some)).await.unwrap();
        transaction.commit(Durability::Async).await.unwrap();
    }
    let elapsed = started.elapsed();
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    let user_bytes = (UPDATES * 200) as f64;
    println!(
        "random updates of 200-byte rows, a table of {} MB, a memtable of 64 MB: {:.2} bytes written for each of user rows; {:.0} rows/s; settled after {:.1} s",
        ROWS * 200 / 1_000_000,
        (written_bytes() - before) as f64 / user_bytes,
        UPDATES as f64 / elapsed.as_secs_f64(),
        started.elapsed().as_secs_f64(),
    );
    drop(store);
    std::fs::remove_dir_all(&directory).unwrap();

    // A flush by itself.
    let store = Store::open(options(&directory, 4 << 30)).await.unwrap();
    let table = shape.create(&store).await;
    for ids in ids.chunks(1000).take(1000) {
        let mut transaction = store.begin();
        transaction.insert(table, &shape.batch(ids)).await.unwrap();
        transaction.commit(Durability::Async).await.unwrap();
    }
    let (started, cpu) = (Instant::now(), cpu_seconds());
    store.flush().await.unwrap();
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "flush of a million rows: {:.0} MB/s of rows, {:.0} MB per second of CPU, {:.2} M rows/s",
        200.0 / elapsed,
        200.0 / cpu,
        1.0 / elapsed
    );
    // A compaction: the other half of the rows lies between these.
    let others: Vec<i64> = (0..1_000_000).map(|id| id + 500_000).collect();
    let mut transaction = store.begin();
    transaction.delete(table, &shape.keys(&others[..500_000])).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    for ids in others.chunks(1000) {
        let mut transaction = store.begin();
        transaction.insert(table, &shape.batch(ids)).await.unwrap();
        transaction.commit(Durability::Async).await.unwrap();
    }
    // The background begins to merge as soon as the flush has ended.
    let (started, before, cpu) = (Instant::now(), written_bytes(), cpu_seconds());
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "flush of another million, and compaction of 2 million rows, a quarter of them dead: {elapsed:.2} s, {:.0} MB/s of rows, {:.0} MB per second of CPU, {:.0} MB written",
        400.0 / elapsed,
        400.0 / cpu,
        (written_bytes() - before) as f64 / 1e6,
    );
    drop(store);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let directory = arguments.get(2).map_or_else(|| std::env::temp_dir().join("rustydb-figures"), Into::into);
    match arguments.get(1).map(String::as_str) {
        Some("replay") => replay::replays(&directory, arguments.get(3).map_or("", String::as_str)).await,
        Some("points") => points::points(&directory).await,
        Some("starts") => points::starts(&directory).await,
        Some("commits") => commits(&directory).await,
        Some("writes") => writes(&directory).await,
        Some("filters") => scans::filters(&directory).await,
        Some("deletes") => scans::deletes(&directory).await,
        _ => println!(
            "figures replay|points|commits|writes|filters|deletes|starts [directory [part of a replay's name]]"
        ),
    }
}
