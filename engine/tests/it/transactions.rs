//! BEGIN, COMMIT, ROLLBACK: snapshot isolation, the failed state, read-only transactions.

use rustydb_engine::{StatementResult, TransactionStatus};

use crate::helpers::*;

async fn with_table() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    run(&session, "INSERT INTO t VALUES (1, 1)").await;
    session
}

#[tokio::test]
async fn changes_show_to_others_with_the_commit() {
    let first = with_table().await;
    let second = first.database().connect();
    assert_eq!(run(&first, "BEGIN").await.tag, "BEGIN");
    assert_eq!(first.transaction_status(), TransactionStatus::Active);
    run(&first, "INSERT INTO t VALUES (2, 2)").await;
    run(&first, "UPDATE t SET v = 10 WHERE id = 1").await;
    assert_eq!(query(&first, "SELECT * FROM t ORDER BY id").await, ["1|10", "2|2"]);
    assert_eq!(query(&second, "SELECT * FROM t ORDER BY id").await, ["1|1"]);
    assert_eq!(run(&first, "COMMIT").await.tag, "COMMIT");
    assert_eq!(query(&second, "SELECT * FROM t ORDER BY id").await, ["1|10", "2|2"]);
    assert!(!first.in_transaction());
}

#[tokio::test]
async fn a_snapshot_does_not_move() {
    let first = with_table().await;
    let second = first.database().connect();
    run(&first, "START TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(query(&first, "SELECT sum(v) FROM t").await, ["1"]);
    run(&second, "INSERT INTO t VALUES (2, 2)").await;
    assert_eq!(query(&first, "SELECT sum(v) FROM t").await, ["1"]);
    run(&first, "END").await;
    assert_eq!(query(&first, "SELECT sum(v) FROM t").await, ["3"]);
}

#[tokio::test]
async fn rollback_undoes_rows_and_tables() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "CREATE TABLE u (a int)").await;
    run(&session, "INSERT INTO u VALUES (1)").await;
    run(&session, "DELETE FROM t").await;
    assert!(session.catalog().find("public", "u").is_some());
    assert!(session.database().connect().catalog().find("public", "u").is_none());
    run(&session, "ROLLBACK").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["1"]);
    assert_eq!(error(&session, "SELECT * FROM u").await.sqlstate(), "42P01");
}

#[tokio::test]
async fn the_first_committer_wins() {
    let first = with_table().await;
    let second = first.database().connect();
    run(&first, "BEGIN").await;
    run(&second, "BEGIN").await;
    assert_eq!(query(&second, "SELECT v FROM t").await, ["1"]);
    run(&first, "UPDATE t SET v = v + 1").await;
    run(&first, "COMMIT").await;
    let error = error(&second, "UPDATE t SET v = v + 10").await;
    assert_eq!(error.sqlstate(), "40001", "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(second.transaction_status(), TransactionStatus::Failed);
    run(&second, "ROLLBACK").await;
    assert_eq!(query(&second, "SELECT v FROM t").await, ["2"]);
}

#[tokio::test]
async fn the_snapshot_is_taken_by_the_first_statement() {
    let first = with_table().await;
    let second = first.database().connect();
    run(&first, "BEGIN").await;
    run(&second, "UPDATE t SET v = 2").await;
    assert_eq!(query(&first, "SELECT v FROM t").await, ["2"]);
    run(&second, "UPDATE t SET v = 3").await;
    assert_eq!(query(&first, "SELECT v FROM t").await, ["2"]);
    run(&first, "ROLLBACK").await;
}

#[tokio::test]
async fn a_failed_transaction_prepares_its_end_and_nothing_else() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "SAVEPOINT a").await;
    error(&session, "SELECT nope").await;
    assert_eq!(session.prepare("SELECT 1").await.unwrap_err().sqlstate(), "25P02");
    let back = session.prepare("ROLLBACK TO a").await.unwrap();
    session.execute_prepared(&back, &[]).await.unwrap();
    error(&session, "SELECT nope").await;
    let commit = session.prepare("COMMIT").await.unwrap();
    let StatementResult::Done(done) = session.execute_prepared(&commit, &[]).await.unwrap() else { panic!("no rows") };
    assert_eq!(done.tag, "ROLLBACK");
}

#[tokio::test]
async fn a_failed_statement_fails_the_transaction() {
    let session = with_table().await;
    for failing in [
        "INSERT INTO t VALUES (2, 2), (1, 1)",
        "SELECT nope FROM t",
        "SELEC",
        "SELECT 1/0 FROM t WHERE id IN (SELECT 1 FROM nope)",
    ] {
        run(&session, "BEGIN").await;
        run(&session, "INSERT INTO t VALUES (5, 5)").await;
        error(&session, failing).await;
        assert_eq!(session.transaction_status(), TransactionStatus::Failed, "{failing}");
        assert_errors(
            &session,
            &[
                ("SELECT 1", "25P02"),
                ("INSERT INTO t VALUES (3, 3)", "25P02"),
                ("BEGIN", "25P02"),
                ("SHOW ALL", "25P02"),
            ],
        )
        .await;
        assert_eq!(run(&session, "COMMIT").await.tag, "ROLLBACK", "{failing}");
        assert_eq!(query(&session, "SELECT id FROM t").await, ["1"]);
    }
}

#[tokio::test]
async fn read_only_transactions_change_nothing() {
    let session = with_table().await;
    run(&session, "BEGIN READ ONLY").await;
    assert_eq!(query(&session, "SELECT id FROM t").await, ["1"]);
    assert_eq!(error(&session, "DELETE FROM t").await.sqlstate(), "25006");
    run(&session, "ROLLBACK").await;
    run(&session, "SET default_transaction_read_only = on").await;
    assert_errors(&session, &[("DELETE FROM t", "25006"), ("CREATE TABLE x (a int)", "25006")]).await;
    assert_eq!(session.transaction_status(), TransactionStatus::Idle);
    run(&session, "BEGIN READ WRITE").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    run(&session, "COMMIT").await;
    run(&session, "BEGIN").await;
    run(&session, "SET TRANSACTION READ WRITE").await;
    run(&session, "INSERT INTO t VALUES (3, 3)").await;
    run(&session, "COMMIT AND CHAIN").await;
    run(&session, "DELETE FROM t WHERE id = 3").await;
    run(&session, "ROLLBACK AND CHAIN").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["3"]);
    run(&session, "COMMIT").await;
    run(&session, "BEGIN").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["3"]);
    assert_eq!(error(&session, "SET TRANSACTION READ WRITE").await.sqlstate(), "25001");
}

#[tokio::test]
async fn modes_can_be_set_until_the_first_statement() {
    let session = with_table().await;
    assert_errors(&session, &[("COMMIT", "25P01"), ("ROLLBACK", "25P01"), ("SET TRANSACTION READ ONLY", "25P01")])
        .await;
    run(&session, "BEGIN").await;
    assert_eq!(query(&session, "SHOW transaction_isolation").await, ["repeatable read"]);
    run(&session, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY, DEFERRABLE").await;
    assert_eq!(query(&session, "SHOW transaction_isolation").await, ["serializable"]);
    assert_eq!(query(&session, "SHOW transaction_read_only").await, ["on"]);
    assert_eq!(query(&session, "SELECT v FROM t").await, ["1"]);
    assert_eq!(error(&session, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await.sqlstate(), "25001");
    run(&session, "ROLLBACK").await;
    run(&session, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED").await;
    assert_eq!(query(&session, "SHOW default_transaction_isolation").await, ["read committed"]);
    run(&session, "BEGIN ISOLATION LEVEL SNAPSHOT").await;
    assert_eq!(query(&session, "SHOW TRANSACTION ISOLATION LEVEL").await, ["repeatable read"]);
    assert_eq!(error(&session, "BEGIN").await.sqlstate(), "25001");
    run(&session, "ROLLBACK").await;
    assert_errors(
        &session,
        &[("SET default_transaction_isolation = 'sometimes'", "22023"), ("SET transaction_read_only = on", "55P02")],
    )
    .await;
}

#[tokio::test]
async fn a_result_is_read_on_while_the_session_goes_on() {
    let session = with_table().await;
    run(&session, "INSERT INTO t SELECT n, n FROM generate_series(2, 20000) s(n)").await;
    run(&session, "BEGIN").await;
    let StatementResult::Rows(rows) = session.execute("SELECT * FROM t", &[]).await.unwrap() else { panic!("rows") };
    run(&session, "DELETE FROM t WHERE id BETWEEN 11 AND 1010").await;
    run(&session, "COMMIT").await;
    assert_eq!(lines(rows).await.unwrap().len(), 20_000, "the state when the query began");
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["19000"]);
}

#[tokio::test]
async fn a_dropped_session_rolls_back() {
    let first = with_table().await;
    let second = first.database().connect();
    run(&second, "BEGIN").await;
    run(&second, "DELETE FROM t").await;
    drop(second);
    assert_eq!(query(&first, "SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn a_statement_cancelled_while_it_writes_fails_the_transaction() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    let endless = "INSERT INTO t SELECT n, 1 FROM generate_series(2, 1000000000) s(n)";
    let cancelled = tokio::time::timeout(std::time::Duration::from_millis(50), session.execute(endless, &[])).await;
    assert!(cancelled.is_err(), "the statement was still running");
    assert_eq!(error(&session, "SELECT 1").await.sqlstate(), "25P02");
    run(&session, "ROLLBACK").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn statement_timeout_covers_statements_that_write() {
    let session = with_table().await;
    run(&session, "SET statement_timeout = '50ms'").await;
    assert_eq!(
        error(&session, "INSERT INTO t SELECT n, 1 FROM generate_series(2, 1000000000) s(n)").await.sqlstate(),
        "57014"
    );
    run(&session, "SET statement_timeout TO DEFAULT").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn a_statement_that_cannot_be_planned_fails_the_transaction() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int)").await;
    for wrong in ["SELECT nope FROM t", "SELEC 1"] {
        run(&session, "BEGIN").await;
        run(&session, "INSERT INTO t VALUES (1)").await;
        session.prepare(wrong).await.unwrap_err();
        assert_eq!(session.transaction_status(), rustydb_engine::TransactionStatus::Failed, "{wrong}");
        assert_eq!(session.prepare("SELECT 1").await.unwrap_err().sqlstate(), "25P02");
        assert_eq!(run(&session, "COMMIT").await.tag, "ROLLBACK");
        assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["0"]);
    }
}

#[tokio::test]
async fn an_error_among_the_rows_fails_the_transaction_they_are_read_in() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    run(&session, "INSERT INTO t VALUES (2, 2)").await;
    assert_eq!(error(&session, "SELECT 1 / (v - 1) FROM t").await.sqlstate(), "22012");
    assert_eq!(session.transaction_status(), TransactionStatus::Failed);
    assert_eq!(error(&session, "INSERT INTO t VALUES (3, 3)").await.sqlstate(), "25P02");
    assert_eq!(run(&session, "COMMIT").await.tag, "ROLLBACK");
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn rows_that_are_not_read_fail_only_their_own_transaction() {
    let session = with_table().await;
    run(&session, "BEGIN").await;
    let failing = "SELECT 1 / (v - 1) FROM t";
    let StatementResult::Rows(dropped) = session.execute(failing, &[]).await.unwrap() else { panic!("rows") };
    drop(dropped);
    let StatementResult::Rows(late) = session.execute(failing, &[]).await.unwrap() else { panic!("rows") };
    run(&session, "ROLLBACK").await;
    run(&session, "BEGIN").await;
    late.collect().await.unwrap_err();
    assert_eq!(session.transaction_status(), TransactionStatus::Active);
    run(&session, "COMMIT").await;
}
