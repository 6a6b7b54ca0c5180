//! How fast a log is read back.

use std::path::Path;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{Durability, Store};

use super::{Shape, TRANSACTION_ROWS, bytes_below, cpu_seconds, options, order_line, plain};

/// So often a log is replayed; the best time counts.
const REPLAYS: usize = 5;

#[derive(Debug, Clone, Copy)]
enum Order {
    /// Inserts in the order of the keys.
    Ascending,
    /// Inserts in no order.
    Random,
    /// Half inserts and half updates, in no order.
    RandomUpdates,
    /// Updates of the same few rows, again and again.
    FewKeys,
}

/// Rows that there are in the end if so many are written.
fn key_count(order: Order, count: i64) -> i64 {
    match order {
        Order::Ascending => count,
        // Powers of two: an odd multiplier brings their numbers into another order.
        Order::Random => 1 << count.ilog2(),
        Order::RandomUpdates => 1 << (count / 2).ilog2(),
        Order::FewKeys => 1 << 14,
    }
}

/// Makes a store whose log has `count` changes of rows.
async fn write_log(directory: &Path, shape: &Shape, order: Order, transaction_rows: usize, count: i64) {
    let store = Store::open(options(directory, 16 << 30)).await.unwrap();
    let table = shape.create(&store).await;
    let mut random = StdRng::seed_from_u64(1);
    let keys = key_count(order, count);
    let ids: Vec<i64> = (0..count).collect();
    for ids in ids.chunks(transaction_rows) {
        let mut transaction = store.begin();
        match order {
            Order::Ascending => drop(transaction.insert(table, &shape.batch(ids)).await.unwrap()),
            _ if ids[0] >= keys => {
                let mut some: Vec<i64> = ids.iter().map(|_| random.random_range(0..keys)).collect();
                some.sort_unstable();
                some.dedup();
                transaction.update(table, &shape.keys(&some), &shape.batch(&some)).await.unwrap();
            }
            _ => {
                let some: Vec<i64> = ids.iter().filter(|id| **id < keys).map(|id| id * 7_368_787 % keys).collect();
                transaction.insert(table, &shape.batch(&some)).await.unwrap();
            }
        }
        transaction.commit(Durability::Async).await.unwrap();
    }
}

/// Opens a store whose log has `count` changes of rows, several times.
async fn replay(directory: &Path, shape: &Shape, order: Order, transaction_rows: usize, count: i64) {
    let name = format!("{} {order:?} {transaction_rows}", shape.name).replace([',', ' '], "-");
    let directory = directory.join(name);
    if !directory.exists() {
        let unfinished = directory.with_extension("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        write_log(&unfinished, shape, order, transaction_rows, count).await;
        std::fs::rename(&unfinished, &directory).unwrap();
    }
    let log_bytes = bytes_below(&directory.join("log"));
    let (mut best, mut best_cpu) = (f64::MAX, f64::MAX);
    for _ in 0..REPLAYS {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let store = Store::open(options(&directory, 16 << 30)).await.unwrap();
        let elapsed = started.elapsed().as_secs_f64();
        best_cpu = best_cpu.min(cpu_seconds() - cpu);
        best = best.min(elapsed);
        let view = store.snapshot();
        let table = view.catalog().find("public", "t").unwrap().id;
        assert_eq!(view.rows(table).unwrap() as i64, key_count(order, count));
    }
    println!(
        "{:22} {:14} {transaction_rows:3} a commit: {:5.0} MB/s, {:5.0} MB per second of CPU, {:4.0} ns CPU a row, log {} MB",
        shape.name,
        format!("{order:?}"),
        log_bytes as f64 / best / 1e6,
        log_bytes as f64 / best_cpu / 1e6,
        best_cpu * 1e9 / count as f64,
        log_bytes / 1_000_000,
    );
}

pub(super) async fn replays(directory: &Path, only: &str) {
    for shape in
        [plain("plain, 70 bytes", 70), order_line(), plain("plain, 200 bytes", 200), plain("plain, 1024 bytes", 1024)]
    {
        let count = 250_000_000 / (shape.text_bytes as i64 + 40);
        for order in [Order::Ascending, Order::Random, Order::RandomUpdates, Order::FewKeys] {
            for transaction_rows in [1, TRANSACTION_ROWS] {
                if format!("{} {order:?} {transaction_rows}", shape.name).contains(only) {
                    replay(directory, &shape, order, transaction_rows, count).await;
                }
            }
        }
    }
}
