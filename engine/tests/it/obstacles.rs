//! Statements of the row path that meet what they have to wait for: parts of segments that are not in memory, and locks.
//! What comes of them is what comes of the same statements with `row_path` off.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustydb_engine::{Database, Session, StatementResult, Value};
use tokio::task::JoinHandle;

use crate::helpers::*;

const TABLES: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, name text);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, tag text UNIQUE, amount numeric(10,2), note text);
    CREATE INDEX child_note ON child (note, id);
    CREATE TABLE heap (n int, what text);
";

/// What needs key indexes, key columns, columns and postings.
const STATEMENTS: &[&str] = &[
    "SELECT id, amount, note FROM child WHERE id = 17",
    "SELECT tag FROM child WHERE id BETWEEN 5 AND 40 ORDER BY id DESC LIMIT 7",
    "SELECT id, tag FROM child WHERE note = 'note 3' ORDER BY id",
    "SELECT count(*), sum(amount) FROM child WHERE id >= 3 AND id < 50",
    "SELECT c.id, p.name FROM child c, parent p WHERE c.id BETWEEN 20 AND 30 AND p.id = c.parent ORDER BY c.id",
    "SELECT id FROM child WHERE id = 11 FOR UPDATE",
    "UPDATE child SET amount = amount + 1, note = 'changed' WHERE id = 23 RETURNING id, amount, tag",
    "UPDATE child SET tag = 'tag 24' WHERE id = 23",
    "UPDATE child SET parent = 99 WHERE id = 5",
    "UPDATE child SET id = id + 1000, parent = 3 WHERE id BETWEEN 7 AND 9",
    "INSERT INTO child VALUES (1000, 4, 'tag 1000', 1, 'new') RETURNING id",
    "INSERT INTO child VALUES (1001, 99, 'tag 1001', 1, 'no parent')",
    "INSERT INTO child VALUES (1002, 1, 'tag 30', 1, 'a tag that is taken')",
    "INSERT INTO child VALUES (30, 1, 'tag 1003', 1, 'a key that is taken')",
    "INSERT INTO child VALUES (31, 2, 'tag 1004', 1, 'new') ON CONFLICT (id) DO UPDATE SET note = excluded.note, parent = 5",
    "INSERT INTO child VALUES (32, 2, 'tag 1005', 1, 'new') ON CONFLICT (id) DO NOTHING",
    "INSERT INTO heap VALUES (1, 'one')",
    "DELETE FROM child WHERE id BETWEEN 40 AND 44 RETURNING id, note",
    "DELETE FROM child WHERE id = 45",
];

/// A database whose rows lie in some segments, none of which is in memory.
async fn fill(directory: &Path) {
    let database = open(directory).await;
    let session = database.connect();
    session.execute_script(TABLES).await.unwrap();
    run(&session, "INSERT INTO parent SELECT v, 'parent ' || v FROM generate_series(0, 9) AS s(v)").await;
    for part in 0..4 {
        let rows = format!(
            "INSERT INTO child SELECT v, v % 10, 'tag ' || v, v * 1.25, 'note ' || v % 7
             FROM generate_series({part}, 59, 4) AS s(v)"
        );
        run(&session, &rows).await;
        run(&session, &format!("INSERT INTO heap VALUES ({part}, 'part')")).await;
        database.flush().await.unwrap();
    }
    drop(session);
    database.close().await.unwrap();
}

/// Rows, or tag and count, or SQLSTATE and message.
async fn outcome(session: &Session, sql: &str) -> Vec<String> {
    let result = match session.execute(sql, &[]).await {
        Ok(StatementResult::Rows(rows)) => lines(rows).await,
        Ok(StatementResult::Done(done)) => Ok(vec![format!("{} {:?}", done.tag, done.rows)]),
        Err(error) => Err(error),
    };
    let mut lines = result.unwrap_or_else(|error| vec![error.sqlstate().to_owned(), error.message().to_owned()]);
    // A statement without an order gives its rows in any.
    if !sql.contains("ORDER BY") {
        lines.sort();
    }
    lines
}

async fn contents(session: &Session) -> Vec<String> {
    let mut rows = query(session, "SELECT * FROM child ORDER BY id").await;
    rows.extend(query(session, "SELECT * FROM heap ORDER BY n, what").await);
    rows
}

#[tokio::test]
async fn the_statements_tried_here_are_on_the_row_path() {
    let session = memory().await;
    session.execute_script(TABLES).await.unwrap();
    for sql in STATEMENTS {
        // EXPLAIN does not take what locks; the query is compiled alike.
        let plan = query(&session, &format!("EXPLAIN {}", sql.trim_end_matches(" FOR UPDATE"))).await;
        assert!(plan.last().unwrap().starts_with("row_path|RowPath: "), "{sql}: {plan:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_meets_cold_segments_gives_what_the_ordinary_path_gives() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for directory in &directories {
        fill(directory.path()).await;
    }
    for sql in STATEMENTS {
        let mut seen = Vec::new();
        for (directory, row_path) in directories.iter().zip(["on", "off"]) {
            // Opened again, a database has nothing of its segments in memory.
            let database = open(directory.path()).await;
            let session = database.connect();
            session.set("row_path", row_path).await.unwrap();
            let outcome = outcome(&session, sql).await;
            seen.push((outcome, contents(&session).await));
            drop(session);
            database.close().await.unwrap();
        }
        let ordinary = seen.pop().unwrap();
        assert_eq!(seen, [ordinary], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_meets_cold_segments_sees_its_own_changes() {
    let mut seen = Vec::new();
    for row_path in ["on", "off"] {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path()).await;
        for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            let database = open(directory.path()).await;
            let session = database.connect();
            session.set("row_path", row_path).await.unwrap();
            run(&session, &format!("BEGIN ISOLATION LEVEL {level}")).await;
            for sql in STATEMENTS {
                run(&session, "SAVEPOINT s").await;
                let outcome = outcome(&session, sql).await;
                if session.transaction_status() == rustydb_engine::TransactionStatus::Failed {
                    run(&session, "ROLLBACK TO s").await;
                }
                seen.push(outcome);
            }
            seen.push(contents(&session).await);
            run(&session, "ROLLBACK").await;
            drop(session);
            database.close().await.unwrap();
        }
    }
    let half = seen.len() / 2;
    assert_eq!(seen[..half], seen[half..]);
}

/// A table in memory, and sessions on it with the row path on or off.
async fn sessions(row_path: &str, count: usize) -> Vec<Arc<Session>> {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&session, "INSERT INTO t SELECT v, 0 FROM generate_series(1, 5) AS s(v)").await;
    let mut all = Vec::new();
    for _ in 0..count {
        let own = session.database().connect();
        own.set("row_path", row_path).await.unwrap();
        all.push(Arc::new(own));
    }
    all
}

fn start(session: &Arc<Session>, sql: &'static str) -> JoinHandle<Vec<String>> {
    let session = Arc::clone(session);
    tokio::spawn(async move { outcome(&session, sql).await })
}

async fn until_waiting(database: &Database, transactions: usize) {
    while database.lock_waits() != transactions {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_a_lock_ends_as_on_the_ordinary_path() {
    const WAITING: &[&str] = &[
        "UPDATE t SET n = n + 10 WHERE id = 2 RETURNING n",
        "UPDATE t SET n = n + 10 WHERE id >= 1 AND id < 4",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (2, 7)",
        "INSERT INTO t VALUES (2, 7) ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n RETURNING n",
        "INSERT INTO t VALUES (2, 7) ON CONFLICT (id) DO UPDATE SET n = 8 WHERE t.n < 0 RETURNING n",
        "INSERT INTO t VALUES (2, 7) ON CONFLICT (id) DO NOTHING RETURNING n",
        "SELECT n FROM t WHERE id = 2 FOR UPDATE",
        "SELECT n FROM t WHERE id = 2 FOR KEY SHARE",
    ];
    for held in ["UPDATE t SET n = 1, id = 6 WHERE id = 2", "DELETE FROM t WHERE id = 2"] {
        for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            for (sql, ending) in WAITING.iter().flat_map(|sql| [(*sql, "COMMIT"), (*sql, "ROLLBACK")]) {
                let mut seen = Vec::new();
                for row_path in ["on", "off"] {
                    let sessions = sessions(row_path, 2).await;
                    let [holder, waiter] = &sessions[..] else { unreachable!() };
                    run(holder, "BEGIN").await;
                    run(holder, held).await;
                    run(waiter, &format!("BEGIN ISOLATION LEVEL {level}")).await;
                    // The snapshot is taken.
                    query(waiter, "SELECT n FROM t WHERE id = 1").await;
                    let waiting = start(waiter, sql);
                    until_waiting(holder.database(), 1).await;
                    run(holder, ending).await;
                    let waited = waiting.await.unwrap();
                    let ended = outcome(waiter, "COMMIT").await;
                    seen.push((waited, ended, query(holder, "SELECT * FROM t ORDER BY id").await));
                }
                let ordinary = seen.pop().unwrap();
                assert_eq!(seen, [ordinary], "{held}, {level}, {sql}, {ending}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_outside_of_transactions_wait_and_go_on_on_what_was_committed() {
    let mut seen = Vec::new();
    for row_path in ["on", "off"] {
        let sessions = sessions(row_path, 2).await;
        let [holder, waiter] = &sessions[..] else { unreachable!() };
        run(holder, "BEGIN").await;
        run(holder, "UPDATE t SET n = 5 WHERE id = 2").await;
        let waiting = start(waiter, "UPDATE t SET n = n * 2 WHERE id >= 1 AND id <= 3 RETURNING id, n");
        until_waiting(holder.database(), 1).await;
        run(holder, "COMMIT").await;
        seen.push((waiting.await.unwrap(), query(holder, "SELECT * FROM t ORDER BY id").await));
    }
    assert_eq!(seen[0].0, ["1|0", "2|10", "3|0"]);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_wait_to_know_whether_there_is_something_to_do_one_does_it() {
    for row_path in ["on", "off"] {
        let sessions = sessions(row_path, 3).await;
        let [holder, first, second] = &sessions[..] else { unreachable!() };
        run(holder, "BEGIN").await;
        run(holder, "DELETE FROM t WHERE id = 2").await;
        let insert = "INSERT INTO t VALUES (2, 7) ON CONFLICT (id) DO NOTHING";
        let waiting = [start(first, insert), start(second, insert)];
        until_waiting(holder.database(), 2).await;
        run(holder, "COMMIT").await;
        let mut seen = Vec::new();
        for waiting in waiting {
            seen.push(waiting.await.unwrap());
        }
        seen.sort();
        assert_eq!(seen, [["INSERT Some(0)"], ["INSERT Some(1)"]], "{row_path}");
        assert_eq!(query(holder, "SELECT n FROM t WHERE id = 2").await, ["7"], "{row_path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_waiting_for_a_lock_are_those_of_the_ordinary_path() {
    for row_path in ["on", "off"] {
        let sessions = sessions(row_path, 3).await;
        let [holder, waiter, third] = &sessions[..] else { unreachable!() };
        run(holder, "BEGIN").await;
        run(holder, "UPDATE t SET n = 5 WHERE id = 2").await;
        let state = |outcome: Vec<String>| outcome[0].clone();
        let change = "UPDATE t SET n = 1 WHERE id = 2";
        assert_eq!(
            state(outcome(waiter, "SELECT n FROM t WHERE id = 2 FOR UPDATE NOWAIT").await),
            "55P03",
            "{row_path}"
        );
        let free = "SELECT id FROM t WHERE id >= 1 AND id < 4 ORDER BY id FOR UPDATE SKIP LOCKED";
        assert_eq!(outcome(waiter, free).await, ["1", "3"], "{row_path}");
        let free = "SELECT id FROM t WHERE id >= 1 ORDER BY id LIMIT 2 OFFSET 1 FOR UPDATE SKIP LOCKED";
        assert_eq!(outcome(waiter, free).await, ["3", "4"], "{row_path}");
        waiter.set("lock_timeout", "5ms").await.unwrap();
        assert_eq!(state(outcome(waiter, change).await), "55P03", "{row_path}");
        waiter.set("lock_timeout", "0").await.unwrap();
        waiter.set("statement_timeout", "5ms").await.unwrap();
        assert_eq!(state(outcome(waiter, change).await), "57014", "{row_path}");
        assert_eq!(holder.database().lock_waits(), 0, "{row_path}: nobody waits any more");
        waiter.set("statement_timeout", "0").await.unwrap();

        run(waiter, "BEGIN").await;
        run(waiter, "UPDATE t SET n = 1 WHERE id = 4").await;
        let waiting = start(waiter, change);
        until_waiting(holder.database(), 1).await;
        assert_eq!(state(outcome(holder, "UPDATE t SET n = 1 WHERE id = 4").await), "40P01", "{row_path}");
        assert_eq!(waiting.await.unwrap(), ["UPDATE Some(1)"], "{row_path}");
        run(waiter, "COMMIT").await;
        run(holder, "ROLLBACK").await;
        let free = "SELECT n FROM t WHERE id = 2 FOR UPDATE NOWAIT";
        assert_eq!(outcome(third, free).await, ["1"], "{row_path}: no lock is left");
    }
}

/// Nobody's wait is for nothing: what a dropped statement has waited for goes to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_given_up_while_it_waits_leaves_the_queue() {
    let sessions = sessions("on", 3).await;
    let [holder, waiter, third] = &sessions[..] else { unreachable!() };
    run(holder, "BEGIN").await;
    run(holder, "UPDATE t SET n = 5 WHERE id = 2").await;
    run(waiter, "UPDATE t SET n = 0 WHERE id = 3").await;
    let waiting = start(waiter, "UPDATE t SET n = 1 WHERE id = 2");
    until_waiting(holder.database(), 1).await;
    waiting.abort();
    until_waiting(holder.database(), 0).await;
    let last = start(third, "UPDATE t SET n = n + 1 WHERE id = 2");
    until_waiting(holder.database(), 1).await;
    run(holder, "COMMIT").await;
    assert_eq!(last.await.unwrap(), ["UPDATE Some(1)"]);
    assert_eq!(query(third, "SELECT n FROM t WHERE id = 2").await, ["6"]);
}

/// Whether the rows are still what the snapshot shows takes the keys of segments that hold them, which the range did not take.
#[tokio::test(flavor = "multi_thread")]
async fn skip_locked_waits_for_cold_keys_and_then_locks_what_is_free() {
    for row_path in ["on", "off"] {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path()).await;
        let database = open(directory.path()).await;
        let connect = || database.connect();
        let (holder, waiter, other) = (connect(), connect(), connect());
        waiter.set("row_path", row_path).await.unwrap();
        run(&waiter, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        query(&waiter, "SELECT name FROM parent WHERE id = 1").await;
        run(&holder, "BEGIN").await;
        run(&holder, "DELETE FROM child WHERE id = 11").await;
        run(&other, "INSERT INTO heap VALUES (9, 'newer')").await;
        database.flush().await.unwrap();
        let free = "SELECT id, tag FROM child WHERE id BETWEEN 9 AND 20 ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED";
        assert_eq!(outcome(&waiter, free).await, ["9|tag 9", "10|tag 10", "12|tag 12"], "{row_path}");
        let taken = "SELECT id FROM child WHERE id BETWEEN 9 AND 14 ORDER BY id FOR UPDATE SKIP LOCKED";
        assert_eq!(outcome(&other, taken).await, ["13", "14"], "{row_path}: no other row is locked");
        drop((holder, waiter, other));
        database.close().await.unwrap();
    }
}

/// What a statement with SKIP LOCKED has locked before it met a change, it does not return when it runs again.
#[tokio::test(flavor = "multi_thread")]
async fn skip_locked_keeps_no_lock_of_rows_that_it_does_not_return() {
    for (row_path, level) in [("on", "READ COMMITTED"), ("off", "READ COMMITTED"), ("on", ""), ("off", "")] {
        let sessions = sessions(row_path, 3).await;
        let [holder, waiter, third] = &sessions[..] else { unreachable!() };
        run(holder, "BEGIN").await;
        run(holder, "LOCK TABLE t IN EXCLUSIVE MODE").await;
        if !level.is_empty() {
            run(waiter, &format!("BEGIN ISOLATION LEVEL {level}")).await;
        }
        // The snapshot is taken before it waits for the table.
        let waiting =
            start(waiter, "SELECT id FROM t WHERE id >= -5 AND id < 9 ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED");
        until_waiting(holder.database(), 1).await;
        run(holder, "INSERT INTO t VALUES (-1, 0), (0, 0)").await;
        run(holder, "UPDATE t SET n = 1 WHERE id = 2").await;
        run(holder, "COMMIT").await;
        assert_eq!(waiting.await.unwrap(), ["-1", "0"], "{row_path}, {level}");
        let first = "SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT";
        assert_eq!(outcome(third, first).await, ["1"], "{row_path}, {level}");
    }
}

/// Looks once at work that need not wait.
fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    match pin!(work).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Nobody can stop a program on its way, and the thread is its client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_looks_at_many_rows_is_left_to_the_ordinary_path() {
    let session = memory().await;
    run(&session, "CREATE TABLE few (id int PRIMARY KEY, k int)").await;
    run(&session, "CREATE TABLE many (k int, l int, n int, PRIMARY KEY (k, l))").await;
    run(&session, "INSERT INTO few SELECT v, 1 FROM generate_series(1, 50) AS s(v)").await;
    run(&session, "INSERT INTO many SELECT 1, v, v % 1000 FROM generate_series(1, 2000) AS s(v)").await;
    let sql = "SELECT count(*) FROM few f, many m WHERE f.id >= $1 AND f.id < $2 AND m.k = f.k AND m.n = 7";
    let plan = query(&session, &format!("EXPLAIN {}", sql.replace("$1", "1").replace("$2", "9"))).await;
    assert!(plan.last().unwrap().starts_with("row_path|RowPath: "), "{plan:?}");
    let prepared = session.prepare(sql).await.unwrap();
    // Six ranges of two thousand rows are on the row path, forty are not, of however few rows the answer is made.
    for (end, is_short) in [(7, true), (41, false)] {
        let parameters = [1, end].map(|id| Value::Int64(Some(id)));
        let Ok(StatementResult::Rows(rows)) = session.execute_prepared(&prepared, &parameters).await else { panic!() };
        assert_eq!(lines(rows).await.unwrap(), [(2 * (end - 1)).to_string()]);
        // The ordinary path's threads may be faster than a look at what they do, but not each time.
        let looks = (0..30).map(|_| at_once(session.execute_prepared(&prepared, &parameters)));
        assert_eq!(looks.filter(Option::is_some).count() == 30, is_short, "{end}");
    }
}
