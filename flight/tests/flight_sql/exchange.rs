//! Prepared statements on one stream: DoExchange, raw and by the client that uses it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rustydb_flight::{RemoteClient, RemoteError, RemoteOptions, RemoteResult, RemoteStatement};
use tonic::{Code, Status};

use crate::support::{Client, TestServer, update};

fn ids(values: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]).unwrap()
}

async fn connect(server: &TestServer) -> RemoteClient {
    let url = format!("grpc://{}", server.address);
    RemoteClient::connect(RemoteOptions { url, ..RemoteOptions::default() }).await.unwrap()
}

/// The first column of what a statement returns for one parameter.
async fn numbers(client: &RemoteClient, statement: &RemoteStatement, id: i64) -> Result<Vec<i64>, RemoteError> {
    let RemoteResult::Rows(rows) = client.execute_prepared(statement, Some(ids(&[id]))).await? else {
        panic!("it returns rows");
    };
    let schema = rows.schema();
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    assert!(batches.iter().all(|batch| batch.schema() == schema));
    let values = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
    Ok(values.collect())
}

async fn changed(client: &RemoteClient, statement: &RemoteStatement, rows: Option<RecordBatch>) -> u64 {
    match client.execute_prepared(statement, rows).await.unwrap() {
        RemoteResult::Done { rows } => rows,
        RemoteResult::Rows(_) => panic!("it returns no rows"),
    }
}

#[tokio::test]
async fn executions_follow_each_other_on_one_stream() {
    let server = TestServer::start().await;
    let client = connect(&server).await;
    client.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    client.execute("INSERT INTO t SELECT i, i * 10 FROM generate_series(1, 1000) AS s(i)").await.unwrap();
    let one = client.prepare("SELECT v FROM t WHERE id = $1").await.unwrap();
    for id in [1, 1_000, 7, 1_001, 7] {
        let expected: Vec<i64> = (id <= 1_000).then_some(id * 10).into_iter().collect();
        assert_eq!(numbers(&client, &one, id).await.unwrap(), expected, "{id}");
    }
    // As many answers as it has messages, rows and executions.
    let many = client.prepare("SELECT a.v FROM t a, t b WHERE a.id <> $1").await.unwrap();
    for _ in 0..2 {
        assert_eq!(numbers(&client, &many, 1).await.unwrap().len(), 999_000);
    }
    // Left in the middle, and at the same time as others.
    for _ in 0..2 {
        let RemoteResult::Rows(mut rows) = client.execute_prepared(&many, Some(ids(&[1]))).await.unwrap() else {
            panic!("it returns rows");
        };
        assert!(rows.next().await.unwrap().unwrap().num_rows() > 0);
        assert_eq!(numbers(&client, &many.clone(), 2).await.unwrap().len(), 999_000);
    }
}

#[tokio::test]
async fn changes_are_counted_in_the_transaction_of_the_session() {
    let server = TestServer::start().await;
    let client = connect(&server).await;
    client.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let (begin, roll_back) = (client.prepare("BEGIN").await.unwrap(), client.prepare("ROLLBACK").await.unwrap());
    let insert = client.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    let count = client.prepare("SELECT count(*) FROM t WHERE id > $1").await.unwrap();
    for _ in 0..3 {
        changed(&client, &begin, None).await;
        assert_eq!(changed(&client, &insert, Some(ids(&[1]))).await, 1);
        assert_eq!(changed(&client, &insert, Some(ids(&[2, 3]))).await, 2);
        assert_eq!(numbers(&client, &count, 0).await.unwrap(), [3]);
        changed(&client, &roll_back, None).await;
        assert_eq!(numbers(&client, &count, 0).await.unwrap(), [0]);
    }
}

#[tokio::test]
async fn an_error_ends_one_execution_and_the_next_one_works() {
    let server = TestServer::start().await;
    let client = connect(&server).await;
    let quotient = client.prepare("SELECT 100 / $1").await.unwrap();
    for _ in 0..2 {
        assert_eq!(numbers(&client, &quotient, 5).await.unwrap(), [20]);
        assert_eq!(numbers(&client, &quotient, 0).await.unwrap_err().sqlstate(), "22012");
    }
    // Parameters of other types, and too many of them.
    let text = RecordBatch::try_from_iter([("x", Arc::new(StringArray::from(vec!["4"])) as ArrayRef)]).unwrap();
    let RemoteResult::Rows(rows) = client.execute_prepared(&quotient, Some(text)).await.unwrap() else {
        panic!("it returns rows");
    };
    assert_eq!(rows.try_collect::<Vec<_>>().await.unwrap()[0].num_rows(), 1);
    let two = RecordBatch::try_from_iter([("a", ids(&[1]).column(0).clone()), ("b", ids(&[1]).column(0).clone())]);
    let refused = match client.execute_prepared(&quotient, Some(two.unwrap())).await {
        Ok(RemoteResult::Rows(rows)) => rows.try_collect::<Vec<_>>().await.unwrap_err(),
        other => other.unwrap_err(),
    };
    assert_eq!(refused.sqlstate(), "07001");
}

#[tokio::test]
async fn a_table_that_becomes_another_ends_the_stream() {
    let server = TestServer::start().await;
    let client = connect(&server).await;
    client.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    client.execute("INSERT INTO t VALUES (1, 42)").await.unwrap();
    let one = client.prepare("SELECT v FROM t WHERE id = $1").await.unwrap();
    assert_eq!(numbers(&client, &one, 1).await.unwrap(), [42]);
    client.execute("DROP TABLE t").await.unwrap();
    client.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, v DOUBLE PRECISION)").await.unwrap();
    client.execute("INSERT INTO t VALUES (1, 3.75)").await.unwrap();
    assert_eq!(numbers(&client, &one, 1).await.unwrap_err().sqlstate(), "0A000", "and not 3");
}

#[tokio::test]
async fn more_statements_than_streams_of_a_connection() {
    let server = TestServer::start().await;
    let client = connect(&server).await;
    let mut statements = Vec::new();
    for number in 0..300 {
        statements.push(client.prepare(&format!("SELECT $1 + {number}")).await.unwrap());
    }
    for _ in 0..2 {
        for (number, statement) in (0..).zip(&statements) {
            assert_eq!(numbers(&client, statement, 1).await.unwrap(), [1 + number]);
        }
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_stream_that_waits() {
    let server = TestServer::start().await;
    let client = connect(&server).await;
    let statement = client.prepare("SELECT $1 + 1").await.unwrap();
    assert_eq!(numbers(&client, &statement, 1).await.unwrap(), [2]);
    let stopped = tokio::time::timeout(Duration::from_secs(5), server.shut_down()).await;
    stopped.expect("well within the grace period").unwrap();
    assert!(numbers(&client, &statement, 1).await.is_err());
}

#[tokio::test]
async fn a_user_who_is_dropped_executes_nothing_more() {
    let server = TestServer::start().await;
    let password = "correct horse battery";
    let mut anyone = server.client().await;
    update(&mut anyone, &format!("CREATE USER ann PASSWORD '{password}' SUPERUSER")).await.unwrap();
    let mut ann = server.client().await;
    ann.handshake("ann", password).await.unwrap();
    update(&mut ann, &format!("CREATE USER bob PASSWORD '{password}'")).await.unwrap();
    let bob = RemoteClient::connect(RemoteOptions {
        url: format!("grpc://{}", server.address),
        user: Some("bob".to_owned()),
        password: Some(password.to_owned()),
        ..RemoteOptions::default()
    });
    let bob = bob.await.unwrap();
    let statement = bob.prepare("SELECT $1 + 1").await.unwrap();
    assert_eq!(numbers(&bob, &statement, 1).await.unwrap(), [2]);
    update(&mut ann, "DROP USER bob").await.unwrap();
    assert_eq!(numbers(&bob, &statement, 1).await.unwrap_err().sqlstate(), "28000");
}

async fn prepare(client: &mut Client, sql: &str) -> Bytes {
    let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let result = client.do_action(action).await.unwrap().message().await.unwrap().unwrap();
    let result: ActionCreatePreparedStatementResult = Any::decode(result.body).unwrap().unpack().unwrap().unwrap();
    result.prepared_statement_handle
}

async fn messages(command: Any, rows: &[RecordBatch]) -> Vec<FlightData> {
    let builder = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.encode_to_vec())));
    let rows = rows.to_vec();
    builder.build(stream::iter(rows.into_iter().map(Ok))).try_collect().await.unwrap()
}

async fn exchange(client: &mut Client, messages: Vec<FlightData>) -> Result<Vec<FlightData>, Status> {
    client.inner_mut().do_exchange(stream::iter(messages)).await.unwrap().into_inner().try_collect().await
}

#[tokio::test]
async fn what_is_no_exchange_is_refused_precisely() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let handle = prepare(&mut client, "SELECT $1 + 1").await;
    let by = |prepared_statement_handle: Bytes| CommandPreparedStatementQuery { prepared_statement_handle }.as_any();
    let good = messages(by(handle.clone()), &[ids(&[1]), ids(&[2])]).await;
    let answers = exchange(&mut client, good.clone()).await.unwrap();
    assert_eq!(answers.len(), 3, "the schema, and a message for each execution");
    assert!(answers[0].app_metadata.is_empty() && answers[1..].iter().all(|answer| !answer.app_metadata.is_empty()));

    let sql = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None }.as_any();
    let as_update = CommandPreparedStatementUpdate { prepared_statement_handle: handle.clone() }.as_any();
    let without_schema = FlightData { data_header: Bytes::new(), ..good[0].clone() };
    let mut nonsense = good.clone();
    nonsense[1].data_body = Bytes::from_static(b"?");
    for (sent, code, sqlstate) in [
        (vec![], Code::InvalidArgument, "08P01"),
        (vec![FlightData::new()], Code::InvalidArgument, "08P01"),
        (messages(sql, &[ids(&[1])]).await, Code::Unimplemented, "0A000"),
        (messages(by(Bytes::from_static(&[7; 16])), &[ids(&[1])]).await, Code::NotFound, "26000"),
        (messages(by(Bytes::from_static(b"short")), &[ids(&[1])]).await, Code::InvalidArgument, "08P01"),
        (messages(as_update, &[ids(&[1])]).await, Code::InvalidArgument, "07003"),
        (vec![without_schema.clone()], Code::InvalidArgument, "08P01"),
        (vec![without_schema, good[1].clone()], Code::InvalidArgument, "08P01"),
        (nonsense, Code::InvalidArgument, "08P01"),
    ] {
        let status = exchange(&mut client, sent).await.unwrap_err();
        assert_eq!((status.code(), &status.message()[1..6]), (code, sqlstate), "{status:?}");
    }

    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
    let action = Action::new("ClosePreparedStatement", close.as_any().encode_to_vec());
    client.do_action(action).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(exchange(&mut client, good).await.unwrap_err().code(), Code::NotFound);
}
