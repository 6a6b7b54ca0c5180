//! The calls around a query: polling for it, keeping its ticket, doing without GetFlightInfo, and plain Flight.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{Any, CommandGetTables, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, FlightDescriptor, FlightEndpoint,
    FlightInfo, PollInfo, RenewFlightEndpointRequest, Ticket,
};
use futures::TryStreamExt;
use prost::Message;
use rustydb_flight::FlightOptions;
use std::time::Duration;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, create_many, fetch, number, row_count, texts, update};

fn query_command(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

async fn poll(client: &mut Client, descriptor: FlightDescriptor) -> Result<PollInfo, tonic::Status> {
    client.inner_mut().poll_flight_info(descriptor).await.map(tonic::Response::into_inner)
}

/// Polls until the query is complete; the number of polls it took besides the first.
async fn poll_to_end(client: &mut Client, mut polled: PollInfo) -> (PollInfo, usize) {
    let mut polls = 0;
    while let Some(again) = polled.flight_descriptor.clone() {
        let progress = polled.progress.unwrap_or(0.0);
        assert!((0.0..=1.0).contains(&progress), "{progress}");
        polled = poll(client, again).await.unwrap();
        polls += 1;
    }
    (polled, polls)
}

/// Aggregates some 9 million pairs, so that its one row takes a while.
const SLOW: &str = "SELECT sum((a.x * b.x) % 7) AS n FROM many a CROSS JOIN many b";

#[tokio::test]
async fn a_quick_query_is_complete_at_the_first_poll() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let polled = poll(&mut client, query_command("SELECT 7 AS n")).await.unwrap();
    let (polled, _) = poll_to_end(&mut client, polled).await;
    assert_eq!(polled.progress, Some(1.0));
    let batches = fetch(&mut client, polled.info.unwrap()).await.unwrap();
    assert_eq!(row_count(&batches), 1);
    let tables = FlightDescriptor::new_cmd(CommandGetTables::default().as_any().encode_to_vec());
    assert!(poll(&mut client, tables).await.unwrap().flight_descriptor.is_none(), "metadata is there at once");
}

#[tokio::test]
async fn a_long_query_is_polled_until_it_is_complete_and_runs_once() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let polled = poll(&mut client, query_command(SLOW)).await.unwrap();
    assert!(polled.expiration_time.is_some());
    let (polled, _) = poll_to_end(&mut client, polled).await;
    let info = polled.info.unwrap();
    assert_eq!(row_count(&fetch(&mut client, info.clone()).await.unwrap()), 1);
    assert_refused(fetch(&mut client, info).await, Code::NotFound, "34000");

    update(&mut client, "CREATE TABLE once (a BIGINT)").await.unwrap();
    let insert = poll(&mut client, query_command("INSERT INTO once VALUES (1)")).await.unwrap();
    let (insert, _) = poll_to_end(&mut client, insert).await;
    assert_eq!(number(&mut client, "SELECT count(*) FROM once").await, 1, "done before it is fetched");
    fetch(&mut client, insert.info.unwrap()).await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM once").await, 1);
}

#[tokio::test]
async fn rows_can_be_fetched_before_the_query_is_complete() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let polled = poll(&mut client, query_command(SLOW)).await.unwrap();
    assert_eq!(row_count(&fetch(&mut client, polled.info.unwrap()).await.unwrap()), 1);
}

#[tokio::test]
async fn an_error_while_polling_is_the_answer_to_the_poll() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let outcome = async {
        let polled = poll(&mut client, query_command("SELECT sum(1 / (x - x)) FROM many")).await?;
        let mut again = polled.flight_descriptor;
        while let Some(descriptor) = again {
            again = poll(&mut client, descriptor).await?.flight_descriptor;
        }
        Ok::<_, tonic::Status>(())
    };
    assert_refused(outcome.await.map_err(Into::into), Code::InvalidArgument, "22012");
    let nonsense = poll(&mut client, query_command("SELEC")).await;
    assert_refused(nonsense.map_err(Into::into), Code::InvalidArgument, "42601");
}

#[tokio::test]
async fn a_polled_query_can_be_cancelled_and_expires() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.ticket_idle = Duration::from_millis(200);
    // With room for one result, the next query shows whether the last one is gone.
    options.limits.result_streams = 1;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let endless = "SELECT sum(a.x) FROM many a CROSS JOIN many b CROSS JOIN many c";
    let polled = poll(&mut client, query_command(endless)).await.unwrap();
    let info = polled.info.unwrap();
    let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let result = client.do_action(Action::new("CancelFlightInfo", body)).await.unwrap().message().await;
    let result = CancelFlightInfoResult::decode(result.unwrap().unwrap().body).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    let gone = poll(&mut client, polled.flight_descriptor.expect("endless")).await;
    assert_refused(gone.map_err(Into::into), Code::NotFound, "34000");

    // Left alone, it is ended for its client.
    let again = async {
        while poll(&mut client, query_command(endless)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while crate::support::query(&mut client, "SELECT 1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("both ended");
}

#[tokio::test]
async fn a_query_can_be_its_own_ticket_but_a_change_cannot() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let ticket = |sql: &str| Ticket::new(query_command(sql).cmd);
    let rows: Vec<RecordBatch> = client.do_get(ticket("SELECT 'x' AS a")).await.unwrap().try_collect().await.unwrap();
    assert_eq!(texts(&rows, "a"), ["x"]);
    update(&mut client, "CREATE TABLE t (a BIGINT)").await.unwrap();
    let refused = client.do_get(ticket("INSERT INTO t VALUES (1)")).await.map(drop);
    assert_refused(refused, Code::InvalidArgument, "07003");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn an_endpoint_is_renewed_as_long_as_its_ticket_is_there() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.execute("SELECT 1 AS one".to_owned(), None).await.unwrap();
    let request = RenewFlightEndpointRequest { endpoint: Some(info.endpoint[0].clone()) };
    let renew = || Action::new("RenewFlightEndpoint", request.encode_to_vec());
    let result = client.do_action(renew()).await.unwrap().message().await.unwrap().unwrap();
    let renewed = FlightEndpoint::decode(result.body).unwrap();
    assert_eq!(renewed.ticket, info.endpoint[0].ticket);
    assert!(renewed.expiration_time.is_some());
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 1);
    assert_refused(client.do_action(renew()).await.map(drop), Code::NotFound, "34000");
    for body in [vec![0xff], RenewFlightEndpointRequest { endpoint: None }.encode_to_vec()] {
        let refused = client.do_action(Action::new("RenewFlightEndpoint", body)).await.map(drop);
        assert_refused(refused, Code::InvalidArgument, "08P01");
    }
}

#[tokio::test]
async fn plain_flight_lists_tables_and_fetches_them_by_path() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE \"Odd \"\"name\" (id BIGINT PRIMARY KEY)").await.unwrap();
    update(&mut client, "INSERT INTO \"Odd \"\"name\" VALUES (1), (2)").await.unwrap();
    let listed = client.inner_mut().list_flights(Criteria::default()).await.unwrap().into_inner();
    let listed: Vec<_> = listed.try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].flight_descriptor.as_ref().unwrap().path, ["public", "Odd \"name"]);
    assert_eq!(row_count(&fetch(&mut client, listed[0].clone()).await.unwrap()), 2);

    let path = FlightDescriptor::new_path(vec!["Odd \"name".to_owned()]);
    let schema = client.inner_mut().get_schema(path.clone()).await.unwrap().into_inner();
    assert_eq!(arrow::datatypes::Schema::try_from(schema).unwrap().field(0).name(), "id");
    let info = client.inner_mut().get_flight_info(path).await.unwrap().into_inner();
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 2);
    let missing = FlightDescriptor::new_path(vec!["nowhere".to_owned()]);
    let missing = client.inner_mut().get_flight_info(missing).await;
    assert_refused(missing.map_err(Into::into), Code::NotFound, "42P01");
    let criteria = Criteria { expression: "x".into() };
    let refused = client.inner_mut().list_flights(criteria).await.map(drop);
    assert_refused(refused.map_err(Into::into), Code::Unimplemented, "0A000");
}

#[tokio::test]
async fn a_ticket_that_was_not_polled_for_cannot_be_polled() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.execute("SELECT 1".to_owned(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert!(Any::decode(&*ticket.ticket).is_ok());
    let refused = poll(&mut client, FlightDescriptor::new_cmd(ticket.ticket)).await;
    assert_refused(refused.map_err(Into::into), Code::InvalidArgument, "08P01");
}

#[tokio::test]
async fn rows_are_compressed_on_request() {
    let server = TestServer::start().await;
    let mut sizes = Vec::new();
    for compression in [None, Some("lz4"), Some("zstd")] {
        let mut client = server.client().await;
        if let Some(compression) = compression {
            client.set_header("x-rustydb-compression", compression);
        }
        let sql = "SELECT repeat('x', 1000) AS text FROM generate_series(1, 1000) AS s(value)";
        assert_eq!(row_count(&crate::support::query(&mut client, sql).await.unwrap()), 1000);
        let ticket = tonic::Request::new(Ticket::new(query_command(sql).cmd));
        let (mut metadata, extensions, ticket) = ticket.into_parts();
        if let Some(compression) = compression {
            metadata.insert("x-rustydb-compression", compression.parse().unwrap());
        }
        let messages = client.inner_mut().do_get(tonic::Request::from_parts(metadata, extensions, ticket)).await;
        let messages: Vec<_> = messages.unwrap().into_inner().try_collect().await.unwrap();
        sizes.push(messages.iter().map(|message| message.data_body.len()).sum::<usize>());
    }
    assert!(sizes[0] > 1_000_000 && sizes[1] * 10 < sizes[0] && sizes[2] * 10 < sizes[0], "{sizes:?}");
    let mut client = server.client().await;
    client.set_header("x-rustydb-compression", "rar");
    let refused = crate::support::query(&mut client, "SELECT 1").await;
    assert_refused(refused, Code::InvalidArgument, "22023");
}

async fn with_endpoints(server: &TestServer, endpoints: &str) -> Client {
    let mut client = server.client().await;
    client.set_header("x-rustydb-endpoints", endpoints);
    client
}

/// The values of the one column that one endpoint sends.
async fn values(mut client: Client, ticket: Ticket) -> Result<Vec<i64>, FlightError> {
    let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
    let columns = batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>());
    Ok(columns.flat_map(|column| column.values().to_vec()).collect())
}

#[tokio::test]
async fn several_endpoints_share_one_result() {
    let server = TestServer::start().await;
    let mut client = with_endpoints(&server, "3").await;
    let sql = "SELECT value FROM generate_series(1, 500000) AS s(value)";
    let tickets = |info: FlightInfo| info.endpoint.into_iter().map(|endpoint| endpoint.ticket.unwrap());

    let info = client.execute(sql.to_owned(), None).await.unwrap();
    assert_eq!(info.endpoint.len(), 3);
    let parts = tickets(info).map(|ticket| values(client.clone(), ticket));
    let mut received: Vec<i64> = futures::future::try_join_all(parts).await.unwrap().concat();
    received.sort_unstable();
    assert_eq!(received, (1..=500_000).collect::<Vec<i64>>(), "each row once, at the same time");

    let info = client.execute(sql.to_owned(), None).await.unwrap();
    let mut one_after_the_other = Vec::new();
    for ticket in tickets(info) {
        one_after_the_other.push(values(client.clone(), ticket).await.unwrap().len());
    }
    assert_eq!(one_after_the_other.iter().sum::<usize>(), 500_000);

    client.handshake("anyone", "anything").await.unwrap();
    update(&mut client, &format!("PREPARE ordered AS {sql} ORDER BY value")).await.unwrap();
    for ordered in [format!("{sql} ORDER BY value"), "EXECUTE ordered".to_owned()] {
        let info = client.execute(ordered, None).await.unwrap();
        assert_eq!(info.endpoint.len(), 1, "an order would be lost");
    }
    for nonsense in ["0", "17", "many"] {
        let refused = with_endpoints(&server, nonsense).await.execute(sql.to_owned(), None).await;
        assert_refused(refused, Code::InvalidArgument, "22023");
    }
}

#[tokio::test]
async fn an_error_reaches_every_endpoint_and_cancelling_stops_all() {
    let server = TestServer::start().await;
    let mut client = with_endpoints(&server, "2").await;
    create_many(&mut client).await;
    let info = client.execute("SELECT 1 / (x - x) AS n FROM many".to_owned(), None).await.unwrap();
    for endpoint in info.endpoint {
        let failed = values(client.clone(), endpoint.ticket.unwrap()).await;
        assert_refused(failed, Code::InvalidArgument, "22012");
    }
    let info = client.execute(crate::support::ENDLESS_QUERY.to_owned(), None).await.unwrap();
    let parts = info.endpoint.iter().map(|endpoint| values(client.clone(), endpoint.ticket.clone().unwrap()));
    let parts: Vec<_> = parts.map(tokio::spawn).collect();
    let body = CancelFlightInfoRequest::new(info).encode_to_vec();
    let result = client.do_action(Action::new("CancelFlightInfo", body)).await.unwrap().message().await;
    let result = CancelFlightInfoResult::decode(result.unwrap().unwrap().body).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    for part in parts {
        let status = crate::support::status(part.await.unwrap().unwrap_err());
        assert!(matches!(status.code(), Code::Cancelled | Code::NotFound), "{status:?}");
    }
}
