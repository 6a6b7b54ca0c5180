//! Clients that do harm, meant or not: what each gets, and that the others notice nothing.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rustydb_flight::FlightOptions;
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, fetch, number, query, update};

/// Memory of this process, which is also the server's, in MiB.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

async fn put(client: &mut Client, messages: Vec<FlightData>) -> Result<(), FlightError> {
    client.do_put(stream::iter(messages)).await?.try_collect::<Vec<_>>().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_little_and_may_go_on() {
    let server = TestServer::start().await;
    let mut stalled = server.client().await;
    // 8 GB of rows.
    let sql = "SELECT value AS n FROM generate_series(1, 1000000000) AS s(value)";
    let info = stalled.execute(sql.to_owned(), None).await.unwrap();
    let mut rows = stalled.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let first = rows.next().await.unwrap().unwrap();
    let before = resident_mib();
    let mut other = server.client().await;
    for _ in 0..200 {
        assert_eq!(number(&mut other, "SELECT count(*) FROM generate_series(1, 1000)").await, 1000);
    }
    assert!(resident_mib() < before + 512, "{} MiB after {before}: its rows are piling up", resident_mib());
    let mut next = first.column(0).as_primitive::<Int64Type>().value(first.num_rows() - 1) + 1;
    for _ in 0..20 {
        let batch = rows.next().await.unwrap().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), next, "no row is lost");
        next += i64::try_from(batch.num_rows()).unwrap();
    }
}

#[tokio::test]
async fn a_statement_of_a_gigabyte_is_refused_unread() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    // Zeros that nobody has touched take no memory until they are sent.
    let descriptor = FlightDescriptor::new_cmd(Bytes::from(vec![0; 1 << 30]));
    let before = resident_mib();
    let refused = client.inner_mut().get_flight_info(descriptor).await.unwrap_err();
    assert_refused(Err::<(), _>(FlightError::from(refused)), Code::ResourceExhausted, "54000");
    assert_eq!(number(&mut server.client().await, "SELECT 1").await, 1);
    drop(client);
    assert!(resident_mib() < before + 3 * 1024, "the server keeps what it refused");

    let sql = format!("SELECT '{}'", "x".repeat(20 << 20));
    let mut client = server.client().await;
    assert_refused(query(&mut client, &sql).await, Code::ResourceExhausted, "54000");
    assert_eq!(number(&mut client, "SELECT 1").await, 1, "the connection still works");
}

#[tokio::test]
async fn expired_handles_are_named() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.ticket_idle = Duration::from_millis(50);
    options.limits.prepared_statement_idle = Duration::from_millis(50);
    options.limits.session_idle = Duration::from_millis(50);
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    let info = client.execute("SELECT 1".to_owned(), None).await.unwrap();
    let mut prepared = client.prepare("SELECT 1".to_owned(), None).await.unwrap();
    let mut session = server.session().await;
    let expired = async {
        while session.get_catalogs().await.is_ok() {
            // Asking is using: the session must be left alone for its idle time.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), expired).await.expect("sessions expire");
    assert_refused(session.get_catalogs().await, Code::Unauthenticated, "28000");
    assert_refused(fetch(&mut client, info).await, Code::NotFound, "34000");
    assert_refused(prepared.execute().await, Code::NotFound, "26000");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_served_in_time() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.connections = 8;
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    // They say nothing, and hold all the places there are.
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(number(&mut client, "SELECT 1").await, 1, "who is connected is served");
    let waiting = tokio::spawn({
        let address = server.address;
        async move { number(&mut crate::support::connect(address).await, "SELECT 1").await }
    });
    drop(silent);
    let served = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("places come free");
    assert_eq!(served.unwrap(), 1);
}

#[tokio::test]
async fn data_for_a_query_that_takes_none_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (a BIGINT)").await.unwrap();
    // A command that has no place in DoPut.
    let command = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
    let message = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
    assert_refused(put(&mut client, vec![message]).await, Code::Unimplemented, "0A000");
    // A handle of the wrong kind: a transaction's where a prepared statement's belongs.
    let transaction = client.begin_transaction().await.unwrap();
    let command = CommandPreparedStatementQuery { prepared_statement_handle: transaction };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let refused = client.inner_mut().get_flight_info(descriptor).await.unwrap_err();
    assert_eq!((refused.code(), &refused.message()[..7]), (Code::NotFound, "[26000]"));
}

#[tokio::test]
async fn a_put_of_nothing_says_what_to_send() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let status = assert_refused(put(&mut client, vec![]).await, Code::InvalidArgument, "08P01");
    assert!(status.message().contains("one record batch without rows"), "{status:?}");
}
