//! `kill -9` in the middle of work: everything acknowledged is there afterwards, and nothing is half there.

use crate::support::{DEADLINE, Server, directory, rows, run, run_with_input, rustydb, wait};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

/// Rows per statement: enough that a statement half applied would show.
const ROWS_PER_INSERT: u64 = 3;

/// A client that inserts groups of rows as fast as they are acknowledged.
struct Inserter {
    client: Child,
    writer: thread::JoinHandle<()>,
}

impl Inserter {
    /// Inserts groups `first_group`, `first_group + 1`, … until the client or its server dies.
    fn start(directory: &Path, connection: &[&str], first_group: u64) -> Inserter {
        let arguments = [&["sql"], connection].concat();
        let mut client = rustydb(directory, &arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut stdin = client.stdin.take().expect("a pipe");
        let writer = thread::spawn(move || {
            for group in first_group.. {
                let values: Vec<String> =
                    (0..ROWS_PER_INSERT).map(|row| format!("({group}, {row}, 'payload of {group}')")).collect();
                if writeln!(stdin, "INSERT INTO t VALUES {};", values.join(", ")).is_err() {
                    return;
                }
            }
        });
        Inserter { client, writer }
    }

    /// Calls `kill` after so many acknowledgements; returns how many there were in all.
    fn kill_after(mut self, acknowledgements: u64, kill: impl FnOnce(&mut Child)) -> u64 {
        let mut stdout = BufReader::new(self.client.stdout.take().expect("a pipe"));
        let is_acknowledgement = |line: &str| line == format!("INSERT {ROWS_PER_INSERT}\n");
        let mut line = String::new();
        for _ in 0..acknowledgements {
            line.clear();
            stdout.read_line(&mut line).expect("a pipe can be read");
            assert!(is_acknowledgement(&line), "{line:?}");
        }
        kill(&mut self.client);
        // What was acknowledged before the end counts as well.
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).expect("a pipe can be read");
        wait(&mut self.client);
        self.writer.join().expect("the writer does not panic");
        acknowledgements + rest.split_inclusive('\n').filter(|line| is_acknowledgement(line)).count() as u64
    }
}

/// Fails unless the table holds whole groups 0, 1, 2, … and at least those acknowledged. Returns how many.
fn verify_groups(directory: &Path, acknowledged: u64) -> u64 {
    let sql = "SELECT group_id, count(*) AS n, min(text) AS low, max(text) AS high FROM t GROUP BY group_id ORDER BY group_id";
    let groups = rows(directory, "d", sql);
    for (group, row) in groups.iter().enumerate() {
        let text = format!("payload of {group}");
        assert_eq!(*row, format!("{group},{ROWS_PER_INSERT},{text},{text}"), "a group is half there");
    }
    let found = groups.len() as u64;
    assert!(found >= acknowledged, "{found} groups are there, {acknowledged} were acknowledged");
    // One statement at a time: at most the one in flight is more than was acknowledged.
    assert!(found <= acknowledged + 1, "{found} groups are there, {acknowledged} were acknowledged");
    found
}

const CREATE: &str =
    "CREATE TABLE t (group_id BIGINT, row_id BIGINT, text TEXT NOT NULL, PRIMARY KEY (group_id, row_id));";

#[test]
fn a_killed_shell_loses_no_acknowledged_insert() {
    let directory = directory();
    run_with_input(directory.path(), &["sql", "--data", "d"], CREATE).expect_status(0);
    let mut groups = 0;
    for acknowledgements in [1, 40, 7, 150] {
        let inserter = Inserter::start(directory.path(), &["--data", "d"], groups);
        let more = inserter.kill_after(acknowledgements, |client| client.kill().expect("the client is ours"));
        groups = verify_groups(directory.path(), groups + more);
    }
    run(directory.path(), &["check", "--data", "d"]).expect_status(0);
}

#[test]
fn a_killed_server_loses_no_acknowledged_insert_while_it_flushes() {
    let directory = directory();
    run_with_input(directory.path(), &["sql", "--data", "d"], CREATE).expect_status(0);
    let mut groups = 0;
    for acknowledgements in [3, 120, 300] {
        // So small that rows become segments all the time.
        let mut server = Server::start(directory.path(), "d", &[("RUSTYDB_MEMTABLE_SIZE", "16KiB")]);
        let inserter = Inserter::start(directory.path(), &["--url", &server.url], groups);
        let more = inserter.kill_after(acknowledgements, |_| server.child.kill().expect("the server is ours"));
        drop(server);
        groups = verify_groups(directory.path(), groups + more);
    }
    run(directory.path(), &["check", "--data", "d"]).expect_status(0);
}

#[test]
fn a_killed_load_is_continued_and_every_answer_is_right() {
    let directory = directory();
    let arguments = ["tpch", "--scale", "0.01", "--runs", "1", "--data", "d"];
    // Killed when the named table is complete, that is while the one after it is being loaded.
    for table in ["region", "partsupp", "orders"] {
        let mut child = rustydb(directory.path(), &arguments).stdout(Stdio::null()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let started = Instant::now();
        let is_complete = |line: &String| line.starts_with(&format!("{table}: "));
        let seen = lines.by_ref().map(|line| line.expect("text")).find(is_complete);
        assert!(seen.is_some() && started.elapsed() < DEADLINE, "{table} was never complete");
        child.kill().expect("the child is ours");
        wait(&mut child);
        run(directory.path(), &["check", "--data", "d"]).expect_status(0);
    }
    let outcome = run(directory.path(), &arguments).expect_status(0);
    assert!(outcome.stdout.contains("22 of 22 answers verified"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("rows were there before"), "{}", outcome.stdout);
}
