//! Single rows by key, as the row path reads and writes them, and starts.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{Change, Durability, KeyRange, Store, TableDef, WantedColumns};

use super::{Shape, TRANSACTION_ROWS, bytes_below, cpu_seconds, options, order_line, plain};

const ROWS: i64 = 1 << 20;
const READS: usize = 1_000_000;
const TRANSACTIONS: usize = 20_000;

/// The encoded keys of rows picked at random.
fn some_keys(shape: &Shape, table: &TableDef, count: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(3);
    let ids: Vec<i64> = (0..count).map(|_| random.random_range(0..ROWS)).collect();
    let keys = shape.keys(&ids);
    (0..count)
        .map(|row| {
            let mut range = KeyRange::new(table, None).unwrap();
            for column in keys.columns() {
                let column = column.to_data();
                let width = column.data_type().primitive_width().unwrap();
                range.push(Some(&column.buffers()[0][row * width..(row + 1) * width])).unwrap();
            }
            range.key().to_vec()
        })
        .collect()
}

async fn read(store: &Store, table: &TableDef, keys: &[Vec<u8>], what: &str) {
    let columns = WantedColumns::new(table, 0..2);
    let view = store.snapshot();
    for (name, passes) in [("first", 1), ("warm", 3)] {
        let mut best = f64::MAX;
        for _ in 0..passes {
            let started = Instant::now();
            for key in keys {
                let found = view.stored_row(table, key, &columns).await.unwrap();
                assert!(std::hint::black_box(found).is_some());
            }
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("point reads from {what}, {name}: {:5.0} ns", best * 1e9 / keys.len() as f64);
    }
}

/// Point reads of a million rows in memory and in a segment, and what a commit costs for each row.
pub(super) async fn points(directory: &Path) {
    for shape in [plain("plain, 70 bytes", 70), order_line()] {
        let directory = directory.join("points");
        let _ = std::fs::remove_dir_all(&directory);
        let store = Store::open(options(&directory, 8 << 30)).await.unwrap();
        let id = shape.create(&store).await;
        let scattered: Vec<i64> = (0..ROWS).map(|row| row * 7_368_787 % ROWS).collect();
        for ids in scattered.chunks(1000) {
            let mut transaction = store.begin();
            transaction.insert(id, &shape.batch(ids)).await.unwrap();
            transaction.commit(Durability::Async).await.unwrap();
        }
        let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
        let keys = some_keys(&shape, &table, READS);
        println!("{}, {ROWS} rows:", shape.name);
        read(&store, &table, &keys, "the memtable").await;

        let columns = WantedColumns::new(&table, 0..shape.schema.fields().len());
        let (started, cpu) = (Instant::now(), cpu_seconds());
        for keys in keys.chunks(TRANSACTION_ROWS).take(TRANSACTIONS) {
            let mut keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut transaction = store.begin();
            let view = transaction.view();
            let mut changes = Vec::with_capacity(keys.len());
            for key in keys {
                let row = view.stored_row(&table, key, &columns).await.unwrap().unwrap();
                let bytes = row.bytes.clone();
                changes.push((row, bytes));
            }
            drop(view);
            assert_eq!(transaction.update_stored(&table, changes).await.unwrap(), Change::Made);
            transaction.commit(Durability::Async).await.unwrap();
        }
        let rows = (TRANSACTIONS * TRANSACTION_ROWS) as f64;
        println!(
            "updates, {TRANSACTION_ROWS} a commit, read, changed and committed: {:5.0} ns a row, {:5.0} ns of CPU in all threads",
            started.elapsed().as_secs_f64() * 1e9 / rows,
            (cpu_seconds() - cpu) * 1e9 / rows,
        );

        store.flush().await.unwrap();
        read(&store, &table, &keys, "a segment").await;
        store.close().await.unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// Opening an empty store, and one with a million rows that was closed in order.
pub(super) async fn starts(directory: &Path) {
    let directory = directory.join("starts");
    let _ = std::fs::remove_dir_all(&directory);
    let shape = plain("plain, 70 bytes", 70);
    for rows in [0, ROWS] {
        let started = Instant::now();
        let store = Store::open(options(&directory, 1 << 30)).await.unwrap();
        println!("a start of {} bytes of files: {:?}", bytes_below(&directory), started.elapsed());
        if rows > 0 {
            let id = shape.create(&store).await;
            let mut transaction = store.begin();
            let mut bulk = transaction.bulk_insert(id).unwrap();
            for ids in (0..rows).collect::<Vec<_>>().chunks(100_000) {
                bulk.write(shape.batch(ids)).await.unwrap();
            }
            bulk.finish(&mut transaction).await.unwrap();
            transaction.commit(Durability::Sync).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let started = Instant::now();
    let store = Store::open(options(&directory, 1 << 30)).await.unwrap();
    println!("a start of {} bytes of files: {:?}", bytes_below(&directory), started.elapsed());
    store.close().await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}
