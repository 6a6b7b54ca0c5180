//! Single-row inserts through a prepared statement, each its own transaction: what one client that waits for each commit
//! gets, durable and not.

use std::cell::Cell;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustydb_benches::Bench;
use rustydb_engine::Value;

fn insert(criterion: &mut Criterion) {
    let bench = Bench::empty();
    bench.run("CREATE TABLE event (id BIGINT PRIMARY KEY, kind INTEGER NOT NULL, note TEXT)");
    let prepared = bench
        .runtime
        .block_on(bench.session.prepare("INSERT INTO event VALUES ($1, $2, $3)"))
        .expect("the statement is valid");
    let next_id = Cell::new(0_i64);
    let mut group = criterion.benchmark_group("insert");
    group.throughput(Throughput::Elements(1));
    for (durability, setting) in [("durable", "on"), ("not waiting for the disk", "off")] {
        bench.run(&format!("SET synchronous_commit = {setting}"));
        group.bench_function(format!("one row, {durability}"), |bencher| {
            bencher.iter(|| {
                let id = next_id.replace(next_id.get() + 1);
                let row = [Value::Int64(Some(id)), Value::Int32(Some(7)), Value::Utf8View(Some("a short note".into()))];
                bench
                    .runtime
                    .block_on(bench.session.execute_prepared(&prepared, &row))
                    .map(drop)
                    .expect("the key is new")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, insert);
criterion_main!(benches);
