//! Bulk ingest.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandStatementIngest, EndTransaction, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use futures::stream;
use rustydb_flight::FlightOptions;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, fetch, number, people, query, update};

type Mode = (TableNotExistOption, TableExistsOption);
const CREATE: Mode = (TableNotExistOption::Create, TableExistsOption::Fail);
const APPEND: Mode = (TableNotExistOption::Fail, TableExistsOption::Append);
const REPLACE: Mode = (TableNotExistOption::Create, TableExistsOption::Replace);
const CREATE_APPEND: Mode = (TableNotExistOption::Create, TableExistsOption::Append);

fn command((if_not_exist, if_exists): Mode) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: if_not_exist.into(),
            if_exists: if_exists.into(),
        }),
        table: "people".to_owned(),
        ..Default::default()
    }
}

async fn ingest(
    client: &mut Client,
    command: CommandStatementIngest,
    batches: Vec<RecordBatch>,
) -> Result<i64, FlightError> {
    client.execute_ingest(command, stream::iter(batches.into_iter().map(Ok))).await
}

async fn count(client: &mut Client) -> i64 {
    number(client, "SELECT count(*) FROM people").await
}

#[tokio::test]
async fn each_mode_does_what_its_name_says() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let rows = || vec![people(0..60), people(60..100)];
    assert_refused(ingest(&mut client, command(APPEND), rows()).await, Code::NotFound, "42P01");
    assert_eq!(ingest(&mut client, command(CREATE), rows()).await.unwrap(), 100);
    assert_refused(ingest(&mut client, command(CREATE), rows()).await, Code::AlreadyExists, "42P07");
    assert_eq!(count(&mut client).await, 100);
    assert_eq!(ingest(&mut client, command(APPEND), vec![people(100..110)]).await.unwrap(), 10);
    assert_eq!(ingest(&mut client, command(CREATE_APPEND), vec![people(110..115)]).await.unwrap(), 5);
    assert_eq!(count(&mut client).await, 115);
    assert_eq!(ingest(&mut client, command(REPLACE), vec![people(0..7)]).await.unwrap(), 7);
    assert_eq!(count(&mut client).await, 7);
    assert_eq!(number(&mut client, "SELECT count(*) FROM people WHERE name = 'person 3'").await, 1);
}

#[tokio::test]
async fn an_ingest_belongs_to_its_transaction() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    ingest(&mut client, command(CREATE), vec![people(0..5)]).await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    let in_transaction = CommandStatementIngest { transaction_id: Some(transaction.clone()), ..command(APPEND) };
    assert_eq!(ingest(&mut client, in_transaction, vec![people(5..10)]).await.unwrap(), 5);
    assert_eq!(count(&mut client).await, 5);
    client.end_transaction(transaction, EndTransaction::Rollback).await.unwrap();
    assert_eq!(count(&mut client).await, 5);
}

#[tokio::test]
async fn a_duplicate_key_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE people (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    let rows = vec![people(0..50), people(49..60)];
    assert_refused(ingest(&mut client, command(APPEND), rows).await, Code::AlreadyExists, "23505");
    assert_eq!(count(&mut client).await, 0);
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE people (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    // Several times, because it depends on timing how much of it the server has seen.
    for _ in 0..10 {
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        sender.unbounded_send(Ok(people(0..1_000))).unwrap();
        let mut sending = server.client().await;
        let unfinished = tokio::spawn(async move { sending.execute_ingest(command(APPEND), receiver).await });
        assert_eq!(count(&mut client).await, 0);
        unfinished.abort();
        assert!(unfinished.await.unwrap_err().is_cancelled());
        assert_eq!(count(&mut client).await, 0);
        // Ending the stream is what a client does that is done; this one must not look like it.
        drop(sender);
    }
    assert_eq!(ingest(&mut client, command(APPEND), vec![people(0..3)]).await.unwrap(), 3, "no key is taken");
    assert_eq!(count(&mut client).await, 3);
}

#[tokio::test]
async fn batches_beyond_the_message_limit_are_refused() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.message_bytes = 100_000;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    let outcome = ingest(&mut client, command(CREATE), vec![people(0..10), people(10..50_000)]).await;
    assert_refused(outcome, Code::ResourceExhausted, "54000");
    assert_refused(query(&mut client, "SELECT * FROM people").await, Code::NotFound, "42P01");
}

#[tokio::test]
async fn an_unknown_column_is_named() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE people (id BIGINT PRIMARY KEY)").await.unwrap();
    let outcome = ingest(&mut client, command(APPEND), vec![people(0..3)]).await;
    let status = assert_refused(outcome, Code::AlreadyExists, "42703");
    assert!(status.message().contains("name"), "{status:?}");
}

#[tokio::test]
async fn a_name_that_no_statement_can_say_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let table = CommandStatementIngest { table: "peo\0ple".to_owned(), ..command(CREATE) };
    assert_refused(ingest(&mut client, table, vec![people(0..3)]).await, Code::InvalidArgument, "42602");
    let columns = RecordBatch::try_from_iter([("i\0d", people(0..3).column(0).clone())]).unwrap();
    assert_refused(ingest(&mut client, command(CREATE), vec![columns]).await, Code::InvalidArgument, "42602");
    assert_eq!(ingest(&mut client, command(CREATE), vec![people(0..3)]).await.unwrap(), 3);
}

#[tokio::test]
async fn a_schema_is_that_of_the_command_or_of_the_session() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    update(&mut client, "CREATE SCHEMA sales").await.unwrap();
    let in_schema = CommandStatementIngest {
        schema: Some("sales".to_owned()),
        catalog: Some("rustydb".to_owned()),
        ..command(CREATE)
    };
    assert_eq!(ingest(&mut client, in_schema, vec![people(0..5)]).await.unwrap(), 5);
    assert_eq!(number(&mut client, "SELECT count(*) FROM sales.people").await, 5);
    update(&mut client, "SET search_path = sales, public").await.unwrap();
    assert_eq!(ingest(&mut client, command(APPEND), vec![people(5..7)]).await.unwrap(), 2);
    assert_eq!(number(&mut client, "SELECT count(*) FROM sales.people").await, 7);
    let nowhere = CommandStatementIngest { schema: Some("nowhere".to_owned()), ..command(CREATE) };
    assert_refused(ingest(&mut client, nowhere, vec![people(0..1)]).await, Code::NotFound, "3F000");
}

#[tokio::test]
async fn what_others_depend_on_is_not_replaced() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    ingest(&mut client, command(CREATE), vec![people(0..5)]).await.unwrap();
    update(&mut client, "CREATE VIEW names AS SELECT name FROM people").await.unwrap();
    assert_refused(ingest(&mut client, command(REPLACE), vec![people(0..1)]).await, Code::FailedPrecondition, "2BP01");
    assert_eq!(number(&mut client, "SELECT count(*) FROM names").await, 5);
    let over_a_view = CommandStatementIngest { table: "names".to_owned(), ..command(CREATE) };
    assert_refused(ingest(&mut client, over_a_view, vec![people(0..1)]).await, Code::AlreadyExists, "42P07");
}

/// ADBC's driver sends transaction ids with everything but ingests.
#[tokio::test]
async fn an_ingest_of_adbc_belongs_to_the_transaction_of_its_connection() {
    let server = TestServer::start().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = channel.user_agent("ADBC Flight SQL Driver 1.13.0 grpc-go").unwrap().connect().await.unwrap();
    let mut adbc = Client::new(channel);
    let mut other = server.client().await;
    let transaction = adbc.begin_transaction().await.unwrap();
    assert_eq!(ingest(&mut adbc, command(CREATE), vec![people(0..5)]).await.unwrap(), 5);
    assert_refused(query(&mut other, "SELECT * FROM people").await, Code::NotFound, "42P01");
    adbc.end_transaction(transaction, EndTransaction::Rollback).await.unwrap();
    assert_refused(query(&mut other, "SELECT * FROM people").await, Code::NotFound, "42P01");
    let transaction = adbc.begin_transaction().await.unwrap();
    assert_eq!(ingest(&mut adbc, command(CREATE), vec![people(0..5)]).await.unwrap(), 5);
    adbc.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    assert_eq!(count(&mut other).await, 5);
    // With autocommit, and for other clients at any time, an ingest without an id stands alone.
    assert_eq!(ingest(&mut adbc, command(APPEND), vec![people(5..6)]).await.unwrap(), 1);
    assert_eq!(count(&mut other).await, 6);
    let transaction = other.begin_transaction().await.unwrap();
    assert_eq!(ingest(&mut other, command(APPEND), vec![people(6..7)]).await.unwrap(), 1);
    other.end_transaction(transaction, EndTransaction::Rollback).await.unwrap();
    assert_eq!(count(&mut other).await, 7);
}

#[tokio::test]
async fn a_temporary_table_belongs_to_the_session_of_the_token_and_its_transactions() {
    let server = TestServer::start().await;
    let temporary = |mode| CommandStatementIngest { temporary: true, ..command(mode) };
    let (mut client, mut other) = (server.session().await, server.session().await);
    assert_eq!(ingest(&mut client, temporary(CREATE), vec![people(0..3)]).await.unwrap(), 3);
    assert_eq!(ingest(&mut client, temporary(APPEND), vec![people(3..5)]).await.unwrap(), 2);
    assert_refused(ingest(&mut client, temporary(CREATE), vec![people(0..1)]).await, Code::AlreadyExists, "42P07");
    assert_eq!(number(&mut client, "SELECT count(*) FROM pg_temp.people").await, 5);
    assert_refused(query(&mut other, "SELECT * FROM people").await, Code::NotFound, "42P01");
    // Of the same name, and nobody else's business.
    assert_eq!(ingest(&mut other, temporary(REPLACE), vec![people(0..2)]).await.unwrap(), 2);
    assert_eq!(count(&mut other).await, 2);
    // A transaction of the same client sees it, and so does the next one.
    for rows in [5, 6] {
        let transaction = client.begin_transaction().await.unwrap();
        let id = Some(transaction.clone());
        let info = client.execute("SELECT count(*) FROM people".to_owned(), id.clone()).await.unwrap();
        let found = fetch(&mut client, info).await.unwrap();
        assert_eq!(found[0].column(0).as_primitive::<Int64Type>().value(0), rows);
        let more = CommandStatementIngest { transaction_id: id, ..temporary(APPEND) };
        assert_eq!(ingest(&mut client, more, vec![people(rows..rows + 1)]).await.unwrap(), 1);
        client.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    }
    assert_eq!(count(&mut client).await, 7);
    let elsewhere = CommandStatementIngest { schema: Some("public".to_owned()), ..temporary(CREATE) };
    assert_refused(ingest(&mut client, elsewhere, vec![people(0..1)]).await, Code::InvalidArgument, "42P16");
}

#[tokio::test]
async fn a_call_without_a_session_has_nothing_temporary() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let temporary = CommandStatementIngest { temporary: true, ..command(CREATE) };
    let status = assert_refused(ingest(&mut client, temporary, vec![people(0..1)]).await, Code::Unimplemented, "0A000");
    assert!(status.message().contains("temporary") && status.message().contains("session"), "{status:?}");
}
