//! What a statement costs on the row path, and what it costs without: point reads and writes by key, and a transaction of
//! some thirty statements like TPC-C's New-Order, through prepared statements in process.
//!
//! Prints latencies (p50, p99) and processor time of the calling thread per operation. `row_path = off` gives the ordinary
//! path's figures in the same run.

use std::time::{Duration, Instant};

use rustydb_benches::Bench;
use rustydb_engine::{Prepared, StatementResult, Value};

const ROWS: i64 = 100_000;
const ITEMS: i64 = 10_000;
const LINES: i64 = 10;

fn main() {
    let bench = Bench::empty();
    load(&bench);
    for setting in ["on", "off"] {
        bench.run(&format!("SET row_path = {setting}"));
        println!("row_path = {setting}");
        let count = if setting == "on" { 200_000 } else { 2_000 };
        reads(&bench, count, "memtable");
        writes(&bench, count / 10);
        orders(&bench, count / 100);
    }
    bench.run("CHECKPOINT");
    bench.run("SET row_path = on");
    println!("after CHECKPOINT");
    reads(&bench, 50_000, "segment");
    let usage = bench.session.database().program_cache();
    println!("{usage:?}");
}

fn load(bench: &Bench) {
    for sql in [
        "CREATE TABLE account (id BIGINT PRIMARY KEY, name TEXT, balance NUMERIC(12,2), visits INTEGER)",
        "CREATE TABLE district (w INTEGER, d INTEGER, tax NUMERIC(4,4), next_order INTEGER, PRIMARY KEY (w, d))",
        "CREATE TABLE customer (w INTEGER, d INTEGER, c INTEGER, name TEXT, discount NUMERIC(4,4), PRIMARY KEY (w, d, c))",
        "CREATE TABLE item (i INTEGER PRIMARY KEY, name TEXT, price NUMERIC(5,2), data TEXT)",
        "CREATE TABLE stock (w INTEGER, i INTEGER, quantity INTEGER, dist TEXT, ytd NUMERIC(8,0), orders INTEGER, \
         PRIMARY KEY (w, i), FOREIGN KEY (i) REFERENCES item)",
        "CREATE TABLE orders (w INTEGER, d INTEGER, o INTEGER, c INTEGER, entered TIMESTAMP, lines INTEGER, \
         PRIMARY KEY (w, d, o), FOREIGN KEY (w, d, c) REFERENCES customer)",
        "CREATE TABLE new_order (w INTEGER, d INTEGER, o INTEGER, PRIMARY KEY (w, d, o), \
         FOREIGN KEY (w, d, o) REFERENCES orders)",
        "CREATE TABLE order_line (w INTEGER, d INTEGER, o INTEGER, n INTEGER, i INTEGER, quantity INTEGER, \
         amount NUMERIC(6,2), info TEXT, PRIMARY KEY (w, d, o, n), FOREIGN KEY (w, d, o) REFERENCES orders)",
    ] {
        bench.run(sql);
    }
    for first in (0..ROWS).step_by(10_000) {
        bench.run(&format!(
            "INSERT INTO account SELECT v, 'account ' || v, v * 1.25, 0 FROM generate_series({first}, {}) AS s(v)",
            first + 9_999
        ));
    }
    bench.run("INSERT INTO district SELECT 1, v, 0.05, 1 FROM generate_series(1, 10) AS s(v)");
    bench.run(
        "INSERT INTO customer SELECT 1, v % 10 + 1, v / 10, 'customer', 0.1 FROM generate_series(0, 9999) AS s(v)",
    );
    bench.run(&format!("INSERT INTO item SELECT v, 'item', 1.5, 'data' FROM generate_series(1, {ITEMS}) AS s(v)"));
    bench
        .run(&format!("INSERT INTO stock SELECT 1, v, 50, 'dist info', 0, 0 FROM generate_series(1, {ITEMS}) AS s(v)"));
}

fn prepare(bench: &Bench, sql: &str) -> Prepared {
    bench.runtime.block_on(bench.session.prepare(sql)).expect("the statement is valid")
}

/// Runs a prepared statement to its end; the number of rows it gave or touched.
async fn run(bench: &Bench, statement: &Prepared, values: &[Value]) -> u64 {
    match bench.session.execute_prepared(statement, values).await.expect("the statement runs") {
        StatementResult::Done(completion) => completion.rows.unwrap_or(0),
        StatementResult::Rows(rows) => match rows.into_data() {
            Ok(data) => data.rows.len() as u64,
            Err(stream) => {
                let batches = stream.collect().await.expect("the query runs");
                batches.iter().map(|batch| batch.num_rows() as u64).sum()
            }
        },
    }
}

fn int(value: i64) -> Value {
    Value::Int32(Some(value as i32))
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// Measures an operation so many times and prints what it takes.
async fn measure(name: &str, count: usize, mut operation: impl AsyncFnMut(usize)) {
    for number in 0..count / 10 {
        operation(number).await;
    }
    let mut latencies = Vec::with_capacity(count);
    let (began, processor) = (Instant::now(), processor_time());
    for number in 0..count {
        let before = Instant::now();
        operation(number).await;
        latencies.push(before.elapsed());
    }
    let (wall, processor) = (began.elapsed(), processor_time() - processor);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((count - 1) as f64 * share) as usize];
    println!(
        "  {name:<42} p50 {:>10.2?}  p99 {:>10.2?}  processor {:>10.2?}  {:>9.0}/s",
        at(0.5),
        at(0.99),
        processor / count as u32,
        count as f64 / wall.as_secs_f64()
    );
}

/// Numbers that jump about.
fn scattered(number: usize, below: i64) -> i64 {
    (number as i64).wrapping_mul(48_271) % below
}

fn reads(bench: &Bench, count: usize, place: &str) {
    let read = prepare(bench, "SELECT name, balance FROM account WHERE id = $1");
    let by_key = async |number| {
        let id = [Value::Int64(Some(scattered(number, ROWS)))];
        assert_eq!(run(bench, &read, &id).await, 1);
    };
    bench.runtime.block_on(measure(&format!("point read, {place}"), count, by_key));
    let range = prepare(bench, "SELECT count(*), sum(visits) FROM account WHERE id >= $1 AND id < $2");
    let sum = async |number| {
        let first = scattered(number, ROWS - 20);
        let ends = [Value::Int64(Some(first)), Value::Int64(Some(first + 20))];
        assert_eq!(run(bench, &range, &ends).await, 1);
    };
    bench.runtime.block_on(measure(&format!("sum over 20 rows, {place}"), count / 10, sum));
    bench.run("BEGIN");
    bench.runtime.block_on(measure(&format!("point read in a transaction, {place}"), count / 2, by_key));
    bench.run("COMMIT");
}

fn writes(bench: &Bench, count: usize) {
    let update = prepare(bench, "UPDATE account SET balance = balance + $2, visits = visits + 1 WHERE id = $1");
    let change = async |number| {
        let values = [Value::Int64(Some(scattered(number, ROWS))), Value::Decimal128(Some(125), 12, 2)];
        assert_eq!(run(bench, &update, &values).await, 1);
    };
    for (name, setting) in [("durable", "on"), ("not waiting for the disk", "off")] {
        bench.run(&format!("SET synchronous_commit = {setting}"));
        bench.runtime.block_on(measure(&format!("update of a row, {name}"), count, change));
    }
    bench.run("BEGIN");
    bench.runtime.block_on(measure("update of a row in a transaction", count.min(2_000), change));
    bench.run("ROLLBACK");
    bench.run("SET synchronous_commit = on");
}

/// New-Order without its rollbacks: 4 + 4 · lines statements.
fn orders(bench: &Bench, count: usize) {
    let customer = prepare(bench, "SELECT name, discount FROM customer WHERE w = $1 AND d = $2 AND c = $3");
    let district = prepare(bench, "SELECT next_order, tax FROM district WHERE w = $1 AND d = $2 FOR UPDATE");
    let advance =
        prepare(bench, "UPDATE district SET next_order = next_order + 1 WHERE w = $1 AND d = $2 RETURNING next_order");
    let order = prepare(bench, "INSERT INTO orders VALUES ($1, $2, $3, $4, now(), $5)");
    let new_order = prepare(bench, "INSERT INTO new_order VALUES ($1, $2, $3)");
    let item = prepare(bench, "SELECT price, name, data FROM item WHERE i = $1");
    let stock = prepare(bench, "SELECT quantity, dist FROM stock WHERE w = $1 AND i = $2 FOR UPDATE");
    let take = prepare(
        bench,
        "UPDATE stock SET quantity = CASE WHEN quantity >= $3 + 10 THEN quantity - $3 ELSE quantity - $3 + 91 END, \
         ytd = ytd + $3, orders = orders + 1 WHERE w = $1 AND i = $2",
    );
    let line = prepare(bench, "INSERT INTO order_line VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
    let (begin, commit) = ("BEGIN", "COMMIT");
    for (name, setting) in [("durable", "on"), ("not waiting for the disk", "off")] {
        bench.run(&format!("SET synchronous_commit = {setting}"));
        let name = format!("new order, {} statements, {name}", 5 + 4 * LINES);
        let new_order = async |number| {
            let control = async |sql| drop(bench.session.execute(sql, &[]).await.expect("it runs"));
            let (w, d) = (int(1), int(number as i64 % 10 + 1));
            control(begin).await;
            let c = int(scattered(number, 1_000));
            assert_eq!(run(bench, &customer, &[w.clone(), d.clone(), c.clone()]).await, 1);
            run(bench, &district, &[w.clone(), d.clone()]).await;
            let next = bench.session.execute_prepared(&advance, &[w.clone(), d.clone()]).await.expect("it runs");
            let StatementResult::Rows(next) = next else { panic!("RETURNING returns") };
            let next = next.collect().await.expect("a row");
            let o = Value::try_from_array(next[0].column(0), 0).expect("a number");
            run(bench, &order, &[w.clone(), d.clone(), o.clone(), c, int(LINES)]).await;
            run(bench, &new_order, &[w.clone(), d.clone(), o.clone()]).await;
            // Items in order, so that two clients could not deadlock.
            for n in 0..LINES {
                let i = int(n * (ITEMS / LINES) + scattered(number, ITEMS / LINES) + 1);
                assert_eq!(run(bench, &item, std::slice::from_ref(&i)).await, 1);
                run(bench, &stock, &[w.clone(), i.clone()]).await;
                run(bench, &take, &[w.clone(), i.clone(), int(5)]).await;
                let amount = Value::Decimal128(Some(750), 6, 2);
                let info = Value::Utf8View(Some("dist info".into()));
                let values = [w.clone(), d.clone(), o.clone(), int(n), i, int(5), amount, info];
                run(bench, &line, &values).await;
            }
            control(commit).await;
        };
        bench.runtime.block_on(measure(&name, count.max(20), new_order));
    }
    bench.run("SET synchronous_commit = on");
}
