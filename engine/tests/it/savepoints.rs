//! SAVEPOINT, ROLLBACK TO, RELEASE: what they keep, what they undo, and the way back from a failure.

use rustydb_engine::{Session, TransactionStatus};

use crate::helpers::*;

async fn with_table() -> Session {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    run(&session, "INSERT INTO t VALUES (1, 1)").await;
    session
}

#[tokio::test]
async fn rolling_back_to_a_savepoint_undoes_what_came_after_it() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    assert_eq!(run(&session, "SAVEPOINT a").await.tag, "SAVEPOINT");
    run(&session, "UPDATE t SET v = 10").await;
    run(&session, "CREATE TABLE u (a int)").await;
    run(&session, "SAVEPOINT b").await;
    run(&session, "DELETE FROM t").await;
    assert_eq!(run(&session, "ROLLBACK TO b").await.tag, "ROLLBACK");
    assert_eq!(query(&session, "SELECT * FROM t ORDER BY id").await, ["1|10", "2|10"]);
    assert_eq!(query(&session, "SELECT * FROM u").await, [""; 0]);
    run(&session, "ROLLBACK WORK TO SAVEPOINT a").await;
    assert_eq!(query(&session, "SELECT * FROM t ORDER BY id").await, ["1|1", "2|2"]);
    assert_eq!(error(&session, "SELECT * FROM u").await.sqlstate(), "42P01");
    run(&session, "ROLLBACK TO a").await;
    run(&session, "COMMIT").await;
    assert_eq!(query(&session, "SELECT * FROM t ORDER BY id").await, ["1|1", "2|2"]);
}

#[tokio::test]
async fn a_savepoint_leads_out_of_the_failed_state() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t VALUES (3, 3)").await;
    assert_eq!(error(&session, "INSERT INTO t VALUES (1, 1)").await.sqlstate(), "23505");
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    assert_errors(&session, &[("SELECT 1", "25P02"), ("SAVEPOINT b", "25P02"), ("RELEASE a", "25P02")]).await;
    assert_eq!(error(&session, "ROLLBACK TO nope").await.sqlstate(), "3B001");
    run(&session, "ROLLBACK TO a").await;
    assert_eq!(session.transaction_status(), TransactionStatus::Active);
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
    run(&session, "COMMIT").await;
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
}

#[tokio::test]
async fn names_may_repeat_and_the_newest_counts() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t VALUES (3, 3)").await;
    run(&session, "ROLLBACK TO a").await;
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
    assert_eq!(run(&session, "RELEASE SAVEPOINT a").await.tag, "RELEASE");
    run(&session, "ROLLBACK TO a").await;
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1"]);
    run(&session, "RELEASE a").await;
    assert_eq!(error(&session, "RELEASE a").await.sqlstate(), "3B001");
    run(&session, "ROLLBACK").await;
}

#[tokio::test]
async fn a_released_savepoint_keeps_the_changes() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "SAVEPOINT b").await;
    run(&session, "INSERT INTO t VALUES (3, 3)").await;
    run(&session, "RELEASE a").await;
    assert_errors(&session, &[("ROLLBACK TO b", "3B001")]).await;
    assert_eq!(run(&session, "COMMIT").await.tag, "ROLLBACK", "a wrong name fails the transaction");

    run(&session, "BEGIN").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "RELEASE a").await;
    run(&session, "COMMIT").await;
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
}

#[tokio::test]
async fn savepoints_need_a_transaction() {
    let session = with_table().await;
    assert_errors(&session, &[("SAVEPOINT a", "25P01"), ("RELEASE a", "25P01"), ("ROLLBACK TO a", "25P01")]).await;
}

#[tokio::test]
async fn the_snapshot_stays_when_a_savepoint_from_before_it_is_gone_back_to() {
    let first = with_table().await;
    let second = first.database().connect();
    run(&first, "BEGIN").await;
    run(&first, "SAVEPOINT a").await;
    assert_eq!(query(&first, "SELECT v FROM t").await, ["1"]);
    run(&second, "UPDATE t SET v = 2").await;
    run(&first, "ROLLBACK TO a").await;
    assert_eq!(query(&first, "SELECT v FROM t").await, ["1"], "the read before is still true");
    run(&first, "COMMIT").await;
    assert_eq!(query(&first, "SELECT v FROM t").await, ["2"]);
}

#[tokio::test]
async fn a_bulk_load_is_undone_with_its_files() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t SELECT n, n FROM generate_series(2, 100000) s(n)").await;
    run(&session, "DELETE FROM t WHERE id < 50").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["99951"]);
    run(&session, "ROLLBACK TO a").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["1"]);
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "COMMIT").await;
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["1", "2"]);
}

#[tokio::test]
async fn a_statement_cancelled_while_it_writes_leaves_the_savepoint() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "INSERT INTO t VALUES (0, 0)").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "SET statement_timeout = '50ms'").await;
    let endless = "INSERT INTO t SELECT n, 1 FROM generate_series(2, 1000000000) s(n)";
    assert_eq!(error(&session, endless).await.sqlstate(), "57014");
    run(&session, "ROLLBACK TO a").await;
    run(&session, "SET statement_timeout = 0").await;
    run(&session, "COMMIT").await;
    assert_eq!(query(&session, "SELECT id FROM t ORDER BY id").await, ["0", "1"]);
}

#[tokio::test]
async fn a_statement_whose_client_goes_away_leaves_the_savepoint() {
    let session = with_table().await;
    let other = session.database().connect();
    run(&other, "BEGIN").await;
    run(&other, "UPDATE t SET v = 5 WHERE id = 1").await;
    run(&session, "BEGIN").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "SAVEPOINT a").await;
    run(&session, "INSERT INTO t VALUES (3, 3)").await;
    // It waits for the other's lock until nobody waits for it any more.
    let waiting = session.execute("UPDATE t SET v = 7", &[]);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await.is_err());
    run(&other, "ROLLBACK").await;
    assert_eq!(error(&session, "SELECT 1").await.sqlstate(), "25P02");
    run(&session, "ROLLBACK TO a").await;
    assert_eq!(query(&session, "SELECT * FROM t ORDER BY id").await, ["1|1", "2|2"]);
    run(&session, "UPDATE t SET v = v + 1").await;
    run(&session, "COMMIT").await;
    assert_eq!(query(&other, "SELECT * FROM t ORDER BY id").await, ["1|2", "2|3"]);
}

/// A small generator of choices: the same for the same seed.
fn choose(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

#[tokio::test]
async fn savepoints_do_what_copies_of_the_rows_would_do() {
    type Rows = std::collections::BTreeMap<u64, u64>;
    for seed in 1..=30 {
        let mut state = seed;
        let session = memory().await;
        run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, w bigint UNIQUE)").await;
        run(&session, "INSERT INTO t SELECT n, 0, n FROM generate_series(0, 9) s(n)").await;
        if seed % 2 == 0 {
            session.database().flush().await.unwrap();
        }
        let mut rows: Rows = (0..10).map(|id| (id, 0)).collect();
        let mut kept: Vec<(u64, Rows)> = Vec::new();
        let mut failed = false;
        run(&session, "BEGIN").await;
        for step in 0..60 {
            let id = choose(&mut state, 20);
            let name = choose(&mut state, 3);
            match choose(&mut state, 9) {
                0 | 1 if !failed => {
                    run(&session, &format!("SAVEPOINT s{name}")).await;
                    kept.push((name, rows.clone()));
                }
                2 => {
                    if let Some(place) = kept.iter().rposition(|(other, _)| *other == name) {
                        run(&session, &format!("ROLLBACK TO s{name}")).await;
                        kept.truncate(place + 1);
                        rows = kept[place].1.clone();
                        failed = false;
                    }
                }
                3 if !failed => {
                    if let Some(place) = kept.iter().rposition(|(other, _)| *other == name) {
                        run(&session, &format!("RELEASE s{name}")).await;
                        kept.truncate(place);
                    }
                }
                4 if !failed && !kept.is_empty() => {
                    let duplicate = format!("INSERT INTO t SELECT {id} + n, 1, 500 FROM generate_series(0, 1) s(n)");
                    assert_eq!(error(&session, &duplicate).await.sqlstate(), "23505", "seed {seed}, step {step}");
                    failed = true;
                }
                5 if !failed => {
                    run(&session, &format!("DELETE FROM t WHERE id = {id}")).await;
                    rows.remove(&id);
                }
                6 if !failed => {
                    run(&session, &format!("UPDATE t SET v = v + 1, w = w + 1000 WHERE id <= {id}")).await;
                    rows.range_mut(..=id).for_each(|(_, v)| *v += 1);
                }
                _ if !failed && !rows.contains_key(&id) => {
                    run(&session, &format!("INSERT INTO t VALUES ({id}, {step}, {})", 100_000 + step)).await;
                    rows.insert(id, step);
                }
                _ => {}
            }
            if !failed {
                let shown: Vec<String> = rows.iter().map(|(id, v)| format!("{id}|{v}")).collect();
                let found = query(&session, "SELECT id, v FROM t ORDER BY id").await;
                assert_eq!(found, shown, "seed {seed}, step {step}");
            }
        }
        if failed {
            run(&session, &format!("ROLLBACK TO s{}", kept[0].0)).await;
            let place = kept.iter().rposition(|(other, _)| *other == kept[0].0).unwrap();
            rows = kept[place].1.clone();
        }
        run(&session, "COMMIT").await;
        let shown: Vec<String> = rows.iter().map(|(id, v)| format!("{id}|{v}")).collect();
        assert_eq!(query(&session, "SELECT id, v FROM t ORDER BY id").await, shown, "seed {seed}");
    }
}
