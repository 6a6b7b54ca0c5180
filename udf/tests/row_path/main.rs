//! Routines on the row path against routines on the ordinary path: the same calls go to two databases, of which one has
//! `row_path` off. Answers, SQLSTATEs, messages and in the end all rows must be the same, wherever a CALL runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod waits;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use rustydb_engine::{Database, DatabaseOptions, Error, Prepared, Session, StatementResult, Value};

async fn connect() -> Session {
    let options = DatabaseOptions {
        query_threads: Some(2),
        memory_limit: Some(1 << 30),
        languages: rustydb_udf::languages(),
        ..DatabaseOptions::memory()
    };
    Database::open(options).await.unwrap().connect()
}

/// The rows of a result, `1|abc|NULL` each, or its tag and count.
async fn shown(result: StatementResult) -> Result<Vec<String>, Error> {
    let rows = match result {
        StatementResult::Done(done) => return Ok(vec![format!("{} {:?}", done.tag, done.rows)]),
        StatementResult::Rows(rows) => rows,
    };
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in rows.collect().await? {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    Ok(lines)
}

async fn run(session: &Session, sql: &str) -> Result<Vec<String>, Error> {
    match session.execute(sql, &[]).await {
        Ok(result) => shown(result).await,
        Err(error) => Err(error),
    }
}

async fn rows(session: &Session, sql: &str) -> Vec<String> {
    run(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

async fn call(session: &Session, prepared: &Prepared, parameters: &[Value]) -> Result<Vec<String>, Error> {
    match session.execute_prepared(prepared, parameters).await {
        Ok(result) => shown(result).await,
        Err(error) => Err(error),
    }
}

/// Rows as text, or SQLSTATE and message.
type Outcome = Result<Vec<String>, (String, String)>;

/// What a client sees of an outcome, and what was said on the way.
fn seen(session: &Session, outcome: Result<Vec<String>, Error>) -> (Outcome, Vec<String>) {
    let outcome = outcome.map_err(|error| (error.sqlstate().to_owned(), error.message().to_owned()));
    let notices = session.take_notices().into_iter().map(|notice| notice.message.message().to_owned());
    (outcome, notices.collect())
}

const TABLES: &str = "
    CREATE TABLE accounts (branch int, id int, balance numeric(12,2) NOT NULL CHECK (balance >= -100), note varchar(8),
                           changed timestamp, PRIMARY KEY (branch, id));
    CREATE INDEX accounts_by_note ON accounts (branch, note, id);
    CREATE TABLE entries (branch int, id int, number int, amount numeric(12,2), PRIMARY KEY (branch, id, number),
                          FOREIGN KEY (branch, id) REFERENCES accounts);
    CREATE TABLE log (at bigint, what text);
    INSERT INTO accounts SELECT v / 5, v % 5, v * 10, 'n' || v % 3, NULL FROM generate_series(0, 19) AS s(v);
";

const ROUTINES: &[&str] = &[
    "CREATE PROCEDURE deposit(b int, i int, amount numeric(12,2), INOUT left_over numeric(12,2), INOUT old text)
     LANGUAGE plpgsql AS $$
     DECLARE
         n int;
         factor numeric(4,2) := 1.05;
     BEGIN
         SELECT note INTO old FROM accounts WHERE branch = b AND id = i;
         IF NOT FOUND THEN
             RAISE EXCEPTION 'no account % of %', i, b USING ERRCODE = 'P0002';
         END IF;
         UPDATE accounts SET balance = balance + deposit.amount, changed = '2020-01-01 00:00:00'
             WHERE branch = b AND id = i RETURNING balance INTO left_over;
         SELECT count(*) + 1 INTO n FROM entries WHERE entries.branch = b AND entries.id = i;
         INSERT INTO entries VALUES (b, i, n, deposit.amount);
         left_over := round(left_over * factor, 1);
         RAISE NOTICE 'account % has %', i, left_over;
     END; $$",
    "CREATE PROCEDURE sums(b int, INOUT total numeric(14,2), INOUT notes text, INOUT n int) LANGUAGE plpgsql AS $$
     DECLARE r record;
     BEGIN
         total := 0; notes := ''; n := 0;
         FOR r IN SELECT id, balance, note FROM accounts WHERE branch = b ORDER BY id LOOP
             total := total + r.balance;
             notes := notes || coalesce(r.note, '-') || r.id || ';';
             n := n + 1;
             CONTINUE WHEN r.id < 3;
             INSERT INTO log VALUES (r.id, notes);
         END LOOP;
         IF n = 0 THEN notes := NULL; END IF;
     END; $$",
    // A block that undoes what failed in it, once per turn.
    "CREATE PROCEDURE careful(b int, n int, INOUT done int, INOUT failed int) LANGUAGE plpgsql AS $$
     BEGIN
         done := 0; failed := 0;
         FOR i IN 1..n LOOP
             BEGIN
                 INSERT INTO accounts VALUES (b, i, i, 'c');
                 UPDATE accounts SET note = 'more' WHERE branch = b AND id = i - 1;
                 INSERT INTO accounts VALUES (b, i + 1, 10 / (i % 4), NULL);
                 DELETE FROM accounts WHERE branch = b AND id = i + 1;
                 done := done + 1;
             EXCEPTION
                 WHEN division_by_zero THEN failed := failed + 1;
                 WHEN unique_violation OR check_violation THEN failed := failed + 100;
                     RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
             END;
         END LOOP;
     END; $$",
    "CREATE PROCEDURE picks(items int[], INOUT r text) LANGUAGE plpgsql AS $$
     DECLARE v int;
     BEGIN
         r := '';
         FOR i IN 0..coalesce(array_length(items, 1), 0) + 1 LOOP
             r := r || coalesce(items[i]::text, 'null') || ',';
         END LOOP;
         FOREACH v IN ARRAY items LOOP r := r || v; END LOOP;
     END; $$",
    "CREATE PROCEDURE changes(b int, INOUT updated int, INOUT deleted int, INOUT seen boolean) LANGUAGE plpgsql AS $$
     BEGIN
         UPDATE accounts SET balance = balance * 2 WHERE branch = b AND id > 1;
         GET DIAGNOSTICS updated = ROW_COUNT;
         DELETE FROM entries WHERE branch = b AND id = 1;
         GET DIAGNOSTICS deleted = ROW_COUNT;
         PERFORM 1 FROM accounts WHERE branch = b AND id = 0 FOR UPDATE;
         seen := FOUND;
         INSERT INTO accounts VALUES (b, 50, 1, 'up') ON CONFLICT (branch, id) DO UPDATE SET balance = accounts.balance + 1;
     END; $$",
    "CREATE FUNCTION balance_of(b int, i int) RETURNS numeric(12,2) LANGUAGE plpgsql AS $$
     BEGIN
         RETURN (SELECT balance FROM accounts WHERE branch = b AND id = i);
     END; $$",
    "CREATE FUNCTION label(b int, i int) RETURNS text LANGUAGE sql AS $$
         SELECT note || '/' || id FROM accounts WHERE branch = b AND accounts.id = i $$",
    "CREATE PROCEDURE outer_call(b int, INOUT total numeric(14,2), INOUT label text) LANGUAGE plpgsql AS $$
     DECLARE notes text; n int;
     BEGIN
         CALL sums(b, total, notes, n);
         IF n > 2 THEN total := total + balance_of(b, 1); END IF;
         label := label(b, 2);
     END; $$",
];

const CALLS: &[(&str, &str)] = &[
    ("CALL deposit($1, $2, $3, NULL, NULL)", "iin"),
    ("CALL sums($1, NULL, NULL, NULL)", "i"),
    ("CALL careful($1, $2, NULL, NULL)", "ii"),
    ("CALL picks($1, NULL)", "a"),
    ("CALL changes($1, NULL, NULL, NULL)", "i"),
    ("CALL outer_call($1, NULL, NULL)", "i"),
    ("SELECT balance_of($1, $2), label($2, $1)", "ii"),
    ("SELECT id, balance_of(branch, id), label(branch, id) FROM accounts WHERE branch = $1 ORDER BY id", "i"),
];

/// A small generator: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 16) % end
    }

    fn value(&mut self, kind: char) -> Value {
        match kind {
            'i' if self.below(12) == 0 => Value::Int32(None),
            'i' => Value::Int32(Some(self.below(7) as i32)),
            'a' => {
                let number =
                    |random: &mut Random| Value::Int32((random.below(5) > 0).then(|| random.below(100) as i32));
                let numbers: Vec<Value> = (0..self.below(4)).map(|_| number(self)).collect();
                Value::List(Value::new_list_nullable(&numbers, &arrow::datatypes::DataType::Int32))
            }
            _ if self.below(10) == 0 => Value::Decimal128(None, 12, 2),
            _ => Value::Decimal128(Some(i128::from(self.below(40_000)) - 20_000), 12, 2),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routines_do_the_same_on_the_row_path_and_on_the_ordinary_path() {
    let (with, without) = (connect().await, connect().await);
    for session in [&with, &without] {
        session.execute_script(TABLES).await.unwrap();
        for routine in ROUTINES {
            session.execute(routine, &[]).await.unwrap_or_else(|error| panic!("{routine}: {error:?}"));
        }
    }
    without.execute_script("SET row_path = off").await.unwrap();
    let mut prepared = Vec::new();
    for (sql, kinds) in CALLS {
        prepared.push((with.prepare(sql).await.unwrap(), without.prepare(sql).await.unwrap(), *kinds));
    }
    let mut random = Random(7);
    let mut in_transaction = false;
    for step in 0..60 {
        if random.below(8) == 0 {
            let control = match (in_transaction, random.below(3)) {
                (false, _) => "BEGIN",
                (true, 0) => "ROLLBACK",
                (true, _) => "COMMIT",
            };
            in_transaction = !in_transaction;
            assert_eq!(
                seen(&with, run(&with, control).await),
                seen(&without, run(&without, control).await),
                "{control}"
            );
        }
        let (first, second, kinds) = &prepared[random.below(CALLS.len() as u64) as usize];
        let parameters: Vec<Value> = kinds.chars().map(|kind| random.value(kind)).collect();
        let (found, expected) = (call(&with, first, &parameters).await, call(&without, second, &parameters).await);
        let what = format!("step {step}: {} {parameters:?}", first.sql());
        assert_eq!(seen(&with, found), seen(&without, expected), "{what}");
    }
    for session in [&with, &without] {
        if in_transaction {
            run(session, "COMMIT").await.unwrap();
        }
    }
    for table in ["accounts", "entries", "log"] {
        let query =
            format!("SELECT * FROM {table} ORDER BY 1, 2, 3").replace("log ORDER BY 1, 2, 3", "log ORDER BY 1, 2");
        assert_eq!(rows(&with, &query).await, rows(&without, &query).await, "{table}");
    }
}

/// Looks once at work that should not have to wait.
fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    match pin!(work).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_call_runs_on_the_task_of_its_client() {
    let session = connect().await;
    session.execute_script(TABLES).await.unwrap();
    for routine in ROUTINES {
        session.execute(routine, &[]).await.unwrap();
    }
    session.execute_script("SET synchronous_commit = off").await.unwrap();
    let deposit = session.prepare("CALL deposit($1, $2, $3, NULL, NULL)").await.unwrap();
    let parameters = |id| [Value::Int32(Some(1)), Value::Int32(Some(id)), Value::Decimal128(Some(100), 12, 2)];
    // The first compiles it.
    call(&session, &deposit, &parameters(1)).await.unwrap();
    for _ in 0..3 {
        let result = at_once(session.execute_prepared(&deposit, &parameters(1)));
        assert!(matches!(result, Some(Ok(StatementResult::Rows(_)))), "{result:?}");
    }
    // Its error, too, once the statement that raises it is compiled.
    assert_eq!(call(&session, &deposit, &parameters(99)).await.unwrap_err().sqlstate(), "P0002");
    let failed = at_once(session.execute_prepared(&deposit, &parameters(99)));
    assert!(matches!(failed, Some(Err(error)) if error.sqlstate() == "P0002"));
    session.execute_script("BEGIN; INSERT INTO log VALUES (1, 'mine')").await.unwrap();
    assert!(matches!(at_once(session.execute_prepared(&deposit, &parameters(2))), Some(Ok(_))));
    session.execute_script("COMMIT").await.unwrap();
    assert_eq!(rows(&session, "SELECT count(*) FROM entries WHERE id = 1").await, ["4"]);
    assert_eq!(rows(&session, "SELECT count(*) FROM entries WHERE id = 2").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_has_done_before_it_moves_to_the_threads_of_queries_is_done_once() {
    let session = connect().await;
    session
        .execute_script(
            "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE said (what text); INSERT INTO t VALUES (1, 0)",
        )
        .await
        .unwrap();
    // The second statement is none of the row path's.
    session
        .execute(
            "CREATE PROCEDURE p(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE t SET n = t.n + 1 WHERE id = 1;
                 RAISE NOTICE 'once';
                 INSERT INTO said SELECT 'row ' || g FROM generate_series(1, 2) AS s(g);
                 SELECT t.n INTO n FROM t WHERE id = 1;
             END; $$",
            &[],
        )
        .await
        .unwrap();
    let prepared = session.prepare("CALL p(NULL)").await.unwrap();
    for turn in 1..=3 {
        assert_eq!(call(&session, &prepared, &[]).await.unwrap(), [turn.to_string()]);
        assert_eq!(session.take_notices().len(), 1);
    }
    session.execute_script("BEGIN; UPDATE t SET n = 10 WHERE id = 1").await.unwrap();
    assert_eq!(call(&session, &prepared, &[]).await.unwrap(), ["11"]);
    session.execute_script("COMMIT").await.unwrap();
    assert_eq!(rows(&session, "SELECT count(*) FROM said").await, ["8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routine_goes_on_after_its_tables_were_changed_or_made_again() {
    let session = connect().await;
    session.execute_script("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 10)").await.unwrap();
    session
        .execute(
            "CREATE PROCEDURE p(i int, INOUT n text) LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE t SET n = t.n + 1 WHERE id = i;
                 SELECT t.n INTO n FROM t WHERE id = i;
             END; $$",
            &[],
        )
        .await
        .unwrap();
    let prepared = session.prepare("CALL p($1, NULL)").await.unwrap();
    let one = [Value::Int32(Some(1))];
    for (change, expected) in [
        ("", "11"),
        ("ALTER TABLE t ADD COLUMN extra text DEFAULT 'x'", "12"),
        ("CREATE INDEX t_n ON t (n)", "13"),
        ("ALTER TABLE t RENAME TO other; ALTER TABLE other RENAME TO t", "14"),
        ("DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, n numeric(8,2)); INSERT INTO t VALUES (1, 0.5)", "1.50"),
        ("DROP TABLE t; CREATE TABLE t (n int, id int); INSERT INTO t VALUES (7, 1)", "8"),
    ] {
        session.execute_script(change).await.unwrap();
        for _ in 0..2 {
            session.execute_script("BEGIN").await.unwrap();
            assert_eq!(call(&session, &prepared, &one).await.unwrap(), [expected], "{change}");
            session.execute_script("ROLLBACK").await.unwrap();
        }
        assert_eq!(call(&session, &prepared, &one).await.unwrap(), [expected], "{change}");
    }
    session.execute_script("DROP TABLE t").await.unwrap();
    assert_eq!(call(&session, &prepared, &one).await.unwrap_err().sqlstate(), "42P01");
    session
        .execute_script("CREATE OR REPLACE PROCEDURE p(i int, INOUT n text) LANGUAGE sql AS $$ SELECT 'new' $$")
        .await
        .unwrap();
    assert_eq!(call(&session, &prepared, &one).await.unwrap(), ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_is_meant_from_when_it_is_there_and_by_its_session_only() {
    let session = connect().await;
    let other = session.database().connect();
    session.execute_script("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)").await.unwrap();
    session
        .execute(
            "CREATE PROCEDURE p(INOUT r int) LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE t SET n = n + 1 WHERE id = 1 RETURNING n INTO r;
             END; $$",
            &[],
        )
        .await
        .unwrap();
    let (mine, others) = (session.prepare("CALL p(NULL)").await.unwrap(), other.prepare("CALL p(NULL)").await.unwrap());
    for n in 2..4 {
        assert_eq!(call(&session, &mine, &[]).await.unwrap(), [n.to_string()]);
    }
    session
        .execute_script("CREATE TEMPORARY TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 100)")
        .await
        .unwrap();
    for n in [101, 102] {
        assert_eq!(call(&session, &mine, &[]).await.unwrap(), [n.to_string()]);
        assert_eq!(call(&other, &others, &[]).await.unwrap(), [(n - 97).to_string()]);
    }
    session.execute_script("DROP TABLE t").await.unwrap();
    assert_eq!(call(&session, &mine, &[]).await.unwrap(), ["6"]);
    assert_eq!(rows(&other, "SELECT n FROM t").await, ["6"]);
}
