//! Transactions: by the protocol's actions, and by SQL in a session.

use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionEndSavepointRequest, Any, EndTransaction,
    ProstMessageExt,
};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use rustydb_flight::FlightOptions;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, create_many, fetch, number, people, query, update};

async fn update_in(client: &mut Client, transaction: &Bytes, sql: &str) -> i64 {
    client.execute_update(sql.to_owned(), Some(transaction.clone())).await.unwrap()
}

async fn count_in(client: &mut Client, transaction: &Bytes) -> usize {
    let info = client.execute("SELECT * FROM t".to_owned(), Some(transaction.clone())).await.unwrap();
    fetch(client, info).await.unwrap().iter().map(|batch| batch.num_rows()).sum()
}

#[tokio::test]
async fn a_commit_makes_changes_visible_and_a_rollback_undoes_them() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    for (action, expected) in [(EndTransaction::Commit, 1), (EndTransaction::Rollback, 1)] {
        let transaction = client.begin_transaction().await.unwrap();
        let before = count_in(&mut client, &transaction).await;
        assert_eq!(update_in(&mut client, &transaction, &format!("INSERT INTO t VALUES ({before}, 'x')")).await, 1);
        assert_eq!(count_in(&mut client, &transaction).await, before + 1, "it sees its own changes");
        assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, before as i64, "others do not");
        client.end_transaction(transaction, action).await.unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, expected);
    }
}

#[tokio::test]
async fn a_transaction_sees_what_was_committed_before_its_first_statement() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    // As ADBC does it with autocommit off: the transaction is begun on connecting, and bulk ingest goes around it.
    let transaction = client.begin_transaction().await.unwrap();
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    assert_eq!(count_in(&mut client, &transaction).await, 0);
    update(&mut client, "INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(count_in(&mut client, &transaction).await, 0, "from then on it sees one state");
    client.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    let unused = client.begin_transaction().await.unwrap();
    client.end_transaction(unused, EndTransaction::Commit).await.expect("nothing to do");
}

#[tokio::test]
async fn a_result_can_be_read_after_its_transaction_ended() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let transaction = client.begin_transaction().await.unwrap();
    let info = client.execute("SELECT a.x FROM many a, many b".to_owned(), Some(transaction.clone())).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut count = rows.next().await.unwrap().unwrap().num_rows();
    client.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().num_rows();
    }
    assert_eq!(count, 9_000_000);
}

#[tokio::test]
async fn prepared_statements_run_in_the_transaction_they_were_prepared_in() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    let sql = "INSERT INTO t VALUES ($1, $2)".to_owned();
    let mut statement = client.prepare(sql, Some(transaction.clone())).await.unwrap();
    statement.set_parameters(people(0..4)).unwrap();
    assert_eq!(statement.execute_update().await.unwrap(), 4);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    client.end_transaction(transaction, EndTransaction::Rollback).await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    assert_refused(statement.execute_update().await, Code::NotFound, "25P01");
}

#[tokio::test]
async fn a_prepared_statement_goes_on_in_the_next_transaction_of_its_connection() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    // As ADBC does it for one cursor that executes one text again and again.
    let mut transaction = client.begin_transaction().await.unwrap();
    let mut insert =
        client.prepare("INSERT INTO t VALUES ($1, $2)".to_owned(), Some(transaction.clone())).await.unwrap();
    let mut count = client.prepare("SELECT id FROM t".to_owned(), Some(transaction.clone())).await.unwrap();
    for (ids, action, expected) in
        [(0..2, EndTransaction::Commit, 2), (2..4, EndTransaction::Rollback, 2), (2..5, EndTransaction::Commit, 5)]
    {
        insert.set_parameters(people(ids.clone())).unwrap();
        assert_eq!(insert.execute_update().await.unwrap() as usize, ids.count());
        client.end_transaction(transaction, action).await.unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, expected, "it ran in the transaction");
        transaction = client.begin_transaction().await.unwrap();
        let info = count.execute().await.unwrap();
        let rows: usize = fetch(&mut client, info).await.unwrap().iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(rows as i64, expected);
    }
    // Which of two would be meant cannot be known, and another connection's is never meant.
    let second = client.begin_transaction().await.unwrap();
    client.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    let third = client.begin_transaction().await.unwrap();
    assert_refused(insert.execute_update().await, Code::NotFound, "25P01");
    for open in [second, third] {
        client.end_transaction(open, EndTransaction::Rollback).await.unwrap();
    }
    let mut other = server.client().await;
    other.begin_transaction().await.unwrap();
    let status = assert_refused(insert.execute_update().await, Code::NotFound, "25P01");
    assert!(status.message().contains("prepare it again"), "{status:?}");
}

#[tokio::test]
async fn an_ended_or_unknown_transaction_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let transaction = client.begin_transaction().await.unwrap();
    client.end_transaction(transaction.clone(), EndTransaction::Commit).await.unwrap();
    let again = client.end_transaction(transaction.clone(), EndTransaction::Commit).await;
    assert_refused(again, Code::NotFound, "25P01");
    let late = client.execute_update("CREATE TABLE t (a BIGINT)".to_owned(), Some(transaction)).await;
    assert_refused(late, Code::NotFound, "25P01");
    let malformed = client.execute("SELECT 1".to_owned(), Some(Bytes::from_static(b"7"))).await;
    assert_refused(malformed, Code::InvalidArgument, "08P01");
    let transaction = client.begin_transaction().await.unwrap();
    let neither = client.end_transaction(transaction.clone(), EndTransaction::Unspecified).await;
    assert_refused(neither, Code::InvalidArgument, "08P01");
    client.end_transaction(transaction, EndTransaction::Rollback).await.unwrap();
}

#[tokio::test]
async fn committing_a_failed_transaction_is_an_error_and_commits_nothing() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    update_in(&mut client, &transaction, "INSERT INTO t VALUES (1, 'a')").await;
    let duplicate = client.execute_update("INSERT INTO t VALUES (1, 'b')".to_owned(), Some(transaction.clone())).await;
    assert_refused(duplicate, Code::AlreadyExists, "23505");
    let commit = client.end_transaction(transaction, EndTransaction::Commit).await;
    assert_refused(commit, Code::FailedPrecondition, "25P02");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn sql_transactions_last_in_a_session() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    let mut other = server.session().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    update(&mut client, "BEGIN").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 1);
    assert_eq!(number(&mut other, "SELECT count(*) FROM t").await, 0);
    // As a prepared query, the way JDBC sends everything.
    let mut commit = client.prepare("COMMIT".to_owned(), None).await.unwrap();
    commit.execute_update().await.unwrap();
    assert_eq!(number(&mut other, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn begin_without_a_session_is_refused_instead_of_forgotten() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let status = assert_refused(update(&mut client, "BEGIN").await, Code::Unimplemented, "0A000");
    assert!(status.message().contains("BeginTransaction"), "{status:?}");
    assert_refused(query(&mut client, "BEGIN").await, Code::Unimplemented, "0A000");
}

#[tokio::test]
async fn an_sql_commit_ends_the_transaction_it_runs_in() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    update_in(&mut client, &transaction, "INSERT INTO t VALUES (1)").await;
    update_in(&mut client, &transaction, "COMMIT").await;
    let late = client.execute_update("INSERT INTO t VALUES (2)".to_owned(), Some(transaction)).await;
    assert_refused(late, Code::NotFound, "25P01");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn an_idle_transaction_is_rolled_back() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.transaction_idle = Duration::from_millis(100);
    // With room for one, beginning another shows when the idle one is gone, and is no use of it.
    options.limits.transactions = 1;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    update_in(&mut client, &transaction, "INSERT INTO t VALUES (1)").await;
    let expired = async {
        while client.begin_transaction().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), expired).await.expect("idle transactions expire");
    let late = client.end_transaction(transaction, EndTransaction::Commit).await;
    assert_refused(late, Code::NotFound, "25P01");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn an_idle_transaction_of_a_session_is_rolled_back_and_the_session_stays() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.transaction_idle = Duration::from_secs(1);
    let server = TestServer::with(options).await;
    let (mut client, mut other) = (server.session().await, server.client().await);
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1, 0)").await.unwrap();
    update(&mut client, "BEGIN").await.unwrap();
    update(&mut client, "UPDATE t SET v = 1").await.unwrap();
    // Waits for the lock.
    let waiting = tokio::time::timeout(Duration::from_secs(60), update(&mut other, "UPDATE t SET v = v + 10"));
    assert_eq!(waiting.await.expect("idle transactions expire").unwrap(), 1);
    assert_refused(query(&mut client, "SELECT 1").await, Code::FailedPrecondition, "25P03");
    update(&mut client, "ROLLBACK").await.unwrap();
    assert_eq!(number(&mut client, "SELECT v FROM t").await, 10);
}

#[tokio::test]
async fn a_failed_sql_transaction_can_be_ended() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    for (end, commits) in
        [("ROLLBACK", false), ("COMMIT", true), ("-- a tool's note\nCOMMIT", true), ("/* another's */ END", true)]
    {
        update(&mut client, "BEGIN").await.unwrap();
        update(&mut client, "INSERT INTO t VALUES (1)").await.unwrap();
        assert_refused(update(&mut client, "INSERT INTO t VALUES (1)").await, Code::AlreadyExists, "23505");
        assert_refused(query(&mut client, "SELECT 1").await, Code::FailedPrecondition, "25P02");
        let ended = update(&mut client, end).await;
        match commits {
            false => assert_eq!(ended.unwrap(), 0),
            // It ends the transaction, but must not look as if it had committed.
            true => drop(assert_refused(ended, Code::FailedPrecondition, "25P02")),
        }
        assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
    }
}

/// Does a savepoint action and returns the savepoint's id, if it gives one.
async fn savepoint(client: &mut Client, name: &str, request: impl ProstMessageExt) -> Result<Bytes, FlightError> {
    let action = Action::new(name, request.as_any().encode_to_vec());
    let Some(result) = client.do_action(action).await?.message().await? else { return Ok(Bytes::new()) };
    let result: ActionBeginSavepointResult = Any::decode(result.body).unwrap().unpack().unwrap().unwrap();
    Ok(result.savepoint_id)
}

const RELEASE: i32 = 1;
const ROLL_BACK: i32 = 2;

#[tokio::test]
async fn savepoints_undo_a_part_of_a_transaction() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    let begin = || ActionBeginSavepointRequest { transaction_id: transaction.clone(), name: "the same".to_owned() };
    let end = |id: &Bytes, action| ActionEndSavepointRequest { savepoint_id: id.clone(), action };
    update_in(&mut client, &transaction, "INSERT INTO t VALUES (1)").await;
    let first = savepoint(&mut client, "BeginSavepoint", begin()).await.unwrap();
    update_in(&mut client, &transaction, "INSERT INTO t VALUES (2)").await;
    let second = savepoint(&mut client, "BeginSavepoint", begin()).await.unwrap();
    update_in(&mut client, &transaction, "INSERT INTO t VALUES (3)").await;

    // A failed statement is undone with what came after the savepoint.
    let failed = client.execute_update("INSERT INTO t VALUES (3)".to_owned(), Some(transaction.clone())).await;
    assert_refused(failed, Code::AlreadyExists, "23505");
    savepoint(&mut client, "EndSavepoint", end(&second, ROLL_BACK)).await.unwrap();
    assert_eq!(count_in(&mut client, &transaction).await, 2);
    savepoint(&mut client, "EndSavepoint", end(&first, ROLL_BACK)).await.unwrap();
    savepoint(&mut client, "EndSavepoint", end(&first, ROLL_BACK)).await.expect("rolling back keeps it");
    assert_eq!(count_in(&mut client, &transaction).await, 1);
    savepoint(&mut client, "EndSavepoint", end(&first, RELEASE)).await.unwrap();
    let released = savepoint(&mut client, "EndSavepoint", end(&first, RELEASE)).await;
    assert_refused(released, Code::NotFound, "3B001");

    let unspecified = savepoint(&mut client, "EndSavepoint", end(&first, 0)).await;
    assert_refused(unspecified, Code::InvalidArgument, "08P01");
    let third = savepoint(&mut client, "BeginSavepoint", begin()).await.unwrap();
    client.end_transaction(transaction.clone(), EndTransaction::Commit).await.unwrap();
    let late = savepoint(&mut client, "EndSavepoint", end(&third, ROLL_BACK)).await;
    assert_refused(late, Code::NotFound, "3B001");
    assert_refused(savepoint(&mut client, "BeginSavepoint", begin()).await, Code::NotFound, "25P01");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 1);
}
