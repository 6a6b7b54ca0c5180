//! The client the SQL shell uses.

use std::path::PathBuf;

use arrow::datatypes::DataType;
use futures::TryStreamExt;
use rustydb_engine::Position;
use rustydb_flight::{FlightOptions, RemoteClient, RemoteError, RemoteOptions, RemoteResult, TlsFiles};

use crate::support::{TestServer, row_count};

fn options(url: String) -> RemoteOptions {
    RemoteOptions { url, ..Default::default() }
}

async fn changed(client: &RemoteClient, sql: &str) -> u64 {
    match client.execute(sql).await.unwrap() {
        RemoteResult::Done { rows } => rows,
        RemoteResult::Rows(_) => panic!("{sql} has no result set"),
    }
}

async fn rows(client: &RemoteClient, sql: &str) -> Result<usize, RemoteError> {
    match client.execute(sql).await? {
        RemoteResult::Rows(stream) => {
            let schema = stream.schema();
            let batches: Vec<_> = stream.try_collect().await?;
            assert!(batches.iter().all(|batch| batch.schema() == schema));
            Ok(row_count(&batches))
        }
        RemoteResult::Done { .. } => panic!("{sql} has a result set"),
    }
}

#[tokio::test]
async fn statements_work_and_the_session_lasts() {
    let server = TestServer::start().await;
    let client = RemoteClient::connect(options(format!("grpc://{}", server.address))).await.unwrap();
    assert_eq!(changed(&client, "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await, 0);
    assert_eq!(changed(&client, "BEGIN").await, 0);
    assert_eq!(changed(&client, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await, 2);
    assert_eq!(rows(&client, "SELECT * FROM t").await.unwrap(), 2);
    assert_eq!(changed(&client, "ROLLBACK").await, 0);
    assert_eq!(rows(&client, "SELECT * FROM t").await.unwrap(), 0);

    let tables = client.tables(None, Some("t")).await.unwrap();
    assert_eq!((tables[0].schema.as_str(), tables[0].name.as_str()), ("public", "t"));
    assert_eq!(*tables[0].columns.field(1).data_type(), DataType::Utf8);
    assert!(client.tables(None, Some("nothing")).await.unwrap().is_empty());

    let copy = client.clone();
    client.close().await.unwrap();
    assert_eq!(rows(&copy, "SELECT 1").await.unwrap_err().sqlstate(), "28000", "the session is over");
}

#[tokio::test]
async fn errors_come_back_in_their_parts() {
    let server = TestServer::start().await;
    let client = RemoteClient::connect(options(format!("grpc+tcp://{}", server.address))).await.unwrap();
    let error = rows(&client, "SELECT * FROM nowhere").await.unwrap_err();
    assert_eq!(error.sqlstate(), "42P01");
    assert_eq!(error.position(), Some(Position { line: 1, column: 15 }));
    assert!(!error.message().contains("[42P01]") && !error.message().contains("line 1"), "{error:?}");
}

#[tokio::test]
async fn connecting_says_what_is_wrong() {
    let refused = |url: &str| {
        let url = url.to_owned();
        async move { RemoteClient::connect(options(url)).await.unwrap_err() }
    };
    assert!(refused("localhost:1").await.hint().unwrap().contains("grpc://"));
    assert!(refused("http://localhost:1").await.message().contains("scheme"));
    let missing =
        RemoteOptions { ca_certificate: Some("missing.pem".into()), ..options("grpc+tls://localhost:1".into()) };
    assert!(RemoteClient::connect(missing).await.unwrap_err().message().contains("missing.pem"));
    let server = TestServer::start().await;
    let address = server.address;
    server.shut_down().await.unwrap();
    let error = refused(&format!("grpc://{address}")).await;
    assert_eq!(error.sqlstate(), "08001");
    assert!(error.message().contains(&address.to_string()), "{error:?}");
}

#[tokio::test]
async fn tls_and_a_token_protect_the_way() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/flight_sql/data");
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("tokens");
    std::fs::write(&token_file, "a-token-for-this-test-only\n").unwrap();
    let certificate = data.join("test-only-certificate.pem");
    let server = TestServer::with(FlightOptions {
        tls: Some(TlsFiles { certificate: certificate.clone(), key: data.join("test-only-key.pem"), client_ca: None }),
        token_file: Some(token_file),
        ..FlightOptions::new("127.0.0.1:0")
    })
    .await;

    let secure = RemoteOptions {
        url: format!("grpc+tls://localhost:{}", server.address.port()),
        token: Some("a-token-for-this-test-only".to_owned()),
        ca_certificate: Some(certificate),
        ..Default::default()
    };
    let client = RemoteClient::connect(secure.clone()).await.unwrap();
    assert_eq!(rows(&client, "SELECT 1").await.unwrap(), 1);

    let wrong = RemoteOptions { token: Some("another-token-altogether".to_owned()), ..secure.clone() };
    assert_eq!(RemoteClient::connect(wrong).await.unwrap_err().sqlstate(), "28P01");
    let plain = options(format!("grpc://{}", server.address));
    assert!(RemoteClient::connect(plain).await.is_err());
}
