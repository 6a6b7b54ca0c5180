//! Statements of routines that cannot be run at once: a lock that somebody has, parts of segments that are not in memory, a
//! result that does not fit. What comes of them is what comes of them with `row_path` off.

use std::future::Future;

use rustydb_engine::{Database, DatabaseOptions, Prepared, Session, StatementResult, Value};

use super::{at_once, call, connect, rows, run, seen};

/// A table, and a procedure that changes and reads it in every way that a routine runs statements in.
async fn with_counters(session: &Session) {
    session
        .execute_script(
            "CREATE TABLE counters (id int PRIMARY KEY, n int, note text);
             CREATE INDEX counters_note ON counters (note);
             INSERT INTO counters SELECT v, 0, 'note ' || v % 3 FROM generate_series(0, 29) AS s(v);",
        )
        .await
        .unwrap();
    session
        .execute(
            "CREATE PROCEDURE count_up(first int, INOUT total int, INOUT seen int) LANGUAGE plpgsql AS $$
             DECLARE r record; v int;
             BEGIN
                 seen := 0;
                 UPDATE counters SET n = n + 1 WHERE id = first;
                 UPDATE counters SET n = n + 2 WHERE id = first + 1 RETURNING n INTO STRICT v;
                 PERFORM n FROM counters WHERE id = first + 2 FOR UPDATE;
                 IF FOUND THEN v := v + 100; END IF;
                 FOR r IN SELECT id, n FROM counters WHERE note = 'note 1' AND id < 100 LOOP
                     seen := seen + r.n;
                 END LOOP;
                 INSERT INTO counters VALUES (first + 1000, v, 'new');
                 SELECT n INTO total FROM counters WHERE id = first;
                 total := total + v;
                 DELETE FROM counters WHERE id = first + 1000;
             END; $$",
            &[],
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_lock_goes_on_as_on_the_ordinary_path() {
    for level in ["read committed", "repeatable read", "serializable"] {
        for held in ["UPDATE counters SET n = n + 10 WHERE id = 4", "DELETE FROM counters WHERE id = 5"] {
            for ending in ["COMMIT", "ROLLBACK"] {
                for inside in [false, true] {
                    let mut outcomes = Vec::new();
                    for row_path in ["on", "off"] {
                        let session = connect().await;
                        with_counters(&session).await;
                        session.set("row_path", row_path).await.unwrap();
                        session.set("default_transaction_isolation", level).await.unwrap();
                        let prepared = session.prepare("CALL count_up(4, NULL, NULL)").await.unwrap();
                        // From the second time on it runs on its client's own task.
                        for _ in 0..3 {
                            call(&session, &prepared, &[]).await.unwrap();
                        }
                        let holder = session.database().connect();
                        holder.execute_script(&format!("BEGIN; {held}")).await.unwrap();
                        if inside {
                            session.execute("BEGIN", &[]).await.unwrap();
                            rows(&session, "SELECT n FROM counters WHERE id = 1").await;
                        }
                        let database = session.database().clone();
                        let ends = async {
                            while database.lock_waits() == 0 {
                                tokio::task::yield_now().await;
                            }
                            holder.execute(ending, &[]).await.unwrap();
                        };
                        let (outcome, ()) = tokio::join!(call(&session, &prepared, &[]), ends);
                        let outcome = seen(&session, outcome);
                        if inside {
                            session.execute("COMMIT", &[]).await.unwrap();
                        }
                        outcomes.push((outcome, rows(&holder, "SELECT * FROM counters ORDER BY id").await));
                    }
                    let ordinary = outcomes.pop().unwrap();
                    assert_eq!(outcomes, [ordinary], "{level}, {held}, {ending}, inside a transaction: {inside}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_meets_cold_segments_gives_what_the_ordinary_path_gives() {
    let mut seen = Vec::new();
    for row_path in ["on", "off"] {
        let directory = std::env::temp_dir().join(format!("rustydb-cold-call-{}-{row_path}", std::process::id()));
        let options = || DatabaseOptions {
            query_threads: Some(2),
            memory_limit: Some(1 << 30),
            languages: rustydb_udf::languages(),
            ..DatabaseOptions::directory(&directory)
        };
        let database = Database::open(options()).await.unwrap();
        with_counters(&database.connect()).await;
        database.flush().await.unwrap();
        database.close().await.unwrap();
        for turn in 0..3 {
            // Opened again, a database has nothing of its segments in memory.
            let database = Database::open(options()).await.unwrap();
            let session = database.connect();
            session.set("row_path", row_path).await.unwrap();
            let sql = format!("CALL count_up({}, NULL, NULL)", turn * 3 + 1);
            seen.push(rows(&session, &sql).await);
            seen.push(rows(&session, &sql).await);
            seen.push(rows(&session, "SELECT * FROM counters ORDER BY id").await);
            drop(session);
            database.flush().await.unwrap();
            database.close().await.unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
    let half = seen.len() / 2;
    assert_eq!(seen[..half], seen[half..]);
}

/// What a statement gives is used after it has run: if it does not fit, the error is said once, and the change is undone with
/// the call, or stays in front of a handler's block.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_does_not_fit_fails_after_the_change_was_made_once() {
    let mut outcomes = Vec::new();
    for row_path in ["on", "off"] {
        let session = connect().await;
        with_counters(&session).await;
        session.set("row_path", row_path).await.unwrap();
        for sql in [
            "CREATE PROCEDURE strict(i int, INOUT r text) LANGUAGE plpgsql AS $$ DECLARE v varchar(2); m int NOT NULL := 0; BEGIN
                 UPDATE counters SET n = n + 1 WHERE id = i;
                 BEGIN
                     UPDATE counters SET n = n + 10 WHERE id = i RETURNING note INTO v;
                     r := 'fits';
                 EXCEPTION WHEN string_data_right_truncation THEN r := SQLERRM;
                 END;
                 BEGIN
                     UPDATE counters SET n = n + 100 WHERE id >= i AND id < i + 2 RETURNING n INTO m;
                 EXCEPTION WHEN too_many_rows THEN r := r || SQLERRM;
                 END;
                 BEGIN
                     UPDATE counters SET n = n + 1000 WHERE id = i AND n < 0 RETURNING n INTO STRICT m;
                 EXCEPTION WHEN no_data_found THEN r := r || SQLERRM;
                 END;
                 BEGIN
                     SELECT n INTO m FROM counters WHERE id = -1;
                 EXCEPTION WHEN null_value_not_allowed THEN r := r || SQLERRM;
                 END;
             END; $$",
            "CREATE PROCEDURE lost(i int) LANGUAGE plpgsql AS $$ DECLARE v varchar(2); BEGIN
                 UPDATE counters SET n = n + 1 WHERE id = i RETURNING note INTO v;
             END; $$",
        ] {
            session.execute(sql, &[]).await.unwrap();
        }
        for _ in 0..3 {
            for sql in ["CALL strict(3, NULL)", "CALL lost(4)"] {
                let prepared = session.prepare(sql).await.unwrap();
                let outcome = call(&session, &prepared, &[]).await;
                outcomes.push(seen(&session, outcome));
                outcomes.push((Ok(rows(&session, "SELECT * FROM counters ORDER BY id").await), Vec::new()));
            }
        }
    }
    let half = outcomes.len() / 2;
    assert_eq!(outcomes[..half], outcomes[half..]);
}

/// What was done in the block before is undone, and its locks go, if waiting ends with an error that the block handles.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_waits_for_a_lock_goes_on_or_is_undone_as_on_the_ordinary_path() {
    const GUARDED: &str = "CREATE PROCEDURE guarded(INOUT said text) LANGUAGE plpgsql AS $$ BEGIN
             UPDATE counters SET n = n + 1 WHERE id = 3;
             BEGIN
                 UPDATE counters SET n = n + 10 WHERE id = 6;
                 UPDATE counters SET n = n + 100 WHERE id = 4;
                 said := 'changed';
             EXCEPTION
                 WHEN lock_not_available THEN said := 'gave up';
                 WHEN serialization_failure THEN said := 'met a change';
             END;
             UPDATE counters SET n = n + 1000 WHERE id = 7;
         END; $$";
    for level in ["read committed", "repeatable read", "serializable"] {
        // Whether it is within a transaction, and when the holder of the lock ends.
        for (inside, ending) in [(false, "COMMIT"), (true, "COMMIT"), (true, "ROLLBACK"), (false, ""), (true, "")] {
            let mut outcomes = Vec::new();
            for row_path in ["on", "off"] {
                let session = connect().await;
                with_counters(&session).await;
                session.execute(GUARDED, &[]).await.unwrap();
                session.set("row_path", row_path).await.unwrap();
                session.set("default_transaction_isolation", level).await.unwrap();
                let prepared = session.prepare("CALL guarded(NULL)").await.unwrap();
                for _ in 0..2 {
                    call(&session, &prepared, &[]).await.unwrap();
                }
                let database = session.database().clone();
                let (holder, other) = (database.connect(), database.connect());
                holder.execute_script("BEGIN; UPDATE counters SET n = n + 7 WHERE id = 4").await.unwrap();
                if inside {
                    session.execute("BEGIN", &[]).await.unwrap();
                    rows(&session, "SELECT n FROM counters WHERE id = 1").await;
                }
                let outcome = match ending {
                    "" => {
                        session.set("lock_timeout", "5ms").await.unwrap();
                        call(&session, &prepared, &[]).await
                    }
                    ending => {
                        let ends = async {
                            while database.lock_waits() == 0 {
                                tokio::task::yield_now().await;
                            }
                            holder.execute(ending, &[]).await.unwrap();
                        };
                        tokio::join!(call(&session, &prepared, &[]), ends).0
                    }
                };
                let outcome = seen(&session, outcome);
                let free = run(&other, "SELECT id FROM counters WHERE id >= 3 AND id < 8 FOR UPDATE SKIP LOCKED").await;
                let free = free.map_err(|error| error.sqlstate().to_owned());
                if inside {
                    session.execute("COMMIT", &[]).await.unwrap();
                }
                if ending.is_empty() {
                    holder.execute("ROLLBACK", &[]).await.unwrap();
                    let undone = if inside { &["5", "6"][..] } else { &["3", "5", "6", "7"] };
                    assert_eq!(
                        (&outcome.0, &free),
                        (&Ok(vec!["gave up".to_owned()]), &Ok(undone.iter().map(|id| (*id).to_owned()).collect()))
                    );
                }
                outcomes.push((outcome, free, rows(&holder, "SELECT * FROM counters ORDER BY id").await));
            }
            let ordinary = outcomes.pop().unwrap();
            assert_eq!(outcomes, [ordinary], "{level}, {ending}, inside a transaction: {inside}");
        }
    }
}

/// A table of which a statement can look at many rows, and a procedure that does so `n` times.
async fn with_many_rows(session: &Session) -> Prepared {
    session
        .execute_script(
            "CREATE TABLE many (k int, l int, PRIMARY KEY (k, l));
             INSERT INTO many SELECT 1, v FROM generate_series(1, 8000) AS s(v);",
        )
        .await
        .unwrap();
    session
        .execute(
            "CREATE PROCEDURE look(n int, INOUT total bigint) LANGUAGE plpgsql AS $$
             DECLARE found bigint;
             BEGIN
                 total := 0;
                 FOR i IN 1..n LOOP
                     SELECT count(*) INTO found FROM many WHERE k = 1;
                     total := total + found;
                 END LOOP;
             END; $$",
            &[],
        )
        .await
        .unwrap();
    session.prepare("CALL look($1, NULL)").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_looks_at_many_rows_lets_others_run() {
    let session = connect().await;
    let look = with_many_rows(&session).await;
    let times = |n| [Value::Int32(Some(n))];
    // The first compiles it.
    assert_eq!(call(&session, &look, &times(2)).await.unwrap(), ["16000"]);
    let result = at_once(session.execute_prepared(&look, &times(1)));
    assert!(matches!(result, Some(Ok(StatementResult::Rows(_)))), "{result:?}");
    assert!(at_once(session.execute_prepared(&look, &times(3))).is_none(), "far from 256 jumps");
    assert_eq!(call(&session, &look, &times(3)).await.unwrap(), ["24000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_looks_at_many_rows_ends_when_its_time_is_up() {
    let session = connect().await;
    let look = with_many_rows(&session).await;
    let statements = "SELECT count(*) INTO total FROM many WHERE k = 1;".repeat(40);
    let straight =
        format!("CREATE PROCEDURE straight(INOUT total bigint) LANGUAGE plpgsql AS $$ BEGIN {statements} END $$");
    session.execute(&straight, &[]).await.unwrap();
    let straight = session.prepare("CALL straight(NULL)").await.unwrap();
    // The first time they are compiled.
    assert_eq!(call(&session, &look, &[Value::Int32(Some(1))]).await.unwrap(), ["8000"]);
    assert_eq!(call(&session, &straight, &[]).await.unwrap(), ["8000"]);
    // Here on the task of the client, where a jump is no place to stop at before there were 256.
    session.set("statement_timeout", "1ms").await.unwrap();
    assert_eq!(call(&session, &look, &[Value::Int32(Some(200))]).await.unwrap_err().sqlstate(), "57014");
    assert_eq!(call(&session, &straight, &[]).await.unwrap_err().sqlstate(), "57014");
    // And on the threads of queries.
    session.set("statement_timeout", "100ms").await.unwrap();
    let block = "DO $$ DECLARE total bigint; BEGIN CALL look(250, total); END $$";
    assert_eq!(run(&session, block).await.unwrap_err().sqlstate(), "57014");
}

/// How many values were read of segments while something was done.
async fn values_read<T>(database: &Database, work: impl Future<Output = T>) -> u64 {
    let before = database.memory().column_cache_hits;
    work.await;
    database.memory().column_cache_hits - before
}

/// A routine hands on what its first attempt has met.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_a_routine_looks_at_its_rows_no_more_often_than_one_outside() {
    const CHANGE: &str = "UPDATE spread SET n = n + 1 WHERE id = 4";
    const READ: &str = "SELECT f * 2 FROM spread WHERE id = 5";
    let session = connect().await;
    session
        .execute_script(
            "CREATE TABLE spread (id int PRIMARY KEY, n int, f double precision);
             INSERT INTO spread SELECT v, v, 'NaN' FROM generate_series(1, 9) AS s(v);",
        )
        .await
        .unwrap();
    for (name, statement) in [("change", CHANGE), ("read", READ)] {
        let statement = statement.replace("f * 2 FROM", "f * 2 INTO x FROM");
        let body = format!("DECLARE x double precision; BEGIN {statement}; END;");
        session.execute(&format!("CREATE PROCEDURE {name}() LANGUAGE plpgsql AS $$ {body} $$"), &[]).await.unwrap();
    }
    let database = session.database().clone();
    database.flush().await.unwrap();
    let holder = database.connect();
    // A lock that is waited for: twice it looks, before and after.
    let mut read = Vec::new();
    for sql in [CHANGE, "CALL change()"] {
        let prepared = session.prepare(sql).await.unwrap();
        for _ in 0..2 {
            session.execute_script("BEGIN").await.unwrap();
            call(&session, &prepared, &[]).await.unwrap();
            session.execute_script("ROLLBACK").await.unwrap();
        }
        holder.execute_script(&format!("BEGIN; {CHANGE}")).await.unwrap();
        session.execute_script("BEGIN").await.unwrap();
        let ends = async {
            while database.lock_waits() == 0 {
                tokio::task::yield_now().await;
            }
            holder.execute("ROLLBACK", &[]).await.unwrap();
        };
        read.push(values_read(&database, async { tokio::join!(call(&session, &prepared, &[]), ends) }).await);
        session.execute_script("ROLLBACK").await.unwrap();
    }
    assert!(read[0] > 0);
    assert_eq!(read[0], read[1], "of a lock");
    // Something that is not plain: once, and then the ordinary path.
    let mut read = Vec::new();
    for sql in [READ, "CALL read()"] {
        let prepared = session.prepare(sql).await.unwrap();
        for _ in 0..3 {
            call(&session, &prepared, &[]).await.unwrap();
        }
        read.push(values_read(&database, call(&session, &prepared, &[])).await);
    }
    assert!(read[0] > 0);
    assert_eq!(read[0], read[1], "of what is undecided");
}
