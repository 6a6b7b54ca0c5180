//! Session options by Flight's own actions, message by message: arrow-flight has no types for them.

use std::collections::HashMap;

use arrow_flight::Action;
use arrow_flight::sql::EndTransaction;
use bytes::Bytes;
use prost::Message;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, fetch, number, query, texts, update};

#[derive(Clone, PartialEq, prost::Message)]
struct SetRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(int32, tag = "1")]
    value: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    flag: Option<bool>,
    #[prost(sfixed64, optional, tag = "3")]
    integer: Option<i64>,
    #[prost(message, optional, tag = "5")]
    texts: Option<Texts>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

fn text(text: &str) -> OptionValue {
    OptionValue { text: Some(text.to_owned()), ..Default::default() }
}

/// Sets options; the protocol's error by name of those that were not set.
async fn set(client: &mut Client, options: &[(&str, OptionValue)]) -> HashMap<String, i32> {
    let session_options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let action = Action::new("SetSessionOptions", SetRequest { session_options }.encode_to_vec());
    let result = client.do_action(action).await.unwrap().message().await.unwrap().unwrap();
    let result = SetResult::decode(result.body).unwrap();
    result.errors.into_iter().map(|(name, error)| (name, error.value)).collect()
}

async fn get(client: &mut Client) -> HashMap<String, String> {
    let result =
        client.do_action(Action::new("GetSessionOptions", "")).await.unwrap().message().await.unwrap().unwrap();
    // The answer has the same shape as the request to set.
    let options = SetRequest::decode(result.body).unwrap().session_options;
    options.into_iter().map(|(name, value)| (name, value.text.unwrap())).collect()
}

async fn show(client: &mut Client, setting: &str) -> String {
    texts(&query(client, &format!("SHOW {setting}")).await.unwrap(), setting).remove(0)
}

#[tokio::test]
async fn options_are_the_settings_of_the_session() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    let mut other = server.session().await;
    let integer = OptionValue { integer: Some(1500), ..Default::default() };
    let off = OptionValue { flag: Some(false), ..Default::default() };
    let options = [("statement_timeout", integer), ("synchronous_commit", off), ("application_name", text("test"))];
    assert!(set(&mut client, &options).await.is_empty());
    assert_eq!(show(&mut client, "statement_timeout").await, "1500ms");
    assert_eq!(show(&mut client, "synchronous_commit").await, "off");
    assert_eq!(show(&mut other, "statement_timeout").await, "0", "a session of its own");

    update(&mut client, "SET application_name = 'changed by SQL'").await.unwrap();
    let shown = get(&mut client).await;
    assert_eq!(shown["application_name"], "changed by SQL");
    assert_eq!((shown["catalog"].as_str(), shown["schema"].as_str()), ("rustydb", "public"));

    assert!(set(&mut client, &[("statement_timeout", OptionValue::default())]).await.is_empty());
    assert_eq!(show(&mut client, "statement_timeout").await, "0", "no value means the default");
}

#[tokio::test]
async fn options_that_cannot_be_set_are_answered_one_by_one() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    let errors = set(
        &mut client,
        &[
            ("no_such_option", text("x")),
            ("statement_timeout", text("soon")),
            ("catalog", text("elsewhere")),
            ("schema", text("no_such_schema")),
            ("application_name", text("set all the same")),
        ],
    )
    .await;
    let expected = [("no_such_option", 1), ("statement_timeout", 2), ("catalog", 2), ("schema", 2)];
    assert_eq!(errors, expected.map(|(name, error)| (name.to_owned(), error)).into());
    assert_eq!(show(&mut client, "application_name").await, "set all the same");
    assert!(set(&mut client, &[("catalog", text("rustydb")), ("schema", text("public"))]).await.is_empty());
    update(&mut client, "CREATE SCHEMA \"a,b\"").await.unwrap();
    assert_eq!(set(&mut client, &[("schema", text("a,b"))]).await["schema"], 2, "two schemas in a search path");
    let malformed = client.do_action(Action::new("SetSessionOptions", vec![0xff, 0xff])).await.map(drop);
    assert_refused(malformed, Code::InvalidArgument, "08P01");
}

#[tokio::test]
async fn without_a_session_only_what_holds_anyway_is_accepted() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_eq!(get(&mut client).await["catalog"], "rustydb");
    assert!(set(&mut client, &[("catalog", text("rustydb")), ("schema", text("public"))]).await.is_empty());
    let options = [("statement_timeout", text("1s")), ("schema", text("other")), ("catalog", text("other"))];
    let expected = [("statement_timeout", 3), ("schema", 3), ("catalog", 2)];
    assert_eq!(set(&mut client, &options).await, expected.map(|(name, error)| (name.to_owned(), error)).into());
}

#[tokio::test]
async fn a_list_is_a_search_path_and_no_other_value() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    let list = |values: &[&str]| OptionValue {
        texts: Some(Texts { values: values.iter().map(|value| (*value).to_owned()).collect() }),
        ..Default::default()
    };
    assert!(set(&mut client, &[("search_path", list(&["sales", "public"]))]).await.is_empty());
    assert_eq!(show(&mut client, "search_path").await, "sales, public");
    let errors = set(&mut client, &[("search_path", list(&["a, b"])), ("timezone", list(&["UTC"]))]).await;
    assert_eq!(errors, [("search_path".to_owned(), 2), ("timezone".to_owned(), 2)].into());
}

#[tokio::test]
async fn transactions_take_settings_over_and_hand_back_what_they_commit() {
    async fn show_in(client: &mut Client, transaction: &Bytes, setting: &str) -> String {
        let info = client.execute(format!("SHOW {setting}"), Some(transaction.clone())).await.unwrap();
        texts(&fetch(client, info).await.unwrap(), setting).remove(0)
    }
    async fn run(client: &mut Client, transaction: &Bytes, sql: &str) {
        client.execute_update(sql.to_owned(), Some(transaction.clone())).await.unwrap();
    }
    let server = TestServer::start().await;
    let mut client = server.session().await;
    update(&mut client, "CREATE SCHEMA second").await.unwrap();
    let transaction = client.begin_transaction().await.unwrap();
    // Before its first statement.
    assert!(set(&mut client, &[("schema", text("second")), ("timezone", text("Asia/Tokyo"))]).await.is_empty());
    assert_eq!(show_in(&mut client, &transaction, "search_path").await, "second");
    run(&mut client, &transaction, "SET lock_timeout = '3s'").await;
    run(&mut client, &transaction, "SET LOCAL statement_timeout = '9s'").await;
    run(&mut client, &transaction, "CREATE SEQUENCE numbers").await;
    run(&mut client, &transaction, "PREPARE seven AS SELECT 7::bigint").await;
    let info = client.execute("SELECT nextval('numbers')".to_owned(), Some(transaction.clone())).await.unwrap();
    fetch(&mut client, info).await.unwrap();
    // What is set in the session meanwhile stays.
    assert!(set(&mut client, &[("application_name", text("meanwhile"))]).await.is_empty());
    client.end_transaction(transaction, EndTransaction::Commit).await.unwrap();
    for (setting, value) in [
        ("lock_timeout", "3000ms"),
        ("statement_timeout", "0"),
        ("timezone", "Asia/Tokyo"),
        ("application_name", "meanwhile"),
    ] {
        assert_eq!(show(&mut client, setting).await, value, "{setting}");
    }
    assert_eq!(number(&mut client, "EXECUTE seven").await, 7);
    assert_eq!(number(&mut client, "SELECT currval('numbers')").await, 1);

    let rolled_back = client.begin_transaction().await.unwrap();
    run(&mut client, &rolled_back, "SET lock_timeout = '5s'").await;
    client.end_transaction(rolled_back, EndTransaction::Rollback).await.unwrap();
    assert_eq!(show(&mut client, "lock_timeout").await, "3000ms");
    let by_sql = client.begin_transaction().await.unwrap();
    run(&mut client, &by_sql, "SET lock_timeout = '7s'").await;
    run(&mut client, &by_sql, "COMMIT").await;
    assert_eq!(show(&mut client, "lock_timeout").await, "7000ms");
}
