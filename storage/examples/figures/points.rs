//! Single rows by key, as the row path reads and writes them, and starts.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{Change, Durability, KeyRange, Store, TableDef, WantedColumns, insist};

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

/// The rows of a batch, as the row path has them.
fn stored_rows(table: &TableDef, batch: &RecordBatch) -> Vec<Bytes> {
    let rows = (0..batch.num_rows()).map(|row| {
        let mut writer = table.row_writer().unwrap();
        for column in batch.columns() {
            if column.data_type() == &DataType::Utf8View {
                writer.push(Some(column.as_string_view().value(row).as_bytes())).unwrap();
                continue;
            }
            let data = column.to_data();
            let width = column.data_type().primitive_width().unwrap();
            let value = &data.buffers()[0][row * width..(row + 1) * width];
            // Decimals of up to 18 digits take eight bytes in a row.
            writer.push(Some(&value[..width.min(8)])).unwrap();
        }
        writer.finish().unwrap()
    });
    rows.collect()
}

/// What something cost that was done so many times, in time and in processor time of all threads.
struct Cost {
    started: Instant,
    cpu: f64,
}

impl Cost {
    fn begin() -> Cost {
        Cost { started: Instant::now(), cpu: cpu_seconds() }
    }

    fn print(&self, what: &str, times: usize) {
        let (elapsed, cpu) = (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        let each = 1e9 / times as f64;
        println!("{what}: {:5.0} ns, {:5.0} ns of CPU in all threads", elapsed * each, cpu * each);
    }
}

async fn read(store: &Store, table: &TableDef, keys: &[Vec<u8>], what: &str) {
    let columns = WantedColumns::new(table, 0..2);
    let view = store.snapshot();
    for pass in ["first", "again", "again"] {
        let cost = Cost::begin();
        for key in keys {
            let found = insist(|| view.stored_row(table, key, &columns)).await.unwrap();
            assert!(std::hint::black_box(found).is_some());
        }
        cost.print(&format!("point reads from {what}, {pass}"), keys.len());
    }
}

/// Point reads of a million rows in memory and in a segment, and what a commit costs for each row.
pub(super) async fn points(directory: &Path) {
    for shape in [plain("plain, 70 bytes", 70), order_line()] {
        let directory = directory.join("points");
        let _ = std::fs::remove_dir_all(&directory);
        let store = Store::open(options(&directory, 8 << 30)).await.unwrap();
        shape.create(&store).await;
        let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
        println!("{}, {ROWS} rows:", shape.name);
        let scattered: Vec<i64> = (0..ROWS).map(|row| row * 7_368_787 % ROWS).collect();
        let rows: Vec<Vec<Bytes>> =
            scattered.chunks(TRANSACTION_ROWS).map(|ids| stored_rows(&table, &shape.batch(ids))).collect();
        let cost = Cost::begin();
        for rows in rows {
            let mut transaction = store.begin();
            assert_eq!(insist(|| transaction.insert_stored(&table, rows.clone())).await.unwrap(), Change::Made);
            transaction.commit(Durability::Async).await.unwrap();
        }
        cost.print(&format!("inserts, {TRANSACTION_ROWS} a commit, a row"), ROWS as usize);
        let keys = some_keys(&shape, &table, READS);
        read(&store, &table, &keys, "the memtable").await;

        let columns = WantedColumns::new(&table, 0..shape.schema.fields().len());
        let cost = Cost::begin();
        for keys in keys.chunks(TRANSACTION_ROWS).take(TRANSACTIONS) {
            let mut keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut transaction = store.begin();
            let view = transaction.view();
            let mut changes = Vec::with_capacity(keys.len());
            for key in keys {
                let row = insist(|| view.stored_row(&table, key, &columns)).await.unwrap().unwrap();
                let bytes = Bytes::copy_from_slice(&row.bytes);
                changes.push((row, bytes));
            }
            drop(view);
            assert_eq!(insist(|| transaction.update_stored(&table, changes.clone())).await.unwrap(), Change::Made);
            transaction.commit(Durability::Async).await.unwrap();
        }
        let rows = TRANSACTIONS * TRANSACTION_ROWS;
        cost.print(&format!("updates, {TRANSACTION_ROWS} a commit, a row read, changed and committed"), rows);

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
