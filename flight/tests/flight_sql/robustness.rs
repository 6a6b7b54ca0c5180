//! Bad input: whatever arrives is answered with a precise status, and the server goes on.

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    Any, CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate,
    ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, Ticket};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use prost::Message;
use rustydb_flight::FlightOptions;
use tonic::{Code, Status};

use crate::support::{Client, TestServer, assert_refused, number, people, query, update};

fn failed<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, sqlstate: &str) -> Status {
    assert_refused(outcome.map_err(FlightError::from), code, sqlstate)
}

/// A message of the right type whose content is not.
fn damaged<M: ProstMessageExt>() -> Vec<u8> {
    Any { type_url: M::type_url().to_owned(), value: Bytes::from_static(b"\xff\xff\xff") }.encode_to_vec()
}

async fn put(client: &mut Client, messages: Vec<FlightData>) -> Result<(), FlightError> {
    client.do_put(stream::iter(messages)).await?.try_collect::<Vec<_>>().await?;
    Ok(())
}

#[tokio::test]
async fn malformed_descriptors_and_tickets_are_the_clients_fault() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for bytes in [b"\xff\xff\xff".to_vec(), damaged::<CommandStatementQuery>()] {
        let descriptor = FlightDescriptor::new_cmd(bytes.clone());
        let inner = client.inner_mut();
        let status = failed(inner.get_flight_info(descriptor.clone()).await, Code::InvalidArgument, "08P01");
        assert!(!status.message().contains("DecodeError {"), "{status:?}");
        failed(inner.get_schema(descriptor.clone()).await, Code::InvalidArgument, "08P01");
        failed(inner.poll_flight_info(descriptor.clone()).await, Code::InvalidArgument, "08P01");
        failed(inner.do_get(Ticket::new(bytes)).await.map(drop), Code::InvalidArgument, "08P01");
        let message = FlightData::new().with_descriptor(descriptor);
        assert_refused(put(&mut client, vec![message]).await, Code::InvalidArgument, "08P01");
    }
    let short = TicketStatementQuery { statement_handle: Bytes::from_static(b"short") };
    let ticket = Ticket::new(short.as_any().encode_to_vec());
    failed(client.inner_mut().do_get(ticket).await.map(drop), Code::InvalidArgument, "08P01");
    let unknown = CommandPreparedStatementQuery { prepared_statement_handle: Bytes::from(vec![7; 16]) };
    let ticket = Ticket::new(unknown.as_any().encode_to_vec());
    failed(client.inner_mut().do_get(ticket).await.map(drop), Code::NotFound, "26000");
}

#[tokio::test]
async fn unknown_commands_actions_and_calls_are_refused_by_name() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let command = Any { type_url: "type.googleapis.com/x.Frobnicate".to_owned(), value: Bytes::new() };
    let descriptor = FlightDescriptor::new_cmd(command.encode_to_vec());
    let status = failed(client.inner_mut().get_flight_info(descriptor).await, Code::Unimplemented, "0A000");
    assert!(status.message().contains("\"Frobnicate\""), "{status:?}");
    let action = client.do_action(Action::new("Frobnicate", "")).await.map(drop);
    let status = assert_refused(action, Code::Unimplemented, "0A000");
    assert!(status.message().contains("CancelFlightInfo"), "it lists those there are: {status:?}");
    let plan = CommandStatementSubstraitPlan::default().as_any().encode_to_vec();
    let status =
        failed(client.inner_mut().get_flight_info(FlightDescriptor::new_cmd(plan)).await, Code::Unimplemented, "0A000");
    assert!(status.message().contains("Substrait"), "{status:?}");
    let action = client.do_action(Action::new("BeginTransaction", "\u{ff}\u{ff}")).await.map(drop);
    assert_refused(action, Code::InvalidArgument, "08P01");
}

#[tokio::test]
async fn the_actions_listed_are_those_there_are() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let actions = client.inner_mut().list_actions(arrow_flight::Empty {}).await.unwrap().into_inner();
    let names: Vec<String> = actions.map_ok(|action| action.r#type).try_collect().await.unwrap();
    assert!(names.contains(&"BeginTransaction".to_owned()));
    for name in names {
        let status =
            crate::support::status(client.do_action(Action::new(&name, "")).await.err().unwrap_or_else(|| {
                // Those whose request has no fields do what they say.
                assert!(["GetSessionOptions", "SetSessionOptions", "CloseSession"].contains(&name.as_str()), "{name}");
                Status::invalid_argument("").into()
            }));
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
    }
}

/// Messages that bind `people` to a prepared statement, to be damaged.
async fn binding(client: &mut Client) -> Vec<FlightData> {
    let prepare = arrow_flight::sql::ActionCreatePreparedStatementRequest {
        query: "SELECT $1 + 1, $2 || 'x'".to_owned(),
        transaction_id: None,
    };
    let action = Action::new("CreatePreparedStatement", prepare.as_any().encode_to_vec());
    let result = client.do_action(action).await.unwrap().message().await.unwrap().unwrap();
    let result = Any::decode(result.body).unwrap();
    let result: arrow_flight::sql::ActionCreatePreparedStatementResult = result.unpack().unwrap().unwrap();
    let bind = CommandPreparedStatementQuery { prepared_statement_handle: result.prepared_statement_handle };
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(bind.as_any().encode_to_vec())))
        .build(stream::iter([Ok(people(0..100))]))
        .try_collect()
        .await
        .unwrap()
}

#[tokio::test]
async fn malformed_arrow_data_is_the_clients_fault() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let whole = binding(&mut client).await;
    put(&mut client, whole.clone()).await.expect("undamaged");

    let mut truncated = whole.clone();
    truncated[1].data_body = truncated[1].data_body.slice(..64);
    let mut garbled = whole.clone();
    garbled[1].data_header = Bytes::from(vec![0x5a; 200]);
    let mut negative_offsets = whole.clone();
    negative_offsets[1].data_body = Bytes::from(vec![0xff; whole[1].data_body.len()]);
    let mut without_schema = whole.clone();
    without_schema[0].data_header = whole[1].data_header.clone();
    let mut second_schema = whole.clone();
    second_schema.push(FlightData { flight_descriptor: None, ..whole[0].clone() });
    for (what, messages) in [
        ("truncated", truncated),
        ("garbled", garbled),
        ("negative offsets", negative_offsets),
        ("without schema", without_schema),
        ("second schema", second_schema),
    ] {
        let status = assert_refused(put(&mut client, messages).await, Code::InvalidArgument, "08P01");
        assert!(status.message().contains("malformed Arrow data"), "{what}: {status:?}");
    }
    assert_eq!(number(&mut client, "SELECT 1").await, 1, "the connection still works");
}

#[tokio::test]
async fn a_put_without_command_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_refused(put(&mut client, vec![]).await, Code::InvalidArgument, "08P01");
    assert_refused(put(&mut client, vec![FlightData::new()]).await, Code::InvalidArgument, "08P01");
}

#[tokio::test]
async fn limits_are_kept_and_named() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.statement_bytes = 100;
    options.limits.tickets = 3;
    options.limits.prepared_statements = 2;
    options.limits.transactions = 1;
    options.limits.sessions = 1;
    options.limits.parameter_bytes = 100;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;

    let long = format!("SELECT '{}'", "x".repeat(100));
    assert_refused(query(&mut client, &long).await, Code::ResourceExhausted, "54000");
    for _ in 0..3 {
        client.execute("SELECT 1".to_owned(), None).await.unwrap();
    }
    let status = assert_refused(client.execute("SELECT 1".to_owned(), None).await, Code::ResourceExhausted, "53300");
    assert!(status.message().contains("ticket"), "{status:?}");

    let first = client.prepare("SELECT 1".to_owned(), None).await.unwrap();
    client.prepare("SELECT 1".to_owned(), None).await.unwrap();
    let third = client.prepare("SELECT 1".to_owned(), None).await.map(drop);
    assert_refused(third, Code::ResourceExhausted, "53300");
    first.close().await.unwrap();
    let messages = binding(&mut client).await;
    assert_refused(put(&mut client, messages).await, Code::ResourceExhausted, "54000");

    client.begin_transaction().await.unwrap();
    assert_refused(client.begin_transaction().await, Code::ResourceExhausted, "53300");
    client.handshake("a", "b").await.unwrap();
    assert!(server.client().await.handshake("a", "b").await.is_err());
}

#[tokio::test]
async fn what_waits_for_clients_is_bounded_as_a_whole() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.parameter_bytes_total = 100 << 10;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    let sql = format!("SELECT '{}'", "x".repeat(5 << 10));
    let first = client.prepare(sql.clone(), None).await.unwrap();
    client.prepare(sql.clone(), None).await.unwrap();
    assert_refused(client.prepare(sql.clone(), None).await.map(drop), Code::ResourceExhausted, "53200");
    first.close().await.unwrap();
    client.prepare(sql, None).await.expect("closing made room");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_one_below_is_not() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.message_bytes = 8 << 20;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    // More than gRPC's default limit of 4 MiB.
    let sql = |bytes: usize| format!("SELECT length('{}') AS n", "x".repeat(bytes));
    let command = |bytes| CommandStatementUpdate { query: sql(bytes), transaction_id: None };
    assert_eq!(query(&mut client, &sql(5 << 20)).await.unwrap()[0].num_rows(), 1);
    let descriptor = FlightDescriptor::new_cmd(command(9 << 20).as_any().encode_to_vec());
    let status = client.inner_mut().get_flight_info(descriptor).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    update(&mut client, "CREATE TABLE t (a BIGINT)").await.expect("the connection still works");
}
