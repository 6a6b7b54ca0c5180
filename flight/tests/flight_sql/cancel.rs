//! Stopping statements: by action, and by leaving.

use std::time::Duration;

use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult, Any, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use futures::StreamExt;
use prost::Message;
use rustydb_flight::FlightOptions;
use tonic::Code;

use crate::support::{Client, ENDLESS_QUERY, TestServer, assert_refused, create_many, fetch, number, query, status};

async fn cancel_flight_info(client: &mut Client, info: &FlightInfo) -> CancelStatus {
    let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let mut results = client.do_action(Action::new("CancelFlightInfo", body)).await.unwrap();
    let result = results.message().await.unwrap().unwrap();
    CancelFlightInfoResult::decode(result.body).unwrap().status()
}

#[tokio::test]
async fn a_running_query_is_stopped() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let info = client.execute(ENDLESS_QUERY.to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.next().await.unwrap().unwrap().num_rows() > 0);

    let mut other = server.client().await;
    assert_eq!(cancel_flight_info(&mut other, &info).await, CancelStatus::Cancelled);
    let end = loop {
        // What was under way before the cancellation still arrives.
        match rows.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break status(error),
        }
    };
    assert_eq!((end.code(), &end.message()[..7]), (Code::Cancelled, "[57014]"));
    assert_eq!(cancel_flight_info(&mut other, &info).await, CancelStatus::NotCancellable, "it is gone");
}

#[tokio::test]
async fn a_query_that_was_not_fetched_yet_never_runs() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.execute("SELECT 1".to_owned(), None).await.unwrap();
    let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
    let action = Action::new("CancelQuery", request.as_any().encode_to_vec());
    let result = client.do_action(action).await.unwrap().message().await.unwrap().unwrap();
    let result: ActionCancelQueryResult = Any::decode(result.body).unwrap().unpack().unwrap().unwrap();
    assert_eq!(result.result, CancelStatus::Cancelled as i32);
    assert_refused(fetch(&mut client, info).await, Code::NotFound, "34000");
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_query() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    // With room for one result, the next query shows whether the last one is gone.
    options.limits.result_streams = 1;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    create_many(&mut client).await;

    let info = client.execute(ENDLESS_QUERY.to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    assert_refused(query(&mut client, "SELECT 1").await, Code::ResourceExhausted, "53300");
    drop(rows);
    let freed = async {
        while query(&mut client, "SELECT 1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("the query ends when its client leaves");
    assert_eq!(number(&mut client, "SELECT count(*) FROM many").await, 3_000);
}
