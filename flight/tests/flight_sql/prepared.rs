//! Prepared statements and their parameters.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use tonic::Code;

use crate::support::{TestServer, assert_refused, fetch, number, people, query, row_count, texts, update};

fn ids(values: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("$1", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]).unwrap()
}

#[tokio::test]
async fn parameters_are_described_and_bound_by_position() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT, name VARCHAR)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1, 'ann'), (2, 'bob'), (3, 'cid')").await.unwrap();

    let sql = "SELECT name FROM t WHERE id >= $1 AND name <> $2 ORDER BY id";
    let mut statement = client.prepare(sql.to_owned(), None).await.unwrap();
    let parameters = statement.parameter_schema().unwrap();
    assert_eq!(*parameters.field(0).data_type(), DataType::Int64);
    assert_eq!(*parameters.field(1).data_type(), DataType::Utf8);
    assert_eq!(statement.dataset_schema().unwrap().field(0).name(), "name");

    let values = RecordBatch::try_from_iter([
        ("first", Arc::new(Int64Array::from(vec![2])) as ArrayRef),
        ("second", Arc::new(StringArray::from(vec!["cid"])) as ArrayRef),
    ]);
    statement.set_parameters(values.unwrap()).unwrap();
    let info = statement.execute().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await.unwrap(), "name"), ["bob"]);
}

#[tokio::test]
async fn a_query_runs_once_per_row_of_parameters() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT, name VARCHAR)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1, 'ann'), (2, 'bob'), (3, 'cid')").await.unwrap();
    let mut statement = client.prepare("SELECT name FROM t WHERE id = $1".to_owned(), None).await.unwrap();
    statement.set_parameters(ids(&[3, 9, 1])).unwrap();
    let info = statement.execute().await.unwrap();
    assert_eq!(texts(&fetch(&mut client, info).await.unwrap(), "name"), ["cid", "ann"]);

    statement.set_parameters(ids(&[])).unwrap();
    let info = statement.execute().await.unwrap();
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 0);
}

#[tokio::test]
async fn an_update_with_many_rows_of_parameters_counts_them_all() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT, name VARCHAR)").await.unwrap();
    let mut statement = client.prepare("INSERT INTO t VALUES ($1, $2)".to_owned(), None).await.unwrap();
    assert!(statement.dataset_schema().unwrap().fields().is_empty(), "no result columns: an update");
    statement.set_parameters(people(0..25)).unwrap();
    assert_eq!(statement.execute_update().await.unwrap(), 25);
    statement.set_parameters(people(25..26)).unwrap();
    assert_eq!(statement.execute_update().await.unwrap(), 1);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 26);
}

#[tokio::test]
async fn an_update_can_be_executed_as_a_query() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT, name VARCHAR)").await.unwrap();
    let mut statement = client.prepare("INSERT INTO t VALUES ($1, $2)".to_owned(), None).await.unwrap();
    statement.set_parameters(people(0..3)).unwrap();
    let info = statement.execute().await.unwrap();
    assert!(info.schema.is_empty());
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 3);
}

#[tokio::test]
async fn a_ticket_keeps_its_parameters_when_the_statement_is_bound_again_or_closed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1), (2)").await.unwrap();
    let mut statement = client.prepare("SELECT id FROM t WHERE id = $1".to_owned(), None).await.unwrap();
    statement.set_parameters(ids(&[1])).unwrap();
    let first = statement.execute().await.unwrap();
    statement.set_parameters(ids(&[7])).unwrap();
    let second = statement.execute().await.unwrap();
    statement.close().await.unwrap();
    assert_eq!(row_count(&fetch(&mut client, first).await.unwrap()), 1);
    assert_eq!(row_count(&fetch(&mut client, second).await.unwrap()), 0);
}

#[tokio::test]
async fn missing_and_surplus_parameters_are_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT, name VARCHAR)").await.unwrap();
    let mut statement = client.prepare("SELECT * FROM t WHERE id = $1".to_owned(), None).await.unwrap();
    assert_refused(statement.execute().await, Code::InvalidArgument, "07001");
    statement.set_parameters(people(0..1)).unwrap();
    assert_refused(statement.execute().await, Code::InvalidArgument, "07001");
    assert_refused(query(&mut client, "SELECT * FROM t WHERE id = $1").await, Code::InvalidArgument, "07001");
}

#[tokio::test]
async fn a_closed_statement_is_gone_and_closing_it_again_is_no_error() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let statement = client.prepare("SELECT 1".to_owned(), None).await.unwrap();
    let mut copy = statement.clone();
    statement.close().await.unwrap();
    assert_refused(copy.execute().await, Code::NotFound, "26000");
    copy.close().await.unwrap();
}

#[tokio::test]
async fn preparing_checks_the_statement() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_refused(client.prepare("SELECT * FROM nowhere".to_owned(), None).await.map(drop), Code::NotFound, "42P01");
}

#[tokio::test]
async fn an_update_over_many_rows_is_all_or_nothing() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let mut statement = client.prepare("INSERT INTO t VALUES ($1)".to_owned(), None).await.unwrap();
    statement.set_parameters(ids(&[1, 2, 3, 2])).unwrap();
    assert_refused(statement.execute_update().await, Code::AlreadyExists, "23505");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn parameters_of_a_related_type_are_converted() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let narrow =
        |values: Vec<i32>| RecordBatch::try_from_iter([("x", Arc::new(Int32Array::from(values)) as ArrayRef)]).unwrap();
    let mut insert = client.prepare("INSERT INTO t VALUES ($1)".to_owned(), None).await.unwrap();
    insert.set_parameters(narrow(vec![1, 2])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 2);
    let mut select = client.prepare("SELECT id FROM t WHERE id = $1".to_owned(), None).await.unwrap();
    select.set_parameters(narrow(vec![2])).unwrap();
    let info = select.execute().await.unwrap();
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 1);
}

#[tokio::test]
async fn a_result_is_announced_as_the_tables_are_when_the_statement_is_executed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (v BOOLEAN)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (true)").await.unwrap();
    let mut statement = client.prepare("SELECT * FROM t".to_owned(), None).await.unwrap();
    let info = statement.execute().await.unwrap();
    assert_eq!(row_count(&fetch(&mut client, info).await.unwrap()), 1);

    update(&mut client, "DROP TABLE t").await.unwrap();
    update(&mut client, "CREATE TABLE t (w BIGINT, x TEXT)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (42, 'a')").await.unwrap();
    let info = statement.execute().await.unwrap();
    let names: Vec<String> =
        info.clone().try_decode_schema().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["w", "x"]);
    let rows = fetch(&mut client, info).await.unwrap();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 42);
    assert_eq!(texts(&rows, "x"), ["a"]);

    // Between the announcement and the rows.
    let info = statement.execute().await.unwrap();
    update(&mut client, "DROP TABLE t").await.unwrap();
    update(&mut client, "CREATE TABLE t (w DOUBLE PRECISION, x TEXT)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (3.75, 'a')").await.unwrap();
    assert_refused(fetch(&mut client, info).await, Code::Unimplemented, "0A000");
    update(&mut client, "DROP TABLE t").await.unwrap();
    assert_refused(statement.execute().await, Code::NotFound, "42P01");
}
