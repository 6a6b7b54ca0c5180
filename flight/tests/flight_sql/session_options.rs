//! Session options by Flight's own actions, message by message: arrow-flight has no types for them.

use std::collections::HashMap;

use arrow_flight::Action;
use prost::Message;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, query, texts, update};

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
    let malformed = client.do_action(Action::new("SetSessionOptions", vec![0xff, 0xff])).await.map(drop);
    assert_refused(malformed, Code::InvalidArgument, "08P01");
}

#[tokio::test]
async fn without_a_session_only_what_holds_anyway_is_accepted() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    assert_eq!(get(&mut client).await["catalog"], "rustydb");
    assert!(set(&mut client, &[("catalog", text("rustydb")), ("schema", text("public"))]).await.is_empty());
    let errors = set(&mut client, &[("statement_timeout", text("1s")), ("schema", text("other"))]).await;
    assert_eq!(errors, [("statement_timeout".to_owned(), 3), ("schema".to_owned(), 2)].into());
}
