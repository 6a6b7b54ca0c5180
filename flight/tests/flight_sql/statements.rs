//! SQL text, as query and as update.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Schema};
use tonic::Code;

use crate::support::{TestServer, assert_refused, create_many, fetch, number, query, row_count, status, texts, update};

#[tokio::test]
async fn a_query_returns_rows_in_the_schema_that_was_announced() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.execute("SELECT 1 AS a, 'x' AS b, NULL AS c".to_owned(), None).await.unwrap();
    let announced: Schema = info.clone().try_into().unwrap();
    let batches = fetch(&mut client, info).await.unwrap();
    assert_eq!(*batches[0].schema(), announced);
    assert_eq!(*announced.field(1).data_type(), DataType::Utf8, "clients need not know string views");
    assert_eq!(texts(&batches, "b"), ["x"]);
}

#[tokio::test]
async fn an_update_reports_the_rows_it_changed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_eq!(update(&mut client, "CREATE TABLE t (a BIGINT)").await.unwrap(), 0);
    assert_eq!(update(&mut client, "INSERT INTO t VALUES (1), (2), (3)").await.unwrap(), 3);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 3);
}

#[tokio::test]
async fn a_statement_without_result_can_be_executed_as_a_query_and_runs_once() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.execute("CREATE TABLE t (a BIGINT)".to_owned(), None).await.unwrap();
    assert!(info.schema.is_empty(), "no schema is promised, so that clients wait for the one of DoGet");
    assert_refused(query(&mut client, "SELECT * FROM t").await, Code::NotFound, "42P01");
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 0);

    let info = client.execute("INSERT INTO t VALUES (7)".to_owned(), None).await.unwrap();
    fetch(&mut client, info.clone()).await.unwrap();
    assert_refused(fetch(&mut client, info).await, Code::NotFound, "34000");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_query_sent_as_an_update_is_refused_before_it_runs() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let status = assert_refused(update(&mut client, "SELECT 1").await, Code::InvalidArgument, "07003");
    assert!(status.message().contains("Hint: "), "{status:?}");
}

#[tokio::test]
async fn errors_carry_sqlstate_and_position() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_refused(query(&mut client, "SELEC 1").await, Code::InvalidArgument, "42601");
    let missing = assert_refused(query(&mut client, "SELECT * FROM nowhere").await, Code::NotFound, "42P01");
    assert_eq!(missing.metadata().get("x-sql-position").unwrap(), "1:15");
    assert!(missing.message().contains("(line 1, column 15)"), "{missing:?}");
    update(&mut client, "CREATE TABLE t (a BIGINT)").await.unwrap();
    assert_refused(update(&mut client, "CREATE TABLE t (a BIGINT)").await, Code::AlreadyExists, "42P07");
}

#[tokio::test]
async fn an_error_in_mid_result_reaches_the_client_after_the_rows_before_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    // Fails on the last of three million rows, long after the first batch was sent.
    let sql = "SELECT 1 / (2999 - a.x + (CASE WHEN b.x = 999 THEN 0 ELSE 1 END)) FROM many a CROSS JOIN many b";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    let status = status(fetch(&mut client, info).await.unwrap_err());
    assert_eq!((status.code(), &status.message()[..7]), (Code::InvalidArgument, "[22012]"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM many").await, 3_000, "the connection still works");
}

#[tokio::test]
async fn a_large_result_arrives_whole() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_many(&mut client).await;
    let sql = "SELECT a.x, repeat('x', 20) AS text FROM many a CROSS JOIN (SELECT x FROM many WHERE x < 100) b";
    let batches = query(&mut client, sql).await.unwrap();
    assert_eq!(row_count(&batches), 300_000);
    assert!(batches.iter().all(|batch| batch.column(1).as_string::<i32>().value(0).len() == 20));
}

#[tokio::test]
async fn statements_about_the_database_are_queries_too() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR)").await.unwrap();
    for (sql, rows) in [("SHOW TABLES", 1), ("DESCRIBE t", 2), ("SHOW statement_timeout", 1)] {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let announced: Schema = info.clone().try_into().unwrap();
        let batches = fetch(&mut client, info).await.unwrap();
        assert_eq!(row_count(&batches), rows, "{sql}");
        assert!(batches.iter().all(|batch| *batch.schema() == announced), "{sql}");
    }
    assert!(row_count(&query(&mut client, "EXPLAIN SELECT * FROM t").await.unwrap()) > 0);
    let columns = "SELECT * FROM information_schema.columns WHERE table_name = 't'";
    assert_eq!(row_count(&query(&mut client, columns).await.unwrap()), 2);
}

#[tokio::test]
async fn concurrent_clients_do_not_disturb_each_other() {
    let server = TestServer::start().await;
    update(&mut server.client().await, "CREATE TABLE t (client BIGINT, n BIGINT)").await.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for id in 0..8 {
        let mut client = server.client().await;
        clients.spawn(async move {
            for n in 0..5 {
                assert_eq!(update(&mut client, &format!("INSERT INTO t VALUES ({id}, {n})")).await.unwrap(), 1);
                let mine = number(&mut client, &format!("SELECT count(*) FROM t WHERE client = {id}")).await;
                assert_eq!(mine, n + 1);
            }
        });
    }
    clients.join_all().await;
    assert_eq!(number(&mut server.client().await, "SELECT count(*) FROM t").await, 40);
}
