//! `rustydb tpcc` from an empty directory, again on the same store, through a server, killed, and interrupted. The conditions
//! hold every time; what they find when they do not is tested in the tpch crate.

use crate::support::{DEADLINE, Server, directory, rows, run, rustydb, signal, wait};
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Instant;

/// Small enough for a debug build: 100 items, 10 customers per district.
const SMALL: [&str; 6] = ["--reduction", "300", "--warmup", "0", "--terminals", "4"];

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["tpcc"][..], &SMALL, more].concat()
}

fn json(directory: &Path, name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(directory.join(name)).unwrap()).unwrap()
}

/// The run of a mode: the contract of the JSON that scripts rely on, and a second start.
fn runs_and_runs_again(mode: &str) {
    let directory = directory();
    let first = arguments(&["--warehouses", "2", "--seconds", "3", "--mode", mode, "--json", "first.json"]);
    let outcome = run(directory.path(), &first).expect_status(0).expect_stderr(&["order_line: "]);
    assert!(outcome.stdout.contains("12 of 12 consistency conditions hold"), "{}", outcome.stdout);
    let report = json(directory.path(), "first.json");
    assert_eq!((&report["benchmark"], &report["mode"]), (&"tpcc".into(), &mode.into()));
    let isolation = if mode == "statement" { "read_committed" } else { "snapshot" };
    assert_eq!((&report["durability"], &report["isolation"]), (&"sync".into(), &isolation.into()));
    assert_eq!((report["warehouses"].as_u64(), report["terminals"].as_u64()), (Some(2), Some(4)));
    assert_eq!(report["load"]["reused"], false);
    let tps = report["tps"].as_f64().unwrap();
    let kinds = report["transactions"].as_object().unwrap();
    let names: Vec<&String> = kinds.keys().collect();
    assert_eq!(names, ["delivery", "new_order", "order_status", "payment", "stock_level"]);
    let mut committed = 0;
    for (kind, figures) in kinds {
        committed += figures["count"].as_u64().unwrap();
        assert!(figures["aborts"].is_u64() && figures["retries"].is_u64(), "{kind}: {figures}");
        if figures["count"].as_u64().unwrap() > 0 {
            let percentiles: Vec<f64> = ["p50", "p95", "p99", "p99.9"]
                .iter()
                .map(|name| figures["latency_ms"][name].as_f64().unwrap())
                .collect();
            assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{kind}: {percentiles:?}");
        }
    }
    assert!(committed > 0 && (tps - committed as f64 / report["seconds"].as_f64().unwrap()).abs() < 1.0, "{report}");
    let per_minute = kinds["new_order"]["count"].as_f64().unwrap() * 60.0 / report["seconds"].as_f64().unwrap();
    assert!((report["tpmc_equivalent"].as_f64().unwrap() - per_minute).abs() < 60.0, "{report}");
    let conditions: Vec<u64> = (1..=12).collect();
    assert_eq!(report["consistency"]["checked"], serde_json::json!(conditions));

    // The store is used again, and it grows.
    let orders = || rows(directory.path(), "tpcc-data", "SELECT count(*) FROM orders")[0].parse::<u64>().unwrap();
    let before = orders();
    let second = arguments(&["--seconds", "2", "--mode", mode, "--seed", "7", "--json", "second.json"]);
    run(directory.path(), &second).expect_status(0);
    let report = json(directory.path(), "second.json");
    assert_eq!((report["load"]["reused"].as_bool(), report["warehouses"].as_u64()), (Some(true), Some(2)));
    let entered = report["transactions"]["new_order"]["count"].as_u64().unwrap();
    assert!(orders() >= before + entered, "{before} orders and {entered} new ones");

    // Another number of warehouses is refused before anything changes.
    let other = arguments(&["--warehouses", "3", "--mode", mode]);
    run(directory.path(), &other).expect_status(3).expect_stderr(&["--warehouses 2"]);
    // So are tables of TPC-C's names that are somebody else's.
    run(directory.path(), &["sql", "--data", "own", "-c", "CREATE TABLE stock (id INT PRIMARY KEY)"]).expect_status(0);
    run(directory.path(), &arguments(&["--data", "own"])).expect_status(3).expect_stderr(&["stock"]);
    run(directory.path(), &["tpcc", "--check-only", "--data", "own"]).expect_status(3);
}

#[test]
fn procedure_mode_loads_runs_reports_and_the_second_start_grows_the_store() {
    runs_and_runs_again("procedure");
}

#[test]
fn statement_mode_loads_runs_reports_and_the_second_start_grows_the_store() {
    runs_and_runs_again("statement");
}

#[test]
fn broken_data_ends_with_status_1_and_the_condition_and_rows() {
    let directory = directory();
    let load = arguments(&["--warehouses", "1", "--seconds", "1"]);
    run(directory.path(), &load).expect_status(0);
    let update = "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_id = 4";
    run(directory.path(), &["sql", "--data", "tpcc-data", "-c", update]).expect_status(0);
    let outcome = run(directory.path(), &["tpcc", "--check-only", "--json", "broken.json"]).expect_status(1);
    assert!(outcome.stdout.contains("condition 2 does NOT hold (1 rows)"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("(1, 4, "), "the row is shown: {}", outcome.stdout);
    let report = json(directory.path(), "broken.json");
    assert_eq!(report["consistency"]["violations"][0]["condition"], 2);
}

/// A run, and what it says on standard error.
fn start(directory: &Path, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut child = rustydb(directory, arguments).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    (child, lines)
}

/// Reads until a line says this.
fn wait_for(lines: &mut Lines<BufReader<ChildStderr>>, text: &str) {
    let started = Instant::now();
    let seen = lines.by_ref().map(|line| line.expect("text")).any(|line| line.contains(text));
    assert!(seen && started.elapsed() < DEADLINE, "{text:?} was never said");
}

#[test]
fn a_killed_run_and_a_killed_load_leave_a_store_whose_conditions_hold() {
    let directory = directory();
    let load = arguments(&["--warehouses", "1", "--seconds", "600"]);
    for said in ["customer: ", "order_line: ", " transactions, ", " transactions, "] {
        let (mut child, mut lines) = start(directory.path(), &load);
        wait_for(&mut lines, said);
        child.kill().expect("the child is ours");
        wait(&mut child);
        run(directory.path(), &["check", "--data", "tpcc-data"]).expect_status(0);
        if said.contains("transactions") {
            run(directory.path(), &["tpcc", "--check-only"]).expect_status(0);
        }
    }
    run(directory.path(), &arguments(&["--seconds", "1"])).expect_status(0);
}

#[test]
fn a_server_that_flushes_all_the_time_and_is_killed_keeps_the_conditions() {
    let directory = directory();
    let small = [("RUSTYDB_MEMTABLE_SIZE", "64KiB")];
    let mut server = Server::start(directory.path(), "d", &small);
    let url = server.url.clone();
    let short = arguments(&["--url", &url, "--warehouses", "1", "--seconds", "3"]);
    let outcome = run(directory.path(), &short).expect_status(0);
    assert!(outcome.stdout.contains("12 of 12 consistency conditions hold"), "{}", outcome.stdout);

    let long = arguments(&["--url", &url, "--seconds", "600"]);
    let (mut child, mut lines) = start(directory.path(), &long);
    wait_for(&mut lines, " transactions, ");
    server.child.kill().expect("the server is ours");
    assert_eq!(wait(&mut child).code(), Some(1), "a lost server is a failure");
    drop(server);
    run(directory.path(), &["tpcc", "--check-only", "--data", "d"]).expect_status(0);
    run(directory.path(), &["check", "--data", "d"]).expect_status(0);
}

#[test]
fn interrupting_a_run_ends_it_with_its_report() {
    let directory = directory();
    let long = arguments(&["--warehouses", "1", "--seconds", "600", "--json", "part.json"]);
    let (mut child, mut lines) = start(directory.path(), &long);
    wait_for(&mut lines, " transactions, ");
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(130));
    let report = json(directory.path(), "part.json");
    assert_eq!(
        (&report["interrupted"], report["consistency"]["violations"].as_array().unwrap().len()),
        (&true.into(), 0)
    );
    assert!(report["seconds"].as_f64().unwrap() < 600.0);
}

#[test]
fn analysts_and_terminals_share_one_store() {
    let directory = directory();
    let mixed = ["chbench", "--warehouses", "1", "--seconds", "6", "--analysts", "2"];
    let mixed = [&mixed[..], &SMALL, &["--json", "mixed.json"]].concat();
    let outcome = run(directory.path(), &mixed).expect_status(0);
    assert!(outcome.stdout.contains("12 of 12 consistency conditions hold"), "{}", outcome.stdout);
    let report = json(directory.path(), "mixed.json");
    assert!(report["alone"]["tps"].as_f64().unwrap() > 0.0 && report["together"]["tps"].as_f64().unwrap() > 0.0);
    assert!(report["analytics"]["queries_per_hour"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["analytics"]["freshness_ms"]["p50"].as_f64().unwrap() >= 0.0, "{report}");
    assert!(report["transactions_lost_percent"].is_f64());
}
