//! Starting, refusing to start, and stopping.

use std::time::Duration;

use futures::StreamExt;
use rustydb_engine::{Database, DatabaseOptions};
use rustydb_flight::{FlightOptions, FlightServer, ServerError, TlsFiles};

use crate::support::{ENDLESS_QUERY, TestServer, create_many, number, status, update};

async fn refusal(options: FlightOptions) -> ServerError {
    let database = Database::open(DatabaseOptions::memory()).await.unwrap();
    FlightServer::bind(options, database).await.err().expect("refused")
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let server = TestServer::start().await;
    let error = refusal(FlightOptions::new(server.address.to_string())).await;
    assert!(matches!(error, ServerError::AddressInUse { address } if address == server.address), "{error}");
}

#[tokio::test]
async fn beyond_loopback_it_wants_protection_or_consent() {
    let error = refusal(FlightOptions::new("0.0.0.0:0")).await;
    assert!(matches!(error, ServerError::Exposed { .. }), "{error}");
    let database = Database::open(DatabaseOptions::memory()).await.unwrap();
    let options = FlightOptions { insecure: true, ..FlightOptions::new("0.0.0.0:0") };
    FlightServer::bind(options, database).await.expect("told to");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing");
    let options = FlightOptions { token_file: Some(path.clone()), ..FlightOptions::new("127.0.0.1:0") };
    let error = refusal(options).await;
    assert!(error.to_string().contains("missing"), "{error}");

    std::fs::write(&path, "not a certificate").unwrap();
    let tls = TlsFiles { certificate: path.clone(), key: path, client_ca: None };
    let error = refusal(FlightOptions { tls: Some(tls), ..FlightOptions::new("127.0.0.1:0") }).await;
    assert!(matches!(error, ServerError::Tls { .. }), "{error}");

    let error = refusal(FlightOptions::new("no port")).await;
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
}

#[tokio::test]
async fn a_shutdown_without_requests_is_immediate() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
    let stopped = tokio::time::timeout(Duration::from_secs(5), server.shut_down()).await;
    stopped.expect("well within the grace period").unwrap();
    assert!(update(&mut client, "CREATE TABLE t (a BIGINT)").await.is_err());
}

#[tokio::test]
async fn a_shutdown_cuts_what_does_not_end_within_the_grace_period() {
    let options = FlightOptions { shutdown_grace: Duration::from_millis(200), ..FlightOptions::new("127.0.0.1:0") };
    let server = TestServer::with(options).await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let info = client.execute(ENDLESS_QUERY.to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    let reading = async {
        loop {
            if let Err(error) = rows.next().await.expect("the stream does not end by itself") {
                return error;
            }
        }
    };
    let stopping = tokio::time::timeout(Duration::from_secs(30), server.shut_down());
    let (error, stopped) = tokio::join!(reading, stopping);
    stopped.expect("an endless query does not keep the server").unwrap();
    let status = status(error);
    assert_eq!(status.metadata().get("x-sqlstate").unwrap(), "57P01", "{status:?}");
}
